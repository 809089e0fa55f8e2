"""The stated limit of the simple deployment: an address that moves to another node's own nfsd costs a client its locks if it knows
that nfsd already. (With servers in namespaces of their own it keeps them: two-addresses.)"""

import time

import _graced
from _single import commands, kernel_side
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900
ADDRESSES = ("10.77.0.111", "10.77.0.112")


def run(cluster):
    vm = cluster.clients[0]
    _graced.wait_normal(cluster)
    for node, address in zip(cluster.nodes, ADDRESSES):
        kernel_side(node)
        node.run(f"ip addr add {address}/24 dev eth0; {commands('ExecStartPre', node.name)}", timeout=120)
        # One name for both, or no client would even try to reclaim: it is told another scope.
        node.run(f"unshare -u sh -c 'hostname simple; rpc.nfsd -N 3 4' && {commands('ExecStartPost', node.name)}", timeout=120)
    lockers = []
    for number, address in enumerate(ADDRESSES, 1):
        vm.run(f"mkdir -p /mnt/{number}; modprobe nfsv4; mount -t nfs -o vers=4.1,hard,timeo=30,retrans=2 {address}:/ /mnt/{number}", timeout=90)
        lockers.append(Locker(vm, f"/mnt/{number}/address{number}", f"A{number}"))
        lockers[-1].lock(timeout=60)
        lockers[-1].write("before")
    cluster.step("each node's own nfsd, an address each; one client has a lock through each")

    first, second = cluster.nodes
    began = time.monotonic()
    first.run(f"{commands('ExecStop', first.name)}; ip addr del {ADDRESSES[0]}/24 dev eth0", timeout=180)
    second.run(f"ip addr add {ADDRESSES[0]}/24 dev eth0")
    vm.run(f"ip neigh flush to {ADDRESSES[0]}")
    lost = cluster.wait(lambda: _graced.locks_lost(vm), 120, "the client to say that it has lost a lock", every=1)
    assert _graced.status(second)["phase"] != "normal", "that was no refusal in the middle of grace"
    said = lockers[0].command("write after", timeout=60)
    assert said.startswith("error"), f"a write under a lost lock: {said}"
    lockers[1].write("the other one goes on", timeout=60)
    cluster.step(f"{ADDRESSES[0]} moved to {second}, {time.monotonic() - began:.0f} s ago: {lost.strip().splitlines()[-1]}; the other lock is kept")


def cleanup(cluster):
    cluster.clients[0].kill()
    for node, address in zip(cluster.nodes, ADDRESSES):
        stop = commands("ExecStop", node.name) if node is cluster.nodes[1] else "true"
        node.run(f"{stop}; exportfs -ua; exportfs -f; pkill -x rpc.mountd; ip addr del {address}/24 dev eth0", check=False, timeout=180)
    cluster.nodes[1].run(f"ip addr del {ADDRESSES[0]}/24 dev eth0", check=False)
    _graced.stop_servers(cluster)
