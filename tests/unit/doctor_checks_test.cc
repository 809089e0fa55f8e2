// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl doctor: what it reads out of files, and that each check is silent on a node where all is
// well and speaks where something is not. The last case sees to it that no check was left out.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/doctor/doctor.hh"

#include <algorithm>
#include <doctest/doctest.h>
#include <set>

using namespace grace::doctor;

namespace {

const char* const corosync_conf = R"(totem {
  version: 2
  token: 3000
}
nodelist {
  node {
    ring0_addr: 192.0.2.1
    nodeid: 1
    name: node1
  }
  node {
    ring0_addr: 192.0.2.2
    nodeid: 2
    name: node2
  }
}
quorum {
  provider: corosync_votequorum
  # a comment
  two_node: 1
}
)";

const char* const dlm_conf = R"(enable_plock=1

device  power1:1 /usr/sbin/fence_ipmilan ip=192.0.2.201 username=fence password=secret
connect power1:1 node=1
device  power1:2 /usr/sbin/fence_graced
connect power1:2 node=1
device  power2:1 /usr/sbin/fence_ipmilan ip=192.0.2.202 username=fence password=secret
connect power2:1 node=2
)";

const char* const cib = R"(<cib epoch="9"><configuration><crm_config>
<cluster_property_set id="s"><nvpair id="x" name="stonith-enabled" value="true"/></cluster_property_set></crm_config>
<resources><primitive id="power1" class="stonith" type="fence_ipmilan"><instance_attributes id="i">
<nvpair id="p" name="password" value="secret"/></instance_attributes></primitive>
<primitive class="stonith" id="grace" type="fence_graced"/>
<primitive id="vs1" class="ocf" provider="graced" type="server"/></resources>
<fencing-topology><fencing-level id="l" index="1" target="node1" devices="power1,grace"/></fencing-topology>
</configuration></cib>)";

json node1() {
    json f = json::parse(R"json({
      "format": 1, "version": "0.1.0", "node": "node1", "host": "node1", "kernel": "6.1", "clock_synchronized": true,
      "config": {"graced": {"state": "cluster", "group": "graced"},
                 "grace": {"period": 90, "orphan_timeout": 600, "daemon_timeout": 300, "nodes_without_gfs2": [3]},
                 "permit": {"ttl": "auto", "heartbeat": "auto"}, "locks": {"backend": "dlm"}, "gate": {"backend": "module"},
                 "server": {"vs1": {"name": "vs1", "addresses": ["192.0.2.10/24"], "interface": "eth0", "cld_version": 2,
                                    "exports": ["/srv/data *(rw,fsid=1) 198.51.100.0/24(ro,fsid=1)", "/srv/home *(fsid=2)"],
                                    "nfs_versions": ["4.2"], "grace_time": 240, "lease_time": null}},
                 "warnings": []},
      "config_errors": [], "status_error": null,
      "status": {"node": {"id": 1, "name": "node1"}, "quorate": true, "synced": true, "version": "0.1.0",
                 "kernel": {"attached": true, "bypass": false}, "warnings": [],
                 "nodes": [{"id": 1, "name": "node1", "live": true, "member": true, "attached": true},
                           {"id": 2, "name": "node2", "live": true, "member": true, "attached": true},
                           {"id": 3, "name": "node3", "live": true, "member": false, "attached": false},
                           {"id": 4, "name": "node4", "live": false, "member": false, "attached": false}],
                 "servers": [{"name": "vs1", "host": 1, "need": false, "clients": 3}]},
      "mounts": [{"path": "/srv/data", "gate": "gated"}],
      "modules": {"lockd_shim": {"loaded": true, "version": "0.1", "srcversion": "AB"},
                  "gfs2_gate": {"loaded": true, "version": "0.1", "srcversion": "CD"}, "gfs2": {"loaded": true}},
      "gate_before_gfs2": true, "nfsdcld": {"runs": false, "there": true, "masked": true}, "enabled": true,
      "dropin_grace_time": null, "servers_here": [{"name": "vs1", "scope": "vs1"}],
      "database": {"path": "/var/lib/graced/graced.sqlite", "filesystem": "ext4", "beside": []}
    })json");
    f["corosync"] = read_corosync_conf(corosync_conf);
    f["corosync"]["running"] = true;
    f["dlm"] = read_dlm_conf(dlm_conf);
    f["cib"] = nullptr;
    f["fstab"] = read_fstab("/dev/sdb /srv/data gfs2 noatime,_netdev 0 0\n");
    return f;
}

