"""A node that ran nfsdcld with live clients goes over to graced, and back: nobody loses a lock, nobody else gets one."""

import time

import _gate
import _graced
from harness.locker import Locker


def before_mount(cluster, node):
    """A cluster that has never heard of graced."""
    _graced.install(node)
    node.run("modprobe nfsd", timeout=60)


NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": before_mount}
FRESH = True
LIMIT_S = 900
ADDRESS = _graced.SERVERS["vs1"]


def start_stock(node):
    """nfsdcld and nfsd in the node's own namespaces, with the scope and the address that the clients know."""
    node.run(
        "mkdir -p /run/rpc_pipefs /var/lib/nfs/nfsdcld /var/lib/nfs/v4recovery; "
        "mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; "
        "mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs; "
        "exportfs -o rw,no_root_squash,fsid=0,no_subtree_check '*:/srv/data'"
    )
    nfsdcld = _gate.start_nfsdcld(node)
    mountd = _gate.start_mountd(node, "-N 2 -N 3")
    node.run(
        f"echo 40 > /proc/fs/nfsd/nfsv4gracetime; echo 20 > /proc/fs/nfsd/nfsv4leasetime; unshare -u sh -c 'hostname vs1; rpc.nfsd -N 3 4'; "
        f"ip addr add {ADDRESS}/24 dev eth0; arping -U -c 2 -I eth0 {ADDRESS} || true",
        timeout=60,
    )
    return nfsdcld, mountd


def stop_stock(node, mountd):
    """systemctl disable --now nfs-server"""
    node.run(f"rpc.nfsd 0; exportfs -ua; exportfs -f; ip addr del {ADDRESS}/24 dev eth0", timeout=60)
    mountd.kill()


def run(cluster):
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    nfsdcld, mountd = start_stock(node1)
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a", "vers=4.1")
    b.mount("vs1", "/mnt/b", "vers=4.2")
    held = {name: Locker(vm, f"/mnt/{name}/{name}", name) for name in ("a", "b")}
    for owner in held.values():
        owner.lock(timeout=90)  # the stock server's first grace
    rivals = [Locker(node2, f"/srv/data/{name}", f"rival-{name}") for name in held]
    for rival in rivals:
        rival.poll(900)
    cluster.step("a stock server with nfsdcld; two clients hold locks; graced is nowhere")

    # The order of docs/operating.md.
    nfsdcld.kill()
    cluster.each(lambda node: _graced.attach(cluster, node))
    _graced.wait_normal(cluster)
    dry = node1.run("gracectl import --server vs1 --dry-run").out
    assert not _graced.clients(node2, "vs1"), dry
    node1.run("gracectl import --server vs1", timeout=60)
    node1.run("gracectl import --server vs1", timeout=60)  # again: nothing changes
    assert len(_graced.clients(node2, "vs1")) == 2
    cluster.step("1, 2: nfsdcld is stopped, graced runs; its clients are on record on both nodes")
    began = time.monotonic()
    node1.run("gracectl start vs1", timeout=60)
    cluster.wait(lambda: [_graced.gate(node) for node in cluster.nodes] == ["closed", "closed"], 20, "both gates to be closed")
    stop_stock(node1, mountd)
    _graced.serve(node1, "vs1")
    cluster.step("3, 4, 5: grace begun, the stock server stopped, vs1 started")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    said = _graced.done(cluster, node1, "vs1", began)
    assert said == "all reclaimed", f"the grace ended by '{said}'"
    assert not _graced.locks_lost(vm) and not any(rival.ended_poll() for rival in rivals)
    for name, owner in held.items():
        owner.write(f"{name} under graced")
    cluster.step("both have reclaimed, and the grace is lifted")

    # Back.
    node1.run("graced-server stop vs1", timeout=180)
    node1.run("rm -rf /var/lib/nfs/nfsdcld; mkdir -p /var/lib/nfs/nfsdcld; gracectl export --server vs1 /var/lib/nfs/nfsdcld/main.sqlite")
    node1.graced.signal()
    node1.graced.wait(20)
    node1.run("rmmod gfs2_gate && rmmod lockd_shim", timeout=60)
    nfsdcld, mountd = start_stock(node1)
    for name, owner in held.items():
        owner.write(f"{name} under nfsdcld again", timeout=120)
    assert not _graced.locks_lost(vm) and not any(rival.ended_poll() for rival in rivals)
    cluster.step("back: exported, graced stopped there, nfsdcld and nfsd started: both have reclaimed again")
    nfsdcld.kill()
    mountd.kill()
