"""Locks of local programs: the same as without the gate while it is open; held back, and only that, while it is closed."""

import re
import time

import _gate
from harness.locker import Locker

NODES = 2
CLIENTS = 0
LIMIT_S = 900

FILE = "/srv/data/semantics"
HERD = 1000
UNGATED = "/sys/module/gfs2_gate/parameters/ungated"
FILESYSTEMS = "/sys/module/gfs2_gate/parameters/filesystems"

# What guest/lockprobe.c says while the gate is closed (GFS2 tells the pid of an OFD lock too). Signals: as its waits for a lock that another holds, without
# the gate (compared below), but flock, which 6.1 does not let be killed there.
CLOSED = {
    "posix-try": "EAGAIN",
    "posix-try-read": "EAGAIN",
    "ofd-try": "EAGAIN",
    "flock-try": "EAGAIN",
    "flock-try-shared": "EAGAIN",
    "posix-unlock-not-held": "ok",
    "posix-unlock-wait": "ok",
    "ofd-unlock-not-held": "ok",
    "flock-unlock-not-held": "ok",
    "test": "read 100+50 parent",
    "held-test": "read 100+50 parent",
    "held-same-again": "EAGAIN",
    "held-close-of-dup": "read 100+50 parent",
    "held-unlock-part": "ok",
    "held-part-test": "read 100+10 parent",
    "held-flock-unlock": "ok",
    "held-last-close": "free",
    "signal-flock-kill": "waits, killed at once",
    "nothing-left": "free",
}

# What a signal does at the gate where the kernel's own wait cannot be ended: since 6.6 dlm asks dlm_controld to cancel it,
# and that of Debian 12 (4.2.0) does not know the request and never answers; not even SIGKILL gets the program out.
UNCANCELLED = "waits, not killed"
INTERRUPTIBLE = {
    "signal-posix-handler": "returned EINTR, killed at once",
    "signal-posix-restart": "waits, killed at once",
    "signal-posix-stop": "waits, killed at once",
    "signal-posix-kill": "waits, killed at once",
    "signal-ofd-handler": "returned EINTR, killed at once",
    "signal-ofd-kill": "waits, killed at once",
}

# held before, asked for, what the other node holds in its way
PARTS = {
    "nothing held": ([], ("w", 0, 100), ("w", 50, 1)),
    "upgrade of a part": ([("r", 0, 100)], ("w", 40, 20), ("r", 50, 1)),
    "upgrade of all": ([("r", 0, 0)], ("w", 0, 0), ("r", 7, 1)),
    "downgrade over more": ([("w", 10, 10)], ("r", 0, 100), ("w", 50, 1)),
    "partial overlap": ([("w", 0, 20)], ("w", 10, 40), ("w", 30, 1)),
    "overlap at the end": ([("r", 90, 20)], ("w", 50, 50), ("w", 60, 1)),
    "pieces and holes": ([("r", 0, 5), ("w", 10, 5), ("r", 20, 5), ("w", 40, 20)], ("w", 2, 50), ("r", 7, 1)),
    "pieces, read": ([("r", 0, 5), ("w", 10, 5), ("r", 20, 5)], ("r", 0, 30), ("w", 7, 1)),
    "to the end of the file": ([("w", 1000, 0)], ("w", 500, 0), ("w", 600, 1)),
}


def run(cluster):
    node1, node2 = cluster.nodes
    kernel = cluster.session.options.kernel
    modules, shimctl = _gate.build(kernel)
    probe = _gate.probe(kernel)
    node1.run(f"truncate -s 4096 {FILE}")

    bare = node1.run(f"{probe} semantics {FILE}", timeout=120).out.splitlines()
    assert len(bare) > 40, bare
    shim, shim2 = _gate.gates(cluster)
    gated = node1.run(f"{probe} semantics {FILE}", timeout=120).out.splitlines()
    differs = [f"{a} | {b}" for a, b in zip(bare, gated) if a != b]
    assert not differs and len(bare) == len(gated), differs
    waits = {name: result for name, result in (line.split(" ", 1) for line in bare) if name.startswith("signal-")}
    if all(waits[name] == UNCANCELLED for name in INTERRUPTIBLE):
        waits.update(INTERRUPTIBLE)
        cluster.step("this kernel's own waits for a POSIX lock cannot be ended with this dlm_controld; those at the gate must be")
    cluster.step(f"{len(bare)} properties of POSIX, OFD and flock locks, signals included, are the same with the gate open as without it")

    closed(cluster, shim, probe, waits)
    for name in PARTS:
        undo(cluster, shim, "posix", name)
    for name in list(PARTS)[1:6:2]:
        undo(cluster, shim, "ofd", name)
    cluster.step(f"undo: {len(PARTS)} cases of POSIX, three of OFD locks: the owner holds exactly what it held before, in dlm_controld and on the inode")
    herd(cluster, shim, probe)
    exempt(cluster, shim)
    policy(cluster, shim, shim2)
    no_flock(cluster, shim, modules, shimctl)