json node2() {
    json f = node1();
    f["node"] = f["host"] = f["status"]["node"]["name"] = "node2";
    f["status"]["node"]["id"] = 2;
    f["servers_here"] = json::array();
    return f;
}

std::set<std::string> failed; // checks that were seen to find something

report look(const std::vector<json>& all) {
    report r = examine(all);
    for (const finding& f : r.findings) {
        failed.insert(f.check);
        CHECK(!f.what.empty());
        CHECK(f.remedy.size() > 5);
    }
    return r;
}

// What the checks say of a node that was all right until `spoil`, which is to be one thing, by one
// check.
finding only(const char* check, const std::function<void(json&)>& spoil) {
    json f = node1();
    spoil(f);
    const report r = look({f, node2()});
    REQUIRE_MESSAGE(r.findings.size() == 1,
                    "for " << check << ", "
                           << (r.findings.empty() ? "nothing" : r.findings.back().what));
    CHECK(r.findings.front().check == check);
    return r.findings.front();
}

finding wrong(const char* check, const std::function<void(json&)>& spoil) {
    const finding f = only(check, spoil);
    CHECK(!f.advice);
    return f;
}

finding advice(const char* check, const std::function<void(json&)>& spoil) {
    const finding f = only(check, spoil);
    CHECK(f.advice);
    return f;
}

bool unchecked(const report& r, const std::string& check) {
    return std::any_of(r.not_checked.begin(), r.not_checked.end(),
                       [&](const skipped& s) { return s.check == check; });
}

} // namespace

TEST_CASE("texts to facts") {
    json c = read_corosync_conf(corosync_conf);
    CHECK(c["token"] == 3000);
    CHECK(c["nodes"] == json::parse(R"([{"id": 1, "name": "node1"}, {"id": 2, "name": "node2"}])"));
    CHECK(c["two_node"] == true);
    CHECK(c["wait_for_all"] == true); // by two_node, votequorum(5)
    c = read_corosync_conf(
        "quorum {\n two_node: 1\n wait_for_all: 0\n last_man_standing: 1\n}\n}}garbage\nx: {\n");
    CHECK(c["wait_for_all"] == false);
    CHECK(c["last_man_standing"] == true);
    CHECK(c["token"].is_null());
    CHECK(read_corosync_conf("")["wait_for_all"] == false);

    const json d = read_dlm_conf(dlm_conf);
    CHECK(d["plocks"] == true);
    CHECK(d["nodes"] ==
          json::parse(R"({"1": ["fence_ipmilan", "fence_graced"], "2": ["fence_ipmilan"]})"));
    CHECK(d.dump().find("secret") == std::string::npos);
    CHECK(read_dlm_conf("enable_fencing = 0\nenable_plock=0\nfence_all /bin/fence_x\nconnect "
                        "nobody node=1\n") ==
          json::parse(R"({"fencing": false, "plocks": false, "all": ["fence_x"], "nodes": {}})"));

    const json p = read_cib(cib);
    CHECK(
        p ==
        json::parse(
            R"({"stonith": true, "agents": {"power1": "fence_ipmilan", "grace": "fence_graced"}, "levels": [["power1", "grace"]]})"));
    CHECK(read_cib("<nvpair name=\"stonith-enabled\" id=\"a\" value=\"false\"/>")["stonith"] ==
          false);
    CHECK(read_cib("")["agents"].empty());

    CHECK(read_fstab(
              "# a\n/dev/a /x ext4 rw 0 0\n/dev/b /y gfs2\n/dev/c /z gfs2 localflocks 0 0\n") ==
          json::parse(
              R"([{"path": "/y", "options": ""}, {"path": "/z", "options": "localflocks"}])"));

    const char* const mounts = "22 1 0:20 / / rw shared:1 - ext4 /dev/a rw\n"
                               "30 22 8:16 / /var/lib/graced rw - gfs2 /dev/b rw\n"
                               "31 22 8:16 / /var/lib/gra rw - nfs4 h:/x rw\nbroken\n";
    CHECK(filesystem_of("/var/lib/graced/g.sqlite", mounts) == "gfs2");
    CHECK(filesystem_of("/var/lib/graced2/g.sqlite", mounts) == "ext4");
    CHECK(filesystem_of("/var", "").empty());

    CHECK(loads_gate_first("# x\ninstall gfs2 /sbin/modprobe -a lockd_shim gfs2_gate && true\n"));
    CHECK(!loads_gate_first("#install gfs2 /sbin/modprobe gfs2_gate\n"));
    CHECK(!loads_gate_first("install gfs2 /bin/true\nsoftdep gfs2 pre: gfs2_gate\n"));
    CHECK(grace_time_of_dropin(
              "[Service]\nExecStartPre=/bin/sh -c 'echo 600 >/proc/fs/nfsd/nfsv4gracetime'\n") ==
          600);
    CHECK(grace_time_of_dropin(
              "[Service]\n#ExecStartPre=/bin/sh -c 'echo 600 >/proc/fs/nfsd/nfsv4gracetime'\n")
              .is_null());
}

