"""A server with an IPv6 address gets other exports, threads and addresses while a client holds a lock: no grace; and it moves."""

import _graced
from harness.errors import CommandFailed
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900

SIX, MORE = "fd00:77::101", "10.77.0.111"
ROOT = "/srv/data *(rw,no_root_squash,fsid=0,no_subtree_check)"


def define(cluster, addresses, exports=(ROOT,), threads=4, interface="eth0"):
    """[server.vs1] of all nodes."""
    listed = [", ".join(f'"{each}"' for each in several) for several in (addresses, exports)]
    new = f"""[server.vs1]
addresses = [{listed[0]}]
interface = "{interface}"
exports = [{listed[1]}]
threads = {threads}
nfs_versions = [{_graced.NFSV4}]
lease_time = 20

"""
    for node in cluster.nodes:
        before, rest = node.get("/etc/graced/graced.conf").split("[server.vs1]\n")
        node.put("/etc/graced/graced.conf", before + new + rest[rest.index("[server.vs2]") :])


def refused(node, because):
    try:
        node.run("graced-server reload vs1", timeout=60)
    except CommandFailed as e:
        assert because in str(e), e
        return
    raise AssertionError(f"a reload that should fail ({because}) did not")


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    four = f"{_graced.SERVERS['vs1']}/24"
    _graced.wait_normal(cluster)
    define(cluster, [four, f"{SIX}/64"])
    _graced.serve(node1, "vs1")
    client.run("ip -6 address add fd00:77::51/64 dev eth0 nodad; mkdir -p /mnt/six /mnt/more; modprobe nfsv4")
    client.run(f"mount -t nfs -o vers=4.1,hard,timeo=30,retrans=2 [{SIX}]:/ /mnt/six", timeout=90)
    mine = Locker(client, "/mnt/six/one", "A")
    mine.lock()
    mine.write("before")
    rival = Locker(node2, "/srv/data/one", "rival")
    rival.start_lock()
    epoch = _graced.status(node1)["current"]
    cluster.step("vs1 has an IPv4 and an IPv6 address; a client that came by IPv6 holds a lock")

    node1.run("mkdir -p /srv/data/second")
    second = "/srv/data/second *(rw,no_root_squash,fsid=2,no_subtree_check)"
    define(cluster, [four, f"{SIX}/64", f"{MORE}/24"], (ROOT, second), threads=6)
    node1.run("graced-server reload vs1", timeout=60)
    assert node1.run(f"cat {_graced.nfsd('vs1', 'threads')}").out.strip() == "6"
    client.run(f"mount -t nfs -o vers=4.1,hard,timeo=30,retrans=2 {MORE}:/second /mnt/more", timeout=90)
    client.run("echo there >/mnt/more/file", timeout=60)
    assert node2.run("cat /srv/data/second/file").out.strip() == "there"
    cluster.step("reloaded: six threads, a second export, mounted by a third address")

    define(cluster, [four], ("/srv/data *(rw,fsid=0,no_such_option)",))
    refused(node1, "it has its old ones")
    define(cluster, [four], interface="eth9")
    refused(node1, "only a new start takes those")
    client.run("echo again >/mnt/more/file", timeout=60)
    mine.write("after")
    now = _graced.status(node1)
    assert (now["phase"], now["current"]) == ("normal", epoch), now
    assert not rival.granted() and not _graced.locks_lost(client)
    cluster.step("bad exports, another interface: refused, the old ones serve on; no grace, the lock is where it was")

    client.run("umount /mnt/more", timeout=60)
    define(cluster, [four, f"{SIX}/64"])
    node1.run("graced-server reload vs1", timeout=60)
    left = node1.run("ip -n graced-vs1 -o address show dev nfs0").out
    assert MORE not in left and SIX in left and _graced.SERVERS["vs1"] in left, left
    assert "second" not in node1.run("cat /run/graced/servers/vs1/nfs/etab").out
    node1.run("graced-server stop vs1", timeout=180)
    _graced.serve(node2, "vs1")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    mine.write("moved")
    assert not rival.granted() and not _graced.locks_lost(client)
    mine.unlock()
    rival.wait_granted(30)
    cluster.step("an address and an export taken away; moved to node2, the client reclaimed its lock by IPv6")


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
    define(cluster, [f"{_graced.SERVERS['vs1']}/24"])
