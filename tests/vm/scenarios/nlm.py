"""NFSv3: two clients of one node exclude each other, in the DLM too; grace, reclaims by record only, unlock_ip, refusal by policy."""

import signal
import time

import _gate
import gate_nfs
from harness.errors import stretch
from harness.locker import Locker

NODES = 2
CLIENTS = 2
LIMIT_S = 900

FILE = "/srv/data/v3"
NFS_FILE = "/mnt/v3"
STATD = "/var/lib/nfs"


def run(cluster):
    node1, node2 = cluster.nodes
    local = Locker(node2, FILE, "local")
    node1.run(f"mkdir -p {STATD}/sm {STATD}/sm.bak; chown -R statd {STATD}/sm {STATD}/sm.bak; chown statd {STATD}")
    gate_nfs.serve(node1)
    gate_nfs.end_grace(node1)

    def mount(client):
        client.run(f"mkdir -p {STATD}/sm {STATD}/sm.bak; chown -R statd {STATD} || true; rpcbind -w; rpc.statd", check=False)
        client.run(f"mount -t nfs -o vers=3,timeo=30,retrans=2 {node1.address}:/srv/data /mnt", timeout=90)

    cluster.each(mount, cluster.clients)
    stock(cluster)
    shim, _ = _gate.gates(cluster)
    one, two = (Locker(client, NFS_FILE, f"v3-{client}") for client in cluster.clients)
    beside = Locker(cluster.clients[0], NFS_FILE, "v3-beside")
    exclusion(cluster, one, two, beside, local)
    blocking(cluster, one, two)
    closing(cluster, shim, one, two, local)
    reclaims(cluster, shim, one, two, local)
    dropped(cluster, shim, one, two)
    for locker in (one, two, beside, local):
        locker.close()
    refused(cluster, shim)


def stock(cluster):
    """What this kernel does without the modules when a client is ready to wait; only said, not asserted."""
    holder = Locker(cluster.nodes[1], f"{FILE}-stock", "stock-holder")
    waiter = Locker(cluster.clients[0], f"{NFS_FILE}-stock", "stock-waiter")
    holder.lock("w", 0, 10)
    waiter.start_lock("w", 0, 10)

    def result():
        return [(when, said) for _, when, verb, said in waiter.lines() if verb == "lock" and said != "waits"]

    time.sleep(5)
    waits = not result()
    released = time.monotonic()
    holder.unlock()
    cluster.wait(result, 90, "the client's lock to be granted or refused")
    when, said = result()[-1]
    cluster.step(
        "without the modules a client that is ready to wait for a lock "
        + (f"has its answer {when - released:.1f} s after the unlock: {said}" if waits else f"has its answer at once: {said}")
    )
    holder.close()
    waiter.close()


def exclusion(cluster, one, two, beside, local):
    node1 = cluster.nodes[0]
    assert one.try_lock("w", 0, 100, timeout=60)
    assert not two.try_lock("w", 0, 100), "two NFSv3 clients hold one exclusive lock"
    assert not beside.try_lock("w", 0, 100), "two processes of one client hold one exclusive lock"
    assert not local.try_lock("w", 99, 1), "a program of another node holds the same lock"
    assert two.test("w", 0, 0).startswith("held w 0 100"), two.test("w", 0, 0)
    assert two.try_lock("w", 100, 100) and beside.try_lock("r", 200, 50)
    locks = _gate.plocks(node1, FILE)
    assert [lock[:4] for lock in locks] == [("RD", 200, 249, 1), ("WR", 0, 99, 1), ("WR", 100, 199, 1)], locks
    owners = {lock[4] for lock in locks}
    assert len(owners) == 3, f"owners are shared: {locks}"
    two.unlock(0, 0)
    assert _gate.plocks(node1, FILE) == [lock for lock in locks if lock[1] != 100], "one owner's unlock took another's lock"
    beside.unlock(0, 0)
    # Changes within a range, and what is left of it.
    one.unlock(20, 10)
    assert one.try_lock("r", 0, 10)
    assert [lock[:3] for lock in _gate.plocks(node1, FILE)] == [("RD", 0, 9), ("WR", 10, 19), ("WR", 30, 99)], _gate.plocks(node1, FILE)
    assert two.try_lock("r", 0, 5) and two.try_lock("w", 20, 10) and not two.try_lock("w", 15, 1)
    one.unlock(0, 0)
    two.unlock(0, 0)
    assert _gate.plocks(node1, FILE) == [] and _gate.local_locks(node1, FILE) == []
    cluster.step(f"two NFSv3 clients and two processes of one exclude each other: {len(owners)} owners in the DLM, nothing is left behind")


