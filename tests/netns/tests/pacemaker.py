# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Pacemaker on three nodes, configured by the crmsh recipe of docs/pacemaker.md, with graced's agents. Played besides what
is played on this level anyway: dlm_controld and GFS2 (ocf:pacemaker:Dummy), systemctl, the power switch, and of graced-server all
that is not gracectl (namespaces, nfsd, addresses)."""

import re
import shutil
import subprocess
from pathlib import Path

from harness import BIN, FakeNfsd
from processes import Failed, Program, Skip, patience, wait

SOURCE = Path(__file__).resolve().parents[3]
HOOKS = SOURCE / "gfs2-hooks"
LIMIT_S = 900  # three nodes of Pacemaker on two cores

SYSTEMCTL = """#!/bin/sh
case $1 in is-active) gracectl --json status >/dev/null 2>&1 && echo active ;; esac
"""
DLM_TOOL = "#!/bin/sh\necho 'cluster nodeid 1 quorate 1 ring seq 8 8'\n"
# @PLAY@/NODE/SERVER: exists while the server is here. Its nfsd is the test's: started when .start comes, ended when .stop comes;
# the test removes both when it has done so.
SERVER = """#!/bin/bash
server=$2 file=@PLAY@/$(hostname)/$2
case $1 in
start)
    [ -e "$file" ] && exit
    gracectl server-start "$server" --netns /run/netns/none --nfsd-fs /none --pipe "@SOCKETS@/$server.@NUMBER@" &&
        touch "$file.start" && while [ -e "$file.start" ]; do sleep 0.1; done && touch "$file" ;;
stop)
    [ -e "$file" ] || exit 0
    gracectl server-stop "$server" && touch "$file.stop" && while [ -e "$file.stop" ]; do sleep 0.1; done &&
        gracectl server-released "$server" && rm -f "$file" ;;
status) [ -e "$file" ] && echo "server $server: running" || exit 3 ;;
list) for it in @PLAY@/$(hostname)/*; do [ -e "$it" ] && echo "server ${it##*/}: running"; done; exit 0 ;;
esac
"""
# Off when the test says so: @PLAY@/fenced.NODE.
POWER = """#!/bin/bash
while IFS='=' read -r key value; do declare "got_$key=$value"; done
case ${got_action:-$2} in
metadata) cat <<'END'
<?xml version="1.0"?>
<resource-agent name="fence_ipmilan" shortdesc="played"><longdesc>played</longdesc><vendor-url></vendor-url><parameters>
<parameter name="action"><content type="string" default="off"/></parameter><parameter name="ip"><content type="string"/></parameter>
<parameter name="username"><content type="string"/></parameter><parameter name="password"><content type="string"/></parameter>
<parameter name="port"><content type="string"/></parameter></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions></resource-agent>
END
    ;;
off | reboot)
    touch "@PLAY@/asked.$got_nodename"
    while [ ! -e "@PLAY@/fenced.$got_nodename" ]; do sleep 0.1; done ;;
