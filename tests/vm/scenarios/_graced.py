"""The product on the nodes of a cluster: modules, keeper, daemon, servers; for scenarios."""

import json
import os
import subprocess
import tempfile
import threading
import time

import _gate
from harness import image
from harness.errors import Failed, stretch

BIN = image.CHECKOUT / "build/bin"
SERVERS = {"vs1": "10.77.0.101", "vs2": "10.77.0.102"}
GRACE_PERIOD = 30  # 7 s from the opening of reclaim to the first one were measured, 20 s on a busy machine

CONFIG = """
[graced]
state = "cluster"
log_level = "debug"
[grace]
period = {period}
grace_start_hold = 60
[store]
path = "/var/lib/graced/graced.sqlite"
[locks]
backend = "dlm"
[gate]
backend = "module"
"""

SINGLE = """
[graced]
state = "single"
log_level = "debug"
[grace]
period = {period}
[store]
path = "/var/lib/graced/graced.sqlite"
[gate]
backend = "module"
"""

SERVER = """
[server.{name}]
addresses = ["{address}/24"]
interface = "eth0"
exports = ["/srv/data *(rw,no_root_squash,fsid=0,no_subtree_check)"]
threads = 4
nfs_versions = [{versions}]
lease_time = 20
"""

NFSV4 = '"4.1", "4.2"'


stripping = threading.Lock()


def stripped(program):
    """Made anew when the program was. Once: a guest does not get to the end of a file that is replaced meanwhile."""
    copy = image.BUILD_DIR / "stripped" / program
    with stripping:
        if not copy.exists() or copy.stat().st_mtime < (BIN / program).stat().st_mtime:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=copy.parent) as new:
                subprocess.run(["strip", "-o", f"{new}/{program}", BIN / program], check=True)
                os.rename(f"{new}/{program}", copy)
    return copy


def install(node, config=CONFIG, versions=NFSV4):
    """What `cmake --install` and a package would do. Copies without what debuggers want: over 9p that takes a guest minutes."""
    for program in ("graced", "graced-dlm", "gracectl", "graced-callout"):
        node.run(f"cp {stripped(program)} /usr/sbin/{program}", timeout=60)
    hooks = image.CHECKOUT / "gfs2-hooks"
    node.run(f"ln -sf {hooks}/server/graced-server {hooks}/fence/fence_graced /usr/sbin/")
    node.run("mkdir -p /etc/graced /run/graced /run/log; mount --make-rshared /")
    text = config.format(period=round(stretch(GRACE_PERIOD)))  # a client that comes back is as slow as the machine
    for name, address in SERVERS.items():
        text += SERVER.format(name=name, address=address, versions=versions)
    node.put("/etc/graced/graced.conf", text)


def set_cld_version(cluster, server, version):
    """Of the upcalls of the server's next nfsd, on all nodes; None: the default."""
    for node in cluster.nodes:
        line = "" if version is None else f"\\ncld_version = {version}"
        node.run(f"sed -i '/^cld_version/d; s/^\\[server.{server}\\]$/&{line}/' /etc/graced/graced.conf")


def start_daemon(cluster, node):
    """A service of the node, as corosync is: it goes on between scenarios."""
    node.graced = cluster.services[node, "graced"] = node.spawn("/usr/sbin/graced", log="graced")
    return node.graced


def before_mount(cluster, node, parameters="", mutants=False, versions=NFSV4):
    """Start order on a node: corosync, dlm, graced (gate attached and closed), then GFS2."""
    install(node, versions=versions)
    attach(cluster, node, parameters, mutants)


def attach(cluster, node, parameters="", mutants=False):
    """Modules and daemon on a node that has them installed."""
    modules, _ = _gate.build(node.run("uname -r").out.strip(), mutants=mutants)
    node.run("modprobe dlm; modprobe gfs2; modprobe nfsd; modprobe macvlan", timeout=60)
    _gate.load(node, modules, parameters)
    start_daemon(cluster, node)
    cluster.wait(lambda: node.run("gracectl status --json", check=False).rc == 0, 60, f"graced to answer on {node}")


