"""nfsd is stopped by hand: all gates close before the first lock is dropped, and the server gets its grace."""

import signal
import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900
TRACING = "/sys/kernel/tracing"
EARLY = "dmesg | grep -c 'before every node enforces' || true"


def trace(node):
    """The trip and the end of nfsd's state, in the kernel's own order."""
    node.run(
        f"ls {TRACING}/events >/dev/null 2>&1 || mount -t tracefs t {TRACING}; echo > {TRACING}/trace; "
        f"echo 'p:dropped nfsd:nfsd4_client_tracking_exit' >> {TRACING}/kprobe_events; "  # its clients and locks go after that
        f"echo 1 > {TRACING}/events/kprobes/dropped/enable; echo 1 > {TRACING}/events/lockd_shim/lockd_shim_trip/enable; "
        f"echo 1 > {TRACING}/events/lockd_shim/lockd_shim_gate/enable"
    )


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    _graced.mount(client, "vs1", "/mnt/h")
    owner = Locker(client, "/mnt/h/hand", "A")
    owner.lock()
    owner.write("before")
    beside = Locker(node1, "/srv/data/hand", "beside")  # on the node whose nfsd drops the lock
    beside.start_lock()
    remote = Locker(node2, "/srv/data/hand", "remote")
    remote.start_lock()
    time.sleep(1)
    epoch = _graced.status(node1)["current"]
    trace(node1)

    before = node1.run(EARLY).out  # another scenario of this boot may have made a server let go with a node that says nothing
    began = time.monotonic()
    by_hand(node1)
    story = [line for line in node1.run(f"cat {TRACING}/trace").out.splitlines() if "lockd_shim_" in line or "dropped" in line]
    order = ["trip" if "lockd_shim_trip" in line else "closed" if "state=closed" in line else "dropped" for line in story]
    assert "trip" in order and "dropped" in order, story
    assert order.index("trip") < order.index("dropped") and order.index("closed") < order.index("dropped"), story
    assert any("nfsd_stop" in line for line in story), story
    assert node1.run(EARLY).out == before, "nfsd let go before node2's gate was closed"
    cluster.step(f"`echo 0 > threads`: {', '.join(order)}: the gate of the node closed before nfsd let go")

    cluster.wait(lambda: all((_graced.status(node) or {}).get("recovery") for node in cluster.nodes), 30, "the grace to begin on both")
    now = _graced.status(node1)
    assert now["current"] == epoch + 1, now
    need = [server["name"] for server in now["servers"] if server.get("need", server.get("needs"))]
    cluster.wait(lambda: [_graced.gate(node) for node in cluster.nodes] == ["closed", "closed"], 10, "both gates to be closed")
    cluster.step(f"START without anybody asking, {time.monotonic() - began:.1f} s after; both gates closed; needs grace: {need}")
    time.sleep(5)
    assert not beside.granted() and not remote.granted(), "a local program was given the client's lock"

    start_again(cluster, owner, (beside, remote))
    silent_node(cluster, owner, (beside, remote))
    owner.unlock()
    cluster.wait(lambda: beside.granted() or remote.granted(), 60, "a local program to get the lock in its turn")
    for locker in (owner, beside, remote):
        locker.close()


def by_hand(node):
    nfsd = node.run("""grep -rhoE '"nfsd_fs": *"[^"]*"' /run/graced | cut -d'"' -f4 | head -1""").out.strip()
    node.run(f"echo 0 > {nfsd}/threads", timeout=60)


def start_again(cluster, owner, others):
    node1 = cluster.nodes[0]
    node1.run("graced-server stop vs1 || true", timeout=180)
    took = _graced.serve(node1, "vs1")
    cluster.wait(lambda: _graced.server(node1, "vs1").get("reclaimed", 0) >= 1 or _graced.normal(node1), 90, "A to reclaim")
    assert not any(other.granted() for other in others), "a local program was given the client's lock"
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 4)
    time.sleep(2)
    assert not any(other.granted() for other in others), "a local program has A's lock after the lift"
    owner.write("after")
    assert owner.read() == "after"
    assert not _graced.locks_lost(cluster.clients[0])
    cluster.step(f"started again in {took:.0f} s, A has reclaimed, the grace is lifted")


def silent_node(cluster, owner, others):
    """A node that hears nothing of the stop, its graced hangs, while its dlm_controld gives the lock to who waits there. Its gate
    closes when its permit ends; nfsd must not let go before."""
    node1, node2 = cluster.nodes
    before = int(node1.run(EARLY).out)
    node2.graced.signal(signal.SIGSTOP)
    began = time.monotonic()
    by_hand(node1)
    took = time.monotonic() - began
    assert int(node1.run(EARLY).out) == before + 1, "nfsd let go without a word although node2 says nothing"
    time.sleep(3)
    assert not any(other.granted() for other in others), "a local program was given the client's lock"
    node2.graced.signal(signal.SIGCONT)
    cluster.step(f"with graced of node2 stopped: nfsd lets go {took:.1f} s after, when node2's permit has ended; nobody gets the lock")
    start_again(cluster, owner, others)


def cleanup(cluster):
    cluster.nodes[0].run(f"echo 0 > {TRACING}/events/enable; echo > {TRACING}/kprobe_events", check=False)
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
