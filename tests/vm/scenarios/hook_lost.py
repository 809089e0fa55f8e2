"""A node that enforces loses a hook: a live patch has gfs2_lock when gfs2 comes again. It is E no longer, until it is gone."""

import time

import _gate
import _graced
from harness.errors import stretch
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 1200


def enforcing(node):
    return sorted(each["id"] for each in (_graced.status(node) or {"nodes": []})["nodes"] if each["enforcing"])


def without_gfs2(node):
    node.run("umount /srv/data", timeout=90)
    node.run("modprobe -r gfs2; ! grep -q '^gfs2 ' /proc/modules", timeout=60)


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    _graced.mount(client, "vs1", "/mnt/l")
    owner = Locker(client, "/mnt/l/k", "A")
    owner.lock()
    foreign = _gate.foreign(node2.run("uname -r").out.strip())

    # With our hook in place no other one comes.
    refused = node2.run(f"insmod {foreign}", check=False)
    assert refused.rc and "busy" in refused.err.lower(), refused
    assert node2.run("sysctl -w kernel.ftrace_enabled=0", check=False).rc, "the hooks were switched off"
    assert _graced.normal(node2)
    cluster.step(f"while gfs2 is loaded our hook cannot be taken: {refused.err.strip().split(': ')[-1]}; nor can ftrace be switched off")

    # E on both. The server is down, so the grace does not end.
    node1.run("graced-server stop vs1", timeout=120)
    cluster.wait(lambda: enforcing(node1) == [1, 2], 60, "both nodes to be E")
    without_gfs2(node2)
    cluster.wait(lambda: enforcing(node1) == [1, 2], 60, "both nodes to be E after the trip")
    assert not any("gfs2_lock" in warning for warning in _graced.status(node2)["warnings"])
    node2.run(f"insmod {foreign}")
    node2.run("modprobe gfs2", timeout=60)
    lost = time.monotonic()
    cluster.wait(lambda: enforcing(node1) == [1], 20, "node2 to be E no longer")
    took = time.monotonic() - lost
    _graced.remount(node2)
    local = Locker(node2, "/srv/data/local", "local")
    assert local.try_lock(), "the hook is not lost, after all"
    local.unlock()
    start = node1.spawn("graced-server start vs1", log="start-vs1")
    deadline = time.monotonic() + stretch(10)
    while time.monotonic() < deadline:
        now = _graced.status(node1)
        assert now["phase"] == "entering" and start.alive(), f"reclaim without node2: {now}"
        assert not any(server["reclaim_open"] for server in now["servers"]), now
        time.sleep(0.5)
    blocked = [why for why in now["blocked_by"] if "node2" in why]
    assert blocked and "no gate that holds locks back" in blocked[0], now["blocked_by"]
    said = [warning for warning in _graced.status(node2)["warnings"] if "gfs2_lock" in warning]
    assert said, _graced.status(node2)["warnings"]
    cluster.step(f"gfs2 came again, a foreign hook before ours: E withdrawn after {took:.1f} s, no reclaim ({blocked[0]}); node2: {said[0]}")

    local.close()
    without_gfs2(node2)
    node2.run("rmmod foreign_hook && modprobe gfs2", timeout=60)
    _graced.remount(node2)
    rival = Locker(node2, "/srv/data/k", "rival")
    assert not rival.try_lock("w", 100, 1), "granted although the hook is back"
    assert start.wait(120) == 0, start.output()[-300:]
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 4)
    owner.write("still here")
    assert not rival.try_lock(), "A lost its lock"
    cluster.step("the foreign hook gone: E again, vs1 started, A has reclaimed, the grace is lifted")
    owner.unlock()
    for locker in (owner, rival):
        locker.close()


def cleanup(cluster):
    node2 = cluster.nodes[1]
    if node2.run("grep -q '^foreign_hook ' /proc/modules", check=False).rc == 0:
        without_gfs2(node2)
        node2.run("rmmod foreign_hook && modprobe gfs2", timeout=60)
        _graced.remount(node2)
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
