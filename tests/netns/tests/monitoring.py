# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon tells of a grace while it is on, and afterwards: metrics, history."""

import re
import signal
from xml.etree import ElementTree

from processes import wait


def metrics(node):
    text = node.gracectl("metrics")["text"]
    assert text.endswith("# EOF\n"), text[-200:]
    return dict(re.findall(r"^(graced_[^ ]+) (\S+)$", text, re.MULTILINE))


def fail_over(make, clients=("alice", "bob", "carol"), **options):
    cluster = make(3, config={"grace": {"period": 60}}, **options)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    for client in clients:
        assert nfsd.create(client) == "ok"
    cluster[1].kill()
    cluster.wait_grace()
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    nfsd = cluster[2].start_nfsd("vs1", announced)
    for client in clients[:-1]:
        assert nfsd.reclaim(client) == "ok"
    return cluster


def test_metrics(make):
    """A grace in numbers: two of three clients have reclaimed, then it is lifted by hand and one is purged."""
    cluster = fail_over(make)
    cluster.wait_phase("reclaiming")  # each proves the fencing for itself
    for node in (cluster[2], cluster[3]):
        now = metrics(node)
        assert now['graced_phase{graced_phase="reclaiming"}'] == "1", now
        assert now['graced_server_clients{server="vs1"}'] == "3"
        assert now['graced_server_clients_reclaimed{server="vs1"}'] == "2"
        assert now["graced_gate_open"] == "0"
    assert metrics(cluster[2])['graced_server_reclaim_open{server="vs1"}'] == "1"
    assert metrics(cluster[2])['graced_server_tracked{server="vs1"}'] == "1"
    file = cluster[2].dir / "graced.prom"
    cluster[2].gracectl("metrics", "--textfile", file)
    assert '\ngraced_server_need{server="vs1"} 1\n' in file.read_text()
    cluster[3].gracectl("lift", "vs1")
    cluster.wait_open()
    for node in (cluster[2], cluster[3]):
        after = metrics(node)
        assert after["graced_clients_purged_total"] == "1" and after["graced_graces_total"] == "1", after
        assert after["graced_gate_open"] == "1" and after["graced_recovery_epoch"] == "0"
        assert float(after["graced_permit_remaining_seconds"]) > 0
        assert float(after["graced_store_commit_seconds_sum"]) > 0
        assert after["graced_grace_duration_seconds_count"] == "1"
    return f"{len(after)} samples"


def test_history(make):
    """Every survivor can tell of the grace: why, its phases, who reclaimed, who was purged and by whom; also
    after its daemon was killed in the midst of it, and without a daemon."""
    cluster = fail_over(make)
    cluster[3].graced.signal(signal.SIGKILL)
    cluster[3].graced.process.wait()
    cluster[3].start_graced()
    wait(lambda: cluster[3].status()["synced"], 20, "node 3 to have the state again")
    cluster[2].gracectl("lift", "vs1")
    cluster.wait_open()
    epoch = cluster[2].status()["current"]

    def story(node):
        return node.gracectl("history", epoch, check=False).get("grace", {})

    for node in (cluster[2], cluster[3]):
        wait(lambda n=node: story(n).get("outcome") == "lifted", 5, f"{node.name} to have it written down")
        one = story(node)
        assert "died" in one["why"] and cluster[1].name in one["why"], one["why"]
        assert one["purger"] == cluster[2].name and one["purged"] == 1, one
        assert [p["phase"] for p in one["phases"]][-1] == "lifting", one["phases"]
        [server] = one["servers"]
        assert (server["host"], server["reclaimed"], server["clients"]) == (cluster[2].name, 2, 3), server
        assert [e["what"] for e in one["events"]][-1] == "lifted"
    assert "found" in [e["what"] for e in story(cluster[3])["events"]], "its daemon came in the midst of it"
    clients = {(c["what"], c["name"]) for c in story(cluster[2])["clients"]}
    assert clients == {("reclaimed", "alice"), ("reclaimed", "bob"), ("purged", "carol")}, clients
    picture = cluster[2].dir / "grace.svg"
    cluster[2].gracectl("history", epoch, "--svg", picture)
    root = ElementTree.parse(picture).getroot()
    words = {text for e in root.iter() for text in (e.text or "",)}
    assert {node.name for node in cluster} <= words, words
    assert cluster[2].gracectl("history", 99, check=False)["exit"] == 6
    cluster[2].graced.signal(signal.SIGTERM)
    cluster[2].graced.process.wait()
    alone = cluster[2].gracectl("history", "--file", cluster[2].database)
    assert [g["epoch"] for g in alone["graces"]] == [epoch], alone


def test_history_cannot_be_written(make):
    """On each node there is a directory where the history is to be: no history, and a grace as ever."""
    cluster = make(3)
    for node in cluster:
        node.database.parent.mkdir(parents=True, exist_ok=True)
        (node.database.parent / (node.database.name + ".graces")).mkdir()
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    cluster[1].kill()
    cluster.wait_grace()
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    assert cluster[2].start_nfsd("vs1", announced).reclaim("alice") == "ok"
    cluster.wait_open()
    wait(lambda: cluster[2].logged("the history of graces .* failed"), 5, "a word about the history")
    assert cluster[2].gracectl("history", check=False)["exit"] == 1
    assert metrics(cluster[2])["graced_graces_total"] == "1"