def remount(node):
    """GFS2 again on a node that has unmounted it; cluster.mount() would start modules and daemon again."""
    node.run("mount -t gfs2 -o noatime /dev/vda /srv/data", timeout=120)


def status(node):
    """gracectl status; None while the daemon is away."""
    answer = node.run("gracectl status --json", check=False)
    return json.loads(answer.out) if answer.rc == 0 else None


def gate(node):
    now = status(node)
    return now and now["gate"]


def normal(node):
    now = status(node)
    return bool(now) and now["phase"] == "normal" and now["gate"] == "open"


def wait_normal(cluster, nodes=None, deadline=90):
    """The gates of all nodes are open; says who holds it up if not."""
    nodes = nodes or [n for n in cluster.nodes if n.running()]
    try:
        cluster.wait(lambda: all(normal(n) for n in nodes), deadline, "all gates to open")
    except Failed:
        for node in nodes:
            now = status(node)
            cluster.step(f"{node}: {now and (now['phase'], now['gate'], now['blocked_by'])}")
        raise


def serve(node, name, timeout=180):
    """graced-server start; the seconds it took."""
    began = time.monotonic()
    node.run(f"graced-server start {name}", timeout=timeout)
    return time.monotonic() - began


def start_again(node, name):
    """An orderly stop and a start; returns when reclaim is open."""
    node.run(f"graced-server stop {name}", timeout=180)
    serve(node, name)


def server(node, name):
    """gracectl status of one server; {} where there is none."""
    now = status(node) or {"servers": []}
    return next((each for each in now["servers"] if each["name"] == name), {})


def done(cluster, node, name, since):
    """Why the server NEEDs no longer, as graced on `node` says it for the last time."""
    lines = cluster.logged(node, "graced", f"server {name} NEEDs no longer: ", since)
    return lines and lines[-1][1].split("no longer: ")[1].strip()


def nfsd(name, file=""):
    """The server's nfsd file system on its node."""
    return f"/run/graced/servers/{name}/nfsd/{file}"


def clients(node, server):
    answer = json.loads(node.run(f"gracectl clients --server {server} --json").out)
    return [c["name"] for c in answer["clients"]]


def mount(client, server, path, options="vers=4.1"):
    client.run(f"mkdir -p {path}; modprobe nfsv4")
    client.run(f"mount -t nfs -o {options},hard,timeo=30,retrans=2 {SERVERS[server]}:/ {path}", timeout=90)


class NfsClient:
    """An NFS client of its own on a client's VM: network and UTS namespaces, an address, a cable."""

    def __init__(self, vm, name, number):
        self.vm, self.name = vm, name
        vm.run(
            f"modprobe nfsv4; ip netns add {name}; ip link add link eth0 name {name}0 netns {name} type macvlan mode bridge; "
            f"cd /; ip -n {name} link set lo up; ip -n {name} addr add 10.77.0.{number}/24 dev {name}0; ip -n {name} link set {name}0 up"
        )

    def mount(self, server, path, options="vers=4.1"):
        """Seen by all of the VM."""
        address = SERVERS.get(server, server)
        self.vm.run(
            f"mkdir -p {path}; nsenter --net=/run/netns/{self.name} unshare -u sh -c "
            f"'hostname {self.name}; mount -t nfs -o {options},hard,timeo=30,retrans=2 {address}:/ {path}'",
            timeout=90,
        )

    def cut(self):
        self.vm.run(f"ip -n {self.name} link set {self.name}0 down")

    def restore(self):
        self.vm.run(f"ip -n {self.name} link set {self.name}0 up")


def locks_lost(vm):
    """What the VM's NFS clients say of locks that they could not reclaim."""
    return vm.run("dmesg | grep -i 'lost.*lock' || true").out


def stop_servers(cluster):
    """For cleanup: no server is left, no record, no grace."""
    for node in cluster.nodes:
        if node.up():
            for server in SERVERS:
                if node.run(f"graced-server status {server}", check=False).rc != 3:  # 3: stopped
                    node.run(f"graced-server stop {server}", timeout=180)
    node = next(n for n in cluster.nodes if n.up() and status(n))
    if status(node)["recovery"]:
        node.run("gracectl lift", timeout=60)
    wait_normal(cluster, [n for n in cluster.nodes if n.up()])
