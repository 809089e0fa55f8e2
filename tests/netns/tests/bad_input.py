# SPDX-License-Identifier: GPL-2.0-or-later
"""What people get wrong: graced says what it is and how to mend it, ends with the exit code that its
manual names, and loses nothing."""

import hashlib
import os
import re
import shutil
import sqlite3

from harness import SINGLE
from processes import Failed, Program, Skip, run, wait

CONFIG, DATA, UNAVAILABLE, IO, BUSY = 78, 65, 69, 74, 75  # sysexits.h


def refuses(node, status, *patterns, config=None, deadline_s=12):
    """graced ends by itself, with that status, and its log says all of the patterns."""
    before = len(text(node))
    node.start_graced(ready=False, config=config)
    ended = node.graced.wait_end(deadline_s)
    said = text(node)[before:]
    if ended != status:
        raise Failed(f"graced ended with {ended} instead of {status}; it says: {said.strip()}")
    for pattern in patterns:
        if not re.search(pattern, said, re.IGNORECASE | re.DOTALL):
            raise Failed(f"graced does not say '{pattern}', but: {said.strip()}")


def text(node):
    return node.log.read_text(errors="replace") if node.log.exists() else ""


def alone(make, **config):
    """A cluster of one node with corosync and a lock table."""
    cluster = make(1, config=config)
    cluster.start_dlm()
    cluster[1].boot()
    cluster[1].start_corosync()
    return cluster, cluster[1]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_unknown_key(make):
    """A misspelt key is named, with its line."""
    cluster = make(1)
    node = cluster[1]
    node.boot()
    node.write_config({"grace": {"periood": 90}})
    line = next(i for i, l in enumerate(node.config.read_text().splitlines(), 1) if "periood" in l)
    refuses(node, CONFIG, "periood", rf"\b{line}\b", re.escape(str(node.config)))


def test_several_errors_at_once(make):
    """All errors of a file are told, not only the first; --check tells the same."""
    cluster = make(1)
    node = cluster[1]
    node.boot()
    node.write_config({"grace": {"period": 5}, "permit": {"ttl": "soon"}, "lcoks": {"backend": "dlm"}})
    refuses(node, CONFIG, "period", "10", "ttl", "lcoks")
    done = run(node.inside(node_binary("graced"), "--check", "--config", node.config), check=False)
    assert done.returncode == CONFIG and "lcoks" in done.stderr, done


def test_permit_close_to_token(make):
    """A permit that could outlive the membership is refused, with corosync's own number beside it."""
    _, node = alone(make)
    node.write_config({"permit": {"ttl": 950}})
    refuses(node, CONFIG, "950 ms", "1000 ms", "totem.token")
    node.write_config({"permit": {"ttl": 900}})
    node.start_graced()


def node_binary(name):
    from harness import BIN

    return BIN / name


def test_no_config_file(make):
    """A configuration file that was asked for and is not there."""
    cluster = make(1)
    cluster[1].boot()
    refuses(cluster[1], CONFIG, "/nowhere/graced.conf", config="/nowhere/graced.conf")


def test_no_corosync(make):
    """corosync does not run."""
    cluster = make(1)
    cluster[1].boot()
    refuses(cluster[1], UNAVAILABLE, "corosync", "systemctl start corosync")


def test_permit_longer_than_token(make):
    """permit.ttl must be shorter than corosync's running token timeout."""
    cluster, node = alone(make, permit={"ttl": 1000})
    refuses(node, CONFIG, r"permit\.ttl", "1000 ms", "token timeout", "lower permit.ttl")


def test_unwritable_database_directory(make):
    """The database's directory is on a read-only file system."""
    cluster, node = alone(make)
    run(node.inside("mount", "-t", "tmpfs", "-o", "ro", "none", node.database.parent))
    node.start_graced(ready=False)
    assert node.graced.wait_end(12) in (IO, CONFIG), node.graced.status
    assert re.search(re.escape(str(node.database.parent)), text(node)), text(node)
    assert re.search("read-only", text(node), re.IGNORECASE), text(node)


def test_missing_database_directory(make):
    """The database's directory does not exist: it is said, or made."""
    cluster, node = alone(make)
    node.write_config({"store": {"path": node.dir / "db" / "a" / "b" / "graced.sqlite"}})
    node.start_graced(ready=False)
    wait(lambda: not node.running() or node.gate() == "open", 12, lambda: f"an end or an open gate; {node.describe()}")
    if not node.running():
        assert node.graced.status in (IO, CONFIG) and str(node.dir / "db" / "a") in text(node), text(node)


def filled(make):
    """A database with two clients in it, and its daemon stopped in order."""
    cluster, node = alone(make)
    node.start_graced()
    cluster.wait_open()
    nfsd = node.serve("vs1")
    assert nfsd.create("alice") == "ok" and nfsd.create("bob") == "ok"
    nfsd.stop()
    assert node.graced.stop() == 0
    return cluster, node


