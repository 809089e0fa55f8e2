#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/pacemaker.md: its recipes are executed as they stand there, by pcs and by crmsh, on a CIB in a file; then Pacemaker's
own scheduler (crm_simulate) says what it would do with the result when a cluster starts, a node dies, comes back, goes to
standby, a daemon fails. No cluster; a mount namespace in which the agents are where they would be installed. Exit code 77:
a tool is missing, or this is not root."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
DOCUMENT = SOURCE / "docs/pacemaker.md"
NODES = ("node1", "node2", "node3")
TOOLS = "pcs crm crm_verify crm_simulate cibadmin unshare".split()

# The power switch of the recipes, where fence-agents is not installed.
POWER = """#!/bin/sh
cat <<'END'
<?xml version="1.0" ?>
<resource-agent name="fence_ipmilan" shortdesc="stand-in">
<longdesc>stand-in</longdesc><vendor-url></vendor-url>
<parameters>
<parameter name="action" required="1"><getopt mixed="-o"/><content type="string" default="reboot"/><shortdesc lang="en">-</shortdesc></parameter>
<parameter name="ip" required="1"><getopt mixed="-a"/><content type="string"/><shortdesc lang="en">-</shortdesc></parameter>
<parameter name="username"><getopt mixed="-l"/><content type="string"/><shortdesc lang="en">-</shortdesc></parameter>
<parameter name="password"><getopt mixed="-p"/><content type="string"/><shortdesc lang="en">-</shortdesc></parameter>
<parameter name="port"><getopt mixed="-n"/><content type="string"/><shortdesc lang="en">-</shortdesc></parameter>
</parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions>
</resource-agent>
END
"""


