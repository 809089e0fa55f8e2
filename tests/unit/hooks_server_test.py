#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""graced-server without a kernel: gracectl, ip, mount, rpc.nfsd and the like are stand-ins that write
down what they are asked. The order of steps, what is undone after which failure, exit codes.
(With real ones: tests/vm.)"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "gfs2-hooks/server/graced-server"

DEFINITION = """GRACED_SERVER='vs1'
GRACED_ADDRESSES='192.0.2.10/24
2001:db8::10/64'
GRACED_INTERFACE='lo'
GRACED_EXPORTS='/ *(rw,fsid=1)
"/with space" *(ro,fsid=2)'
GRACED_THREADS='8'
GRACED_CLD_VERSION='2'
GRACED_NFS_VERSIONS='4.1
4.2'
GRACED_GRACE_TIME='200'
GRACED_LEASE_TIME=''
GRACED_IPC_NAME='graced-test'
"""

V3 = DEFINITION.replace("4.1\n", "3\n4.1\n")
KERBEROS = DEFINITION.replace("rw,fsid=1", "rw,sec=krb5p,fsid=1")

# One program under many names. FAKE_FAIL: words; a call that begins with one of them fails.
# State: $FAKE/mounts (as mountinfo), $FAKE/threads, namespaces as files in $GRACED_NETNS_DIR.
FAKE = r"""#!/bin/bash
me=${0##*/}
call="$me $*"
printf '%s\n' "$call" >>"$FAKE/calls"
while IFS='|' read -r pattern code; do
    # shellcheck disable=SC2053
    [ -n "$pattern" ] && [[ $call == $pattern ]] && { echo "fake failure of $me" >&2; exit "$code"; }
done <"$FAKE/fail"
server=$GRACED_SERVERS_DIR/vs1
line() { echo "20 1 0:1 / $1 rw - fake fake rw"; }
mounted() { grep -qxF "$(line "$1")" "$FAKE/mounts"; }
gone() { grep -vxF "$(line "$1")" "$FAKE/mounts" >"$FAKE/mounts.new"; mv "$FAKE/mounts.new" "$FAKE/mounts"; }
case $me in
gracectl)
    while [ $# -gt 0 ]; do
        case $1 in --json) ;; --ipc) shift ;; *) break ;; esac
        shift
    done
    case $1 in
    config) cat "$FAKE/definition" ;;
    server-start) touch "$FAKE/asked"; while [ -e "$FAKE/hold" ]; do sleep 0.1; done ;;
    mounts) echo '192.0.2.5:/srv:0x00000001' ;;
    server-notices) mkdir -p "$3"; echo "${FAKE_NOTICES:-2}" ;;
    server-stop) [ ! -e "$FAKE/not_hosted" ] || { echo '{"code": "not_hosted"}'; exit 1; } ;;
    esac ;;
id) echo 0 ;;
ip)
    case $call in
    *'netns add'*) touch "$GRACED_NETNS_DIR/$3" ;;
    *'netns delete'*) rm "$GRACED_NETNS_DIR/$3" "$FAKE"/address-* "$FAKE/link" 2>/dev/null; exit 0 ;;
    *'link add'*) touch "$FAKE/link" ;;
    *'link show'*) [ -e "$FAKE/link" ] && echo '2: nfs0 link/ether 02:00:00:00:00:01 brd' ;;
    *'address replace'*) touch "$FAKE/address-${5%/*}" ;;
    *'address show'*) [ ! -e "$FAKE/address-${!#}" ] || echo "2: nfs0 inet ${!#}" ;;
    *'address del '*) rm "$FAKE/address-${5%/*}" ;;
    *'address flush'*) rm -f "$FAKE"/address-* ;;
    *'route show'*) [ "$1" = -6 ] || printf '192.0.2.0/24 proto kernel\ndefault via 192.0.2.1 metric 5\n' ;;
    esac ;;
nsenter) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
unshare)
    for word; do
        case $word in --mount=* | --uts=*) line "${word#*=}" >>"$FAKE/mounts" ;; esac
    done ;;
mount)
    case $1 in --make-private) exit 0 ;; esac
    line "${!#}" >>"$FAKE/mounts"
    [ "$2" != nfsd ] || { echo 0 >"$server/nfsd/threads"; touch "$server"/nfsd/nfsv4{grace,lease}time; } ;;
umount) mounted "${!#}" && gone "${!#}" ;;
setsid) exec "$@" ;;
rpc.mountd | rpc.idmapd | rpc.svcgssd)
    channel=$FAKE/nfsd.export
    [ "$me" != rpc.svcgssd ] || channel=$FAKE/auth.rpcsec.init
    mkdir -p "$channel"
    exec sleep 300 5>"$channel/channel" ;;
rpcbind | rpc.statd | sm-notify) exec sleep 300 ;;
rpcinfo) # who is asked answers when it is through with its start
    case $1 in -p) of=rpcbind ;; *) of=rpc.statd ;; esac
    read -r pid _ <"$server/$of.pid" && [ "$(cat "/proc/$pid/comm")" = sleep ] ;;
rpc.nfsd) [ -e "$FAKE/no-threads" ] || echo "$1" >"$server/nfsd/threads" ;;
esac
"""
NAMES = (
    "gracectl id ip nsenter unshare mount umount setsid modprobe sysctl exportfs rpc.mountd rpc.idmapd rpc.nfsd nfsconf "
    "chown rpcbind rpcinfo rpc.statd rpc.svcgssd sm-notify graced-callout"
)  # fmt: skip


