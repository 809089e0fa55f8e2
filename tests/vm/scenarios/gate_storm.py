"""Programs on two nodes lock at random while the gate of one opens and closes; nothing is granted while it is closed, nothing is left behind."""

import random
import statistics
import time

import _gate
from harness import image
from harness.locker import Locker

NODES = 2
CLIENTS = 0

FILE = "/srv/data/storm"
SECONDS = 30  # at least
LONGEST_S = 150
ENOUGH = 100  # granted, and as many refused
UNDONE = 10
PROCESSES = 4
OVER = "touch /run/storm-over"

# Moves the gate, to shimctl's standard input. The status before an opening says: still closed until here. `nap` sleeps
# without starting a program, which takes an emulated node too long. It is open for 10 ms to 1.3 s, every order of magnitude
# as often: whatever a lock takes on this machine, some get through and some have their gate closed on the way.
MOVER = """
RANDOM={seed}
mkfifo /run/nap && exec 9<>/run/nap
nap() {{ read -rt $(($1 / 1000)).$(printf %03d $(($1 % 1000))) -u 9; }}
echo attach
while [ ! -e /run/storm-over ]; do
    echo permit 50000; echo gate open 1 0; nap $(((10 + RANDOM % 10) << RANDOM % 7))
    echo gate closed 1; nap $((RANDOM % 60 + 10)); echo status
done
echo permit 50000; echo gate open 1 0
until [ -e /run/nap-over ]; do nap 80; done
echo gate closed 1; echo status
sleep 1000
"""


def run(cluster):
    node1, node2 = cluster.nodes
    _, shimctl = _gate.build(cluster.session.options.kernel)
    shim, shim2 = _gate.gates(cluster)
    node1.run(f"truncate -s 4096 {FILE}")
    seed = random.randrange(1 << 32)
    cluster.step(f"seed {seed}")
    program = f"{image.VM_DIR}/scenarios/_gate_storm.py {FILE} {PROCESSES} {seed}"
    storms = [node1.spawn(program, log="storm1"), node2.spawn(program + "2", log="storm2")]

    node1.put("/run/storm", MOVER.format(seed=seed % 32768))
    shim.program.kill()
    cluster.wait(lambda: _gate.Shim(node1, shimctl, "watch").status()["attached"] == 0, 5, "the old daemon to be gone")
    mover = node1.spawn(f"bash /run/storm | {shimctl}", log="mover")
    began = time.monotonic()

    def much_of_a_storm():
        so_far = [line.split()[2:] for line in storms[0].output().splitlines() if line.startswith("so far")]
        moves = [_gate.fields(each[4]) for each in _gate.LINE.findall(mover.output()) if each[3] == "status"]
        return (
            time.monotonic() - began > SECONDS
            and so_far
            and moves
            and min(map(int, so_far[-1])) > ENOUGH
            and moves[-1]["undone"] > UNDONE
        )

    cluster.wait(much_of_a_storm, LONGEST_S, f"{ENOUGH} locks granted and as many refused, {UNDONE} undone", every=1)
    cluster.each(lambda node: node.run(OVER))
    for storm in storms:
        cluster.wait(lambda storm=storm: storm.output().endswith("end\n"), 60, "those that wait to get their locks: the gate is open")
    node1.run("touch /run/nap-over")
    cluster.wait(lambda: "state=closed" in mover.output().splitlines()[-1], 60, "the last closing")

    closed, opened = [], []
    events = _gate.LINE.findall(mover.output())
    for (begin, _, _, verb, result), (end, _, _, next_verb, fields) in zip(events, events[1:]):
        if verb == "gate" and result == "ok" and next_verb == "status" and "state=closed" in fields:
            closed.append((float(begin), float(end)))
        if verb == "gate" and next_verb == "gate":
            opened.append((float(begin), float(end)))
    granted, refused, waits, waits2 = 0, 0, [], []
    for line, (start, end, kind, result) in requests(storms[0]):
        granted += result == "granted"
        refused += result == "EAGAIN"
        inside = any(begin < start and end < finish for begin, finish in closed)
        assert not (inside and result == "granted"), f"granted while the gate was closed: {line}"
        if kind.endswith("W"):
            through = [min(end, closing) - max(start, opening) for opening, closing in opened if start < closing and opening < end]
            waits.append((end - start, len(through), max(through, default=0)))
    for _, (start, end, kind, _) in requests(storms[1]):
        if kind.endswith("W"):
            waits2.append(end - start)
    status = _gate.fields(events[-1][4])
    cluster.step(f"{granted} granted, {refused} refused, {status['undone']} undone; closed {len(closed)} times")
    cluster.step(
        f"who waited for a lock did so for {statistics.median(each[0] for each in waits):.2f} s on the median, {max(waits)[0]:.1f} s at most "
        f"({max(waits)[1]} openings, of {max(waits)[2]:.2f} s at most); on the node whose gate stayed open {statistics.median(waits2):.2f} s, {max(waits2):.1f} s"
    )
    assert granted > ENOUGH and refused > ENOUGH and status["undone"] > UNDONE, "not much of a storm"

    left = Locker(node2, FILE, "left")
    assert left.test() == "free", left.test()
    assert left.try_lock()
    left.close()
    plocks = node1.run("dlm_tool plocks data").out
    assert "WR" not in plocks and "RD" not in plocks, plocks
    listed = node1.run(f"grep :$(stat -c %i {FILE}) /proc/locks || true").out
    assert not listed, listed
    cluster.step("no lock is left in the DLM or on the inode")


def requests(storm):
    """[(line, (asked, answered, kind, result))]; times of the guest's clock."""
    found = []
    for line in storm.output().splitlines():
        assert not line.startswith("overlap"), line
        words = line.split()
        if len(words) == 4 and words[0] != "so":
            found.append((line, (float(words[0]), float(words[1]), words[2], words[3])))
    return found


def cleanup(cluster):
    cluster.each(_gate.unload)
