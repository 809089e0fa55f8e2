"""A node with an NFS server dies; its client keeps its lock, nobody else gets it, the lost client is purged."""

import time

import _graced
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900

B = "clientb"  # a second NFS client on the client's VM: network and UTS namespaces of its own


def start_b(client):
    """Client B mounts vs1 and holds a lock; a client of its own for the server (its own host name)."""
    client.run(
        f"ip netns add {B}; ip link add link eth0 name mb type macvlan mode bridge; ip link set mb netns {B}; "
        f"ip netns exec {B} ip link set lo up; ip netns exec {B} ip addr add 10.77.0.61/24 dev mb; "
        f"ip netns exec {B} ip link set mb up; mkdir -p /mnt/b"
    )
    script = (
        f"hostname {B}; mount -t nfs -o vers=4.1,hard,timeo=30,retrans=2 {_graced.SERVERS['vs1']}:/ /mnt/b || exit 1; "
        "exec python3 -u -c '\nimport fcntl, time\nf = open(\"/mnt/b/b\", \"a+\")\nfcntl.lockf(f, fcntl.LOCK_EX)\n"
        'print("B locked", flush=True)\ntime.sleep(10000)\n\''
    )
    client.put("/run/b.sh", script)
    return client.spawn(f"ip netns exec {B} unshare -u bash /run/b.sh", log="clientB")


