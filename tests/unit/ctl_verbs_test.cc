// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl's command line: what each verb asks the daemon, what it prints, and the exit codes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/ctl/gracectl.hh"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

using namespace grace;
using namespace grace::ctl;

namespace {

// gracectl with a daemon that answers as told.
struct bench {
    std::vector<result<json>> answers; // one for each request; the last for all further ones
    std::vector<json> asked;
    std::vector<std::optional<std::chrono::milliseconds>> limits;
    std::string ipc;
    std::ostringstream out, err;
    std::vector<bool> directly; // the bypass, told to the kernel without a daemon
    result<std::vector<std::uint32_t>> elsewhere = std::vector<std::uint32_t>{};
    json facts = {{"format", 1}, {"host", "n1"}};
    std::vector<std::vector<std::string>> ran;
    std::function<result<program_output>(const std::vector<std::string>&)> program;

    int run(std::vector<const char*> args) {
        args.insert(args.begin(), "gracectl");
        asked.clear();
        limits.clear();
        ran.clear();
        out.str("");
        err.str("");
        surroundings around{
            out,
            err,
            [] { return 1767323045.0; },
            [this](const std::string& name, const json& request,
                   std::optional<std::chrono::milliseconds> timeout,
                   const progress& on_progress) -> result<json> {
                ipc = name;
                asked.push_back(request);
                limits.push_back(timeout);
                if (on_progress) {
                    on_progress("on it");
                }
                return answers.empty() ? result<json>(json{{"ok", true}})
                                       : answers[std::min(asked.size(), answers.size()) - 1];
            },
            [this](bool on) -> result<void> {
                directly.push_back(on);
                return {};
            },
            [this]() -> result<bool> { return !directly.empty() && directly.back(); },
            [this](const std::string&) { return elsewhere; },
            [] {
                return std::vector<gfs2_mount>{{"/srv/a", "8:16", "", "gated"},
                                               {"/srv/b", "8:32", "", "private"}};
            },
            [this](const std::string&, const std::string&) { return facts; },
            [this](const std::vector<std::string>& command, std::chrono::seconds) {
                ran.push_back(command);
                return program ? program(command) : fail("there is no such program", ENOENT);
            }};
        return ctl::run(static_cast<int>(args.size()), args.data(), around);
    }
};

json refusal(const char* code) {
    return {{"ok", false}, {"code", code}, {"error", "because"}};
}

} // namespace

TEST_CASE(
    "the bypass: said twice, by the daemon where there is one, never behind the others' back") {
    bench b;
    CHECK(b.run({"bypass", "on"}) == exit_usage);
    CHECK(b.asked.empty());
    CHECK(b.err.str().find("corrupted") != std::string::npos);
    CHECK(b.run({"bypass", "on", "--yes"}) == exit_ok);
    CHECK(b.asked.front() == json{{"verb", "bypass"}, {"on", true}});
    CHECK(b.run({"bypass", "on", "--yes", "--cluster"}) == exit_ok);
    CHECK(b.asked.front() == json{{"verb", "bypass"}, {"on", true}, {"node", ""}});
    CHECK(b.run({"bypass", "off", "--node", "n2"}) == exit_ok);
    CHECK(b.asked.front() == json{{"verb", "bypass"}, {"on", false}, {"node", "n2"}});
    CHECK(b.directly.empty());

    b.answers = {fail("graced does not run", ECONNREFUSED)};
    CHECK(b.run({"bypass", "on", "--yes", "--cluster"}) == exit_not_running);
    CHECK(b.directly.empty());
    CHECK(b.run({"bypass", "on", "--yes"}) == exit_ok); // nobody counts this node as closed
    CHECK(b.directly == std::vector<bool>{true});
    b.elsewhere = std::vector<std::uint32_t>{2, 3};
    CHECK(b.run({"bypass", "on", "--yes"}) == exit_failed);
    CHECK(b.err.str().find("2, 3") != std::string::npos);
    b.elsewhere = fail("corosync does not answer", ECONNREFUSED);
    CHECK(b.run({"bypass", "on", "--yes"}) == exit_failed);
    CHECK(b.directly.size() == 1);
    CHECK(b.run({"bypass", "on", "--yes", "--told"}) == exit_ok);
    CHECK(b.run({"status"}) == exit_not_running);
    CHECK(b.err.str().find("IS BYPASSED") != std::string::npos);
    CHECK(b.run({"bypass", "off"}) == exit_ok); // closing harms nobody
    CHECK(b.directly == std::vector<bool>{true, true, false});
}

