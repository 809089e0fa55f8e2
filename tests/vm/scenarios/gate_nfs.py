"""The gate and knfsd: grace in the server's namespace, reclaims by permission only, late grants taken back."""

import signal
import time

import _gate
from harness.locker import Locker

NODES = 2
CLIENTS = 2

FILE = "/srv/data/nfs"
NFS_FILE = "/mnt/nfs"


def run(cluster):
    node1, node2 = cluster.nodes
    client1, client2 = cluster.clients
    shim, shim2 = _gate.gates(cluster)
    shim.close()
    local = Locker(node2, FILE, "local")
    assert local.try_lock()
    local.unlock()

    serve(node1)
    cluster.each(lambda client: client.run(f"mount -t nfs -o vers=4.2 {node1.address}:/ /mnt", timeout=60), cluster.clients)
    owner = Locker(client1, NFS_FILE, "owner")
    owner.start_lock()
    time.sleep(2)
    assert not owner.granted(), "an NFS lock was granted while the gate is closed"
    end_grace(node1)
    assert [each["in-grace"] for each in shim.namespaces().values()] == [1]
    shim.open()
    # Whoever is told to end nfsd's own grace may leave that to a kernel thread.
    cluster.wait(lambda: [each["in-grace"] for each in shim.namespaces().values()] == [0], 10, "the end of grace")
    opened = time.monotonic()
    owner.wait_granted(60)
    cluster.step(f"NFSv4: in grace while the gate is closed; lock granted {time.monotonic() - opened:.1f} s after the opening")
    assert local.test().startswith("held w 0 0")
    owner.unlock()

    opens(cluster, shim)
    in_flight(cluster, shim, owner, local)
    reclaim(cluster, shim, owner, local, Locker(client2, NFS_FILE, "newcomer"))
    withdrawn(cluster, shim, owner, local)
    conflict(cluster, shim, shim2, owner, local)
    lets_go(cluster, shim, owner, local)


def serve(node):
    node.run(
        "modprobe nfsd && mkdir -p /run/rpc_pipefs /var/lib/nfs/nfsdcld /var/lib/nfs/v4recovery"
        "&& { mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; }"
        "&& { mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs; }"
        "&& exportfs -o rw,no_root_squash,fsid=0 '*:/srv/data'"
    )
    node.run("rpcbind -w; rpc.statd", check=False)
    _gate.start_nfsdcld(node)
    _gate.start_mountd(node)
    node.run("echo 90 > /proc/fs/nfsd/nfsv4gracetime; echo 20 > /proc/fs/nfsd/nfsv4leasetime; rpc.nfsd 4", timeout=60)


def restart(node):
    node.run("rpc.nfsd 0 && sleep 0.5 && rpc.nfsd 4", timeout=60)


def freeze(cluster, node):
    cluster.services[node, "dlm_controld"].signal(signal.SIGSTOP)


def thaw(cluster, node):
    cluster.services[node, "dlm_controld"].signal(signal.SIGCONT)


def dropped(cluster, local):
    """The lock of a server that has ended: its kernel does not wait until dlm_controld has dropped it."""
    cluster.wait(lambda: local.test() == "free", 10, "the lock to be free")


def opens(cluster, shim):
    """Opens, removals and renames are put off only where opens are reclaimed."""
    client = cluster.clients[0]
    work = "echo x > /mnt/new && mv /mnt/new /mnt/renamed && rm /mnt/renamed"
    shim.close()
    started = time.monotonic()
    client.run(work)
    took = time.monotonic() - started
    assert [(each["held"], each["opens-blocked"]) for each in shim.namespaces().values()] == [(1, 0)]
    shim.reclaim("give")
    assert [each["opens-blocked"] for each in shim.namespaces().values()] == [1]
    blocked = client.spawn(work, log="open")
    time.sleep(5)
    assert blocked.alive(), "an open passed where opens are reclaimed"
    shim.reclaim("withdraw")
    assert blocked.wait(60) == 0
    shim.open()
    cluster.step(f"gate closed: a client creates, renames and removes a file in {took:.1f} s; in state reclaim it has to wait")


