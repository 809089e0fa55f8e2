"""`state = single` in the place of nfsdcld on one host: the node's own nfsd restarts, its clients reclaim, the grace ends early."""

import re
import time

import _graced
from _single import CLIENTS, CLUSTER, LIMIT_S, NODES, set_up, tear_down  # noqa: F401
from harness import image
from harness.errors import stretch
from harness.locker import Locker

DROP_IN = image.CHECKOUT / "systemd/nfs-server.service.d/graced.conf"


def commands(what, host):
    """What the drop-in has systemd run."""
    found = re.findall(rf"^{what}=(.+)$", DROP_IN.read_text(), re.MULTILINE)
    return " && ".join(command.replace("%H", host) for command in found)


def start(node):
    """systemctl start nfs-server"""
    node.run(f"{commands('ExecStartPre', 'node1')} && rpc.nfsd -N 3 4 && {commands('ExecStartPost', 'node1')}", timeout=120)


def stop(node):
    """systemctl stop nfs-server"""
    node.run(commands("ExecStop", "node1"), timeout=120)


def run(cluster):
    node, vm = set_up(cluster)
    node.run(
        "hostname node1; mkdir -p /run/rpc_pipefs; mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; "
        "mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs; "
        "exportfs -o rw,no_root_squash,fsid=0,no_subtree_check '*:/srv/data'"
    )
    node.spawn("rpc.mountd -F -N 2 -N 3", log="mountd")
    node.run("echo 20 > /proc/fs/nfsd/nfsv4leasetime")
    start(node)
    clients = [_graced.NfsClient(vm, f"cl{n}", 60 + n) for n in (1, 2)]
    held = []
    for n, client in enumerate(clients):
        client.mount(node.address, f"/mnt/{n}", "vers=4.2" if n else "vers=4.1")
        held.append(Locker(vm, f"/mnt/{n}/f{n}", f"client{n}"))
        held[n].lock()
    assert len(_graced.clients(node, "node1")) == 2
    cluster.step("the node's own nfsd, in no namespace of its own, tracked by graced; two clients hold locks")

    def reclaimed(since, what):
        _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
        said = _graced.done(cluster, node, "node1", since)
        assert said == "all reclaimed", f"the grace ended by '{said}'"
        assert not _graced.locks_lost(vm)
        for owner in held:
            owner.write(what)
        opened = cluster.logged(node, "graced", "reclaim is open", since)[-1][0]
        lifted = cluster.logged(node, "graced", "the grace is lifted", since)[-1][0]
        assert lifted - opened < stretch(_graced.GRACE_PERIOD), "not early"
        cluster.step(f"{what}: both reclaimed; lifted {lifted - opened:.1f} s after reclaim opened, of {stretch(_graced.GRACE_PERIOD):.0f} s")

    began = time.monotonic()
    stop(node)
    start(node)
    reclaimed(began, "systemctl restart nfs-server")

    began = time.monotonic()
    node.run("rpc.nfsd 0 && rpc.nfsd -N 3 4", timeout=120)  # nobody told graced
    reclaimed(began, "restarted by hand")

    began = time.monotonic()
    node.run("rpc.nfsd 0", timeout=60)
    node.graced.kill()
    node.graced.wait(10)
    _graced.start_daemon(cluster, node)
    cluster.wait(lambda: _graced.status(node), 30, "graced to answer")
    node.run("rpc.nfsd -N 3 4", timeout=120)
    reclaimed(began, "nfsd and graced restarted")
    stop(node)


def cleanup(cluster):
    node = cluster.nodes[0]
    node.run("rpc.nfsd 0; exportfs -ua; exportfs -f", check=False, timeout=60)
    tear_down(cluster)
