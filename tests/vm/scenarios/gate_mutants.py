"""Faults planted in gfs2_gate are found by the checks of gate-basic: the checks can fail."""

import _gate
import gate_basic
from harness.errors import Failed
from harness.locker import Locker

NODES = 2
CLIENTS = 0
FRESH = True


def run(cluster):
    node1, node2 = cluster.nodes
    modules, shimctl = _gate.build(cluster.session.options.kernel, mutants=True)
    cluster.each(lambda node: _gate.load(node, modules))
    shim, shim2 = _gate.Shim(node1, shimctl), _gate.Shim(node2, shimctl)
    shim.start()
    shim2.start()

    for mutant, check in (
        ("mutant_no_recheck", lambda other, owner: gate_basic.queued_grant(cluster, shim, other, owner)),
        ("mutant_no_restore", lambda other, owner: gate_basic.upgrade(cluster, shim, other, owner)),
        ("mutant_no_tripwire", lambda other, owner: gate_basic.tripwire(cluster, shim, shim2, other, owner)),
    ):
        owner, other = Locker(node1, gate_basic.FILE, f"{mutant}-owner"), Locker(node2, gate_basic.FILE, f"{mutant}-other")
        node1.run(f"echo 1 > /sys/module/gfs2_gate/parameters/{mutant}")
        try:
            check(other, owner)
        except (AssertionError, Failed) as found:
            cluster.step(f"{mutant} is found: {' '.join(str(found).split())[:100]}")
        else:
            raise Failed(f"{mutant} was not found")
        node1.run(f"echo 0 > /sys/module/gfs2_gate/parameters/{mutant}")
        for locker in (owner, other):
            if locker.alive():
                locker.close()
        shim.close()
        shim.open()
