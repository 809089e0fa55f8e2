"""Break glass: an operator opens gates past graced; the node counts as E for nobody, status shouts, and it ends only by hand."""

import time

import _graced
from harness.errors import stretch
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 1200


def server(node, name="vs1"):
    return {each["name"]: each for each in _graced.status(node)["servers"]}[name]


def is_bypassed(node):
    now = _graced.status(node)
    return now and now["kernel"]["bypass"]


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    _graced.wait_normal(cluster)
    now = _graced.status(node1)
    assert [each["gate"] for each in now["filesystems"]] == ["gated"] and not now["kernel"]["bypass"], now
    _graced.serve(node1, "vs1")
    _graced.mount(client, "vs1", "/mnt/b")
    owner = Locker(client, "/mnt/b/k", "A")
    owner.lock()
    local = Locker(node2, "/srv/data/local", "local")
    rival = Locker(node2, "/srv/data/k", "rival")

    # graced has died on node2. Node1 counts that node as closed: it must hear first.
    node2.graced.kill()
    node2.graced.wait(10)
    assert not local.try_lock(), "granted without a daemon"
    refused = node2.run("gracectl bypass on", check=False)
    assert refused.rc == 2 and "--yes" in refused.err, refused
    refused = node2.run("gracectl bypass on --yes", check=False)
    assert refused.rc == 1 and "graced runs on node(s) 1" in refused.err, refused
    assert not local.try_lock(), "refused, and done all the same"
    told = node1.run("gracectl bypass on --yes --node node2")
    assert "graced does not run on node2" in told.out, told
    assert not local.try_lock(), "node1 cannot open node2's gate"
    node2.run("gracectl bypass on --yes --told")
    assert local.try_lock(), "held back in spite of the bypass"
    local.unlock()
    assert not rival.try_lock(), "the bypass gave away a lock that is held"
    assert "IS BYPASSED" in node2.run("gracectl status", check=False).err
    said = cluster.logged(node2, "kernel", "gate BYPASS ON by gracectl")
    assert said, "nothing in the kernel's log"
    cluster.step(f"without a daemon: refused until node1 knew; then local locks pass on node2. dmesg: {said[0][1].split('lockd_shim: ')[1][:70]}")

    # A grace begins on node1: it may be long after node2's permit, that node does not count as E.
    stop = node1.spawn("graced-server stop vs1", log="stop-vs1")
    cluster.wait(lambda: _graced.status(node1)["recovery"], 30, "the grace to begin")
    deadline = time.monotonic() + stretch(15)
    while time.monotonic() < deadline:
        now = _graced.status(node1)
        assert now["phase"] == "entering" and stop.alive(), f"node2 counts as E: {now}"
        time.sleep(0.5)
    assert any("node2" in why for why in now["blocked_by"]), now
    cluster.step(f"a grace stays in entering: {'; '.join(now['blocked_by'])}")

    # The daemon comes back: nothing changes by that, and it says so.
    _graced.start_daemon(cluster, node2)
    cluster.wait(lambda: (_graced.status(node2) or {}).get("synced"), 60, "graced to join on node2")
    time.sleep(stretch(6))
    now = _graced.status(node2)
    assert now["kernel"]["bypass"] and any("BYPASSED" in warning for warning in now["warnings"]), now
    assert "!! WARNING: THE GATE OF THIS NODE IS BYPASSED" in node2.run("gracectl status").out
    assert _graced.status(node1)["phase"] == "entering" and stop.alive(), "a daemon on a bypassed node said ENFORCING"
    assert local.try_lock(), "a daemon that came back ended the bypass"
    local.unlock()
    cluster.step("graced started again on node2: the bypass stays, status shouts, still no E")

    # Exemption: a process, while the gate of node1 is closed.
    exempt = Locker(node1, "/srv/data/exempt", "exempt")
    assert not exempt.try_lock()
    node1.run(f"gracectl exempt {exempt.program.pid}")
    assert exempt.try_lock(), "held back in spite of its exemption"
    exempt.unlock()
    node1.run(f"gracectl exempt {exempt.program.pid} --off")
    assert not exempt.try_lock()
    assert node1.run("gracectl exempt 999999", check=False).rc
    exempt.close()
    cluster.step("a process that is exempt passes node1's closed gate, until it is exempt no longer")

    # Off: closed, E, and the grace goes on.
    node2.run("gracectl bypass off")
    assert not local.try_lock(), "the end of the bypass did not close the gate"
    assert stop.wait(60) == 0, stop.output()[-300:]
    assert not rival.try_lock(), "the client's lock was given away"
    _graced.serve(node1, "vs1")
    cluster.wait(lambda: _graced.normal(node1) or server(node1)["reclaimed"] >= 1, 90, "A to reclaim")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 4)
    assert not rival.try_lock(), "A lost its lock"
    owner.write("still here")
    cluster.wait(local.try_lock, 10, "a local program to get a lock")
    local.unlock()
    cluster.step("off: the gate closed, node2 enforced, A reclaimed, the grace was lifted")

    # All at once.
    owner.unlock()
    node1.run("gracectl bypass on --yes --cluster")
    cluster.wait(lambda: all(is_bypassed(node) for node in cluster.nodes), 20, "every gate to be bypassed")
    assert local.try_lock()
    local.unlock()
    assert not _graced.status(node1)["recovery"]
    node2.run("gracectl bypass off --cluster")
    cluster.wait(lambda: not any(is_bypassed(node) for node in cluster.nodes), 20, "no gate to be bypassed")
    _graced.wait_normal(cluster)
    cluster.step("the whole cluster on and off by one agreed message each; normal again")
    for locker in (owner, local, rival):
        locker.close()


def cleanup(cluster):
    for node in cluster.nodes:
        if node.up():
            node.run("gracectl bypass off", check=False)
    cluster.clients[0].kill()  # booted anew: it would remember the server
    _graced.stop_servers(cluster)
