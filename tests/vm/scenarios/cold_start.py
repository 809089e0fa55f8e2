"""The whole cluster loses power and starts again: the servers need grace, their client reclaims before anybody gets a new lock."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    _pacemaker.up(cluster)
    lockers = _pacemaker.lock_through_both(cluster.clients[0])
    epoch = _graced.status(cluster.nodes[0])["current"]
    cluster.step("a client has a lock through each server; all three nodes lose power")
    off = time.monotonic()
    for node in cluster.nodes:
        node.kill()
    _pacemaker.rejoin(cluster, cluster.nodes)
    cluster.step(f"corosync, graced and Pacemaker run again, {time.monotonic() - off:.0f} s after the power failure")
    first = cluster.nodes[0]
    cluster.wait(lambda: _pacemaker.mounted(first), 300, f"{first} to have its GFS2 again", every=2)
    rival = Locker(first, "/srv/data/vs1", "rival")
    rival.start_lock()
    fresh = Locker(first, "/srv/data/fresh", "fresh")
    fresh.start_lock()
    assert not rival.granted() and not fresh.granted(), "a lock was granted before the clients could reclaim theirs"
    for server in _graced.SERVERS:
        _pacemaker.wait_started(cluster, server, 600)
    _pacemaker.wait_kept(cluster, lockers, "after a cold start")
    lifted = cluster.logged(first, "graced", "the grace is lifted", off)
    assert len(lifted) == 1 and _graced.status(first)["current"] > epoch, f"one grace for a cold start: {lifted}"
    assert fresh.wait_granted(60) > lifted[0][0], "a new lock was granted in grace"
    assert not rival.granted()
    cluster.step(f"both servers run, the client has both locks; the grace was over {lifted[0][0] - off:.0f} s after the power failure")
    _pacemaker.let_go(cluster, lockers, [("vs1", rival)])
    cluster.step("the client unlocked, and only then the waiting program has the lock")
