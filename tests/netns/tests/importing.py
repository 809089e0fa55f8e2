# SPDX-License-Identifier: GPL-2.0-or-later
"""gracectl import and export: from nfsdcld to graced and back."""

import sqlite3
import time

from harness import SINGLE
from processes import wait

HASH = bytes(range(32))


def nfsdcld_database(path, clients, current=3, recovery=0, reclaimed=()):
    """As nfsdcld writes it: {name: hash of its principal or None}, in grace those of the recovery epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE parameters (key TEXT PRIMARY KEY, value TEXT)")
        db.execute("CREATE TABLE grace (current INTEGER , recovery INTEGER)")
        db.execute("INSERT INTO grace VALUES (?, ?)", (current, recovery))
        db.executemany("INSERT INTO parameters VALUES (?, ?)", [("version", "4"), ("first_time", "0")])
        for epoch, rows in ((recovery or current, clients), (current, {n: clients[n] for n in reclaimed})):
            db.execute(f'CREATE TABLE IF NOT EXISTS "rec-{epoch:016x}" (id BLOB PRIMARY KEY, princhash BLOB)')
            db.executemany(f'INSERT INTO "rec-{epoch:016x}" VALUES (?, ?)', [(n.encode(), h) for n, h in rows.items()])
    db.close()
    return path


def imports(node, *words, **more):
    return node.gracectl("import", "--server", "vs1", *words, **more)


def counts(answer):
    return {key: answer[key] for key in ("added", "known", "changed", "removed", "refused")}


def test_from_nfsdcld(make):
    """Clients of nfsdcld reclaim from graced; again and again imports nothing; nothing into a server that runs."""
    cluster = make(1, config=SINGLE)
    node = cluster[1]
    node.boot()
    lib = node.dir / "nfs"
    nfsdcld_database(lib / "nfsdcld" / "main.sqlite", {"alice": None, "bob": HASH})
    (lib / "v4recovery" / ("ab" * 16)).mkdir(parents=True)  # what an older tracker left
    (lib / "rmtab").write_text("192.0.2.5:/srv:0x00000001\n")

    stopped = imports(node, "--from", lib, check=False)
    assert stopped["exit"] == 3, f"without a daemon: {stopped}"
    dry = imports(node, "--from", lib, "--dry-run")
    assert dry["added"] == 3 and "not running" in str(dry["notes"]), dry

    node.start_graced()
    cluster.wait_open()
    dry = imports(node, "--from", lib, "--dry-run")
    assert dry["added"] == 3 and not node.clients("vs1") and node.server("vs1") is None
    first = imports(node, "--from", lib)
    assert counts(first) == {"added": 3, "known": 0, "changed": 0, "removed": 0, "refused": 0}, first
    assert "taken over" in str(first["sources"]) and not first["not_taken"], first
    assert set(node.clients("vs1")) == {"alice", "bob"}
    assert node.status()["recovery"] == 0, "an import alone starts no grace"
    assert [(m["client"], m["path"]) for m in node.gracectl("mounts")["mounts"]] == [("192.0.2.5", "/srv")]
    assert counts(imports(node, "--from", lib))["known"] == 3

    # nfsd of before is stopped; until then carol came and bob's principal changed, alice went.
    database = nfsdcld_database(lib / "nfsdcld" / "main.sqlite", {"bob": HASH[::-1], "carol": None})
    assert counts(imports(node, "--from", lib)) == {"added": 1, "known": 1, "changed": 1, "removed": 0, "refused": 0}
    assert counts(imports(node, "--nfsdcld", database, "--replace"))["removed"] == 1

    nfsd = node.serve("vs1")
    assert nfsd.may_reclaim == 2, nfsd.may_reclaim
    assert nfsd.reclaim("alice") == "refused" and nfsd.reclaim("bob") == "ok" and nfsd.reclaim("carol") == "ok"
    cluster.wait_open()
    nfsdcld_database(database, {"mallory": None})
    running = imports(node, "--nfsdcld", database, check=False)
    assert running["exit"] == 1 and "runs under graced" in running["error"], running
    assert set(node.clients("vs1")) == {"bob", "carol"}
    assert counts(imports(node, "--nfsdcld", database, "--force"))["added"] == 1


def test_legacy_names(make):
    """Records of v4recovery reach nfsd in the form in which its kernel knows them."""
    cluster = make(1, config=SINGLE)
    node = cluster[1]
    node.boot()
    node.start_graced()
    cluster.wait_open()
    digits = "0123456789abcdef" * 2
    (node.dir / "v4recovery" / digits).mkdir(parents=True)
    answer = imports(node, "--v4recovery", node.dir / "v4recovery")
    assert answer["added"] == 1 and "MD5" in str(answer["notes"]), answer
    # The list that answers GraceStart, as the stand-in for nfsd prints it: with the NUL at its end.
    nfsd = node.serve("vs1")
    assert nfsd.may_reclaim == 1 and nfsd._ask("list").rstrip("\0\n") == f"list hash:{digits}"


def test_durable_everywhere(make):
    """An import is durable on every member when gracectl returns: its node dies, another serves its clients."""
    cluster = make(3, config={"grace": {"period": 20}})
    cluster.start()
    many = {f"client {n}": None for n in range(3000)}
    database = nfsdcld_database(cluster[1].dir / "main.sqlite", many, current=7, recovery=6, reclaimed=["client 5"])
    answer = cluster[1].gracectl("import", "--server", "vs1", "--nfsdcld", database, timeout=60)
    assert answer["added"] == 3000 and "written last in a grace" in str(answer["notes"]), answer
    cluster[1].kill()
    cluster.fence_done(1)
    other = cluster[2].gracectl("import", "--server", "vs1", "--nfsdcld", database, "--dry-run", timeout=30)
    assert other["known"] == 3000, other
    nfsd = cluster[2].serve("vs1", timeout=40)
    assert nfsd.may_reclaim == 3000, nfsd.may_reclaim
    third = cluster[3].gracectl("import", "--server", "vs1", "--nfsdcld", database, check=False, timeout=60)
    assert third["ok"] and third["known"] == 3000, third  # nothing to send: nothing to refuse


def test_in_the_documented_order(make):
    """import, START by hand, nfsd stops, import again in that grace, start: nobody gets a lock in between, nothing is
    purged at a deadline that nobody could keep."""
    cluster = make(2, config={"grace": {"period": 10}})
    cluster.start()
    node = cluster[1]
    database = nfsdcld_database(node.dir / "main.sqlite", {"alice": None, "bob": None})
    imports(node, "--nfsdcld", database)
    cluster[2].wait_lock()
    node.gracectl("start", "vs1")
    cluster.wait_closed()
    time.sleep(13)  # longer than the period
    assert set(node.clients("vs1")) == {"alice", "bob"}, "purged before its nfsd could start"
    nfsdcld_database(database, {"alice": None, "carol": None})
    again = imports(node, "--nfsdcld", database, "--replace", timeout=30)
    assert counts(again) == {"added": 1, "known": 1, "changed": 0, "removed": 1, "refused": 0}, again
    assert not cluster[2].try_lock() and not node.try_lock(), "a new lock before the clients could reclaim"
    nfsd = node.serve("vs1")
    assert nfsd.may_reclaim == 2, nfsd.may_reclaim
    assert nfsd.reclaim("bob") == "refused" and nfsd.reclaim("alice") == "ok" and nfsd.reclaim("carol") == "ok"
    cluster.wait_open()


def test_hosted_elsewhere(make):
    """Only where the server is hosted: another node says where that is."""
    cluster = make(2, config={"grace": {"period": 20}})
    cluster.start()
    database = nfsdcld_database(cluster[1].dir / "main.sqlite", {"alice": None})
    imports(cluster[1], "--nfsdcld", database)
    nfsdcld_database(database, {"bob": None})
    refused = imports(cluster[2], "--nfsdcld", database, check=False)
    assert refused["exit"] == 8 and cluster[1].name in refused["error"], refused
    wait(lambda: set(cluster[2].clients("vs1")) == {"alice"}, 2, "no other record")


def test_back_to_nfsdcld(make):
    """What export writes is nfsdcld's version 4, and imports again as it was."""
    cluster = make(1, config=SINGLE)
    node = cluster[1]
    node.boot()
    node.start_graced()
    cluster.wait_open()
    here = nfsdcld_database(node.dir / "in.sqlite", {"alice": None, "bob": HASH})
    imports(node, "--nfsdcld", here)
    back = node.dir / "main.sqlite"
    assert node.gracectl("export", "--server", "vs1", back)["clients"] == 2
    with sqlite3.connect(back) as db:
        assert dict(db.execute("SELECT * FROM parameters")) == {"version": "4", "first_time": "0"}
        current, recovery = db.execute("SELECT * FROM grace").fetchone()
        assert recovery == 0
        assert dict(db.execute(f'SELECT * FROM "rec-{current:016x}"')) == {b"alice": None, b"bob": HASH}
    db.close()
    again = node.gracectl("export", "--server", "vs1", back, check=False)
    assert again["exit"] == 1 and "is there already" in again["error"], again
    assert node.gracectl("export", "--server", "vs2", node.dir / "x", check=False)["exit"] == 6
    assert counts(imports(node, "--nfsdcld", back))["known"] == 2