def run(cluster):
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    cluster.fence.delay_s = 3.0
    cluster.step("two nodes share a GFS2; both kernel modules and graced run on each")
    _graced.wait_normal(cluster)
    cluster.step("no grace: both gates are open, everybody may lock")

    # 1. A has a lock through vs1 on node1 and one through vs2 on node2; B has a record and a lock on vs1.
    _graced.serve(node1, "vs1")
    _graced.serve(node2, "vs2")
    _graced.mount(client, "vs1", "/mnt/a1")
    _graced.mount(client, "vs2", "/mnt/a2")
    cluster.step("NFS server vs1 runs on node1, vs2 on node2; client A has mounted both")
    a1 = Locker(client, "/mnt/a1/one", "A-vs1")
    a2 = Locker(client, "/mnt/a2/two", "A-vs2")
    a1.lock()
    a1.write("A's data before")
    a2.lock()
    b = start_b(client)
    cluster.wait(lambda: "B locked" in b.output(), 60, "client B to get its lock")
    recorded = _graced.clients(node2, "vs1")
    assert len(recorded) == 2, f"on record for vs1: {recorded}"
    waiter = Locker(node2, "/srv/data/one", "waiter")
    assert not waiter.try_lock(), "a local program got the lock that A holds"
    waiter.start_lock()
    poller = Locker(node2, "/srv/data/one", "poller")
    poller.poll(600)
    fresh = Locker(node2, "/srv/data/fresh", "fresh")
    cluster.wait(fresh.try_lock, 10, "a program to get a lock that nobody holds: no grace, the gate is open")
    fresh.unlock()
    cluster.step("A holds a lock through each; on node2 a program waits for A's lock, another polls for it; client B has a lock on vs1, too")

    # 2. node1 dies; vs1 comes up on node2.
    client.run(f"ip netns exec {B} ip link set mb down")
    trips = _graced.status(node2)["kernel"]["trips"]
    off = time.monotonic()
    node1.kill()
    cluster.wait(lambda: _graced.gate(node2) == "closed", 60, "node2's gate to close", every=0.1)
    closed = time.monotonic() - off
    cluster.step(f"*** node1 loses power, and vs1 with it; node2's gate is closed {closed:.1f} s later (its permit ran out): no new locks ***")
    cluster.wait(lambda: (_graced.status(node2) or {}).get("recovery"), 60, "the grace to begin")
    cluster.step(f"corosync has dropped node1: the grace begins, {time.monotonic() - off:.1f} s after the power failure")
    start = node2.spawn("graced-server start vs1", log="start-vs1")
    fencing = cluster.fence.wait(node1, since=off)
    # dlm_controld stops the lockspace before it drops the dead node's locks, and fencing comes after that.
    # graced on a starved node hears of it later than we of the fencing.
    cluster.wait(lambda: (now := _graced.status(node2)) and now["kernel"]["trips"] > trips, 10, f"the tripwire to have tripped ({trips} trips before)")
    cluster.step(f"node1 is fenced, {fencing.answered - off:.1f} s after the power failure; only now may clients reclaim")
    refused = Locker(node2, "/srv/data/fresh", "refused")
    assert not refused.try_lock(), "a new local lock was granted in grace"
    assert start.wait(180) == 0, f"graced-server start vs1: {start.output()[-500:]}"
    opened = time.monotonic() - off
    cluster.step(f"vs1 runs again, on node2, {opened:.1f} s after the power failure")

    # 3. A reclaims and keeps both locks; its data is intact; nobody else got anything.
    name = _graced.clients(node2, "vs1")
    new = Locker(client, "/mnt/a2/new", "A-new")
    new.start_lock()  # a new lock over NFS: must wait for the lift

    def reclaimed():
        servers = {s["name"]: s for s in (_graced.status(node2) or {"servers": []})["servers"]}
        return servers.get("vs1", {}).get("reclaimed") == 1

    cluster.wait(reclaimed, 60, "A to reclaim at vs1")
    cluster.step(f"A has reclaimed its lock, {time.monotonic() - off:.1f} s after the power failure; B does not come; nobody else got a lock")
    now = _graced.status(node2)
    assert now["phase"] == "reclaiming" and now["gate"] == "closed", now
    assert not new.granted(), "a new NFS lock was granted in grace"
    assert not waiter.granted() and not poller.ended_poll(), "a local program got A's lock"
    assert not refused.try_lock(), "a new local lock was granted in grace"

    # 4. The grace lifts at the deadline (B never comes); B's record is purged, by one node.
    _graced.wait_normal(cluster, [node2], deadline=_graced.GRACE_PERIOD * 3)
    cluster.step(f"the grace is lifted, {time.monotonic() - off:.1f} s after the power failure; B's record is purged")
    left = _graced.clients(node2, "vs1")
    assert len(left) == 1 and set(left) < set(name), f"on record after the purge: {left}"
    purges = cluster.logged(node2, "graced", "is the last out and purges", since=off)
    assert len(purges) == 1, purges
    granted = new.wait_granted(60)
    lifted = cluster.logged(node2, "graced", "the grace is lifted", since=off)[0][0]
    assert granted > lifted, f"a new NFS lock was granted {lifted - granted:.2f} s before the lift"
    a1.write("A's data after")
    assert a1.read() == "A's data after", a1.read()
    assert not waiter.granted() and not poller.ended_poll(), "a local program got A's lock after the lift"
    assert "lost" not in client.run("dmesg | grep -i 'lost.*lock' || true").out
    plocks = node2.run("dlm_tool plocks data", check=False).out
    cluster.step(f"A kept both locks through it all:\n{plocks}")

    # 5. A unlocks; a local program gets the lock.
    unlocked = time.monotonic()
    a1.unlock()
    cluster.wait(lambda: waiter.granted() or poller.ended_poll(), 60, "a local program to get the lock")
    got = waiter.wait_granted() if waiter.granted() else poller.granted_after()[1]
    assert got > unlocked - 0.1, f"a local program had the lock {unlocked - got:.1f} s before A unlocked it"
    cluster.step("A unlocked, a local program has the lock")

    # B cannot reclaim in a later grace.
    poller.close()
    waiter.close()
    node2.run("graced-server stop vs1", timeout=120)
    again = node2.spawn("graced-server start vs1", log="start-vs1-again")
    assert again.wait(180) == 0, again.output()[-500:]
    client.run(f"ip netns exec {B} ip link set mb up")
    cluster.wait(lambda: client.run("dmesg | grep -i 'lost.*lock' || true").out, 120, "B to find its lock lost")
    cluster.step("B came back in a later grace; its lock is lost, as it must be")
    _graced.wait_normal(cluster, [node2], deadline=_graced.GRACE_PERIOD * 3)

    cluster.join(node1)
    _graced.wait_normal(cluster)
    cluster.step("node1 is back, all gates are open")


def cleanup(cluster):
    cluster.clients[0].kill()  # booted anew: what it remembers of these servers would be lost locks of the next run
    _graced.stop_servers(cluster)