def in_flight(cluster, shim, owner, local):
    """A new NFS lock is in the DLM when the gate closes."""
    node1 = cluster.nodes[0]
    before = shim.status()
    freeze(cluster, node1)
    owner.start_lock()
    in_dlm = "grep -qs dlm_posix_lock /proc/[0-9]*/stack"
    cluster.wait(lambda: node1.run(in_dlm, check=False).rc == 0, 60, "an nfsd to wait for the DLM")
    shim.close()
    thaw(cluster, node1)
    cluster.wait(lambda: shim.status()["undone"] == before["undone"] + 1, 10, "the grant to be undone")
    # Counted when the DLM has taken the lock back.
    cluster.wait(lambda: shim.status()["deferred"] > before["deferred"], 10, "the client to be told to come again")
    assert local.try_lock(), "the lock was not taken back"
    local.unlock()
    assert not owner.granted()
    shim.open()
    owner.wait_granted(60)
    cluster.step("a grant that came after the closing is taken back; the client is told to wait, and gets it later")


def reclaim(cluster, shim, owner, local, newcomer):
    node1 = cluster.nodes[0]
    client1 = cluster.clients[0]
    assert owner.granted()
    before = shim.status()["deferred"]
    shim.close()
    restart(node1)
    poke = client1.spawn("df /mnt", log="poke")  # not an open: those have to wait
    cluster.wait(lambda: shim.status()["deferred"] > before, 60, "a reclaim to be refused")
    dropped(cluster, local)
    newcomer.start_lock()
    cluster.step("the server restarted: a reclaim without permission is deferred")

    node1.run("ip netns add other")
    shim.reclaim("give", "/run/netns/other")
    assert sorted(each["state"] for each in shim.namespaces().values()) == ["closed", "reclaim"]
    before = shim.status()["deferred"]
    cluster.wait(lambda: shim.status()["deferred"] > before + 1, 60, "more reclaims to be refused")
    assert local.test() == "free", "a reclaim passed by the permission of another namespace"
    shim.reclaim("withdraw", "/run/netns/other")
    node1.run("ip netns del other")
    cluster.step("permission for another network namespace does not help it")

    shim.reclaim("give")
    cluster.wait(lambda: local.test().startswith("held w 0 0"), 60, "the reclaim to pass")
    assert not newcomer.granted()
    poke.wait(60)
    shim.order(f"gate open {shim.epoch} {shim.status()['trips']}", "EBUSY")
    shim.reclaim("withdraw")
    shim.open()
    end_grace(node1)
    time.sleep(3)
    assert not newcomer.granted(), "granted against the lock that was reclaimed"
    owner.unlock()
    newcomer.wait_granted(90)
    newcomer.unlock()
    newcomer.close()
    cluster.step("with permission it passes, new locks do not; after the opening the lock is the owner's")


def end_grace(node):
    """nfsd's own grace and lockd's; EBUSY if nfsd's has ended by itself."""
    node.run("echo Y > /proc/fs/nfsd/v4_end_grace; echo Y > /proc/fs/lockd/nlm_end_grace", check=False)


def withdrawn(cluster, shim, owner, local):
    """Permission is withdrawn while a reclaim is in the DLM."""
    node1, client1 = cluster.nodes[0], cluster.clients[0]
    owner.lock(timeout=60)
    before = shim.status()
    shim.close()
    restart(node1)
    poke = client1.spawn("df /mnt", log="poke")  # not an open: those have to wait
    cluster.wait(lambda: shim.status()["deferred"] > before["deferred"], 60, "a reclaim to be refused")
    freeze(cluster, node1)
    shim.reclaim("give")
    cluster.wait(lambda: [each["reclaims-in-flight"] for each in shim.namespaces().values()] == [1], 60, "a reclaim in flight")
    asked = time.monotonic()
    shim.reclaim("withdraw")
    took = time.monotonic() - asked
    thaw(cluster, node1)
    cluster.wait(lambda: shim.status()["undone"] == before["undone"] + 1, 10, "the reclaim to be undone")
    cluster.wait(lambda: local.test() == "free", 5, "the lock to be gone")
    time.sleep(3)
    assert local.test() == "free", "a reclaim passed after its permission was withdrawn"
    shim.reclaim("give")
    cluster.wait(lambda: local.test().startswith("held w 0 0"), 60, "the reclaim to pass")
    poke.wait(60)
    shim.reclaim("withdraw")
    shim.open()
    end_grace(node1)
    owner.unlock(timeout=60)
    cluster.step(f"withdrawn with a reclaim on its way ({took * 1000:.0f} ms): it is taken back, and passes when permitted again")