namespace {

json status_with(json server_host, std::uint64_t clients = 3) {
    return {{"ok", true},
            {"node", {{"id", 1}, {"name", "n1"}}},
            {"nodes",
             {{{"id", 1}, {"name", "n1"}, {"live", true}, {"synced", true}, {"attached", true}},
              {{"id", 2}, {"name", "n2"}, {"live", true}, {"synced", true}, {"attached", true}},
              {{"id", 3}, {"name", "n3"}, {"live", true}, {"synced", true}, {"attached", false}}}},
            {"servers",
             {{{"name", "vs1"},
               {"host", std::move(server_host)},
               {"need", false},
               {"clients", clients}}}}};
}

} // namespace

TEST_CASE(
    "migrate: Pacemaker is asked for the resource, moves it, is waited for, and forgets why") {
    bench b;
    int stickiness = 100;
    int wait_ends_with = 0;
    b.program = [&](const std::vector<std::string>& c) -> result<program_output> {
        if (c[0] == "cibadmin")
            return program_output{
                0, "<primitive id=\"the-vs1\" class=\"ocf\" type=\"server\">\n</primitive>\n", ""};
        if (c[1] == "--wait")
            return program_output{wait_ends_with, "", "late\n"};
        if (c[3] == "--meta")
            return program_output{0, std::to_string(stickiness) + "\n", ""};
        return program_output{0, "", ""};
    };
    const auto did = [&](std::size_t n) {
        std::string all;
        for (const std::string& w : b.ran.at(n))
            all += (all.empty() ? "" : " ") + w;
        return all;
    };
    b.answers = {status_with(1), status_with(2), status_with(2)};
    CHECK(b.run({"migrate", "vs1", "n2", "--timeout", "20"}) == exit_ok);
    CHECK(b.out.str() == "Server vs1 is on n2.\n");
    REQUIRE(b.ran.size() == 6);
    CHECK(did(0).find("nvpair[@name='server'][@value='vs1']") != std::string::npos);
    CHECK(did(2) == "crm_resource --resource the-vs1 --move --node n2");
    CHECK(did(3) == "crm_resource --wait --timeout 21s");
    CHECK(did(4) == "crm_resource --resource the-vs1 --clear");
    CHECK(did(5) == did(3));

    b.answers = {status_with(1), status_with(2)};
    CHECK(b.run({"migrate", "vs1", "2", "--keep", "--json"}) == exit_ok); // by id
    CHECK(b.ran.size() == 3);
    CHECK(json::parse(b.out.str())["node"] == "n2");
    // It goes back when the constraint is gone; it never got there.
    b.answers = {status_with(1), status_with(2), status_with(1)};
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_failed);
    b.answers = {status_with(1), status_with(1)};
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_failed);
    CHECK(b.ran.size() == 4);
    CHECK(b.err.str().find("--clear") != std::string::npos);
    wait_ends_with = 124;
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_timeout);
    // Nothing is begun that would not hold, or could not.
    b.answers = {status_with(2)};
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_ok);
    CHECK(b.ran.empty());
    CHECK(b.run({"migrate", "vs1", "n3"}) == exit_not_enforcing);
    CHECK(b.run({"migrate", "vs1", "n9"}) == exit_unknown);
    CHECK(b.run({"migrate", "vs9", "n2"}) == exit_unknown);
    CHECK(b.ran.empty());
    stickiness = 0;
    b.answers = {status_with(1)};
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_failed);
    CHECK(b.ran.size() == 2);
    b.program = [](const std::vector<std::string>&) -> result<program_output> {
        return program_output{105, "", ""};
    };
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_unknown);
    CHECK(b.err.str().find("graced-server stop vs1") != std::string::npos);
    b.program = nullptr;
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_failed);
    CHECK(b.err.str().find("graced-server start vs1 on n2") != std::string::npos);
    b.answers = {fail("not running", ECONNREFUSED)};
    CHECK(b.run({"migrate", "vs1", "n2"}) == exit_not_running);
}

