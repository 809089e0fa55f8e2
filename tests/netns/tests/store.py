# SPDX-License-Identifier: GPL-2.0-or-later
"""The recovery database is what goes wrong: a full disk, a damaged file, one that is gone."""

import signal
import subprocess

from processes import wait


def synced(node, number):
    return next(n["synced"] for n in node.status()["nodes"] if n["id"] == number)


def test_disk_full(make):
    """Node 2's disk is full: node 1's clients go on without it, its gate closes, `status` says why,
    and with space again it joins by itself and has what it missed."""
    cluster = make(3)
    disk = cluster[2].database.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
    try:
        cluster.start()
        nfsd = cluster[1].serve("vs1")
        assert nfsd.create("alice") == "ok"
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        for client in ("bob", "carol", "dave"):
            assert nfsd.create(client) == "ok"
        wait(lambda: not synced(cluster[1], 2), 10, "node 2 to leave")
        cluster.wait_closed([cluster[2]])
        status = cluster[2].status()
        said = [w for w in status["warnings"] if "cannot be written" in w and str(disk) in w]
        assert said, status["warnings"]
        assert cluster[2].running()
        cluster.wait_open([cluster[1], cluster[3]])
        filler.unlink()
        cluster.wait_open(deadline_s=40)
        names = set(cluster[2].clients("vs1"))
        assert names == {"alice", "bob", "carol", "dave"}, names
        assert not any("cannot be written" in w for w in cluster[2].status()["warnings"])
        return said[0]
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def end_daemon(node):
    node.graced.signal(signal.SIGKILL)
    node.graced.process.wait()


def test_damaged_database(make):
    """Node 2's database is damaged while its daemon is away: it is set aside, and the others give it
    the state."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    end_daemon(cluster[2])
    cluster[2].damage_database()
    cluster[2].start_graced()
    cluster.wait_open(deadline_s=20)
    assert set(cluster[2].clients("vs1")) == {"alice"}
    aside = list(cluster[2].database.parent.glob("graced.sqlite.damaged-*"))
    assert len(aside) == 1, aside


def test_lost_database_founds_nothing(make):
    """All daemons end; node 1 lost its database, and comes back with node 3, which was away when the
    last client was recorded. They are a majority, and wait for node 2, which has it on record."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    end_daemon(cluster[3])
    wait(lambda: not synced(cluster[1], 3), 10, "node 3 to be gone")
    assert nfsd.create("bob") == "ok"
    nfsd.stop()
    for n in (1, 2):
        end_daemon(cluster[n])
    cluster[1].damage_database()
    for n in (1, 3):
        cluster[n].start_graced()
    wait(lambda: any("cannot be founded yet" in b for b in cluster[3].status()["blocked_by"]), 10,
         "node 3 to say what it waits for")
    assert not cluster[1].status()["synced"] and not cluster[3].status()["synced"]
    cluster[2].start_graced()
    wait(lambda: cluster[1].status()["synced"], 20, "the group to be founded")
    names = set(cluster[1].clients("vs1"))
    assert names == {"alice", "bob"}, names
