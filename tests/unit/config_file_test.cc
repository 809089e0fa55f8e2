// SPDX-License-Identifier: GPL-2.0-or-later
// The configuration file: defaults, every key, and every way to get one wrong, all errors at once.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/config.hh"

#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <unistd.h>

using namespace grace;
using strings = std::vector<std::string>;

namespace {

config good(const std::string& text) {
    auto c = parse_config(text, "graced.conf");
    REQUIRE_MESSAGE(c.has_value(), (c ? "" : c.error().text()));
    return *c;
}

strings bad(const std::string& text) {
    auto c = parse_config(text, "graced.conf");
    REQUIRE(!c.has_value());
    return c.error().messages;
}

// The one error of a text that has one.
std::string error_of(const std::string& text) {
    const strings all = bad(text);
    for (const std::string& m : all) {
        INFO(m);
    }
    CAPTURE(text);
    REQUIRE(all.size() == 1);
    return all.front();
}

bool contains(const std::string& text, const std::string& part) {
    if (text.find(part) == std::string::npos) {
        MESSAGE(text << " lacks " << part);
        return false;
    }
    return true;
}

} // namespace

TEST_CASE("an empty file means the defaults") {
    const config c = good("# nothing\n\n");
    CHECK(c.graced.state == daemon_state::cluster);
    CHECK(c.graced.group == "graced");
    CHECK(c.graced.name.empty());
    CHECK(c.graced.level == log_level::info);
    CHECK(c.grace.period.count() == 90);
    CHECK(c.grace.orphan_timeout.count() == 600);
    CHECK(c.grace.daemon_timeout.count() == 300);
    CHECK(c.grace.grace_start_hold.count() == 20);
    CHECK_FALSE(c.permit.ttl);
    CHECK(c.store.path == "/var/lib/graced/graced.sqlite");
    CHECK(c.locks.keeper == strings{"/usr/sbin/graced-dlm"});
    CHECK(c.gate.backend == gate_backend::module);
    CHECK(c.cluster.dlm_group == "dlm:controld");
    CHECK(c.servers.empty());
    CHECK(c.warnings.empty());
}

TEST_CASE("every key") {
    const config c = good(R"conf(
[graced]
state = cluster
group = "my:group"
name = node-1.example
runtime_dir = /run/g
ipc_name = g1
log_level = debug
log = /var/log/graced.log   # with a comment
[grace]
period=120
orphan_timeout = 700
daemon_timeout = 400
grace_start_hold = 0
nodes_without_gfs2 = "3, 4"
[permit]
ttl = 900
heartbeat = 150
[store]
path = "/data/with space/graced.sqlite"
[locks]
backend = embedded
socket = /tmp/l.sock
keeper = ["/usr/bin/python3", "keeper.py", "--node=1"]
[gate]
backend = embedded
socket = /tmp/k.sock
[cluster]
dlm_group = ""
fence_command = "fence_x --on, # really"
[server.vs1]
addresses = ["192.0.2.10/24" , "2001:db8::1/64"]
interface = eth0.7
exports = [          # one for each line
    "/srv/data *(rw,fsid=1)",   # first
    "/srv/home 198.51.100.0/24(rw,fsid=2) *(ro)"
    ,
]
threads = 16
cld_version = 0
nfs_versions = 4.1, 4.2
grace_time = 300
lease_time = 60
[server.Vs-2]
)conf");
    CHECK(c.graced.group == "my:group");
    CHECK(c.graced.name == "node-1.example");
    CHECK(c.graced.level == log_level::debug);
    CHECK(c.graced.log == "/var/log/graced.log");
    CHECK(c.grace.period.count() == 120);
    CHECK(c.grace.grace_start_hold.count() == 0);
    CHECK(c.grace.nodes_without_gfs2 == std::set<std::uint32_t>{3, 4});
    CHECK(c.permit.ttl == std::chrono::milliseconds(900));
    CHECK(c.permit.heartbeat == std::chrono::milliseconds(150));
    CHECK(c.store.path == "/data/with space/graced.sqlite");
    CHECK(c.locks.backend == lock_backend::embedded);
    CHECK(c.locks.keeper == strings{"/usr/bin/python3", "keeper.py", "--node=1"});
    CHECK(c.gate.socket == "/tmp/k.sock");
    CHECK(c.cluster.dlm_group.empty());
    CHECK(c.cluster.fence_command == "fence_x --on, # really");
    REQUIRE(c.servers.size() == 2);
    const server_config& s = c.servers.at("vs1");
    CHECK(s.addresses == strings{"192.0.2.10/24", "2001:db8::1/64"});
    CHECK(s.interface == "eth0.7");
    CHECK(s.exports ==
          strings{"/srv/data *(rw,fsid=1)", "/srv/home 198.51.100.0/24(rw,fsid=2) *(ro)"});
    CHECK(s.threads == 16);
    CHECK(s.cld_version == 0);
    CHECK(s.nfs_versions == strings{"4.1", "4.2"});
    CHECK(nfsd_grace_time(c, s) == 300);
    CHECK(s.lease_time == 60);
    const server_config& other = c.servers.at("Vs-2");
    CHECK(other.name == "Vs-2");
    CHECK(other.cld_version == 2);
    CHECK(nfsd_grace_time(c, other) == 300);
}

