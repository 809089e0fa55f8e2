"""The gate on GFS2's locks: closed, open, permit, tripwire, and grants that are taken back."""

import signal
import time

import _gate
from harness.errors import stretch
from harness.locker import Locker

NODES = 2
CLIENTS = 0

FILE = "/srv/data/gate"
HOOKS = 7


def run(cluster):
    node1, node2 = cluster.nodes
    modules, shimctl = _gate.build(cluster.session.options.kernel)

    holder = Locker(node2, FILE, "holder")
    early = Locker(node1, FILE, "early")
    for node in cluster.nodes:
        _gate.load(node, modules)
    shim1, shim2 = _gate.Shim(node1, shimctl), _gate.Shim(node2, shimctl)
    status = shim1.status()
    assert (status["state"], status["reason"], status["hooks"], status["hooks-wanted"] & HOOKS) == ("closed", "load", status["hooks-wanted"], HOOKS), status
    assert not early.try_lock(), "granted although the gate is closed"
    assert early.test() == "free", "F_GETLK is stopped by the gate"
    early.unlock()
    early.start_lock()
    cluster.wait(lambda: shim1.status()["waiters"] == 1, 5, "a waiter at the gate")
    assert node1.run("rmmod gfs2_gate", check=False).rc, "the module went with a task inside"
    cluster.step("loaded: closed at once; F_SETLK is refused, F_SETLKW waits, F_GETLK and F_UNLCK pass")

    attach_and_open(cluster, shim1, shim2, early, shimctl)
    early.unlock()
    queued_grant(cluster, shim1, holder, early)
    upgrade(cluster, shim1, holder, early)
    downgrade(cluster, shim1, early)
    flock(cluster, shim1)
    in_flight(cluster, shim1, early)
    permit(cluster, shim1, early)
    bypass(cluster, shim1, early, shimctl)
    tripwire(cluster, shim1, shim2, holder, early)
    socket(cluster, shim1, early, shimctl)


def attach_and_open(cluster, shim1, shim2, waiter, shimctl):
    shim1.start()
    waiter.wait_granted(5)
    assert shim1.status()["waiters"] == 0
    shim2.start()
    other = _gate.Shim(cluster.nodes[0], shimctl, "other")
    other.order("attach", "EBUSY")
    other.order("gate closed 9", "ENOTCONN")
    other.program.kill()
    assert shim1.status()["attached"] == 1, "another socket's end detached the daemon"
    assert cluster.nodes[0].run("rmmod gfs2_gate", check=False).rc, "the module went under an attached daemon"
    cluster.step("opened by an attached daemon: the waiter has its lock; nobody else may attach or give orders")


def queued_grant(cluster, shim, holder, waiter):
    """A local waiter is granted a lock while the gate is closed: it must not see it."""
    before = shim.status()["undone"]
    holder.lock()
    waiter.start_lock()
    time.sleep(0.5)
    assert shim.status()["waiters"] == 0, "it waits at the gate, not in the DLM"
    shim.close()
    holder.unlock()
    cluster.wait(lambda: shim.status()["waiters"] == 1, 10, "the waiter to be back at the gate")
    assert shim.status()["undone"] == before + 1
    assert not waiter.granted()
    holder.lock(timeout=10)
    cluster.step("a grant that came while the gate was closed is taken back; the other node gets the lock")
    shim.open()
    time.sleep(0.5)
    assert not waiter.granted(), "granted against the holder"
    holder.unlock()
    waiter.wait_granted(10)
    waiter.unlock()
    cluster.step("after the opening the waiter queues again and gets it in its turn")


def upgrade(cluster, shim, other, owner):
    """The undo leaves what the owner held before: here read locks in a part of the range."""
    owner.lock("r", 10, 10)
    owner.lock("r", 40, 20)
    other.lock("r", 0, 100)
    owner.start_lock("w", 0, 100)
    time.sleep(0.5)
    shim.close()
    other.unlock()
    cluster.wait(lambda: shim.status()["waiters"] == 1, 10, "the waiter to be back at the gate")
    assert other.test("w", 10, 1) == held(owner, "r", 10, 10), other.test("w", 10, 1)
    assert other.test("w", 50, 1) == held(owner, "r", 40, 20), other.test("w", 50, 1)
    for start, length in ((0, 10), (20, 20), (60, 0)):
        assert other.test("w", start, length) == "free", (start, length, other.test("w", start, length))
    assert other.test("r", 0, 100) == "free", "a write lock is left"
    assert other.try_lock("r", 10, 10), "the owner's read lock is not one"
    other.unlock()
    shim.open()
    owner.wait_granted(10)
    assert other.test("w", 0, 0) == held(owner, "w", 0, 100), other.test("w", 0, 0)
    owner.unlock()
    assert other.test() == "free"
    cluster.step("an upgrade that is undone leaves the read locks that were there, and nothing else")


