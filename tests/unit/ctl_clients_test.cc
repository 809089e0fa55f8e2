// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl clients with what nfsd knows of them; what import and export ask the daemon.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/ctl/gracectl.hh"
#include "graced/nfsd_clients.hh"
#include "graced/hex.hh"
#include "graced/import/sources.hh"

#include <cerrno>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <sstream>

using namespace grace;
using namespace grace::ctl;
namespace fs = std::filesystem;

namespace {

struct temp_dir {
    fs::path path;
    temp_dir() {
        std::string name = (fs::temp_directory_path() / "graced-ctl-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~temp_dir() { fs::remove_all(path); }
    [[nodiscard]] std::string operator/(const char* name) const { return path / name; }
};

// gracectl with a daemon that answers each verb as told.
struct bench {
    std::map<std::string, result<json>> answers;
    std::vector<json> asked;
    std::ostringstream out, err;

    int run(std::vector<std::string> args) {
        std::vector<const char*> words{"gracectl"};
        for (const auto& a : args)
            words.push_back(a.c_str());
        asked.clear();
        out.str("");
        err.str("");
        surroundings around{
            out, err, [] { return 1767323045.0; },
            [this](const std::string&, const json& request,
                   std::optional<std::chrono::milliseconds>, const progress&) -> result<json> {
                asked.push_back(request);
                const auto a = answers.find(request["verb"]);
                return a == answers.end() ? result<json>(json{{"ok", true}}) : a->second;
            }};
        return ctl::run(static_cast<int>(words.size()), words.data(), around);
    }
    json answer() const { return json::parse(out.str()); }
    std::vector<std::string> names() const {
        std::vector<std::string> all;
        const json said = answer();
        for (const json& c : said["clients"])
            all.push_back(c["name"]);
        return all;
    }
};
using list = std::vector<std::string>;

json client(const char* name, int epoch, bool reclaimed) {
    return {{"server", "vs1"},    {"name", name},           {"name_hex", to_hex(std::string(name))},
            {"epoch", epoch},     {"reclaimed", reclaimed}, {"principal", false},
            {"principal_hex", ""}, {"protocol", "NFSv4"}};
}

} // namespace

TEST_CASE("what nfsd says of a client") {
    const auto c = parse_client_info("clientid: 0x5c4b6f0c60a2e3b9\n"
                                     "address: \"[2001:db8::5]:1017\"\n"
                                     "status: confirmed\n"
                                     "seconds from last renew: 12\n"
                                     "name: \"Linux \\x22NFSv4.2\\x22 \\x5c\\x00\\xff\"\n"
                                     "minor version: 2\n"
                                     "Implementation domain: \"kernel.org\"\n"
                                     "Implementation time: [0, 0]\n"
                                     "callback state: UP\n");
    REQUIRE(c);
    CHECK(c->name == std::string("Linux \"NFSv4.2\" \\\0\xff", 19));
    CHECK(c->address == "[2001:db8::5]:1017");
    CHECK(c->status == "confirmed");
    CHECK(c->minor_version == 2);
    CHECK(c->last_renew == 12);
    CHECK(!parse_client_info(""));
    CHECK(!parse_client_info("name: \"\"\n"));
    CHECK(!parse_client_info("name: \"cut\\x2"));
    CHECK(!parse_client_info("name: \"bad \\q\"\n"));
    const auto bare =
        parse_client_info("name: \"a\"\nminor version: two\nseconds from last renew: 9x");
    REQUIRE(bare);
    CHECK(!bare->minor_version);
    CHECK(!bare->last_renew);
}

TEST_CASE("clients: sorted, filtered, with address and minor version where nfsd can be asked") {
    temp_dir d;
    const auto info = [&](const char* id, const std::string& text) {
        fs::create_directories(d.path / "clients" / id);
        std::ofstream(d.path / "clients" / id / "info") << text;
    };
    info("1", "address: \"192.0.2.9:700\"\nstatus: courtesy\nname: \"bob\"\nminor version: 0\n");
    info("2", "address: \"192.0.2.7:701\"\nstatus: confirmed\nseconds from last renew: 3\n"
              "name: \"alice\"\nminor version: 2\n");
    info("3", "address: \"192.0.2.8:702\"\nstatus: confirmed\nname: \"bob\"\nminor version: 1\n");
    fs::create_directories(d.path / "clients" / "4"); // it has just gone
    bench b;
    const json known = {
        {"ok", true},
        {"clients", {client("alice", 5, true), client("bob", 6, false), client("carol", 4, false)}},
        {"nfsd_fs", {{"vs1", d.path.string()}, {"vs2", 3}}},
        {"more", false}};
    b.answers.emplace("clients", known);
    REQUIRE(b.run({"clients", "--json"}) == exit_ok);
    CHECK(b.names() == list{"alice", "bob", "carol"});
    CHECK(b.answer()["clients"][0]["protocol"] == "NFSv4.2");
    CHECK(b.answer()["clients"][0]["last_renew"] == 3);
    CHECK(b.answer()["clients"][1]["address"] == "192.0.2.8:702");
    CHECK(b.answer()["clients"][2]["address"].is_null());
    CHECK(b.answer()["clients"][2]["protocol"] == "NFSv4");
    CHECK(!b.answer().contains("nfsd_fs"));
    REQUIRE(b.run({"clients", "--json", "--sort", "address"}) == exit_ok);
    CHECK(b.names() == list{"alice", "bob", "carol"});
    REQUIRE(b.run({"clients", "--json", "--sort", "epoch"}) == exit_ok);
    CHECK(b.names() == list{"bob", "alice", "carol"});
    REQUIRE(b.run({"clients", "--json", "--sort", "reclaimed"}) == exit_ok);
    CHECK(b.names() == list{"bob", "carol", "alice"});
    REQUIRE(b.run({"clients", "--json", "--not-reclaimed", "--sort", "name"}) == exit_ok);
    CHECK(b.names() == list{"bob", "carol"});
    CHECK(b.run({"clients", "--sort", "colour"}) == exit_usage);
    REQUIRE(b.run({"clients"}) == exit_ok);
    CHECK(b.out.str() ==
          "SERVER  EPOCH  RECLAIMED  PRINCIPAL  PROTOCOL  STATUS     ADDRESS        CLIENT\n"
          "vs1         5  yes        -          NFSv4.2   confirmed  192.0.2.7:701  alice\n"
          "vs1         6  -          -          NFSv4.1   confirmed  192.0.2.8:702  bob\n"
          "vs1         4  -          -          NFSv4     -          -              carol\n");
}

TEST_CASE("import asks for the difference only, in requests that the daemon takes") {
    temp_dir d;
    std::vector<import::nfs4_client> many;
    for (int i = 0; i < 100; ++i)
        many.push_back({std::string(1000, 'x') + std::to_string(i), ""});
    many.push_back({"alice", ""});
    const std::string file = d / "main.sqlite";
    REQUIRE(import::write_tracker_database(file, 3, many));
    bench b;
    b.answers.emplace("clients",
                      json{{"ok", true},
                           {"clients", {client("alice", 5, true), client("old", 5, true)}},
                           {"more", false}});
    b.answers.emplace("import", json{{"ok", true},
                                     {"added", 5},
                                     {"known", 0},
                                     {"changed", 0},
                                     {"removed", 1},
                                     {"refused", 0}});
    const auto sent = [&] {
        std::size_t records = 0, removes = 0;
        for (const json& a : b.asked) {
            if (a["verb"] != "import")
                continue;
            CHECK(a.dump().size() < 64U << 10);
            CHECK(a["server"] == "vs1");
            records += a["records"].size();
            removes += a["remove"].size();
        }
        return std::pair(records, removes);
    };
    REQUIRE(b.run({"import", "--server", "vs1", "--nfsdcld", file, "--json"}) == exit_ok);
    CHECK(sent() == std::pair<std::size_t, std::size_t>(100, 0));
    CHECK(b.answer()["known"] == 1);
    CHECK(b.asked.size() > 4);
    REQUIRE(b.run({"import", "--server", "vs1", "--nfsdcld", file, "--replace"}) == exit_ok);
    CHECK(sent() == std::pair<std::size_t, std::size_t>(100, 1));
    CHECK(b.asked.back()["remove"] == json::array({to_hex(std::string("old"))}));
    REQUIRE(b.run({"import", "--server", "vs1", "--nfsdcld", file, "--replace", "--dry-run",
                   "--json"}) == exit_ok);
    CHECK(sent() == std::pair<std::size_t, std::size_t>(0, 0));
    CHECK(b.answer()["added"] == 100);
    CHECK(b.answer()["removed"] == 1);

    // Refused by the daemon: the counts of what was taken are no success.
    b.answers.at("import") = json{{"ok", true}, {"added", 5}, {"refused", 2}};
    CHECK(b.run({"import", "--server", "vs1", "--nfsdcld", file, "--json"}) == exit_failed);
    CHECK(b.answer()["ok"] == false);
    b.answers.at("import") = json{{"ok", false}, {"code", "hosted_elsewhere"}, {"error", "there"}};
    CHECK(b.run({"import", "--server", "vs1", "--nfsdcld", file}) == exit_hosted_elsewhere);
}

TEST_CASE("import: nothing is sent if a source that was named cannot be read") {
    temp_dir d;
    bench b;
    CHECK(b.run({"import", "--server", "vs1", "--nfsdcld", d / "nothing"}) == exit_failed);
    CHECK(b.asked.empty());
    CHECK(b.run({"import", "--server", "vs1", "--from", d.path, "--replace"}) == exit_failed);
    CHECK(b.err.str().find("would remove every record") != std::string::npos);
    CHECK(b.run({"import"}) == exit_usage);
    std::ofstream(d / "rmtab") << "192.0.2.5:/srv:0x00000001\nnonsense\n";
    b.answers.emplace("clients", json{{"ok", true}, {"clients", json::array()}, {"more", false}});
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path}) == exit_ok);
    CHECK(b.out.str().find("not there") != std::string::npos);
    CHECK(b.asked.back()["mounts"] ==
          json::array({{{"client", "192.0.2.5"}, {"path_hex", to_hex(std::string("/srv"))}, {"count", 1}}}));
    CHECK(b.out.str().find("HOST:PATH:COUNT: nonsense") != std::string::npos);
    // Without a daemon only a dry run does anything.
    b.answers.clear();
    for (const char* verb : {"status", "clients"})
        b.answers.emplace(verb, fail("not running", ECONNREFUSED));
    CHECK(b.run({"import", "--server", "vs1", "--from", d.path}) == exit_not_running);
    CHECK(b.run({"import", "--server", "vs1", "--from", d.path, "--dry-run"}) == exit_ok);
    CHECK(b.out.str().find("graced is not running") != std::string::npos);
}