def blocks(kind):
    """The fenced blocks of the document whose info string ends with `kind`."""
    found = re.findall(rf"^```(?:sh )?{kind}\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"no block {kind} in {DOCUMENT}"
    return "".join(found)


def run(command, directory, **more):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def overlay(target, directory):
    """What is written below target is seen by us alone."""
    upper, work = directory / "upper", directory / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={target},upperdir={upper},workdir={work}", target], "/")


def install(directory):
    overlay("/usr/sbin", directory / "sbin")
    overlay("/usr/lib/ocf/resource.d", directory / "ocf")
    overlay("/usr/share/pacemaker/alerts", directory / "alerts")
    shutil.copy(SOURCE / "gfs2-hooks/fence/fence_graced", "/usr/sbin/")
    shutil.copytree(SOURCE / "gfs2-hooks/ocf", "/usr/lib/ocf/resource.d/graced")
    shutil.copy(SOURCE / "gfs2-hooks/alert/alert_graced", "/usr/share/pacemaker/alerts/")
    if not Path("/usr/sbin/fence_ipmilan").exists():
        Path("/usr/sbin/fence_ipmilan").write_text(POWER)
        Path("/usr/sbin/fence_ipmilan").chmod(0o755)


def empty_cib(directory, name):
    tree = xml.fromstring(run(["cibadmin", "--empty"], directory))
    tree.set("have-quorum", "1")
    nodes = tree.find("configuration/nodes")
    for number, node in enumerate(NODES, 1):
        xml.SubElement(nodes, "node", id=str(number), uname=node)
    (directory / name).write_bytes(xml.tostring(tree))


def configure(directory):
    """cfg by pcs, cfg-lvm by pcs with LVM in between, crm.xml by crmsh."""
    empty_cib(directory, "cfg")
    run(["bash", "-euc", blocks("pcs")], directory)
    shutil.copy(directory / "cfg", directory / "kept")
    run(["bash", "-euc", blocks("pcs-lvm")], directory)
    shutil.move(directory / "cfg", directory / "cfg-lvm")
    shutil.move(directory / "kept", directory / "cfg")
    empty_cib(directory, "crm.xml")
    (directory / "crm.txt").write_text(blocks("crm"))
    environment = os.environ | {"CIB_file": str(directory / "crm.xml"), "HOME": str(directory)}
    run(["crm", "configure", "load", "update", "crm.txt"], directory, env=environment)


class Transition:
    """What the scheduler would do, and the state after that."""

    def __init__(self, directory, before, after, *events):
        self.text = run(["crm_simulate", "--simulate", "--xml-file", before, "--save-output", after, *events], directory)
        acts = self.text.split("Executing Cluster Transition:")[1].split("Revised Cluster Status:")
        # dlm:0 and dlm are the same clone; `monitor` comes after each start and is of no interest.
        self.actions = [
            (rsc.split(":")[0], action, node)
            for rsc, action, node in re.findall(r"Resource action: (\S+)\s+(start|stop) on (\S+)", acts[0])
        ]
        self.fenced = re.findall(r"Fencing (\S+) \((\w+)\)", acts[0])
        self.lines = acts[0].splitlines()
        self.status = acts[1]

    def of(self, node):
        """[(resource, action)] there, without the fence devices."""
        return [(r, a) for r, a, n in self.actions if n == node and not r.startswith("power") and r != "grace"]

    def host(self, server):
        found = re.search(rf"\* {server}\s+\(ocf:graced:server\):\s+Started (\S+)", self.status)
        return found and found[1]

    def position(self, resource, action, node=None):
        return next(i for i, (r, a, n) in enumerate(self.actions) if (r, a) == (resource, action) and node in (None, n))


class Recipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(os.environ["RECIPES_DIR"])
        install(cls.directory)
        configure(cls.directory)
        cls.running = cls.transition(cls, "cfg", "running", *(word for node in NODES for word in ("--node-up", node)))

    def transition(self, before, after, *events):
        return Transition(self.directory, before, after, *events)

    def assert_order(self, transition, node, *wanted):
        self.assertEqual(transition.of(node), list(wanted), transition.text)

    def test_valid(self):
        for name in ("cfg", "cfg-lvm", "crm.xml"):
            with self.subTest(name):
                # With nodes that are up: of others it complains that they are not fenced.
                up = f"{name}-valid"
                self.transition(name, up, *(word for node in NODES for word in ("--node-up", node)))
                self.assertEqual(run(["crm_verify", "--xml-file", up, "--verbose"], self.directory), "")

    def test_both_say_the_same(self):
        def tuples(name):
            """(parent's id, tag, what counts) of everything that the two tools do not name by themselves."""
            found = []
            for element in xml.parse(self.directory / name).find("configuration").iter():
                a = element.attrib
                if element.tag == "primitive":
                    found.append((a["id"], a["class"], a.get("provider"), a["type"]))
                    found += [(a["id"], n.get("name"), n.get("value")) for n in element.findall("instance_attributes/nvpair")]
                    found += [
                        (a["id"], o.get("name"), o.get("interval"), o.get("timeout"), o.get("on-fail"),
                         *[n.get("value") for n in o.findall("instance_attributes/nvpair")])
                        for o in element.findall("operations/op") if o.get("name") in ("start", "stop", "monitor")
                    ]  # fmt: skip
                elif element.tag == "clone":
                    found.append((a["id"], element.find("primitive").get("id")))
                    found += [(a["id"], n.get("name"), n.get("value")) for n in element.findall("meta_attributes/nvpair")]
                elif element.tag == "rsc_order":
                    found.append(("order", a["first"], a["then"]))
                elif element.tag == "rsc_colocation":
                    found.append(("colocation", a["rsc"], a["with-rsc"], a["score"]))
                elif element.tag == "fencing-level":
                    found.append(("level", a["target"], a["index"], a["devices"]))
                elif element.tag == "alert":
                    found.append(("alert", a["id"], a["path"]))
            return sorted(map(str, found))

        # pcs writes the timeout of a monitor that the agent's metadata gives; the recipe for crmsh spells it out.
        def without_defaults(rows):
            return [re.sub(r"'(\d+)s?'", r"'\1'", r) for r in rows]

        self.assertEqual(without_defaults(tuples("cfg")), without_defaults(tuples("crm.xml")))

    def test_fence_graced_is_never_alone(self):
        for name in ("cfg", "crm.xml"):
            tree = xml.parse(self.directory / name)
            known = tree.find(".//primitive[@id='grace']/instance_attributes/nvpair[@name='pcmk_host_list']").get("value")
            self.assertEqual(sorted(known.split(",")), list(NODES))
            for node in NODES:
                levels = [level.get("devices") for level in tree.iterfind(f".//fencing-level[@target='{node}']")]
                self.assertEqual(levels, [f"power{node[-1]},grace"])

    def test_start(self):
        for name in ("cfg", "crm.xml", "cfg-lvm"):
            with self.subTest(name):
                up = [word for node in NODES for word in ("--node-up", node)]
                started = self.transition(name, f"{name}-started", *up)
                between = [("lvmlockd", "start"), ("data-lv", "start")] if name == "cfg-lvm" else []
                hosts = {started.host("vs1"), started.host("vs2")}
                self.assertEqual(len(hosts - {None}), 2, started.text)
                for node in NODES:
                    servers = [(s, "start") for s in ("vs1", "vs2") if started.host(s) == node]
                    order = started.of(node)
                    for first, then in zip(
                        steps := [("dlm", "start"), *between, ("data", "start"), *servers], steps[1:]
                    ):
                        self.assertLess(order.index(first), order.index(then), started.text)
                    self.assertLess(order.index(("dlm", "start")), order.index(("graced", "start")), started.text)
                    self.assertLess(order.index(("graced", "start")), order.index(("data", "start")), started.text)

    def test_node_dies(self):
        victim = self.running.host("vs1")
        survivors = [n for n in NODES if n != victim]
        after = self.transition("running", "died", "--node-fail", victim)
        self.assertEqual(after.fenced, [(victim, "reboot")], after.text)
        # Nothing of a survivor stops, and vs1 starts where it goes after the fencing.
        for node in survivors:
            self.assertEqual([a for a in after.of(node) if a[1] == "stop"], [], after.text)
        self.assertIn(after.host("vs1"), survivors)
        fenced = next(i for i, line in enumerate(after.lines) if "Fencing" in line)
        started = next(i for i, line in enumerate(after.lines) if re.search(r"vs1\s+start", line))
        self.assertLess(fenced, started, after.text)
        self.assertEqual(after.host("vs2"), self.running.host("vs2"))
        # It comes back: its clones start in order, no server moves or is touched.
        back = self.transition("died", "back", "--node-up", victim)
        self.assert_order(back, victim, ("dlm", "start"), ("graced", "start"), ("data", "start"))
        for node in survivors:
            self.assert_order(back, node)

    def test_standby(self):
        node = self.running.host("vs1")
        shutil.copy(self.directory / "running", self.directory / "standing")
        environment = os.environ | {"CIB_file": str(self.directory / "standing")}
        run(["crm_attribute", "--node", node, "--name", "standby", "--update", "on"], self.directory, env=environment)
        after = self.transition("standing", "stood")
        self.assert_order(after, node, ("vs1", "stop"), ("data", "stop"), ("graced", "stop"), ("dlm", "stop"))
        self.assertEqual(after.fenced, [])
        self.assertNotEqual(after.host("vs1"), node)
        # One host at a time.
        self.assertLess(after.position("vs1", "stop", node), after.position("vs1", "start"), after.text)
        for other in NODES:
            if other != node:
                self.assertEqual([a for a in after.of(other) if a[1] == "stop"], [], after.text)

    def test_daemon_fails_for_good(self):
        """patience has run out: what depends on it stops first, in order, and starts again after it."""
        node = self.running.host("vs1")
        after = self.transition("running", "failed", "--op-inject", f"graced_monitor_20000@{node}=1")
        order = after.of(node)
        for first, then in ((("vs1", "stop"), ("data", "stop")), (("data", "stop"), ("graced", "stop"))):
            self.assertLess(order.index(first), order.index(then), after.text)
        self.assertLess(order.index(("graced", "stop")), order.index(("graced", "start")), after.text)
        self.assertNotIn(("dlm", "stop"), order)
        # A server that does not let go (no daemon, no grace): only fencing helps.
        stuck = self.transition("running", "stuck", "--op-inject", f"vs1_stop_0@{node}=1")
        self.assertEqual(stuck.fenced, [(node, "reboot")], stuck.text)

    def test_degraded_is_no_failure(self):
        node = self.running.host("vs1")
        after = self.transition("running", "degraded", "--op-inject", f"graced_monitor_60000@{node}=190")
        self.assertEqual((after.actions, after.fenced), ([], []), after.text)

    def test_daemon_runs_from_boot(self):
        """graced is enabled, and found running by the probe: nothing is held up by that, nothing is fenced."""
        found = self.transition(
            "cfg", "found", *(word for node in NODES for word in ("--node-up", node)),
            "--op-inject", "graced:0_monitor_0@node1=0",
        )  # fmt: skip
        self.assertEqual(found.fenced, [])
        for node in NODES:
            order = found.of(node)
            for first, then in (("dlm", "graced"), ("graced", "data")):
                self.assertLess(order.index((first, "start")), order.index((then, "start")), found.text)
        self.assertTrue(found.host("vs1") and found.host("vs2"), found.text)


if __name__ == "__main__":
    if "RECIPES_DIR" not in os.environ:
        missing = [tool for tool in TOOLS if not shutil.which(tool)]
        if missing or os.geteuid() != 0:
            print(f"skipped: {'not root' if os.geteuid() else 'no ' + ', '.join(missing)}")
            sys.exit(77)
        with tempfile.TemporaryDirectory() as mount_point:
            # A tmpfs: overlays cannot lie on everything. It goes with the namespace.
            inside = 'mount -t tmpfs recipes "$1" && RECIPES_DIR=$1 exec "$2" "${@:3}"'
            sys.exit(
                subprocess.run(
                    ["unshare", "-m", "bash", "-c", inside, "bash", mount_point, __file__, *sys.argv[1:]], check=False
                ).returncode
            )
    sys.exit(unittest.main())