TEST_CASE("remove: only of a server that nobody hosts, said twice, by a grace") {
    bench b;
    b.answers = {status_with(nullptr)};
    CHECK(b.run({"remove", "vs1"}) == exit_usage);
    CHECK(b.asked.size() == 1);
    CHECK(b.err.str().find("3 clients of server vs1") != std::string::npos);
    b.answers = {status_with(2)};
    CHECK(b.run({"remove", "vs1", "--yes"}) == exit_hosted_elsewhere);
    CHECK(b.asked.size() == 1);
    CHECK(b.run({"remove", "vs9", "--yes"}) == exit_unknown);
    b.answers = {status_with(nullptr, 0)};
    CHECK(b.run({"remove", "vs1"}) == exit_ok);
    CHECK(b.asked.size() == 1);

    const json done = {{"ok", true}};
    b.answers = {status_with(nullptr), done, done, done, status_with(nullptr, 0)};
    CHECK(b.run({"remove", "vs1", "--yes", "--json"}) == exit_ok);
    CHECK(json::parse(b.out.str())["removed"] == 3);
    REQUIRE(b.asked.size() == 5);
    CHECK(b.asked[1] == json{{"verb", "start"}, {"server", "vs1"}});
    CHECK(b.asked[2] == json{{"verb", "lift"}, {"server", "vs1"}, {"only_unhosted", true}});
    CHECK(b.asked[3] == json{{"verb", "wait"}, {"phase", "normal"}});
    CHECK(b.limits[3] == std::chrono::seconds(60));
    // Somebody starts it meanwhile.
    b.answers = {status_with(nullptr), done, refusal("hosted_elsewhere")};
    CHECK(b.run({"remove", "vs1", "--yes"}) == exit_hosted_elsewhere);
    CHECK(b.asked.size() == 3);
    b.answers = {status_with(nullptr), done, done, done, status_with(1)};
    CHECK(b.run({"remove", "vs1", "--yes"}) == exit_failed);
}

