"""Programs on two nodes lock at random while the gate of one opens, closes and trips; nothing is granted while it is closed, nothing is left behind."""

import random
import time

import _gate
from harness import image
from harness.errors import stretch
from harness.locker import Locker

NODES = 2
CLIENTS = 0

FILE = "/srv/data/storm"
SECONDS = 30
PROCESSES = 4

# Moves the gate, to shimctl's standard input. The status before an opening says: still closed until here. `nap` sleeps
# without starting a program, which takes an emulated node too long.
MOVER = """
RANDOM={seed}
mkfifo /run/nap && exec 9<>/run/nap
nap() {{ read -rt 0.0$((RANDOM % $1 + 10)) -u 9; }}
echo attach
while [ $SECONDS -lt {seconds} ]; do
    echo permit 50000; echo gate open 1 0; nap 80
    echo gate closed 1; nap 60; echo status
done
until [ -e /run/storm-over ]; do nap 80; done
"""


def run(cluster):
    node1, node2 = cluster.nodes
    _, shimctl = _gate.build(cluster.session.options.kernel)
    shim, shim2 = _gate.gates(cluster)
    node1.run(f"truncate -s 4096 {FILE}")
    seconds = round(stretch(SECONDS))  # a slow machine makes fewer requests in a second
    seed = random.randrange(1 << 32)
    cluster.step(f"seed {seed}")
    program = f"{image.VM_DIR}/scenarios/_gate_storm.py {FILE} {seconds} {PROCESSES} {seed}"
    storms = [node1.spawn(program, log="storm1"), node2.spawn(program + "2", log="storm2")]

    node1.put("/run/storm", MOVER.format(seed=seed % 32768, seconds=seconds + 5))
    shim.program.kill()
    cluster.wait(lambda: _gate.Shim(node1, shimctl, "watch").status()["attached"] == 0, 5, "the old daemon to be gone")
    mover = node1.spawn(f"bash /run/storm | {shimctl}", log="mover")

    for storm in storms:
        cluster.wait(lambda storm=storm: storm.output().endswith("end\n"), seconds + 90, "the storm to end")
    cluster.wait(lambda: "state=closed" in mover.output().splitlines()[-1], 60, "the last closing")
    closed, events = [], _gate.LINE.findall(mover.output())
    for (begin, _, _, verb, result), (end, _, _, next_verb, fields) in zip(events, events[1:]):
        if verb == "gate" and result == "ok" and next_verb == "status" and "state=closed" in fields:
            closed.append((float(begin), float(end)))
    granted = refused = 0
    for line in storms[0].output().splitlines():
        assert not line.startswith("overlap"), line
        words = line.split()
        if len(words) != 4:
            continue
        start, end = float(words[0]), float(words[1])
        granted += words[3] == "granted"
        refused += words[3] == "EAGAIN"
        inside = any(begin < start and end < finish for begin, finish in closed)
        assert not (inside and words[3] == "granted"), f"granted while the gate was closed: {line}"
    assert not [line for line in storms[1].output().splitlines() if line.startswith("overlap")]
    status = _gate.fields(events[-1][4])
    cluster.step(f"{granted} granted, {refused} refused, {status['undone']} undone; closed {len(closed)} times")
    assert granted > 100 and refused > 100 and status["undone"] > 0, "not much of a storm"

    left = Locker(node2, FILE, "left")
    assert left.test() == "free", left.test()
    assert left.try_lock()
    left.close()
    plocks = node1.run("dlm_tool plocks data").out
    assert "WR" not in plocks and "RD" not in plocks, plocks
    listed = node1.run(f"grep :$(stat -c %i {FILE}) /proc/locks || true").out
    assert not listed, listed
    node1.run("touch /run/storm-over")
    shim2.program.kill()
    cluster.step("no lock is left in the DLM or on the inode")


def cleanup(cluster):
    for node in cluster.nodes:
        node.run("pkill -x sleep; true")
        node.wait(lambda node=node: node.run("rmmod gfs2_gate lockd_shim", check=False).rc == 0, 10, "the modules to go")