TEST_CASE("lists of node ids, however written") {
    const std::set<std::uint32_t> want{3, 4};
    CHECK(good("[grace]\nnodes_without_gfs2 = 3,4\n").grace.nodes_without_gfs2 == want);
    CHECK(good("[grace]\nnodes_without_gfs2 = [3, 4]\n").grace.nodes_without_gfs2 == want);
    CHECK(good("[grace]\nnodes_without_gfs2 = [\n3,\n4,\n]\n").grace.nodes_without_gfs2 == want);
    CHECK(good("[grace]\nnodes_without_gfs2 = []\n").grace.nodes_without_gfs2.empty());
    CHECK(good("[grace]\nnodes_without_gfs2 = \"\"\n").grace.nodes_without_gfs2.empty());
}

TEST_CASE("an error names file, line, section, key, value, and what is allowed") {
    const std::string e = error_of("[grace]\n\nperiod = 5\n");
    CHECK(e ==
          "graced.conf:3: [grace] period = 5: must be a whole number of seconds from 10 to 3600");
}

TEST_CASE("values out of range or of the wrong type") {
    for (const char* text : {
             "[grace]\nperiod = 3601\n",
             "[grace]\nperiod = -1\n",
             "[grace]\nperiod = 90s\n",
             "[grace]\nperiod = 9e1\n",
             "[grace]\nperiod = ninety\n",
             "[grace]\nperiod = [90, 91]\n",
             "[grace]\nperiod = 99999999999999999999\n",
             "[grace]\nperiod = 10 20\n",
             "[grace]\nperiod = []\n",
             "[graced]\nstate = Cluster\n",
             "[graced]\nlog = file.log\n",
             "[graced]\nlog_level = verbose\n",
             "[graced]\nname = \"a b\"\n",
             "[graced]\nruntime_dir = run\n",
             "[grace]\nnodes_without_gfs2 = 0\n",
             "[grace]\nnodes_without_gfs2 = 3;4\n",
             "[permit]\nttl = never\n",
             "[permit]\nttl = 50\n",
             "[store]\npath = db\n",
             "[store]\npath = /var/lib/\n",
             "[store]\npath = \"\"\n",
             "[locks]\nbackend = dlm2\n",
             "[locks]\nkeeper = graced-dlm\n",
             "[locks]\nkeeper = []\n",
             "[gate]\nbackend = kernel\n",
             "[server.a]\nthreads = 0\n",
             "[server.a]\ncld_version = 3\n",
             "[server.a]\naddresses = 192.0.2.1\ninterface = e\n",
             "[server.a]\naddresses = 192.0.2.1/33\ninterface = e\n",
             "[server.a]\naddresses = 192.0.2.256/24\ninterface = e\n",
             "[server.a]\ninterface = averyveryverylongname\n",
             "[server.a]\nexports = srv *(rw)\n",
             "[server.a]\nexports = /srv *(rw,fsid=0)\n",
             "[server.a]\nnfs_versions = 4\n",
             "[server.a]\nnfs_versions = []\n",
             "[server.a]\ngrace_time = 5\n",
         }) {
        CHECK(contains(error_of(text), "must be "));
    }
}

