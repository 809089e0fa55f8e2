# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster on this machine: real corosync and graced for each node, in namespaces of their own;
stand-ins for DLM, kernel and nfsd.

    with Cluster(3) as cluster:
        cluster.start()
        node1 = cluster[1]
        nfsd = node1.serve("vs1")
        assert nfsd.create("alice") == "ok"
        node1.kill()
        wait(lambda: cluster[2].status()["recovery"], 5, "a grace")

Each node has a network namespace with one cable to a bridge, and a mount namespace with its own /run
and /dev/shm (libqb keeps its rings there). One `graced-dlm --embedded` plays the DLM for all nodes.
Logs and databases are in build/netns/, sockets in a short-named directory under /tmp. Everything ends
with the Cluster, at SIGINT, SIGTERM, and when the harness is killed."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import tempfile
import time
from datetime import datetime
from pathlib import Path

import network
from processes import Failed, Program, patience, run, wait

CHECKOUT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("GRACED_BUILD", CHECKOUT / "build"))
BIN = BUILD / "bin"
RUNS = CHECKOUT / "build" / "netns"
KEPT_RUNS = 20

# A configuration for one host without corosync and DLM.
SINGLE = {"graced": {"state": "single"}, "locks": {"backend": None, "socket": None, "keeper": None},
          "cluster": {"dlm_group": None, "fence_command": None}, "grace": {"period": 60}}  # fmt: skip

COROSYNC = """\
totem {{
    version: 2
    cluster_name: graced-test
    transport: udpu
    token: {token}
    token_coefficient: 0
}}
system {{
    state_dir: {state}
    sched_rr: no
    move_to_cgroup: no
}}
quorum {{
    provider: corosync_votequorum
}}
logging {{
    to_stderr: no
    to_syslog: no
    to_logfile: yes
    logfile: {log}
    timestamp: hires
}}
nodelist {{
{nodes}}}
"""


class Ended(BaseException):
    """SIGINT or SIGTERM."""


def _on_signal(number, frame):
    raise Ended(signal.Signals(number).name)


