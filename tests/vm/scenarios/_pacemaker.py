"""Pacemaker on the nodes of a cluster, configured by the recipe of docs/pacemaker.md; for scenarios.

The cluster is brought up to stage "corosync"; from there Pacemaker does it: dlm_controld, graced, GFS2, servers. What stands
in for something real: guest/systemctl (guests have no systemd), guest/fence_vm for fence_ipmilan. The CIB is made by the
recipe's own words, by pcs on the host (25 times Python would take a guest minutes), and pushed in a guest."""

import hashlib
import inspect
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _gate
import _graced
from harness import image
from harness.errors import Skip
from harness.locker import Locker

RECIPE = image.CHECKOUT / "docs/pacemaker.md"
NODES = 3
CLIENTS = 1
LIMIT_S = 2400
CLUSTER = {"stage": "corosync", "fencing": True, "dlm_fence": " "}  # dlm.conf without ours: dlm_stonith asks Pacemaker


def install(node):
    """What `cmake --install` and packages would do, and what makes a guest fit for Pacemaker."""
    _graced.install(node)
    hooks, guest = image.CHECKOUT / "gfs2-hooks", image.VM_DIR / "guest"
    node.run(
        f"mkdir -p /usr/lib/ocf/resource.d/graced /var/lib/graced/cib /var/log/pacemaker /run/crm /run/units; "
        "mountpoint -q /var/lib/pacemaker/cib || mount --bind /var/lib/graced/cib /var/lib/pacemaker/cib; "  # the node's own disk
        f"ln -sf {hooks}/ocf/graced {hooks}/ocf/server /usr/lib/ocf/resource.d/graced/; "
        f"ln -sf {hooks}/alert/alert_graced /usr/share/pacemaker/alerts/; rm -f /usr/sbin/fence_graced; "
        f"cp {hooks}/fence/fence_graced {guest}/fence_vm /usr/sbin/; cp {guest}/systemctl /usr/bin/systemctl; chown hacluster:haclient /var/lib/pacemaker/cib /run/crm; "
        # A log where the agent of the harness streams it from; ocf_log writes there, too.
        "printf 'PCMK_logfile=/run/log/pacemaker.log\\nPCMK_logfacility=none\\n' >/etc/default/pacemaker; "
        # The first Python of a guest takes ten seconds. pacemaker-controld waits for metadata meanwhile, and pacemakerd kills it.
        "fence_graced -o metadata >/dev/null",
        timeout=90,
    )


def start(cluster, node, enabled=True):
    """graced as if enabled: after corosync, before Pacemaker (which will stop it, start dlm_controld, and start it again)."""
    install(node)
    modules, _ = _gate.build(node.run("uname -r").out.strip())
    node.run("modprobe -a dlm gfs2 nfsd macvlan", timeout=60)
    _gate.load(node, modules, "")
    if enabled:
        node.run("systemctl start graced.service", timeout=90)
    cluster.services[node, "pacemakerd"] = node.spawn(
        "env PCMK_logfile=/run/log/pacemaker.log PCMK_logfacility=none pacemakerd -f", log="pacemakerd"
    )


def configuration(cluster):
    """The CIB's <configuration> that the recipe makes, for these nodes, this power switch, this disk. Made once: pcs takes a minute."""
    script = "".join(re.findall(r"^```sh pcs\n(.*?)^```", RECIPE.read_text(), re.MULTILINE | re.DOTALL))
    script = re.sub(r"fence_ipmilan .*pcmk_host_list=", "fence_vm pcmk_host_list=", script)
    script = script.replace("device=/dev/shared/data", "device=/dev/vda")
    # Agents that are Python take seconds to start in a guest; the recipe's limits are for machines.
    script = re.sub(r"stonith create .*", r"\g<0> pcmk_monitor_timeout=180 pcmk_status_timeout=180 pcmk_off_timeout=180", script)
    # A guest has one processor, which is busy all the time: Pacemaker would do one thing after the other.
    script += "pcs -f cfg property set load-threshold=1000% stonith-timeout=180s\n"
    script = "pcs -f cfg resource op defaults update timeout=180s\n" + script
    hooks, guest = image.CHECKOUT / "gfs2-hooks", image.VM_DIR / "guest"
    agents = [hooks / "ocf/graced", hooks / "ocf/server", hooks / "fence/fence_graced", guest / "fence_vm"]
    nodes = [(str(node.number), node.name) for node in cluster.nodes]
    made_of = [script, nodes, inspect.getsource(make_configuration), *(each.read_text() for each in agents)]
    digest = hashlib.sha256(repr(made_of).encode())
    result = image.BUILD_DIR / f"cib-{digest.hexdigest()[:12]}.xml"
    with image.once(result) as missing:
        if missing:
            missing.write_text(make_configuration(script, nodes, hooks, guest))
    return result.read_text()


