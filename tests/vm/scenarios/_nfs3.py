"""NFSv3 clients and servers, for scenarios."""

import json

import _graced

STATD = "/var/lib/nfs"


def before_mount(cluster, node):
    _graced.before_mount(cluster, node, versions='"3", "4.1", "4.2"')


def mount(client, server, path="/mnt"):
    """An NFSv3 mount of a client that has an rpcbind and a statd, which its locks need."""
    client.run(
        f"mkdir -p {STATD}/sm {STATD}/sm.bak; chown -R statd {STATD}; rpcinfo -p 127.0.0.1 >/dev/null 2>&1 || rpcbind -w; "
        "rpcinfo -u 127.0.0.1 status >/dev/null 2>&1 || rpc.statd",
        timeout=60,
    )
    client.run(f"mount -t nfs -o vers=3,hard,timeo=30,retrans=2 {_graced.SERVERS[server]}:/srv/data {path}", timeout=90)


def lock_clients(node, server):
    """The NFSv3 clients on record."""
    answer = json.loads(node.run(f"gracectl clients --server {server} --json").out)
    return {c["name"]: c for c in answer["clients"] if c["protocol"] == "NFSv3"}


def mounts(node, server):
    """{client: {path}} of what is mounted."""
    found = {}
    for m in json.loads(node.run(f"gracectl mounts --server {server} --json").out)["mounts"]:
        found.setdefault(m["client"], set()).add(m["path"])
    return found
