# SPDX-License-Identifier: GPL-2.0-or-later
"""state = single: one host, neither corosync nor DLM."""

import time

from harness import SINGLE
from processes import wait


def alone(make):
    cluster = make(1, config=SINGLE)
    cluster[1].boot()
    cluster[1].start_graced()
    cluster.wait_open()
    return cluster, cluster[1]


def test_nfsd_restarts(make):
    """Two servers share a file system; one restarts: the other grants nothing until its client has reclaimed; then at once."""
    cluster, node = alone(make)
    first, second = node.serve("vs1"), node.serve("vs2")

    def ended():
        return len(node.logged("nfsd of vs1 would end its own grace"))

    wait(ended, 5, "nfsd to be told that its grace is over")
    assert ended() == 1, "nobody can reclaim, and nfsd keeps a grace of its own"
    assert first.create("alice") == "ok" and second.create("bob") == "ok"
    second.wait_lock()
    node.wait_lock()
    first.stop()
    announced = node.announce("vs1")
    cluster.wait_closed()
    first = node.start_nfsd("vs1", announced)
    assert first.may_reclaim == 1, first.may_reclaim
    assert ended() == 1, "nfsd was to end its grace before anybody had reclaimed"
    assert not second.lock(), "the other server granted a new lock in the grace"
    assert not node.try_lock(), "a program got a new lock in the grace"
    assert first.reclaim("mallory") == "refused" and first.reclaim("alice") == "ok"
    begin = time.monotonic()
    cluster.wait_open()
    took = time.monotonic() - begin
    wait(lambda: ended() == 2, 5, "nfsd to be told that its grace is over")
    assert took < 30, f"lifted after {took:.1f} s: at the deadline, not when the last client had reclaimed"
    second.wait_lock()
    assert set(node.clients("vs1")) == {"alice"} and set(node.clients("vs2")) == {"bob"}
    return f"open {took:.2f} s after the last reclaim, of a period of 60 s"


def test_daemon_killed(make):
    """SIGKILL: the gate is closed, the daemon comes back with all records and adopts; no grace."""
    cluster, node = alone(make)
    nfsd = node.serve("vs1")
    assert nfsd.create("alice") == "ok"
    epoch = node.status()["current"]
    node.graced.kill()
    assert not node.try_lock()
    node.start_graced()
    cluster.wait_open()
    assert node.status()["recovery"] == 0 and node.status()["current"] <= epoch + 1  # a founding: a grace of milliseconds
    assert set(node.clients("vs1")) == {"alice"}
    wait(lambda: nfsd.create("carol") == "ok", 5, "an upcall to be answered by the new daemon")


def test_power_failure(make):
    """Everything is gone but the disk: clients on record may reclaim, then the gate opens."""
    cluster, node = alone(make)
    nfsd = node.serve("vs1")
    assert nfsd.create("alice") == "ok" and nfsd.create("bob") == "ok" and nfsd.remove("bob") == "ok"
    node._kill_all()
    node.boot()
    node.start_graced()
    wait(lambda: node.status()["recovery"], 5, "a grace")
    assert not node.try_lock()
    nfsd = node.serve("vs1")
    assert nfsd.may_reclaim == 1 and nfsd.reclaim("bob") == "refused" and nfsd.reclaim("alice") == "ok"
    cluster.wait_open()