def make_configuration(script, nodes, hooks, guest):
    tree = xml.fromstring(subprocess.run(["cibadmin", "--empty"], check=True, capture_output=True, text=True).stdout)
    for number, name in nodes:
        xml.SubElement(tree.find("configuration/nodes"), "node", id=number, uname=name)
    with tempfile.TemporaryDirectory(dir=image.BUILD_DIR) as directory:
        Path(directory, "cfg").write_bytes(xml.tostring(tree))
        Path(directory, "mnt").mkdir()
        # pcs asks agents for their metadata, and looks for them where they would be installed.
        inside = f"""set -e
mount -t tmpfs none {directory}/mnt; cd {directory}/mnt; mkdir sbin sbin.work ocf ocf.work alerts alerts.work
over() {{ mount -t overlay none -o lowerdir="$1",upperdir="$PWD/$2",workdir="$PWD/$2.work" "$1"; }}
over /usr/sbin sbin; over /usr/lib/ocf/resource.d ocf; over /usr/share/pacemaker/alerts alerts
cp {hooks}/fence/fence_graced {guest}/fence_vm /usr/sbin/; cp -r {hooks}/ocf /usr/lib/ocf/resource.d/graced
cp {hooks}/alert/alert_graced /usr/share/pacemaker/alerts/; cd {directory}
{script}"""
        subprocess.run(["unshare", "-m", "bash", "-c", inside], check=True, capture_output=True)
        made = xml.parse(Path(directory, "cfg")).getroot().find("configuration")
    # What takes a machine 50 ms takes a guest two seconds: with the recipe's intervals it would do nothing else.
    for op in made.iter("op"):
        if op.get("timeout"):
            op.set("timeout", f"{int(op.get('timeout').rstrip('s')) * 3}s")
        op.set("interval", f"{int(op.get('interval').rstrip('s')) * 6}s")
    # A process for each operation of each resource, too; pcs has no word for this.
    made.find("alerts/alert").append(xml.fromstring("<select><select_nodes/><select_fencing/></select>"))
    return xml.tostring(made, encoding="unicode")


def up(cluster):
    """All nodes run Pacemaker with the recipe's configuration; both servers are started."""
    for tool in ("pcs", "pacemakerd", "cibadmin", "dlm_stonith"):
        if not shutil.which(tool):
            raise Skip(f"no {tool} on the host: install pacemaker, pacemaker-cli-utils, pacemaker-resource-agents, resource-agents, pcs")
    if not any(service == "pacemakerd" for _, service in cluster.services):
        with ThreadPoolExecutor() as pool:
            made = pool.submit(configuration, cluster)
            cluster.each(lambda node: start(cluster, node, enabled=False))
            first = cluster.nodes[0]
            cluster.wait(lambda: len(online(first)) == len(cluster.nodes), 120, "all nodes to be online in Pacemaker", every=5)
            first.put("/run/configuration.xml", made.result())
        first.run("cibadmin --replace --scope configuration --xml-file /run/configuration.xml", timeout=60)
    for server in _graced.SERVERS:
        wait_started(cluster, server, 900)
    _graced.wait_normal(cluster)


def rejoin(cluster, nodes):
    """Nodes that are off boot, join corosync, start graced and Pacemaker, all at once."""
    cluster.join(*nodes)
    cluster.each(lambda node: start(cluster, node), nodes)


