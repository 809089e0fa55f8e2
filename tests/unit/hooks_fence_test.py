#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_graced with a gracectl that is a stand-in: what callers say, what it asks, what it answers."""

import os
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

AGENT = Path(__file__).resolve().parents[2] / "gfs2-hooks/fence/fence_graced"
FAKE = """#!/bin/sh
echo "$*" >>"$FAKE_LOG"
sleep "${FAKE_SLEEP:-0}"
echo "gracectl says so" >&2
exit "${FAKE_EXIT:-0}"
"""


class FenceGraced(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.log = self.directory / "asked"
        gracectl = self.directory / "gracectl"
        gracectl.write_text(FAKE)
        gracectl.chmod(0o755)

    def call(self, *arguments, stdin="", **fake):
        """(exit code, standard error, what gracectl was asked)"""
        self.log.write_text("")
        environment = os.environ | {f"FAKE_{key.upper()}": str(value) for key, value in fake.items()}
        environment |= {"GRACED_CIB": str(self.directory / "cib.xml"), "FAKE_LOG": str(self.log), "PATH": f"{self.directory}:{os.environ['PATH']}"}
        done = subprocess.run(
            [AGENT, *arguments], input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        self.out = done.stdout
        return done.returncode, done.stderr, self.log.read_text().splitlines()

    def test_as_dlm_controld_calls(self):
        # dlm_controld/fence.c, fence_config.c: arguments of dlm.conf, node=, fail_time=; no action.
        code, told, asked = self.call(stdin="timeout=7\nnode=2\nfail_time=1700000000\n")
        self.assertEqual((code, asked), (0, ["fence-notify 2 --timeout 7"]))
        self.assertIn("dlm_controld, failed at 1700000000", told)
        # unfence_node(): nothing to do.
        self.assertEqual(self.call(stdin="node=2\naction=on\n")[::2], (0, []))
        # An action that an argument list in dlm.conf names counts.
        self.assertEqual(self.call(stdin="action=reboot\nnode=2\nfail_time=1\n")[2], ["fence-notify 2 --timeout 20"])

    def test_as_pacemaker_calls(self):
        stdin = "# comment\n\naction=off\nnodename=long.name\nport=node2\ncrm_feature_set=3.16\nnonsense\n"
        code, told, asked = self.call(stdin=stdin)
        self.assertEqual((code, asked), (0, ["fence-notify node2 --timeout 20"]))
        self.assertIn("Pacemaker", told)
        self.assertEqual(self.call(stdin="action=reboot\nplug=a\nport=b\nnode=1\n")[2], ["fence-notify a --timeout 20"])
        self.assertEqual(self.call(stdin="nodename=c\naction=off\n")[2], ["fence-notify c --timeout 20"])

    def test_never_alone(self):
        """Pacemaker would call a node fenced that nobody has powered off."""
        cib = self.directory / "cib.xml"
        topology = "<cib><configuration><fencing-topology>%s</fencing-topology></configuration></cib>"
        stdin = "action=off\nnodename=node2\nport=2\n"
        for level, expected in (
            ('<fencing-level target="node2" index="1" devices="power2,grace"/>', 0),
            ('<fencing-level target-pattern="node[12]" index="1" devices="power,grace"/>', 0),
            ('<fencing-level target-attribute="rack" target-value="1" index="1" devices="power,grace"/>', 0),
            ("", 1),
            ('<fencing-level target="node2" index="1" devices="grace"/>', 1),
            ('<fencing-level target="node1" index="1" devices="power1,grace"/>', 1),
        ):
            with self.subTest(level):
                cib.write_text(topology % level)
                code, told, asked = self.call(stdin=stdin)
                self.assertEqual(code, expected)
                self.assertEqual("refused" in told, bool(expected))
                self.assertEqual(len(asked), 1 - expected)
                # dlm_controld's parallel devices must all succeed: none of Pacemaker's business.
                self.assertEqual(self.call(stdin="node=2\nfail_time=1\n")[0], 0)
        cib.write_text("<cib")
        code, told, _ = self.call(stdin=stdin)
        self.assertEqual(code, 0)
        self.assertIn("cannot be read", told)

    def test_command_line(self):
        self.assertEqual(self.call("-o", "off", "-n", "node3", "--timeout=5")[2], ["fence-notify node3 --timeout 5"])
        self.assertEqual(self.call("--action", "reboot", "--port=3")[2], ["fence-notify 3 --timeout 20"])
        self.assertEqual(self.call("--help")[0], 0)

    def test_wrong_arguments(self):
        for arguments in (
            ("-o", "off"), ("-o", "explode", "-n", "1"), ("--speed", "3"), ("-n",), ("-n", "1", "--timeout", "soon"),
            ("-n", "1", "--timeout", "0"), ("-n", "1", "--on-timeout", "perhaps"),
        ):  # fmt: skip
            with self.subTest(arguments):
                code, told, asked = self.call(*arguments)
                self.assertEqual((code, asked), (1, []))
                self.assertTrue(told.startswith("fence_graced: "))
                self.assertNotIn("Traceback", told)

    def test_graced_is_sick(self):
        for failure in (1, 3, 4, 5, 6, 7):
            with self.subTest(failure):
                code, told, _ = self.call(stdin="node=2\n", exit=failure)
                self.assertEqual(code, 0)
                self.assertIn("Fencing goes on all the same", told)
                code, told, _ = self.call(stdin="node=2\non_timeout=fail\n", exit=failure)
                self.assertEqual(code, 1)
                self.assertIn("Fencing FAILS", told)

    def test_gracectl_hangs(self):
        for policy, expected in (("pass", 0), ("fail", 1)):
            with self.subTest(policy):
                begun = time.monotonic()
                code, told, _ = self.call(stdin=f"node=2\ntimeout=1\non_timeout={policy}\n", sleep=30)
                self.assertEqual(code, expected)
                self.assertIn("did not end within", told)
                self.assertLess(time.monotonic() - begun, 30)

    def test_no_gracectl(self):
        self.assertEqual(self.call(stdin="node=2\ngracectl=/nonexistent\n")[0], 0)
        self.assertEqual(self.call(stdin="node=2\ngracectl=/nonexistent\non_timeout=fail\n")[0], 1)

    def test_monitor(self):
        for action in ("monitor", "status"):
            with self.subTest(action):
                self.assertEqual(self.call(stdin=f"action={action}\n")[::2], (0, ["status --json"]))
                # Else the topology level would fail with it.
                self.assertEqual(self.call(stdin=f"action={action}\n", exit=3)[0], 0)
                self.assertEqual(self.call(stdin=f"action={action}\non_timeout=fail\n", exit=3)[0], 1)
        self.assertEqual(self.call(stdin="action=validate-all\n")[::2], (0, []))
        self.assertEqual(self.call(stdin="action=validate-all\ntimeout=x\n")[0], 1)

    def test_metadata(self):
        self.assertEqual(self.call(stdin="action=metadata\n")[0], 0)
        tree = xml.fromstring(self.out)
        parameters = {p.get("name"): p.find("content").get("default") for p in tree.iter("parameter")}
        self.assertEqual(parameters["timeout"], "20")
        self.assertEqual(parameters["on_timeout"], "pass")
        self.assertIn("port", parameters)
        self.assertEqual(
            {a.get("name") for a in tree.iter("action")},
            {"on", "off", "reboot", "status", "monitor", "metadata", "validate-all"},
        )
        # The schema of Debian's package fence-agents, where it is installed.
        schema = Path("/usr/share/cluster/relaxng/metadata.rng")
        if schema.exists():
            subprocess.run(["xmllint", "--noout", "--relaxng", schema, "-"], input=self.out, text=True, check=True)


if __name__ == "__main__":
    sys.exit(unittest.main())
