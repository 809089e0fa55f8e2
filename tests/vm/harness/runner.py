"""Finds scenarios, boots what they need, runs them, tells how it went."""

import ast
import functools
import importlib.util
import itertools
import os
import re
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from . import errors, image
from .cluster import Cluster, Needs
from .errors import Failed, Skip, TimedOut
from .session import Interrupted, Session

SCENARIO_DIR = image.VM_DIR / "scenarios"
LIMIT_S = 600.0
PRINTED_LINES = 80
PROGRAMS = ("qemu-system-x86_64", "cpio", "modprobe", "busybox", "ip", "nft", "mkfs.ext4", "mkfs.gfs2", "corosync", "dlm_controld")

# A kernel that says one of these has a bug; a slow emulation does not make it say them.
COMPLAINTS = re.compile(
    r"\bBUG:|\bOops\b|WARNING: CPU|WARNING: possible|general protection fault|kernel BUG at|refcount_t:|list_(add|del) corruption|"
    r"UBSAN:|KASAN:|Kernel panic|scheduling while atomic|sleeping function called|gfs2: .*(withdraw|fatal)"
)

# Debian's own 6.1 says these; seen without any module of ours.
KNOWN = re.compile(
    # memcpy into the flexible part of a DLM message, harmless; when messages arrive during recovery
    r"fs/dlm/requestqueue\.c:\d+ dlm_add_requestqueue"
)
# dlm_controld tells everything; the full timeline has it.
NOISE = re.compile(r"/dlm_controld +\d+ (?!.*(fenc|_kernel|purge_plocks|daemon (left|joined)|quorate|lost|fail))|/corosync .*\[KNET")


@dataclass
class Scenario:
    name: str
    module: object
    needs: Needs
    limit_s: float
    tolerates: re.Pattern | None  # kernel complaints that are this scenario's point
    fresh: bool  # a cluster of its own, for what heal() cannot undo


def names():
    return sorted(path.stem.replace("_", "-") for path in SCENARIO_DIR.glob("[!_]*.py"))


def description(name):
    path = SCENARIO_DIR / f"{name.replace('-', '_')}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")


@functools.cache
def load_module(name):
    path = SCENARIO_DIR / f"{name.replace('-', '_')}.py"
    if not path.exists():
        raise SystemExit(f"no scenario {name} (tests/vm/run --list)")
    if str(SCENARIO_DIR) not in sys.path:  # scenarios may share helpers in files of their own: _NAME.py
        sys.path.insert(0, str(SCENARIO_DIR))
    specification = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def load(name):
    module = load_module(name)
    needs = Needs(
        nodes=getattr(module, "NODES", 2), clients=getattr(module, "CLIENTS", 1), **getattr(module, "CLUSTER", {})
    )
    tolerates = getattr(module, "TOLERATES", None)
    return Scenario(
        name, module, needs, getattr(module, "LIMIT_S", LIMIT_S), re.compile(tolerates) if tolerates else None,
        getattr(module, "FRESH", False),
    )  # fmt: skip


def ci_list():
    lines = (image.VM_DIR / "ci.list").read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def together(scenarios):
    """The same scenarios, those with equal needs side by side: each boot costs half a minute."""
    order = list(dict.fromkeys(scenario.needs for scenario in scenarios))
    return sorted(scenarios, key=lambda scenario: order.index(scenario.needs))


def check_programs():
    if os.geteuid() != 0:
        raise SystemExit("must be root: network namespaces, mkfs, 9p of the whole root")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        packages = " ".join((image.VM_DIR / "packages").read_text().split())
        raise SystemExit(f"missing: {', '.join(missing)}; apt-get install {packages}")