def blocking(cluster, one, two):
    one.lock("w", 0, 10)
    two.start_lock("w", 0, 10)
    time.sleep(2)
    assert not two.granted()
    released = time.monotonic()
    one.unlock()
    waited = two.wait_granted(60) - released
    two.unlock()
    cluster.step(f"a blocking lock is granted {waited:.1f} s after the unlock (the client asks again every 5 s)")
    assert waited < stretch(15), "the client asks again every 30 s only"


def closing(cluster, shim, one, two, local):
    node1 = cluster.nodes[0]
    before = shim.status()
    cluster.services[node1, "dlm_controld"].signal(signal.SIGSTOP)
    one.start_lock("w", 0, 10)
    time.sleep(2)
    shim.close()
    cluster.services[node1, "dlm_controld"].signal(signal.SIGCONT)
    cluster.wait(lambda: shim.status()["undone"] == before["undone"] + 1, 30, "the grant to be undone")
    assert _gate.plocks(node1, FILE) == [] and local.test() == "free"
    time.sleep(6)
    assert not one.granted(), "granted while the gate is closed"
    shim.open()
    opened = time.monotonic()
    one.wait_granted(60)
    cluster.step(f"a grant that came after the closing is undone; the client waits, and has it {time.monotonic() - opened:.1f} s after the opening")
    one.unlock()


def restart(node):
    """A server that stops and starts, and tells its clients, as a failover does."""
    node.run(f"rm -rf /run/sm && cp -a {STATD} /run/sm && ls /run/sm/sm")
    node.run("rpc.nfsd 0 && sleep 0.5 && rpc.nfsd 4", timeout=60)


def notify(node):
    node.run(f"sm-notify -f -m 0 -P /run/sm -v {node.name}", check=False, timeout=60)


def reclaims(cluster, shim, one, two, local):
    """Only hosts on record, only in state reclaim."""
    node1 = cluster.nodes[0]
    client1, client2 = cluster.clients
    one.lock("w", 0, 10)
    two.lock("w", 20, 10)
    shim.close()
    restart(node1)
    assert _gate.plocks(node1, FILE) == [], "rpc.nfsd 0 left locks in the DLM"
    before = shim.status()["deferred"]
    notify(node1)
    cluster.wait(lambda: shim.status()["deferred"] > before, 90, "a reclaim to be put off")
    time.sleep(3)
    assert _gate.plocks(node1, FILE) == [], "a reclaim passed without permission"
    cluster.step("a restart leaves no lock in the DLM; reclaims without permission get no answer")
    shim.reclaim("give")
    shim.order(f"host /proc/self/ns/net {client1.address} {shim.epoch}")
    cluster.wait(lambda: [lock[:3] for lock in _gate.plocks(node1, FILE)] == [("WR", 0, 9)], 120, "the reclaim to pass")
    said = cluster.wait(lambda: cluster.logged(node1, "kernel", "is not on record"), 120, "the other client to be refused")
    time.sleep(2)
    assert [lock[:3] for lock in _gate.plocks(node1, FILE)] == [("WR", 0, 9)], _gate.plocks(node1, FILE)
    assert len([each for each in shim.namespaces().values() if each["hosts"] == 1]) == 1
    shim.reclaim("withdraw")
    shim.open()
    gate_nfs.end_grace(node1)
    assert not local.try_lock("w", 5, 1) and local.try_lock("w", 20, 10), "not the lock that was reclaimed"
    local.unlock()
    cluster.step(f"the client on record reclaims, the other is refused ({said[0][1].split('gfs2_gate: ')[1][:60]})")
    one.unlock()
    two.unlock()
    assert _gate.plocks(node1, FILE) == []


