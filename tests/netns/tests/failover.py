# SPDX-License-Identifier: GPL-2.0-or-later
"""A node dies: grace everywhere, fencing, reclaim on another node, purge, lift."""

import time

from harness import monotonic
from processes import Failed, wait
from watcher import Watcher


def started(make, nodes=3, **options):
    cluster = make(nodes, **options)
    cluster.start()
    return cluster


def recover(cluster, server, on, dead, clients):
    """The dead node is fenced, the server comes up and all those clients reclaim."""
    announced = cluster[on].announce(server)
    cluster.fence_done(dead)
    nfsd = cluster[on].start_nfsd(server, announced)
    for client in clients:
        said = nfsd.reclaim(client)
        assert said == "ok", f"{client}: {said}"
    return nfsd


def granted_in_grace(cluster, watcher, killed):
    """Nodes on which a new lock was granted from the closing of their gate to the first LIFT."""
    lift = monotonic(min(line[0] for node in cluster if node.up for line in node.logged("the grace is lifted")))
    found = set()
    for number in watcher.spells:
        closed = watcher.closed_at(number, killed)
        if closed:
            found |= watcher.granted_between(closed, lift) & {number}
    return found


def test_all_reclaim(make):
    """Node 1 dies, its clients reclaim on node 2, the grace is over when the last has."""
    cluster = started(make)
    nfsd = cluster[1].serve("vs1")
    for client in ("alice", "bob"):
        assert nfsd.create(client) == "ok"
    watcher = Watcher([cluster[2], cluster[3]])
    watcher.wait_grants()
    killed = time.monotonic()
    cluster[1].kill()
    dead = time.monotonic()
    cluster.wait_grace()
    wait(lambda: all(watcher.closed_at(n, killed) for n in (2, 3)), 5, "the watcher to see the gates closed")
    late = watcher.granted_between(dead + cluster.token / 1000)
    assert not late, f"a lock was granted on nodes {late} when the token timeout was over"
    recover(cluster, "vs1", on=2, dead=1, clients=("alice", "bob"))
    cluster.wait_open()
    watcher.stop()
    assert not granted_in_grace(cluster, watcher, killed)
    assert set(cluster[3].clients("vs1")) == {"alice", "bob"}
    return f"{time.monotonic() - killed:.1f} s from the death to open gates"


def test_nobody_reclaims(make):
    """No client comes back: the deadline ends it, all are purged, and later refused."""
    cluster = started(make, config={"grace": {"period": 10}})
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    cluster[1].kill()
    cluster.wait_grace()
    nfsd = recover(cluster, "vs1", on=3, dead=1, clients=())
    cluster.wait_open(deadline_s=25)
    [(opened, _)], [(ended, _)] = (cluster[3].logged(said) for said in ("vs1: reclaim is open", "vs1 NEEDs no longer: deadline"))
    assert ended - opened > 9.9, f"the deadline came {ended - opened:.2f} s after the opening"
    assert cluster[2].clients("vs1") == {}
    assert nfsd.reclaim("alice").startswith(("refused", "grace")), "alice reclaims out of grace"
    assert nfsd.create("alice") == "ok"


def test_no_client_no_grace(make):
    """The death of a node whose server has no client on record needs no grace."""
    cluster = started(make)
    cluster[1].serve("vs1")
    epoch = cluster[2].status()["current"]
    cluster[1].kill()
    cluster.wait_membership([2, 3])
    cluster.fence_done(1)
    cluster.wait_open()
    status = cluster[2].status()
    assert status["phase"] == "normal" and status["current"] == epoch, status
    assert cluster[2].serve("vs1").create("alice") == "ok"


def test_frozen_table_does_not_delay_closing(make):
    """Gates close and the members enforce while the lockspace is frozen; reclaim waits for it."""
    cluster = started(make)
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    cluster.dlm_ctl("freeze")
    cluster[1].kill()
    cluster.wait_grace()
    cluster.wait_closed()
    wait(
        lambda: all(n["enforcing"] for n in cluster[2].status()["nodes"] if n["live"]), 5,
        lambda: f"all live members enforce; {cluster[2].status()['nodes']}",
    )  # fmt: skip
    announced = cluster[2].announce("vs1")
    time.sleep(1)
    assert announced.running() and not cluster[2].server("vs1")["reclaim_open"]
    cluster.dlm_ctl("thaw")
    cluster.fence_done(1)
    nfsd = cluster[2].start_nfsd("vs1", announced)
    assert nfsd.reclaim("alice") == "ok"
    cluster.wait_open()


