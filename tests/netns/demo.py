#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One grace period, told as it happens: the story that tests/demo runs.

Each step prints what was done and what the daemons and the gates say then; each claim is checked, and
the first one that does not hold ends the story with status 1."""

import sys
import time
import traceback

from harness import Cluster, Ended
from processes import Failed, Late, wait
from watcher import Watcher

PERIOD_S = 10
FENCING_S = 1.5


class Story:
    def __init__(self, cluster):
        self.cluster = cluster
        self.begin = time.monotonic()

    def tell(self, *lines):
        print(f"\n{time.monotonic() - self.begin:6.1f} s  {lines[0]}", flush=True)
        self.more(*lines[1:])

    def more(self, *lines):
        for line in lines:
            print(f"          {line}", flush=True)

    def show(self, *servers):
        """What gracectl and the gates say now."""
        last = None
        for node in self.cluster:
            if not node.up:
                self.more(f"{node.name}: off")
                continue
            last = node.status()
            grace = last["recovery"] != 0
            enforces = grace and next(n["enforcing"] for n in last["nodes"] if n["id"] == node.number)
            open_for = [s["name"] for s in last["servers"] if s["reclaim_open"]]
            self.more(
                f"{node.name}: {'in grace' if grace else last['phase']}, gate {node.gate()}"
                + (", enforces" if enforces else "")
                + f", lock {last['lock']['mode']}, C={last['current']} R={last['recovery']}"
                + (f"; clients of {', '.join(open_for)} may reclaim" if open_for else "")
            )
        for name in servers:
            server = next(s for s in last["servers"] if s["name"] == name)
            host = f"on node{server['host']}" if server["host"] else "hosted by nobody"
            need = f", NEEDs: {server['reclaimed']} of {server['clients']} clients reclaimed" if server["need"] else ""
            known = ", ".join(sorted(node.clients(name))) or "nobody"
            self.more(f"{name}: {host}{need}; on record: {known}")


def check(truth, otherwise):
    if not truth:
        raise Failed(otherwise)


def tell_it(cluster):
    story = Story(cluster)
    tell, more, show = story.tell, story.more, story.show
    nodes = node1, node2, node3 = [*cluster]

    # --- a cluster, and its normal life ---
    cluster.start()
    tell("Three nodes start cold: corosync, a lock table in the place of the DLM, graced on each.",
         "Nobody was on record, so there is nothing to recover: normal, every gate is open.")  # fmt: skip
    show()
    for node in nodes:
        check(node.status()["phase"] == "normal", f"not normal: {node.describe()}")

    vs1, vs2 = node1.serve("vs1"), node2.serve("vs2")
    for nfsd, client in ((vs1, "alice"), (vs1, "bob"), (vs1, "carol"), (vs2, "dave")):
        check(nfsd.create(client) == "ok", f"{client} was not put on record")
    tell("NFS server vs1 runs on node1 with the clients alice, bob and carol; vs2 on node2 with dave.",
         "Each is on disk on every node before nfsd hears `ok`. As node3 tells it:")  # fmt: skip
    for node in nodes:
        check(set(node.clients("vs1")) == {"alice", "bob", "carol"}, f"vs1's records on {node.name}: {node.clients('vs1')}")
    more(*(f"{name}: on node{node3.server(name)['host']}; on record: {', '.join(sorted(node3.clients(name)))}" for name in ("vs1", "vs2")))
    vs2.wait_lock()

    watcher = Watcher([node2, node3])
    watcher.wait_grants()
    tell("On node2 and node3 local programs ask for a new lock, every 10 ms. They get it.")

    # --- a death ---
    killed = time.monotonic()
    node1.kill()
    tell("*** node1 loses power, and with it vs1 and the locks of alice, bob and carol. ***")
    cluster.wait_closed([node2, node3])
    wait(lambda: all(watcher.closed_at(n, killed) for n in (2, 3)), 5, "the local programs to be refused")
    closed = {n: watcher.closed_at(n, killed) - killed for n in (2, 3)}
    members = node2.corosync_members()
    tell("The other gates are closed: no news from node1, so the permits were not renewed.",
         "The local programs have been refused since " + " and ".join(f"{closed[n]:.1f} s (node{n})" for n in (2, 3)) + " after the death.",
         "corosync has " + ("not even noticed: its members are " if 1 in members else "noticed by now: its members are ") + str(sorted(members)) + ".")  # fmt: skip
    cluster.wait_grace([node2, node3])
    tell("corosync drops node1. The survivors agree on a grace: vs1 NEEDs it, R takes the epoch that ended",
         "(C=1), C is raised. Each says that it enforces only when its kernel has closed the gate.")  # fmt: skip
    show("vs1")
    status = node2.status()
    check(node2.server("vs1")["need"] and not node2.server("vs2")["need"], "not vs1 alone NEEDs")
    check(status["current"] == 2 and status["recovery"] == 1, f"C {status['current']}, R {status['recovery']}")

    # --- fencing ---
    announced = node2.announce("vs1")
    time.sleep(FENCING_S)
    check(announced.running(), f"vs1 may start before node1 is fenced: {announced.log}")
    check(not node2.server("vs1")["reclaim_open"], "reclaim is open before node1 is fenced")
    check(node2.gate_ask("try reclaim vs1") == "grace", "a reclaim passed before node1 was fenced")
    blocked = node2.status()["blocked_by"]
    check(any("fence" in why for why in blocked), f"blocked by {blocked}")
    tell("vs1 is to come up on node2; but is node1 dead, or only silent? It is being fenced.",
         f"For {FENCING_S} s now reclaim has stayed shut. gracectl on node2 says why:", f"    {'; '.join(blocked)}")  # fmt: skip

    cluster.fence_done(1)
    vs1 = node2.start_nfsd("vs1", announced)
    opened = time.monotonic()
    check(node2.server("vs1")["reclaim_open"], "reclaim is not open")
    check(vs1.may_reclaim == 3, f"{vs1.may_reclaim} clients may reclaim")
    tell("node1 is fenced: the lock table gives its locks away, which proves it. Reclaim opens on node2.",
         f"nfsd of vs1 starts there and gets the list of those who may reclaim: {vs1.may_reclaim} clients.")  # fmt: skip
    show("vs1")

    # --- reclaim ---
    for client in ("alice", "bob"):
        said = vs1.reclaim(client)
        check(said == "ok", f"{client} reclaims: {said}")
    wait(lambda: node3.server("vs1")["reclaimed"] == 2, 5, "two reclaims on node3's record")
    stranger = vs1.reclaim("mallory")
    check(stranger.startswith("refused"), f"mallory, who is not on record, reclaims: {stranger}")
    check(not vs2.lock(), "dave got a new lock in the grace of vs1")
    check(not node2.try_lock() and not node3.try_lock(), "a local program got a new lock")
    tell("alice and bob reclaim their locks. mallory, who never had one, is refused. carol does not come.",
         "New locks are refused on every node: to dave at vs2 (NFS4ERR_GRACE), to the local programs (EAGAIN).")  # fmt: skip
    show("vs1")

    tell(f"Everyone waits for carol until her time is up: {PERIOD_S} s after the last reclaim.")
    cluster.wait_open([node2, node3], deadline_s=2 * PERIOD_S + 5)
    lifted = time.monotonic()
    time.sleep(0.1)
    done = node2.logged("vs1 NEEDs no longer: deadline")
    check(done, "vs1 was done, but not because of the deadline")
    purge = node2.logged("last out and purges")
    check(purge and "node2" in purge[-1][1], f"the purge is not node2's: {purge}")
    lift = node3.logged("the grace is lifted")
    check(lift, "node3 did not hear of the lift")
    wait(lambda: all(watcher.opened_at(n, opened) for n in (2, 3)), 5, "the local programs to get their lock")
    first = min(watcher.opened_at(n, opened) for n in (2, 3))
    early = watcher.granted_between(max(closed.values()) + killed, first)
    check(not early, f"new locks were granted in the grace, on nodes {early}")
    for node in (node2, node3):
        check(set(node.clients("vs1")) == {"alice", "bob"}, f"on record on {node.name}: {node.clients('vs1')}")
    tell("Time is up: vs1 is DONE. Its host node2 is the last node out: alone with the exclusive lock it purges",
         "carol from every node's disk, and only when all said that it is durable there, the grace is lifted.",
         f"The local programs get their lock again, {lifted - killed:.1f} s after the death; not once in between.")  # fmt: skip
    show("vs1", "vs2")
    vs2.wait_lock()

    # --- a later grace ---
    moved = time.monotonic()
    stopped = node2.ask("server-stop", "vs1")
    check(stopped.wait_end(10) == 0, f"server-stop: status {stopped.status}; {stopped.log}")
    check(node2.gate() != "open" and node3.gate() != "open", "a gate is open although vs1 stops")
    vs1.stop()
    node2.gracectl("server-released", "vs1")
    vs1 = node3.serve("vs1")
    check(vs1.may_reclaim == 2, f"{vs1.may_reclaim} clients may reclaim after the purge")
    said = vs1.reclaim("carol")
    check(said.startswith("refused"), f"carol, who was purged, reclaims: {said}")
    tell("vs1 moves to node3 in good order: first all gates close, then node2 lets go. A second grace.",
         "carol is back now and tries to reclaim. Somebody else may have had her lock since: " + said + ".")  # fmt: skip
    for client in ("alice", "bob"):
        check(vs1.reclaim(client) == "ok", f"{client} does not reclaim")
    cluster.wait_open([node2, node3], deadline_s=10)
    tell(f"alice and bob reclaim; nobody is missing, so it is over at once: {time.monotonic() - moved:.1f} s for the whole move.")
    show("vs1")
    check(vs1.create("carol") == "ok", "carol cannot come as a new client")
    watcher.stop()

    # --- the dead return ---
    node1.boot()
    node1.start_corosync()
    cluster.wait_membership([1, 2, 3])
    node1.start_graced()
    cluster.wait_open()
    joined = node1.logged("joined: state taken from node")
    check(joined, "node1 did not join by snapshot")
    check(set(node1.clients("vs1")) == {"alice", "bob", "carol"}, f"node1 has {node1.clients('vs1')} on record")
    tell("node1 is back. Its old database is of no use; it takes the state from a member and joins.",
         "(carol has come as a new client meanwhile, and is on record again.)")  # fmt: skip
    show("vs1", "vs2")
    check(len({(n.status()["current"], n.status()["recovery"]) for n in nodes}) == 1, "the nodes disagree on C and R")
    tell("The end: every claim above was checked. One death, one grace period, for all nodes at once.")


def main():
    try:
        with Cluster(3, config={"grace": {"period": PERIOD_S}}, name="demo") as cluster:
            try:
                tell_it(cluster)
            except (Failed, Late) as error:
                frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == __file__][-1]
                print(f"\nTHE STORY DOES NOT HOLD: {error} (demo.py:{frame.lineno})")
                for node in cluster:
                    print(f"--- the end of {node.log}")
                    print("\n".join(node.log.read_text(errors="replace").splitlines()[-12:]) if node.log.exists() else "")
                return 1
            finally:
                print(f"\nlogs: {cluster.dir}", flush=True)
    except Ended as reason:
        print(f"ended by {reason}")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
