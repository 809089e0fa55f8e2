"""A scenario's view of one lock owner in a guest (../guest/locker.py)."""

import re

from . import image
from .errors import Failed

LINE = re.compile(r"^\[(\d+\.\d+) (\d+\.\d+)\] #(\d+) (\w+) (.*)$", re.MULTILINE)


class Locker:
    """A process that owns locks on `path`; kind posix, ofd or flock. Its lines are in the timeline under `name`."""

    def __init__(self, node, path, name, kind="posix"):
        self.node, self.name = node, name
        self.program = node.spawn(f"{image.VM_DIR}/guest/locker.py {path} {kind}", log=name)
        self.clock = node.clock
        self.commands = 0
        self._answer(0, 30)

    def __repr__(self):
        return f"{self.name} on {self.node}"

    def lock(self, kind="w", start=0, length=0, timeout=30):
        """F_SETLKW; returns when granted, with the host's time of the grant."""
        self.start_lock(kind, start, length)
        return self.wait_granted(timeout)

    def start_lock(self, kind="w", start=0, length=0):
        """F_SETLKW; returns when it has been sent into the kernel (see granted, wait_granted)."""
        self._command(f"lock {kind} {start} {length}")
        self._wait(lambda: self.commands in [number for number, *_ in self.lines()], 10, "to have asked for the lock")

    def granted(self):
        """Whether the lock asked for last is granted; raises if it failed."""
        result = self._result(self.commands)
        if result and result[1] != "granted":
            raise Failed(f"{self}: lock: {result[1]}")
        return bool(result)

    def wait_granted(self, timeout=30):
        """Waits for the lock asked for last; the host's time of the grant."""
        self._wait(self.granted, timeout, "to be granted its lock")
        return self._result(self.commands)[0]

    def try_lock(self, kind="w", start=0, length=0, timeout=10):
        """F_SETLK; whether it was granted."""
        return self._expect(f"try {kind} {start} {length}", ("granted", "busy"), timeout) == "granted"

    def poll(self, seconds, kind="w", start=0, length=0):
        """Starts trying F_SETLK every 50 ms; see granted_after."""
        self._command(f"poll {seconds} {kind} {start} {length}")

    def ended_poll(self):
        """None while poll() goes on, else (granted?, the host's time)."""
        result = self._result(self.commands)
        return result and (result[1].startswith("granted"), result[0])

    def granted_after(self, timeout=30):
        """Waits for the end of poll(); (granted?, the host's time)."""
        self._wait(self.ended_poll, timeout, "to end its polling")
        return self.ended_poll()

    def unlock(self, start=0, length=0, timeout=10):
        self._expect(f"unlock {start} {length}", ("ok",), timeout)

    def test(self, kind="w", start=0, length=0, timeout=10):
        """F_GETLK: "free" or "held TYPE START LENGTH PID"."""
        return self._ask(f"test {kind} {start} {length}", timeout)

    def write(self, text, timeout=10):
        """Makes `text` the file's content, on stable storage."""
        self._expect(f"write {text}", ("ok",), timeout)

    def read(self, timeout=10):
        return self._ask("read", timeout)

    def command(self, text, timeout=10):
        """Any command of guest/locker.py; its result, errors included ("error EIO")."""
        return self._ask(text, timeout)

    def alive(self):
        return self.program.alive()

    def close(self):
        """Ends the process, and with it its locks, as SIGKILL does."""
        self.program.kill()
        self.program.wait(10)

    def lines(self):
        """[(command number, host time, verb, result)] of this process so far."""
        found = LINE.findall(self.program.output())
        return [(int(number), float(boot) + self.clock.boot_offset, verb, result) for boot, _, number, verb, result in found]

    def _command(self, text):
        self.commands += 1
        self.program.send(text + "\n")

    def _result(self, number):
        for line_number, when, _, result in self.lines():
            if line_number == number and result != "waits":
                return when, result
        return None

    def _answer(self, number, timeout):
        self._wait(lambda: self._result(number), timeout, f"to answer command {number}")
        return self._result(number)[1]

    def _ask(self, text, timeout):
        self._command(text)
        return self._answer(self.commands, timeout)

    def _expect(self, text, allowed, timeout):
        result = self._ask(text, timeout)
        if result not in allowed:
            raise Failed(f"{self}: {text}: {result}")
        return result

    def _wait(self, condition, timeout, what):
        def value():
            found = condition()
            if not found and not self.program.alive():
                raise Failed(f"{self} has ended while waiting {what}: {self.program.output()[-500:]}")
            return found

        self.node.wait(value, timeout, f"{self} {what}")
