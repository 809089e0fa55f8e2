// SPDX-License-Identifier: GPL-2.0-or-later
// The history of graces: what is kept of it, for how long, what becomes of it when its file is
// damaged or its disk is full; and how gracectl shows it. With HISTORY_SAMPLE=DIRECTORY a database
// is left there.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/grace_history.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/history.hh"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <sqlite3.h>
#include <sstream>
#include <sys/stat.h>

using namespace grace;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t start_ms = 1'767'323'000'000; // 2026-01-02T03:03:20Z

struct directory {
    std::string path;
    directory() {
        char name[] = "/tmp/graced-history-XXXXXX";
        REQUIRE(mkdtemp(name) != nullptr);
        path = name;
    }
    ~directory() { fs::remove_all(path); }
    [[nodiscard]] std::string database() const { return path + "/db"; }
    [[nodiscard]] std::string graces() const { return database() + ".graces"; }
};

// Of a grace with C `at`, `ms` after it began.
struct teller {
    std::uint64_t at;
    std::int64_t start = start_ms;
    std::vector<grace_event> all = {};
    teller& say(std::int64_t ms, grace_event e) {
        e.at = epoch{at};
        e.recovery = epoch{at - 1};
        e.time = start + ms;
        all.push_back(std::move(e));
        return *this;
    }
};

// A node dies; of its server's three clients two reclaim on another node.
std::vector<grace_event> failover(std::uint64_t at = 5, std::int64_t start = start_ms) {
    teller t{at, start};
    t.say(0, {.what = "began", .detail = "server vs1: node node1 died"});
    for (const char* n : {"node1", "node2", "node3"})
        t.say(0, {.what = "node", .node = n, .detail = "up"});
    t.say(0, {.what = "died", .node = "node1"})
        .say(0, {.what = "need", .server = "vs1", .detail = "node node1 died", .all = 3})
        .say(0, {.what = "phase", .detail = "entering"})
        .say(400, {.what = "enforcing", .node = "node3"})
        .say(1300, {.what = "enforcing", .node = "node2"})
        .say(2500, {.what = "hosted", .node = "node2", .server = "vs1"})
        .say(6200, {.what = "fenced", .node = "node1"})
        .say(6200, {.what = "phase", .detail = "reclaiming"})
        .say(6350, {.what = "open", .node = "node2", .server = "vs1"})
        .say(19800, {.what = "done", .node = "node2", .server = "vs1", .count = 2, .all = 3})
        .say(19800, {.what = "phase", .detail = "lifting"})
        .say(20400, {.what = "purged", .server = "vs1", .count = 1, .all = 3})
        .say(20400, {.what = "purge", .node = "node2", .count = 1})
        .say(21000, {.what = "lifted"});
    return t.all;
}

std::vector<grace_story> read(const directory& d, std::size_t limit = 100, epoch at = {}) {
    const auto found = grace_history::read(d.graces(), limit, at);
    REQUIRE_MESSAGE(found, found.error().message);
    return *found;
}

// gracectl over the files, without a daemon.
struct asker {
    std::ostringstream out, err;
    int run(std::vector<const char*> args) {
        args.insert(args.begin(), "gracectl");
        out.str("");
        err.str("");
        ctl::surroundings around{
            out, err, [] { return start_ms / 1000.0 + 300; },
            [](auto&&...) -> result<json> { return fail("graced does not run", ECONNREFUSED); }};
        return ctl::run(static_cast<int>(args.size()), args.data(), around);
    }
};

