#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Dashboard, alert rules and docs/monitoring.md name what the daemon emits, and all of it is documented; the texts are
what the readers of such texts take (promtool, Prometheus' own parser; what is not installed is left out). Argument:
where the programs are (default build/bin)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "build/bin"
ALERTS = ROOT / "docs/monitoring/graced-alerts.yml"
DASHBOARD = ROOT / "docs/monitoring/graced-dashboard.json"
HERE = Path(__file__).parent
# node_exporter's own, about the file.
OTHERS = {"node_textfile_mtime_seconds"}


def promtool(*words, text=None):
    done = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


class Monitoring(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as work:
            done = subprocess.run(
                [BIN / "watch_metrics_test"], env={**os.environ, "METRICS_SAMPLE": work},
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            cls.open = (Path(work) / "openmetrics").read_text()
            cls.old = (Path(work) / "prometheus").read_text()
        cls.types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", cls.old, re.MULTILINE))
        cls.names = set()  # of samples, also of families that have none just now
        for name, kind in cls.types.items():
            suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}.get(kind, ("",))
            cls.names |= {name + suffix for suffix in suffixes}

    def named(self, expression):
        # Without label matchers, functions, and what stands in the legend.
        plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
        return set(re.findall(r"\b(?:graced|node)_\w+", re.sub(r"\bby \([^)]*\)", "", plain)))

    def test_every_sample_is_of_a_family(self):
        for line in self.old.splitlines():
            if not line.startswith("#"):
                self.assertIn(re.match(r"\w+", line)[0], self.names)
        helps = set(re.findall(r"^# HELP (\S+) \S", self.old, re.MULTILINE))
        self.assertEqual(helps, set(self.types))

    def test_names_and_units(self):
        families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.open, re.MULTILINE))
        units = dict(re.findall(r"^# UNIT (\S+) (\S+)$", self.open, re.MULTILINE))
        for name in families:
            self.assertTrue(name.startswith("graced_"), name)
            self.assertFalse(name.endswith(("_total", "_info", "_count", "_sum", "_bucket")), name)
            self.assertEqual(name.endswith("_seconds"), units.get(name) == "seconds", name)
        self.assertEqual(set(units.values()), {"seconds"})

    def test_alerts(self):
        text = ALERTS.read_text()
        expressions = re.findall(r"^ +expr: (.*)$", text, re.MULTILINE)
        self.assertEqual(len(expressions), len(re.findall(r"^ +- alert: ", text, re.MULTILINE)))
        self.assertGreater(len(expressions), 10)
        for expression in expressions:
            found = self.named(expression)
            self.assertTrue(found, expression)
            self.assertEqual(found - self.names - OTHERS, set(), expression)
        document = (ROOT / "docs/monitoring.md").read_text()
        for alert in re.findall(r"- alert: (\w+)", text):
            self.assertIn(f"| `{alert}` |", document)

    def test_dashboard(self):
        board = json.loads(DASHBOARD.read_text())
        used = set()
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        taken = set()
        for panel in board["panels"]:
            self.assertTrue(panel["targets"], panel["title"])
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} lies upon another panel")
            self.assertLessEqual(at["x"] + at["w"], 24)
            taken |= cells
            for target in panel["targets"]:
                found = self.named(target["expr"])
                self.assertTrue(found, panel["title"])
                self.assertEqual(found - self.names, set(), panel["title"])
                used |= found
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                self.assertEqual(set(re.findall(r"graced_\w+", json.dumps(variable))) - self.names, set())
        for note in board["annotations"]["list"]:
            self.assertEqual(self.named(note["expr"]) - self.names, set())
        self.assertGreater(len(used), 15)

    def test_document(self):
        rows = re.findall(r"^\| `(graced_\w+)` \| (\w+) ", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE)
        families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.open, re.MULTILINE))
        # In the document under the names that queries use.
        shown = {name + {"counter": "_total", "info": "_info"}.get(kind, ""): kind for name, kind in families.items()}
        self.assertEqual(dict(rows), shown)
        self.assertEqual(len(rows), len(shown))

    def test_prometheus_own_parser(self):
        try:
            from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
            from prometheus_client.parser import text_string_to_metric_families as parse_old
        except ImportError:
            self.skipTest("no python3-prometheus-client")
        families = {family.name: family for family in parse(self.open)}
        self.assertEqual(families["graced_phase"].type, "stateset")
        self.assertEqual(families["graced_build"].type, "info")
        self.assertEqual(families["graced_store_commit_seconds"].type, "histogram")
        samples = sum(len(family.samples) for family in families.values())
        self.assertEqual(samples, sum(len(family.samples) for family in parse_old(self.old)))

    @unittest.skipUnless(shutil.which("promtool"), "no promtool")
    def test_promtool(self):
        code, said = promtool("check", "metrics", text=self.old)
        self.assertEqual((code, said), (0, ""))
        code, said = promtool("check", "rules", ALERTS)
        self.assertEqual(code, 0, said)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write((HERE / "data/monitoring/alerts.test.yml").read_text().replace("ALERTS", str(ALERTS)))
            file.flush()
            code, said = promtool("test", "rules", file.name)
        self.assertEqual(code, 0, said)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BIN = Path(sys.argv.pop(1))
    unittest.main()