TEST_CASE("unknown names, with the nearest known one") {
    CHECK(contains(error_of("[grace]\nperiood = 90\n"),
                   "[grace] has no key `periood`; did you mean `period`?"));
    CHECK(contains(error_of("[grce]\nperiod = 90\n"), "did you mean `grace`?"));
    CHECK(contains(error_of("[zzzzzz]\n"), "known are cluster, gate, grace, graced,"));
    CHECK(contains(error_of("[server.a]\nxyzzy = 1\n"), "known are addresses, interface,"));
    CHECK(contains(error_of("[servers.vs1]\n"), "did you mean `server.NAME`?"));
    CHECK(contains(error_of("[server]\n"), "not a known section"));
    CHECK(contains(error_of("[server.a.b]\n"), "DNS label"));
    CHECK(contains(error_of("[server.-a]\n"), "DNS label"));
    CHECK(contains(error_of("[server." + std::string(65, 'a') + "]\n"), "DNS label"));
    CHECK(contains(error_of("[server.a_b]\n"), "DNS label"));
    CHECK(contains(error_of("[server.VS1]\n[server.vs1]\n"), "upper and lower case"));
    CHECK(contains(error_of("[default]\n"), "not a known section"));
}

TEST_CASE("what the syntax does not allow") {
    CHECK(contains(error_of("period = 90\n"), "before the first [section]"));
    CHECK(contains(error_of("[grace\n"), "not a section"));
    CHECK(contains(error_of("[[grace]]\n"), "not a section"));
    CHECK(contains(error_of("[]\n"), "not a section"));
    CHECK(contains(error_of("[grace]\nperiod\n"), "neither"));
    CHECK(contains(error_of("[grace]\na.b = 1\n"), "neither"));
    CHECK(contains(error_of("[grace]\nperiod =\n"), "there is no value"));
    CHECK(contains(error_of("[grace]\nperiod = # 90\n"), "there is no value"));
    CHECK(contains(error_of("[grace]\nperiod = 90\nperiod = 91\n"),
                   "a second time (first in line 2)"));
    CHECK(contains(error_of("[grace]\n[store]\n[grace]\n"), "a second time (first in line 1)"));
    CHECK(contains(error_of("[store]\npath = \"/a\n"), "not closed"));
    CHECK(contains(error_of("[store]\npath = \"/a\" b\n"), "text after a closing quote"));
    CHECK(contains(error_of("[store]\npath = /a\"b\"\n"), "middle of a value"));
    CHECK(contains(error_of("[store]\npath = \"/a\\\"b\"\n"), "backslash"));
    CHECK(contains(error_of("[locks]\nkeeper = [\"/a\",\n"), "not closed by ]"));
    CHECK(contains(error_of("[locks]\nkeeper = [\"/a\",,\"b\"]\n"), "nothing before it"));
    CHECK(contains(error_of("[locks]\nkeeper = [\"/a\"] x\n"), "after the list's closing"));
    CHECK(contains(error_of("[locks]\nkeeper = [\"/a\"\n\"/b\"]\n"), "middle of a value"));
    CHECK(contains(error_of("[locks]\nkeeper = /a,\n"), "ends with a comma"));
    CHECK(contains(error_of(std::string("[store]\npath = /a\0b\n", 18)), "control character"));
}

TEST_CASE("keys that do not go together") {
    CHECK(
        contains(error_of("[graced]\nstate = single\n[locks]\nbackend = dlm\n"), "state = single"));
    CHECK(contains(error_of("[graced]\nstate = single\n[cluster]\ndlm_group = x\n"),
                   "state = single"));
    CHECK(contains(error_of("[gate]\nbackend = embedded\n"), "`socket`"));
    CHECK(contains(error_of("[gate]\nsocket = /x\n"), "embedded only"));
    CHECK(contains(error_of("[permit]\nttl = 300\nheartbeat = 150\n"), "a third of ttl"));
    CHECK(contains(error_of("[server.a]\naddresses = 192.0.2.1/24\n"), "no `interface`"));
    CHECK(contains(error_of("[server.a]\naddresses = 192.0.2.1/24\ninterface = e\n"
                            "[server.b]\naddresses = 192.0.2.1/16\ninterface = e\n"),
                   "belongs to [server.a] already"));
    CHECK(contains(
        error_of("[server.a]\naddresses = 2001:db8::1/64, 2001:DB8:0::1/64\ninterface = e\n"),
        "given twice"));
    const config c = good("[graced]\nstate = single\n");
    CHECK(c.locks.backend == lock_backend::embedded);
    CHECK(c.cluster.dlm_group.empty());
}

TEST_CASE("all errors at once, in the order of the file") {
    const strings all = bad("[grace]\nperiod = 1\nfoo = 2\n[nope]\n[permit]\nttl = x\nline\n");
    REQUIRE(all.size() == 5);
    CHECK(contains(all[0], ":2: "));
    CHECK(contains(all[1], ":3: "));
    CHECK(contains(all[2], ":4: "));
    CHECK(contains(all[3], ":6: "));
    CHECK(contains(all[4], ":7: "));
}