TEST_CASE("all is well: nothing is said, and of one node alone, what was not compared") {
    const report two = look({node1(), node2()});
    for (const finding& f : two.findings)
        FAIL_CHECK(f.check << ": " << f.what);
    const report one = look({node1()});
    CHECK(one.findings.empty());
    CHECK(unchecked(one, "same modules"));
    // With Pacemaker dlm.conf need not name devices.
    json f = node1();
    f["dlm"] = nullptr;
    f["cib"] = read_cib(cib);
    CHECK(look({f, node2()}).findings.empty());
    // One host: nothing of a cluster is asked for.
    f = node1();
    f["config"]["graced"]["state"] = "single";
    f["dlm"] = f["corosync"] = nullptr;
    f["status"]["nodes"] = json::array({f["status"]["nodes"][0]});
    CHECK(look({f}).findings.empty());
}

TEST_CASE("no daemon, no configuration, nothing at all: what can be told is") {
    json f = node1();
    f["status"] = nullptr;
    f["status_error"] = "no such socket";
    f["nfsdcld"]["runs"] = true;
    report r = look({f, node2()});
    REQUIRE(r.findings.size() == 2);
    CHECK(r.findings[0].check == "daemon");
    CHECK(r.findings[0].what.find("no such socket") != std::string::npos);
    CHECK(r.findings[1].check == "nfsdcld");
    CHECK(unchecked(r, "members"));
    r = look({json::object()});
    CHECK(r.findings.size() == 1); // graced does not answer
    for (const char* check : {"exports", "times", "members", "leftovers", "clock", "database"})
        CHECK_MESSAGE(unchecked(r, check), check);
    look({json::parse(
        R"({"format": 1, "status": 3, "config": [], "mounts": "x", "corosync": {"token": "y"}})")});
}

TEST_CASE("one node") {
    wrong("configuration", [](json& f) { f["config_errors"] = {"graced.conf:3: no"}; });
    advice("configuration",
           [](json& f) { f["config"]["warnings"] = {"[gate] backend = none: x"}; });
    wrong("daemon", [](json& f) { f["status"]["quorate"] = false; });
    wrong("daemon", [](json& f) { f["status"]["synced"] = false; });
    wrong("daemon", [](json& f) { f["status"]["kernel"]["bypass"] = true; });
    advice("daemon", [](json& f) { f["version"] = "0.2.0"; });
    advice("daemon", [](json& f) {
        f["status"]["warnings"] = {"the DLM lockspace is frozen", "corosync.conf has two_node"};
    });
    advice("boot", [](json& f) { f["enabled"] = false; });
    const finding gone = wrong("modules", [](json& f) {
        f["modules"]["lockd_shim"]["loaded"] = f["modules"]["gfs2_gate"]["loaded"] = false;
        f["modules"]["gfs2"]["loaded"] = false;
        f["mounts"] = json::array();
    });
    CHECK(gone.what.find("lockd_shim and gfs2_gate are not loaded") == 0);
    wrong("modules", [](json& f) { f["status"]["kernel"]["attached"] = false; });
    wrong("gfs2", [](json& f) { f["mounts"][0]["gate"] = "open"; });
    wrong("gfs2", [](json& f) { f["mounts"][0]["gate"] = "private"; });
    advice("gfs2", [](json& f) { f["mounts"][0]["gate"] = "ungated"; });
    wrong("gfs2",
          [](json& f) { f["fstab"] = read_fstab("/dev/b /srv gfs2 noatime,localflocks 0 0"); });
    wrong("gfs2", [](json& f) { f["gate_before_gfs2"] = false; });
    wrong("nodes_without_gfs2", [](json& f) {
        f["status"]["node"]["id"] = 3;
        f["status"]["servers"] = f["servers_here"] = json::array();
    });
    wrong("nodes_without_gfs2", [](json& f) { f["config"]["gate"]["backend"] = "none"; });
    wrong("nfsdcld", [](json& f) { f["nfsdcld"]["runs"] = true; });
    wrong("nfsdcld", [](json& f) { f["nfsdcld"]["masked"] = false; });
    wrong("database", [](json& f) { f["database"]["filesystem"] = "gfs2"; });
    wrong("database", [](json& f) { f["database"]["filesystem"] = "tmpfs"; });
    advice("clock", [](json& f) { f["clock_synchronized"] = false; });
}

