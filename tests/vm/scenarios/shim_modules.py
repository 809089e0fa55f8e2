"""lockd_shim and gfs2_gate as modules: load orders, namespaces that come and go, a foreign hook, a daemon that returns."""

import time

import _gate
from harness.locker import Locker

NODES = 1
CLIENTS = 0
FRESH = True

FILE = "/srv/data/modules"
TRACING = "/sys/kernel/tracing"
TRACEPOINTS = ("lockd_shim/lockd_shim_gate", "lockd_shim/lockd_shim_trip", "lockd_shim/lockd_shim_permit", "lockd_shim/lockd_shim_reclaim",
               "lockd_shim/lockd_shim_wait", "gfs2_gate/gfs2_gate_refuse", "gfs2_gate/gfs2_gate_undo")  # fmt: skip
GFS2, DLM, NFSD, LOCKD = 0b11, 0b100, 0b11000, 0b111100000


def run(cluster):
    node = cluster.nodes[0]
    kernel = cluster.session.options.kernel
    modules, shimctl = _gate.build(kernel)
    orders(cluster, node, modules, shimctl)
    foreign(cluster, node, modules, shimctl, _gate.foreign(kernel))
    _gate.load(node, modules)
    shim = _gate.Shim(node, shimctl)
    strict(cluster, shim)
    shim.start()
    namespaces(cluster, node, shim)
    servers(cluster, node, shim)
    shim = waiters(cluster, node, shim, shimctl)
    traced(cluster, node, shim)
    shim = adopts(cluster, node, shim, shimctl)
    shim.program.kill()


def hooks(shim):
    status = shim.status()
    return status["hooks"], status["hooks-wanted"]


def orders(cluster, node, modules, shimctl):
    """gfs2 and dlm are loaded already; unmounted, they go and come under the gate."""
    node.run("umount /srv/data", timeout=60)
    cluster.services[node, "dlm_controld"].signal()
    cluster.services[node, "dlm_controld"].wait(30)
    node.run("modprobe -r gfs2 && modprobe -r dlm && ! grep -qE '^(gfs2|dlm|nfsd|lockd) ' /proc/modules")
    _gate.load(node, modules)
    shim = _gate.Shim(node, shimctl, "orders")
    shim.order("events")
    assert hooks(shim) == (0, 0), hooks(shim)
    for name, bits in (("gfs2", GFS2 | DLM), ("nfsd", GFS2 | DLM | NFSD | LOCKD)):
        node.run(f"modprobe {name}", timeout=60)
        assert hooks(shim) == (bits, bits), (name, hooks(shim))
    node.run("modprobe -r nfsd; ! grep -q '^nfsd ' /proc/modules")
    assert hooks(shim)[0] & NFSD == 0 and hooks(shim)[0] == hooks(shim)[1]
    node.run("modprobe -r gfs2; ! grep -q '^gfs2 ' /proc/modules")
    assert hooks(shim)[0] & GFS2 == 0 and hooks(shim)[0] == hooks(shim)[1]
    assert len([event for event in shim.events() if event[1] == "hooks"]) >= 4
    shim.program.kill()
    node.run("rmmod gfs2_gate && rmmod lockd_shim")
    # The gate last of all, and again with everything there.
    node.run("modprobe -a gfs2 nfsd", timeout=60)
    _gate.load(node, modules)
    shim = _gate.Shim(node, shimctl, "orders2")
    assert hooks(shim) == (GFS2 | DLM | NFSD | LOCKD,) * 2, hooks(shim)
    assert node.run("rmmod lockd_shim", check=False).rc, "lockd_shim went under gfs2_gate"
    node.run("modprobe -r gfs2; modprobe -r dlm; ! grep -qE '^(gfs2|dlm) ' /proc/modules")
    assert hooks(shim) == (NFSD | LOCKD,) * 2, hooks(shim)
    shim.program.kill()
    node.run("rmmod gfs2_gate && rmmod lockd_shim && modprobe -r nfsd")
    cluster.start_dlm(node)
    cluster.mount(node)
    cluster.step("gfs2, dlm, nfsd and lockd loaded and unloaded before and after the gate: hooked whenever they are there")


