"""Two servers on one node: nfsd of one restarts, by hand, and then not tracked; the other goes on, its clients keep all."""

import time

import _graced
from harness.errors import CommandFailed
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900


def run(cluster):
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    _graced.wait_normal(cluster)
    for server in ("vs1", "vs2"):
        _graced.serve(node1, server)
    pipes = node1.run("grep -l rpc_pipefs /proc/self/mountinfo; ls /run/graced/servers/*/rpc_pipefs/nfsd/cld").out
    assert "vs1" in pipes and "vs2" in pipes, pipes
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    b.mount("vs2", "/mnt/b")
    mine, other = Locker(vm, "/mnt/a/one", "A"), Locker(vm, "/mnt/b/two", "B")
    mine.lock()
    other.lock()
    assert [len(_graced.clients(node2, server)) for server in ("vs1", "vs2")] == [1, 1]
    rival = Locker(node2, "/srv/data/one", "rival")
    rival.start_lock()
    cluster.step("two servers, two pipes on node1; a client of each has a lock")

    # In a blink: no START was asked for, and the new nfsd asks for its clients while gates are still open.
    began = time.monotonic()
    node1.run(
        f"echo 0 > {_graced.nfsd('vs1', 'threads')}; nsenter --net=/run/netns/graced-vs1 --mount=/run/graced/servers/vs1/ns/mnt "
        "--uts=/run/graced/servers/vs1/ns/uts rpc.nfsd 4", timeout=120,
    )  # fmt: skip
    fresh = Locker(vm, "/mnt/b/fresh", "B-fresh")
    fresh.start_lock()
    other.write("B goes on in grace")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    lifted = cluster.logged(node1, "graced", "the grace is lifted", began)[-1][0]
    said = _graced.done(cluster, node1, "vs1", began)
    assert said == "all reclaimed", f"the grace ended by '{said}'"
    assert not cluster.logged(node1, "graced", "server vs2 NEEDs no longer", began), "vs2 was taken for one that had stopped"
    assert not rival.granted(), "a local program has A's lock"
    granted = fresh.wait_granted(60)
    assert granted > lifted, f"vs2 granted a new lock {lifted - granted:.2f} s before the lift"
    assert not _graced.locks_lost(vm)
    mine.write("A reclaimed")
    now = [node1.run(f"cat {_graced.nfsd(server, 'v4_end_grace')}").out.strip() for server in ("vs1", "vs2")]
    assert now == ["Y", "Y"], now
    cluster.step(f"nfsd of vs1 restarted by hand: A reclaimed, B's new lock waited; lifted {lifted - began:.1f} s later")

    untracked(cluster, node1)
    _graced.start_again(node1, "vs1")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    assert not rival.granted() and not _graced.locks_lost(vm)
    mine.write("A reclaimed again")
    other.write("B never stopped")
    cluster.step("started again, tracked: A reclaimed, B never noticed")
    a.cut()
    untracked_by_hand(cluster, node1)


def untracked(cluster, node):
    """nfsd starts while nobody polls its pipe: the kernel runs it untracked, without an error; graced-server does not."""
    node.run("graced-server stop vs1", timeout=180)
    node.run(
        "mv /usr/sbin/rpc.nfsd /usr/sbin/rpc.nfsd.real; printf '%s\\n' '#!/bin/sh' 'kill -STOP $(pidof -s graced)' "
        "'rpc.nfsd.real \"$@\"; code=$?' 'kill -CONT $(pidof -s graced); exit $code' > /usr/sbin/rpc.nfsd; chmod +x /usr/sbin/rpc.nfsd"
    )
    try:
        node.run("graced-server start vs1", timeout=180)
        raise AssertionError("graced-server started a server whose clients nobody tracks")
    except CommandFailed as error:
        assert "is not tracked by graced" in str(error), error
    finally:
        node.run("mv /usr/sbin/rpc.nfsd.real /usr/sbin/rpc.nfsd")
    assert node.run("ip -n graced-vs1 addr", check=False).rc != 0, "the untracked server has its namespace and address still"
    cluster.step("nfsd that found nobody at its pipe: graced-server said so, and took it down before a client could come")


def untracked_by_hand(cluster, node):
    """The same by hand, while graced is away: the next graced says so."""
    node.graced.kill()
    node.graced.wait(10)
    node.run(
        f"echo 0 > {_graced.nfsd('vs1', 'threads')}; nsenter --net=/run/netns/graced-vs1 --mount=/run/graced/servers/vs1/ns/mnt "
        "--uts=/run/graced/servers/vs1/ns/uts rpc.nfsd 4", timeout=120,
    )  # fmt: skip
    _graced.start_daemon(cluster, node)
    cluster.wait(
        lambda: any("vs1: its nfsd runs UNTRACKED" in warning for warning in (_graced.status(node) or {}).get("warnings", [])),
        60, "gracectl status to say that vs1 is not tracked",
    )  # fmt: skip
    cluster.step("started by hand while graced was away: its successor says that nobody tracks that nfsd")


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: it would remember the servers
    _graced.stop_servers(cluster)
