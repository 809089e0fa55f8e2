# SPDX-License-Identifier: GPL-2.0-or-later
"""gracectl against a real cluster: what it starts, lifts and waits for, and its exit codes."""

import signal
import time

from harness import BIN
from processes import run, wait

USAGE, NOT_RUNNING, NOT_QUORATE, UNKNOWN, TIMEOUT, HOSTED = 2, 3, 4, 6, 7, 8


def started(make, clients=("alice", "bob"), **options):
    cluster = make(3, **options)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    for client in clients:
        assert nfsd.create(client) == "ok"
    return cluster, nfsd


def failed_over(cluster):
    """Node 1 dies; the nfsd of vs1 on node 2, whose clients may reclaim."""
    cluster[1].kill()
    cluster.wait_grace()
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    return cluster[2].start_nfsd("vs1", announced)


def test_no_daemon(make):
    """Nobody answers: said at once, exit code 3."""
    cluster = make(1)
    cluster[1].boot()
    begin = time.monotonic()
    answer = cluster[1].gracectl("status", check=False)
    assert answer["exit"] == NOT_RUNNING and "graced" in answer["error"], answer
    assert time.monotonic() - begin < 5, "not before its limit for connecting"


def test_unknown_names(make):
    """Servers and nodes that do not exist, exit code 6."""
    cluster, _ = started(make)
    for words in (("start", "vs9"), ("lift", "vs9"), ("fence-notify", "node9")):
        answer = cluster[2].gracectl(*words, check=False)
        assert answer["exit"] == UNKNOWN, (words, answer)
        assert words[1] in answer["error"], answer


def test_start_by_hand(make):
    """start of a server that lost nothing: all gates close, it says so, and nobody loses a record."""
    cluster, nfsd = started(make)
    begin = time.time()
    cluster[3].gracectl("start", "vs1")
    wait(lambda: all(node.status()["current"] == 2 for node in cluster), 5, "a new epoch")
    cluster.wait_open()
    for node in cluster:  # too short for a watcher: some milliseconds
        changes = [line for at, line in node.logged("stand-in gate: (epoch 2|open, epoch 2)") if at > begin]
        assert "epoch 2 (was 1)" in changes[0] and "open, epoch 2" in changes[-1], changes
        assert set(node.clients("vs1")) == {"alice", "bob"}
    assert cluster[2].logged("NEEDs no longer: its state is intact")
    nfsd.wait_lock()


def test_lift_by_hand(make):
    """An operator does not wait for bob: lift ends it; bob is purged, alice stays."""
    cluster, _ = started(make, config={"grace": {"period": 60}})
    nfsd = failed_over(cluster)
    assert nfsd.reclaim("alice") == "ok"
    begin = time.monotonic()
    cluster[3].gracectl("lift", "vs1")
    cluster.wait_open()
    assert time.monotonic() - begin < 30, "not before the deadline"
    assert set(cluster[3].clients("vs1")) == {"alice"}
    assert cluster[3].gracectl("lift", "vs1", check=False)["exit"] != 0, "there is nothing to lift"


def test_extend(make):
    """The clients get more time, said on any node; without a grace there is nothing to extend."""
    cluster, _ = started(make, config={"grace": {"period": 30}})
    answer = cluster[3].gracectl("extend", "vs1", check=False)
    assert answer["exit"] != 0 and "there is no grace" in answer["error"], answer
    nfsd = failed_over(cluster)
    assert nfsd.reclaim("alice") == "ok"
    before = cluster[2].server("vs1")["deadline"]
    cluster[3].gracectl("extend", "vs1", "--by", "120")
    assert abs(cluster[2].server("vs1")["deadline"] - before - 120) <= 2  # whole seconds
    assert nfsd.reclaim("bob") == "ok"  # the last one: it is over all the same
    cluster.wait_open()
    assert set(cluster[3].clients("vs1")) == {"alice", "bob"}


def test_enforce(make):
    """One node's gate is kept closed, through a grace too; the others' are open; noenforce lets it open."""
    cluster, nfsd = started(make)
    node = cluster[2]
    node.gracectl("enforce")
    assert node.gate() == "closed" and cluster[3].gate() == "open"
    assert [why for why in node.status()["blocked_by"] if "gracectl noenforce" in why]
    cluster[3].gracectl("start", "vs1")
    wait(lambda: cluster[3].status()["current"] == 2 and cluster[3].gate() == "open", 10, "the end of that grace")
    assert node.status()["phase"] == "normal" and node.gate() == "closed"
    assert nfsd.create("carol") == "ok"
    node.gracectl("noenforce")
    cluster.wait_open()


def test_wait_for_the_end(make):
    """`wait normal` returns when the grace is over, with a line for each change; a limit: exit code 7."""
    cluster, _ = started(make)
    assert cluster[3].gracectl("wait", "normal")["exit"] == 0
    cluster[1].kill()
    cluster.wait_grace()
    answer = cluster[3].gracectl("wait", "normal", "--timeout", "1", check=False)
    assert answer["exit"] == TIMEOUT, answer
    waiting = cluster[3].ask("wait", "normal")
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    nfsd = cluster[2].start_nfsd("vs1", announced)
    assert waiting.running()
    assert nfsd.reclaim("alice") == "ok" and nfsd.reclaim("bob") == "ok"
    assert waiting.wait_end(10) == 0
    assert cluster[3].status()["phase"] == "normal"