TEST_CASE("warnings") {
    const auto one = [](const std::string& text) {
        const config c = good(text);
        REQUIRE(c.warnings.size() == 1);
        return c.warnings.front();
    };
    CHECK(contains(one("[gate]\nbackend = none\n"), "holds back"));
    CHECK(contains(one("[locks]\nbackend = embedded\n"), "fencing"));
    CHECK(contains(one("[server.a]\nexports = [\"/srv *(rw)\"]\n"), "fsid="));
    CHECK(contains(one("[server.a]\ngrace_time = 90\n"), "twice"));
    CHECK(contains(one("[grace]\nperiod = 2000\n[server.a]\n"), "3600 s"));
}

TEST_CASE("files: missing, a directory, the example") {
    const auto missing = load_config("/nonexistent/graced.conf");
    REQUIRE(!missing);
    CHECK(
        contains(missing.error().text(), "/nonexistent/graced.conf: cannot be read: No such file"));
    const auto optional = load_config("/nonexistent/graced.conf", false);
    REQUIRE(optional);
    CHECK(optional->warnings.size() == 1);
    CHECK(optional->file.empty());
    CHECK(!load_config("/tmp"));

    // The example: as it is, and with its comment signs taken off the keys.
    std::ifstream in(GRACED_EXAMPLE_CONF);
    REQUIRE(in);
    std::string as_it_is;
    std::string uncommented;
    for (std::string line; std::getline(in, line);) {
        as_it_is += line + "\n";
        uncommented += (line.size() > 1 && line[0] == '#' && line[1] != ' ' ? line.substr(1)
                        : line.rfind("#    ", 0) == 0                       ? line.substr(1)
                                                                            : line) +
                       "\n";
    }
    CHECK(to_json(good(as_it_is)) ==
          to_json(good("[graced]"))
              .patch({{{"op", "replace"}, {"path", "/file"}, {"value", "graced.conf"}}}));
    nlohmann::json filled = to_json(good(uncommented));
    CHECK(filled["server"]["vs1"]["exports"].size() == 2);
    filled["server"] = nlohmann::json::object();
    filled["graced"]["name"] = nullptr;
    filled["grace"]["nodes_without_gfs2"] = nlohmann::json::array();
    CHECK(filled == to_json(good("[graced]")));
}

TEST_CASE("the shell form survives a shell") {
    const config c =
        good("[server.vs1]\naddresses = [\"192.0.2.1/24\", \"192.0.2.2/24\"]\n"
             "interface = e\n"
             "exports = [\"/srv/it's *(rw,fsid=0)\", '/srv/$(reboot) \"*\"(rw,fsid=1)']\n");
    const std::string text = to_shell(c, c.servers.at("vs1"));
    CHECK(contains(text, "GRACED_SERVER='vs1'\n"));
    CHECK(contains(text, "GRACED_GRACE_TIME='240'\n"));
    CHECK(contains(text, "GRACED_LEASE_TIME=''\n"));
    ::setenv("SHELL_FORM", text.c_str(), 1);
    FILE* sh =
        ::popen("eval \"$SHELL_FORM\"; printf '%s' \"$GRACED_ADDRESSES|$GRACED_EXPORTS\"", "r");
    REQUIRE(sh != nullptr);
    char out[512] = {};
    const std::size_t n = std::fread(out, 1, sizeof out - 1, sh);
    CHECK(::pclose(sh) == 0);
    CHECK(std::string(out, n) == "192.0.2.1/24\n192.0.2.2/24|/srv/it's *(rw,fsid=0)\n"
                                 "/srv/$(reboot) \"*\"(rw,fsid=1)");
}

TEST_CASE("no text makes the parser crash") {
    const std::string seed =
        "[server.a]\nexports = [\"/srv *(rw,fsid=0)\", 'x y'] # c\n[grace]\nperiod=90\n";
    std::uint64_t random = 1;
    for (int round = 0; round < 20000; ++round) {
        std::string text = seed;
        for (int edits = 0; edits < 1 + round % 5; ++edits) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            const std::size_t at = (random >> 33) % text.size();
            const char c = "[]\"'#=,\n .\\a0\0\xff"[(random >> 20) % 16];
            switch ((random >> 60) % 3) {
            case 0:
                text[at] = c;
                break;
            case 1:
                text.insert(at, 1, c);
                break;
            default:
                text.erase(at, 1 + (random >> 50) % 4);
                break;
            }
        }
        const auto c = parse_config(text, "f");
        if (!c && c.error().messages.empty()) {
            FAIL("refused without a reason");
        }
    }
}