def foreign(cluster, node, modules, shimctl, module):
    node.run(f"insmod {module}")
    _gate.load(node, modules)
    shim = _gate.Shim(node, shimctl, "foreign")
    status = shim.status()
    assert status["hooks"] & 1 == 0 and status["hooks-wanted"] & 1, status
    shim.order("attach", None)
    answer = shim.order("gate closed 1", "ENODEV")
    assert "gfs2_lock" in answer and "live patch" in answer, answer
    shim.order("permit 5000")
    shim.order(f"gate open 1 {status['trips']}", "ENODEV")
    shim.order("reclaim /proc/self/ns/net give 1", "ENODEV")
    assert shim.status()["state"] == "closed"
    said = cluster.logged(node, "kernel", "gfs2_lock: another user of IPMODIFY")
    assert said, "no message in the log"
    shim.program.kill()
    cluster.wait(lambda: node.run("rmmod gfs2_gate && rmmod lockd_shim", check=False).rc == 0, 10, "the modules to go")
    node.run("rmmod foreign_hook")
    cluster.step(f"another user of the hook: '{answer}'; an order to close tells it, so the node does not count as enforcing; none to open is obeyed")


def strict(cluster, shim):
    shim.order("attach 99", "EPROTONOSUPPORT")
    shim.order("gate closed 1", "ENOTCONN")
    shim.order("attach", None)
    shim.order("gate closed 1 5", "EINVAL")
    shim.order("permit 61000", "ERANGE")
    shim.order("permit -5", "ETIME")
    shim.order("host /proc/self/ns/net someone 0", "EBUSY")
    assert shim.status()["attached"] == 1
    cluster.step("wrong versions, orders from strangers, attributes that do not belong: refused")


def namespaces(cluster, node, shim):
    started = time.monotonic()
    shim.close()
    node.run("for i in $(seq 30); do ip netns add n$i; done", timeout=60)
    seen = shim.namespaces().values()
    assert len(seen) == 31 and all(each["held"] and each["in-grace"] for each in seen), seen
    shim.reclaim("give", "/run/netns/n7")
    assert sorted(each["state"] for each in shim.namespaces().values()).count("reclaim") == 1
    assert sum(each["opens-blocked"] for each in shim.namespaces().values()) == 1, "opens are blocked elsewhere too"
    shim.order(f"host /run/netns/n7 10.0.0.1 {shim.epoch}")
    assert sum(each["hosts"] for each in shim.namespaces().values()) == 1
    shim.order(f"gate open {shim.epoch} {shim.status()['trips']}", "EBUSY")
    # With its permission still given.
    node.run("ip netns del n7")
    cluster.wait(lambda: len(shim.namespaces()) == 30, 10, "the namespace to be gone")
    shim.open()
    assert not any(each["in-grace"] for each in shim.namespaces().values())
    node.run("ip netns add late")
    assert not any(each["held"] for each in shim.namespaces().values())
    # Coming and going while the gate moves.
    churn = node.spawn("for i in $(seq 20); do ip netns add c$i; ip netns del c$i; done", log="churn")
    moves = 0
    while churn.alive() or moves < 5:
        shim.close()
        shim.open()
        moves += 1
    assert churn.wait(1) == 0, churn.output()
    shim.close()
    node.run("for n in $(ip -o netns | cut -d' ' -f1); do ip netns del $n; done", timeout=60)
    cluster.wait(lambda: len(shim.namespaces()) == 1, 20, "the namespaces to be gone")
    shim.open()
    cluster.step(f"52 network namespaces came and went, one with permission to reclaim, {moves} moves of the gate meanwhile ({time.monotonic() - started:.0f} s)")


SERVER = """ip netns exec s1 unshare -m sh -c 'mount -t tmpfs t /var/lib/nfs && mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs \
&& mount -t nfsd nfsd /proc/fs/nfsd && mount -t rpc_pipefs rpc /var/lib/nfs/rpc_pipefs && rpc.nfsd -N 3 1 && echo up; read end; {stop}'"""


def servers(cluster, node, shim):
    """nfsd in a namespace starts, stops and goes with it, the gate open and closed."""
    node.run("modprobe nfsd", timeout=60)
    for state in ("open", "closed"):
        if state == "closed":
            shim.close()
        trips = shim.status()["trips"]
        node.run("ip netns add s1; ip -n s1 link set lo up")
        # By hand; and by the last mount of its file system that goes.
        server = node.spawn(SERVER.format(stop="rpc.nfsd 0" if state == "open" else ":"), log="server")
        cluster.wait(lambda server=server: "up" in server.output(), 30, "nfsd to run")
        mine = [each for each in shim.namespaces().values() if each["nfsd-up"]]
        assert len(mine) == 1 and mine[0]["stops"] == 0, shim.namespaces()
        server.send("end\n")
        server.wait(60)
        status = shim.status()
        assert status["trips"] == trips + 1 and status["state"] == "closed", status
        mine = [each for each in shim.namespaces().values() if each["stops"]]
        assert len(mine) == 1 and not mine[0]["nfsd-up"], shim.namespaces()
        story = [event[2]["nfsd-up"] for event in shim.events() if event[1] == "ns" and event[2]["netns-ino"] == mine[0]["netns-ino"]]
        assert story[-2:] == [1, 0], f"events of the server: {story}"
        node.run("ip netns del s1")
        cluster.wait(lambda: len(shim.namespaces()) == 1, 20, "the namespace to be gone")
        shim.open()
    node.run("modprobe -r nfsd; ! grep -q '^nfsd ' /proc/modules")
    cluster.step("nfsd started and stopped in a namespace of its own: told up and down, its stop trips and is counted there only")