class GracedServer(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(self.end_programs)
        self.fake = Path(directory.name)
        self.servers, self.netns = self.fake / "servers", self.fake / "netns"
        self.netns.mkdir()
        bin_directory = self.fake / "bin"
        bin_directory.mkdir()
        (bin_directory / "fake").write_text(FAKE)
        (bin_directory / "fake").chmod(0o755)
        for name in NAMES.split():
            (bin_directory / name).symlink_to("fake")
        for name in ("calls", "mounts", "fail"):
            (self.fake / name).write_text("")
        self.define(DEFINITION)
        self.environment = os.environ | {
            "FAKE": str(self.fake), "PATH": f"{bin_directory}:{os.environ['PATH']}", "GRACED_SERVERS_DIR": str(self.servers),
            "GRACED_NETNS_DIR": str(self.netns), "GRACED_DAEMON_PATIENCE": "1",
            "GRACED_MOUNTINFO": str(self.fake / "mounts"), "GRACED_KEYTAB": str(self.fake / "keytab"),
        }  # fmt: skip
        self.environment.pop("GRACED_CONFIG", None)

    def end_programs(self):
        for file in self.fake.glob("servers/*/*.pid"):
            os.kill(int(file.read_text().split()[0]), signal.SIGKILL)

    def define(self, text):
        (self.fake / "definition").write_text(text)

    def failing(self, *patterns):
        """Calls that match a pattern fail, with 1 or the code behind a |."""
        (self.fake / "fail").write_text("".join(f"{p if '|' in p else p + '|1'}\n" for p in patterns))

    def call(self, *arguments, **environment):
        (self.fake / "calls").write_text("")
        done = subprocess.run(
            [PROGRAM, *arguments], env=self.environment | environment, capture_output=True, text=True, check=False, timeout=120
        )
        self.told, self.out = done.stderr, done.stdout
        return done.returncode

    def calls(self):
        return (self.fake / "calls").read_text().splitlines()

    def position(self, pattern, where=0):
        found = [n for n, line in enumerate(self.calls()) if re.search(pattern, line)]
        self.assertTrue(found, f"no call {pattern!r} among:\n" + "\n".join(self.calls()))
        return found[where]

    def assert_called(self, pattern, times=None):
        found = [line for line in self.calls() if re.search(pattern, line)]
        self.assertTrue(found if times is None else len(found) == times, f"{pattern!r}: {found}")

    def assert_runs(self, pattern):
        """A program in the background: it says that it was called when it comes to it."""
        end = time.monotonic() + 60
        while not any(re.search(pattern, line) for line in self.calls()) and time.monotonic() < end:
            time.sleep(0.02)
        self.assert_called(pattern, 1)

    def assert_order(self, *patterns):
        positions = [self.position(p) for p in patterns]
        self.assertEqual(positions, sorted(positions), dict(zip(patterns, positions)))

    def threads(self):
        file = self.servers / "vs1/nfsd/threads"
        return file.read_text().strip() if file.exists() else "0"

    def assert_nothing_left(self):
        self.assertEqual((self.fake / "mounts").read_text(), "")
        self.assertEqual(list(self.netns.iterdir()), [])
        self.assertEqual({p.name for p in self.servers.glob("vs1/*")} - {"log", "log.old"}, set())
        self.assertEqual(list(self.fake.glob("address-*")), [])
        self.assertEqual(self.call("status", "vs1"), 3)

    # --- the order ---

    def test_start_and_stop_twice(self):
        for _ in range(2):
            self.assertEqual(self.call("start", "vs1"), 0, self.told)
            self.assert_order(
                "gracectl config server vs1 --shell", "gracectl .*--json status", "ip netns add graced-vs1", "ip link add link lo name nfs0",
                "mount -t nfsd", "mount -t rpc_pipefs", "unshare", "exportfs -ra", "rpc.mountd", "gracectl --ipc graced-test server-start vs1",
                "rpc.nfsd 8", "server-running vs1", "address replace 192.0.2.10/24",
            )  # fmt: skip
            directory = self.servers / "vs1"
            self.assert_called(
                f"server-start vs1 --netns {self.netns}/graced-vs1 --nfsd-fs {directory}/nfsd"
                f" --pipe {directory}/rpc_pipefs/nfsd/cld --cld-version 2$"
            )
            self.assert_called("address replace 2001:db8::10/64")
            self.assert_called("route replace default via 192.0.2.1 dev nfs0", 1)
            self.assertEqual((directory / "nfsd/nfsv4gracetime").read_text().strip(), "200")
            self.assertEqual((directory / "nfsd/nfsv4leasetime").read_text(), "")
            self.assertEqual((directory / "etc/exports").read_text(), '/ *(rw,fsid=1)\n"/with space" *(ro,fsid=2)\n')
            settings = (directory / "etc/nfs.conf").read_text().splitlines()
            for line in ("vers3=n", "vers4=y", "vers4.0=n", "vers4.1=y", "vers4.2=y"):
                self.assertIn(line, settings)
            self.assertEqual(self.call("status", "vs1"), 0, self.out)

            self.assertEqual(self.call("stop", "vs1"), 0, self.told)
            self.assert_order("server-stop vs1", "address flush", "exportfs -ua", "umount", "ip netns delete", "server-released vs1")
            self.assert_nothing_left()

    def test_nfsv3(self):
        self.define(V3)
        self.assertEqual(self.call("start", "vs1"), 0, self.told)
        directory = self.servers / "vs1"
        # Each address tells those that know the server by it, and is its own name.
        for number, address in enumerate(("192.0.2.10", "2001:db8::10"), 1):
            self.assert_runs(f"^sm-notify -d -f -n -P /var/lib/nfs/notices/{number} -v {address}$")
            self.assert_called(f"server-notices vs1 {directory}/nfs/notices/{number}$", 1)
            self.assertIn(f"{address} {address}", (directory / "etc/hosts").read_text().splitlines()[:2])
        self.assert_order(
            "unshare", "^rpcbind -f", "^rpc.statd -F -L -H", "exportfs -ra", "rpc.mountd -F -N 2$", "server-start vs1",
            "mounts --server vs1 --rmtab", "rpc.nfsd 8", "server-running vs1", "address replace 2001:db8::10/64", "server-notices vs1", "^sm-notify",
        )  # fmt: skip
        self.assert_called(f"^rpc.statd .* -H {self.fake}/bin/graced-callout$")
        self.assert_called(f"server-start .* --callout {directory}/callout/socket --callout-user 0 --rmtab {directory}/nfs/rmtab$")
        self.assertEqual((directory / "nfs/rmtab").read_text(), "192.0.2.5:/srv:0x00000001\n")
        settings = (directory / "etc/nfs.conf").read_text().splitlines()
        for line in ("vers3=y", "vers4.1=y", "lift-grace=n"):
            self.assertIn(line, settings)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        os.kill(int((directory / "rpc.statd.pid").read_text().split()[0]), signal.SIGKILL)
        self.assertEqual(self.call("status", "vs1"), 1)
        self.assertEqual(self.call("start", "vs1"), 0, self.told)
        self.assert_called("^rpc.statd", 1)
        self.assert_called("^sm-notify", 0)  # nothing was lost
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_nothing_left()
        self.assertEqual(list(self.fake.glob("servers/vs1/*.pid")), [])

    def test_nfsv3_without_lock_clients(self):
        self.define(V3)
        self.assertEqual(self.call("start", "vs1", FAKE_NOTICES="0"), 0, self.told)
        self.assert_called("^sm-notify", 0)
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)

    def test_nfsv3_goes_wrong(self):
        self.define(V3)
        for patterns, expected in (
            (["rpcbind*"], 1),
            (["rpc.statd*"], 1),
            (["rpcinfo -u*"], 1),
            (["gracectl*mounts*"], 1),
        ):
            with self.subTest(patterns):
                self.failing(*patterns)
                self.assertEqual(self.call("start", "vs1"), expected, self.told)
                self.assertIn("is undone", self.told)
                self.failing()
                self.assert_nothing_left()
        # A server whose clients could not be told still serves; it is said.
        self.failing("gracectl*server-notices*")
        self.assertEqual(self.call("start", "vs1"), 0)
        self.assertIn("could not be told to reclaim", self.told)
        self.failing()
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)

    def test_start_when_it_runs(self):
        self.call("start", "vs1")
        pid = int((self.servers / "vs1/rpc.mountd.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        (self.fake / "address-192.0.2.10").unlink()
        self.assertEqual(self.call("status", "vs1", "--json"), 1)
        told = json.loads(self.out)
        self.assertEqual((told["state"], told["nfsd_threads"], len(told["problems"])), ("damaged", 8, 2))
        self.assertEqual(self.call("start", "vs1"), 0, self.told)
        self.assert_called("server-start|rpc.nfsd|netns add|unshare", 0)
        self.assert_called("server-running", 1)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        # It runs untracked: said, but not taken away from its clients.
        self.failing("gracectl*server-running*")
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertEqual(self.threads(), "8")

    def test_mend(self):
        self.assertEqual(self.call("mend", "vs1"), 1)
        self.assertIn("nothing to mend", self.told)
        self.call("start", "vs1")
        os.kill(int((self.servers / "vs1/rpc.mountd.pid").read_text().split()[0]), signal.SIGKILL)
        (self.fake / "address-192.0.2.10").unlink()
        self.assertEqual(self.call("mend", "vs1"), 0, self.told)
        self.assert_called("server-start|rpc.nfsd|netns add|unshare", 0)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        # What start would take for remains, and begin a grace with, is left alone.
        (self.servers / "vs1/nfsd/threads").write_text("0\n")
        self.assertEqual(self.call("mend", "vs1"), 1)
        self.assert_called("gracectl|umount|netns", 0)
        self.assertIn("nfsd of server vs1 does not run", self.told)
        (self.servers / "vs1/nfsd/threads").write_text("8\n")
        # mountd first: it needs no daemon.
        os.kill(int((self.servers / "vs1/rpc.mountd.pid").read_text().split()[0]), signal.SIGKILL)
        self.failing("gracectl*server-running*|3")
        self.assertEqual(self.call("mend", "vs1"), 3)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)

    def test_kerberos(self):
        self.define(KERBEROS)
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("no key for it", self.told)
        self.assert_called("netns|mount|server-start", 0)
        (self.fake / "keytab").touch()
        self.failing("rpc.svcgssd*")
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("rpc.svcgssd of server vs1 does not serve", self.told)
        self.failing()
        self.assert_nothing_left()
        self.assertEqual(self.call("start", "vs1"), 0, self.told)
        self.assert_order("modprobe -q rpcsec_gss_krb5", "rpc.svcgssd -f -n", "exportfs -ra", "rpc.nfsd 8")
        os.kill(int((self.servers / "vs1/rpc.svcgssd.pid").read_text().split()[0]), signal.SIGKILL)
        self.assertEqual(self.call("status", "vs1"), 1)
        self.assertIn("rpc.svcgssd does not run", self.out)
        self.assertEqual(self.call("mend", "vs1"), 0, self.told)
        self.assert_called("^rpc.svcgssd -f -n", 1)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_nothing_left()
        self.assertEqual(list(self.fake.glob("servers/vs1/*.pid")), [])

    # --- reload ---

    def addresses(self):
        return {p.name.removeprefix("address-") for p in self.fake.glob("address-*")}

    def test_reload(self):
        self.assertEqual(self.call("reload", "vs1"), 1)
        self.assertIn("does not run", self.told)
        self.call("start", "vs1")
        self.define(DEFINITION.replace("fsid=2", "fsid=3").replace("='8'", "='16'").replace("192.0.2.10", "192.0.2.11"))
        self.assertEqual(self.call("reload", "vs1"), 0, self.told)
        self.assert_order("exportfs -ra", "rpc.nfsd 16", "address replace 192.0.2.11/24", "address del 192.0.2.10/24")
        self.assert_called("gracectl.*server-|exportfs -u|flush|unshare|rpc.mountd", 0)
        self.assertEqual((self.threads(), self.addresses()), ("16", {"192.0.2.11", "2001:db8::10"}))
        self.assertIn("fsid=3", (self.servers / "vs1/etc/exports").read_text())
        self.assertEqual(self.call("status", "vs1"), 0, self.out)
        self.assertEqual(self.call("reload", "vs1"), 0, self.told)  # nothing new
        self.assert_called("rpc.nfsd|address del", 0)
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_nothing_left()

    def test_reload_of_what_needs_a_start(self):
        self.call("start", "vs1")
        for old, new in (("'lo'", "'eth9'"), ("4.1\n", ""), ("='200'", "='300'"), ("LEASE_TIME=''", "LEASE_TIME='60'")):
            with self.subTest(new):
                self.define(DEFINITION.replace(old, new).replace("fsid=2", "fsid=3"))
                self.assertEqual(self.call("reload", "vs1"), 1)
                self.assertIn("only a new start takes those", self.told)
                self.assert_called("exportfs|rpc|address (replace|del)", 0)
                self.assertNotIn("fsid=3", (self.servers / "vs1/etc/exports").read_text())

    def test_reload_with_bad_exports(self):
        self.call("start", "vs1")
        self.define(DEFINITION.replace("fsid=2", "fsid=three").replace("='8'", "='16'"))
        self.failing("exportfs -ra*")
        self.assertEqual(self.call("reload", "vs1"), 1)
        self.assertIn("it has its old ones", self.told)
        self.assert_called("^exportfs -ra", 2)
        self.assertIn("fsid=2", (self.servers / "vs1/etc/exports").read_text())
        self.assertEqual(self.threads(), "8")

    def test_reload_brings_kerberos(self):
        (self.fake / "keytab").touch()
        self.call("start", "vs1")
        self.define(KERBEROS)
        self.assertEqual(self.call("reload", "vs1"), 0, self.told)
        self.assert_order("rpc.svcgssd -f -n", "exportfs -ra")
        self.assertEqual(self.call("status", "vs1"), 0, self.out)

    def test_stop_when_it_does_not_run(self):
        self.assertEqual(self.call("stop", "vs1"), 0)
        self.assert_called("gracectl", 0)

    def test_start_over_remains(self):
        self.call("start", "vs1")
        (self.servers / "vs1/nfsd/threads").write_text("0\n")
        self.assertEqual(self.call("status", "vs1"), 1)
        self.assertEqual(self.call("start", "vs1"), 0, self.told)
        self.assert_order("ip netns delete", "ip netns add", "server-start", "rpc.nfsd")

    # --- what goes wrong at the start ---

    def test_failures_before_anything_is_changed(self):
        for name, patterns, definition, expected in (
            ("daemon away", ["gracectl*status*|3"], DEFINITION, 3),
            ("daemon hangs", ["gracectl*status*|7"], DEFINITION, 1),
            ("no such server", ["gracectl config*|6"], DEFINITION, 1),
            ("no addresses", [], DEFINITION.replace("'192.0.2.10/24\n2001:db8::10/64'", "''"), 1),
            ("another gracectl", [], DEFINITION.replace("GRACED_THREADS", "GRACED_WIRES"), 1),
        ):
            with self.subTest(name):
                self.define(definition)
                self.failing(*patterns)
                self.assertEqual(self.call("start", "vs1"), expected, self.told)
                self.assertTrue(self.told)
                self.assert_called("netns|mount|server-start|rpc", 0)
                self.assertFalse((self.servers / "vs1").exists())

    def test_without_what_nfsv3_needs(self):
        self.define(V3)
        (self.fake / "bin/graced-callout").unlink()  # of the others the machine may have its own
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("there is no graced-callout", self.told)
        self.assert_called("netns|mount|server-start|rpc", 0)

    def test_failures_that_are_undone(self):
        for patterns, expected, told_graced in (
            (["ip netns add*"], 1, 0),
            (["ip link add*"], 1, 0),
            (["mount -t rpc_pipefs*"], 1, 0),
            (["unshare*"], 1, 0),
            (["exportfs -ra*"], 1, 0),
            (["rpc.mountd*"], 1, 0),
            (["gracectl*server-start*|8"], 1, 1),
            (["gracectl*server-start*|3"], 3, 1),
            (["rpc.nfsd*"], 1, 1),
            (["gracectl*server-running*"], 1, 1),
            (["ip*address replace*"], 1, 1),
        ):
            with self.subTest(patterns):
                self.failing(*patterns)
                self.assertEqual(self.call("start", "vs1"), expected, self.told)
                self.assertIn("is undone", self.told)
                self.assert_called("server-released", told_graced)
                if told_graced:
                    self.assertGreater(self.position("server-released"), self.position("ip netns delete"))
                self.failing()
                self.assert_nothing_left()

    def test_untracked(self):
        self.failing("gracectl*server-running*")
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("is not tracked", self.told)
        self.assert_called("address replace", 0)
        self.assert_nothing_left()

    def test_nfsd_without_threads(self):
        (self.fake / "no-threads").touch()
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("has no threads", self.told)
        self.assert_nothing_left()

    def test_ended_while_it_waits(self):
        (self.fake / "hold").touch()
        process = subprocess.Popen([PROGRAM, "start", "vs1"], env=self.environment, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 60
        while not (self.fake / "asked").exists():
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.1)
        self.assertEqual(self.call("status", "vs1"), 1)
        self.assertEqual(self.call("stop", "vs1"), 1)  # after 10 s
        self.assertIn(f"is under way (process {process.pid})", self.told)
        process.terminate()
        told = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 143, told)
        self.assert_called("server-released")
        (self.fake / "hold").unlink()
        self.assert_nothing_left()

    def test_waits_for_a_daemon_that_restarts(self):
        self.environment["GRACED_DAEMON_PATIENCE"] = "60"
        self.failing("gracectl*status*|3")
        process = subprocess.Popen([PROGRAM, "start", "vs1"], env=self.environment, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 60
        while (self.fake / "calls").read_text().count("status") < 3:
            self.assertIsNone(process.poll(), "it gave up")
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.1)
        self.assert_called("netns|mount|server-start|rpc", 0)
        self.failing()
        told = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 0, told)
        self.assertIn("graced does not run: waiting", told)
        self.assertEqual(self.call("status", "vs1"), 0, self.out)

    def test_waits_for_quorum(self):
        self.failing("gracectl*server-start*|4")
        process = subprocess.Popen([PROGRAM, "start", "vs1"], env=self.environment, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 60
        while (self.fake / "calls").read_text().count("server-start") < 2:
            self.assertIsNone(process.poll(), "it gave up")
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.1)
        self.assert_called("rpc.nfsd|server-released", 0)
        self.failing()
        told = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 0, told)
        self.assert_called("address replace", 2)

    def test_graced_not_told_of_the_undoing(self):
        self.failing("rpc.nfsd*", "gracectl*server-released*|3")
        self.assertEqual(self.call("start", "vs1"), 1)
        self.assertIn("could not be told", self.told)
        self.failing()
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_called("server-released", 1)
        self.assert_nothing_left()

    # --- what goes wrong at the stop ---

    def test_stop_refused(self):
        self.call("start", "vs1")
        for code, expected in ((3, 3), (4, 1), (7, 1)):
            self.failing(f"gracectl*server-stop*|{code}")
            self.assertEqual(self.call("stop", "vs1"), expected)
            self.assertIn("must not be dropped", self.told)
            self.assert_called("flush|umount|exportfs|server-released", 0)
            self.assertEqual((self.threads(), self.call("status", "vs1")), ("8", 0))
        self.assertEqual(self.call("stop", "vs1", "--force"), 0, self.told)
        self.assertIn("FORCED", self.told)
        self.failing()
        self.assert_nothing_left()

    def test_stop_of_what_another_node_hosts(self):
        self.call("start", "vs1")
        (self.fake / "not_hosted").touch()
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_nothing_left()

    def test_graced_not_told_of_the_stop(self):
        self.call("start", "vs1")
        self.failing("gracectl*server-released*|3")
        self.assertEqual(self.call("stop", "vs1"), 3)
        self.assertIn("no other node can host it", self.told)
        self.assertEqual(self.threads(), "0")
        self.failing()
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_called("server-released", 1)
        self.assert_nothing_left()

    def test_busy_mounts_go_later(self):
        self.call("start", "vs1")
        self.failing(f"umount {self.servers}/vs1/rpc_pipefs|32")  # --lazy still works
        self.assertEqual(self.call("stop", "vs1"), 0, self.told)
        self.assert_called("umount --lazy", 1)
        self.failing()
        self.assert_nothing_left()

    # --- the command line ---

    def test_usage(self):
        for arguments in ((), ("start",), ("start", "a", "b"), ("start", "../etc"), ("start", "a.b"), ("run", "vs1"), ("start", "vs1", "--fast"),
                          ("start", "vs1", "--force"), ("list", "vs1"), ("start", "vs1", "--config")):  # fmt: skip
            with self.subTest(arguments):
                self.assertEqual(self.call(*arguments), 2)
        self.assertEqual(self.call("--help"), 0)

    def test_configuration_file(self):
        self.call("start", "vs1", "--config", "/a b.conf")
        self.assert_called("gracectl config server vs1 --shell --file /a b.conf")
        self.call("stop", "vs1")
        self.call("start", "vs1", GRACED_CONFIG="/c.conf")
        self.assert_called("gracectl config server vs1 --shell --file /c.conf")

    def test_list(self):
        self.assertEqual(self.call("list", "--json"), 0)
        self.assertEqual(json.loads(self.out), [])
        self.call("start", "vs1")
        self.assertEqual(self.call("list"), 0)
        self.assertIn("server vs1: running", self.out)
        self.call("list", "--json")
        self.assertEqual([(s["server"], s["state"]) for s in json.loads(self.out)], [("vs1", "running")])


if __name__ == "__main__":
    sys.exit(unittest.main())
