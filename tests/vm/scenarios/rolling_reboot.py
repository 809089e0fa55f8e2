"""One node after the other into standby, rebooted, back: no lock is lost, nobody else gets one, a grace for each move at most."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    _pacemaker.up(cluster)
    lockers = _pacemaker.lock_through_both(cluster.clients[0])
    for node in cluster.nodes:
        others = [each for each in cluster.nodes if each is not node]
        guard = [Locker(others[0], f"/srv/data/{server}", f"waiter-{server}") for server in _graced.SERVERS]
        for waiter in guard:
            waiter.start_lock()
        began = time.monotonic()
        had = [server for server in _graced.SERVERS if _pacemaker.host(node, server) == node.name]
        _pacemaker.standby(node, True)
        cluster.wait(lambda: _pacemaker.idle(node), 300, f"{node} to be idle", every=2)
        for server in had:
            assert _pacemaker.wait_started(cluster, server, 300) is not node
        asked = len(cluster.fence.history)
        _pacemaker.leave(cluster, node)
        _pacemaker.rejoin(cluster, [node])
        _graced.wait_normal(cluster, others, deadline=180)  # graced is stopped where Pacemaker finds a standby
        cluster.wait(lambda: node.name in _pacemaker.online(others[0]), 300, f"{node} to be online in Pacemaker", every=5)
        _pacemaker.standby(node, False, asked=others[0])
        cluster.wait(lambda: _pacemaker.mounted(node), 300, f"{node} to have its GFS2 again", every=2)
        _pacemaker.wait_kept(cluster, lockers, f"{node} rebooted")
        assert len(cluster.fence.history) == asked, "a node that left in order was fenced"
        assert not any(waiter.granted() for waiter in guard), "a program got the client's lock"
        graces = cluster.logged(others[0], "graced", "the grace is lifted", began)
        assert len(graces) <= len(had), f"{len(graces)} graces for a node that hosted {had}"
        for waiter in guard:
            waiter.close()
        cluster.step(f"{node} (had {', '.join(had) or 'no server'}) rebooted in {time.monotonic() - began:.0f} s, {len(graces)} grace(s)")
    _pacemaker.let_go(cluster, lockers)
