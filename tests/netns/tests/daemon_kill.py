# SPDX-License-Identifier: GPL-2.0-or-later
"""graced is killed (SIGKILL) in each phase, in each role: no gate opens because of it; it comes back,
adopts what its kernel side still holds, and the grace ends.

Roles: host (its server NEEDs, or has clients), bystander (hosts nothing), purger (the last node out).
Four nodes: node 4 hosts the server that dies with it, where a grace is needed; node 1 becomes its
host, node 2 hosts another server, node 3 is a bystander."""

import signal
import time

from harness import monotonic
from processes import wait
from watcher import Watcher

HOST, OTHER, BYSTANDER, DEAD = 1, 2, 3, 4
REFUSED_S = 5  # 0.3 to 0.6 s where nothing else runs


class Scene:
    """A grace that is held in the phase that the test is about."""

    def __init__(self, make, nodes=4):
        self.cluster = cluster = make(nodes, config={"grace": {"period": 60}})
        cluster.start()
        self.other = cluster[OTHER].serve("vs2")
        assert self.other.create("dave") == "ok"
        nfsd = cluster[DEAD].serve("vs1")
        for client in ("alice", "bob"):
            assert nfsd.create(client) == "ok"
        self.watcher = Watcher([cluster[n] for n in (HOST, OTHER, BYSTANDER)])
        self.watcher.wait_grants()
        self.announced = self.nfsd = None

    def enter(self):
        """Phase entering: node 4 is dead, not fenced, and node 1 wants to host vs1."""
        self.cluster[DEAD].kill()
        self.cluster.wait_grace()
        self.cluster.wait_closed()
        self.closed = time.monotonic()
        self.announced = self.cluster[HOST].announce("vs1")
        wait(lambda: (self.cluster[BYSTANDER].server("vs1") or {}).get("host") == HOST, 5, "vs1 to be node 1's")
        return self

    def reclaim(self):
        """Phase reclaiming: alice is done, bob is not."""
        self.enter()
        self.cluster.fence_done(DEAD)
        self.nfsd = self.cluster[HOST].start_nfsd("vs1", self.announced)
        assert self.nfsd.reclaim("alice") == "ok"
        self.cluster.wait_phase("reclaiming", [self.cluster[HOST]])
        return self

    def lift(self):
        """Phase lifting: the purger waits for its EX in a frozen lockspace."""
        self.reclaim()
        self.cluster.dlm_ctl("freeze")
        assert self.nfsd.reclaim("bob") == "ok"
        self.cluster.wait_phase("lifting")
        return self

    def kill_and_restart(self, number, pause_s=1.5):
        """SIGKILL; while it is away and while it comes back nothing opens."""
        node = self.cluster[number]
        node.graced.kill()
        time.sleep(pause_s)
        self.nothing_opened()
        node.start_graced()
        wait(lambda: node.status()["synced"], 10, lambda: f"{node.describe()} joins again")
        assert node.logged("joined: state taken from node"), node.last_log()

    def nothing_opened(self):
        granted = self.watcher.granted_between(self.closed)
        assert not granted, f"a new lock was granted in the grace, on nodes {granted}"

    def finish(self, clients=("bob",)):
        """The rest reclaim, the grace ends, nobody lost a record."""
        self.nothing_opened()
        for client in clients:
            said = self.nfsd.reclaim(client)
            assert said == "ok", f"{client} reclaims: {said}"
        self.cluster.wait_open(deadline_s=20)
        self.watcher.stop()
        for number in (HOST, OTHER, BYSTANDER):
            node = self.cluster[number]
            assert set(node.clients("vs1")) == {"alice", "bob"}, f"{node.name}: {node.clients('vs1')}"
            assert set(node.clients("vs2")) == {"dave"}, f"{node.name}: {node.clients('vs2')}"
            assert node.status()["current"] == 2, f"more than one grace; {node.describe()}"
        assert self.other.create("erin") == "ok" and self.nfsd.create("frank") == "ok"


