"""For scenarios of the kernel modules: builds and loads them, and speaks to lockd_shim through shimctl."""

import fcntl
import re
import shutil
import subprocess
import threading

from harness import image
from harness.errors import Failed

LINE = re.compile(r"^\[(\d+\.\d+) (\d+\.\d+)\] #(\d+) (\w+) (.*)$", re.MULTILINE)
EVENT = re.compile(r"^\[(\d+\.\d+) (\d+\.\d+)\] event (\w+) (.*)$", re.MULTILINE)
FIELD = re.compile(r'([\w-]+)=("[^"]*"|\S+)')
EOF = (1 << 63) - 1
SOURCES = ("lockd-shim", "gfs2-hooks/gate")


built = {}
building = threading.Lock()


def build(kernel, mutants=False):
    """The modules for that kernel, under build/modules: the .ko files in the order of loading, and shimctl. Made once in a
    run: make takes half a minute beside the guests even if there is nothing to do."""
    with building:
        if (kernel, mutants) not in built:
            built[kernel, mutants] = make(kernel, mutants)
        return built[kernel, mutants]


def make(kernel, mutants):
    top = image.CHECKOUT / "build" / "modules" / (kernel + ("-mutants" if mutants else ""))
    top.mkdir(parents=True, exist_ok=True)
    with open(top / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ours = shutil.ignore_patterns("*.o", "*.ko", "*.mod", "*.mod.c", ".*", "Module.symvers", "modules.order", "shimctl")
        for source in SOURCES:
            shutil.copytree(image.CHECKOUT / source, top / source, ignore=ours, dirs_exist_ok=True)
        command = ["make", "-C", str(top / "gfs2-hooks/gate"), f"KVER={kernel}", "W=1"]
        for step in (command + (["GRACED_MUTANTS=1"] if mutants else []), ["make", "-C", str(top / "lockd-shim/tools")]):
            made = subprocess.run(step, text=True, capture_output=True)
            if made.returncode or "warning:" in made.stderr:
                raise Failed(f"{' '.join(step)}:\n{made.stdout[-3000:]}{made.stderr[-3000:]}")
        probe = ["gcc", "-std=gnu11", "-O2", "-Wall", "-pthread", "-o", str(top / "lockprobe"), str(image.VM_DIR / "guest/lockprobe.c")]
        subprocess.run(probe, check=True)
    return [top / "lockd-shim/lockd_shim.ko", top / "gfs2-hooks/gate/gfs2_gate.ko"], top / "lockd-shim/tools/shimctl"


def probe(kernel):
    """guest/lockprobe.c, compiled by build()."""
    return image.CHECKOUT / "build/modules" / kernel / "lockprobe"


def foreign(kernel):
    """A module that has GFS2's lock operation before us, as a live patch would."""
    top = image.CHECKOUT / "build/modules" / (kernel + "-foreign")
    shutil.copytree(image.VM_DIR / "guest/foreign_hook", top, dirs_exist_ok=True)
    subprocess.run(["make", "-C", f"/lib/modules/{kernel}/build", f"M={top}", "modules"], check=True, capture_output=True)
    return top / "foreign_hook.ko"


def plocks(node, path, space="data"):
    """[(type, first byte, last byte, node id, owner)] that dlm_controld on `node` has for the file, sorted; pieces that
    lie side by side (it never joins what it has split) as one."""
    inode = node.run(f"stat -c %i {path}").out.strip()
    found = set()
    for line in node.run(f"dlm_tool plocks {space}").out.splitlines():
        words = line.split()
        if inode in words and "WAITING" not in words:
            match = re.search(r"(RD|WR) (\d+)-(\d+) nodeid (\d+) pid -?\d+ owner (\w+)", line)
            found.add((match[1], int(match[2]), int(match[3]), int(match[4]), match[5]))
    joined = []
    for each in sorted(found, key=lambda lock: (lock[3], lock[4], lock[1])):
        last = joined[-1] if joined else None
        if last and (last[0], last[2] + 1, last[3], last[4]) == (each[0], each[1], each[3], each[4]):
            joined[-1] = (last[0], last[1], each[2], each[3], each[4])
        else:
            joined.append(each)
    return sorted(joined)


def local_locks(node, path):
    """[(type, first byte, last byte)] on the inode's list on `node`, POSIX and OFD, sorted."""
    inode = node.run(f"stat -c %i {path}").out.strip()
    found = []
    for line in node.run("cat /proc/locks").out.splitlines():
        match = re.search(r"(?:POSIX|OFDLCK)\s+\S+\s+(READ|WRITE)\s+-?\d+\s+\S+:(\d+) (\d+) (\d+|EOF)", line)
        if match and match[2] == inode and "->" not in line:
            found.append(("RD" if match[1] == "READ" else "WR", int(match[3]), EOF if match[4] == "EOF" else int(match[4])))
    return sorted(found)


def load(node, modules, parameters=""):
    node.run("modprobe grace")
    node.run(f"insmod {modules[0]} && insmod {modules[1]} {parameters}", timeout=60)


def start_mountd(node, options=""):
    """rpc.mountd; returns when it answers the kernel, which gives an export that nobody speaks for to no client."""
    program = node.spawn(f"rpc.mountd -F {options}", log="mountd")
    serves = f"find /proc/{program.pid}/fd -lname '*/nfsd.export/channel' | grep -q ."
    node.wait(lambda: node.run(serves, check=False).rc == 0, 30, "mountd to serve")
    return program


def start_nfsdcld(node):
    """Returns when it waits for its pipe. Or nfsd, which waits for it for a second only, keeps its records elsewhere: after a
    restart nobody reclaims."""
    program = node.spawn("nfsdcld -F -p /run/rpc_pipefs", log="nfsdcld")
    waits = f"grep -qs '^inotify' /proc/{program.pid}/fdinfo/*"
    node.wait(lambda: node.run(waits, check=False).rc == 0, 30, "nfsdcld to wait for its pipe")
    return program


def unload(node):
    """After their daemon, under which they cannot go."""
    node.run("pkill -x shimctl; true")
    gone = "rmmod gfs2_gate 2>/dev/null; rmmod lockd_shim 2>/dev/null; ! grep -qE '^(gfs2_gate|lockd_shim) ' /proc/modules"
    node.wait(lambda: node.run(gone, check=False).rc == 0, 10, "the modules to go")


def gates(cluster, mutants=False, permit_ms=20000):
    """Loads the modules on both nodes, and on each a daemon opens its gate: the Shim of node1, of node2."""
    modules, shimctl = build(cluster.session.options.kernel, mutants=mutants)
    cluster.each(lambda node: load(node, modules))
    shims = [Shim(node, shimctl) for node in cluster.nodes[:2]]
    for shim in shims:
        shim.start(permit_ms)
    return shims


class Shim:
    """One process of shimctl: a socket that may be the daemon's."""

    def __init__(self, node, shimctl, name="shim"):
        self.node = node
        self.program = node.spawn(str(shimctl), log=f"{node}-{name}")
        self.clock = node.clock
        self.commands = 0
        self.epoch = 0

    def ask(self, text, timeout=15):
        """The lines of the answer, without their head; the last one ends it."""
        self.commands += 1
        number = self.commands
        self.program.send(text + "\n")
        many = text == "ns"

        def lines():
            found = [result for _, _, n, _, result in LINE.findall(self.program.output()) if int(n) == number]
            if not found and not self.program.alive():
                raise Failed(f"shimctl has ended: {self.program.output()[-300:]}")
            return found if found and (not many or found[-1].startswith(("ok", "error"))) else None

        return self.node.wait(lines, timeout, f"shimctl to answer '{text}'", every=0.05)

    def order(self, text, expect="ok"):
        """Does `text`; its answer must be `expect` ("ok", an error's name, or None for fields)."""
        answer = self.ask(text)[-1]
        if expect is None and not answer.startswith("error") or answer.split()[:2] == ["error", expect] or answer == expect:
            return answer
        raise Failed(f"'{text}' gave '{answer}', not {expect}")

    def status(self):
        return fields(self.ask("status")[-1])

    def namespaces(self):
        """{inode: fields}"""
        found = [fields(line) for line in self.ask("ns")[:-1]]
        return {each["netns-ino"]: each for each in found}

    def events(self):
        """[(host's time, name, fields)] so far; needs the command "events"."""
        return [
            (float(boot) + self.clock.boot_offset, name, fields(text))
            for boot, _, name, text in EVENT.findall(self.program.output())
        ]

    def start(self, permit_ms=20000):
        """A daemon attaches, and opens the gate."""
        self.order("events")
        self.order("alone 1")  # or a server that stops waits for the others' gates
        self.order("attach", None)
        self.close()
        self.open(permit_ms)

    def open(self, permit_ms=20000):
        self.order(f"beat {permit_ms}")
        self.order(f"gate open {self.epoch} {self.status()['trips']}")

    def close(self):
        """Closes the gate for a new epoch."""
        self.epoch += 1
        self.order(f"gate closed {self.epoch}")

    def reclaim(self, what, netns="/proc/self/ns/net"):
        """`what`: give or withdraw."""
        self.order(f"reclaim {netns} {what} {self.epoch}")


def fields(text):
    return {name: int(value) if re.fullmatch(r"\d+", value) else value.strip('"') for name, value in FIELD.findall(text)}