def ignores_kill(node):
    """6.1's lockd drops all its locks at SIGKILL; 6.12's does not hear it."""
    ignored = int(node.run("awk '/^SigIgn/ {print $2}' /proc/$(pgrep -x lockd)/status").out, 16)
    return bool(ignored & 1 << signal.SIGKILL - 1)


def dropped(cluster, shim, one, two):
    """unlock_ip, unlock_filesystem, a signal to lockd: the gate closes first, nothing is left in the DLM."""
    node1 = cluster.nodes[0]
    for what, order in (
        ("unlock_ip", f"echo {node1.address} > /proc/fs/nfsd/unlock_ip"),
        ("unlock_filesystem", "echo /srv/data > /proc/fs/nfsd/unlock_filesystem"),
        ("SIGKILL of lockd", "kill -KILL $(pgrep -x lockd)"),
    ):
        if "lockd" in what and ignores_kill(node1):
            cluster.step("this kernel's lockd heeds no signal")
            continue
        one.lock("w", 0, 10, timeout=60)
        waiter = Locker(node1, FILE, "waiter")
        waiter.start_lock("w", 0, 10)
        cluster.wait(lambda: "WAITING" in node1.run("dlm_tool plocks data").out, 10, "a local waiter in the DLM")
        before, stops = shim.status(), [each["stops"] for each in shim.namespaces().values()]
        node1.run(order)
        if "lockd" in what:
            two.command("test w 50 1", timeout=60)  # it looks for signals when a request has woken it
        cluster.wait(lambda: shim.status()["undone"] == before["undone"] + 1, 20, "the local waiter's grant to be undone")
        now = shim.status()
        assert now["state"] == "closed" and now["trips"] > before["trips"], now
        assert not waiter.granted()
        assert [each["stops"] for each in shim.namespaces().values()] == [stops[0] + 1]
        trip = [fields for _, name, fields in shim.events() if name == "trip"][-1]
        assert trip["cause"] == "lockd-stop", trip
        assert _gate.plocks(node1, FILE) == [], "locks are left in the DLM"
        shim.order(f"gate open {shim.epoch} {before['trips']}", "EAGAIN")
        shim.open()
        gate_nfs.end_grace(node1)
        waiter.wait_granted(20)
        waiter.close()
        one.command("unlock", timeout=30)
        cluster.step(f"{what}: the gate closed first, a local waiter's grant was undone, the namespace's stop counted, no lock left in the DLM")


def refused(cluster, shim):
    node1 = cluster.nodes[0]
    modules, shimctl = _gate.build(cluster.session.options.kernel)
    shim.program.kill()
    cluster.wait(lambda: node1.run("rmmod gfs2_gate", check=False).rc == 0, 10, "the module to go")
    node1.run(f"insmod {modules[1]} nlm=refuse")
    node1.run("rmmod lockd_shim", check=False)
    v3 = Locker(cluster.clients[1], NFS_FILE, "v3-refused")
    watch = _gate.Shim(node1, shimctl, "watch")
    watch.epoch = watch.status()["epoch"]
    watch.start()
    gate_nfs.end_grace(node1)
    result = v3.command("try w 0 0", timeout=60)
    assert result == "error ENOLCK", result
    assert v3.command("unlock", timeout=60) == "ok"
    assert cluster.logged(node1, "kernel", "NFSv3 lock on .* refused"), "refused without a word"
    v3.close()
    watch.program.kill()
    cluster.step("nlm=refuse: ENOLCK and a message in the log")


def cleanup(cluster):
    for client in cluster.clients:
        client.run("umount -f /mnt", check=False, timeout=60)
    gate_nfs.cleanup(cluster)
