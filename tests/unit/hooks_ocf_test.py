#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pacemaker's agents (gfs2-hooks/ocf, gfs2-hooks/alert) with programs that are stand-ins: what they ask of whom, what they answer;
their metadata against the schemas of Debian's resource-agents; ocf-tester. With a real scheduler: hooks_pacemaker_test.py; with
everything real: tests/vm. Exit code 77: resource-agents is not installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

HOOKS = Path(__file__).resolve().parents[2] / "gfs2-hooks"
OCF_ROOT = Path("/usr/lib/ocf")
SCHEMAS = Path("/usr/share/resource-agents")
SUCCESS, GENERIC, ARGS, UNIMPLEMENTED, INSTALLED, CONFIGURED, NOT_RUNNING, DEGRADED = 0, 1, 2, 3, 5, 6, 7, 190

STATUS = {
    "phase": "normal", "current": 7, "recovery": 0, "gate": "open", "synced": True, "warnings": [], "blocked_by": [],
    "kernel": {"attached": True, "bypass": False},
}  # fmt: skip
CONFIG = {"graced": {"state": "cluster"}, "locks": {"socket": "/run/x/dlm.sock"}}

# One program under many names. State in $FAKE: `unit` (what systemd says), `daemon` (graced's status, if it answers), `keeper`
# (pid), lockspaces/, `server` (running, stopped, damaged), `list`. `fail`: lines PATTERN|CODE|TEXT.
FAKE = r"""#!/bin/bash
me=${0##*/}
call="$me $*"
printf '%s\n' "$call" >>"$FAKE/calls"
while IFS='|' read -r pattern code text; do
    # shellcheck disable=SC2053
    [ -n "$pattern" ] && [[ $call == $pattern ]] && { echo "$text" >&2; exit "$code"; }
done <"$FAKE/fail"
case $call in
'systemctl is-active'*) cat "$FAKE/unit"; [ "$(<"$FAKE/unit")" = active ] ;;
'systemctl start graced'*)
    echo active >"$FAKE/unit"
    cp "$FAKE/status" "$FAKE/daemon"
    [ -s "$FAKE/keeper" ] || { sleep 300 >/dev/null 2>&1 & echo $! >"$FAKE/keeper"; mkdir "$FAKE/lockspaces/graced"; } ;;
'systemctl --job-mode=ignore-dependencies stop graced.service') echo inactive >"$FAKE/unit"; rm -f "$FAKE/daemon" ;;
'systemctl show'*) echo "${FAKE_EXIT:-1}" ;;
'ss '*)
    if [ -s "$FAKE/keeper" ] && kill -0 "$(<"$FAKE/keeper")" 2>/dev/null; then
        bound=/run/x/dlm.sock.$(<"$FAKE/keeper") # not what it was renamed to: ss does not know of that
        case $bound in
        ${!#}) echo "u_seq LISTEN 0 16 $bound 123 * 0 users:((\"graced-dlm\",pid=$(<"$FAKE/keeper"),fd=6))" ;;
        esac
    else
        rm -f "$FAKE/keeper"
        [ -e "$FAKE/frozen" ] || rmdir "$FAKE/lockspaces/graced" 2>/dev/null
    fi ;;
'dlm_tool status') echo 'cluster nodeid 1 quorate 1 ring seq 8 8' ;;
'gracectl --json status') cat "$FAKE/daemon" 2>/dev/null || exit 3 ;;
'gracectl --json config show') cat "$FAKE/config" ;;
'graced-server start'*) sleep "${FAKE_SLEEP:-0}"; echo running >"$FAKE/server"; echo 'graced-server: server vs1 runs: 8 threads' ;;
'graced-server stop'*) echo stopped >"$FAKE/server"; echo 'graced-server: server vs1 is stopped' ;;
'graced-server mend'*) echo running >"$FAKE/server" ;;
'graced-server status'*)
    echo "server vs1: $(<"$FAKE/server")"
    case $(<"$FAKE/server") in running) ;; stopped) exit 3 ;; *) echo '  rpc.mountd does not run'; exit 1 ;; esac ;;
'graced-server list') cat "$FAKE/list" ;;
'sudo -n '*) shift; exec "$@" ;;
'id -u') echo "${FAKE_UID:-0}" ;;
esac
"""
NAMES = "systemctl ss dlm_tool gracectl graced graced-dlm graced-server sudo id logger".split()