def closed(cluster, shim, probe, waits):
    node1, node2 = cluster.nodes
    program = node1.spawn(f"{probe} closed {FILE}", log="closed")
    cluster.wait(lambda: "held ok" in program.output(), 10, "the probe to hold its locks")
    shim.close()
    program.send("\n")
    assert program.wait(90) == 0
    said = dict(line.split(" ", 1) for line in program.output().splitlines()[1:])
    wrong = {name: (said.get(name), want) for name, want in {**CLOSED, **{n: waits[n] for n in waits if n in said}}.items() if said.get(name) != want}
    # What is held already is asked for again: refused like everything; nothing is lost by that.
    assert not wrong, wrong
    assert len([n for n in said if n in waits]) == 6, said
    assert shim.status()["waiters"] == 0, "a killed waiter is left"
    assert _gate.plocks(node2, FILE) == [], _gate.plocks(node2, FILE)
    shim.open()
    cluster.step(f"closed: {len(said)} properties: refused or waiting without end, unlock, close, dup, exit and F_GETLK as ever, signals as in a wait without the gate")


def undo(cluster, shim, kind, name):
    node1, node2 = cluster.nodes
    held, asked, in_the_way = PARTS[name]
    owner, other = Locker(node1, FILE, "owner", kind), Locker(node2, FILE, "other", kind)
    for piece in held:
        owner.lock(*piece)
    before = _gate.local_locks(node1, FILE), _gate.plocks(node1, FILE)
    assert len(before[1]) == len(held) and [each[:3] for each in before[1]] == before[0], before
    undone = shim.status()["undone"]
    other.lock(*in_the_way)
    owner.start_lock(*asked)
    cluster.wait(lambda: "WAITING" in node1.run("dlm_tool plocks data").out, 5, "the request to wait in dlm_controld")
    shim.close()
    other.unlock()
    cluster.wait(lambda: shim.status()["waiters"] == 1, 10, "the waiter to be back at the gate")
    assert shim.status()["undone"] == undone + 1
    after = _gate.local_locks(node1, FILE), _gate.plocks(node1, FILE)
    assert after == before, f"{kind}, {name}: before {before}, after {after}"
    assert _gate.plocks(node2, FILE) == before[1], f"{kind}, {name}: the other node sees {_gate.plocks(node2, FILE)}"
    assert not owner.granted()
    shim.open()
    owner.wait_granted(10)
    owner.close()
    other.close()
    cluster.wait(lambda: not _gate.plocks(node2, FILE), 5, "the locks to be gone")


