# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that end with the harness, and waiting that ends.

Each program that is started here gets SIGKILL from the kernel when the harness is gone, however that
came about (PR_SET_PDEATHSIG; it goes by the thread that started it: start programs from the main
thread only)."""

import ctypes
import os
import signal
import subprocess
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

# Stretches every deadline, for machines that are busy with something else.
slowness = float(os.environ.get("GRACED_SLOW", "1"))

# Deadlines are there against hanging only: what is late for a moment must not fail. How fast something has to be, a test
# measures.
PATIENCE = 3


def patience(seconds):
    return seconds * slowness * PATIENCE


class Failed(Exception):
    """What was expected did not happen."""


class Late(Failed):
    """… in time."""


class Skip(Exception):
    """This test cannot be run here."""


def wait(condition, deadline_s, what, every=0.02):
    """Polls; returns the first true value. `what` names what was waited for: text, or a function that
    gives it (for the state at the end)."""
    end = time.monotonic() + patience(deadline_s)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Late(f"not within {patience(deadline_s):g} s: {what() if callable(what) else what}")
        time.sleep(every)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(command, timeout=10, check=True, **options):
    """A short command; its CompletedProcess."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience(timeout),
            preexec_fn=_die_with_parent, **options,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Late(f"not within {patience(timeout):g} s: {' '.join(command)}") from None
    if check and done.returncode != 0:
        raise Failed(f"status {done.returncode} of {' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done


class Program:
    """A program in the background. `log`: a file for its standard error, and its output unless
    `talks` (then its standard input and output are pipes)."""

    def __init__(self, name, command, log, talks=False):
        self.name, self.log = name, log
        with open(log, "ab") as to:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else to, stderr=to, bufsize=0, start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.pid = self.process.pid
        self._unread = b""

    def running(self):
        return self.process.poll() is None

    @property
    def status(self):
        """The exit status; -N: died of signal N; None: it runs."""
        return self.process.poll()

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout=5):
        """SIGTERM, and SIGKILL for one that does not mind it."""
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(patience(timeout))
        except subprocess.TimeoutExpired:
            self.kill()
            raise Late(f"{self.name} did not end within {patience(timeout):g} s after SIGTERM") from None

    def wait_end(self, timeout):
        wait(lambda: not self.running(), timeout, f"the end of {self.name}")
        return self.status

    # --- a program that talks: a line to it, a line back ---

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def heard(self):
        """Whether a line has come that was not taken yet."""
        if b"\n" not in self._unread:
            os.set_blocking(self.process.stdout.fileno(), False)
            more = self.process.stdout.read(65536)
            if more == b"":
                raise Failed(f"{self.name} ended, status {self.process.wait(5)}; see {self.log}")
            self._unread += more or b""
        return b"\n" in self._unread

    def hear(self, timeout):
        """The next line, without its end."""
        wait(self.heard, timeout, f"a line of {self.name}", every=0.005)
        first, self._unread = self._unread.split(b"\n", 1)
        return first.decode()
