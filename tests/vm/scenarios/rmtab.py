"""Who has mounted what over NFSv3: any node answers, right after a failover and a restart, without the volume; showmount too."""

import time

import _graced
import _nfs3

NODES = 2
CLIENTS = 2
CLUSTER = {"before_mount": _nfs3.before_mount}
LIMIT_S = 900

PATH = "/srv/data"


def showmount(node):
    """What vs1's own mountd says: {(client, path)}."""
    out = node.run("nsenter --net=/run/netns/graced-vs1 -- showmount -a --no-headers 127.0.0.1", timeout=30).out
    return {tuple(line.rsplit(":", 1)) for line in out.split()}


def run(cluster):
    node1, node2 = cluster.nodes
    client1, client2 = cluster.clients
    cluster.fence.delay_s = 1.0
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    # Clients of an earlier scenario that died with vs1 mounted: mountd counts, and would count on.
    node1.run(": >/run/graced/servers/vs1/nfs/rmtab")
    cluster.wait(lambda: not _nfs3.mounts(node2, "vs1"), 15, "an operator's change of the rmtab to be known")
    cluster.each(lambda client: _nfs3.mount(client, "vs1"), cluster.clients)
    both = {client.address: {PATH} for client in cluster.clients}
    for node in cluster.nodes:
        cluster.wait(lambda: _nfs3.mounts(node, "vs1") == both, 15, f"{node} to know who has mounted vs1")
    assert showmount(node1) == {(client.address, PATH) for client in cluster.clients}
    cluster.step("two clients have mounted vs1: both nodes say so")

    client2.run("umount /mnt", timeout=60)
    one = {client1.address: {PATH}}
    cluster.wait(lambda: _nfs3.mounts(node2, "vs1") == one, 15, "client2's unmount to be known")
    _nfs3.mount(client2, "vs1")
    cluster.wait(lambda: _nfs3.mounts(node2, "vs1") == both, 15, "client2's mount to be known")
    cluster.step("an unmount is known on the other node, and a new mount")

    # The answer needs neither the server nor the volume.
    off = time.monotonic()
    node1.kill()
    cluster.wait(lambda: (_graced.status(node2) or {}).get("phase"), 60, "graced on node2 to answer")
    assert _nfs3.mounts(node2, "vs1") == both
    cluster.fence.wait(node1, since=off)
    _graced.wait_normal(cluster, [node2], deadline=90)
    node2.run("umount /srv/data", timeout=60)
    assert _nfs3.mounts(node2, "vs1") == both
    cluster.step("node1 is dead, and node2 answers without having the file system mounted")
    node2.graced.kill()
    _graced.start_daemon(cluster, node2)
    cluster.wait(lambda: (_graced.status(node2) or {}).get("synced"), 60, "graced on node2 to be back")
    assert _nfs3.mounts(node2, "vs1") == both
    _graced.wait_normal(cluster, [node2], deadline=90)
    cluster.step("so it does after a restart of its daemon")
    _graced.remount(node2)

    # mountd on the other node knows at once; the clients have asked it nothing.
    _graced.serve(node2, "vs1")
    assert showmount(node2) == {(client.address, PATH) for client in cluster.clients}, showmount(node2)
    assert _nfs3.mounts(node2, "vs1") == both
    _graced.wait_normal(cluster, [node2], deadline=90)
    assert _nfs3.mounts(node2, "vs1") == both, "the grace took mounts off the record"
    cluster.step(f"vs1 runs on node2, {time.monotonic() - off:.1f} s after the power failure: showmount -a says the same")
    client2.run("umount /mnt", timeout=90)
    cluster.wait(lambda: _nfs3.mounts(node2, "vs1") == one, 15, "client2's unmount to be known")

    cluster.join(node1)
    _graced.wait_normal(cluster)
    assert _nfs3.mounts(node1, "vs1") == one
    cluster.step("an unmount at node2 is known to node1, which was away")


def cleanup(cluster):
    for client in cluster.clients:
        client.kill()
    _graced.stop_servers(cluster)