def held(owner, kind, start, length):
    return f"held {kind} {start} {length} {owner.program.pid}"


def downgrade(cluster, shim, owner):
    """Asking for what one has takes nothing from anybody, and is not undone."""
    node1 = cluster.nodes[0]
    before = shim.status()["undone"]
    owner.lock("w", 0, 100)
    freeze(cluster, node1)
    owner.start_lock("r", 20, 10)
    time.sleep(0.3)
    shim.close()
    thaw(cluster, node1)
    owner.wait_granted(10)
    assert shim.status()["undone"] == before
    assert not owner.try_lock("w", 200, 10), "granted while closed"
    owner.unlock()
    shim.open()
    cluster.step("a request for what the owner holds already, or less, stands")


def freeze(cluster, node):
    cluster.services[node, "dlm_controld"].signal(signal.SIGSTOP)


def thaw(cluster, node):
    cluster.services[node, "dlm_controld"].signal(signal.SIGCONT)


def flock(cluster, shim):
    node1, node2 = cluster.nodes
    owner, other = Locker(node1, FILE, "flock", "flock"), Locker(node2, FILE, "flock-other", "flock")
    before = shim.status()["undone"]
    other.lock()
    owner.start_lock()
    time.sleep(0.5)
    shim.close()
    other.unlock()
    cluster.wait(lambda: shim.status()["waiters"] == 1, 20, "the flock to be back at the gate")
    assert shim.status()["undone"] == before + 1
    other.poll(10)  # GFS2 gives a lock that it caches away only after somebody has asked
    assert other.granted_after()[0], "the flock was not taken back"
    other.unlock()
    shim.open()
    owner.wait_granted(20)
    assert not other.try_lock()
    shim.close()
    owner.unlock()
    assert not owner.try_lock(), "granted while closed"
    shim.open()
    owner.close()
    other.close()
    cluster.step("flock: the same")


def in_flight(cluster, shim, owner):
    """F_SETLK that is on its way when the gate closes, and the gate is open again when it comes back."""
    node1 = cluster.nodes[0]
    before = shim.status()["undone"]
    freeze(cluster, node1)
    owner.poll(0)
    time.sleep(0.3)
    shim.close()
    shim.open()
    thaw(cluster, node1)
    granted, _ = owner.granted_after()
    assert not granted, "a grant from before the closing stands"
    assert shim.status()["undone"] == before + 1
    assert owner.try_lock()
    owner.unlock()
    cluster.step("a grant that was on its way while the gate closed and opened again is taken back")


def permit(cluster, shim, owner):
    node1 = cluster.nodes[0]
    late, short = [], round(stretch(700))
    timer_event = "/sys/kernel/tracing/events/lockd_shim/lockd_shim_permit/enable"
    node1.run(f"ls {timer_event} || mount -t tracefs t /sys/kernel/tracing; echo > /sys/kernel/tracing/trace; echo 1 > {timer_event}")
    for _ in range(5):
        shim.open()
        shim.order("permit 0")
        assert shim.status()["state"] == "closed"
        shim.order(f"gate open {shim.epoch} {shim.status()['trips']}", "ETIME")
        shim.order(f"permit {short}")
        shim.order(f"gate open {shim.epoch} {shim.status()['trips']}")
        until = shim.status()["permit-until"] / 1e9 + node1.clock.boot_offset
        assert owner.try_lock()
        owner.unlock()
        cluster.wait(lambda: events(shim, "gate")[-1][2]["state"] == "closed", 5, "the permit's end")
        when, _, event = events(shim, "gate")[-1]
        assert event["reason"] == "permit", event
        late.append((when - until) * 1000)
        assert not owner.try_lock(), "granted without a permit"
        shim.order(f"permit {short}")
        assert shim.status()["state"] == "closed", "a permit opened the gate"
    trace = node1.run(f"cat /sys/kernel/tracing/trace; echo 0 > {timer_event}").out
    timer = [int(word.split("=")[1]) / 1000 for word in trace.split() if word.startswith("late_ns=")]
    assert len(timer) == 5, trace
    shim.open()
    cluster.step(
        "the permit's end closes the gate by itself: "
        f"timer {', '.join(f'{t:.0f}' for t in timer)} us late, event {', '.join(f'{t:.1f}' for t in late)} ms"
    )


def events(shim, name):
    return [event for event in shim.events() if event[1] == name]