TEST_CASE("doctor: exit codes, JSON, other nodes by ssh or file, without a daemon") {
    bench b;
    std::string path = "/tmp/graced-conf-XXXXXX";
    ::close(::mkstemp(path.data()));
    std::ofstream(path)
        << "[graced]\nstate = single\nname = n1\n[cluster]\nfence_command = \"x secret\"\n";
    const char* const file = path.c_str();
    b.facts = {
        {"format", 1},
        {"version", "1"},
        {"host", "n1"},
        {"modules",
         {{"lockd_shim", {{"loaded", true}, {"version", "1"}}}, {"gfs2_gate", {{"loaded", true}}}}},
        {"database", {{"filesystem", "ext4"}}},
        {"clock_synchronized", true}};
    b.answers = {status_with(1)};
    b.answers[0]->at("nodes").erase(2);
    b.facts["servers_here"] = {{{"name", "vs1"}, {"scope", "vs1"}}};
    CHECK(b.run({"doctor", "--file", file}) == exit_ok);
    CHECK(b.out.str().find("n1: 0 wrong, 0 to look at") != std::string::npos);
    b.facts["clock_synchronized"] = false;
    CHECK(b.run({"doctor", "--file", file, "--json"}) == exit_advice);
    json answer = json::parse(b.out.str());
    CHECK(answer["ok"] == false);
    CHECK(answer["code"] == "advice");
    CHECK(answer["findings"].size() == 1);
    CHECK(answer["findings"][0]["severity"] == "advice");
    CHECK(answer["nodes"] == json{"n1"});
    b.facts["clock_synchronized"] = true;
    b.answers = {fail("graced does not run", ECONNREFUSED)};
    CHECK(b.run({"doctor", "--file", file}) == exit_wrong);
    CHECK(b.out.str().rfind("!! daemon, n1: graced does not answer: graced does not run\n", 0) ==
          0);
    CHECK(b.run({"doctor", "--file", "/nonexistent"}) == exit_wrong);
    CHECK(b.out.str().find("configuration, n1") != std::string::npos);

    // Another node's facts, from here for once.
    CHECK(b.run({"doctor", "--file", file, "--facts"}) == exit_ok);
    CHECK(b.out.str().find("secret") == std::string::npos);
    json other = json::parse(b.out.str());
    CHECK(other["config"]["graced"]["state"] == "single");
    other["node"] = "n2";
    other["modules"]["lockd_shim"]["version"] = "2";
    other["time"] = 1767323045.0 + 7;
    std::string there = "/tmp/graced-facts-XXXXXX";
    ::close(::mkstemp(there.data()));
    std::ofstream(there) << other;
    b.answers = {status_with(1)};
    b.answers[0]->at("nodes").erase(2);
    other["status"] = *b.answers[0];
    other["status"]["servers"] = json::array();
    std::ofstream(there) << other;
    CHECK(b.run({"doctor", "--file", file, "--with", there.c_str(), "--json"}) == exit_wrong);
    answer = json::parse(b.out.str());
    CHECK(answer["nodes"] == json{"n1", "n2"});
    REQUIRE(answer["findings"].size() == 2); // the module; what is there of a server, not hosted
    CHECK(answer["findings"].back()["check"] == "same modules");
    std::ofstream(there) << "[]";
    CHECK(b.run({"doctor", "--file", file, "--with", there.c_str()}) == exit_failed);

    b.program = [&](const std::vector<std::string>&) {
        return program_output{0, other.dump(), ""};
    };
    CHECK(b.run({"doctor", "--file", file, "--ssh", "--json"}) == exit_wrong);
    REQUIRE(b.ran.size() == 1);
    CHECK(b.ran[0].front() == "ssh");
    CHECK(b.ran[0][b.ran[0].size() - 2] == "n2");
    answer = json::parse(b.out.str());
    CHECK(answer["findings"].size() == 3);
    CHECK(answer["findings"].back()["check"] == "same clock");
    b.program = [](const std::vector<std::string>&) {
        return program_output{255, "", "no route\nmore\n"};
    };
    CHECK(b.run({"doctor", "--file", file, "--ssh"}) == exit_ok);
    CHECK(b.out.str().find("n2: not checked: ssh n2 gracectl doctor --facts ended") !=
          std::string::npos);

    CHECK(b.run({"doctor", "--list"}) == exit_ok);
    CHECK(b.out.str().find("\nquorum              two_node has wait_for_all") != std::string::npos);
    CHECK(b.run({"doctor", "--list", "--json"}) == exit_ok);
    CHECK(json::parse(b.out.str())["checks"].size() > 15);
    ::unlink(file);
    ::unlink(there.c_str());
}

TEST_CASE("a program that is run: its words, its code, its end when it takes too long") {
    auto said =
        run_program({"sh", "-c", "echo out; echo err >&2; exit 5"}, std::chrono::seconds(60));
    REQUIRE(said);
    CHECK(said->code == 5);
    CHECK(said->out == "out\n");
    CHECK(said->err == "err\n");
    CHECK(run_program({"sh", "-c", "kill -9 $$"}, std::chrono::seconds(60))->code == 128 + 9);
    CHECK(run_program({"/nonexistent/program"}, std::chrono::seconds(60)).error().code == ENOENT);
    CHECK(run_program({"sleep", "60"}, std::chrono::seconds(1)).error().code == ETIMEDOUT);
    said = run_program({"head", "-c", "200000", "/dev/zero"}, std::chrono::seconds(60));
    REQUIRE(said);
    CHECK(said->out.size() == 200000);
}