bool contains(const std::string& s, const std::string& part) {
    return s.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("a grace is kept with all that was told of it; the file is for root only") {
    const directory d;
    const auto told = failover();
    {
        grace_history h(d.graces(), 10);
        h.put({told.begin(), told.begin() + 9}); // as it comes
        h.put({told.begin() + 9, told.end()});
    }
    const auto all = read(d);
    REQUIRE(all.size() == 1);
    CHECK(all[0].at == epoch{5});
    CHECK(all[0].recovery == epoch{4});
    CHECK(all[0].why == "server vs1: node node1 died");
    CHECK(all[0].outcome == "lifted");
    CHECK(all[0].ended - all[0].began == 21000);
    CHECK(all[0].events == told);
    struct stat is {};
    REQUIRE(stat(d.graces().c_str(), &is) == 0);
    CHECK((is.st_mode & 0777) == 0600);
}

TEST_CASE("a second daemon in the same grace goes on with its story; one that was away ends it as "
          "unknown") {
    const directory d;
    const auto told = failover();
    {
        grace_history h(d.graces(), 10);
        h.put({told.begin(), told.begin() + 9});
    }
    {
        grace_history h(d.graces(), 10);
        teller t{5};
        t.say(9000, {.what = "found"}).say(21000, {.what = "lifted"});
        h.put(t.all);
    }
    auto all = read(d);
    REQUIRE(all.size() == 1);
    CHECK(all[0].events.size() == 11);
    CHECK(all[0].outcome == "lifted");
    {
        grace_history h(d.graces(), 10);
        const auto next = failover(6, start_ms + 100'000);
        h.put({next.begin(), next.begin() + 9});
    }
    {
        grace_history h(d.graces(), 10);
        h.put(failover(9, start_ms + 200'000));
    }
    all = read(d);
    REQUIRE(all.size() == 3);
    CHECK(all[0].at == epoch{9}); // the newest first
    CHECK(all[1].outcome == "unknown");
    CHECK(all[1].ended == 0);
    CHECK(read(d, 100, epoch{6}).size() == 1);
    CHECK(read(d, 2).size() == 2);
}

TEST_CASE("only so many are kept, and nothing of the others") {
    const directory d;
    {
        grace_history h(d.graces(), 3);
        for (std::uint64_t at = 2; at < 12; ++at)
            h.put(failover(at, start_ms + static_cast<std::int64_t>(at) * 100'000));
    }
    const auto all = read(d);
    REQUIRE(all.size() == 3);
    CHECK(all[0].at == epoch{11});
    CHECK(all[2].at == epoch{9});
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(d.graces().c_str(), &db) == SQLITE_OK);
    CHECK(sqlite3_exec(
              db, "SELECT 1 FROM events WHERE grace NOT IN (SELECT id FROM graces)",
              [](void*, int, char**, char**) { return 1; }, nullptr, nullptr) == SQLITE_OK);
    sqlite3_close(db);
}

TEST_CASE(
    "a damaged file is begun anew; one that cannot be written costs nothing but the history") {
    const directory d;
    std::ofstream(d.graces()) << std::string(8192, 'x');
    {
        grace_history h(d.graces(), 10);
        h.put(failover());
    }
    CHECK(read(d).size() == 1);
    const std::string nowhere = d.path + "/no/such/file";
    {
        grace_history h(nowhere, 10);
        for (int i = 0; i < 100; ++i)
            h.put(failover());
    }
    CHECK_FALSE(fs::exists(nowhere));
    CHECK_FALSE(grace_history::read(nowhere, 1));
    // Somebody holds the file for longer than is waited for: it ends, and put() never waits.
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(d.graces().c_str(), &db) == SQLITE_OK);
    REQUIRE(sqlite3_exec(db, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_OK);
    {
        grace_history h(d.graces(), 10);
        std::vector<std::vector<grace_event>> all(
            100, failover(7)); // a put() that waited would take 2 s
        const auto begin = std::chrono::steady_clock::now();
        for (auto& one : all)
            h.put(std::move(one));
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
    }
    sqlite3_close(db);
    CHECK(read(d).size() == 1);
}

TEST_CASE("gracectl history, without a daemon") {
    directory d;
    asker g;
    const std::string file = d.database();
    CHECK(g.run({"history", "--file", file.c_str()}) == ctl::exit_failed);
    CHECK(contains(g.err.str(), "cannot be read"));
    {
        grace_history h(d.graces(), 10);
        h.put(failover());
        h.put(failover(6, start_ms + 100'000));
        client_history clients;
        clients.open(d.database() + ".history");
        const std::int64_t s = start_ms / 1000;
        clients.write(
            {{"reclaimed", "vs1", "old", epoch{5}, s - 900}, // of another life of the cluster
             {"recorded", "vs1", "alice", epoch{1}, s},
             {"reclaimed", "vs1", "alice", epoch{5}, s + 7},
             {"reclaimed", "vs1", "bob", epoch{5}, s + 8},
             {"purged", "vs1", "carol <&> \"\x01", epoch{4}, s + 20}});
    }
    CHECK(g.run({"history", "--file", file.c_str()}) == ctl::exit_ok);
    CHECK(contains(g.out.str(), "21.000 s   lifted"));
    CHECK(contains(g.out.str(), "server vs1: node node1 died"));
    CHECK(g.out.str().find("\n     6") < g.out.str().find("\n     5"));
    CHECK(g.run({"history", "--file", file.c_str(), "--last", "1", "--json"}) == ctl::exit_ok);
    json all = json::parse(g.out.str());
    REQUIRE(all["graces"].size() == 1);
    CHECK(all["graces"][0]["epoch"] == 6);
    CHECK_FALSE(all["graces"][0].contains("events"));

    CHECK(g.run({"history", "5", "--file", file.c_str(), "--json"}) == ctl::exit_ok);
    const json grace = json::parse(g.out.str())["grace"];
    CHECK(grace["lasted"] == 21.0);
    CHECK(contains(ctl::render_graces({{"graces", {grace}}}, start_ms / 1000.0 + 3599),
                   "(59 min 59 s ago)  21.000 s"));
    CHECK(grace["purger"] == "node2");
    CHECK(grace["purged"] == 1);
    CHECK(grace["outcome"] == "lifted");
    REQUIRE(grace["phases"].size() == 3);
    CHECK(grace["phases"][1]["phase"] == "reclaiming");
    CHECK(grace["phases"][1]["ended"] == grace["phases"][2]["began"]);
    CHECK(grace["nodes"] == json{"node1", "node2", "node3"});
    REQUIRE(grace["servers"].size() == 1);
    CHECK(grace["servers"][0] == json{{"name", "vs1"},
                                      {"host", "node2"},
                                      {"clients", 3},
                                      {"reclaimed", 2},
                                      {"purged", 1},
                                      {"needed", start_ms / 1000.0},
                                      {"done", start_ms / 1000.0 + 19.8}});
    REQUIRE(grace["clients"].size() == 3);
    CHECK(grace["clients"][2]["what"] == "purged");
    CHECK(grace["clients"][2]["name"] == "carol\\x20<&>\\x20\"\\x01");

    CHECK(g.run({"history", "5", "--file", file.c_str()}) == ctl::exit_ok);
    const std::string text = g.out.str();
    for (const char* part :
         {"Grace of epoch 5 (recovers 4)", "lifted after 21.000 s",
          "node node2 was the last out and purged 1 client\n",
          "entering           0.000 s     6.200 s", "6.200 s  node node1 is proven fenced",
          "19.800 s  server vs1 NEEDs no longer: 2 of 3", "Clients that were purged:\n  vs1  carol",
          "Clients that reclaimed:\n  vs1  alice\n  vs1  bob\n"})
        CHECK_MESSAGE(contains(text, part), part << " is not in\n" << text);

    CHECK(g.run({"history", "7", "--file", file.c_str()}) == ctl::exit_unknown);
    CHECK(g.run({"history", "x"}) == ctl::exit_usage);
    CHECK(g.run({"history", "--last", "0"}) == ctl::exit_usage);
    const std::string svg = d.path + "/grace.svg";
    CHECK(g.run({"history", "5", "--file", file.c_str(), "--svg", svg.c_str()}) == ctl::exit_ok);
    CHECK(g.out.str() == svg + "\n");
    CHECK(fs::file_size(svg) > 2000);
    CHECK(g.run({"history", "--file", file.c_str(), "--svg", "-"}) == ctl::exit_ok); // the last one
    CHECK(contains(g.out.str(), "graced: grace of epoch 6"));
    CHECK(g.run({"history", "5", "--file", file.c_str(), "--svg", "/no/such/x"}) ==
          ctl::exit_failed);
    if (const char* where = std::getenv("HISTORY_SAMPLE"))
        for (const char* end : {".graces", ".history"})
            fs::copy_file(file + end, std::string(where) + "/db" + end,
                          fs::copy_options::overwrite_existing);
}

TEST_CASE(
    "the picture: a row for each node and server, bars in their order, names that are no XML") {
    const json grace = ctl::grace_json({epoch{5}, epoch{4}, start_ms, start_ms + 21000, "lifted",
                                        "server vs1: node node1 died", failover()});
    const std::string svg = ctl::draw_grace(grace);
    CHECK(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    CHECK(svg.ends_with("</svg>\n"));
    std::size_t at = 0;
    for (const char* tip :
         {"entering, 6.20 s", "reclaiming, 13.6 s", "lifting, 1.20 s", "node1: dead",
          "node2: closing, 1.30 s", "node2: enforces, 4.90 s", "node2: takes reclaims, 13.6 s",
          "node2: enforces, 1.20 s", "node3: closing, 0.40 s", "node3: enforces, 20.6 s",
          "vs1 NEEDed 19.8 s, on node2: 2 of 3 reclaimed, 1 purged"}) {
        const std::size_t found = svg.find("<title>" + std::string(tip));
        CHECK_MESSAGE(found != std::string::npos, tip);
        CHECK(found > at);
        at = found;
    }
    CHECK(contains(svg, "purge by node2"));
    CHECK(contains(svg, "node1 fenced"));
    CHECK(contains(svg, ">reclaim opens<"));
    CHECK_FALSE(contains(svg, "here again"));
    teller away{5};
    away.say(0, {.what = "began", .detail = "x"})
        .say(700, {.what = "lost"})
        .say(900, {.what = "found"});
    const std::string gap =
        ctl::draw_grace(ctl::grace_json({epoch{5}, epoch{4}, start_ms, 0, "", "x", away.all}));
    CHECK(contains(gap, ">no state here<"));
    CHECK(contains(gap, ">here again<"));

    teller odd{8};
    odd.say(0, {.what = "found"})
        .say(5, {.what = "need", .node = "<n&1>", .server = "v\"s", .all = 1});
    const std::string escaped =
        ctl::draw_grace(ctl::grace_json({epoch{8}, epoch{7}, start_ms, 0, "", "", odd.all}));
    CHECK(contains(escaped, "on &lt;n&amp;1&gt;"));
    CHECK_FALSE(contains(escaped, "<n&1>"));
    CHECK(contains(escaped, "as far as it is known here"));
    CHECK(contains(svg, ">normal<"));
    CHECK_FALSE(contains(escaped, ">normal<")); // what was before is not known
}
