# SPDX-License-Identifier: GPL-2.0-or-later
"""NFSv3: the lock clients that statd's callout tells of, and the mounts in rmtab, as records of the cluster. There is no
lockd here: that the kernel lets only hosts on record reclaim is shown by tests/vm."""

import os
import struct
import time

from harness import BIN
from processes import Program, run, wait

RMTAB = "192.0.2.5:/srv/data:0x00000001\n2001;db8;;5:/srv/data:0x00000002\n"


def serve(node, server="vs1", rmtab=RMTAB, **options):
    """As graced-server starts a server with NFSv3: (its nfsd, the path of its rmtab)."""
    callout, table = f"/run/{server}.callout", node.dir / f"rmtab-{server}"
    table.write_text(rmtab)
    os.utime(table, (time.time() - 60,) * 2)  # else it is read again a second later
    nfsd = node.serve(server, more=("--callout", callout, "--callout-user", 65534, "--rmtab", table), **options)
    return nfsd, table


def callout(node, *words, server="vs1", user=None):
    """A run of graced-callout, as statd makes it."""
    command = ["env", f"GRACED_CALLOUT=/run/{server}.callout", BIN / "graced-callout", *words]
    if user:
        command = ["setpriv", f"--reuid={user}", "--clear-groups", *command]
    return Program(f"callout on {node.name}", node.inside(*command), node.dir / "callout.log")


def add(node, client, **options):
    program = callout(node, "add-client", client, "vs1", **options)
    wait(lambda: not program.running(), 10, f"{client} to be on record")
    assert program.status == 0, program.status


def hosts(node, server="vs1"):
    """{client: epoch since when} of the NFSv3 clients on record."""
    return {c["name"]: c["since_epoch"] for c in node.gracectl("clients", "--server", server)["clients"] if c["protocol"] == "NFSv3"}


def mounts(node, server="vs1"):
    return {(m["client"], m["path"]): m["count"] for m in node.gracectl("mounts", "--server", server)["mounts"]}


def test_lock_clients(make):
    """On record on every node when the callout returns; kept apart from NFSv4 clients; reclaim lasts to its deadline."""
    cluster = make(3)
    cluster.start()
    nfsd, _ = serve(cluster[1])
    assert nfsd.create("192.0.2.5") == "ok"  # an NFSv4 client may call itself so
    add(cluster[1], "192.0.2.5", user=65534)
    add(cluster[1], "2001:db8::5")
    for node in cluster:
        assert hosts(node) == {"192.0.2.5": 1, "2001:db8::5": 1}, hosts(node)
        assert len(node.gracectl("clients", "--server", "vs1")["clients"]) == 3
    for bad in ("a/b", "..", "a\nb", "x" * 256):
        refused = callout(cluster[1], "add-client", bad, "vs1")
        wait(lambda: not refused.running(), 10, "a bad name to be refused")
        assert refused.status == 1
    other = callout(cluster[1], "del-client", "192.0.2.5", "vs1", user=65533)
    wait(lambda: not other.running(), 10, "another user to be refused")
    assert other.status == 1
    assert len(hosts(cluster[2])) == 2

    cluster[1].kill()
    cluster.fence_done(1)
    nfsd, _ = serve(cluster[2], timeout=60)
    assert nfsd.may_reclaim == 1, "an NFSv3 client is none that nfsd may hear of"
    notices = cluster[2].dir / "notices"
    assert cluster[2].gracectl("server-notices", "vs1", notices)["clients"] == 2
    number = struct.unpack("=i", (notices / "state").read_bytes())[0]
    assert number % 2 == 1 and set(os.listdir(notices / "sm")) == {"192.0.2.5", "2001:db8::5"}

    # All that are on record have come; but one who reclaims a lock over NLM may want another one.
    began = time.monotonic()
    assert nfsd.reclaim("192.0.2.5") == "ok"
    add(cluster[2], "192.0.2.5")
    add(cluster[2], "192.0.2.9")  # it is new: recorded, for the next grace
    add(cluster[2], "2001:db8::5")
    assert hosts(cluster[3]) == {"192.0.2.5": 1, "2001:db8::5": 1, "192.0.2.9": 2}
    assert nfsd._ask("gracedone") == "ok"  # the kernel's own grace is over: that is about NFSv4
    time.sleep(3)
    assert cluster[2].status()["phase"] == "reclaiming"
    cluster.wait_open()
    assert time.monotonic() - began > 5, "the grace ended before its deadline"
    assert cluster[2].logged("server vs1 NEEDs no longer: deadline")
    assert len(hosts(cluster[3])) == 3

    # The next grace: the state number has risen, who does not come is purged.
    cluster[2].gracectl("server-stop", "vs1", timeout=30)
    nfsd.stop()
    cluster[2].gracectl("server-released", "vs1", timeout=30)
    nfsd, _ = serve(cluster[3], timeout=60)
    again = cluster[3].dir / "notices"
    assert cluster[3].gracectl("server-notices", "vs1", again)["clients"] == 3
    assert struct.unpack("=i", (again / "state").read_bytes())[0] > number
    add(cluster[3], "192.0.2.5")
    cluster.wait_open()
    assert set(hosts(cluster[2])) == {"192.0.2.5"}


