"""Upcalls v0: a client that may not reclaim tries for two files, twice; knfsd alone would let the second pass."""

import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900


def run(cluster):
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    _graced.wait_normal(cluster)
    _graced.set_cld_version(cluster, "vs1", 0)
    _graced.serve(node1, "vs1")
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    b.mount("vs1", "/mnt/b")
    held = Locker(vm, "/mnt/a/held", "A")  # or there would be no grace in which to refuse B
    held.lock()
    for name in ("r1", "r2"):
        Locker(vm, f"/mnt/b/{name}", f"B-{name}").lock()
    cluster.step("A holds a lock, B locks on two files")

    b.cut()
    _graced.start_again(node1, "vs1")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    assert len(_graced.clients(node2, "vs1")) == 1, "B is on record still"
    cluster.step("the server restarted without B; B's record is purged")

    rivals = [Locker(node2, f"/srv/data/{name}", f"rival-{name}") for name in ("r1", "r2")]
    for rival in rivals:
        cluster.wait(rival.try_lock, 10, f"{rival} to get a lock of B's, whose server has let it go")
        rival.unlock()
    began = time.monotonic()
    node1.run("graced-server stop vs1", timeout=180)
    b.restore()  # it knows nothing of the restarts, and reclaims both
    _graced.serve(node1, "vs1")
    cluster.wait(lambda: _graced.locks_lost(vm), 90, "B to find its locks lost")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    checks = cluster.logged(node1, "graced", "upcall .* Check", began)
    expired = cluster.logged(node1, "graced", "expired, for it may not reclaim", began)
    assert len(expired) >= 2, f"the second file was let in without being asked for: {checks}"
    assert len(checks) == len(expired) + 1, (len(checks), len(expired))  # A is asked for once
    cluster.step(f"B came back in grace: asked for {len(expired)} times, expired and refused each time; its locks are lost")

    for rival in rivals:
        cluster.wait(rival.try_lock, 10, f"{rival} to get a lock that B has lost")
    held.write("still mine")
    again = Locker(vm, "/mnt/b/again", "B-again")
    again.lock(timeout=90)
    assert len(_graced.clients(node2, "vs1")) == 2
    cluster.step("after the lift others have those locks; A kept its own; B has another one, and is on record as a new client")


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
    _graced.set_cld_version(cluster, "vs1", None)
