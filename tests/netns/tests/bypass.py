# SPDX-License-Identifier: GPL-2.0-or-later
"""Break glass: an operator opens gates past everything, and nobody takes them for closed ones."""

import time

from processes import wait

FAILED, USAGE = 1, 2


def started(make, **options):
    cluster = make(3, **options)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    return cluster


def node_in(status, number):
    return next(n for n in status["nodes"] if n["id"] == number)


def test_one_node(make):
    """A bypassed gate lets locks pass, is no E, and outlives nothing but its own end."""
    cluster = started(make)
    assert cluster[2].gracectl("bypass", "on", check=False)["exit"] == USAGE
    cluster[2].wait_lock()
    assert not cluster[2].status()["kernel"]["bypass"]
    cluster[2].gracectl("bypass", "on", "--yes")
    status = cluster[2].status()
    assert status["kernel"]["bypass"] and any("BYPASSED" in w for w in status["warnings"]), status
    wait(lambda: not node_in(cluster[1].status(), 2)["attached"], 5, "the others to hear of it")
    cluster[1].gracectl("bypass", "on", "--yes", "--node", cluster[3].name)
    wait(lambda: cluster[3].status()["kernel"]["bypass"], 5, "node 3 to be bypassed through the group")

    cluster[1].kill()
    wait(lambda: cluster[2].status()["recovery"], 20, "the grace")
    cluster.fence_done(1)
    time.sleep(5)  # longer than a permit
    for node in (cluster[2], cluster[3]):
        status = node.status()
        assert status["phase"] == "entering", status
        assert not node_in(status, 2)["enforcing"] and not node_in(status, 3)["enforcing"], status
        assert node.try_lock(), "held back in spite of the bypass"
    assert any(cluster[2].name in why for why in cluster[3].status()["blocked_by"]), cluster[3].status()["blocked_by"]
    cluster[2].gracectl("bypass", "off")
    assert not cluster[2].try_lock(), "the end of the bypass did not close the gate"
    cluster[3].gracectl("bypass", "off")
    wait(lambda: cluster[2].status()["phase"] == "reclaiming", 10, "both to enforce")


def test_without_a_daemon(make):
    """graced is dead here and runs elsewhere: refused, until the others know; then that node is no E without its daemon."""
    cluster = started(make)
    cluster[3].graced.kill()
    answer = cluster[3].gracectl("bypass", "on", "--yes", check=False)
    assert answer["exit"] == FAILED and "graced runs on node(s) 1, 2" in answer["error"], answer
    wait(lambda: not node_in(cluster[1].status(), 3)["member"], 5, "the death of its daemon to be news")
    told = cluster[1].gracectl("bypass", "on", "--yes", "--node", cluster[3].name)
    assert cluster[3].name in told["detail"], told
    cluster[1].nfsds["vs1"].stop()  # by hand: its clients' locks are gone
    wait(lambda: cluster[1].status()["recovery"], 10, "the grace")
    time.sleep(5)  # longer than a permit
    status = cluster[1].status()
    assert status["phase"] == "entering" and not node_in(status, 3)["enforcing"], status


def test_all(make):
    """Every gate by one agreed message, and back; it is no grace."""
    cluster = started(make)
    cluster[2].gracectl("bypass", "on", "--yes", "--cluster")
    wait(lambda: all(node.status()["kernel"]["bypass"] for node in cluster), 5, "every gate to be bypassed")
    assert all(node.try_lock() for node in cluster)
    cluster[3].gracectl("bypass", "off", "--cluster")
    wait(lambda: not any(node.status()["kernel"]["bypass"] for node in cluster), 5, "no gate to be bypassed")
    cluster.wait_open()
    assert all(node.status()["current"] == 1 for node in cluster)
