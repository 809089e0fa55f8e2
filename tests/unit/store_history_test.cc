// SPDX-License-Identifier: GPL-2.0-or-later
// The history of clients: what the store writes down, and what gracectl shows of it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/client_history.hh"
#include "graced/adapters/sqlite_store.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/hex.hh"
#include "unit/kernel_loop.hh"

#include <ctime>
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>
#include <sys/stat.h>

using namespace grace;
using nlohmann::json;

namespace {

struct store_bench {
    testing::loop loop;
    testing::temporary_directory dir;
    std::string history = dir / "h";
    std::unique_ptr<sqlite_store> store;
    std::uint64_t commits = 0, durable = 0;
    stored_meta meta;

    store_bench() { open(); }
    void open() {
        store_options o;
        o.path = dir / "db";
        o.history = history;
        auto opened = sqlite_store::open_and_load(o);
        REQUIRE(opened);
        store = std::move(opened->store);
        REQUIRE(store->start(loop.get(), [this](any_input i) {
            if (const auto* d = std::get_if<input::durable>(&i))
                durable = d->at.value;
        }));
    }
    void commit(store_operation op) {
        store->commit({std::move(op), store_op::put_meta{meta}}, position{++commits});
        REQUIRE(loop.until([&] { return durable == commits; }));
    }
    void server(std::uint64_t current, std::uint64_t recovery, bool need) {
        meta.current = epoch{current};
        meta.recovery = epoch{recovery};
        meta.servers["vs1"].need = need;
        commit(store_op::put_meta{meta});
    }
    void put(const char* client, std::uint64_t at) {
        commit(store_op::put_record{"vs1", client, {epoch{at}, ""}});
    }
    // "what client epoch", once the writer has come so far.
    std::vector<std::string> events(std::size_t wanted, const std::string& client = {}) {
        std::vector<std::string> all;
        loop.until([&] {
            all.clear();
            const auto read = client_history::read(history, "vs1", client, 1000);
            if (read)
                for (const history_event& e : *read) {
                    CHECK(e.time > time(nullptr) - 60);
                    all.push_back(e.what + " " + e.client + " " + std::to_string(e.at.value));
                }
            return all.size() >= wanted;
        });
        return all;
    }
};

} // namespace

TEST_CASE_FIXTURE(store_bench, "recorded, reclaimed, returned, left, purged") {
    server(1, 0, false);
    put("alice", 1);
    put("bob", 1);
    put("carol", 1);
    server(2, 1, true);
    put("alice", 2);
    commit(store_op::purge{"vs1", epoch{1}});
    server(2, 0, false);
    put("alice", 2); // a client that was restarted
    put("bob", 2);
    commit(store_op::remove_record{"vs1", "alice"});
    commit(store_op::remove_record{"vs1", "nobody"});
    CHECK(events(9) ==
          std::vector<std::string>{"recorded alice 1", "recorded bob 1", "recorded carol 1",
                                   "reclaimed alice 2", "purged bob 1", "purged carol 1",
                                   "returned alice 2", "recorded bob 2", "left alice 2"});
    CHECK(events(4, "alice").size() == 4);
    const auto since = client_history::read_since(history);
    REQUIRE(since);
    CHECK(since->size() == 1);
    CHECK(since->at({"vs1", "bob"}).at == epoch{2});
    struct stat s {};
    REQUIRE(stat(history.c_str(), &s) == 0);
    CHECK((s.st_mode & 0777) == 0600);
}

TEST_CASE_FIXTURE(store_bench,
                  "a group that is founded anew from this node's database has no gap") {
    server(2, 0, false);
    put("alice", 2);
    put("bob", 2);
    commit(store_op::replace_all{{{"vs1", {{"alice", {epoch{1}, ""}}, {"bob", {epoch{2}, ""}}}}}});
    put("carol", 2);
    CHECK(events(3).back() == "recorded carol 2");
}

TEST_CASE_FIXTURE(store_bench, "what came while this node was away is not known") {
    server(1, 0, false);
    put("alice", 1);
    put("bob", 1);
    record_map records{{"alice", {epoch{1}, ""}}, {"bob", {epoch{3}, ""}}};
    commit(store_op::replace_all{{{"vs1", records}}});
    CHECK(events(3).back() == "joined  1");
    const auto since = client_history::read_since(history);
    REQUIRE(since);
    CHECK(since->at({"vs1", "alice"}).gap);

    std::ostringstream out, err;
    const json answer = {{"ok", true},
                         {"history", history},
                         {"clients",
                          {{{"server", "vs1"},
                            {"name", "alice"},
                            {"name_hex", to_hex(std::string("alice"))},
                            {"epoch", 1}},
                           {{"server", "vs1"},
                            {"name", "bob"},
                            {"name_hex", to_hex(std::string("bob"))},
                            {"epoch", 3}}}}};
    ctl::surroundings around{out, err, [] { return 1767323045.0; },
                             [&](const std::string&, const json&,
                                 std::optional<std::chrono::milliseconds>,
                                 const ctl::progress&) -> result<json> { return answer; }};
    const auto run = [&](std::vector<const char*> words) {
        out.str("");
        REQUIRE(ctl::run(static_cast<int>(words.size()), words.data(), around) == 0);
        return json::parse(out.str());
    };
    const json clients = run({"gracectl", "--json", "clients"})["clients"];
    CHECK(clients[0]["since"].is_number()); // the same record as before
    CHECK(clients[1]["since"].is_null());   // recorded anew, or reclaimed: nobody here knows
    const json told = run({"gracectl", "--json", "clients", "--history", "bob"});
    REQUIRE(told["events"].size() == 2);
    CHECK(told["events"][0]["what"] == "recorded");
    CHECK(told["events"][1]["what"] == "joined");
    CHECK(run({"gracectl", "--json", "clients", "--history"})["events"].size() == 3);
}

TEST_CASE_FIXTURE(store_bench, "its size is bounded, and a purge of many names the first") {
    server(1, 0, false);
    record_map many;
    const auto n = client_history::max_named + 5;
    for (std::size_t i = 0; i < n; ++i)
        many.put("client " + std::to_string(i), {epoch{1}, ""});
    commit(store_op::replace_all{{{"vs1", many}}});
    commit(store_op::purge{"vs1", epoch{1}});
    client_history direct;
    loop.until([&] {
        const auto read = client_history::read(history, "vs1", "", n + 10);
        return read && read->size() == client_history::max_named + 2;
    });
    const auto read = client_history::read(history, "vs1", "", n + 10);
    REQUIRE(read);
    REQUIRE(read->size() == client_history::max_named + 2);
    CHECK(read->back().client.empty());
    CHECK(read->back().what == "purged");
    direct.open(history);
    for (int i = 0; i < 21; ++i)
        direct.write(std::vector<history_event>(10'000, {"recorded", "vs1", "x", epoch{1}, 1}));
    CHECK(client_history::read(history, "vs1", "", 1'000'000)->size() <=
          std::size_t(client_history::max_events));
}

TEST_CASE_FIXTURE(store_bench,
                  "a damaged history is begun anew; one that cannot be written stops nothing") {
    store.reset();
    std::ofstream(history) << std::string(8192, 'x');
    open();
    put("alice", 1);
    CHECK(events(1) == std::vector<std::string>{"recorded alice 1"});
    store.reset();
    history = dir.path; // a directory
    open();
    put("bob", 1);
    CHECK_FALSE(client_history::read(history, "vs1", "", 10));
}
