// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl doctor: the facts of a node, from files as a node has them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/doctor/doctor.hh"

#include "kernel_loop.hh"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <sys/utsname.h>

using namespace grace;
using namespace grace::doctor;

namespace {

struct node {
    testing::temporary_directory dir;
    std::filesystem::path made(const std::string& path) {
        const std::filesystem::path file = dir.path + path;
        std::filesystem::create_directories(file.parent_path());
        return file;
    }
    void write(const std::string& path, const std::string& text) {
        std::ofstream(made(path)) << text;
    }
    void link(const std::string& path, const std::string& to) {
        std::filesystem::create_symlink(to, made(path));
    }
    json facts() { return collect("/run/graced", "/var/lib/graced/graced.sqlite", dir.path); }
};

} // namespace

TEST_CASE_FIXTURE(node, "an empty node: everything is there, and nothing is known") {
    utsname u{};
    ::uname(&u);
    const json f = facts();
    CHECK(f["format"] == facts_format);
    CHECK(f["host"] == u.nodename);
    CHECK(f["time"].get<double>() > 1.7e9);
    for (const char* file : {"corosync", "dlm", "cib", "fstab", "dropin_grace_time"})
        CHECK_MESSAGE(f[file].is_null(), file);
    CHECK(f["modules"]["gfs2_gate"]["loaded"] == false);
    CHECK(f["gate_before_gfs2"] == false);
    CHECK(f["nfsdcld"] == json{{"runs", false}, {"there", false}, {"masked", false}});
    CHECK(f["enabled"] == false);
    CHECK(f["servers_here"].empty());
    CHECK(f["database"]["filesystem"] == "");
}

TEST_CASE_FIXTURE(node, "a node as it should be, and as it should not") {
    write("/etc/corosync/corosync.conf", "quorum {\n two_node: 1\n}\n");
    write("/etc/dlm/dlm.conf",
          "device p:1 /usr/sbin/fence_ipmilan password=secret\nconnect p:1 node=1\n");
    write("/var/lib/pacemaker/cib/cib.xml", "<nvpair name=\"password\" value=\"secret\"/>");
    write("/etc/fstab", "/dev/b /srv gfs2 defaults 0 0\n");
    write("/proc/self/mountinfo",
          "22 1 0:20 / / rw - ext4 /dev/a rw\n30 22 8:16 / /srv rw - gfs2 /dev/b rw\n");
    write("/sys/module/gfs2_gate/initstate", "live\n");
    write("/sys/module/gfs2_gate/parameters/ungated", "\n");
    write("/sys/module/gfs2_gate/version", "0.1\n");
    write("/sys/module/gfs2_gate/srcversion", "ABC\n");
    write("/sys/module/gfs2/parameters/x", "1\n"); // no initstate: not a loaded module
    write("/usr/lib/modprobe.d/graced.conf",
          "install gfs2 /sbin/modprobe -a lockd_shim gfs2_gate\n");
    write("/lib/systemd/system/nfsdcld.service", "");
    link("/etc/systemd/system/nfsdcld.service", "/dev/null");
    link("/etc/systemd/system/multi-user.target.wants/graced.service",
         "/lib/systemd/system/graced.service");
    write("/etc/systemd/system/nfs-server.service.d/graced.conf",
          "[Service]\nExecStartPre=/bin/sh -c 'echo 600 >/proc/fs/nfsd/nfsv4gracetime'\n");
    write("/run/graced/servers/vs1/definition", "");
    write("/run/graced/servers/vs2/log", ""); // stopped: its log stays
    write("/var/lib/graced/graced.sqlite.damaged-1", "");
    write("/var/lib/graced/graced.sqlite-wal", "");
    write("/var/lib/graced/crash-1.rec", "");
    write("/proc/17/comm", "nfsdcld\n");
    const json f = facts();
    CHECK(f["corosync"]["running"] == false);
    CHECK(f["corosync"]["two_node"] == true);
    CHECK(f["dlm"]["nodes"]["1"] == json{"fence_ipmilan"});
    CHECK(f.dump().find("secret") == std::string::npos);
    CHECK(f["fstab"].size() == 1);
    CHECK(f["mounts"] == json::array({{{"path", "/srv"}, {"gate", "gated"}}}));
    CHECK(f["modules"]["gfs2_gate"] ==
          json{{"loaded", true}, {"version", "0.1"}, {"srcversion", "ABC"}});
    CHECK(f["modules"]["gfs2"]["loaded"] == false);
    CHECK(f["gate_before_gfs2"] == true);
    CHECK(f["nfsdcld"] == json{{"runs", true}, {"there", true}, {"masked", true}});
    CHECK(f["enabled"] == true);
    CHECK(f["dropin_grace_time"] == 600);
    CHECK(f["servers_here"] == json::array({{{"name", "vs1"}, {"scope", nullptr}}}));
    CHECK(f["database"]["filesystem"] == "ext4");
    CHECK(f["database"]["beside"] == json{"crash-1.rec", "graced.sqlite.damaged-1"});
    // A file of that name in /etc hides the one in /usr/lib.
    write("/etc/modprobe.d/graced.conf", "# nothing\n");
    CHECK(facts()["gate_before_gfs2"] == false);
}