def waiters(cluster, node, shim, shimctl):
    """The modules cannot go while somebody sleeps inside, at the gate or in the DLM, without a daemon that holds them."""
    holder, queued, waiter = (Locker(node, FILE, name) for name in ("holder", "queued", "waiter"))
    holder.lock("w", 0, 10)
    queued.start_lock("w", 0, 10)
    cluster.wait(lambda: "WAITING" in node.run("dlm_tool plocks data").out, 5, "a waiter in the DLM")
    epoch = shim.epoch
    shim.program.kill()
    watch = _gate.Shim(node, shimctl, "unattached")
    cluster.wait(lambda: watch.status()["attached"] == 0, 5, "the daemon's end to be seen")
    for module in ("gfs2_gate", "lockd_shim"):
        assert node.run(f"rmmod {module}", check=False).rc, f"{module} went with a waiter in the DLM"
    holder.unlock()
    cluster.wait(lambda: watch.status()["undone"] == 1, 10, "its grant to be undone")
    queued.close()
    waiter.start_lock("w", 20, 10)
    cluster.wait(lambda: watch.status()["waiters"] == 1, 5, "a waiter at the gate")
    for module in ("gfs2_gate", "lockd_shim"):
        assert node.run(f"rmmod {module}", check=False).rc, f"{module} went with a waiter at the gate"
    assert node.run("modprobe -r gfs2", check=False).rc, "gfs2 went"
    watch.epoch = epoch
    watch.start()
    waiter.wait_granted(10)
    waiter.close()
    holder.close()
    cluster.step("with a waiter inside, at the gate or in the DLM, no module can be unloaded")
    return watch


def traced(cluster, node, shim):
    node.run(f"ls {TRACING}/events >/dev/null 2>&1 || mount -t tracefs t {TRACING}; echo > {TRACING}/trace")
    for point in TRACEPOINTS:
        node.run(f"echo 1 > {TRACING}/events/{point}/enable")
    owner = Locker(node, FILE, "traced")
    shim.close()
    assert not owner.try_lock()
    shim.reclaim("give")
    shim.reclaim("withdraw")
    owner.start_lock()
    cluster.wait(lambda: shim.status()["waiters"] == 1, 5, "a waiter")
    shim.open()
    owner.wait_granted(10)
    owner.close()
    shim.order("permit 0")  # only that shortens it
    shim.order("permit 300")
    shim.order(f"gate open {shim.epoch} {shim.status()['trips']}")
    cluster.wait(lambda: shim.status()["reason"] == "permit", 5, "the permit's end")
    trace = node.run(f"cat {TRACING}/trace; for p in {' '.join(TRACEPOINTS)}; do echo 0 > {TRACING}/events/$p/enable; done").out
    for name in ("lockd_shim_gate", "lockd_shim_permit", "lockd_shim_reclaim", "lockd_shim_wait", "gfs2_gate_refuse"):
        assert name in trace, f"no {name} in the trace"
    cluster.step(f"{len(TRACEPOINTS)} tracepoints; {len(trace.splitlines())} lines tell a short story")


def adopts(cluster, node, shim, shimctl):
    shim.open(60000)
    before = shim.status()
    shim.program.kill()
    watch = _gate.Shim(node, shimctl, "watch")
    cluster.wait(lambda: watch.status()["attached"] == 0, 5, "the daemon's end to be seen")
    owner = Locker(node, FILE, "orphan")
    assert not owner.try_lock(), "granted without a daemon"
    owner.close()
    back = _gate.Shim(node, shimctl, "back")
    status = _gate.fields(back.order("attach", None))
    for name in ("instance", "epoch", "trips", "permit-until"):
        assert status[name] == before[name], (name, before, status)
    assert status["state"] == "closed"
    back.epoch = status["epoch"]
    back.order(f"gate closed {back.epoch - 1}", "ESTALE")
    back.open()
    watch.program.kill()
    cluster.step("a daemon that returns finds instance, epoch, trips and permit, and goes on with them")
    return back
