"""A record with the hash of a principal: a client that comes without it, or with another one, does not reclaim."""

import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900
HASH = "ab" * 32
GIVE_HASH = f"""
import sqlite3
with sqlite3.connect("/run/x.sqlite") as db:
    table = db.execute("select name from sqlite_master where name like 'rec-%'").fetchone()[0]
    changed = db.execute(f'update "{{table}}" set princhash = ? where instr(id, ?)', (bytes.fromhex("{HASH}"), b"clb"))
    assert changed.rowcount == 1, changed.rowcount
"""


def run(cluster):
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    b.mount("vs1", "/mnt/b")
    for name in ("a", "b"):
        Locker(vm, f"/mnt/{name}/{name}", name).lock()
    rivals = {name: Locker(node2, f"/srv/data/{name}", f"rival-{name}") for name in ("a", "b")}
    assert not any(rival.try_lock() for rival in rivals.values())
    cluster.step("A and B hold locks; nfsd saw no principal of either (sec=sys)")

    # B's record gets one, as if it had been made by a client with Kerberos.
    began = time.monotonic()
    node1.run("graced-server stop vs1", timeout=180)
    node1.run("rm -f /run/x.sqlite; gracectl export --server vs1 /run/x.sqlite", timeout=60)
    node1.put("/run/give_hash.py", GIVE_HASH)
    node1.run("python3 /run/give_hash.py")
    node1.run("gracectl import --server vs1 --nfsdcld /run/x.sqlite", timeout=60)
    hashes = node2.run("gracectl clients --server vs1 --json").out
    assert hashes.count(HASH) == 1, hashes
    _graced.serve(node1, "vs1")
    cluster.wait(lambda: _graced.locks_lost(vm), 90, "B to find its lock lost")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    assert not rivals["a"].try_lock(), "A lost its lock, too"
    assert rivals["b"].try_lock(), "B reclaimed with a principal that it does not have"
    lost = _graced.locks_lost(vm).strip().splitlines()
    assert len(lost) == 1, lost
    cluster.step(f"B's record has a hash, on both nodes: nfsd refused B and let A reclaim ({time.monotonic() - began:.0f} s)")


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
