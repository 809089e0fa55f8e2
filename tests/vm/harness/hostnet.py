"""The test network: a network namespace of its own on the host with a bridge and one tap for each VM.
No traffic leaves it, and two harness runs do not see each other."""

import subprocess

PREFIX = "10.77.0"
NETNS_PREFIX = "graced-vm-"


class HostNet:
    def __init__(self, run_id):
        self.netns = f"{NETNS_PREFIX}{run_id}"

    def create(self, names):
        command("ip", "netns", "add", self.netns)
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", "br0", "type", "bridge")
        self._ip("address", "add", f"{PREFIX}.254/24", "dev", "br0")
        self._ip("link", "set", "br0", "up")
        for name in names:
            self._ip("tuntap", "add", tap(name), "mode", "tap")
            self._ip("link", "set", tap(name), "master", "br0", "up")

    def destroy(self):
        subprocess.run(["ip", "netns", "delete", self.netns], capture_output=True)

    def link(self, name, up):
        """Plugs a VM's cable in or out."""
        self._ip("link", "set", tap(name), "up" if up else "down")

    def partition(self, side, other):
        """Drops everything between two groups of VM names, both ways; everyone else still sees both."""
        self.heal()
        self._nft("add table bridge cut")
        self._nft("add chain bridge cut forward { type filter hook forward priority 0; }")
        for a in side:
            for b in other:
                self._nft(f"add rule bridge cut forward iifname {tap(a)} oifname {tap(b)} drop")
                self._nft(f"add rule bridge cut forward iifname {tap(b)} oifname {tap(a)} drop")

    def lose(self, percent):
        """Loses that part of all packets between VMs, at random."""
        self.heal()
        self._nft("add table bridge cut")
        self._nft("add chain bridge cut forward { type filter hook forward priority 0; }")
        self._nft(f"add rule bridge cut forward numgen random mod 100 < {percent} drop")

    def heal(self):
        """Ends partition() and lose()."""
        subprocess.run(["ip", "netns", "exec", self.netns, "nft", "delete table bridge cut"], capture_output=True)

    def _ip(self, *arguments):
        command("ip", "-netns", self.netns, *arguments)

    def _nft(self, rule):
        command("ip", "netns", "exec", self.netns, "nft", rule)


def tap(name):
    return f"tap-{name}"


def command(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
