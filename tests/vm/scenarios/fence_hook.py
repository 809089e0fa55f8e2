"""fence_graced as second device of a topology level: fencing is not over before every live node enforces, or its time is up."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401

TIMEOUT_S = 15  # fence_graced's own
ENFORCED = ": every live node enforces"  # its word for it; when it fails or passes, it says "not every"


def parameter(node, name, value):
    node.run(f"crm_resource --resource grace --set-parameter {name} --parameter-value {value}", timeout=60)


def said(cluster, pattern, since):
    """[(time, line)] of what fence_graced said, as Pacemaker's fencer has it, on any node."""
    return sorted(line for node in cluster.nodes for line in cluster.logged(node, "pacemaker", f"fence_graced.*{pattern}", since))


def run(cluster):
    _pacemaker.up(cluster)
    lockers = _pacemaker.lock_through_both(cluster.clients[0])
    victim, other = (_pacemaker.wait_started(cluster, server, 60) for server in ("vs1", "vs2"))
    third = next(node for node in cluster.nodes if node not in (victim, other))
    parameter(third, "timeout", TIMEOUT_S)
    parameter(third, "on_timeout", "fail")
    # A live node that does not enforce: its gate is open past everything.
    third.run("gracectl bypass on --yes")
    cluster.step(f"vs1 runs on {victim}; on_timeout=fail; the gate of {third} is bypassed, so that {third} does not enforce")

    off = time.monotonic()
    victim.kill()
    fencing = cluster.fence.wait(victim, timeout=180, since=off)
    failed = cluster.wait(lambda: said(cluster, "Fencing FAILS", off), 120, "fence_graced to fail", every=2)
    assert failed[0][0] - fencing.answered >= TIMEOUT_S - 1, "it did not wait for its timeout"
    assert not said(cluster, ENFORCED, off)
    for node in (other, third):
        assert _pacemaker.host(node, "vs1") is None, "vs1 was started although fencing has failed"
    assert any(third.name in why for why in _graced.status(other)["blocked_by"])
    cluster.step(f"power is off, but fencing fails {failed[0][0] - fencing.answered:.1f} s later: {third} does not enforce. vs1 is nowhere")

    third.run("gracectl bypass off")
    mended = time.monotonic()
    cluster.wait(lambda: said(cluster, ENFORCED, mended), 180, "the next try to succeed", every=2)
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    _pacemaker.wait_kept(cluster, lockers, "after a failed fencing")
    cluster.step(f"{third} enforces again: Pacemaker's next try succeeds, vs1 runs on {new}, the client has kept its locks")
    # Told once more of a node that is dead and dealt with: at once, and no grace comes of it.
    epoch = _graced.status(new)["current"]
    began = time.monotonic()
    again = new.run(f"printf 'action=off\\nnodename={victim.name}\\nplug={victim.name}\\n' | fence_graced", timeout=60)
    assert ENFORCED in again.err and time.monotonic() - began < 15, again
    assert _graced.normal(new) and _graced.status(new)["current"] == epoch, "a grace for a node that had none of the servers"
    _pacemaker.back(cluster, victim)
    _graced.wait_normal(cluster)

    # on_timeout=pass: fencing goes on, but no server's clients may reclaim before that node enforces.
    parameter(new, "on_timeout", "pass")
    victim = _pacemaker.wait_started(cluster, "vs1", 60)
    sick = next(node for node in cluster.nodes if node is not victim and node is not _pacemaker.wait_started(cluster, "vs2", 60))
    sick.run("gracectl bypass on --yes")
    off = time.monotonic()
    victim.kill()
    passed = cluster.wait(lambda: said(cluster, "Fencing goes on all the same", off), 240, "fence_graced to pass", every=2)
    live = [node for node in cluster.nodes if node is not victim]
    cluster.wait(lambda: cluster.logged(live[0], "pacemaker", "Initiating start operation vs1_start_0", off)
                 or cluster.logged(live[1], "pacemaker", "Initiating start operation vs1_start_0", off), 120, "vs1 to be started", every=2)  # fmt: skip
    time.sleep(10)
    for node in live:
        now = _graced.status(node)
        assert now["phase"] == "entering", f"reclaim is open while {sick} does not enforce: {now}"
        assert _pacemaker.host(node, "vs1") is None
    cluster.step(f"on_timeout=pass: fencing is over, {passed[0][0] - off:.1f} s after the power failure; vs1's start waits for {sick}")
    sick.run("gracectl bypass off")
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    _pacemaker.wait_kept(cluster, lockers, "after a fencing that passed")
    cluster.step(f"{sick} enforces: vs1 runs on {new}, the client has kept its locks")
    _pacemaker.back(cluster, victim)
    _graced.wait_normal(cluster)