TEST_CASE("the module gfs2 without its gate, and nothing mounted yet") {
    json f = node1();
    f["modules"]["gfs2_gate"]["loaded"] = false;
    f["mounts"] = json::array();
    const report r = look({f, node2()});
    REQUIRE(r.findings.size() == 2);
    CHECK(r.findings[0].check == "modules");
    CHECK(r.findings[1].check == "gfs2");
    CHECK(r.findings[1].remedy.find("modprobe -r gfs2") == 0);
}

TEST_CASE("fencing") {
    const auto dlm = [](const std::string& text) {
        return [text](json& f) { f["dlm"] = read_dlm_conf(text); };
    };
    const std::string all = dlm_conf;
    wrong("fencing", dlm(all + "enable_plock=0\n"));
    wrong("fencing", dlm(all + "enable_fencing=0\n"));
    wrong("fencing", dlm(""));
    const finding half = wrong("fencing", dlm(all.substr(0, all.find("device  power2"))));
    CHECK(half.what.find("node 2 (node2)") != std::string::npos);
    // fence_graced powers nothing off.
    wrong("fencing", dlm(all.substr(0, all.find("device  power2")) +
                         "device g:1 /usr/sbin/fence_graced\nconnect g:1 node=2\n"));
    wrong("fencing", [](json& f) { f["dlm"] = nullptr; });
    json f = node1();
    f["dlm"] = read_dlm_conf("fence_all /usr/sbin/fence_xyz\n");
    CHECK(look({f, node2()}).findings.empty());

    const auto pacemaker = [](const char* from, const char* to) {
        std::string text = cib;
        text.replace(text.find(from), std::string(from).size(), to);
        return [text](json& facts) { facts["cib"] = read_cib(text); };
    };
    wrong("fencing", pacemaker("value=\"true\"", "value=\"false\""));
    wrong("fencing", pacemaker("devices=\"power1,grace\"", "devices=\"power1\""));
    wrong("fencing", pacemaker("devices=\"power1,grace\"", "devices=\"grace,power1\""));
    wrong("fencing",
          [](json& facts) { facts["cib"] = read_cib("<primitive id=\"vs1\" class=\"ocf\"/>"); });
}

TEST_CASE("quorum, permit, times") {
    json f = node1();
    f["corosync"] =
        read_corosync_conf(std::string(corosync_conf) + "quorum {\nwait_for_all: 0\n}\n");
    f["corosync"]["running"] = true;
    report r = look({f});
    REQUIRE(r.findings.size() == 1);
    CHECK(r.findings[0].check == "quorum");
    f["corosync"] = node1()["corosync"];
    f["corosync"]["last_man_standing"] = true;
    r = look({f});
    REQUIRE(r.findings.size() == 1);
    CHECK(r.findings[0].check == "quorum");
    wrong("quorum", [](json& facts) { facts["corosync"]["running"] = false; });

    wrong("permit", [](json& facts) { facts["config"]["permit"]["ttl"] = 2701; });
    wrong("permit", [](json& facts) { facts["config"]["permit"]["heartbeat"] = 1201; });
    f = node1();
    f["config"]["permit"] = {{"ttl", 2700}, {"heartbeat", 900}};
    CHECK(look({f}).findings.empty());
    f = node1();
    f["corosync"]["token"] = 600;
    r = look({f});
    REQUIRE(r.findings.size() == 1);
    CHECK(r.findings[0].check == "permit");
    CHECK(r.findings[0].advice);
    f["corosync"]["token"] = nullptr;
    CHECK(unchecked(look({f}), "permit"));

    f = node1();
    f["config"]["server"]["vs1"]["lease_time"] = 91;
    r = look({f});
    REQUIRE(r.findings.size() == 1);
    CHECK(r.findings[0].check == "times");
    f = node1();
    f["config"]["grace"]["period"] = 60; // the kernel's lease is 90
    f["config"]["server"]["vs1"]["grace_time"] = 119;
    CHECK(look({f}).findings.size() == 2);
    wrong("times", [](json& facts) { facts["dropin_grace_time"] = 179; });
    f = node1();
    f["dropin_grace_time"] = 180;
    f["config"]["server"]["vs1"]["grace_time"] = 180;
    CHECK(look({f}).findings.empty());
}

