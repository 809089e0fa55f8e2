"""One harness run: its directory under build/vm, its network, its VMs, and their end.

Whatever ends the run ends the VMs; what even SIGKILL of the harness leaves behind is found by the
next run (the run's lock is free, its pid files are there) and ended then."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from . import hostnet, image
from .timeline import Journal
from .vm import VM

KEPT_RUNS = 20
VERBS = ("kill", "boot", "join", "pause", "resume", "cut", "restore")


class Interrupted(BaseException):
    """SIGINT or SIGTERM."""


class Session:
    def __init__(self, options, echo=True):
        self.options = options
        end_leftovers()
        self.run_id = f"{os.getpid()}-{int(time.time()) % 100000}"
        self.dir = image.BUILD_DIR / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.dir.mkdir(parents=True)
        self.lock = open(self.dir / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.journal = Journal(self.dir, echo)
        self.net = hostnet.HostNet(self.run_id)
        (self.dir / "netns").write_text(self.net.netns)
        self.vms = {}
        self.cluster = None
        self.control = None

    def __enter__(self):
        def interrupt(number, frame):
            raise Interrupted(signal.Signals(number).name)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        return self

    def __exit__(self, *_):
        # Nothing may come between here and the last kill.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.end_vms()
        if self.control:
            self.control.close()
        (self.dir / "control").unlink(missing_ok=True)
        for disk in self.dir.glob("*.img"):
            disk.unlink()
        (self.dir / "lock").unlink()

    def create_vms(self, specification, on_call=None):
        """`specification`: {name: (number, disks)}; makes the network and the VMs, all switched off."""
        self.net.create(specification)
        for name, (number, disks) in specification.items():
            self.vms[name] = VM(
                name, number, run_dir=self.dir, net=self.net, journal=self.journal,
                options=self.options, disks=disks, on_call=on_call,
            )  # fmt: skip
        if not self.control:
            self._serve_control()

    def end_vms(self):
        for vm in self.vms.values():
            vm.kill()
        self.vms = {}
        self.net.destroy()

    # --- tests/vm/attach ---

    def _serve_control(self):
        self.control = socket.socket(socket.AF_UNIX)
        directory = os.open(self.dir, os.O_RDONLY)
        self.control.bind(f"/proc/self/fd/{directory}/control")  # the path itself may be too long
        os.close(directory)
        self.control.listen(8)
        threading.Thread(target=self._accept, args=(self.control,), daemon=True).start()

    def _accept(self, control):
        while True:
            try:
                connection, _ = control.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rw") as stream:
            request = json.loads(stream.readline())
            try:
                reply = self._do(request)
            except (Exception, Interrupted) as error:
                reply = {"rc": 125, "out": "", "err": f"{error}\n"}
            stream.write(json.dumps(reply) + "\n")

    def _do(self, request):
        if request["node"] == "host":
            verb, *names = request["cmd"].split()
            if verb not in VERBS:
                raise ValueError(f"verbs: {', '.join(VERBS)}")
            for name in names:
                if verb == "join":
                    self.cluster.join(self.vms[name])
                else:
                    getattr(self.vms[name], verb)()
            return {"rc": 0, "out": "", "err": ""}
        if request["node"] not in self.vms:
            raise ValueError(f"there are: {', '.join(self.vms)}")
        vm = self.vms[request["node"]]
        return vm.run(request["cmd"], timeout=request["timeout"], check=False)._asdict()


def runs():
    return sorted(image.BUILD_DIR.glob("run-*/"))


def is_alive(run):
    try:
        with open(run / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def ask(request):
    """The client's end of the control socket: to the newest run that is alive."""
    alive = [run for run in runs() if is_alive(run) and (run / "control").exists()]
    if not alive:
        raise SystemExit("no run is alive; start one with: tests/vm/run --keep")
    directory = os.open(alive[-1], os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"/proc/self/fd/{directory}/control")
        with sock.makefile("rw") as stream:
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            return json.loads(stream.readline())


def end_leftovers():
    """Ends the VMs and networks of runs that were killed before they could; forgets the oldest runs."""
    for run in runs():
        if not (run / "lock").exists() or is_alive(run):
            continue
        netns = (run / "netns").read_text() if (run / "netns").exists() else ""
        for pid_file in run.glob("*.pid"):
            pid = int(pid_file.read_text())
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                command = b""
            # The pid may be someone else's by now.
            if netns and f"{netns}-{pid_file.stem}".encode() in command.split(b"\0"):
                os.kill(pid, signal.SIGKILL)
            pid_file.unlink()
        if netns:
            subprocess.run(["ip", "netns", "delete", netns], capture_output=True)
        for disk in run.glob("*.img"):
            disk.unlink()
        (run / "lock").unlink()
    for run in [run for run in runs() if not is_alive(run)][:-KEPT_RUNS]:
        shutil.rmtree(run, ignore_errors=True)
