"""Faults planted in gfs2_gate and lockd_shim are found by the checks of other scenarios: the checks can fail."""

import time

import _gate
import gate_basic
import gate_nfs
from harness.errors import Failed
from harness.locker import Locker

NODES = 2
CLIENTS = 2
FRESH = True
LIMIT_S = 900


def run(cluster):
    node1, node2 = cluster.nodes
    shim, shim2 = _gate.gates(cluster, mutants=True)

    # The last but one ends the second node's daemon.
    for module, mutant, check in (
        ("gfs2_gate", "mutant_no_recheck", lambda other, owner: gate_basic.queued_grant(cluster, shim, other, owner)),
        ("gfs2_gate", "mutant_no_restore", lambda other, owner: gate_basic.upgrade(cluster, shim, other, owner)),
        ("lockd_shim", "mutant_no_permit", lambda other, owner: gate_basic.permit(cluster, shim, owner)),
        ("lockd_shim", "mutant_silent_bypass", lambda other, owner: silent_bypass(cluster, shim, owner)),
        ("gfs2_gate", "mutant_no_tripwire", lambda other, owner: stopped_by_hand(cluster, shim)),
        ("lockd_shim", "mutant_no_drop_wait", lambda other, owner: drop_wait(cluster, shim)),
        ("lockd_shim", "mutant_two_states", lambda other, owner: reclaim(cluster, shim, other)),
        ("gfs2_gate", "mutant_no_tripwire", lambda other, owner: gate_basic.tripwire(cluster, shim, shim2, other, owner)),
        ("lockd_shim", "mutant_any_trips", lambda other, owner: stale_order(cluster, shim)),
    ):
        owner, other = Locker(node1, gate_basic.FILE, f"{mutant}-owner"), Locker(node2, gate_basic.FILE, f"{mutant}-other")
        node1.run(f"echo 1 > /sys/module/{module}/parameters/{mutant}")
        try:
            check(other, owner)
        except (AssertionError, Failed) as found:
            if "umount" in str(found):
                raise
            cluster.step(f"{mutant} is found: {' '.join(str(found).split())[:100]}")
        else:
            raise Failed(f"{mutant} was not found")
        node1.run(f"echo 0 > /sys/module/{module}/parameters/{mutant}")
        for locker in (owner, other):
            if locker.alive():
                locker.close()
        if not node2.run("mountpoint -q /srv/data", check=False).rc == 0:
            cluster.mount(node2)
        for each in shim.namespaces().values():
            if each["state"] == "reclaim":
                shim.reclaim("withdraw")
        shim.close()
        shim.open()


def silent_bypass(cluster, shim, owner):
    try:
        gate_basic.bypass(cluster, shim, owner, _gate.build(cluster.session.options.kernel, mutants=True)[1])
    finally:
        shim.order("bypass 0")


def stopped_by_hand(cluster, shim):
    node1 = cluster.nodes[0]
    gate_nfs.serve(node1)
    node1.run("rpc.nfsd 0", timeout=60)
    status = shim.status()
    assert status["state"] == "closed" and status["reason"] == "trip", f"nfsd stopped, and the gate is {status['state']}"


def drop_wait(cluster, shim):
    cluster.nodes[0].run("rpc.nfsd 4", timeout=60)
    gate_nfs.stop_waits(shim)


def reclaim(cluster, shim, other):
    """As in gate-nfs: without permission a reclaim is put off, in a closed gate as well."""
    node1, client = cluster.nodes[0], cluster.clients[0]
    node1.run("rpc.nfsd 4", timeout=60)
    gate_nfs.end_grace(node1)
    shim.open()
    client.run(f"mount -t nfs -o vers=4.2 {node1.address}:/ /mnt", timeout=60)
    owner = Locker(client, "/mnt/gate-reclaim", "reclaimer")
    seen = Locker(cluster.nodes[1], "/srv/data/gate-reclaim", "seen")
    owner.lock(timeout=60)
    before = shim.status()["deferred"]
    shim.close()
    gate_nfs.restart(node1)
    client.spawn("df /mnt", log="poke")
    cluster.wait(lambda: shim.status()["deferred"] > before or seen.test() != "free", 60, "the reclaim to come")
    time.sleep(1)
    result = seen.test()
    seen.close()  # or node2 cannot unmount
    assert result == "free", "a reclaim passed without permission"


def stale_order(cluster, shim):
    before = shim.status()["trips"]
    gate_nfs.restart(cluster.nodes[0])
    assert shim.status()["trips"] > before
    shim.order(f"gate open {shim.epoch} {before}", "EAGAIN")