TEST_CASE("what nfsdcld took over from is left out") {
    temp_dir d;
    fs::create_directories(d.path / "nfsdcld");
    fs::create_directories(d.path / "nfsdcltrack");
    fs::create_directories(d.path / "v4recovery" / std::string(32, 'a'));
    REQUIRE(import::write_tracker_database(d / "nfsdcld/main.sqlite", 3, {}));
    const import::nfs4_client old[] = {{"old", ""}};
    REQUIRE(import::write_tracker_database(d / "nfsdcltrack/main.sqlite", 3, old));
    bench b;
    b.answers.emplace("clients", json{{"ok", true}, {"clients", json::array()}, {"more", false}});
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path, "--json", "--dry-run"}) ==
            exit_ok);
    CHECK(b.answer()["added"] == 0);
    fs::remove_all(d.path / "nfsdcld");
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path, "--json", "--dry-run"}) ==
            exit_ok);
    CHECK(b.answer()["added"] == 2); // nfsdcltrack removes those of v4recovery that it took over
    fs::remove_all(d.path / "nfsdcltrack");
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path, "--json", "--dry-run"}) ==
            exit_ok);
    CHECK(b.answer()["added"] == 1);
    CHECK(b.answer()["notes"].size() == 1);
}

TEST_CASE("NFSv3: import, clients, mounts, what sm-notify gets, export") {
    temp_dir d;
    fs::create_directories(d.path / "sm");
    for (const char* host : {"192.0.2.5", "192.0.2.6"})
        std::ofstream(d.path / "sm" / host)
            << "0100007f 000186b5 00000003 00000010 " << std::string(32, '0') << " " << host << " vs1\n";
    std::ofstream(d / "rmtab") << "192.0.2.5:/srv:0x00000002\n2001;db8;;5:/srv/b:0x00000001\n";
    bench b;
    json v3 = client("192.0.2.5", 5, false);
    v3["protocol"] = "NFSv3";
    v3["since_epoch"] = 4;
    json v4 = client("192.0.2.6", 5, true); // an NFSv4 client may call itself so
    v4["protocol"] = "NFSv4";
    b.answers.emplace("clients", json{{"ok", true}, {"clients", {v3, v4}}, {"more", false}});
    const auto mount = [](const char* client, const std::string& path, unsigned count) {
        return json{{"server", "vs1"}, {"client", client}, {"path", path},
                    {"path_hex", to_hex(path)}, {"count", count}, {"key_hex", to_hex(path)}};
    };
    b.answers.emplace("mounts", json{{"ok", true},
                                     {"mounts", {mount("192.0.2.5", "/srv", 1), mount("2001:db8::5", "/srv/b", 1)}},
                                     {"more", false}});
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path}) == exit_ok);
    CHECK(b.asked.back()["hosts"] == json::array({"192.0.2.6"}));
    CHECK(b.asked.back()["mounts"].size() == 1);
    CHECK(b.asked.back()["mounts"][0]["count"] == 2); // rmtab has it twice
    CHECK(b.asked.back()["records"].empty());
    REQUIRE(b.run({"import", "--server", "vs1", "--from", d.path, "--dry-run", "--json"}) == exit_ok);
    CHECK(b.answer()["added"] == 1);
    CHECK(b.answer()["changed"] == 1);
    CHECK(b.answer()["known"] == 2);

    REQUIRE(b.run({"clients"}) == exit_ok);
    CHECK(b.out.str().find("NFSv3") != std::string::npos);
    REQUIRE(b.run({"mounts"}) == exit_ok);
    CHECK(b.out.str().find("2001:db8::5") != std::string::npos);
    REQUIRE(b.run({"mounts", "--server", "vs1", "--rmtab"}) == exit_ok);
    CHECK(b.out.str() == "192.0.2.5:/srv:0x00000001\n2001;db8;;5:/srv/b:0x00000001\n");
    CHECK(b.run({"mounts", "--rmtab"}) == exit_usage); // rmtab has no place for the server
    b.answers.at("mounts").value()["mounts"] = {mount("a\nb", "/srv", 1), mount("h", "/a\nb:/c:0x1", 1)};
    REQUIRE(b.run({"mounts", "--server", "vs1", "--rmtab"}) == exit_ok);
    CHECK(b.out.str().empty());

    b.answers.emplace("status", json{{"ok", true}, {"current", 6}, {"servers", {{{"name", "vs1"}, {"start", 7}}}}});
    const std::string notices = d / "notices";
    REQUIRE(b.run({"server-notices", "vs1", notices}) == exit_ok);
    CHECK(b.out.str() == "1\n");
    std::ifstream state(notices + "/state", std::ios::binary);
    std::int32_t number = 0;
    REQUIRE(state.read(reinterpret_cast<char*>(&number), sizeof number));
    CHECK(number == 15);
    CHECK(import::read_monitor_directory(notices + "/sm")->hosts ==
          std::vector<import::monitored_host>{{"192.0.2.5", "vs1"}});
    CHECK(fs::is_directory(notices + "/sm.bak"));
    CHECK(b.run({"server-notices", "vs9", notices}) == exit_unknown);

    REQUIRE(b.run({"export", "--server", "vs1", d / "x", "--json"}) == exit_ok);
    CHECK(b.answer()["clients"] == 1);
    CHECK(import::read_tracker_database(d / "x")->clients[0].name == "192.0.2.6");
}

TEST_CASE("export refuses an answer that lacks the principals") {
    temp_dir d;
    bench b;
    b.answers.emplace(
        "status",
        json{{"ok", true}, {"current", 6}, {"servers", {{{"name", "vs1"}, {"need", true}}}}});
    json secret = client("alice", 5, true);
    secret["principal"] = true;
    b.answers.emplace("clients", json{{"ok", true}, {"clients", {secret}}, {"more", false}});
    CHECK(b.run({"export", "--server", "vs1", d / "x"}) == exit_failed);
    CHECK(!fs::exists(d / "x"));
    secret["principal_hex"] = std::string(64, 'a');
    b.answers.at("clients") = json{{"ok", true}, {"clients", {secret}}, {"more", false}};
    REQUIRE(b.run({"export", "--server", "vs1", d / "x", "--json"}) == exit_ok);
    CHECK(b.answer()["notes"].size() == 2); // it is in grace
    CHECK(import::read_tracker_database(d / "x")->clients[0].princhash == std::string(32, '\xaa'));
    CHECK(b.run({"export", "--server", "vs9", d / "y"}) == exit_unknown);
}