TEST_CASE("status tells what holds for each mounted GFS2") {
    bench b;
    CHECK(b.run({"status", "--json"}) == exit_ok);
    const json status = json::parse(b.out.str());
    CHECK(status["filesystems"].size() == 2);
    CHECK(status["filesystems"][1]["gate"] == "private");
    CHECK(b.run({"status"}) == exit_ok);
    CHECK(b.out.str().find("/srv/b: PRIVATE locks") != std::string::npos);
}

TEST_CASE("metrics: as they come, and as a file that is there with all of it or as before") {
    bench b;
    b.answers = {
        json{{"ok", true}, {"format", "openmetrics"}, {"text", "graced_quorate 1\n# EOF\n"}}};
    CHECK(b.run({"metrics"}) == exit_ok);
    CHECK(b.asked.front() == json{{"verb", "metrics"}, {"format", "openmetrics"}});
    CHECK(b.out.str() == "graced_quorate 1\n# EOF\n");
    char directory[] = "/tmp/graced-metrics-XXXXXX";
    REQUIRE(mkdtemp(directory) != nullptr);
    const std::string file = std::string(directory) + "/graced.prom";
    CHECK(b.run({"metrics", "--textfile", file.c_str()}) == exit_ok);
    CHECK(b.asked.front() == json{{"verb", "metrics"}, {"format", "prometheus"}});
    CHECK(b.out.str().empty());
    const auto written = [&] {
        std::ostringstream all;
        all << std::ifstream(file).rdbuf();
        return all.str();
    };
    CHECK(written() == "graced_quorate 1\n# EOF\n");
    struct stat is {};
    REQUIRE(stat(file.c_str(), &is) == 0);
    CHECK((is.st_mode & 0777) == 0644);
    // What another run left, or a trap: replaced, not followed.
    const std::string fresh = file + ".new", trap = std::string(directory) + "/trap";
    REQUIRE(symlink(trap.c_str(), fresh.c_str()) == 0);
    b.answers = {json{{"ok", true}, {"text", "graced_quorate 0\n"}}};
    CHECK(b.run({"metrics", "--textfile", file.c_str()}) == exit_ok);
    CHECK(written() == "graced_quorate 0\n");
    CHECK(access(trap.c_str(), F_OK) != 0);
    CHECK(access(fresh.c_str(), F_OK) != 0);
    // No daemon: the old file stays, and grows old.
    b.answers = {fail("graced does not run", ECONNREFUSED)};
    CHECK(b.run({"metrics", "--textfile", file.c_str()}) == exit_not_running);
    CHECK(written() == "graced_quorate 0\n");
    b.answers = {json{{"ok", true}, {"text", "x 1\n"}}};
    CHECK(b.run({"metrics", "--textfile", "/nowhere/graced.prom"}) == exit_failed);
    CHECK(b.err.str().find("/nowhere/graced.prom cannot be written") != std::string::npos);
    unlink(file.c_str());
    rmdir(directory);
}