def normal(make, victim):
    """No grace comes of it: nothing was lost."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    others = [node for node in cluster if node.number != victim]
    watcher = Watcher(others)
    watcher.wait_grants()
    before = cluster[1].status()["current"]
    begin = time.monotonic()
    node = cluster[victim]
    node.graced.kill()
    time.sleep(2)
    cluster.wait_open(others)  # nobody waits for it to come back
    node.start_graced()
    cluster.wait_open()
    watcher.stop()
    # A new membership of the group voids the permits until heartbeats have been echoed in it: once for
    # the death, once for the return.
    refused = max(watcher.refused_for(other.number, begin) for other in others)
    assert refused < REFUSED_S, f"another node refused locks for {refused:.2f} s because of a daemon's death"
    for n in cluster:
        assert n.status()["current"] == before and n.status()["phase"] == "normal", n.describe()
    assert node.logged("joined: state taken from node"), node.last_log()
    assert nfsd.create("bob") == "ok"
    assert set(node.clients("vs1")) == {"alice", "bob"}
    if victim == 1:
        assert node.logged("server vs1 runs on this node: adopted"), node.last_log()
    return f"the others refused locks for {refused:.2f} s in all"


def test_normal_host(make):
    """normal, the host of a server: it adopts it; no grace."""
    return normal(make, 1)


def test_normal_bystander(make):
    """normal, a node without a server; no grace."""
    return normal(make, 3)


def test_entering_host(make):
    """entering, the host to be: it is asked again and goes on."""
    scene = Scene(make).enter()
    scene.kill_and_restart(HOST)
    scene.announced = scene.cluster[HOST].announce("vs1")
    scene.cluster.fence_done(DEAD)
    scene.nfsd = scene.cluster[HOST].start_nfsd("vs1", scene.announced)
    scene.finish(("alice", "bob"))


def entering(make, victim):
    scene = Scene(make).enter()
    scene.kill_and_restart(victim)
    scene.cluster.fence_done(DEAD)
    scene.nfsd = scene.cluster[HOST].start_nfsd("vs1", scene.announced)
    scene.finish(("alice", "bob"))


def test_entering_other_host(make):
    """entering, the host of a server that lost nothing."""
    entering(make, OTHER)


def test_entering_bystander(make):
    """entering, a bystander."""
    entering(make, BYSTANDER)


def test_bystander_stays_away(make):
    """A bystander's daemon that does not come back: it counts as enforcing when its permit must have
    run out, and the grace ends without it."""
    scene = Scene(make, nodes=5).enter()
    scene.cluster[BYSTANDER].graced.kill()
    scene.cluster.fence_done(DEAD)
    scene.nfsd = scene.cluster[HOST].start_nfsd("vs1", scene.announced)
    assert scene.nfsd.reclaim("alice") == "ok"
    scene.nothing_opened()
    assert scene.nfsd.reclaim("bob") == "ok"
    scene.cluster.wait_open([scene.cluster[n] for n in (HOST, OTHER, 5)], deadline_s=20)
    assert scene.cluster[BYSTANDER].gate() == "none"
    scene.cluster[BYSTANDER].start_graced()
    scene.cluster.wait_open()


def test_too_few_daemons(make):
    """One node of four dead, the daemon of another too: two of four votes hold the records, which is no
    majority. Nothing is acknowledged and nothing lifted until it comes back, and status says why."""
    scene = Scene(make).enter()
    scene.cluster[BYSTANDER].graced.kill()
    scene.cluster.fence_done(DEAD)
    scene.nfsd = scene.cluster[HOST].start_nfsd("vs1", scene.announced)
    scene.nfsd.program.say("reclaim alice")

    def said():
        why = scene.cluster[HOST].status()["blocked_by"]
        return any("graced" in w and "node3" in w and "votes" in w for w in why)

    wait(said, 10, lambda: f"status to say why; {scene.cluster[HOST].describe()}")
    time.sleep(1)
    assert not scene.nfsd.program.heard(), "a record was acknowledged that half of the cluster does not hold"
    scene.cluster[BYSTANDER].start_graced()
    assert scene.nfsd.program.hear(10) == "ok"
    scene.finish()


def test_reclaiming_host(make):
    """reclaiming, the host: nobody else may end its NEED; it adopts, and bob still reclaims."""
    scene = Scene(make).reclaim()
    scene.kill_and_restart(HOST, pause_s=3)
    assert scene.cluster[HOST].logged("server vs1 runs on this node: adopted")
    wait(lambda: scene.cluster[HOST].server("vs1")["reclaim_open"], 10, lambda: f"reclaim open again; {scene.cluster[HOST].describe()}")
    scene.finish()


def test_reclaiming_other_host(make):
    """reclaiming, the host of a server that lost nothing."""
    scene = Scene(make).reclaim()
    scene.kill_and_restart(OTHER)
    scene.finish()


def test_reclaiming_bystander(make):
    """reclaiming, a bystander."""
    scene = Scene(make).reclaim()
    scene.kill_and_restart(BYSTANDER)
    scene.finish()


def lifting(make, victim):
    """The purger waits for EX; the victim dies; the lockspace goes on."""
    scene = Scene(make).lift()
    wait(
        lambda: "waiting for the EX lock, to purge" in scene.cluster[HOST].status()["blocked_by"], 10,
        lambda: f"the purger to wait for EX; {scene.cluster[HOST].describe()}",
    )  # fmt: skip
    scene.kill_and_restart(victim)
    scene.cluster.dlm_ctl("thaw")
    scene.cluster.wait_open(deadline_s=20)
    scene.watcher.stop()
    lift = monotonic(min(t for n in (HOST, OTHER, BYSTANDER) for t, _ in scene.cluster[n].logged("the grace is lifted")))
    early = scene.watcher.granted_between(scene.closed, lift)
    assert not early, f"a new lock was granted before the lift, on nodes {early}"
    for number in (HOST, OTHER, BYSTANDER):
        assert set(scene.cluster[number].clients("vs1")) == {"alice", "bob"}
        assert scene.cluster[number].status()["current"] == 2, scene.cluster[number].describe()


def test_lifting_purger(make):
    """lifting, the last node out before its PURGE: another one becomes the last."""
    lifting(make, HOST)


def test_lifting_other_host(make):
    """lifting, the host of a server that lost nothing."""
    lifting(make, OTHER)


def test_lifting_bystander(make):
    """lifting, a bystander."""
    lifting(make, BYSTANDER)


def purged(make, victim):
    """PURGE is delivered, but a member has not said that it is durable there: its daemon is stopped."""
    scene = Scene(make).reclaim()
    late = OTHER if victim == BYSTANDER else BYSTANDER
    standing = scene.cluster[late].graced
    standing.signal(signal.SIGSTOP)
    # By hand: bob's reclaim would have to be durable there first.
    asked = scene.cluster[HOST].ask("lift", "vs1")
    wait(lambda: scene.cluster[HOST].logged("is the last out and purges"), 10, lambda: f"a PURGE; {scene.cluster[HOST].describe()}")

    def waits():
        status = scene.cluster[HOST].status()
        assert status["phase"] == "lifting", status
        return any(f"node{late} has not got the purge" in why for why in status["blocked_by"])

    wait(waits, 10, lambda: f"the purge to wait for node {late}; {scene.cluster[HOST].describe()}")
    scene.cluster[victim].graced.kill()
    time.sleep(1.5)
    for number in {HOST, OTHER, BYSTANDER} - {late, victim}:
        assert scene.cluster[number].gate() == "closed", scene.cluster[number].describe()
    standing.signal(signal.SIGCONT)
    scene.cluster[victim].start_graced()
    scene.cluster.wait_open(deadline_s=20)
    scene.watcher.stop()
    asked.wait_end(5)
    for number in (HOST, OTHER, BYSTANDER):
        assert set(scene.cluster[number].clients("vs1")) == {"alice"}, scene.cluster[number].clients("vs1")
        assert scene.cluster[number].status()["current"] == 2, scene.cluster[number].describe()


def test_purged_purger(make):
    """lifting, the purger after its PURGE: the grace is lifted by another, when all is durable."""
    purged(make, HOST)


def test_purged_bystander(make):
    """lifting, a bystander after PURGE."""
    purged(make, BYSTANDER)
