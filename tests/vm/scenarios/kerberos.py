"""A server whose exports ask for Kerberos moves: its client's principal is on record, it reclaims and keeps its lock.

Not krb5p: Debian's 6.1.0-57 fails to unwrap such a call (an I/O error of the mount), without graced and its modules too. Needs the Debian packages krb5-kdc, krb5-admin-server and krb5-user beside those of tests/vm/packages.
"""

import json
import shutil

import _graced
import reload
from harness.errors import Failed
from harness.locker import Locker

NODES = 2
CLIENTS = 1
CLUSTER = {"before_mount": _graced.before_mount}
LIMIT_S = 900

DOMAIN, REALM = "graced.test", "GRACED.TEST"
EXPORT = "/srv/data *(rw,sec=krb5i:krb5,no_root_squash,fsid=0,no_subtree_check)"
KRB5_CONF = f"""
[libdefaults]
default_realm = {REALM}
dns_lookup_kdc = false
dns_canonicalize_hostname = false
rdns = false
[realms]
{REALM} = {{
    kdc = 10.77.0.51
}}
[domain_realm]
.{DOMAIN} = {REALM}
"""
KDC_CONF = f"""
[realms]
{REALM} = {{
    database_name = /run/krb5kdc/principal
    key_stash_file = /run/krb5kdc/stash
    acl_file = /run/krb5kdc/acl
}}
"""


def start_kdc(cluster):
    """On the client; keys for it and for vs1, the latter on both nodes."""
    client = cluster.clients[0]
    hosts = f"10.77.0.51 client1.{DOMAIN} client1\\n{_graced.SERVERS['vs1']} vs1.{DOMAIN} vs1\\n"
    for vm in (client, *cluster.nodes):
        vm.put("/etc/krb5.conf", KRB5_CONF)
        vm.run(f"{{ printf '{hosts}'; cat /etc/hosts; }} >/run/hosts; cp /run/hosts /etc/hosts")  # the first name counts
        vm.run("modprobe rpcsec_gss_krb5", timeout=60)
    client.run("mkdir -p /run/krb5kdc")
    client.put("/run/krb5kdc/kdc.conf", KDC_CONF)
    kdc = "KRB5_KDC_PROFILE=/run/krb5kdc/kdc.conf"
    client.run(f"{kdc} kdb5_util create -s -P secret", timeout=120)
    for who, keytab in ((f"host/client1.{DOMAIN}", "/etc/krb5.keytab"), (f"nfs/vs1.{DOMAIN}", "/run/krb5kdc/vs1.keytab")):
        client.run(f"{kdc} kadmin.local -q 'addprinc -randkey {who}'; {kdc} kadmin.local -q 'ktadd -k {keytab} {who}'", timeout=60)
    client.spawn(f"{kdc} krb5kdc -n", log="krb5kdc")
    keys = client.run("base64 -w0 /run/krb5kdc/vs1.keytab").out.strip()
    for node in cluster.nodes:
        node.run(f"umask 077; echo {keys} | base64 -d >/etc/krb5.keytab")
    client.run("mkdir -p /run/rpc_pipefs; mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs")
    client.spawn("rpc.gssd -f -v", log="gssd")


def run(cluster):
    missing = [program for program in ("krb5kdc", "kadmin.local", "kdb5_util") if not shutil.which(program)]
    if missing:
        raise Failed(f"{', '.join(missing)} not installed: apt-get install krb5-kdc krb5-admin-server krb5-user")
    node1, node2 = cluster.nodes
    client = cluster.clients[0]
    _graced.wait_normal(cluster)
    start_kdc(cluster)
    reload.define(cluster, [f"{_graced.SERVERS['vs1']}/24"], (EXPORT,))
    node1.run("touch /srv/data/one; chmod 777 /srv/data; chmod 666 /srv/data/one")
    _graced.serve(node1, "vs1")
    mount = f"mount -t nfs -o vers=4.1,sec=krb5i,hard,timeo=30,retrans=2 vs1.{DOMAIN}:/ /mnt/a"
    client.run(f"modprobe nfsv4; mkdir -p /mnt/a; {mount}", timeout=120)
    mine = Locker(client, "/mnt/a/one", "A")
    mine.lock()
    mine.write("before")
    rival = Locker(node2, "/srv/data/one", "rival")
    rival.start_lock()
    records = json.loads(node2.run("gracectl clients --server vs1 --json").out)["clients"]
    assert [each["principal"] for each in records] == [True], records
    cluster.step("a client with Kerberos holds a lock on vs1, and is on record with its principal")

    node1.run("graced-server stop vs1", timeout=180)
    _graced.serve(node2, "vs1")
    _graced.wait_normal(cluster, deadline=_graced.GRACE_PERIOD * 3)
    said = _graced.done(cluster, node2, "vs1", 0)
    assert said == "all reclaimed", f"the grace ended by '{said}'"
    mine.write("after")
    assert not rival.granted() and not _graced.locks_lost(client)
    cluster.step("moved to node2: it reclaimed under its principal, and has its lock")

    node2.run("kill $(pidof rpc.svcgssd)")
    cluster.wait(lambda: node2.run("graced-server status vs1", check=False).rc == 1, 30, "status to say what is missing")
    node2.run("graced-server mend vs1", timeout=60)
    client.run(f"mkdir -p /mnt/b; {mount.replace('krb5i', 'krb5').replace('/mnt/a', '/mnt/b')}; cat /mnt/b/one", timeout=120)
    mine.write("still")
    mine.unlock()
    rival.wait_granted(30)
    cluster.step("rpc.svcgssd killed and mended: a mount with another flavour works, the lock went on")


cleanup = reload.cleanup