def bypass(cluster, shim, owner, shimctl):
    """An operator opens the gate past its daemon: everything passes, and no order is answered as if it held anything."""
    waiter = Locker(cluster.nodes[0], FILE, "bypass-waiter")
    operator = _gate.Shim(cluster.nodes[0], shimctl, "operator")
    try:
        bypassed(cluster, shim, owner, waiter, operator, shimctl)
    finally:
        waiter.close()
    shim.open()
    cluster.step("bypass, by a socket that is not the daemon's and is gone: a waiter has its lock, no order to close is acknowledged; off: closed, until an order")


def bypassed(cluster, shim, owner, waiter, operator, shimctl):
    node1 = cluster.nodes[0]
    shim.close()
    waiter.start_lock("w", 0, 10)
    cluster.wait(lambda: shim.status()["waiters"] == 1, 5, "a waiter at the gate")
    operator.order("bypass 1")
    operator.order("bypass 1")
    waiter.wait_granted(10)
    status = shim.status()
    assert (status["state"], status["reason"], status["bypass"]) == ("open", "bypass", 1), status
    assert not any(each["held"] or each["in-grace"] for each in shim.namespaces().values()), shim.namespaces()
    shim.order(f"gate closed {shim.epoch}", "EBUSY")
    shim.order(f"gate open {shim.epoch} {status['trips']}", "EBUSY")
    shim.order(f"reclaim /proc/self/ns/net give {shim.epoch}", "EBUSY")
    shim.order("permit 0")
    operator.program.kill()
    cluster.wait(lambda: not operator.program.alive(), 5, "the operator's socket to close")
    assert owner.try_lock("w", 20, 1), "held back in spite of the bypass"
    owner.unlock(20, 1)
    off = _gate.Shim(node1, shimctl, "operator2")
    off.order("bypass 0")
    off.program.kill()
    status = shim.status()
    assert (status["state"], status["reason"], status["bypass"]) == ("closed", "bypass", 0), status
    assert all(each["held"] for each in shim.namespaces().values())
    assert not owner.try_lock("w", 20, 1), "the end of the bypass did not close the gate"
    assert cluster.logged(node1, "kernel", "gate BYPASS ON by shimctl") and cluster.logged(node1, "kernel", "gate BYPASS off")


def tripwire(cluster, shim1, shim2, holder, owner):
    """A member leaves the lockspace: dlm_controld stops it on the other."""
    node1, node2 = cluster.nodes
    trips = shim1.status()["trips"]
    before = time.monotonic()
    shim2.program.kill()
    holder.close()
    node2.run("umount /srv/data", timeout=60)
    status = shim1.status()
    assert status["state"] == "closed" and status["reason"] == "trip" and status["trips"] > trips, status
    trip = [event for event in events(shim1, "trip") if event[0] > before][0]
    assert trip[2]["cause"] == "dlm-ls-stop"
    shim1.order(f"gate open {shim1.epoch} {trips}", "EAGAIN")
    assert not owner.try_lock()
    shim1.open()
    assert owner.try_lock()
    owner.unlock()
    # The modules come before GFS2 now.
    node2.run("modprobe -r gfs2; rmmod gfs2 dlm 2>/dev/null; true")
    cluster.mount(node2)
    assert shim1.status()["trips"] > status["trips"], "a member that joins does not trip"
    cluster.step(f"dlm_ls_stop closes the gate, {status['trips'] - trips} trips; only an order that counts them opens it")


def socket(cluster, shim, owner, shimctl):
    node1 = cluster.nodes[0]
    shim.open()  # a member that joins trips as well
    waiter = Locker(node1, FILE, "last")
    assert owner.try_lock()
    shim.program.kill()
    watch = _gate.Shim(node1, shimctl, "watch")
    cluster.wait(lambda: watch.status()["attached"] == 0, 5, "the socket's end to be seen")
    status = watch.status()
    assert status["state"] == "closed" and status["reason"] == "socket" and status["epoch"] == shim.epoch, status
    assert all(each["held"] and each["in-grace"] and not each["opens-blocked"] for each in watch.namespaces().values())
    owner.unlock()
    assert not owner.try_lock(), "granted without a daemon"
    waiter.start_lock()
    cluster.wait(lambda: watch.status()["waiters"] == 1, 5, "a waiter")
    waiter.close()
    cluster.wait(lambda: watch.status()["waiters"] == 0, 5, "the killed waiter to be gone")
    watch.program.kill()
    cluster.step("the daemon's death closes the gate; a waiter can be killed")
    owner.close()


def cleanup(cluster):
    for node in cluster.nodes:
        _gate.unload(node)
