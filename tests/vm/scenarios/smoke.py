"""Two nodes share GFS2; one loses power, is fenced, its lock goes to a waiter, and it comes back."""

import time

from harness.locker import Locker

NODES = 2
CLIENTS = 1

FILE = "/srv/data/smoke"


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]

    assert cluster.members(node1) == cluster.members(node2) == (True, {1, 2})
    client.run(f"ping -c 1 -W 5 {node1.address} && ping -c 1 -W 5 {node2.address}")
    cluster.step("corosync is quorate on both nodes, the client reaches them")

    holder = Locker(node1, FILE, "holder")
    holder.lock()
    holder.write("written by node1")
    probe = Locker(node2, FILE, "probe")
    assert not probe.try_lock(), "node2 got a lock that node1 holds"
    assert probe.test().startswith("held w 0 0"), probe.test()
    assert probe.read() == "written by node1"
    waiter = Locker(node2, FILE, "waiter")
    waiter.start_lock()
    cluster.step("node1 holds a lock; node2 sees the conflict, and waits")

    off = time.monotonic()
    node1.kill()
    cluster.step("node1 lost power")
    granted = waiter.wait_granted(60)
    cluster.step(f"node2's waiter got the lock {granted - off:.1f} s after the power failure")
    fencing = cluster.fence.wait(node1, since=off)
    cluster.step(f"node1 is fenced, {fencing.answered - off:.1f} s after the power failure")
    cluster.wait_membership(node2, [node2])
    node2.run("echo still here > /srv/data/after && sync", timeout=60)
    cluster.step("node2 is alone and writes")
    assert waiter.read() == "written by node1"

    booted = node1.boot()
    cluster.step(f"node1 booted again ({booted:.1f} s)")
    cluster.join(node1)
    again = Locker(node1, FILE, "again")
    assert node1.run("cat /srv/data/after").out == "still here\n"
    assert not again.try_lock(), "node1 got a lock that node2 holds"
    waiter.unlock()
    again.lock()
    cluster.step("node1 is back, sees node2's lock and gets it after the unlock")
