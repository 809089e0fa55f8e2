"""What the gate costs a lock, in instructions: an unlock of a range not held, with and without the modules, under -icount."""

import _gate

NODES = 1
CLIENTS = 0
CLUSTER = {"icount": True}
LIMIT_S = 900

FILE = "/srv/data/cost"
ROUNDS = 200
# A lock that goes to the DLM costs a hundred times as much. Measured in docs/verification.md.
LIMIT = 1500


def measure(node, probe):
    return int(node.run(f"{probe} unlock {FILE} {ROUNDS}", timeout=120).out.split()[1])


def run(cluster):
    node = cluster.nodes[0]
    kernel = cluster.session.options.kernel
    modules, shimctl = _gate.build(kernel)
    probe = _gate.probe(kernel)
    node.run(f"truncate -s 4096 {FILE}")
    bare = [measure(node, probe) for _ in range(3)]
    _gate.load(node, modules)
    shim = _gate.Shim(node, shimctl)
    shim.start(60000)
    opened = [measure(node, probe) for _ in range(3)]
    shim.order("permit 60000")
    shim.close()
    closed = [measure(node, probe) for _ in range(3)]
    cluster.step(f"instructions of an unlock of a range not held: {bare} without the modules, {opened} with the gate open, {closed} closed")
    cost = max(min(opened), min(closed)) - min(bare)
    cluster.step(f"the gate costs {cost} instructions, {100 * cost / min(bare):.0f} % of that system call")
    assert 0 < cost < LIMIT, cost
    shim.program.kill()


def cleanup(cluster):
    cluster.nodes[0].run("rmmod gfs2_gate lockd_shim")
