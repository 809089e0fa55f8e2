"""One host without a cluster: what containers.py and single.py share."""

import _graced

NODES = 1
CLIENTS = 1
CLUSTER = {"stage": "boot"}
LIMIT_S = 600


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