def test_second_death_while_reclaiming(make):
    """The node that took the server over dies too: one grace, its clients reclaim on a third."""
    cluster = started(make, 5)
    nfsd = cluster[1].serve("vs1")
    for client in ("alice", "bob", "carol"):
        assert nfsd.create(client) == "ok"
    watcher = Watcher([cluster[n] for n in (3, 4, 5)])
    watcher.wait_grants()
    killed = time.monotonic()
    cluster[1].kill()
    cluster.wait_grace()
    recover(cluster, "vs1", on=2, dead=1, clients=("alice",))
    cluster[2].kill()
    cluster.wait_membership([3, 4, 5])
    cluster.wait_grace()
    nfsd = recover(cluster, "vs1", on=3, dead=2, clients=("alice", "bob"))
    assert nfsd.may_reclaim == 3, nfsd.may_reclaim
    assert nfsd.reclaim("carol") == "ok"
    cluster.wait_open()
    watcher.stop()
    assert not granted_in_grace(cluster, watcher, killed)
    assert set(cluster[5].clients("vs1")) == {"alice", "bob", "carol"}


def test_two_servers_one_grace(make):
    """Both servers of a dead node recover on different nodes within one grace."""
    cluster = started(make)
    first, second = cluster[1].serve("vs1"), cluster[1].serve("vs2")
    assert first.create("alice") == "ok" and second.create("dave") == "ok"
    cluster[1].kill()
    cluster.wait_grace()
    first = recover(cluster, "vs1", on=2, dead=1, clients=("alice",))
    time.sleep(0.5)
    assert cluster[3].gate() == "closed" and cluster[3].server("vs2")["need"], cluster[3].describe()
    second = cluster[3].serve("vs2")
    assert second.reclaim("alice").startswith("refused"), "a client of vs1 reclaims at vs2"
    assert second.reclaim("dave") == "ok"
    cluster.wait_open()
    assert cluster[2].status()["current"] == 2, "more than one grace"


def test_cold_start_of_everything(make):
    """All nodes lose power at once: at the cold start every server with records NEEDs, none is lost."""
    cluster = started(make)
    nfsd = cluster[1].serve("vs1")
    for client in ("alice", "bob"):
        assert nfsd.create(client) == "ok"
    for node in cluster:
        node.kill()
    for number in (1, 2, 3):
        cluster.fence_done(number)
    watcher = Watcher(cluster)
    for node in cluster:
        node.boot()
        node.start_corosync(ready=False)
    cluster.wait_membership([1, 2, 3])
    for node in cluster:
        node.start_graced()
    wait(lambda: all(node.status()["recovery"] for node in cluster), 10, lambda: f"a grace; {cluster[1].describe()}")
    nfsd = cluster[2].serve("vs1")
    assert nfsd.may_reclaim == 2, nfsd.may_reclaim
    assert not watcher.granted_between(0), "a new lock was granted before the reclaims"
    assert nfsd.reclaim("alice") == "ok" and nfsd.reclaim("bob") == "ok"
    cluster.wait_open()
    watcher.stop()


def test_planned_move(make):
    """A server is moved: all gates are closed before its node lets go; clients reclaim on the other."""
    cluster = started(make)
    nfsd = cluster[1].serve("vs1")
    for client in ("alice", "bob"):
        assert nfsd.create(client) == "ok"
    watcher = Watcher(cluster)
    watcher.wait_grants()
    stopped = cluster[1].ask("server-stop", "vs1")
    assert stopped.wait_end(10) == 0, stopped.log
    released = time.monotonic()
    for node in cluster:
        assert node.gate() == "closed", node.describe()
    nfsd.stop()
    cluster[1].gracectl("server-released", "vs1")
    nfsd = cluster[3].serve("vs1")
    assert nfsd.reclaim("alice") == "ok"
    done = time.monotonic()  # the last reclaim ends the grace within a millisecond, before its answer is here
    assert nfsd.reclaim("bob") == "ok"
    assert not watcher.granted_between(released, done)
    cluster.wait_open()
    watcher.stop()


def test_host_of_another_is_respected(make):
    """One server, one host: a start on a second node is refused while the first lives."""
    cluster = started(make)
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    asked = cluster[2].announce("vs1")
    assert asked.wait_end(10) != 0, "vs1 may run twice"
    said = asked.log.read_text()
    assert "hosted" in said and "node1" in said, said
    cluster.wait_open()
    assert nfsd.create("bob") == "ok"
    if cluster[2].server("vs1")["host"] != 1:
        raise Failed(f"the host has changed: {cluster[2].server('vs1')}")