def wait_fenced(cluster, node, since, asked):
    """Fencing of a node is over: the node `asked` has had both devices' off and on. Who boots before that is told that it was just
    fenced, and its Pacemaker takes corosync down."""
    fencing = cluster.fence.wait(node, timeout=300, since=since)
    over = rf"Operation 'reboot' targeting {node} by \w+ for .*: OK"
    cluster.wait(lambda: cluster.logged(asked, "pacemaker", over, fencing.answered), 180, f"the fencing of {node} to be over", every=2)


def leave(cluster, node):
    """An orderly end of a node in standby: Pacemaker, graced, corosync, power."""
    program = cluster.services[node, "pacemakerd"]
    program.signal()
    program.wait(120)
    node.run("systemctl stop graced.service; systemctl stop graced-dlm.service", timeout=60)
    cluster.leave(node)
    node.kill()


def idle(node):
    """Nothing is mounted, no lockspace is left."""
    return not mounted(node) and not node.run("ls /sys/kernel/dlm", check=False).out.split()


def back(cluster, node):
    """A node that was fenced: boots, joins, has its resources again."""
    rejoin(cluster, [node])
    cluster.wait(lambda: node.name in online(node) and mounted(node), 300, f"{node} to have its GFS2 again", every=5)


def view(node):
    """crm_mon's answer; None while Pacemaker is away."""
    answer = node.run("crm_mon --one-shot --output-as=xml", check=False, timeout=60)
    return xml.fromstring(answer.out) if answer.rc == 0 else None


def online(node):
    tree = view(node)
    return set() if tree is None else {n.get("name") for n in tree.findall("nodes/node") if n.get("online") == "true"}


def host(node, resource):
    """The node on which a resource is started, by name: no node that is gone, of which Pacemaker believes it until it is fenced."""
    tree = view(node)
    if tree is None:
        return None
    there = {n.get("name") for n in tree.findall("nodes/node") if n.get("online") == "true" and n.get("unclean") != "true"}
    for r in tree.iter("resource"):
        if r.get("id") == resource and r.get("role") == "Started" and r.get("failed") != "true" and r.find("node") is not None:
            return r.find("node").get("name") if r.find("node").get("name") in there else None
    return None


def wait_started(cluster, resource, deadline, on=None):
    """Returns the VM that hosts it; asks any node that is up."""

    def where():
        node = next(n for n in cluster.nodes if n.up())
        name = host(node, resource)
        return name and (on is None or name == on.name) and cluster[name]

    return cluster.wait(where, deadline, f"{resource} to be started", every=5)


def survivor(cluster):
    """Any node that is up."""
    return next(node for node in cluster.nodes if node.up())


def order_move(resource, node):
    """The first half of a move, for who has no time to wait for Pacemaker's word: clear() has to follow."""
    node.run(f"crm_resource --move --resource {resource} --node {node.name}", timeout=60)


def clear(resource, node):
    """On `node`: takes the constraint of a move away."""
    node.run(f"crm_resource --clear --resource {resource}", timeout=60)


def move(cluster, resource, node, deadline=300):
    """What `pcs resource move` does: a constraint, the move, the constraint gone."""
    order_move(resource, node)
    wait_started(cluster, resource, deadline, on=node)
    clear(resource, node)


def standby(node, on, asked=None):
    """Said on `asked`, if that is another node."""
    (asked or node).run(f"crm_standby --node {node.name} --update {'on' if on else 'off'}", timeout=60)


PATHS = {"vs1": "/mnt/a1", "vs2": "/mnt/a2"}


def lock_through_both(client):
    """A client mounts both servers and takes a lock through each: {server: Locker}."""
    lockers = {}
    for server, path in PATHS.items():
        _graced.mount(client, server, path)
        lockers[server] = Locker(client, f"{path}/{server}", f"A-{server}")
        lockers[server].lock(timeout=60)
        lockers[server].write(f"first through {server}", timeout=30)
    return lockers