class Agents(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(self.end_keeper)
        self.fake = Path(directory.name)
        self.fake.chmod(0o755)  # ocf-tester asks as user nobody, too
        self.bin = self.fake / "bin"
        self.bin.mkdir()
        (self.bin / "fake").write_text(FAKE)
        (self.bin / "fake").chmod(0o755)
        for name in NAMES:
            (self.bin / name).symlink_to("fake")
        (self.fake / "lockspaces").mkdir()
        for name in ("calls", "fail", "list"):
            (self.fake / name).write_text("")
        (self.fake / "unit").write_text("inactive\n")
        (self.fake / "server").write_text("stopped\n")
        (self.fake / "config").write_text(json.dumps(CONFIG))
        self.status()
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}", "OCF_ROOT": str(OCF_ROOT), "FAKE": str(self.fake),
            "GRACED_LOCKSPACES_DIR": str(self.fake / "lockspaces"), "GRACED_SERVERS_DIR": str(self.fake / "servers"),
            "OCF_RESOURCE_INSTANCE": "it", "OCF_RESKEY_CRM_meta_timeout": "20000", "OCF_RESKEY_CRM_meta_interval": "10000",
        }  # fmt: skip

    def end_keeper(self):
        keeper = self.fake / "keeper"
        if keeper.exists() and keeper.read_text().strip():
            subprocess.run(["kill", keeper.read_text().strip()], check=False, capture_output=True)

    def status(self, **change):
        (self.fake / "status").write_text(json.dumps(STATUS | change))
        if (self.fake / "daemon").exists():
            shutil.copy(self.fake / "status", self.fake / "daemon")

    def failing(self, *lines):
        (self.fake / "fail").write_text("".join(f"{line}\n" for line in lines))

    def run_agent(self, program, *arguments, **environment):
        (self.fake / "calls").write_text("")
        done = subprocess.run(
            [program, *arguments], env=self.environment | environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        self.out, self.told = done.stdout, done.stderr
        found = re.search(r"^ocf-exit-reason:(.*)$", done.stderr, re.MULTILINE)
        self.reason = found[1] if found else ""
        return done.returncode

    def calls(self):
        return (self.fake / "calls").read_text().splitlines()

    def assert_order(self, *patterns):
        where = [next((i for i, c in enumerate(self.calls()) if re.search(p, c)), None) for p in patterns]
        self.assertTrue(None not in where and where == sorted(where), f"{dict(zip(patterns, where))} in {self.calls()}")

    def assert_not_called(self, pattern):
        self.assertEqual([c for c in self.calls() if re.search(pattern, c)], [])


class Both(Agents):
    def test_metadata(self):
        for agent in ("graced", "server"):
            with self.subTest(agent):
                self.assertEqual(self.run_agent(HOOKS / "ocf" / agent, "meta-data"), SUCCESS)
                tree = xml.fromstring(self.out)
                self.assertEqual(tree.get("name"), agent)
                for check in (("--dtdvalid", SCHEMAS / "ra-api-1.dtd"), ("--relaxng", SCHEMAS / "metadata.rng")):
                    subprocess.run(
                        ["xmllint", "--nonet", "--noout", *check, "-"], input=self.out, text=True, check=True, capture_output=True
                    )
                # Every action that is announced is there.
                for action in {a.get("name") for a in tree.iter("action")}:
                    self.assertNotEqual(self.run_agent(HOOKS / "ocf" / agent, action, OCF_RESKEY_server="vs1"), UNIMPLEMENTED)

    def test_unimplemented(self):
        for agent in ("graced", "server"):
            for action in ("promote", "migrate_to", "nonsense"):
                self.assertEqual(self.run_agent(HOOKS / "ocf" / agent, action), UNIMPLEMENTED)

    def test_ocf_tester(self):
        for agent, options in (("graced", []), ("server", ["-o", "server=vs1"])):
            with self.subTest(agent):
                (self.fake / "agents").mkdir(exist_ok=True)
                copy = self.fake / "agents" / agent  # where user nobody may read it
                shutil.copy(HOOKS / "ocf" / agent, copy)
                copy.chmod(0o755)
                code = self.run_agent("ocf-tester", "-n", "it", *options, copy)
                self.assertEqual(code, 0, self.out + self.told)
                self.assertIn("passed all tests", self.out)


class Graced(Agents):
    def call(self, action, **environment):
        return self.run_agent(HOOKS / "ocf/graced", action, **environment)

    def test_start_and_stop(self):
        for _ in range(2):
            self.assertEqual(self.call("monitor"), NOT_RUNNING)
            self.assertEqual(self.call("start"), SUCCESS, self.told)
            self.assert_order("config check", "dlm_tool status", "systemctl reset-failed", "systemctl start graced.service")
            self.assertEqual(self.call("monitor"), SUCCESS)
            self.assertEqual(self.call("start"), SUCCESS)
            self.assertEqual(self.call("stop"), SUCCESS, self.told)
            self.assert_order("graced-server list", "stop graced.service", "stop graced-dlm.service", "^ss -xlpH src /run/x/dlm.sock.*")
            self.assertEqual(list((self.fake / "lockspaces").iterdir()), [])
            self.assertEqual(self.call("stop"), SUCCESS)

    def test_start_waits_for_the_gate(self):
        self.status(kernel={"attached": False, "bypass": False}, warnings=["no module gfs2_gate"])
        began = time.monotonic()
        self.assertEqual(self.call("start", OCF_RESKEY_CRM_meta_timeout="6000"), GENERIC)
        self.assertIn("no module gfs2_gate", self.reason)
        self.assertLess(time.monotonic() - began, 100)
        # Attached, but not joined yet: GFS2 may be mounted.
        self.status(synced=False, blocked_by=["waits for node2"])
        self.assertEqual(self.call("start"), SUCCESS)
        self.assertIn("waits for node2", self.told)

    def test_start_fails(self):
        self.failing("dlm_tool*|0|cannot connect to dlm_controld")  # as the real one: exit code 0
        self.assertEqual(self.call("start"), GENERIC)
        self.assertIn("dlm_controld does not run", self.reason)
        self.assert_not_called("systemctl")
        self.failing("systemctl start*|1|Job failed")
        self.assertEqual(self.call("start"), GENERIC)
        self.assertEqual(self.call("start", FAKE_EXIT="78"), ARGS)

    def test_validate(self):
        self.assertEqual(self.call("validate-all"), SUCCESS)
        self.failing("gracectl config check|78|line 3: no such key")
        for action in ("validate-all", "start"):
            self.assertEqual(self.call(action), ARGS)
            self.assertIn("line 3: no such key", self.reason)
        self.failing()
        self.assertEqual(self.call("validate-all", OCF_RESKEY_patience="soon"), CONFIGURED)
        self.assertEqual(self.call("validate-all", OCF_RESKEY_CRM_meta_globally_unique="true"), CONFIGURED)
        (self.fake / "config").write_text(json.dumps(CONFIG | {"graced": {"state": "single"}}))
        self.assertEqual(self.call("validate-all"), ARGS)
        (self.bin / "gracectl").unlink()
        self.assertEqual(self.call("validate-all"), INSTALLED)

    def test_monitor_is_patient(self):
        self.call("start")
        (self.fake / "daemon").unlink()
        (self.fake / "unit").write_text("activating\n")
        # Away, and back within its patience.
        back = subprocess.Popen(["sh", "-c", f"sleep 2; cp {self.fake}/status {self.fake}/daemon"])
        self.assertEqual(self.call("monitor"), SUCCESS, self.told)
        back.wait()
        # Not back.
        (self.fake / "daemon").unlink()
        self.assertEqual(self.call("monitor", OCF_RESKEY_patience="1"), GENERIC)
        self.assertIn("not answered", self.reason)
        # Given up by systemd: no use in waiting.
        (self.fake / "unit").write_text("failed\n")
        began = time.monotonic()
        self.assertEqual(self.call("monitor"), NOT_RUNNING)
        self.assertLess(time.monotonic() - began, 30)  # its patience
        self.assertIn("graced.service is failed", self.reason)
        # A probe has nothing to complain of.
        self.assertEqual(self.call("monitor", OCF_RESKEY_CRM_meta_interval="0"), NOT_RUNNING)
        self.assertEqual(self.reason, "")

    def test_monitor_depth(self):
        self.call("start")
        for change, word in (
            ({"kernel": {"attached": False, "bypass": False}}, "not attached"), ({"kernel": {"attached": True, "bypass": True}}, "bypassed"),
            ({"synced": False, "blocked_by": ["no quorum"]}, "no quorum"),
        ):  # fmt: skip
            self.status(**change)
            self.assertEqual(self.call("monitor"), SUCCESS)
            self.assertEqual(self.call("monitor", OCF_CHECK_LEVEL="10"), DEGRADED)
            self.assertIn(word, self.reason)
        self.status()
        self.assertEqual(self.call("monitor", OCF_CHECK_LEVEL="10"), SUCCESS)

    def test_stop_refused_while_servers_are_here(self):
        self.call("start")
        (self.fake / "list").write_text("server vs1: running\n")
        self.assertEqual(self.call("stop"), GENERIC)
        self.assertIn("server vs1", self.reason)
        self.assert_not_called("systemctl")

    def test_stop_waits_for_the_lockspace(self):
        self.call("start")
        (self.fake / "frozen").touch()
        self.assertEqual(self.call("stop", OCF_RESKEY_CRM_meta_timeout="6000"), GENERIC)
        self.assertIn("frozen", self.reason)
        (self.fake / "frozen").unlink()
        self.assertEqual(self.call("stop"), SUCCESS)

    def test_notify(self):
        self.call("start")
        environment = {f"OCF_RESKEY_CRM_meta_notify_{k}": v for k, v in
                       {"type": "post", "operation": "stop", "stop_uname": "node2"}.items()}  # fmt: skip
        self.assertEqual(self.call("notify", **environment), SUCCESS)
        self.assertIn("post-stop of start: nobody, stop: node2; graced here: normal, C 7, R 0, gate open", self.told)


class Server(Agents):
    def call(self, action, **environment):
        return self.run_agent(HOOKS / "ocf/server", action, **({"OCF_RESKEY_server": "vs1"} | environment))

    def test_start_and_stop(self):
        self.assertEqual(self.call("monitor"), NOT_RUNNING)
        self.assertEqual(self.call("start"), SUCCESS, self.told)
        self.assert_order("graced-server start vs1$")
        self.assertIn("server vs1 runs: 8 threads", self.told)
        self.assertEqual(self.call("monitor"), SUCCESS)
        self.assertEqual(self.call("stop"), SUCCESS)
        self.assert_order("graced-server stop vs1$")
        self.assertEqual(self.call("monitor"), NOT_RUNNING)

    def test_failures(self):
        self.failing("graced-server *|1|graced-server: node node2 does not enforce")
        self.status(blocked_by=["node node2 never attached its gate"])
        (self.fake / "daemon").write_text((self.fake / "status").read_text())
        for action in ("start", "stop"):
            self.assertEqual(self.call(action), GENERIC)
            self.assertIn(f"{action} of server vs1 failed: node node2 does not enforce; it waits for: node node2 never", self.reason)
        self.failing("graced-server *|3|graced-server: graced does not answer")
        self.assertEqual(self.call("stop"), GENERIC)

    def test_gives_up_before_it_is_killed(self):
        began = time.monotonic()
        self.assertEqual(self.call("start", OCF_RESKEY_CRM_meta_timeout="12000", FAKE_SLEEP="60"), GENERIC)
        self.assertLess(time.monotonic() - began, 12)
        self.assertIn("not within 2 s", self.reason)

    def test_validate(self):
        self.assertEqual(self.call("validate-all"), SUCCESS)
        for name in ("", "../x", "a b", "-a"):
            self.assertEqual(self.call("start", OCF_RESKEY_server=name), CONFIGURED)
            self.assert_not_called("graced-server")
        self.assertEqual(self.call("validate-all", OCF_RESKEY_CRM_meta_clone="0"), CONFIGURED)
        self.failing("gracectl config server*|6|graced.conf has no [server.vs1]", "graced-server start*|1|its definition cannot be read")
        for action in ("validate-all", "start"):
            self.assertEqual(self.call(action), ARGS)
        self.assertIn("has no [server.vs1]", self.reason)
        (self.bin / "graced-server").unlink()
        for action in ("validate-all", "start", "monitor"):
            self.assertEqual(self.call(action), INSTALLED)
        self.assertEqual(self.call("stop"), SUCCESS)
        (self.fake / "servers/vs1").mkdir(parents=True)
        (self.fake / "servers/vs1/definition").touch()
        self.assertEqual(self.call("stop"), GENERIC)

    def test_monitor_mends(self):
        self.call("start")
        (self.fake / "server").write_text("damaged\n")
        # A probe only looks.
        self.assertEqual(self.call("monitor", OCF_RESKEY_CRM_meta_interval="0"), GENERIC)
        self.assert_not_called("mend")
        self.assertEqual(self.call("monitor"), SUCCESS)
        self.assert_order("graced-server status vs1", "graced-server mend vs1")
        self.assertIn("mended: server vs1: damaged", self.told)
        (self.fake / "server").write_text("damaged\n")
        self.failing("graced-server mend*|1|graced-server: nfsd of server vs1 does not run")
        self.assertEqual(self.call("monitor"), GENERIC)
        self.assertIn("mending it failed: nfsd of server vs1 does not run", self.reason)
        # No daemon: a stop would be refused, and the node fenced for a mountd.
        self.failing("graced-server mend*|3|graced-server: graced does not answer")
        self.assertEqual(self.call("monitor"), SUCCESS)

    def test_monitor_depth(self):
        self.call("start")
        self.failing("gracectl server-running*|1|nfsd does not use graced as its client tracker")
        self.assertEqual(self.call("monitor"), SUCCESS)
        self.assertEqual(self.call("monitor", OCF_CHECK_LEVEL="10"), GENERIC)
        self.assertIn("client tracker", self.reason)
        for away in (3, 4, 7):
            self.failing(f"gracectl server-running*|{away}|away")
            self.assertEqual(self.call("monitor", OCF_CHECK_LEVEL="10"), SUCCESS)


class Alert(Agents):
    def call(self, **environment):
        return self.run_agent(
            HOOKS / "alert/alert_graced", **{f"CRM_alert_{k}" if k != "FAKE_UID" else k: v for k, v in environment.items()}
        )

    fenced = {"kind": "fencing", "node": "node1", "rc": "0", "task": "st_notify_fence"}

    def test_news_of_a_death(self):
        for event in (
            {"kind": "node", "node": "node1", "desc": "lost"},
            self.fenced | {"desc": "Operation reboot of node1 by node2 for pacemaker-controld.1@node2: OK (ref=1)"},
            self.fenced | {"desc": "Operation off of node1 by node2 for stonith_admin.1@node3: OK (ref=1)"},
        ):
            self.assertEqual(self.call(timestamp_epoch=str(int(time.time())), **event), 0)
            self.assertIn("gracectl fence-notify node1 --timeout 10", self.calls())

    def test_no_news(self):
        for event in (
            {"kind": "node", "node": "node1", "desc": "member"},
            self.fenced | {"desc": "Operation on of node1 by node2 for x@y: OK (ref=1)"},
            self.fenced | {"desc": "Operation reboot of node1 by node2 for x@y: No such device (ref=1)", "rc": "-19"},
            {"kind": "resource", "node": "node1", "rsc": "vs1", "task": "stop", "rc": "0"},
            {"kind": "attribute", "node": "node1"},
            {"kind": "node", "node": "node1", "desc": "lost", "timestamp_epoch": str(int(time.time()) - 120)},
            {},
        ):
            self.assertEqual(self.call(**event), 0)
            self.assert_not_called("gracectl|sudo")

    def test_as_pacemaker_runs_it(self):
        """As hacluster: by sudo, in the words that the sudoers file allows, with the node's name as they allow it."""
        event = {"kind": "node", "node": "node1", "desc": "lost", "FAKE_UID": "104"}
        self.assertEqual(self.call(**event), 0)
        self.assert_order(f"^sudo -n {self.bin}/gracectl fence-notify node1 --timeout 10$")
        rule = (HOOKS / "alert/sudoers").read_text()
        allowed = re.search(r"NOPASSWD: /usr/sbin/gracectl (\^.*\$)$", rule, re.MULTILINE)[1]
        self.assertTrue(re.fullmatch(allowed, "fence-notify node1.example --timeout 10"))
        for bad in ("lift", "fence-notify -x --timeout 1", "fence-notify node1 --timeout 10 --ipc other", "fence-notify a b --timeout 1"):
            self.assertFalse(re.fullmatch(allowed, bad))
        for node in ("--json", "a b", "$(touch x)", ""):
            self.assertEqual(self.call(**(event | {"node": node})), 1)
            self.assert_not_called("gracectl|sudo")

    def test_graced_does_not_answer(self):
        self.failing("gracectl*|3|graced does not run")
        self.assertEqual(self.call(kind="node", node="node1", desc="lost"), 1)
        self.assert_order("logger .*graced does not run")


if __name__ == "__main__":
    if not (OCF_ROOT / "lib/heartbeat/ocf-shellfuncs").exists() or not shutil.which("ocf-tester"):
        print("skipped: no resource-agents")
        sys.exit(77)
    sys.exit(unittest.main())
