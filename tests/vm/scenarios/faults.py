"""The harness's own faults on three nodes: pause, cut cable, partition, cold start; fencing that fails, is held."""

import time

from harness.locker import Locker

NODES = 3
CLIENTS = 0


def run(cluster):
    node1, node2, node3 = cluster.nodes

    # A pause longer than the token: the others go on without it, and fencing ends it.
    cluster.fence.fail_next = 1
    node3.pause()
    paused = time.monotonic()
    cluster.wait(lambda: cluster.members(node1) == (True, {1, 2}), 60, "node1 to drop the paused node3")
    cluster.step(f"node3, paused, was dropped after {time.monotonic() - paused:.1f} s")
    cluster.fence.wait(node3, since=paused)
    attempts = [fencing.ok for fencing in cluster.fence.history]
    assert attempts == [False, True], attempts
    assert not node3.running()
    cluster.step("it was fenced at the second attempt")
    cluster.join(node3)
    cluster.step("node3 is back")

    # A short pause is not noticed.
    node3.pause()
    time.sleep(1.5)
    node3.resume()
    node3.ping()
    assert cluster.members(node1) == (True, {1, 2, 3})

    # A cut cable: the node lives, inquorate, until fencing. Held fencing holds DLM's recovery.
    cluster.fence.hold()
    cut = time.monotonic()
    node2.cut()
    cluster.wait(lambda: cluster.members(node2) == (False, {2}), 60, "node2 to see that it is alone")
    cluster.wait(lambda: cluster.members(node1) == (True, {1, 3}), 60, "node1 to drop node2")
    cluster.wait(lambda: len(cluster.fence.history) == 3, 60, "fencing of node2 to be asked for")
    assert node2.run("echo alive").out == "alive\n"
    cluster.step("node2's cable is cut: inquorate, not fenced yet")
    cluster.fence.release()
    cluster.fence.wait(node2, since=cut)
    node2.restore()
    cluster.join(node2)
    cluster.step("node2 was fenced and is back")

    # A partition on the bridge: the minority side is fenced by the majority.
    parted = time.monotonic()
    cluster.net.partition(["node1"], ["node2", "node3"])
    cluster.fence.wait(node1, since=parted)
    cluster.net.heal()
    cluster.join(node1)
    lock = Locker(node1, "/srv/data/last", "last")
    lock.lock()
    assert cluster.logged(node1, "last", "#1 lock granted"), "the timeline has no line of the locker"
    cluster.step("node1 was partitioned, fenced, and is back; its locks work")

    # Everything loses power. The nodes' own disks and the shared one keep what was synced.
    node1.run("echo own > /var/lib/graced/kept && sync -f /var/lib/graced/kept")
    for node in cluster.nodes:
        node.kill()
    cluster.join(*cluster.nodes)
    assert node1.run("cat /var/lib/graced/kept").out == "own\n"
    assert Locker(node2, "/srv/data/last", "cold").try_lock()
    cluster.step("the whole cluster lost power and is back")