def run(scenarios, options, *, keep=False, bare=None):
    """Runs `scenarios` (may be none with keep: just boots `bare`, a Needs). Returns the exit status."""
    check_programs()
    # What lasts for an hour in emulation must not hang on a forgotten deadline.
    signal.signal(signal.SIGALRM, _out_of_time)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed_names = []
    with Session(options) as session:
        print(f"kernel {options.kernel}, {options.accel}; logs in {session.dir}", flush=True)
        try:
            if not scenarios:
                boot(session, bare)
            for needs, group in itertools.groupby(scenarios, key=lambda scenario: scenario.needs):
                cluster = None
                if session.vms:
                    session.end_vms()
                group = list(group)
                for scenario in group:
                    if cluster and scenario.fresh and scenario is not group[0]:
                        session.end_vms()
                        cluster = None
                    if cluster is None:
                        cluster = boot(session, needs)
                    result = "failed" if cluster is None else run_one(session, cluster, scenario)
                    counts[result] += 1
                    if result == "failed":
                        failed_names.append(scenario.name)
                        if keep:
                            raise _Kept
                        session.end_vms()
                        cluster = None
                    elif scenario is not group[-1] and (scenario.fresh or not restore(session, cluster, scenario)):
                        session.end_vms()
                        cluster = None
            if keep:
                raise _Kept
        except _Kept:
            print("kept; tests/vm/attach NODE CMD; Ctrl-C ends it", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except Interrupted:
                pass
        except Interrupted as reason:
            print(f"ended by {reason}")
            counts["failed"] += 1
        if failed_names:
            print(f"failed: {', '.join(failed_names)}; logs in {session.dir}")
    if scenarios:
        print(", ".join(f"{count} {what}" for what, count in counts.items()), flush=True)
    return 1 if counts["failed"] else 0


class _Kept(Exception):
    pass


def _out_of_time(number, frame):
    raise TimedOut("the scenario's time limit is over (LIMIT_S)")


def boot(session, needs):
    """A cluster of that kind, or None (said and logged) if it does not come up."""
    print(f"boot: {needs.nodes} nodes, {needs.clients} clients", flush=True)
    start = time.monotonic()
    cluster = None
    try:
        cluster = Cluster(session, needs)
        cluster.up()
        return cluster
    except Exception as error:
        session.journal.say(f"boot failed: {describe(error)}", start)
        after_failure(session, cluster, start)
        session.end_vms()
        return None


def run_one(session, cluster, scenario):
    """"passed", "failed" or "skipped"."""
    print(f"{scenario.name}: {description(scenario.name)}", flush=True)
    cluster.step_start = start = time.monotonic()
    session.journal.log(f"scenario {scenario.name} begins")
    signal.setitimer(signal.ITIMER_REAL, errors.stretch(scenario.limit_s), 10)  # again, should a scenario swallow it
    result, why = "passed", ""
    try:
        scenario.module.run(cluster)
        complaints = kernel_complaints(session, start, scenario.tolerates)
        if complaints:
            raise Failed("the kernel complained: " + "; ".join(complaints[:5]))
    except Skip as reason:
        result, why = "skipped", f": {reason}"
    except Exception as error:
        result, why = "failed", f": {describe(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    session.journal.log(f"scenario {scenario.name} {result}{why}")
    if result == "failed":
        after_failure(session, cluster, start)
    print(f"{result:<7} {scenario.name} ({time.monotonic() - start:.1f} s){why}", flush=True)
    return result


def restore(session, cluster, scenario):
    """Whether the cluster is fit for the next scenario."""
    start = time.monotonic()
    try:
        if hasattr(scenario.module, "cleanup"):
            scenario.module.cleanup(cluster)
        cluster.heal()
        session.journal.log(f"restored in {time.monotonic() - start:.1f} s")
        return True
    except Exception as error:
        session.journal.say(f"not fit for another scenario, booting anew: {describe(error)}", start)
        return False


def kernel_complaints(session, since, tolerated):
    for vm in session.vms.values():
        vm.read_logs()
    lines = [
        f"{source.split('/')[0]}: {line}" for _, source, line in session.journal.merged(since)
        if source.endswith("/kernel") and COMPLAINTS.search(line) and not KNOWN.search(line)
    ]  # fmt: skip
    # A panic reaches only the console.
    for vm in session.vms.values():
        for console in session.dir.glob(f"{vm.name}-boot*/console.log"):
            if console.stat().st_mtime > time.time() - (time.monotonic() - since):
                text = console.read_text(errors="replace")
                lines += [f"{vm.name}: {found[0]}" for found in re.finditer(r"Kernel panic.*", text)]
    return [line for line in lines if not (tolerated and tolerated.search(line))]


def after_failure(session, cluster, since):
    """Collects what there is and prints the end of the merged timeline."""
    time.sleep(0.5)  # a VM that has just died is gone by then
    if cluster:
        for line in cluster.collect():
            session.journal.log(line)
    path = session.dir / "timeline.txt"
    try:
        lines = session.journal.write(path, since)
    except OSError as error:
        lines = [f"no timeline: {error}"]
    told = [line for line in lines if not NOISE.search(line)][-PRINTED_LINES:]
    print(f"--- {len(told)} of {len(lines)} lines of {path}")
    for line in told:
        print(line[:200])
    print("---", flush=True)


def describe(error):
    if isinstance(error, Failed):
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == SCENARIO_DIR
        ]
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        return f"{error}{where}"
    return "".join(traceback.format_exception(error)).rstrip()


def with_at_least(scenario, nodes, clients):
    return replace(
        scenario,
        needs=replace(
            scenario.needs, nodes=max(nodes, scenario.needs.nodes), clients=max(clients, scenario.needs.clients)
        ),
    )
