"""One host without a cluster, or a node's own nfsd in one: what containers.py, single.py and two_addresses_simple.py share."""

import re

import _gate
import _graced
from harness import image

NODES = 1
CLIENTS = 1
CLUSTER = {"stage": "boot"}
LIMIT_S = 600

DROP_IN = image.CHECKOUT / "systemd/nfs-server.service.d/graced.conf"


def commands(what, host):
    """What the drop-in has systemd run."""
    found = re.findall(rf"^{what}=(.+)$", DROP_IN.read_text(), re.MULTILINE)
    return " && ".join(command.replace("%H", host) for command in found)


def kernel_side(node):
    """What the distribution's units do before nfs-server."""
    node.run(
        "mkdir -p /run/rpc_pipefs; mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; "
        "mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs; "
        "exportfs -o rw,no_root_squash,fsid=0,no_subtree_check '*:/srv/data'"
    )
    _gate.start_mountd(node, "-N 2 -N 3")
    node.run("echo 20 > /proc/fs/nfsd/nfsv4leasetime")


def set_up(cluster):
    node = cluster.nodes[0]
    _graced.install(node, _graced.SINGLE)
    node.run("mkdir -p /var/lib/graced/export /srv/data; mountpoint -q /srv/data || mount --bind /var/lib/graced/export /srv/data")
    _graced.attach(cluster, node)
    _graced.wait_normal(cluster)
    return node, cluster.clients[0]


def tear_down(cluster):
    """No daemon, no module, no record: for a scenario with another configuration."""
    node = cluster.nodes[0]
    cluster.clients[0].kill()  # booted anew: it would remember the servers
    _graced.stop_servers(cluster)
    node.graced.signal()
    node.graced.wait(20)
    del cluster.services[node, "graced"]
    node.run("umount /srv/data; rmmod gfs2_gate && rmmod lockd_shim; rm -rf /var/lib/graced/* /run/graced", timeout=60)