esac
"""


class Stack:
    def __init__(self, cluster):
        for tool in ("pacemakerd", "crm", "cibadmin"):
            if not shutil.which(tool):
                raise Skip(f"no {tool}")
        self.cluster = cluster
        self.play = cluster.dir / "play"
        self.play.mkdir()
        self.play.chmod(0o777)
        self.programs, self.nfsds = [], {}

    def inside(self, node, *command, check=True, timeout=60, **options):
        done = subprocess.run(
            node.inside(*command), capture_output=True, text=True, check=False, timeout=patience(timeout), **options
        )
        if check and done.returncode != 0:
            raise Failed(f"{command} on {node.name}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, node):
        """Overlays in the node's mount namespace, Pacemaker's directories of its own, pacemakerd."""
        own = node.dir / "pacemaker"
        shutil.rmtree(own, ignore_errors=True)
        (self.play / node.name).mkdir(exist_ok=True)
        for path in ("sbin", "agents", "lib/cib", "lib/pengine", "lib/blackbox", "lib/cores", "log"):
            (own / path).mkdir(parents=True)
        for name, text in (("systemctl", SYSTEMCTL), ("dlm_tool", DLM_TOOL), ("graced-server", SERVER), ("fence_ipmilan", POWER)):
            for word, value in (("PLAY", self.play), ("SOCKETS", self.cluster.sockets), ("NUMBER", node.number)):
                text = text.replace(f"@{word}@", str(value))
            (own / "sbin" / name).write_text(text)
            (own / "sbin" / name).chmod(0o755)
        shutil.copy(HOOKS / "fence/fence_graced", own / "sbin")
        for name in ("graced", "graced-dlm", "gracectl"):
            (own / "sbin" / name).symlink_to(BIN / name)
        shutil.copytree(HOOKS / "ocf", own / "agents/graced")
        self.inside(node, "sh", "-ec", f"""
            over() {{ mkdir -p /run/over/$1/u /run/over/$1/w; cp -a $3/. /run/over/$1/u
                mount -t overlay none -o lowerdir=$2,upperdir=/run/over/$1/u,workdir=/run/over/$1/w $2; }}
            over sbin /usr/sbin {own}/sbin; over ocf /usr/lib/ocf/resource.d {own}/agents
            mkdir -p /run/crm; chown -R hacluster:haclient /run/crm {own}/lib {own}/log
            mount --bind {own}/lib /var/lib/pacemaker; mount --bind {own}/log /var/log/pacemaker""")  # fmt: skip
        node.pacemaker = Program(
            f"pacemakerd of {node.name}",
            node.inside("env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PCMK_logfile={own}/log/pacemaker.log", "PCMK_logfacility=none",
                        "pacemakerd", "-f"),
            node.dir / "pacemakerd.log",
        )  # fmt: skip
        self.programs.append(node.pacemaker)

    def view(self, node):
        return self.inside(node, "crm_mon", "-1", "--inactive", check=False)

    def configure(self, node):
        recipe = re.search(r"^```crm\n(.*?)^```", (SOURCE / "docs/pacemaker.md").read_text(), re.MULTILINE | re.DOTALL)[1]
        recipe = recipe.replace("ocf:pacemaker:controld", "ocf:pacemaker:Dummy")
        recipe = re.sub(r"ocf:heartbeat:Filesystem params .*? op ", "ocf:pacemaker:Dummy op ", recipe)
        recipe = re.sub(r"^alert .*$", "", recipe, flags=re.MULTILINE)  # needs sudo
        (node.dir / "recipe").write_text(recipe)
        self.inside(node, "env", f"HOME={node.dir}", "crm", "configure", "load", "update", str(node.dir / "recipe"), timeout=120)

    def tend(self):
        """What the harness does in the place of graced-server: nfsds come and go."""
        for node in self.cluster:
            if not node.up:
                continue
            for file in (self.play / node.name).glob("*.start"):
                self.nfsds[file.stem] = FakeNfsd(node, file.stem)
                file.unlink()
            for file in (self.play / node.name).glob("*.stop"):
                node.nfsds.pop(file.stem).stop()
                file.unlink()

    def wait(self, condition, seconds, what):
        def now():
            self.tend()
            return condition()

        return wait(now, seconds, what, every=0.5)

    def host(self, node, server):
        # Behind a start its first monitor is under way, and said so.
        started = rf"\* {server}\s+\(ocf:graced:server\):\s+Started (node\d)(?: \(Monitoring\))?\s*$"
        found = re.search(started, self.view(node), re.MULTILINE)
        return found and next(n for n in self.cluster if n.name == found[1])


def started(make):
    cluster = make(3, token=3000, config={"grace": {"period": 60}})
    stack = Stack(cluster)
    cluster.start()
    for node in cluster:
        stack.start(node)
    node = cluster[1]
    stack.wait(lambda: "Online: [ node1 node2 node3 ]" in stack.view(node), 120, "Pacemaker on three nodes")
    stack.configure(node)
    stack.wait(lambda: stack.host(node, "vs1") and stack.host(node, "vs2"), 120, lambda: f"both servers:\n{stack.view(node)}")
    return cluster, stack


def test_failover(make):
    """A node dies, its server starts elsewhere after power and fence_graced; in standby it moves: a client reclaims each time."""
    cluster, stack = started(make)
    victim = stack.host(cluster[1], "vs1")
    others = [n for n in cluster if n is not victim]
    kept = stack.host(victim, "vs2")
    assert kept is not victim, "both servers on one node"
    assert stack.nfsds["vs1"].create("alice") == "ok"

    victim.kill()
    cluster.wait_grace()
    asked = stack.play / f"asked.{victim.name}"
    stack.wait(asked.exists, 120, "Pacemaker to fence the node")
    assert all(not n.try_lock() for n in others)
    for node in others:
        assert not list((stack.play / node.name).glob("vs1*")), "vs1 was started before the fencing was over"
    cluster.fence_done(victim.number)
    (stack.play / f"fenced.{victim.name}").touch()
    new = stack.wait(lambda: stack.host(others[0], "vs1"), 120, lambda: f"vs1 elsewhere:\n{stack.view(others[0])}")
    assert new in others and stack.host(new, "vs2") is kept
    assert stack.nfsds["vs1"].reclaim("alice") == "ok"
    cluster.wait_open()
    lines = [line for n in others for line in (n.dir / "pacemaker/log/pacemaker.log").read_text(errors="replace").splitlines()]
    log = "\n".join(sorted(lines, key=lambda line: line[: len("Nov 29 21:16:22.226")]))  # each device may be another node's work
    devices = re.findall(rf"Operation 'off' \[\d+\] targeting {victim.name} using (\w+) returned 0", log)
    assert devices == [f"power{victim.number}", "grace"], devices
    assert f"node {victim.name} is fenced (Pacemaker): every live node enforces" in log

    # A planned move: the stop begins the grace, the start joins it.
    epoch = new.status()["current"]
    last = next(n for n in others if n is not new)
    stack.inside(new, "crm_standby", "--node", new.name, "--update", "on")
    stack.wait(lambda: stack.host(last, "vs1") is last, 120, lambda: f"vs1 on {last.name}:\n{stack.view(last)}")
    assert stack.nfsds["vs1"].reclaim("alice") == "ok"
    cluster.wait_open()
    assert last.status()["current"] == epoch + 1, "not one grace for one move"
    assert "Failed" not in stack.view(last), stack.view(last)
    return f"{victim.name} -> {new.name} -> {last.name}"


def test_migrate(make):
    """gracectl migrate: Pacemaker moves the server in one grace; no constraint is left, and the server stays."""
    cluster, stack = started(make)
    host, busy = stack.host(cluster[1], "vs1"), stack.host(cluster[1], "vs2")
    new = next(n for n in cluster if n not in (host, busy))
    assert stack.nfsds["vs1"].create("alice") == "ok"
    epoch = host.status()["current"]
    asked = busy.ask("migrate", "vs1", new.name, "--timeout", "120")
    stack.wait(lambda: not asked.running(), 120, lambda: f"the move:\n{stack.view(new)}")
    assert asked.status == 0, Path(asked.log).read_text()
    assert stack.host(new, "vs1") is new
    assert stack.nfsds["vs1"].reclaim("alice") == "ok"
    cluster.wait_open()
    assert new.status()["current"] == epoch + 1, "not one grace for one move"
    assert "cli-" not in stack.inside(new, "cibadmin", "--query", "--scope", "constraints")
    return f"{host.name} -> {new.name}"
