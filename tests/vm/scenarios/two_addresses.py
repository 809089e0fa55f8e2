"""A client has mounted two servers; one moves to the node of the other, and it keeps both locks: each server has its namespaces."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    _pacemaker.up(cluster)
    client = cluster.clients[0]
    lockers = _pacemaker.lock_through_both(client)
    source, target = (_pacemaker.wait_started(cluster, server, 60) for server in ("vs1", "vs2"))
    waiters = []
    for server in _graced.SERVERS:
        waiter = Locker(target, f"/srv/data/{server}", f"waiter-{server}")
        waiter.start_lock()
        waiters.append((server, waiter))
    began = time.monotonic()
    _pacemaker.move(cluster, "vs1", target)
    _pacemaker.wait_kept(cluster, lockers, "both on one node")
    cluster.step(f"vs1 moved to {target}, where vs2 is, in {time.monotonic() - began:.1f} s with its grace: the client has both locks")

    # Now both move by the death of that node.
    off = time.monotonic()
    for _, waiter in waiters:
        waiter.close()
    target.kill()
    cluster.fence.wait(target, timeout=180, since=off)
    for server in _graced.SERVERS:
        _pacemaker.wait_started(cluster, server, 300)
    _pacemaker.wait_kept(cluster, lockers, "both failed over")
    cluster.step(f"{target} died with both servers: the client has both locks again, {time.monotonic() - off:.1f} s later")
    _pacemaker.back(cluster, target)
    _pacemaker.wait_kept(cluster, lockers, "all back")
    _pacemaker.let_go(cluster, lockers)