TEST_CASE("scope and exports") {
    wrong("scope", [](json& f) { f["servers_here"][0]["scope"] = "node1"; });
    wrong("scope", [](json& f) {
        f["servers_here"] = json::array();
    }); // the node's own nfsd, called otherwise
    json f = node1();
    f["servers_here"] = json::array();
    f["status"]["servers"][0]["name"] = "node1";
    CHECK(look({f}).findings.empty());
    f = node1();
    f["servers_here"][0]["scope"] = nullptr; // could not be looked at
    CHECK(look({f}).findings.empty());

    const auto exporting = [](json lines) {
        json facts = node1();
        facts["config"]["server"]["vs1"]["exports"] = std::move(lines);
        return look({facts}).findings;
    };
    CHECK(exporting({"/a *(rw)"}).size() == 1);
    CHECK(exporting({"/a *"}).size() == 1);
    CHECK(exporting({"/a *(rw,fsid=1) h(ro)"}).front().check == "exports");
    CHECK(exporting({"/a *(fsid=1)", "/b *(fsid=1)"})
              .front()
              .what.find("/a and /b have the same fsid=1") != std::string::npos);
    CHECK(exporting({"/a *(fsid=0,rw)", "/b *(fsid=2)"}).empty());
}

TEST_CASE("leftovers and members") {
    advice("leftovers",
           [](json& f) { f["database"]["beside"] = {"graced.sqlite.damaged-20260101"}; });
    advice("leftovers", [](json& f) { f["database"]["beside"] = {"crash-1.rec"}; });
    wrong("leftovers", [](json& f) { f["status"]["servers"][0]["host"] = 2; });
    const finding orphan = advice("leftovers", [](json& f) {
        f["status"]["servers"].push_back(
            {{"name", "old"}, {"host", nullptr}, {"need", false}, {"clients", 4}});
    });
    CHECK(orphan.remedy.find("gracectl remove old --yes") != std::string::npos);
    json f = node1();
    f["status"]["servers"].push_back(
        {{"name", "old"}, {"host", nullptr}, {"need", false}, {"clients", 0}});
    f["status"]["servers"].push_back(
        {{"name", "moves"}, {"host", nullptr}, {"need", true}, {"clients", 9}});
    CHECK(look({f}).findings.empty());

    wrong("members", [](json& facts) { facts["status"]["nodes"][1]["attached"] = false; });
    const finding never = wrong("members", [](json& facts) {
        facts["status"]["nodes"][1]["member"] = facts["status"]["nodes"][1]["attached"] = false;
    });
    CHECK(never.what.find("has not since it booted") != std::string::npos);
}

TEST_CASE("between nodes") {
    const finding missing = wrong("same servers", [](json& f) {
        f["config"]["server"]["VS1"] = f["config"]["server"]["vs1"];
        f["config"]["server"].erase("vs1");
        f["config"]["server"]["vs1"] = node1()["config"]["server"]["vs1"];
    });
    CHECK(missing.what.find("[server.VS1] is not defined on node2") == 0);
    const finding exports = wrong("same servers", [](json& f) {
        f["config"]["server"]["vs1"]["exports"][1] = "/srv/home *(fsid=3)";
    });
    CHECK(exports.what.find("exports differs") != std::string::npos);
    CHECK(exports.what.find("on node2") != std::string::npos);
    wrong("same settings", [](json& f) { f["config"]["grace"]["period"] = 100; });
    wrong("same settings", [](json& f) { f["corosync"]["token"] = 4000; });
    wrong("same modules", [](json& f) { f["modules"]["gfs2_gate"]["srcversion"] = "EE"; });
    wrong("same versions", [](json& f) { f["version"] = f["status"]["version"] = "0.2.0"; });
    advice("same clock", [](json& f) { f["clock_offset"] = -1.5; });
    json f = node1();
    f["clock_offset"] = 0.9;
    f["config"]["server"]["vs1"]["interface"] = "eth7"; // that may differ
    f["corosync"]["running"] = false;
    CHECK(look({f, node2()}).findings.size() == 1);
}

TEST_CASE("every check was seen to find something, and says what it asks") {
    std::set<std::string> names;
    for (const check& c : checks()) {
        CHECK_MESSAGE(failed.contains(c.name), c.name);
        CHECK(std::string(c.asks).size() > 10);
        CHECK(bool(c.of_node) != bool(c.of_all));
        CHECK(names.insert(c.name).second);
    }
}
