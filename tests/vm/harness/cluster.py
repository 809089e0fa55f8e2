"""A GFS2 cluster of VMs: corosync, dlm_controld with fencing, the filesystem on /srv/data; and clients,
which are VMs on the same network with nothing on them.

Nodes are node1, node2, … (corosync node id N, address 10.77.0.N), clients client1, … (10.77.0.50+N).
10.77.0.101 and up is free for servers' addresses. 10.77.0.254 is the host's end of the bridge."""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from dataclasses import dataclass
from typing import Callable

from . import image
from .errors import Failed, GuestGone, TimedOut, patience, stretch
from .fence import Fence
from .waiting import wait

MOUNT_POINT = "/srv/data"
FIRST_CLIENT = 51
STAGES = ("boot", "corosync", "dlm", "gfs2")


@dataclass(frozen=True)
class Needs:
    """What a scenario needs; scenarios with equal needs share a cluster."""

    nodes: int = 2
    clients: int = 1
    stage: str = "gfs2"  # how far nodes are brought up, one of STAGES
    token_ms: int = 5000  # emulated nodes are slow: much less and they lose each other when the host is busy
    transport: str = "udpu"
    fencing: bool = True
    dlm_conf: str = ""  # more lines for dlm.conf
    dlm_fence: str = ""  # fencing lines for dlm.conf instead of our fence_all
    mount_options: str = "noatime"
    icount: bool = False  # one instruction is one nanosecond of the guests' clocks (QEMU's -icount)
    before_mount: Callable | None = None  # called with (cluster, node) between dlm and gfs2
    after_mount: Callable | None = None


