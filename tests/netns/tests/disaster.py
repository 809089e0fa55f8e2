# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/disaster-recovery.md tells to do, done."""

from processes import run, wait


def power_off(cluster):
    for node in cluster:
        node.kill()
        cluster.fence_done(node.number)


def power_on(cluster, numbers):
    for number in numbers:
        cluster[number].boot()
        cluster[number].start_corosync(ready=False)
    for number in numbers:
        cluster[number].wait_corosync()
        cluster[number].start_graced()


def test_minority_made_quorate(make):
    """Two of three nodes are gone for good: the third says so and does nothing, until corosync was told to expect
    fewer votes and the two were declared fenced; then their clients reclaim there."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[2].serve("vs1")
    assert nfsd.create("alice") == "ok"
    for number in (2, 3):
        cluster[number].kill()
    cluster.wait_closed([cluster[1]])
    wait(lambda: not cluster[1].status()["quorate"], 15, "node 1 to lose quorum")
    assert "this node has no quorum" in cluster[1].status()["blocked_by"], cluster[1].status()["blocked_by"]
    run(cluster[1].inside("corosync-quorumtool", "-e", "1"))
    wait(lambda: cluster[1].status()["synced"], 15, lambda: f"the group to go on: {cluster[1].status()['blocked_by']}")
    for number in (2, 3):
        cluster.fence_done(number)
    nfsd = cluster[1].serve("vs1")
    assert nfsd.reclaim("alice") == "ok"
    cluster.wait_open([cluster[1]])
    assert nfsd.create("bob") == "ok"


def test_all_databases_lost(make):
    """The databases of all nodes are gone: two of three found nothing, all three do, and nobody is on record."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    power_off(cluster)
    for node in cluster:
        for file in node.database.parent.iterdir():
            file.unlink()
    power_on(cluster, (1, 2))
    wait(lambda: any("cannot be founded yet" in b for b in cluster[1].status()["blocked_by"]), 15,
         "node 1 to say what it waits for")
    assert cluster[1].gate() != "open"
    power_on(cluster, (3,))
    cluster.wait_open(deadline_s=30)
    nfsd = cluster[1].serve("vs1")
    assert nfsd.reclaim("alice") != "ok"
    assert nfsd.create("alice") == "ok"