def herd(cluster, shim, probe):
    """A thousand wait; they get their locks in the order in which they came."""
    node1 = cluster.nodes[0]
    shim.order("events")
    shim.close()
    program = node1.spawn(f"{probe} herd {FILE} {HERD}", log="herd")
    cluster.wait(lambda: f"waiting {HERD}" in program.output(), 60, "all to wait")
    cluster.wait(lambda: shim.status()["waiters"] == HERD, 10, "all to be at the gate")
    opened = time.monotonic()
    shim.open(60000)
    cluster.wait(lambda: program.output().rstrip().endswith("end"), 60, "all to have their locks")
    grants = [(int(when), int(who)) for when, who in re.findall(r"^(\d{9,}) (\d+)$", program.output(), re.MULTILINE)]
    assert sorted(who for _, who in grants) == list(range(1, HERD + 1)), "somebody is missing"
    moved = sorted(abs(place - who) for place, (_, who) in enumerate(grants, 1))
    took = (grants[-1][0] - grants[0][0]) / 1e9
    waits = [event[2]["waiters"] for event in shim.events() if event[1] == "wait"]
    assert waits[-1] == 0 and waits[-2] > 0, waits
    # 16 are on their way at a time and race for dlm_controld; the scheduler may leave one of them behind.
    assert moved[-1] <= 96, f"a waiter was overtaken by {moved[-1]}"
    program.kill()
    cluster.wait(lambda: not _gate.plocks(node1, FILE), 30, "the locks to be gone")
    shim.open(20000)
    cluster.step(
        f"{HERD} waiters: first to last grant {took:.2f} s ({time.monotonic() - opened:.1f} s with all that it is asked), "
        f"displaced by {moved[len(moved) // 2]} on the median, {moved[-1]} at most"
    )


def exempt(cluster, shim):
    node1 = cluster.nodes[0]
    server, program = Locker(node1, FILE, "server"), Locker(node1, FILE, "program")
    shim.close()
    assert not server.try_lock()
    shim.order(f"exempt {server.program.pid} 1")
    assert shim.status()["exempts"] == 1
    assert server.try_lock("w", 0, 10), "a registered server is held back"
    assert not program.try_lock("w", 20, 10), "another process passes too"
    shim.order(f"exempt {server.program.pid} 0")
    assert not server.try_lock("w", 30, 10), "exempt for ever"
    shim.order(f"exempt {server.program.pid} 1")
    server.close()
    assert shim.status()["exempts"] == 0, "a dead process is still exempt"
    shim.order("exempt 999999 1", "ESRCH")
    program.close()
    shim.open()
    cluster.step("a registered server in user space passes the closed gate, nobody else; it ends with the process")


def policy(cluster, shim, shim2):
    node1, node2 = cluster.nodes
    owner = Locker(node1, FILE, "policy")
    device, number, uuid, what = node1.run(f"cat {FILESYSTEMS}").out.split()
    assert what == "gated", what
    shim.close()
    assert not owner.try_lock()
    node1.run(f"echo {uuid} > {UNGATED}")
    assert node1.run(f"cat {FILESYSTEMS}").out.split()[3] == "ungated"
    assert owner.try_lock(), "gated against its policy"
    owner.unlock()
    assert node1.run(f"echo no-uuid > {UNGATED}", check=False).rc
    assert owner.try_lock(), "a wrong list replaced the right one"
    owner.unlock()
    node1.run(f"echo > {UNGATED}")
    assert not owner.try_lock(), "not gated again"
    shim.open()
    owner.close()
    cluster.step(f"policy: {device} {number} {uuid}: gated, ungated by its UUID, and gated again")

    shim2.program.kill()
    node2.run("umount /srv/data", timeout=60)
    node2.run("mount -t gfs2 -o noatime,localflocks /dev/vda /srv/data", timeout=90)
    assert node2.run(f"cat {FILESYSTEMS}").out.split()[3] == "private"
    node2.run("umount /srv/data", timeout=60)
    cluster.mount(node2)
    assert node2.run(f"cat {FILESYSTEMS}").out.split()[3] == "gated"
    cluster.step("a mount with localflocks is reported as private")


def no_flock(cluster, shim, modules, shimctl):
    """flock is gated by policy: with the module's parameter flock=0 it is not."""
    node1, node2 = cluster.nodes
    shim.program.kill()
    cluster.wait(lambda: node1.run("rmmod gfs2_gate", check=False).rc == 0, 10, "the module to go")
    node1.run(f"insmod {modules[1]} flock=0")
    shim = _gate.Shim(node1, shimctl, "shim-noflock")
    owner, posix = Locker(node1, FILE, "flock", "flock"), Locker(node1, FILE, "posix")
    assert owner.try_lock() and not posix.try_lock()
    owner.close()
    posix.close()
    shim.program.kill()
    cluster.step("with flock=0 flock passes the closed gate, POSIX locks do not")


def cleanup(cluster):
    cluster.each(_gate.unload)