class Cluster:
    def __init__(self, session, needs):
        self.session, self.needs = session, needs
        self.journal, self.net = session.journal, session.net
        session.options.icount = needs.icount
        self.step_start = time.monotonic()
        self.fence = Fence(self)
        self.disk = session.dir / "shared.img"
        image.shared_disk(self.disk, max(needs.nodes, 2))
        specification = {}
        for number in range(1, needs.nodes + 1):
            own_disk = session.dir / f"node{number}.img"
            image.local_disk(own_disk)
            specification[f"node{number}"] = (number, (self.disk, own_disk))
        for number in range(1, needs.clients + 1):
            specification[f"client{number}"] = (FIRST_CLIENT - 1 + number, ())
        session.create_vms(specification, on_call=self.fence.call)
        session.cluster = self
        self.vms = list(session.vms.values())
        self.nodes = self.vms[: needs.nodes]
        self.clients = self.vms[needs.nodes :]
        self.joined = set()
        self.services = {}  # (VM, "corosync" | "dlm_controld" | what a scenario adds) -> Program

    def __getitem__(self, name):
        return self.session.vms[name]

    def by_id(self, node_id):
        return self.nodes[node_id - 1]

    # --- telling ---

    def step(self, text):
        """One line of the scenario's story, with the time since the scenario began."""
        self.journal.say(text, self.step_start)

    def wait(self, condition, deadline_s, what, every=0.2):
        """Polls condition() until true and returns its value; TimedOut names `what`."""
        return wait(condition, deadline_s, what, every)

    def each(self, function, vms=None):
        """function(vm) for all (default: nodes) at once; the list of results. The first error is raised at the end."""
        vms = list(self.nodes if vms is None else vms)
        if not vms:
            return []
        pool = ThreadPoolExecutor(len(vms))
        try:
            futures = [pool.submit(function, vm) for vm in vms]
            futures_wait(futures)
            return [future.result() for future in futures]
        finally:
            # When interrupted, do not wait for them: they end when the VMs do.
            pool.shutdown(wait=False, cancel_futures=True)

    # --- up ---

    def up(self):
        """Boots everything and brings the nodes up to the stage that is needed."""
        start = time.monotonic()
        for vm in self.vms:
            vm.start()
        seconds = self.each(lambda vm: vm.ready(), self.vms)
        self.journal.say(f"booted: {', '.join(f'{vm} {s:.1f} s' for vm, s in zip(self.vms, seconds))}", start)
        self.each(self.configure, self.clients)
        self.join(*self.nodes, tell=lambda text: self.journal.say(text, start))

    def join(self, *nodes, tell=lambda text: None):
        """Takes `nodes` into the cluster, all at once (a cold start needs that for quorum); boots those
        that are off, but not before the others have fenced them: that request would cut their power
        again (node.boot() first if just that is wanted)."""
        self.each(self._boot_after_fencing, nodes)
        self.each(self.configure, nodes)
        stage = STAGES.index(self.needs.stage)
        if stage >= 1:
            self.each(self.start_corosync, nodes)
            members = {node for node in self.joined if node.up()} | set(nodes)
            self.each(lambda node: self.wait_membership(node, members), nodes)
            tell("corosync: quorate, all members")
        if stage >= 2:
            self.each(self.start_dlm, nodes)
            tell("dlm_controld runs")
        if stage >= 3:
            self.each(self.mount, nodes)
            tell(f"GFS2 mounted on {MOUNT_POINT}")
        self.joined |= set(nodes)

    def _boot_after_fencing(self, node):
        if node.running():
            return
        if node in self.joined and self.needs.fencing and self.needs.stage in ("dlm", "gfs2"):
            others = [other for other in self.joined if other is not node and other.up()]
            if len(others) * 2 > self.needs.nodes or self.needs.nodes == 2 and others:
                self.fence.wait(node, timeout=120, since=node.started)
        node.boot()

    def leave(self, node):
        """Takes `node` out of the cluster in order: unmount, dlm_controld, corosync. It stays booted."""
        if self.mounted(node):
            node.run(f"umount {MOUNT_POINT}", timeout=60)
        for service in ("dlm_controld", "corosync"):
            program = self.services.get((node, service))
            if program and program.alive():
                program.signal()
                program.wait(30)
        self.joined.discard(node)

    def configure(self, vm):
        vm.put("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{each.address} {each.name}\n" for each in self.vms))
        if vm in self.nodes:
            vm.put("/etc/corosync/corosync.conf", self.corosync_conf())
            vm.put("/etc/dlm/dlm.conf", self.dlm_conf())

    def corosync_conf(self):
        needs = self.needs
        nodes = "".join(
            f"  node {{\n    ring0_addr: {node.address}\n    nodeid: {node.number}\n    name: {node.name}\n  }}\n"
            for node in self.nodes
        )
        two = "  two_node: 1\n  wait_for_all: 0\n" if needs.nodes == 2 else ""
        return f"""totem {{
  version: 2
  cluster_name: {image.CLUSTER_NAME}
  transport: {needs.transport}
  token: {round(stretch(needs.token_ms))}
  crypto_cipher: none
  crypto_hash: none
}}
nodelist {{
{nodes}}}
quorum {{
  provider: corosync_votequorum
{two}}}
logging {{
  to_stderr: no
  to_syslog: no
  to_logfile: yes
  logfile: /run/log/corosync.log
  timestamp: hires
}}
"""

    def dlm_conf(self):
        needs = self.needs
        lines = ["enable_plock=1", "enable_startup_fencing=0", "post_join_delay=1"]
        if not needs.fencing:
            lines.append("enable_fencing=0")
        lines += needs.dlm_conf.splitlines()
        if needs.fencing:
            lines += (needs.dlm_fence or f"fence_all {image.VM_DIR}/guest/fence_vm").splitlines()
        return "\n".join(lines) + "\n"

    def start_corosync(self, node):
        node.run("mkdir -p /var/lib/corosync /var/log/corosync /etc/corosync")
        self.services[node, "corosync"] = node.spawn("corosync -f", log="corosync-out")

    def start_dlm(self, node):
        node.run("modprobe -a dlm gfs2 && { mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config; }")
        self.services[node, "dlm_controld"] = node.spawn("dlm_controld -D", log="dlm_controld")
        self.wait(
            lambda: "quorate 1" in node.run("dlm_tool status", check=False).out, 30, f"dlm_controld on {node} to have quorum"
        )

    def mount(self, node):
        if self.needs.before_mount:
            self.needs.before_mount(self, node)
        node.run(f"mount -t gfs2 -o {self.needs.mount_options} /dev/vda {MOUNT_POINT}", timeout=90)
        if self.needs.after_mount:
            self.needs.after_mount(self, node)

    # --- state ---

    def members(self, node):
        """(quorate?, node ids) as corosync on `node` sees it; (False, empty) if it does not answer."""
        out = node.run("corosync-quorumtool -s", check=False).out
        ids = {int(found) for found in re.findall(r"^\s+(\d+)\s+\d+\s+\S", out, re.MULTILINE)}
        return bool(re.search(r"^Quorate:\s+Yes", out, re.MULTILINE)), ids

    def wait_membership(self, node, others, timeout=60):
        """Waits until `node` is quorate with exactly `others` (itself included)."""
        ids = {other.number for other in others}
        seen = None

        def same():
            nonlocal seen
            seen = self.members(node)
            return seen == (True, ids)

        try:
            self.wait(same, timeout, "")
        except TimedOut:
            raise TimedOut(f"waited {patience(timeout):g} s for {node} to be quorate with nodes {ids}; it sees {seen}") from None

    def logged(self, vm, log, pattern, since=0.0):
        """[(host's monotonic time, line)] of log `log` ("kernel", "corosync", a program's) of `vm` that match; a program that
        was started again (log-2, …) included."""
        vm.read_logs()
        sources = re.compile(rf"{re.escape(f'{vm}/{log}')}(-\d+)?$")
        return [(when, line) for when, _, line in self.journal.merged(since, sources) if re.search(pattern, line)]

    def mounted(self, node):
        return node.run(f"mountpoint -q {MOUNT_POINT}", check=False, timeout=10).rc == 0

    def heal(self):
        """Back to the state after up(), for the next scenario. Raises if that does not work."""
        self.fence.reset()
        self.net.heal()
        for vm in self.vms:
            if vm.paused:
                vm.resume()
            if not vm.linked:
                vm.restore()
        services = set(self.services.values())
        for vm in self.vms:
            if vm.up():
                for program in list(vm.programs.values()):
                    if program.alive() and program not in services:
                        program.kill()
        self.each(self._restore_client, self.clients)
        off = [node for node in self.nodes if node not in self.joined or not node.running()]
        self.join(*off)
        if STAGES.index(self.needs.stage) >= 1:
            self.each(lambda node: self.wait_membership(node, self.nodes, 30))
        for (vm, name), service in self.services.items():
            if not service.alive():
                raise Failed(f"{name} has ended on {vm}: {service.output()[-300:]}")
        if self.needs.stage == "gfs2":
            for node in self.nodes:
                node.run(f"mountpoint -q {MOUNT_POINT} && touch {MOUNT_POINT}/.harness && sync", timeout=30)

    def _restore_client(self, client):
        if client.up() and client.run("grep -q ' nfs4\\? ' /proc/mounts", check=False, timeout=10).rc == 0:
            client.kill()  # its server may be gone: such a mount is not got rid of in any other way
        if not client.running():
            client.boot()
            self.configure(client)

    # --- after a failure ---

    def collect(self):
        """Fetches logs and lock state of all guests that still answer into the run's directory."""

        def one(vm):
            if not vm.up():
                return f"{vm}: is off or paused"
            try:
                vm.run(f"{image.VM_DIR}/guest/collect", timeout=25)
                tar = vm.boot_dir / "collect.tar"
                vm.fetch("/run/collect.tar", tar)
                subprocess.run(["tar", "-xf", tar, "-C", vm.boot_dir, "--no-same-owner"], check=True)
                tar.unlink()
                vm.ping()
                return f"{vm}: collected"
            except (Failed, GuestGone, OSError) as error:
                return f"{vm}: {error}"

        return self.each(one, self.vms)
