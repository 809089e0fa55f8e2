"""Two of three nodes die at once: the third grants nothing and frees nothing; with quorum again the clients reclaim."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    _pacemaker.up(cluster)
    client = cluster.clients[0]
    lockers = _pacemaker.lock_through_both(client)
    left = _pacemaker.wait_started(cluster, "vs2", 60)
    dead = [node for node in cluster.nodes if node is not left]
    waiter = Locker(left, "/srv/data/vs1", "waiter")
    waiter.start_lock()
    fresh = Locker(left, "/srv/data/fresh", "fresh")  # opened in time: without quorum not even that works
    cluster.step(f"vs2 runs on {left}, vs1 on {_pacemaker.wait_started(cluster, 'vs1', 60)}; a program on {left} waits for vs1's lock")

    off = time.monotonic()
    for node in dead:
        node.kill()
    cluster.wait(lambda: not cluster.members(left)[0], 60, f"{left} to lose quorum")
    fresh.start_lock()
    time.sleep(20)
    now = _graced.status(left)
    assert now["gate"] == "closed" and not now["quorate"], now
    assert not waiter.granted() and not fresh.granted(), "a lock was granted without quorum"
    assert not [f for f in cluster.fence.history if f.asked > off], "fenced without quorum"
    assert _pacemaker.host(left, "vs1") is None and _pacemaker.host(left, "vs2") == left.name, "a server was touched without quorum"
    cluster.step(f"{' and '.join(map(str, dead))} lost power: {left} has no quorum, its gate is closed, nothing is granted, nothing moves")

    # They come back before anybody could fence them. With quorum again that is done first, although they have just booted.
    back = time.monotonic()
    for step in (lambda node: node.boot(), cluster.configure, cluster.start_corosync):
        cluster.each(step, dead)
    for node in dead:
        _pacemaker.wait_fenced(cluster, node, back, left)
        assert not node.running()
    cluster.step(f"they booted, there was quorum, and they were fenced, {time.monotonic() - back:.0f} s after they were switched on")
    assert not waiter.granted() and not fresh.granted()
    _pacemaker.rejoin(cluster, dead)
    new = _pacemaker.wait_started(cluster, "vs1", 600)
    _pacemaker.wait_started(cluster, "vs2", 300)
    assert not waiter.granted(), "a program got A's lock"
    _pacemaker.wait_kept(cluster, lockers, "with quorum again")
    fresh.wait_granted(60)
    cluster.step(f"vs1 runs on {new}, {time.monotonic() - off:.0f} s after the power failure; the client has kept both locks")
    for node in dead:
        cluster.wait(lambda: _pacemaker.mounted(node), 300, f"{node} to have its GFS2 again", every=5)
    _pacemaker.wait_kept(cluster, lockers, "all back")
    _pacemaker.let_go(cluster, lockers, [("vs1", waiter)])
    cluster.step("all nodes are back; the client unlocked, and only then the waiting program has the lock")
