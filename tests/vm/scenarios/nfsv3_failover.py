"""NFSv3: the node of a server dies; its lock client is told, and reclaims on the other node; who is not on record is refused."""

import time

import _gate
import _graced
import _nfs3
from harness.locker import Locker

NODES = 2
CLIENTS = 2
CLUSTER = {"before_mount": _nfs3.before_mount}
LIMIT_S = 900

FILE = "/srv/data/v3"
NFS_FILE = "/mnt/v3"
SERVER_DIR = "/run/graced/servers/vs1"


def state_number(node):
    """The NSM state number that the last notices of vs1 on this node had."""
    return int(node.run(f"od -An -td4 {SERVER_DIR}/nfs/notices/1/state").out)


def held(node):
    return [lock[:3] for lock in _gate.plocks(node, FILE)]


def run(cluster):
    node1, node2 = cluster.nodes
    client1, client2 = cluster.clients
    cluster.fence.delay_s = 3.0
    _graced.wait_normal(cluster)
    _graced.serve(node1, "vs1")
    cluster.each(lambda client: _nfs3.mount(client, "vs1"), cluster.clients)
    cluster.step("vs1 on node1 serves NFSv3, too: two clients have mounted it")

    # 1. On record everywhere before the lock is granted.
    one, two = Locker(client1, NFS_FILE, "one"), Locker(client2, NFS_FILE, "two")
    assert one.try_lock("w", 0, 10, timeout=90)
    one.write("one's data before")
    on_record = _nfs3.lock_clients(node2, "vs1")
    assert set(on_record) == {client1.address}, on_record
    assert two.try_lock("w", 20, 10, timeout=60)
    assert set(_nfs3.lock_clients(node2, "vs1")) == {client1.address, client2.address}
    assert held(node2) == [("WR", 0, 9), ("WR", 20, 29)], held(node2)
    cluster.step("each has a lock; both are on record on node2, where the server never was")

    # The second one is taken off, as if it had been purged: by what statd says when lockd gives a client up.
    node1.run(f"GRACED_CALLOUT={SERVER_DIR}/callout/socket graced-callout del-client {client2.address} vs1")
    cluster.wait(lambda: set(_nfs3.lock_clients(node2, "vs1")) == {client1.address}, 60, "client2 to be off the record")
    cluster.step("client2 is taken off the record")

    waiter = Locker(node2, FILE, "waiter")
    waiter.start_lock("w", 0, 10)
    time.sleep(1)
    assert not waiter.granted()

    # 2. node1 dies, vs1 comes up on node2.
    off = time.monotonic()
    node1.kill()
    cluster.wait(lambda: _graced.gate(node2) == "closed", 60, "node2's gate to close", every=0.1)
    cluster.wait(lambda: (_graced.status(node2) or {}).get("recovery"), 60, "the grace to begin")
    fresh = Locker(node2, "/srv/data/fresh", "fresh")
    assert not fresh.try_lock(), "a new local lock was granted in grace"
    start = node2.spawn("graced-server start vs1", log="start-vs1")
    cluster.fence.wait(node1, since=off)
    assert start.wait(180) == 0, f"graced-server start vs1: {start.output()[-500:]}"
    cluster.step(f"node1 was fenced, vs1 runs on node2 {time.monotonic() - off:.1f} s after the power failure")

    # 3. client1 was told by sm-notify and reclaims; the local program that waited for its lock does not get it.
    cluster.wait(lambda: ("WR", 0, 9) in held(node2), 60, "client1 to reclaim")
    reclaimed = time.monotonic()
    now = _graced.status(node2)
    assert now["phase"] == "reclaiming" and now["gate"] == "closed", (now["phase"], now["gate"])
    assert not waiter.granted(), "a local program got client1's lock"
    assert not fresh.try_lock(), "a new local lock was granted while reclaim is open"
    cluster.step(f"client1 has its lock again {reclaimed - off:.1f} s after the power failure; a local program does not get it")

    # client2 is not on record, so nobody tells it. By hand: it is refused.
    number = state_number(node2)
    assert number % 2 == 1
    by_hand = f"{SERVER_DIR}/nfs/by-hand"  # /var/lib/nfs/by-hand in the server's namespace
    node2.run(
        f"mkdir -p {by_hand}/sm {by_hand}/sm.bak; cp {SERVER_DIR}/nfs/notices/1/state {by_hand}/; "
        f"echo 0100007f 000186b5 00000003 00000010 {'0' * 32} {client2.address} vs1 > {by_hand}/sm/{client2.address}"
    )
    node2.spawn(
        f"nsenter --net=/run/netns/graced-vs1 --mount={SERVER_DIR}/ns/mnt -- "
        f"sm-notify -d -f -n -P /var/lib/nfs/by-hand -v {_graced.SERVERS['vs1']}",
        log="by-hand",
    )
    said = cluster.wait(lambda: cluster.logged(node2, "kernel", "is not on record"), 60, "client2 to be refused")
    assert f"client {client2.name} is" in said[0][1], said[0][1]  # by the name that it gives itself
    assert held(node2) == [("WR", 0, 9)], held(node2)
    cluster.step(f"client2 tries, and is refused: {said[0][1].split('gfs2_gate: ')[-1][:70]}")

    # 4. No NFSv3 client says that it is done: the grace lasts to its deadline.
    _graced.wait_normal(cluster, [node2], deadline=_graced.GRACE_PERIOD * 4)
    assert cluster.logged(node2, "graced", "server vs1 NEEDs no longer: deadline", since=off)
    assert not waiter.granted(), "a local program got client1's lock after the lift"
    free = Locker(node2, FILE, "free")
    cluster.wait(lambda: free.try_lock("w", 20, 10), 10, "a local program to get client2's lock, which nobody holds any more")
    free.unlock()
    lifted = time.monotonic()
    new = Locker(client1, f"{NFS_FILE}-new", "new")
    cluster.wait(lambda: new.try_lock("w", 0, 10, timeout=30), 10, "a new NFSv3 lock after the lift")
    new.close()
    cluster.step(f"the grace was lifted at its deadline; a new NFSv3 lock took {time.monotonic() - lifted:.1f} s")

    # 5. A planned move: lockd gives all clients up when it is shut down, and they stay on record all the same.
    cluster.join(node1)
    _graced.wait_normal(cluster)
    node2.run("graced-server stop vs1", timeout=120)
    assert client1.address in _nfs3.lock_clients(node1, "vs1"), "the stop took a client off the record"
    _graced.serve(node1, "vs1")
    cluster.wait(lambda: ("WR", 0, 9) in held(node1), 60, "client1 to reclaim on node1")
    assert state_number(node1) > number, "the state number did not rise"
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 4)
    assert not waiter.granted()
    assert one.read() == "one's data before"
    cluster.step("moved back to node1 by hand: client1 reclaimed there, too")
    one.unlock()
    waiter.wait_granted(60)
    cluster.step("client1 unlocked, the local program has the lock")
    for locker in (one, two, waiter, fresh, free):
        locker.close()


def cleanup(cluster):
    for client in cluster.clients:
        client.kill()
    _graced.stop_servers(cluster)
