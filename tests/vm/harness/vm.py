"""One VM: its QEMU process (power), its cable, and what can be done inside it through its agent."""

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

from . import image
from .channel import Channel
from .errors import CommandFailed, GuestGone, TimedOut, patience
from .timeline import Clock
from .waiting import wait

BOOT_DEADLINE_S = 120.0
CONSOLE_LINES = 40


class Result(NamedTuple):
    rc: int
    out: str
    err: str


class Program:
    """A program that runs in the background in a guest, its output in /run/log/NAME.log."""

    def __init__(self, vm, pid, log, path):
        self.vm, self.pid, self.log, self.path = vm, pid, log, path
        self.boot, self.boot_dir = vm.boots, vm.boot_dir
        self.rc = None
        self.ended = threading.Event()

    def __repr__(self):
        return f"{self.log} (pid {self.pid} on {self.vm.name})"

    def alive(self):
        return not self.ended.is_set() and self.vm.boots == self.boot and self.vm.up()

    def output(self):
        """All that it has printed; of a guest that is gone, as much as had reached the host."""
        if self.vm.boots == self.boot and self.vm.up():
            try:
                return self.vm.get(self.path)
            except GuestGone:
                pass
        copy = self.boot_dir / f"{self.log}.log"
        return copy.read_text() if copy.exists() else ""

    def wait(self, timeout=30):
        """Waits for its end; its exit status (negative: the signal)."""
        if not self.ended.wait(patience(timeout)):
            raise TimedOut(f"{self} did not end within {patience(timeout):g} s")
        if self.rc is None:
            raise GuestGone(f"{self}: its VM went down")
        return self.rc

    def send(self, text):
        """Writes to its standard input."""
        self.vm.channel.request("stdin", 5, pid=self.pid, data=text)

    def signal(self, number=signal.SIGTERM):
        self.vm.channel.request("signal", 5, pid=self.pid, signal=int(number))

    def kill(self):
        self.signal(signal.SIGKILL)


