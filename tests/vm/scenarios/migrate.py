"""Planned moves: one grace for a move, one for two that overlap; no lock is lost, nobody else gets one."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def lifts(cluster, node, since):
    return cluster.logged(node, "graced", "the grace is lifted", since)


def run(cluster):
    _pacemaker.up(cluster)
    lockers = _pacemaker.lock_through_both(cluster.clients[0])
    first, second = (_pacemaker.wait_started(cluster, server, 60) for server in ("vs1", "vs2"))
    third = next(node for node in cluster.nodes if node not in (first, second))
    waiters = []
    for server in _graced.SERVERS:
        for node in cluster.nodes:
            waiter = Locker(node, f"/srv/data/{server}", f"waiter-{server}")
            waiter.start_lock()
            waiters.append((server, waiter))
    cluster.step(f"vs1 on {first}, vs2 on {second}; on each node a program waits for each of the client's two locks")

    began, epoch = time.monotonic(), _graced.status(third)["current"]
    _pacemaker.move(cluster, "vs1", third)
    took = time.monotonic() - began
    _pacemaker.wait_kept(cluster, lockers, "moved once")
    over = lifts(cluster, third, began)
    assert len(over) == 1 and _graced.status(third)["current"] == epoch + 1, f"not one grace for one move: {over}"
    assert not any(waiter.granted() for _, waiter in waiters)
    cluster.step(f"vs1 moved to {third} in {took:.1f} s, one grace of {over[0][0] - began:.1f} s; the client has both locks")

    # Both at once, each to where the other is.
    began = time.monotonic()
    third.run(
        f"crm_resource --move --resource vs1 --node {second.name}; crm_resource --move --resource vs2 --node {third.name}", timeout=120
    )
    _pacemaker.wait_started(cluster, "vs1", 300, on=second)
    _pacemaker.wait_started(cluster, "vs2", 300, on=third)
    _pacemaker.wait_kept(cluster, lockers, "crossed")
    starts = cluster.logged(third, "graced", r"server vs\d NEEDs \(START", began)
    over = lifts(cluster, third, began)
    begun = {name: min(t for t, line in starts if name in line) for name in _graced.SERVERS}
    if max(begun.values()) < over[0][0]:
        assert len(over) == 1, f"two moves that overlap had {len(over)} graces"
    else:
        cluster.step("(the moves did not overlap)")
    assert not any(waiter.granted() for _, waiter in waiters)
    cluster.step(f"vs1 and vs2 moved at the same time, {len(over)} grace(s) until {over[-1][0] - began:.1f} s; the client has both locks")
    for server in _graced.SERVERS:
        _pacemaker.clear(server, third)

    # A node goes into standby and comes back.
    began = time.monotonic()
    for _, waiter in waiters:
        if waiter.node is second:
            waiter.close()  # it would keep the GFS2 mounted
    waiters = [(server, waiter) for server, waiter in waiters if waiter.node is not second]
    _pacemaker.standby(second, True)
    cluster.wait(lambda: _pacemaker.idle(second), 300, f"nothing to be mounted and no lockspace to be left on {second}", every=2)
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    assert new is not second
    _graced.wait_normal(cluster, [node for node in cluster.nodes if node is not second], deadline=120)
    _pacemaker.standby(second, False)
    cluster.wait(lambda: _pacemaker.mounted(second), 300, f"{second} to have its GFS2 again", every=2)
    _pacemaker.wait_kept(cluster, lockers, "after standby")
    assert _pacemaker.wait_started(cluster, "vs1", 60) is new, "vs1 went back by itself"
    cluster.step(f"{second} went into standby and came back; vs1 went to {new} and stayed; {len(lifts(cluster, new, began))} grace(s)")
    for waiter in [one for server in _graced.SERVERS for one in [w for s, w in waiters if s == server][1:]]:
        waiter.close()  # one that waits for each lock is enough
    last = [next((s, w) for s, w in waiters if s == server) for server in _graced.SERVERS]
    _pacemaker.let_go(cluster, lockers, last)
    cluster.step("the client unlocked, and only then the waiting programs have the locks")
