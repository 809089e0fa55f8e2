"""Pacemaker runs everything by the recipe of docs/pacemaker.md: a node with an NFS server dies, is fenced through the topology
(power, then fence_graced), the server starts elsewhere, its client keeps its lock."""

import re
import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    client = cluster.clients[0]
    _pacemaker.up(cluster)
    victim, other = (_pacemaker.wait_started(cluster, server, 60) for server in ("vs1", "vs2"))
    survivors = [node for node in cluster.nodes if node is not victim]
    lockers = _pacemaker.lock_through_both(client)
    waiter = Locker(survivors[0], "/srv/data/vs1", "waiter")
    assert not waiter.try_lock(), "a local program got the lock that A holds"
    waiter.start_lock()
    cluster.step(f"vs1 runs on {victim}, vs2 on {other}; A has a lock through each, a program on {survivors[0]} waits for the first")

    off = time.monotonic()
    victim.kill()
    fencing = cluster.fence.wait(victim, timeout=180, since=off)
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    assert new in survivors, new
    cluster.wait(lambda: _graced.server(new, "vs1").get("reclaimed") == 1 or _graced.normal(new), 120, "A to reclaim")
    assert not waiter.granted(), "a local program got A's lock"
    _pacemaker.wait_kept(cluster, lockers, "after the failover")
    assert not waiter.granted(), "a local program got A's lock"

    # The second device of the level: fencing was not over before every live node enforced.
    devices = sorted(
        line for node in survivors
        for line in cluster.logged(node, "pacemaker", rf"Operation 'off' \[\d+\] targeting {victim} using \w+ returned 0", off)
    )  # fmt: skip
    used = [re.search(r"using (\w+)", line)[1] for _, line in devices]
    assert used == [f"power{victim.number}", "grace"], f"fenced by {used}"
    enforced = [cluster.logged(node, "graced", rf"ENFORCING.* from node {node}$", off)[0][0] for node in survivors]
    assert devices[1][0] > max(enforced), "Pacemaker went on before every live node enforced"
    # Nothing of the survivors was touched, no other node fenced.
    for node in survivors:
        stops = cluster.logged(node, "pacemaker", r"Result of stop operation for (dlm|graced|data|vs2)", off)
        assert not stops, stops
    assert {fenced.victim for fenced in cluster.fence.history if fenced.asked > off} == {victim.name}
    cluster.step(f"vs1 runs on {new}; both clients' locks are where they belong. Seconds after the power failure:")
    story = [
        ("fencing asked for", fencing.asked), ("power is off, says the first device", fencing.answered),
        ("fence_graced has answered", devices[1][0]), *_pacemaker.points(cluster, new, off),
    ]  # fmt: skip
    for what, when in sorted(story, key=lambda point: point[1]):
        cluster.step(f"  {when - off:6.2f}  {what}")

    _pacemaker.back(cluster, victim)
    assert _pacemaker.host(new, "vs1") == new.name and _pacemaker.host(new, "vs2") == other.name, "a server moved when the node came back"
    _pacemaker.wait_kept(cluster, lockers, "all back")
    _pacemaker.let_go(cluster, lockers, [("vs1", waiter)])
    cluster.step(f"{victim} is back with its GFS2; no server has moved; A unlocked, and only then the waiting program has the lock")