class Cluster:
    """`config`: {"section": {"key": value}} laid over what each graced gets; value None: leave the key
    out. `token`: corosync's token timeout in ms, not multiplied by anything."""

    def __init__(self, nodes=3, token=1000, config=None, name="run"):
        self.token, self.config = token, config or {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _on_signal)
        network.sweep()
        RUNS.mkdir(parents=True, exist_ok=True)
        _forget_old_runs()
        # A directory for each cluster: two of one test in one second must not meet.
        stamp = datetime.now().strftime("%m%d-%H%M%S")
        self.dir = Path(tempfile.mkdtemp(prefix=f"{name}-{stamp}-", dir=RUNS))
        os.chmod(self.dir, 0o755)
        self.sockets = Path(tempfile.mkdtemp(prefix=f"gn{os.getpid()}-", dir="/tmp"))
        self.net = None
        self.dlm = None
        self.nodes = {}
        self.started = time.monotonic()
        try:
            self.net = network.Network(range(1, nodes + 1))
            self.nodes = {number: Node(self, number) for number in range(1, nodes + 1)}
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getitem__(self, number):
        return self.nodes[number]

    def __iter__(self):
        return iter(self.nodes.values())

    def close(self):
        """By pid, whatever state it is in."""
        old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            for node in self:
                node._kill_all()
            if self.dlm:
                self.dlm.kill()
            if self.net:
                self.net.remove()
            shutil.rmtree(self.sockets, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    # --- the whole of it ---

    def start(self):
        """The lock table, corosync and graced everywhere; until all gates are open."""
        self.start_dlm()
        for node in self:
            node.boot()
            node.start_corosync(ready=False)
        for node in self:
            node.wait_corosync()
        self.wait_membership(list(self.nodes))
        for node in self:
            node.start_graced(ready=False)
        for node in self:
            node.wait_graced()
        self.wait_open()

    def start_dlm(self):
        self.dlm = Program(
            "graced-dlm", [BIN / "graced-dlm", "--embedded", "--listen", self.dlm_socket, "--log-level", "debug"],
            self.dir / "graced-dlm.log",
        )  # fmt: skip
        wait(lambda: os.path.exists(self.dlm_socket) or not self.dlm.running(), 5, "graced-dlm's socket")

    @property
    def dlm_socket(self):
        return str(self.sockets / "dlm")

    def dlm_ctl(self, command, node=None):
        """dump, freeze, thaw, fenced, keeper-died."""
        words = [str(BIN / "graced-dlm"), "--ctl", self.dlm_socket, command]
        return run(words + ([str(node)] if node else [])).stdout

    def fence_done(self, number):
        """The node's power is known to be off: its locks are dropped, the lockspace goes on."""
        self.dlm_ctl("fenced", number)

    # --- what is waited for ---

    def wait_membership(self, numbers, deadline_s=15):
        """Corosync's, on each of these nodes."""
        for number in numbers:
            node = self[number]
            wait(
                lambda: node.corosync_members() == set(numbers), deadline_s,
                lambda: f"members {numbers} on {node.name}, which has {sorted(node.corosync_members())}",
                every=0.1,
            )  # fmt: skip

    def wait_open(self, nodes=None, deadline_s=15):
        nodes = nodes or [node for node in self if node.up]
        for node in nodes:
            wait(lambda: node.gate() == "open", deadline_s, lambda: f"an open gate on {node.describe()}")

    def wait_closed(self, nodes=None, deadline_s=5):
        nodes = nodes or [node for node in self if node.up]
        for node in nodes:
            wait(lambda: node.gate() != "open", deadline_s, lambda: f"a closed gate on {node.describe()}")

    def wait_grace(self, nodes=None, deadline_s=10):
        """Until each of them is in grace and enforces, and says so of all that live."""
        for node in nodes or [node for node in self if node.up]:

            def enforcing():
                status = node.status()
                return status["recovery"] and all(n["enforcing"] for n in status["nodes"] if n["live"])

            wait(enforcing, deadline_s, lambda: f"a grace on {node.describe()}", every=0.05)

    def wait_phase(self, phase, nodes=None, deadline_s=10):
        nodes = nodes or [node for node in self if node.up]
        for node in nodes:
            wait(
                lambda: node.running() and node.status()["phase"] == phase, deadline_s,
                lambda: f"phase {phase} on {node.describe()}", every=0.05,
            )  # fmt: skip


class Node:
    def __init__(self, cluster, number):
        self.cluster, self.number, self.name = cluster, number, f"node{number}"
        self.address = network.ADDRESS.format(number)
        self.dir = cluster.dir / self.name
        for directory in (self.dir, self.dir / "corosync", self.dir / "db"):
            directory.mkdir()
        self.log = self.dir / "graced.log"
        self.corosync_log = self.dir / "corosync.log"
        self.gate_socket = str(cluster.sockets / f"gate{number}")
        self.database = self.dir / "db" / "graced.sqlite"
        self.holder = self.corosync = self.graced = None
        self.nfsds = {}
        self.write_config()
        (self.dir / "corosync.conf").write_text(
            COROSYNC.format(
                token=cluster.token, state=self.dir / "corosync", log=self.corosync_log,
                nodes="".join(
                    f"    node {{\n        ring0_addr: {network.ADDRESS.format(n)}\n"
                    f"        name: node{n}\n        nodeid: {n}\n    }}\n" for n in cluster.net.numbers
                ),
            )
        )  # fmt: skip

    def write_config(self, changes=None):
        """graced.conf, with `changes` over the cluster's."""
        sections = {
            "graced": {"state": "cluster", "log_level": "debug", "runtime_dir": "/run/graced"},
            "grace": {"period": 20},
            "store": {"path": self.database},
            # The keeper is the harness's: what graced would start in its place must not be a real one.
            "locks": {"backend": "embedded", "socket": self.cluster.dlm_socket, "keeper": "/bin/false"},
            "gate": {"backend": "embedded", "socket": self.gate_socket},
            "cluster": {"dlm_group": "", "fence_command": f"{self.cluster.dir / 'fence'}"},
        }
        for more in (self.cluster.config, changes or {}):
            for section, keys in more.items():
                sections.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in sections.items():
            lines.append(f"[{section}]")
            lines += [f'{key} = "{value}"' for key, value in keys.items() if value is not None]
        self.config = self.dir / "graced.conf"
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    # --- power ---

    def boot(self):
        """Its namespaces; /run and /dev/shm are empty."""
        assert not self.up
        script = (
            f"hostname {self.name} && mount -t tmpfs -o mode=755,size=64m none /run && "
            "mount -t tmpfs -o mode=1777,size=96m none /dev/shm && "
            "cat /proc/sys/kernel/random/uuid > /run/boot_id && "  # a boot of its own
            "mount --bind /run/boot_id /proc/sys/kernel/random/boot_id && echo up && exec sleep infinity"
        )
        self.holder = Program(
            self.name, ["ip", "netns", "exec", self.cluster.net.namespace(self.number),
                        "unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script],
            self.dir / "holder.log", talks=True,
        )  # fmt: skip
        if self.holder.hear(10) != "up":
            raise Failed(f"no namespaces for {self.name}; see {self.holder.log}")

    @property
    def up(self):
        return self.holder is not None and self.holder.running()

    def inside(self, *command):
        """That command, in this node's namespaces."""
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--uts", "--", *map(str, command)]

    def kill(self):
        """A power failure: all its processes at once; the lockspace stops, as the DLM does, until
        fence_done(). What was on disk stays."""
        self._kill_all()
        self.cluster.dlm_ctl("freeze", self.number)

    def _kill_all(self):
        for nfsd in self.nfsds.values():
            nfsd.program.signal(signal.SIGKILL)
        programs = [program for program in (self.corosync, self.graced, self.holder) if program]
        for program in programs:
            program.signal(signal.SIGKILL)
        for program in programs:
            program.process.wait()
        self.nfsds = {}
        self.corosync = self.graced = self.holder = None

    def pause(self):
        """SIGSTOP of corosync: what a pause of the node looks like to the others."""
        self.corosync.signal(signal.SIGSTOP)

    def resume(self):
        self.corosync.signal(signal.SIGCONT)

    def cut(self):
        self.cluster.net.cut(self.number)

    def restore(self):
        self.cluster.net.restore(self.number)

    # --- corosync ---

    def start_corosync(self, ready=True):
        self.corosync = Program(
            f"corosync of {self.name}", self.inside("corosync", "-f", "-c", self.dir / "corosync.conf"),
            self.dir / "corosync.err",
        )  # fmt: skip
        if ready:
            self.wait_corosync()

    def wait_corosync(self, deadline_s=10):
        wait(
            lambda: self.number in self.corosync_members() or not self.corosync.running(), deadline_s,
            f"corosync on {self.name}; see {self.corosync_log}", every=0.05,
        )  # fmt: skip
        if not self.corosync.running():
            raise Failed(f"corosync of {self.name} ended with {self.corosync.status}; see {self.corosync_log}")

    def corosync_members(self):
        """As it sees them; empty if it does not answer."""
        said = run(self.inside("corosync-cmapctl", "runtime.members"), check=False, timeout=10).stdout
        return {int(n) for n in re.findall(r"members\.(\d+)\.status \(str\) = joined", said)}

    # --- graced ---

    def start_graced(self, ready=True, config=None, program="graced"):
        self.graced = Program(f"graced of {self.name}", self.inside(BIN / program, "--config", config or self.config), self.log)
        if ready:
            self.wait_graced()

    def wait_graced(self):
        wait(lambda: not self.graced.running() or self.status_or_none(), 10, f"graced on {self.name}; see {self.log}")
        if not self.graced.running():
            raise Failed(f"graced of {self.name} ended with {self.graced.status}: {self.last_log()}")

    def running(self):
        return self.graced is not None and self.graced.running()

    def gracectl(self, *words, timeout=10, check=True):
        """Its answer as JSON, with its exit status as "exit"."""
        done = run(self._gracectl(words), timeout=timeout, check=False)
        asked = f"gracectl {' '.join(map(str, words))} on {self.name}"
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise Failed(f"{asked}: status {done.returncode}, no JSON, but {done.stdout!r} {done.stderr!r}") from None
        if check and done.returncode != 0:
            raise Failed(f"{asked}: status {done.returncode}, {answer.get('error', answer)}")
        return {**answer, "exit": done.returncode}

    def _gracectl(self, words):
        # --ipc: it would look into this machine's /etc/graced.
        return self.inside(BIN / "gracectl", "--json", "--ipc", "graced", *words)

    def ask(self, *words):
        """A gracectl that may take long: a Program with .running(), .status."""
        return Program(
            f"gracectl {words[0]} on {self.name}", self._gracectl(words), self.dir / f"gracectl-{words[0]}.log"
        )  # fmt: skip

    def status(self):
        return self.gracectl("status")

    def status_or_none(self):
        if not self.up:
            return None
        answer = self.gracectl("status", check=False, timeout=10)
        return answer if "phase" in answer else None

    def describe(self):
        """For messages: what it says of itself now."""
        if not self.up:
            return f"{self.name} (off)"
        if not self.running():
            return f"{self.name} (no graced)"
        status = self.status_or_none()
        if status is None:
            return f"{self.name} (graced does not answer; {self.log})"
        return (
            f"{self.name} (phase {status['phase']}, gate {status['gate']}, lock {status['lock']['mode']}, "
            f"blocked by {status['blocked_by'] or 'nothing'}; {self.log})"
        )

    def server(self, name):
        """That server, as this node's status tells it; None if it does not know it."""
        return next((s for s in self.status()["servers"] if s["name"] == name), None)

    def clients(self, server):
        """{name: epoch} of the clients on record."""
        return {c["name"]: c["epoch"] for c in self.gracectl("clients", "--server", server)["clients"]}

    # --- locks ---

    def gate_ask(self, request):
        """Asks the stand-in gate; None if nobody answers (a closed gate then: the kernel's would be)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(patience(5))
            try:
                s.connect(self.gate_socket)
                s.send(request.encode())
                return s.recv(512).decode() or None
            except (ConnectionError, FileNotFoundError):
                return None
            except TimeoutError:
                raise Failed(f"the gate of {self.name} does not answer; see {self.log}") from None

    def try_lock(self):
        """A program on this node asks for a new lock: whether it got it."""
        return self.gate_ask("try local") == "granted"

    def wait_lock(self):
        """Until a program gets a new lock: a permit may run out for a moment on a busy machine."""
        wait(self.try_lock, 5, lambda: f"a lock on {self.describe()}")

    def gate(self):
        """open, closed, or none (no graced: the kernel's gate would be closed)."""
        return (self.gate_ask("status") or "none").split()[0]

    # --- NFS servers ---

    def serve(self, server, timeout=20, more=()):
        """Hosts the server here: announces it, waits until it may start, starts its nfsd."""
        return self.start_nfsd(server, self.announce(server, more), timeout)

    def announce(self, server, more=()):
        """As graced-server does; ends when its nfsd may start: no grace, or reclaim is open."""
        return self.ask(
            "server-start", server, "--netns", "/run/netns/none", "--nfsd-fs", "/none", "--pipe", self.pipe(server), *more
        )  # fmt: skip

    def start_nfsd(self, server, announced, timeout=20):
        if announced.wait_end(timeout) != 0:
            raise Failed(f"{announced.name} {server}: status {announced.status}; {announced.log}")
        return FakeNfsd(self, server)

    def pipe(self, server):
        return str(self.cluster.sockets / f"{server}.{self.number}")

    # --- database ---

    def damage_database(self):
        """Its daemon has ended: every page becomes noise, and nothing of it is in the log any more."""
        with sqlite3.connect(self.database) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with open(self.database, "r+b") as file:
            for start in range(0, file.seek(0, os.SEEK_END), 4096):
                file.seek(start + 100)
                file.write(os.urandom(3000))

    # --- logs ---

    def logged(self, pattern, log=None):
        """[(seconds since the epoch, line)] of the lines that match."""
        found = []
        for line in (log or self.log).read_text(errors="replace").splitlines():
            if re.search(pattern, line):
                found.append((log_time(line), line))
        return found

    def last_log(self, lines=3):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def monotonic(stamp):
    """A log's time on the clock of time.monotonic()."""
    return time.monotonic() - (time.time() - stamp)


def log_time(line):
    """graced's time stamp, or corosync's."""
    if found := re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(\+\d\d):?(\d\d)", line):
        return datetime.fromisoformat(f"{found[1]}{found[2]}:{found[3]}").timestamp()
    if found := re.match(r"([A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\.\d{3})", line):
        return datetime.strptime(f"{datetime.now().year} {found[1]}", "%Y %b %d %H:%M:%S.%f").timestamp()
    return None


class FakeNfsd:
    """nfsd of one server on one node, and its clients: tests/tools/fake_nfsd.cc."""

    def __init__(self, node, server, wait_s=15):
        self.node, self.server = node, server
        self.program = Program(
            f"nfsd of {server}", [BIN / "fake-nfsd", "--server", server, "--socket", node.pipe(server),
                                  "--gate", node.gate_socket, "--wait", str(wait_s)],
            node.dir / f"nfsd-{server}.log", talks=True,
        )  # fmt: skip
        node.nfsds[server] = self
        said = self.program.hear(wait_s + 25)
        if not said.startswith("tracking "):
            raise Failed(f"nfsd of {server} on {node.name} runs {said}")
        self.version, self.may_reclaim = map(int, said.split()[1:])
        node.gracectl("server-running", server)

    def _ask(self, line, timeout=10):
        self.program.say(line)
        return self.program.hear(timeout)

    def create(self, client):
        """A new client has state here; ok when it is on durable record everywhere."""
        return self._ask(f"create {client}")

    def remove(self, client):
        return self._ask(f"remove {client}")

    def reclaim(self, client):
        """ok, grace (later), or refused."""
        return self._ask(f"reclaim {client}")

    def lock(self):
        """A client asks for a new lock: whether it got it."""
        return self._ask("lock") == "granted"

    def wait_lock(self):
        wait(self.lock, 5, lambda: f"a lock from {self.server} on {self.node.describe()}")

    def stop(self):
        self.program.say("quit")
        self.program.wait_end(5)
        self.node.nfsds.pop(self.server, None)


def _forget_old_runs():
    for path in Path("/tmp").glob("gn[0-9]*-*"):  # sockets of those that were killed
        if not os.path.exists(f"/proc/{path.name[2:].split('-')[0]}"):
            shutil.rmtree(path, ignore_errors=True)
    runs = sorted((path for path in RUNS.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in runs[: max(0, len(runs) - KEPT_RUNS)]:
        shutil.rmtree(path, ignore_errors=True)