def conflict(cluster, shim, shim2, owner, local):
    """Another's lock stands in the reclaim's way for a moment (its undo is on the way)."""
    node1, client1 = cluster.nodes[0], cluster.clients[0]
    owner.lock(timeout=60)
    shim.close()
    restart(node1)
    cluster.wait(local.try_lock, 10, "a local program to get the lock that the server let go")
    shim.reclaim("give")
    before = shim.status()
    poke = client1.spawn("df /mnt", log="poke")  # not an open: those have to wait
    cluster.wait(lambda: shim.status()["deferred"] > before["deferred"], 60, "a conflict")
    time.sleep(3)
    local.unlock()
    cluster.wait(lambda: local.test().startswith("held w 0 0"), 60, "the reclaim to pass")
    poke.wait(60)
    assert "lost" not in client1.run("dmesg | grep -i 'lost.*lock' || true").out
    shim.reclaim("withdraw")
    shim.open()
    end_grace(node1)
    owner.unlock(timeout=60)
    cluster.step("a reclaim that meets a conflict is deferred, not lost")


def stop_waits(shim, still=lambda: True):
    """A server that stops does not let go of its locks (`still`) before every node enforces."""
    shim.order("alone 0")
    shim.close()
    before = shim.status()["trips"]
    stop = shim.node.spawn("rpc.nfsd 0", log="stop")
    shim.node.wait(lambda: shim.status()["trips"] > before, 30, "the trip", every=0.1)
    trips = shim.status()["trips"]
    shim.order(f"enforced 1 {shim.epoch} {before}", "EAGAIN")  # that was before the stop
    shim.order(f"enforced 1 {shim.epoch - 1} {trips}", "ESTALE")
    time.sleep(2)
    assert stop.alive() and still(), "a server let go of its locks before every node enforced"
    shim.order(f"enforced 1 {shim.epoch} {trips}")
    told = time.monotonic()
    assert stop.wait(30) == 0
    shim.order("alone 1")
    return time.monotonic() - told


def lets_go(cluster, shim, owner, local):
    node1, client1 = cluster.nodes[0], cluster.clients[0]
    warned = "dmesg | grep -c 'lets go of its locks before every node enforces' || true"
    owner.lock(timeout=60)
    took = stop_waits(shim, lambda: local.test().startswith("held w 0 0"))
    dropped(cluster, local)
    assert node1.run(warned).out.strip() == "0"
    cluster.step(f"a server that is stopped keeps its locks until every node enforces, and is gone {took:.1f} s after that")

    node1.run("rpc.nfsd 4", timeout=60)
    shim.reclaim("give")
    poke = client1.spawn("df /mnt", log="poke")
    cluster.wait(lambda: local.test().startswith("held w 0 0"), 60, "the reclaim to pass")
    poke.wait(60)
    shim.reclaim("withdraw")
    shim.order("alone 0")
    began = time.monotonic()
    node1.run("rpc.nfsd 0", timeout=60)
    took = time.monotonic() - began
    assert took > 21.5 and node1.run(warned).out.strip() == "1", f"a stop that nobody answered took {took:.1f} s"
    cluster.step(f"if nobody says that they do, it goes on 2 s after a permit of 20 s ({took:.1f} s in all), with a warning")

    node1.run("rpc.nfsd 4", timeout=60)
    shim.program.kill()
    shim.program.wait()
    node1.run("rpc.nfsd 0", timeout=60)
    assert node1.run(warned).out.strip() == "1", "a stop waited for a daemon that there is not"
    cluster.step("without a daemon it does not wait")


def cleanup(cluster):
    node1 = cluster.nodes[0]
    node1.run("rpc.nfsd 0; exportfs -ua; umount /proc/fs/nfsd", check=False, timeout=60)
    cluster.each(_gate.unload)
