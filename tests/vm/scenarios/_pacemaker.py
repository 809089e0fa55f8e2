"""Pacemaker on the nodes of a cluster, configured by the recipe of docs/pacemaker.md; for scenarios.

The cluster is brought up to stage "corosync"; from there Pacemaker does it: dlm_controld, graced, GFS2, servers. What stands
in for something real: guest/systemctl (guests have no systemd), guest/fence_vm for fence_ipmilan. The CIB is made by the
recipe's own words, by pcs on the host (25 times Python would take a guest minutes), and pushed in a guest.

DRAFT: has not been run yet."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import _gate
import _graced
from harness import image
from harness.errors import Skip

RECIPE = image.CHECKOUT / "docs/pacemaker.md"
CLUSTER = {"stage": "corosync", "fencing": True, "dlm_fence": " "}  # dlm.conf without ours: dlm_stonith asks Pacemaker


def install(node):
    """What `cmake --install` and packages would do, and what makes a guest fit for Pacemaker."""
    _graced.install(node)
    hooks, guest = image.CHECKOUT / "gfs2-hooks", image.VM_DIR / "guest"
    node.run(
        f"mkdir -p /usr/lib/ocf/resource.d/graced /var/lib/pacemaker/cib /var/log/pacemaker /run/crm /run/units; "
        f"ln -sf {hooks}/ocf/graced {hooks}/ocf/server /usr/lib/ocf/resource.d/graced/; "
        f"ln -sf {hooks}/alert/alert_graced /usr/share/pacemaker/alerts/; ln -sf {guest}/fence_vm /usr/sbin/fence_vm; "
        f"cp {guest}/systemctl /usr/bin/systemctl; chown hacluster:haclient /var/lib/pacemaker/cib /run/crm; "
        # Logs where the agent of the harness streams them from; HA_LOGFILE is what ocf_log writes to.
        "printf 'PCMK_logfile=/run/log/pacemaker.log\\nPCMK_logfacility=none\\n' >/etc/default/pacemaker"
    )


def start(cluster, node):
    """graced as if enabled: after corosync, before Pacemaker."""
    install(node)
    modules, _ = _gate.build(node.run("uname -r").out.strip())
    node.run("modprobe -a dlm gfs2 nfsd macvlan", timeout=60)
    _gate.load(node, modules, "")
    node.run("systemctl start graced.service", timeout=90)
    cluster.services[node, "pacemakerd"] = node.spawn(
        "env PCMK_logfile=/run/log/pacemaker.log PCMK_logfacility=none HA_LOGFILE=/run/log/ocf.log pacemakerd -f", log="pacemakerd"
    )


def configuration(cluster):
    """The CIB's <configuration> that the recipe makes, for these nodes, this power switch, this disk."""
    script = "".join(re.findall(r"^```sh pcs\n(.*?)^```", RECIPE.read_text(), re.MULTILINE | re.DOTALL))
    script = re.sub(r"fence_ipmilan .*pcmk_host_list=", "fence_vm pcmk_host_list=", script)
    script = script.replace("device=/dev/shared/data", "device=/dev/vda")
    directory = cluster.session.dir / "cib"
    directory.mkdir(exist_ok=True)
    tree = xml.fromstring(subprocess.run(["cibadmin", "--empty"], check=True, capture_output=True, text=True).stdout)
    for node in cluster.nodes:
        xml.SubElement(tree.find("configuration/nodes"), "node", id=str(node.number), uname=node.name)
    (directory / "cfg").write_bytes(xml.tostring(tree))
    hooks, guest = image.CHECKOUT / "gfs2-hooks", image.VM_DIR / "guest"
    # pcs asks agents for their metadata, and looks for them where they would be installed.
    inside = f"""set -e
mount -t tmpfs none {directory}/mnt; cd {directory}/mnt; mkdir sbin sbin.work ocf ocf.work alerts alerts.work
over() {{ mount -t overlay none -o lowerdir="$1",upperdir="$PWD/$2",workdir="$PWD/$2.work" "$1"; }}
over /usr/sbin sbin; over /usr/lib/ocf/resource.d ocf; over /usr/share/pacemaker/alerts alerts
cp {hooks}/fence/fence_graced {guest}/fence_vm /usr/sbin/; cp -r {hooks}/ocf /usr/lib/ocf/resource.d/graced
cp {hooks}/alert/alert_graced /usr/share/pacemaker/alerts/; cd {directory}
{script}"""
    (directory / "mnt").mkdir(exist_ok=True)
    subprocess.run(["unshare", "-m", "bash", "-c", inside], check=True, capture_output=True)
    return xml.tostring(xml.parse(directory / "cfg").getroot().find("configuration"), encoding="unicode")


def up(cluster):
    """All nodes run Pacemaker with the recipe's configuration; both servers are started."""
    for tool in ("pcs", "pacemakerd", "cibadmin", "dlm_stonith"):
        if not shutil.which(tool):
            raise Skip(f"no {tool} on the host: install pacemaker, pacemaker-cli-utils, pacemaker-resource-agents, resource-agents, pcs")
    cluster.each(lambda node: start(cluster, node))
    first = cluster.nodes[0]
    cluster.wait(lambda: len(online(first)) == len(cluster.nodes), 120, "all nodes to be online in Pacemaker")
    first.put("/run/configuration.xml", configuration(cluster))
    first.run("cibadmin --replace --scope configuration --xml-file /run/configuration.xml", timeout=60)
    for server in _graced.SERVERS:
        wait_started(cluster, server, 300)
    _graced.wait_normal(cluster)


def back(cluster, node):
    """A node that was fenced: boots, joins corosync, starts Pacemaker."""
    cluster.join(node)
    start(cluster, node)
    cluster.wait(lambda: node.name in online(node) and mounted(node), 300, f"{node} to have its GFS2 again")


def view(node):
    """crm_mon's answer; None while Pacemaker is away."""
    answer = node.run("crm_mon --one-shot --output-as=xml", check=False, timeout=20)
    return xml.fromstring(answer.out) if answer.rc == 0 else None


def online(node):
    tree = view(node)
    return set() if tree is None else {n.get("name") for n in tree.findall("nodes/node") if n.get("online") == "true"}


def host(node, resource):
    """The node on which a resource is started, by name."""
    tree = view(node)
    for r in [] if tree is None else tree.iter("resource"):
        if r.get("id") == resource and r.get("role") == "Started" and r.get("failed") != "true":
            return r.find("node").get("name") if r.find("node") is not None else None
    return None


def wait_started(cluster, resource, deadline, on=None):
    """Returns the VM that hosts it; asks any node that is up."""

    def where():
        node = next(n for n in cluster.nodes if n.up())
        name = host(node, resource)
        return name and (on is None or name == on.name) and cluster[name]

    return cluster.wait(where, deadline, f"{resource} to be started", every=1)


def mounted(node):
    return node.run("mountpoint -q /srv/data", check=False, timeout=20).rc == 0


def grace_lines(cluster, node, since):
    """The points of a failover that graced's log has, [(name, time)]."""
    points = {"permit ran out": r"permit", "grace begins": r"phase entering", "reclaim open": r"phase reclaiming", "lifted": r"is lifted"}
    return [(name, lines[0][0]) for name, p in points.items() if (lines := cluster.logged(node, "graced", p, since))]


def status(node):
    return json.loads(node.run("gracectl status --json").out)


