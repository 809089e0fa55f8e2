"""The power switch behind the guests' fence agent (../guest/fence_vm): kills the victim's QEMU, takes
its time, answers. A scenario can make it slow or let it fail."""

import re
import threading
import time
from dataclasses import dataclass

from .errors import TimedOut, stretch


@dataclass
class Fencing:
    """One request. Times are the host's monotonic clock; `answered` is None while it is going on."""

    victim: str
    asked_by: str
    asked: float
    answered: float | None = None
    ok: bool | None = None


class Fence:
    def __init__(self, cluster):
        self.cluster = cluster
        self.history = []
        self.reset()

    def reset(self):
        self.delay_s = 2.0  # from the power cut to the answer
        self.delay_before_s = 0.0  # from the request to the power cut
        self.fail_next = 0  # so many requests are refused, the victim untouched
        self.released = threading.Event()
        self.released.set()

    def hold(self):
        """No request is acted on until release()."""
        self.released.clear()

    def release(self):
        self.released.set()

    def fenced(self, node, since=0.0):
        """The first successful fencing of `node` that was asked for after `since`, or None."""
        for fencing in list(self.history):
            if fencing.victim == node.name and fencing.ok and fencing.asked >= since:
                return fencing
        return None

    def wait(self, node, timeout=60, since=0.0):
        """Waits until `node` has been fenced."""
        return self.cluster.wait(lambda: self.fenced(node, since), timeout, f"{node} to be fenced")

    def call(self, vm, message):
        """A guest's call {"verb": "fence", "stdin": key=value lines}."""
        if message["verb"] != "fence":
            return {"rc": 1, "text": f"no such verb: {message['verb']}"}
        fields = dict(re.findall(r"^(\w+)=(.*)$", message["stdin"], re.MULTILINE))
        victim = self.cluster.by_id(int(fields["node"])) if "node" in fields else self.cluster[fields["port"]]
        fencing = Fencing(victim.name, vm.name, time.monotonic())
        self.history.append(fencing)
        journal = self.cluster.journal
        journal.say(f"fence: {vm} asks for {victim} ({', '.join(message['stdin'].split())})", self.cluster.step_start)
        if not self.released.wait(stretch(600)):
            raise TimedOut("fencing was held and never released")
        if self.fail_next > 0:
            self.fail_next -= 1
            ok = False
        else:
            time.sleep(self.delay_before_s)
            victim.kill()
            time.sleep(self.delay_s)
            ok = True
        # In this order: who sees that it is over asks when.
        fencing.answered = time.monotonic()
        fencing.ok = ok
        text = f"{victim} is off" if fencing.ok else f"{victim}: power switch does not answer"
        took = fencing.answered - fencing.asked
        journal.say(f"fence: {text} ({took:.1f} s, told {vm})", self.cluster.step_start)
        return {"rc": 0 if fencing.ok else 1, "text": text}
