"""Whatever stops the lockspace closes the gate inside dlm_ls_stop; opening needs the trip count; what a join and a leave cost."""

import re
import time

import _gate
import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 0
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900
FRESH = True

FILE = "/srv/data/tripwire"
TRACING = "/sys/kernel/tracing"


def run(cluster):
    node1, node2 = cluster.nodes
    probe = _gate.probe(cluster.session.options.kernel)
    _graced.wait_normal(cluster)
    for node in (node1, node2):
        node.run(
            f"ls {TRACING}/events >/dev/null 2>&1 || mount -t tracefs t {TRACING}; echo 'p:stop_entered dlm:dlm_ls_stop' > {TRACING}/kprobe_events; "
            f"echo 'r:stop_done dlm:dlm_ls_stop' >> {TRACING}/kprobe_events; echo 1 > {TRACING}/events/kprobes/enable; "
            f"echo 1 > {TRACING}/events/lockd_shim/enable"
        )

    # Each move with a program that locks all the time on a node that stays.
    costs = {}
    for what, move in (("nothing", lambda: time.sleep(10)), ("leave", lambda: leave(cluster, node2)), ("join", lambda: join(cluster, node2))):
        trips = _graced.status(node1)["kernel"]["trips"]
        node1.run(f"echo > {TRACING}/trace")
        program = node1.spawn(f"{probe} latency {FILE} 120", log=f"latency-{what}")
        time.sleep(1)
        move()
        _graced.wait_normal(cluster, [node1, node2])
        time.sleep(1)
        program.kill()
        tripped = _graced.status(node1)["kernel"]["trips"] - trips
        closed = closings(node1)
        pauses = [float(ms) for ms in re.findall(r"pause ([0-9.]+) ms", program.output())]
        costs[what] = (tripped, closed, pauses)
        if what != "nothing":
            assert tripped, f"a {what} did not trip"
            inside(node1)
        cluster.step(
            f"{what}: {tripped} trips; gate closed {len(closed)} times, {', '.join(f'{ms:.0f}' for ms in closed) or '-'} ms; "
            f"a local locker's pauses over 50 ms: {', '.join(f'{ms:.0f}' for ms in pauses) or 'none'}"
        )
    assert not costs["nothing"][0], "trips without a change of members"

    # The lockspace's own daemon dies: the kernel stops every lockspace by itself.
    owner = Locker(node2, FILE, "owner")
    assert owner.try_lock()
    owner.unlock()
    node2.run(f"echo > {TRACING}/trace")
    # The other dlm_controld has corosync end on that node, and graced goes with it: only the module can be asked.
    shim = _gate.Shim(node2, _gate.build(cluster.session.options.kernel)[1], "watch")
    before = shim.status()["trips"]
    cluster.fence.hold()
    killed = time.monotonic()
    cluster.services[node2, "dlm_controld"].kill()
    cluster.wait(lambda: shim.status()["trips"] > before, 20, "the trip")
    inside(node2)
    for _ in range(5):
        assert shim.status()["state"] == "closed", "opened again without a dlm_controld"
        assert not owner.try_lock("w", 0, 1, timeout=20), "granted without a dlm_controld"
        time.sleep(0.5)
    trip = [line for line in lines(node2) if "lockd_shim_trip" in line][0]
    cluster.step(f"dlm_controld killed: tripped inside dlm_ls_stop ({shim.status()['trips'] - before} lockspaces), closed and no lock granted {time.monotonic() - killed:.0f} s later: {' '.join(trip.split()[-2:])}")
    cluster.fence.release()


def leave(cluster, node):
    node.run("umount /srv/data", timeout=90)


def join(cluster, node):
    _graced.remount(node)


def lines(node):
    return [line for line in node.run(f"cat {TRACING}/trace").out.splitlines() if not line.startswith("#")]


def inside(node):
    """The gate is closed between the entry and the end of dlm_ls_stop."""
    order = []
    for line in lines(node):
        for mark in ("stop_entered", "stop_done", "lockd_shim_trip", "state=closed"):
            if mark in line.replace("stop_done: (", "stop_done ("):
                order.append(mark)
                break
    text = " ".join("E" if m == "stop_entered" else "D" if m == "stop_done" else "T" if m == "lockd_shim_trip" else "C" for m in order)
    # ftrace's callbacks run in no fixed order: the trip is before the end, whatever is first at the entry.
    assert re.search(r"T", text) and text.index("T") < text.index("D"), text
    if "C" in text:
        assert text.index("C") < text.index("D"), text


def closings(node):
    """How long the gate was closed, each time, in ms."""
    found, since = [], None
    for line in lines(node):
        match = re.search(r"(\d+\.\d+): lockd_shim_gate: state=(\w+)", line)
        if match and match[2] == "closed":
            since = float(match[1])
        elif match and since is not None:
            found.append((float(match[1]) - since) * 1000)
            since = None
    return found
