"""The harness's own faults on three nodes: pause, cut cable, partition; fencing that fails, is slow, is held."""

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
    cluster.session.net.partition(["node1"], ["node2", "node3"])
    cluster.fence.wait(node1, since=parted)
    cluster.session.net.heal()
    cluster.join(node1)
    lock = Locker(node1, "/srv/data/last", "last")
    lock.lock()
    cluster.step("node1 was partitioned, fenced, and is back; its locks work")
