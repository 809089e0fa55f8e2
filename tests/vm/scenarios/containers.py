"""One host without a cluster: servers in two network namespaces export one ext4; one restarts, the other's client cannot take its lock."""

import time

import _graced
from _single import CLIENTS, CLUSTER, LIMIT_S, NODES, set_up  # noqa: F401
from _single import tear_down as cleanup  # noqa: F401
from harness.locker import Locker


def run(cluster):
    node, vm = set_up(cluster)
    for server in ("vs1", "vs2"):
        _graced.serve(node, server)
    a, b = _graced.NfsClient(vm, "cla", 61), _graced.NfsClient(vm, "clb", 62)
    a.mount("vs1", "/mnt/a")
    b.mount("vs2", "/mnt/b")
    mine, rival = Locker(vm, "/mnt/a/f", "A"), Locker(vm, "/mnt/b/f", "B")
    mine.lock()
    mine.write("A's data")
    assert not rival.try_lock()
    rival.poll(300)
    cluster.step("two namespaces, one ext4: A has a lock through vs1, B asks for it through vs2 all the time")

    for how in ("in order", "by hand"):
        began = time.monotonic()
        if how == "in order":
            node.run("graced-server stop vs1", timeout=120)
        else:
            node.run(f"echo 0 > {_graced.nfsd('vs1', 'threads')}", timeout=60)
        time.sleep(5)  # longer than B needs
        assert not rival.ended_poll(), f"vs1 was stopped {how}, and vs2 gave its client's lock away"
        if how == "by hand":
            node.run("graced-server stop vs1 || true", timeout=120)
        _graced.serve(node, "vs1")
        _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
        said = _graced.done(cluster, node, "vs1", began)
        assert said == "all reclaimed", f"the grace ended by '{said}'"
        assert not rival.ended_poll() and not _graced.locks_lost(vm)
        mine.write(f"A's data, {how}")
        cluster.step(f"vs1 stopped {how} and started: A reclaimed, B got nothing; lifted {time.monotonic() - began:.1f} s after the stop")
    mine.unlock()
    granted, _ = rival.granted_after(60)
    assert granted
    assert rival.read() == "A's data, by hand"
    cluster.step("A unlocked, B has the lock")
