"""The node that is about to end the grace, or has just purged, dies: its own server's clients reclaim elsewhere, who was lost stays lost."""

import time

import _graced
import _pacemaker
from _pacemaker import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    _pacemaker.up(cluster)
    client = cluster.clients[0]
    lockers = _pacemaker.lock_through_both(client)
    lost = _graced.NfsClient(client, "clientb", 61)
    lost.mount("vs1", "/mnt/b")
    locker_b = Locker(client, "/mnt/b/b", "B")
    locker_b.lock(timeout=60)
    source = _pacemaker.wait_started(cluster, "vs1", 60)
    last = next(node for node in cluster.nodes if node not in (source, _pacemaker.wait_started(cluster, "vs2", 60)))
    lost.cut()
    began = time.monotonic()
    _pacemaker.order_move("vs1", last)
    cluster.wait(lambda: _graced.server(last, "vs1").get("reclaimed") == 1, 300, "A to reclaim at vs1")
    assert _graced.status(source)["phase"] == "reclaiming"
    cluster.step(f"vs1 moved to {last}: A has reclaimed, B cannot; {last} will be the last out, and waits for B until the deadline")

    # Dies before: the same grace goes on, or another one, with B's record still good.
    off = time.monotonic()
    last.kill()
    _pacemaker.clear("vs1", source)
    cluster.fence.wait(last, timeout=180, since=off)
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    assert not cluster.logged(new, "graced", "is the last out and purges", began), "somebody purged"
    lost.restore()
    cluster.wait(lambda: _graced.server(new, "vs1").get("reclaimed") == 2 or _graced.normal(new), 120, "A and B to reclaim")
    _pacemaker.wait_kept(cluster, lockers, "after the last out died")
    locker_b.write("B is here", timeout=60)
    assert locker_b.read(timeout=30) == "B is here"
    cluster.step(f"{last} died before it purged: vs1 runs on {new}, A and B have kept their locks")
    _pacemaker.back(cluster, last)
    _graced.wait_normal(cluster)

    # Dies right after: B, which does not come, is purged; whatever the others had heard of it, they agree, and A keeps its locks.
    here = _pacemaker.wait_started(cluster, "vs1", 60)
    last = next(node for node in cluster.nodes if node not in (here, _pacemaker.wait_started(cluster, "vs2", 60)))
    others = [node for node in cluster.nodes if node is not last]
    lost.cut()
    began = time.monotonic()
    _pacemaker.order_move("vs1", last)
    purged = cluster.wait(
        lambda: [l for node in others for l in cluster.logged(node, "graced", "is the last out and purges", began)],
        300, "the purge", every=0.05,
    )  # fmt: skip
    off = time.monotonic()
    last.kill()
    _pacemaker.clear("vs1", here)
    cluster.step(f"{last} purged B and lost power {off - min(t for t, _ in purged):.2f} s later")
    cluster.fence.wait(last, timeout=180, since=off)
    new = _pacemaker.wait_started(cluster, "vs1", 300)
    _pacemaker.wait_kept(cluster, lockers, "after the purge")
    known = [_graced.clients(node, "vs1") for node in others]
    assert known[0] == known[1] and len(known[0]) == 1, f"on record for vs1: {known}"
    lost.restore()
    rival = Locker(new, "/srv/data/b", "rival")
    cluster.wait(rival.try_lock, 10, "a program to get the lock of B, which was purged")
    cluster.step(f"vs1 runs on {new}; A has kept its locks; B is on no record, its lock is free, on both nodes")
    _pacemaker.back(cluster, last)
    _graced.wait_normal(cluster)


def cleanup(cluster):
    cluster.clients[0].kill()  # B's mount is not got rid of in any other way
    _pacemaker.cleanup(cluster)