def test_corrupt_database(make):
    """A damaged database on a host without others who have its records: graced does not go on without them."""
    cluster = make(1, config=SINGLE)
    node = cluster[1]
    node.boot()
    node.start_graced()
    cluster.wait_open()
    nfsd = node.serve("vs1")
    assert nfsd.create("alice") == "ok"
    nfsd.stop()
    assert node.graced.stop() == 0
    node.damage_database()
    before = digest(node.database)
    refuses(node, DATA, re.escape(str(node.database)), "damaged|malformed|corrupt")
    assert digest(node.database) == before, "the damaged database was changed"


def test_no_database_at_all(make):
    """A file that is no SQLite database at all is set aside as it is."""
    cluster, node = alone(make)
    node.database.write_text("this is not a database, but perhaps somebody needs it\n" * 100)
    before = digest(node.database)
    node.start_graced()
    cluster.wait_open()
    aside = list(node.database.parent.glob("graced.sqlite.damaged-*"))
    assert [digest(file) for file in aside] == [before], aside
    assert node.logged("it is not a database") and node.logged(re.escape(aside[0].name)), node.last_log()


def test_database_of_a_newer_version(make):
    """A database that a newer graced wrote is not touched."""
    cluster, node = filled(make)
    with sqlite3.connect(node.database) as db:
        version = db.execute("pragma user_version").fetchone()[0]
        tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
        if version:
            db.execute(f"pragma user_version = {version + 1000}")
        elif "meta" in tables:
            changed = db.execute("update meta set value = value + 1000 where key in ('schema', 'version')").rowcount
            if not changed:
                raise Skip("where the database keeps its version has changed")
        else:
            raise Skip("where the database keeps its version has changed")
    refuses(node, DATA, "version|newer")


def test_second_graced_same_database(make):
    """A second graced with the same database ends at once; the first one goes on."""
    cluster, node = alone(make)
    node.start_graced()
    cluster.wait_open()
    first = node.graced
    refuses(node, BUSY, "another|already|other graced|in use")
    node.graced = first
    assert first.running(), node.describe()
    cluster.wait_open()


def test_second_graced_other_database(make):
    """A second graced with a database of its own, too: two on one node would answer for each other."""
    cluster, node = alone(make)
    node.start_graced()
    cluster.wait_open()
    first = node.graced
    conf = node.config.read_text().replace(str(node.database), str(node.dir / "db" / "second.sqlite"))
    second = node.dir / "second.conf"
    second.write_text(conf.replace(node.gate_socket, node.gate_socket + "b"))
    refuses(node, BUSY, "another|already|other graced|in use", config=second)
    node.graced = first
    assert first.running(), node.describe()
    cluster.wait_open()


def test_nfsdcld_runs(make):
    """nfsdcld would take every second upcall: while it runs, graced does not."""
    cluster, node = alone(make)
    # An embedded gate has no kernel whose upcalls nfsdcld could take.
    node.write_config({"gate": {"backend": "none", "socket": None}})
    stray = node.dir / "nfsdcld"
    shutil.copy(shutil.which("sleep"), stray)
    program = Program("nfsdcld", node.inside(stray, "60"), node.dir / "nfsdcld.log")
    try:
        wait(lambda: open(f"/proc/{program.pid}/comm").read().strip() == "nfsdcld", 5, "a process named nfsdcld", every=0.01)
        refuses(node, CONFIG, "nfsdcld", rf"\b{program.pid}\b", "mask|stop")
    finally:
        program.kill()
    node.start_graced()
    assert node.running()


def test_keeper_missing(make):
    """Without the keeper of the locks the gate stays closed and it is said why; it opens when one comes."""
    cluster = make(1)
    node = cluster[1]
    node.write_config({"locks": {"keeper": "/nowhere/graced-dlm"}})
    node.boot()
    node.start_corosync()
    node.start_graced()
    wait(lambda: node.logged("/nowhere/graced-dlm"), 5, "a line about the keeper's program")
    assert node.logged(re.escape(cluster.dlm_socket)), "the socket is not named"
    assert node.gate() == "closed"
    assert any("keeper" in why for why in node.status()["blocked_by"]), node.status()["blocked_by"]
    assert len(node.logged("no DLM keeper")) < 5, "the log is flooded"
    cluster.start_dlm()
    cluster.wait_open()


def test_gate_module_missing(make):
    """The configured gate is the kernel's, and its modules are not loaded."""
    if os.path.exists("/sys/module/lockd_shim"):
        raise Skip("lockd_shim is loaded on this machine")
    cluster, node = alone(make)
    node.write_config({"gate": {"backend": "module", "socket": None}})
    refuses(node, UNAVAILABLE, "lockd_shim", "modprobe")