class VM:
    """A power switch, a cable and an agent. `number` gives address and MAC, 1..250."""

    def __init__(self, name, number, *, run_dir, net, journal, options, disks=(), on_call=None):
        self.name, self.number = name, number
        self.run_dir, self.net, self.journal, self.options, self.disks = run_dir, net, journal, options, disks
        self.on_call = on_call
        self.address = f"10.77.0.{number}"
        self.boots = 0
        self.process = None
        self.channel = None
        self.clock = None
        self.paused = False
        self.linked = True
        self.programs = {}
        self.hello = threading.Event()
        self.up_at = 0.0  # the guest's boottime of the agent's first word

    def __repr__(self):
        return self.name

    # --- power ---

    def start(self):
        """Switches it on; returns at once (see `ready`)."""
        assert not self.running(), f"{self.name} is running"
        self.boots += 1
        self.boot_dir = self._new_boot_dir()
        self.hello = threading.Event()
        self.programs = {}
        self.clock = Clock()
        host_end, guest_end = socket.socketpair()
        with open(self.boot_dir / "qemu.log", "w") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.net.netns, *self._qemu(guest_end.fileno())],
                pass_fds=[guest_end.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        guest_end.close()
        self._before_others()
        (self.run_dir / f"{self.name}.pid").write_text(f"{self.process.pid}\n")
        boot = self.boots
        self.channel = Channel(self.name, host_end, lambda message, now: self._on_message(boot, message, now))
        self.started = time.monotonic()
        self.journal.log(f"{self.name}: power on (boot {self.boots})")

    def ready(self, timeout=BOOT_DEADLINE_S):
        """Waits for the agent; returns the seconds since power on."""
        deadline = time.monotonic() + patience(timeout)
        while not self.hello.wait(0.2):
            if self.process.poll() is not None:
                raise GuestGone(f"{self.name}: qemu ended during boot, see {self.boot_dir}")
            if time.monotonic() > deadline:
                raise TimedOut(f"{self.name}: no agent {patience(timeout):g} s after power on, see {self.boot_dir / 'console.log'}")
        for _ in range(5):
            self.ping()
        return time.monotonic() - self.started

    def boot(self):
        """start() and ready()."""
        self.start()
        return self.ready()

    def kill(self):
        """Power failure: the VM is gone when this returns."""
        if not self.running():
            return
        self.journal.log(f"{self.name}: power off")
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._off()

    def pause(self, clock_runs=True):
        """Stops the VM in the middle of whatever it does. Afterwards its clocks have jumped, or, as after a
        hypervisor's own pause or a migration, have stood still meanwhile and it notices nothing."""
        self.journal.log(f"{self.name}: paused, its clock {'runs on' if clock_runs else 'stands still'}")
        if clock_runs:
            os.kill(self.process.pid, signal.SIGSTOP)
        else:
            self._monitor("stop")
        self.paused, self.clock_runs = True, clock_runs

    def resume(self):
        self.journal.log(f"{self.name}: resumed")
        if self.clock_runs:
            os.kill(self.process.pid, signal.SIGCONT)
        else:
            self._monitor("cont")
        self.paused = False

    def _monitor(self, command):
        """One command of QEMU's machine protocol."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self.boot_dir / "monitor"))
            lines = monitor.makefile("rw")
            lines.readline()  # the greeting
            for name in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": name}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    assert "error" not in answer, f"{self.name}: {name}: {answer}"

    def running(self):
        """QEMU exists (a paused VM runs; one whose kernel panicked does not)."""
        if self.process is None or self.process.returncode is not None:
            return False
        if self.process.poll() is None:
            return True
        # With -no-reboot that is what a panic or a reboot of the guest looks like; only the console has its reason.
        self.journal.log(f"{self.name}: qemu ended by itself ({self.process.returncode}); its console's last lines:")
        console = (self.boot_dir / "console.log").read_text(errors="replace")
        for line in console.splitlines()[-CONSOLE_LINES:]:
            self.journal.log(f"{self.name} console: {line}")
        self._off()
        return False

    def up(self):
        """Runs, is not paused, and its agent has answered in this boot."""
        return self.running() and not self.paused and self.hello.is_set()

    # --- cable ---

    def cut(self):
        """Pulls its network cable."""
        self.journal.log(f"{self.name}: network cut")
        self.net.link(self.name, False)
        self.linked = False

    def restore(self):
        self.journal.log(f"{self.name}: network restored")
        self.net.link(self.name, True)
        self.linked = True

    # --- inside ---

    def run(self, cmd, timeout=30, check=True, stdin=""):
        """Runs `cmd` with bash in the guest. At the timeout its process group is killed: TimedOut."""
        timeout = patience(timeout)
        reply = self.channel.request("run", timeout, cmd=cmd, timeout=timeout, stdin=stdin)
        if reply["timed_out"]:
            raise TimedOut(f"{self.name}: '{cmd}' still ran after {timeout:g} s; it had said: {(reply['out'] + reply['err']).strip()}")
        result = Result(reply["rc"], reply["out"], reply["err"])
        if check and result.rc:
            raise CommandFailed(self.name, cmd, result)
        return result

    def spawn(self, cmd, log):
        """Starts a program in the background; output goes to /run/log/LOG.log (LOG-2.log, … if taken) and to the timeline."""
        reply = self.channel.request("spawn", 10, cmd=cmd, log=log)
        program = Program(self, reply["pid"], reply["log"], reply["path"])
        self.programs[program.pid] = program
        return program

    def put(self, path, text, mode=0o644):
        data = text if isinstance(text, bytes) else text.encode()
        self.channel.request("put", 10, path=path, data=base64.b64encode(data).decode(), mode=mode)

    def get_bytes(self, path):
        data = b""
        while True:
            piece = base64.b64decode(self.channel.request("get", 10, path=path, offset=len(data))["data"])
            if not piece:
                return data
            data += piece

    def get(self, path):
        return self.get_bytes(path).decode(errors="replace")

    def fetch(self, path, host_path):
        """Copies a file of the guest to the host."""
        with open(host_path, "wb") as f:
            f.write(self.get_bytes(path))

    def ping(self):
        """Asks the agent for its time, to keep its clock's offset to ours."""
        sent = time.monotonic()
        reply = self.channel.request("ping", 5)
        self.clock.sample(sent, reply["received"], reply["at"], reply["realtime"])

    def read_logs(self):
        """What its logs have by now is in the journal when this returns; of one that is gone, all that ever will be."""
        try:
            if self.up():
                self.channel.request("logs", 10)
                return
        except (GuestGone, TimedOut):
            pass
        time.sleep(0.4)  # what had reached the host

    def wait(self, condition, deadline_s, what, every=0.2):
        return wait(condition, deadline_s, what, every)

    # --- private ---

    def _before_others(self):
        """Compilers beside it starve an emulated node until its cluster gives it up; the machine is theirs whenever it idles."""
        try:
            # Where there are autogroups, niceness counts within a session only, and this process has its own.
            Path(f"/proc/{self.process.pid}/autogroup").write_text("-10")
        except OSError:
            pass
        os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)

    def _new_boot_dir(self):
        for number in itertools.count(1):
            directory = self.run_dir / f"{self.name}-boot{number}"
            if not directory.exists():
                directory.mkdir()
                return directory

    def _off(self):
        self.paused = False
        self.hello.clear()
        self.channel.close()
        (self.run_dir / f"{self.name}.pid").unlink(missing_ok=True)
        for program in list(self.programs.values()):
            program.ended.set()

    def _on_message(self, boot, message, now):
        if boot != self.boots:
            return
        if "hello" in message:
            self.clock.sample(now, now, message["at"], message["realtime"])
            self.up_at = message["at"]
            self.hello.set()
        elif "log" in message:
            with open(self.boot_dir / f"{message['log']}.log", "a") as f:
                f.write(message["text"])
            self.journal.guest(self, message["log"], message["text"], message["at"])
        elif "exit" in message:
            program = self.programs.get(message["exit"])
            if program:
                program.rc = message["rc"]
                program.ended.set()
        elif "call" in message:
            threading.Thread(target=self._call, args=(self.channel, message), daemon=True).start()

    def _call(self, channel, message):
        try:
            fields = self.on_call(self, message) if self.on_call else {"rc": 1, "text": "nobody answers calls here"}
        except Exception as error:
            self.journal.log(f"{self.name}: call {json.dumps(message)} failed: {error}")
            fields = {"rc": 1, "text": str(error)}
        try:
            channel.answer(message["call"], fields)
        except GuestGone:
            pass

    def _qemu(self, agent_fd):
        options = self.options
        command = [
            "qemu-system-x86_64", "-name", f"{self.net.netns}-{self.name}",
            *options.accelerator(), "-m", str(options.memory_mib), "-smp", "1",
            "-qmp", f"unix:{self.boot_dir / 'monitor'},server=on,wait=off",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-serial", f"file:{self.boot_dir / 'console.log'}",
            "-kernel", str(image.kernel_image(options.kernel)), "-initrd", str(image.initramfs(options.kernel)),
            "-append", " ".join([
                "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 random.trust_cpu=on init_on_alloc=0 tsc=reliable",
                # On a busy machine the boot's own test of the timer runs out of patience, and the kernel panics.
                "no_timer_check",
                # Nor does the boot measure the TSC right there: a guest's clock ran 2.7 times as fast, and took the others'
                # corosync along. HPET is exact by construction.
                "" if options.icount else "clocksource=hpet",
                f"graced.name={self.name} graced.address={self.address} graced.checkout={image.CHECKOUT}",
            ]),
            "-virtfs", "local,path=/,mount_tag=root,security_model=passthrough,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={image.CHECKOUT},mount_tag=checkout,security_model=passthrough,readonly=on,multidevs=remap",
            "-netdev", f"tap,id=net,ifname=tap-{self.name},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,mac=52:54:00:77:00:{self.number:02x},romfile=",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,fd={agent_fd}",
            "-device", "virtserialport,chardev=agent,name=agent",
        ]  # fmt: skip
        for number, disk in enumerate(self.disks):
            # What a killed QEMU had been told to write is in the host's page cache, which the others
            # read through: no flush to the host's disk is needed for that. Only a crash of the host
            # would lose it.
            command += [
                "-drive", f"file={disk},if=none,id=disk{number},format=raw,cache=unsafe,file.locking=off",
                "-device", f"virtio-blk-pci,drive=disk{number},share-rw=on",
            ]  # fmt: skip
        return command