def test_given_up(make):
    """lockd gives a client up: it goes off the record if the server runs on, not if that was the server's stop."""
    cluster = make(2, config={"grace": {"period": 10}})
    cluster.start()
    nfsd, _ = serve(cluster[1])
    add(cluster[1], "192.0.2.5")
    add(cluster[1], "192.0.2.6")
    add(cluster[1], "192.0.2.7")
    for client in ("192.0.2.5", "192.0.2.6"):
        gone = callout(cluster[1], "del-client", client, "vs1")
        wait(lambda: not gone.running(), 10, "del-client to return")
        assert gone.status == 0
    add(cluster[1], "192.0.2.6")  # it is back at once
    wait(lambda: set(hosts(cluster[2])) == {"192.0.2.6", "192.0.2.7"}, 15, "one to be off the record")

    stop = cluster[1].ask("server-stop", "vs1")
    wait(lambda: not stop.running(), 30, "all to enforce")
    for client in ("192.0.2.6", "192.0.2.7"):  # lockd's end
        gone = callout(cluster[1], "del-client", client, "vs1")
        wait(lambda: not gone.running(), 10, "del-client to return")
    time.sleep(12)
    nfsd.stop()
    cluster[1].gracectl("server-released", "vs1", timeout=30)
    assert set(hosts(cluster[2])) == {"192.0.2.6", "192.0.2.7"}, "the stop took them off the record"


def test_callout_waits(make):
    """Without a daemon, and without quorum, the callout does not return: no lock without a record."""
    cluster = make(3)
    cluster.start()
    serve(cluster[1])
    cluster[1].graced.signal(9)
    waits = callout(cluster[1], "add-client", "192.0.2.5", "vs1")
    time.sleep(2)
    assert waits.running()
    cluster[1].start_graced()
    wait(lambda: not waits.running(), 20, "the callout to return")
    assert waits.status == 0 and "192.0.2.5" in hosts(cluster[2])

    cluster.net.split({1})
    wait(lambda: not cluster[1].status()["quorate"], 30, "node 1 to lose quorum")
    waits = callout(cluster[1], "add-client", "192.0.2.6", "vs1")
    time.sleep(3)
    assert waits.running(), "recorded without quorum"
    # Its statd is ended: so is it.
    waits.signal(15)
    wait(lambda: not waits.running(), 5, "the callout to end")
    assert "192.0.2.6" not in hosts(cluster[2])


def test_mounts(make):
    """rmtab: known to all nodes, changes too; no part of any grace; there before the server starts elsewhere."""
    cluster = make(3, config={"grace": {"period": 10}})
    cluster.start()
    nfsd, table = serve(cluster[1])
    here = {("192.0.2.5", "/srv/data"): 1, ("2001:db8::5", "/srv/data"): 2}
    for node in cluster:
        wait(lambda: mounts(node) == here, 10, "the mounts to be known")
    # As mountd changes it: appended to, written anew; and what nobody can have mounted.
    with table.open("a") as f:
        f.write("192.0.2.6:/srv/a b:0x00000001\nno host:/srv:0x00000001\nh:relative:0x1\n")
    here["192.0.2.6", "/srv/a b"] = 1
    wait(lambda: mounts(cluster[2]) == here, 10, "a new mount")
    new = table.with_suffix(".new")
    new.write_text(RMTAB.splitlines(keepends=True)[1])
    new.rename(table)
    here = {("2001:db8::5", "/srv/data"): 2}
    wait(lambda: mounts(cluster[2]) == here, 10, "unmounts")

    # A server without lock clients has nothing to recover, whoever has mounted it.
    assert nfsd.create("alice") == "ok" and nfsd.remove("alice") == "ok"
    cluster[1].kill()
    cluster.fence_done(1)
    cluster.wait_open()
    assert cluster[2].status()["current"] == 1, "mounts alone began a grace"
    assert mounts(cluster[3]) == here
    text = run(cluster[2].inside(BIN / "gracectl", "--ipc", "graced", "mounts", "--server", "vs1", "--rmtab")).stdout
    nfsd, table = serve(cluster[2], rmtab=text)
    assert text == "2001;db8;;5:/srv/data:0x00000002\n"
    time.sleep(3)
    assert mounts(cluster[3]) == here
    # A grace purges clients, not mounts; nor does a restart of all forget them.
    assert nfsd.create("alice") == "ok"
    cluster[2].gracectl("start", "vs1")
    cluster.wait_open()
    assert mounts(cluster[3]) == here
    for n in (2, 3):
        cluster[n].graced.signal(9)
    for n in (2, 3):
        cluster[n].start_graced()
    cluster.wait_open()
    for n in (2, 3):
        assert mounts(cluster[n]) == here
    table.unlink()  # not empty: nothing is known of it
    time.sleep(3)
    assert mounts(cluster[3]) == here