def test_daemon_dies_while_asked(make):
    """graced is killed while a gracectl waits: exit code 3, soon."""
    cluster, _ = started(make)
    waiting = cluster[3].ask("wait", "reclaiming")
    time.sleep(0.5)
    assert waiting.running()
    cluster[3].graced.kill()
    assert waiting.wait_end(5) == NOT_RUNNING, waiting.log.read_text()


def test_asker_goes_away(make):
    """Ctrl-C of a waiting gracectl costs the daemon nothing; many of them neither."""
    cluster, nfsd = started(make)
    for _ in range(10):
        waiting = [cluster[2].ask("wait", "reclaiming") for _ in range(5)]
        time.sleep(0.1)
        for program in waiting:
            program.signal(signal.SIGINT)
        for program in waiting:
            program.wait_end(5)
    assert cluster[2].status()["phase"] == "normal" and nfsd.create("carol") == "ok"


def test_fence_notify(make):
    """The fence agent's word: answered when every other node enforces."""
    cluster, _ = started(make)
    cluster[1].kill()
    begin = time.monotonic()
    cluster[2].gracectl("fence-notify", "node1", timeout=60)
    took = time.monotonic() - begin
    for node in (cluster[2], cluster[3]):
        assert node.gate() == "closed"
        assert node.server("vs1")["need"]
    return f"{took:.1f} s after the death, token timeout {cluster.token} ms"


def test_long_request_outlives_a_membership(make):
    """A request that has waited for fencing for long is not refused because a daemon comes or goes."""
    cluster = make(5)
    cluster.start()
    assert cluster[1].serve("vs1").create("alice") == "ok"
    cluster[1].kill()
    cluster.wait_grace()
    announced = cluster[2].announce("vs1")
    time.sleep(11)
    cluster[5].kill()
    cluster.wait_membership([2, 3, 4])
    time.sleep(0.5)
    assert announced.running(), announced.log.read_text()
    cluster.fence_done(1)
    cluster.fence_done(5)
    assert cluster[2].start_nfsd("vs1", announced).reclaim("alice") == "ok"
    cluster.wait_open()


def test_minority_is_told(make):
    """Without quorum: status still answers, and a change is refused with exit code 4."""
    cluster, _ = started(make)
    cluster[3].cut()
    wait(lambda: not cluster[3].status()["quorate"], 15, "node 3 to know that it has no quorum", every=0.1)
    status = cluster[3].status()
    assert status["gate"] == "closed" and any("quorum" in why for why in status["blocked_by"]), status
    answer = cluster[3].gracectl("start", "vs1", check=False, timeout=30)
    assert answer["exit"] == NOT_QUORATE, answer


def test_record_and_replay(make):
    """The recording of a live daemon plays again exactly; only root can read it."""
    cluster = make(3)
    cluster.start()
    assert cluster[1].serve("vs1").create("alice") == "ok"
    file = cluster.dir / "node1.rec"
    cluster[1].gracectl("record", file)
    assert file.stat().st_mode & 0o777 == 0o600, oct(file.stat().st_mode)
    done = run([str(BIN / "gracectl"), "replay", str(file)])
    assert "alice" in done.stdout and "START(vs1" in done.stdout, done.stdout[-500:]
    return f"{file.stat().st_size} bytes, {len(done.stdout.splitlines())} lines"


def test_join(make):
    """join starts no grace, and has one more server reclaim in the one that is on."""
    cluster, _ = started(make, config={"grace": {"period": 60}})
    assert cluster[2].serve("vs2").create("carol") == "ok"
    answer = cluster[3].gracectl("join", "vs2", check=False)
    assert answer["exit"] == 1 and answer["code"] == "no_grace", answer
    assert cluster[3].status()["current"] == 1
    cluster[1].kill()
    cluster.wait_grace()
    start = cluster[3].server("vs2")["start"]
    cluster[3].gracectl("join", "vs2")
    assert cluster[3].server("vs2")["start"] > start
    assert cluster[3].status()["current"] == 2, "another grace"


def test_remove(make):
    """remove: not of a server that runs, not unasked; then no client of it is on record anywhere, and all gates open."""
    cluster, nfsd = started(make)
    assert cluster[2].gracectl("remove", "vs1", "--yes", check=False)["exit"] == HOSTED
    cluster[1].gracectl("server-stop", "vs1")
    nfsd.stop()
    cluster[1].gracectl("server-released", "vs1")
    assert cluster[2].gracectl("remove", "vs1", check=False)["exit"] == USAGE
    assert set(cluster[3].clients("vs1")) == {"alice", "bob"}
    answer = cluster[2].gracectl("remove", "vs1", "--yes", timeout=60)
    assert answer["removed"] == 2, answer
    cluster.wait_open()
    assert not any(node.clients("vs1") for node in cluster)
    assert cluster[1].serve("vs1").create("alice") == "ok"


def test_doctor(make):
    """What it finds out in a cluster, and what without a daemon."""
    cluster, _ = started(make)
    answer = cluster[1].gracectl("doctor", check=False, timeout=30)
    found = {finding["check"] for finding in answer["findings"] if finding["severity"] == "wrong"}
    assert answer["exit"] == 10 and answer["nodes"] == ["node1"], answer
    # The test's corosync runs; its server was not made by graced-server, and is not called as the node.
    assert not found & {"daemon", "quorum", "members", "permit"} and "scope" in found, answer
    assert "nothing is known of node2, node3" in str(answer["not_checked"]), answer
    cluster[1].graced.stop()
    answer = cluster[1].gracectl("doctor", check=False, timeout=30)
    assert "daemon" in {finding["check"] for finding in answer["findings"] if finding["severity"] == "wrong"}, answer