def wait_kept(cluster, lockers, text, deadline=240):
    """The grace is over, and each lock is where it belongs: in the kernel of the server's node, and for its owner."""
    nodes = [node for node in cluster.nodes if node.up()]
    _graced.wait_normal(cluster, nodes, deadline=deadline)
    for server, locker in lockers.items():
        host_node = wait_started(cluster, server, 60)
        held = [(kind, number) for kind, _, _, number, _ in _gate.plocks(host_node, f"/srv/data/{server}")]
        assert held == [("WR", host_node.number)], f"locks on {server}'s file, seen on its node {host_node}: {held}"
        locker.write(f"{text} through {server}", timeout=60)
        assert locker.read(timeout=30) == f"{text} through {server}"
        lost = _graced.locks_lost(locker.node)
        assert not lost, lost


def let_go(cluster, lockers, waiters=()):
    """The owner unlocks; only now does somebody else get the lock. waiters: (server, Locker that waits)."""
    for server, waiter in waiters:
        assert not waiter.granted(), f"{waiter} had the lock before its owner let it go"
    for locker in lockers.values():
        locker.unlock(timeout=30)
    for server, waiter in waiters:
        waiter.wait_granted(60)


def cleanup(cluster):
    """For the next scenario: nobody has a lock or a mount, every node may host servers, no grace."""
    node = survivor(cluster)
    for each in cluster.nodes:
        node.run(f"crm_standby --node {each.name} --delete", check=False, timeout=60)
    for server in _graced.SERVERS:
        node.run(f"crm_resource --clear --resource {server}", check=False, timeout=60)
    node.run("crm_resource --cleanup", check=False, timeout=60)
    for vm in cluster.vms:
        if vm.up():
            vm.run("pkill -f guest/locker.py", check=False)
    for client in filter(lambda client: client.up(), cluster.clients):
        for path in PATHS.values():
            client.run(f"! mountpoint -q {path} || umount {path}", timeout=60)
    _graced.wait_normal(cluster, deadline=120)


def mounted(node):
    return node.run("mountpoint -q /srv/data", check=False, timeout=20).rc == 0


POINTS = {
    "the gate is closed": ("graced", r"gate: closed \("),
    "corosync has another membership": ("corosync", r"A new membership"),
    "the grace begins": ("graced", r"phase entering"),
    "every live node enforces": ("graced", r"ENFORCING.* from node"),  # the last of them
    "the DLM works again, graced's lockspace": ("kernel", r"dlm: graced: dlm_recover .* done"),
    "the DLM works again, GFS2's lockspace": ("kernel", r"dlm: data: dlm_recover .* done"),
    "GFS2 has replayed a journal": ("kernel", r"gfs2: .*jid=\d+: Done"),
    "the dead are proven fenced, reclaim may be opened": ("graced", r"phase reclaiming"),
    "Pacemaker starts vs1": ("pacemaker", r"Requesting local execution of start operation for vs1"),
    "graced-server asks graced": ("graced", r"START\(vs1, to host\) from node"),
    "reclaim is open for vs1": ("graced", r"server vs1: reclaim is open"),
    "nfsd of vs1 is up": ("graced", r"server vs1: nfsd is up"),
    "its first client has reclaimed": ("graced", r"server vs1: upcall \d+ Create"),
    "vs1 is started": ("pacemaker", r"Result of start operation for vs1"),
    "nobody NEEDs": ("graced", r"phase lifting"),
    "the grace is lifted": ("graced", r"the grace is lifted"),
}


def points(cluster, node, since):
    """What a failover consists of, as the logs of the node have it that takes over (either survivor replays GFS2's journal): [(what,
    when)], in order."""
    found = []
    for what, (log, pattern) in POINTS.items():
        nodes = [each for each in cluster.nodes if each.up()] if what.startswith("GFS2") else [node]
        lines = sorted(line for each in nodes for line in cluster.logged(each, log, pattern, since))
        if lines:
            found.append((what, lines[-1 if what.startswith("every") else 0][0]))
    return sorted(found, key=lambda point: point[1])
