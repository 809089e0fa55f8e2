# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of one run: a bridge in a network namespace of its own, and a namespace for each node
with one cable to it. Nothing is connected to the machine's own network."""

import contextlib
import os
import re
import signal
from pathlib import Path

from processes import run

ADDRESS = "10.99.7.{}"


def sweep():
    """Removes the namespaces of runs whose harness was killed."""
    for path in Path("/run/netns").glob("g[0-9]*"):
        found = re.fullmatch(r"g(\d+)(n\d+|sw)", path.name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            run(["ip", "netns", "delete", path.name], check=False)


class Network:
    def __init__(self, numbers):
        self.prefix = f"g{os.getpid()}"
        self.switch = f"{self.prefix}sw"
        self.numbers = []
        try:
            self._create(numbers)
        except BaseException:
            self.remove()
            raise

    def _create(self, numbers):
        self._command("netns", "add", self.switch)
        for bridge in ("br0", "br1"):  # br1: the other side of a partition
            self._switch("link", "add", bridge, "type", "bridge")
            self._switch("link", "set", bridge, "up")
        for number in numbers:
            name = self.namespace(number)
            self.numbers.append(number)
            self._command("netns", "add", name)
            self._switch("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            self._switch("link", "set", f"v{number}", "master", "br0", "up")
            self._command("-n", name, "link", "set", "lo", "up")
            self._command("-n", name, "address", "add", f"{ADDRESS.format(number)}/24", "dev", "eth0")
            self._command("-n", name, "link", "set", "eth0", "up")

    def namespace(self, number):
        return f"{self.prefix}n{number}"

    def cut(self, number):
        """Takes the cable out of the bridge. The interface stays up: corosync binds itself to the
        loopback when its interface goes down, which is not what a broken switch does."""
        self._switch("link", "set", f"v{number}", "nomaster")

    def restore(self, number):
        self._switch("link", "set", f"v{number}", "master", "br0")

    def split(self, numbers):
        """Those nodes see each other only; the others too."""
        # Those first: who measures from before the call counts the commands until then, too.
        for number in sorted(self.numbers, key=lambda n: n not in numbers):
            self._switch("link", "set", f"v{number}", "master", "br1" if number in numbers else "br0")

    def remove(self):
        for number in self.numbers:
            # What outlives its parent, as some of Pacemaker's daemons do.
            for pid in run(["ip", "netns", "pids", self.namespace(number)], check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run(["ip", "netns", "delete", self.namespace(number)], check=False)
        run(["ip", "netns", "delete", self.switch], check=False)

    def _command(self, *words):
        run(["ip", *words])

    def _switch(self, *words):
        self._command("-n", self.switch, *words)