TEST_CASE("what each verb asks") {
    bench b;
    const auto asks = [&](std::vector<const char*> args) {
        CHECK(b.run(std::move(args)) == exit_ok);
        REQUIRE(b.asked.size() == 1);
        return b.asked.front();
    };
    CHECK(asks({"status"}) == json{{"verb", "status"}});
    CHECK(asks({"dump"}) == json{{"verb", "status"}});
    CHECK(asks({"servers"}) == json{{"verb", "status"}});
    CHECK(asks({"nodes"}) == json{{"verb", "status"}});
    CHECK(asks({"version"}) == json{{"verb", "status"}});
    CHECK(asks({"clients"}) == json{{"verb", "clients"}});
    CHECK(asks({"exempt", "42"}) == json{{"verb", "exempt"}, {"pid", 42}, {"on", true}});
    CHECK(asks({"exempt", "42", "--off"}) == json{{"verb", "exempt"}, {"pid", 42}, {"on", false}});
    CHECK(asks({"mounts"}) == json{{"verb", "mounts"}});
    CHECK(asks({"mounts", "--server", "vs1", "--rmtab"}) ==
          json{{"verb", "mounts"}, {"server", "vs1"}});
    CHECK(asks({"clients", "--server", "vs1"}) == json{{"verb", "clients"}, {"server", "vs1"}});
    CHECK(asks({"start"}) == json{{"verb", "start"}, {"server", ""}, {"timeout", 30.0}});
    CHECK(b.limits.front() == std::chrono::milliseconds(30'000));
    CHECK(asks({"start", "vs1", "--timeout", "1.5"}) ==
          json{{"verb", "start"}, {"server", "vs1"}, {"timeout", 1.5}});
    CHECK(asks({"join", "vs1"}) ==
          json{{"verb", "start"}, {"server", "vs1"}, {"join", true}, {"timeout", 30.0}});
    CHECK(asks({"lift", "vs1"}) == json{{"verb", "lift"}, {"server", "vs1"}, {"timeout", 30.0}});
    CHECK(asks({"extend", "vs1", "--by", "90"}) ==
          json{{"verb", "extend"}, {"server", "vs1"}, {"seconds", 90}, {"timeout", 30.0}});
    CHECK(asks({"enforce"}) == json{{"verb", "hold"}, {"on", true}, {"timeout", 30.0}});
    CHECK(asks({"noenforce"}) == json{{"verb", "hold"}, {"on", false}, {"timeout", 30.0}});
    CHECK(asks({"wait", "normal"}) == json{{"verb", "wait"}, {"phase", "normal"}});
    CHECK(!b.limits.front());
    CHECK(b.err.str() == "on it\n");
    CHECK(b.out.str() == "The phase is normal.\n");
    CHECK(asks({"fence-notify", "node3"}) ==
          json{{"verb", "fence-notify"}, {"node", "node3"}, {"timeout", 60.0}});
    CHECK(asks({"server-start", "vs1", "--netns", "/run/netns/vs1", "--nfsd-fs", "/a", "--pipe",
                "/b", "--cld-version", "0"}) == json{{"verb", "server-start"},
                                                     {"server", "vs1"},
                                                     {"netns", "/run/netns/vs1"},
                                                     {"nfsd_fs", "/a"},
                                                     {"pipe", "/b"},
                                                     {"cld_version", 0}});
    CHECK(asks({"server-start", "vs1", "--nfsd-fs", "/a", "--pipe", "/b"})["netns"] == "");
    const json v3 = asks({"server-start", "vs1", "--nfsd-fs", "/a", "--pipe", "/b", "--callout",
                          "/c", "--callout-user", "106", "--rmtab", "/d"});
    CHECK(v3["callout"] == "/c");
    CHECK(v3["callout_user"] == 106);
    CHECK(v3["rmtab"] == "/d");
    CHECK(asks({"server-running", "vs1"}) ==
          json{{"verb", "server-running"}, {"server", "vs1"}, {"timeout", 30.0}});
    CHECK(asks({"server-stop", "vs1"}) == json{{"verb", "server-stop"}, {"server", "vs1"}});
    CHECK(asks({"server-released", "vs1"})["verb"] == "server-released");
}

TEST_CASE("exit codes of what the daemon says") {
    bench b;
    const std::pair<const char*, int> codes[] = {
        {"not_quorate", 4}, {"not_enforcing", 5},    {"no_such_server", 6}, {"no_such_node", 6},
        {"timeout", 7},     {"hosted_elsewhere", 8}, {"permission", 9},     {"not_hosted", 1},
        {"void_now", 1},    {"bad_request", 1},      {"something new", 1},  {"done", 1}};
    for (const auto& [code, exit] : codes) {
        b.answers = {refusal(code)};
        CHECK(b.run({"start"}) == exit);
        CHECK(b.err.str() == "on it\ngracectl: because\n");
        CHECK(b.out.str().empty());
        CHECK(b.run({"start", "--json"}) == exit);
        CHECK(json::parse(b.out.str()) == refusal(code));
    }
}

TEST_CASE("exit codes of what keeps the daemon from answering") {
    bench b;
    for (const auto& [code, exit] :
         {std::pair{ECONNREFUSED, 3}, {ENOTCONN, 3}, {EACCES, 9}, {ETIMEDOUT, 7}, {EPROTO, 1}}) {
        b.answers = {fail("no luck", code)};
        CHECK(b.run({"status"}) == exit);
        CHECK(b.err.str() == "on it\ngracectl: no luck\n");
        CHECK(b.run({"--json", "status"}) == exit);
        CHECK(json::parse(b.out.str())["error"] == "no luck");
    }
    b.answers = {fail("not running", ECONNREFUSED)};
    CHECK(b.run({"version"}) == exit_ok);
    CHECK(b.out.str() == "gracectl " GRACED_VERSION "\ngraced (not running)\n");
}

TEST_CASE("usage errors are exit code 2, help is 0") {
    bench b;
    using args = std::vector<const char*>;
    for (const args& a :
         {args{}, args{"nonsense"}, args{"wait"}, args{"join"}, args{"migrate", "vs1"},
          args{"remove"}, args{"doctor", "--facts", "--ssh"}, args{"wait", "tuesday"},
          args{"start", "a", "b"}, args{"start", "--timeout", "-1"},
          args{"start", "--timeout", "x"}, args{"extend", "--by", "0"}, args{"extend", "--by", "3601"}, args{"fence-notify"}, args{"config"},
          args{"server-start", "vs1"}, args{"status", "--frobnicate"},
          args{"server-start", "vs1", "--nfsd-fs", "a", "--pipe", "/b"},
          args{"server-start", "vs1", "--nfsd-fs", "/a", "--pipe", "/b", "--cld-version", "3"}}) {
        CHECK(b.run(a) == exit_usage);
        CHECK(b.asked.empty());
        CHECK(!b.err.str().empty());
    }
    CHECK(b.run({"--help"}) == exit_ok);
    CHECK(b.out.str().find("Exit codes: 0 ok, 1 failed, 2 usage") != std::string::npos);
    CHECK(b.out.str().find("server-start") == std::string::npos); // for agents
    CHECK(b.run({"wait", "--help"}) == exit_ok);
    CHECK(b.out.str().find("Exit codes:") != std::string::npos);
}

TEST_CASE("--json of the verbs that show a part, --ipc") {
    bench b;
    b.answers = {json{{"ok", true},
                      {"current", 5},
                      {"recovery", 4},
                      {"nodes", json::array()},
                      {"servers", json::array({{{"name", "vs1"}}})},
                      {"phase", "normal"}}};
    CHECK(b.run({"servers", "--json", "--ipc", "other"}) == exit_ok);
    CHECK(b.ipc == "other");
    CHECK(json::parse(b.out.str()) ==
          json{{"ok", true}, {"servers", json::array({{{"name", "vs1"}}})}});
    CHECK(b.run({"--json", "--ipc", "x", "dump"}) == exit_ok);
    CHECK(json::parse(b.out.str())["current"] == 5);
    CHECK(b.run({"status", "--json"}) == exit_ok);
    json status = json::parse(b.out.str());
    status.erase("filesystems"); // what gracectl adds
    CHECK(status == *b.answers[0]);
    CHECK(b.run({"dump"}) == exit_ok);
    CHECK(b.out.str().rfind("cur=5 rec=4\n", 0) == 0);
}

TEST_CASE("clients come in pages") {
    bench b;
    const auto page = [](const char* name, bool more) {
        return json{
            {"ok", true},
            {"clients",
             json::array(
                 {{{"server", "vs1"}, {"name", name}, {"name_hex", name}, {"key_hex", name}}})},
            {"more", more}};
    };
    b.answers = {page("aa", true), page("bb", true), page("cc", false)};
    CHECK(b.run({"clients", "--json"}) == exit_ok);
    CHECK(json::parse(b.out.str())["clients"].size() == 3);
    REQUIRE(b.asked.size() == 3);
    CHECK(b.asked[2]["after_server"] == "vs1");
    CHECK(b.asked[2]["after_hex"] == "bb");
    // A daemon that gives the same page again and again does not hold us for ever.
    b.answers = {page("aa", true)};
    CHECK(b.run({"clients"}) == exit_ok);
    CHECK(b.asked.size() == 2);
    CHECK(b.out.str().find("(and more)") != std::string::npos);
    b.answers = {page("aa", true), refusal("no_such_server")};
    CHECK(b.run({"clients"}) == exit_unknown);
}

TEST_CASE("config verbs") {
    bench b;
    std::string path = "/tmp/graced-conf-XXXXXX";
    const int fd = ::mkstemp(path.data());
    REQUIRE(fd >= 0);
    ::close(fd);
    const auto write = [&](const std::string& text) { std::ofstream(path) << text; };

    write("[grace]\nperiod = 5\nfoo = 1\n");
    CHECK(b.run({"config", "check", path.c_str()}) == exit_bad_config);
    CHECK(b.err.str() ==
          path + ":2: [grace] period = 5: must be a whole number of seconds from 10 to 3600\n" +
              path +
              ":3: [grace] has no key `foo`; known are period, orphan_timeout, daemon_timeout, "
              "grace_start_hold, nodes_without_gfs2\n");
    CHECK(b.run({"config", "check", path.c_str(), "--json"}) == exit_bad_config);
    CHECK(json::parse(b.out.str())["errors"].size() == 2);
    CHECK(b.run({"config", "check", "/nonexistent"}) == exit_bad_config);

    write("[graced]\nname = n1\n[locks]\nkeeper = [\"/k\", \"a b\"]\n[server.vs1]\nexports = ['/s "
          "\"*\"(rw,fsid=0)']\ngrace_time = 300\n[server.vs2]\n");
    CHECK(b.run({"config", "check", path.c_str()}) == exit_ok);
    CHECK(b.out.str() == path + ": ok, 2 servers\n");
    CHECK(b.run({"config", "show", path.c_str(), "--json"}) == exit_ok);
    json first = json::parse(b.out.str());
    CHECK(first["server"]["vs1"]["grace_time"] == 300);
    CHECK(first["graced"]["name"] == "n1");
    // What `show` prints can be read back, and means the same.
    CHECK(b.run({"config", "show", path.c_str()}) == exit_ok);
    write(b.out.str());
    CHECK(b.run({"config", "show", path.c_str(), "--json"}) == exit_ok);
    CHECK(json::parse(b.out.str()) == first);

    CHECK(b.run({"config", "server", "vs1", "--file", path.c_str(), "--shell"}) == exit_ok);
    CHECK(b.out.str().find("GRACED_EXPORTS='/s \"*\"(rw,fsid=0)'\n") != std::string::npos);
    CHECK(b.run({"config", "server", "vs1", "--file", path.c_str(), "--json"}) == exit_ok);
    CHECK(json::parse(b.out.str())["threads"] == 8);
    CHECK(b.run({"config", "server", "vs1", "--file", path.c_str()}) == exit_ok);
    CHECK(b.out.str().rfind("[server.vs1]\n", 0) == 0);
    CHECK(b.run({"config", "server", "vs9", "--file", path.c_str()}) == exit_unknown);
    CHECK(b.err.str() == "gracectl: " + path + " has no [server.vs9]; it has vs1, vs2\n");
    ::unlink(path.c_str());
    CHECK(b.asked.empty());
}
