"""A node dies with a lock that a local program on the other waits for: the program gets it after the opening, not before."""

import time

import _gate
from harness.locker import Locker

NODES = 2
CLIENTS = 0

FILE = "/srv/data/death"


def run(cluster):
    node1, node2 = cluster.nodes
    # The permit is far longer than corosync takes: the tripwire alone must do it.
    shim, shim2 = _gate.gates(cluster, permit_ms=60000)
    holder, waiter = Locker(node2, FILE, "holder"), Locker(node1, FILE, "waiter")
    holder.lock()
    waiter.start_lock()
    time.sleep(0.5)
    assert not waiter.granted()

    off = time.monotonic()
    node2.kill()
    cluster.wait(lambda: shim.status()["undone"] == 1, 60, "the grant to be undone")
    status = shim.status()
    assert status["state"] == "closed" and status["reason"] == "trip", status
    trip = [when for when, name, _ in shim.events() if name == "trip"][0]
    fencing = cluster.fence.wait(node2, since=off)
    assert trip < fencing.asked + 1
    cluster.step(f"tripped {trip - off:.1f} s after the power failure, the waiter's grant undone; fencing asked after {fencing.asked - off:.1f} s")
    time.sleep(3)
    assert not waiter.granted(), "the program was given a dead node's lock while the gate was closed"
    assert waiter.alive() and shim.status()["waiters"] == 1
    shim.open()
    waiter.wait_granted(10)
    cluster.step("it has the lock after the opening")
    waiter.close()
    shim.program.kill()


def cleanup(cluster):
    _gate.unload(cluster.nodes[0])
