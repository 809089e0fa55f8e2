# SPDX-License-Identifier: GPL-2.0-or-later
"""Pacemaker's and DLM's agents (gfs2-hooks) with a real daemon: that they understand what it says, and it them."""

import signal
import subprocess
from pathlib import Path

from harness import BIN
from processes import Skip, patience, wait

HOOKS = Path(__file__).resolve().parents[3] / "gfs2-hooks"
SHELLFUNCS = Path("/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs")
SUCCESS, GENERIC, NOT_RUNNING, DEGRADED = 0, 1, 7, 190

# systemd is not there: of the unit it is said what the test says.
SYSTEMCTL = """#!/bin/sh
read -r state <"$UNIT_STATE" && echo "$state" && [ "$state" = active ]
"""


def agent(node, path, *words, stdin="", **environment):
    """(exit status, what it said)"""
    own = node.dir / "agents"
    own.mkdir(exist_ok=True)
    (own / "systemctl").write_text(SYSTEMCTL)
    (own / "systemctl").chmod(0o755)
    for name in ("ss", "dlm_tool"):  # asked for before they are used
        (own / name).write_text("#!/bin/sh\n")
        (own / name).chmod(0o755)
    if not (own / "graced-server").exists():
        (own / "graced-server").symlink_to(HOOKS / "server/graced-server")
    settings = {
        "PATH": f"{own}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "UNIT_STATE": own / "state", "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RESOURCE_INSTANCE": "graced", "OCF_RESKEY_CRM_meta_timeout": 60000, "OCF_RESKEY_CRM_meta_interval": 20000,
        "GRACED_CIB": "/nonexistent",
    } | environment  # fmt: skip
    done = subprocess.run(
        node.inside("env", *(f"{k}={v}" for k, v in settings.items()), HOOKS / path, *words),
        input=stdin, capture_output=True, text=True, timeout=patience(60), check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def unit_is(node, state):
    (node.dir / "agents").mkdir(exist_ok=True)
    (node.dir / "agents/state").write_text(state + "\n")


def test_monitor(make):
    """ocf:graced:graced: running, bypassed (degraded), away and back, gone."""
    if not SHELLFUNCS.exists():
        raise Skip("no resource-agents")
    cluster = make(3)
    cluster.start()
    node = cluster[2]
    unit_is(node, "active")
    assert agent(node, "ocf/graced", "monitor") == (SUCCESS, "")
    assert agent(node, "ocf/graced", "monitor", OCF_CHECK_LEVEL=10) == (SUCCESS, "")
    node.gracectl("bypass", "on", "--yes")
    assert agent(node, "ocf/graced", "monitor")[0] == SUCCESS
    code, said = agent(node, "ocf/graced", "monitor", OCF_CHECK_LEVEL=10)
    assert code == DEGRADED and "bypassed" in said, (code, said)
    node.gracectl("bypass", "off")
    cluster.wait_open()

    code, said = agent(
        node, "ocf/graced", "notify", OCF_RESKEY_CRM_meta_notify_type="post", OCF_RESKEY_CRM_meta_notify_operation="start"
    )
    assert code == SUCCESS and "graced here: normal, C 1, R 0, gate open" in said, said

    # It is killed, and systemd has not started it again yet: no failure, and answered when it is back.
    node.graced.signal(signal.SIGKILL)
    node.graced.process.wait()
    unit_is(node, "activating")
    code, said = agent(node, "ocf/graced", "monitor", OCF_RESKEY_patience=1)
    assert code == GENERIC and "has not answered" in said, (code, said)
    node.start_graced(ready=False)
    assert agent(node, "ocf/graced", "monitor")[0] == SUCCESS
    node.graced.signal(signal.SIGTERM)
    node.graced.process.wait()
    unit_is(node, "inactive")
    assert agent(node, "ocf/graced", "monitor", OCF_RESKEY_CRM_meta_interval=0) == (NOT_RUNNING, "")


def test_news(make):
    """alert_graced and fence_graced bring the news of a death: all gates close; reclaim waits for the DLM all the same."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    lost = {"CRM_alert_kind": "node", "CRM_alert_node": "node1", "CRM_alert_desc": "lost"}

    # Before corosync has noticed anything: a grace begins for node 1's server.
    code, said = agent(cluster[3], "alert/alert_graced", **lost)
    assert code == 0, (code, said)
    wait(lambda: all(node.status()["current"] == 2 for node in cluster), 5, "a grace on all")
    cluster.wait_open()  # it lives, and has lost nothing

    # A node that nobody knows is no news.
    assert agent(cluster[3], "alert/alert_graced", **lost | {"CRM_alert_node": "node9"})[0] == 1

    cluster[1].kill()
    cluster.wait_grace()
    # Both are asked by every node, more than once, as it happens.
    for _ in range(2):
        for node in (cluster[2], cluster[3]):
            assert agent(node, "alert/alert_graced", **lost)[0] == 0
            code, said = agent(node, "fence/fence_graced", stdin="node=1\nfail_time=1\n")
            assert code == 0 and "every live node enforces" in said, (code, said)
            code, said = agent(node, "fence/fence_graced", stdin="action=off\nnodename=node1\nport=node1\non_timeout=fail\n")
            assert code == 0 and "every live node enforces" in said, (code, said)
    status = cluster[2].status()
    assert status["current"] == 3 and status["gate"] == "closed", status
    assert any("not proven fenced" in why for why in status["blocked_by"]), status["blocked_by"]
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    nfsd = cluster[2].start_nfsd("vs1", announced)
    assert nfsd.reclaim("alice") == "ok"
    cluster.wait_open()


def test_fencing_without_graced(make):
    """fence_graced where graced does not run, or cannot know: pass by default, fail if asked to; bounded."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    cluster[3].graced.signal(signal.SIGSTOP)  # a live node that does not enforce, for as long as nobody counts it as dead
    for policy, expected in (("pass", 0), ("fail", 1)):
        code, said = agent(cluster[2], "fence/fence_graced", stdin=f"node=1\ntimeout=1\non_timeout={policy}\n")
        assert code == expected and "not every live node" in said, (code, said)
    cluster[3].graced.signal(signal.SIGCONT)
    wait(lambda: agent(cluster[2], "fence/fence_graced", stdin="node=1\non_timeout=fail\n")[0] == 0, 20, "all to enforce")
    cluster[2].graced.signal(signal.SIGKILL)
    cluster[2].graced.process.wait()
    code, said = agent(cluster[2], "fence/fence_graced", stdin="node=1\non_timeout=fail\n")
    assert code == 1 and "graced does not run on this node" in said, (code, said)
    assert agent(cluster[2], "fence/fence_graced", stdin="node=1\n")[0] == 0
