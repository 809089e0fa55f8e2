"""What every version of nfsd's tracking upcalls must do on the real knfsd; cld_v0.py, cld_v1.py, cld_v2.py."""

import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900


def story(cluster, version):
    """A server restarts three times: both clients reclaim; B is away and is purged; B comes back, and is refused."""
    node1, node2 = cluster.nodes
    vm = cluster.clients[0]
    listed = version > 0  # nfsd gets the list of those who may reclaim, and tells when all have
    _graced.wait_normal(cluster)
    _graced.set_cld_version(cluster, "vs1", version)
    began = time.monotonic()
    _graced.serve(node1, "vs1")
    method = "nfsdcld" if listed else "old nfsdcld"
    assert cluster.logged(node1, "kernel", f"Using {method} client tracking", began), "the kernel tracks otherwise"
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    b.mount("vs1", "/mnt/b")
    held = Locker(vm, "/mnt/a/held", "A")
    lost = [Locker(vm, f"/mnt/b/lost{n}", f"B{n}") for n in (1, 2)]
    for each in [held, *lost]:
        each.lock()
    wire = max(version, 1)  # the older method has the messages of version 1
    assert cluster.logged(node1, "graced", rf"server vs1: upcall \d+ Create, version {wire}", began), "not of this version"
    assert len(_graced.clients(node2, "vs1")) == 2, "not on record on the other node"
    rivals = [Locker(node2, f"/srv/data/{name}", f"rival-{name}") for name in ("held", "lost1", "lost2")]
    assert not any(rival.try_lock() for rival in rivals)
    cluster.step(f"`{method}`, version {version}: A and B hold locks, and are on record on both nodes")

    began = time.monotonic()
    _graced.start_again(node1, "vs1")
    lift(cluster, node1, "vs1", began, "all reclaimed" if listed else "deadline")
    assert not any(rival.try_lock() for rival in rivals) and not _graced.locks_lost(vm)
    assert len(_graced.clients(node2, "vs1")) == 2
    cluster.step(f"nfsd restarted: both have reclaimed; {seconds(cluster, node1, began)}")

    b.cut()
    began = time.monotonic()
    _graced.start_again(node1, "vs1")
    lift(cluster, node1, "vs1", began, "deadline")
    assert len(_graced.clients(node2, "vs1")) == 1, "B is on record still"
    assert not rivals[0].try_lock() and not _graced.locks_lost(vm)
    cluster.step(f"restarted again: B stayed away and is purged; {seconds(cluster, node1, began)}")

    polls = rivals[1:]
    for rival in polls:
        cluster.wait(rival.try_lock, 10, f"{rival} to get a lock of B's, whose record is gone")
        rival.unlock()  # so that it is for its record that B is refused, not for another's lock
    began = time.monotonic()
    node1.run("graced-server stop vs1", timeout=180)
    for rival in polls:
        rival.poll(300)
    b.restore()
    _graced.serve(node1, "vs1")
    lift(cluster, node1, "vs1", began, "all reclaimed" if listed else "deadline")
    lifted = cluster.logged(node2, "graced", "the grace is lifted", began)[-1][0]  # there, where the rivals are
    cluster.wait(lambda: _graced.locks_lost(vm), 120, "B to find its locks lost")
    for rival in polls:
        granted, when = rival.granted_after(120)
        assert granted and when > lifted, f"{rival}: {granted}, {when - lifted:.1f} s after the lift"
    assert not rivals[0].try_lock()
    held.write("still mine")
    if not listed:
        refused = cluster.logged(node1, "graced", "expired, for it may not reclaim", began)
        assert refused, "B was not expired before it was refused"
    cluster.step(f"B came back in the next grace and was refused: others have its locks; A kept its own; {seconds(cluster, node1, began)}")


def lift(cluster, node, server, since, how):
    """Waits for the end of the grace; its reason must be `how`."""
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    said = _graced.done(cluster, node, server, since)
    assert said == how, f"the grace ended by '{said}', not '{how}'"


def seconds(cluster, node, since):
    """How long reclaim was open."""
    opened = cluster.logged(node, "graced", "reclaim is open", since)[-1][0]
    lifted = cluster.logged(node, "graced", "the grace is lifted", since)[-1][0]
    return f"lifted {lifted - opened:.1f} s after reclaim opened"


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
    _graced.set_cld_version(cluster, "vs1", None)
