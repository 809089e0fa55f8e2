"""graced is killed while upcalls wait for their answer: its successor answers them, no thread of nfsd hangs."""

import signal
import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900


def kill_and_restart(cluster, node):
    node.graced.kill()
    node.graced.wait(10)
    _graced.start_daemon(cluster, node)
    cluster.wait(lambda: _graced.status(node), 30, f"graced to answer on {node}")


def waits_for_answer(node):
    """What of the kernel waits for the answer to GraceDone."""
    return node.run("grep -l nfsd4_cld_grace_done /proc/[0-9]*/stack", check=False).out.split()


def run(cluster):
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    held = Locker(vm, "/mnt/a/held", "A")
    held.lock()
    rival = Locker(node2, "/srv/data/held", "rival")

    # Create: node2's graced is there and says nothing, so the record is not durable everywhere.
    began = time.monotonic()
    node2.graced.signal(signal.SIGSTOP)
    vm.run("mkdir -p /mnt/b")
    mount = vm.spawn(
        "nsenter --net=/run/netns/clb unshare -u sh -c 'hostname clb; "
        f"mount -t nfs -o vers=4.1,hard,timeo=30,retrans=2 {_graced.SERVERS['vs1']}:/ /mnt/b'", log="mount-b",
    )  # fmt: skip
    cluster.wait(lambda: cluster.logged(node1, "graced", r"upcall \d+ Create", began), 60, "B's Create to come")
    time.sleep(2)
    assert mount.alive(), "B was let in before its record was durable on every node"
    kill_and_restart(cluster, node1)
    assert mount.alive()
    assert cluster.logged(node1, "graced", "was left open, answering it now", began)
    node2.graced.signal(signal.SIGCONT)
    assert mount.wait(90) == 0, mount.output()
    cluster.wait(lambda: len(_graced.clients(node2, "vs1")) == 2, 30, "B to be on record")
    _graced.wait_normal(cluster)
    assert not rival.try_lock()
    cluster.step("killed with a Create open: B waited, was put on record by the successor, and is in")

    # GraceStart: nfsd holds the one mutex of all nfsds. GraceDone: its laundromat waits; with kernels from before 2026
    # whoever ended the grace.
    began = time.monotonic()
    node2.graced.signal(signal.SIGSTOP)
    node1.run(f"echo 0 > {_graced.nfsd('vs1', 'threads')}", timeout=60)
    restart = node1.spawn(
        "nsenter --net=/run/netns/graced-vs1 --mount=/run/graced/servers/vs1/ns/mnt --uts=/run/graced/servers/vs1/ns/uts rpc.nfsd 4",
        log="restart",
    )
    cluster.wait(lambda: cluster.logged(node1, "graced", r"upcall \d+ GraceStart", began), 60, "GraceStart to come")
    time.sleep(1)
    assert restart.alive(), "GraceStart was answered before reclaim was open"
    kill_and_restart(cluster, node1)
    node2.graced.signal(signal.SIGCONT)
    assert restart.wait(60) == 0, restart.output()
    cluster.wait(lambda: _graced.server(node1, "vs1").get("reclaimed", 0) >= 1 or _graced.normal(node1), 90, "A to reclaim")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    assert not rival.try_lock() and not _graced.locks_lost(vm)
    held.write("through a killed GraceStart")
    cluster.step("killed with GraceStart open: answered by the successor when reclaim was open, all reclaimed")

    b.cut()  # so that the kernel's grace does not end by itself
    _graced.start_again(node1, "vs1")
    cluster.wait(lambda: _graced.server(node1, "vs1").get("reclaimed", 0) >= 1, 60, "A to reclaim")
    node1.graced.signal(signal.SIGSTOP)
    ended = node1.spawn(f"echo Y > {_graced.nfsd('vs1', 'v4_end_grace')}", log="end-grace")
    cluster.wait(lambda: waits_for_answer(node1), 20, "GraceDone to wait in the kernel")
    time.sleep(2)
    assert waits_for_answer(node1), "nfsd's grace ended without GraceDone being answered"
    began = time.monotonic()
    kill_and_restart(cluster, node1)
    assert ended.wait(60) == 0, "who ended nfsd's grace hangs in the kernel"
    cluster.wait(lambda: not waits_for_answer(node1), 30, "the kernel to have its answer")
    assert cluster.logged(node1, "graced", r"upcall \d+ GraceDone", began)
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    assert len(_graced.clients(node2, "vs1")) == 1, "B is on record, which did not reclaim"
    assert not rival.try_lock()
    cluster.step("killed with GraceDone open: answered by the successor; B, which had not reclaimed, is purged")

    stop = node1.spawn("graced-server stop vs1", log="stop-vs1")
    assert stop.wait(60) == 0, f"a thread of nfsd hangs: {stop.output()[-300:]}"
    cluster.step("nfsd ends at once: none of its threads waits")


def cleanup(cluster):
    for node in cluster.nodes:
        node.graced.signal(signal.SIGCONT)
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
