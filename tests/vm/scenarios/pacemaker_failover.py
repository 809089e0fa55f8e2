"""Pacemaker runs everything by the recipe of docs/pacemaker.md: a node with an NFS server dies, is fenced through the topology
(power, then fence_graced), the server starts elsewhere, its client keeps its lock. DRAFT: has not been run yet."""

import time

import _graced
import _pacemaker
from harness.locker import Locker

NODES = 3
CLIENTS = 1
CLUSTER = _pacemaker.CLUSTER
LIMIT_S = 1800
FRESH = True


def run(cluster):
    client = cluster.clients[0]
    _pacemaker.up(cluster)
    cluster.step("three nodes under Pacemaker: DLM, graced, GFS2 as clones, two servers; no grace")

    victim = _pacemaker.wait_started(cluster, "vs1", 60)
    survivors = [n for n in cluster.nodes if n is not victim]
    other = _pacemaker.wait_started(cluster, "vs2", 60)
    _graced.mount(client, "vs1", "/mnt/a1")
    _graced.mount(client, "vs2", "/mnt/a2")
    a1, a2 = Locker(client, "/mnt/a1/one", "A-vs1"), Locker(client, "/mnt/a2/two", "A-vs2")
    a1.lock()
    a1.write("before")
    a2.lock()
    waiter = Locker(survivors[0], "/srv/data/one", "waiter")
    assert not waiter.try_lock(), "a local program got the lock that A holds"
    waiter.start_lock()
    cluster.step(f"vs1 runs on {victim}, vs2 on {other}; A has a lock through each, a program on {survivors[0]} waits for the first")

    off = time.monotonic()
    victim.kill()
    fencing = cluster.fence.wait(victim, timeout=120, since=off)
    cluster.step(f"{victim} lost power, Pacemaker had it fenced {fencing.answered - off:.1f} s later")
    # The second device of the level: fencing was not over before every live node enforced.
    told = cluster.wait(
        lambda: [l for n in survivors for l in cluster.logged(n, "pacemaker", r"fence_graced.*(every live node enforces|off .*OK)", off)],
        60, "fence_graced to answer",
    )  # fmt: skip
    enforced = [
        lines[0][0] for n in survivors if (lines := cluster.logged(n, "graced", r"mcast ENFORCING|enforces", off))
    ]  # fmt: skip
    assert told[0][0] >= max(enforced), "Pacemaker went on before every live node enforced"

    new = _pacemaker.wait_started(cluster, "vs1", 300)
    assert new in survivors, new
    started = time.monotonic() - off
    cluster.wait(lambda: _graced.server(new, "vs1").get("reclaimed") == 1 or _graced.normal(new), 120, "A to reclaim")
    cluster.step(f"vs1 is started on {new} {started:.1f} s after the power failure; A has reclaimed")
    assert not waiter.granted(), "a local program got A's lock"
    _graced.wait_normal(cluster, survivors, deadline=_graced.GRACE_PERIOD * 4)
    for point, when in _pacemaker.grace_lines(cluster, new, off):
        cluster.step(f"  {point}: {when - off:.1f} s")
    a1.write("after")
    assert a1.read() == "after" and not waiter.granted() and not _graced.locks_lost(client)
    # No survivor's resource was touched: nothing was started there but vs1.
    for node in survivors:
        stops = cluster.logged(node, "pacemaker", r"Result of stop operation for (dlm|graced|data|vs2)", off)
        assert not stops, stops
    unlocked = time.monotonic()
    a1.unlock()
    assert waiter.wait_granted(60) > unlocked - 0.1
    _pacemaker.back(cluster, victim)
    assert _pacemaker.host(new, "vs1") == new.name and _pacemaker.host(new, "vs2") == other.name, "a server moved when the node came back"
    _graced.wait_normal(cluster)
    cluster.step(f"{victim} is back with its GFS2; no server has moved, all gates are open")
