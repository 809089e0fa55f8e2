"""The checks of failover can fail: it does without the gate, without the tripwire, with graced stopped."""

import re
import signal

import _gate
import _graced
import failover
from harness.errors import Failed

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": lambda cluster, node: _graced.before_mount(cluster, node, mutants=True)}
LIMIT_S = 1500
FRESH = True


def restart(cluster, between):
    for node in cluster.nodes:
        node.graced.signal(signal.SIGTERM)
        node.graced.wait(20)
        node.run(between)
        _graced.start_daemon(cluster, node)


def run(cluster):
    modules, _ = _gate.build(cluster.session.options.kernel, mutants=True)
    survivor = cluster.nodes[1]
    tripwire = "echo {} > /sys/module/gfs2_gate/parameters/mutant_no_tripwire"
    for name, plant, mend, expected in (
        # Without the module nothing holds lockers back, and graced knows: it never says that it enforces.
        ("gate not loaded", lambda: restart(cluster, "rmmod gfs2_gate"), lambda: restart(cluster, f"insmod {modules[1]}"), "graced to answer|gates to open"),
        ("no tripwire", lambda: survivor.run(tripwire.format(1)), lambda: survivor.run(tripwire.format(0)), "tripwire did not see"),
        # The gate closes (the permit runs out), and nothing goes on from there.
        ("graced stopped", lambda: stop_at_death(cluster), lambda: survivor.graced.signal(signal.SIGCONT), "gate to close|the grace to begin"),
    ):  # fmt: skip
        plant()
        try:
            failover.run(cluster)
        except (AssertionError, Failed) as found:
            said = " ".join(str(found).split())[:200]
            assert re.search(expected, said), f"{name}: failover failed for another reason: {said}"
            cluster.step(f"--- {name}: found, {said}")
        else:
            raise Failed(f"{name}: failover passes all the same")
        finally:
            for node in cluster.nodes:
                node.__dict__.pop("kill", None)
        mend()
        cluster.heal()
        failover.cleanup(cluster)
        cluster.heal()


def stop_at_death(cluster):
    """When node1's power goes, graced on the survivor is stopped (SIGSTOP), as if it hung."""
    node1, survivor = cluster.nodes
    power_off = node1.kill

    def kill():
        survivor.graced.signal(signal.SIGSTOP)
        power_off()

    node1.kill = kill
