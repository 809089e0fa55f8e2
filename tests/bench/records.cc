// SPDX-License-Identifier: GPL-2.0-or-later
// What a million client records cost: seconds, the longest time that the loop is held up, memory.
//
//   bench-records core      three production cores with simulated network and disks: founding, a joiner, START, purge
//   bench-records start     a database is opened and loaded, as at the daemon's start; its checks
//   bench-records store     the same state written as a joiner does it; purged
//
// One process for each, so that its peak of memory is its own.
#include "grace/fsm.hh"
#include "graced/adapters/sqlite_store.hh"
#include "sim/world.hh"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sqlite3.h>
#include <sys/resource.h>

using namespace grace;
using clock_type = std::chrono::steady_clock;

namespace {

std::size_t count = 1'000'000;

double seconds_since(clock_type::time_point t) {
    return std::chrono::duration<double>(clock_type::now() - t).count();
}

double memory_mib(const char* what) { // VmHWM: the peak; VmRSS: now
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(what))
            return std::stod(line.substr(std::string(what).size() + 1)) / 1024;
    return 0;
}

void say(const std::string& what, double s, double longest_ms = -1) {
    std::printf("%-52s %8.2f s", what.c_str(), s);
    if (longest_ms >= 0)
        std::printf("   longest step %7.1f ms", longest_ms);
    std::printf("   memory %4.0f MiB, peak %4.0f\n", memory_mib("VmRSS:"), memory_mib("VmHWM:"));
    std::fflush(stdout);
}

// Names as the Linux client makes them, a principal's hash for one in four.
stored_state many() {
    stored_state s;
    s.meta.current = epoch{5};
    s.meta.applied = position{1000};
    s.meta.view = s.meta.quorate_view = 3;
    s.meta.starts = start_count{1};
    s.meta.servers["vs1"] = {false, false, start_count{1}, {}, start_count{1}, {}};
    record_map& records = s.records["vs1"];
    char name[64];
    for (std::size_t i = 0; i < count; ++i) {
        std::snprintf(name, sizeof name, "Linux NFSv4.2 client-%07zu.example.org", i);
        records.put(name, {epoch{4}, i % 4 == 0 ? std::string(32, 'h') : ""});
    }
    return s;
}

struct timed {
    sim::world& w;
    double longest = 0;
    // Each event of the world is at most one step of one daemon.
    void until(const std::function<bool()>& done, const char* what) {
        const instant end = w.now + seconds(300);
        while (!done()) {
            const auto t = clock_type::now();
            if (!w.step() || w.now > end)
                throw std::runtime_error(std::string("never came true: ") + what);
            longest = std::max(longest, seconds_since(t) * 1000);
        }
    }
};

void core() {
    sim::world w(3);
    w.defaults.grace_period = seconds(1);
    auto t = clock_type::now();
    {
        const stored_state s = many();
        for (unsigned i = 1; i <= 3; ++i) {
            w[i].disk = s;
            w[i].has_disk = true;
        }
    }
    say("made the records", seconds_since(t));
    const auto phase = [&](const char* what, const auto& begin, const auto& done) {
        timed all{w};
        const auto from = clock_type::now();
        begin();
        all.longest = seconds_since(from) * 1000;
        all.until(done, what);
        say(what, seconds_since(from), all.longest);
    };
    const auto synced = [&] {
        for (auto& [id, n] : w.nodes)
            if (n->powered && (!n->daemon || !n->machine().synced()))
                return false;
        return true;
    };
    phase(
        "founding by three nodes with databases",
        [&] {
            for (unsigned i = 1; i <= 3; ++i) {
                w.boot(i);
                w.start_daemon(i);
            }
        },
        synced);
    phase(
        "the grace that follows: purge of all, lift", [] {},
        [&] {
            const state& s = w[1].machine().replicated();
            if (!s.servers.at("vs1").host && s.servers.at("vs1").need)
                w[1].take(input::lift{"vs1", w[1].new_ticket()});
            return !in_grace(s) && s.servers.at("vs1").records.empty();
        });
    // Hosted on node 1, all recorded anew.
    w.serve(1, "vs1");
    timed quiet{w};
    quiet.until([&] { return w[1].machine().replicated().servers.at("vs1").host == node_id{1}; },
                "hosted");
    w.nfsd_start(1, "vs1");
    phase(
        "recorded anew by upcalls, 512 in a message",
        [&] {
            const stored_state s = many();
            std::size_t n = 0;
            for (const auto& [client, rec] : s.records.at("vs1")) {
                w[1].take(input::create{"vs1", client, rec.princhash, w[1].new_ticket()});
                if (++n >= std::min<std::size_t>(count, 20'000))
                    break;
            }
        },
        [&] {
            return w[2].machine().replicated().servers.at("vs1").records.size() >=
                   std::min<std::size_t>(count, 20'000);
        });
}

// A member that is without state, beside one that has it all: the join, alone and timed.
void join() {
    sim::world w(3);
    {
        const stored_state s = many();
        for (unsigned i = 1; i <= 3; ++i) {
            w[i].disk = s;
            w[i].has_disk = true;
        }
        for (unsigned i = 1; i <= 3; ++i) {
            w.boot(i);
            w.start_daemon(i);
        }
    }
    timed found{w};
    found.until([&] { return w[3].machine().synced() && w[1].machine().synced(); }, "founded");
    w.kill_daemon(3);
    timed gone{w};
    gone.until([&] { return !w[1].machine().replicated().nodes.at(node_id{3}).member; }, "gone");
    w[3].disk = {};
    w[3].has_disk = false;
    timed all{w};
    const auto from = clock_type::now();
    const instant before = w.now;
    w.start_daemon(3);
    all.until([&] { return w[3].machine().synced(); }, "joined");
    if (w[3].machine().replicated().servers.at("vs1").records.size() != count)
        throw std::runtime_error("the joiner has not got all");
    say("a joiner takes the snapshot, three nodes in a process", seconds_since(from), all.longest);
    std::printf("%-52s %8.2f s\n", "  of simulated time (1 ms for each hop)",
                static_cast<double>(w.now - before) / 1e9);
}

struct loop_side {
    qb_loop_t* loop = qb_loop_create();
    std::uint64_t durable = 0;
    double longest = 0;
    clock_type::time_point last = clock_type::now();
    std::function<bool()> until;
    void run(std::function<bool()> f) {
        until = std::move(f);
        longest = 0;
        last = clock_type::now();
        look();
        qb_loop_run(loop);
    }
    void look() {
        longest = std::max(longest, seconds_since(last) * 1000);
        if (until())
            return qb_loop_stop(loop);
        last = clock_type::now();
        qb_loop_timer_handle h = 0;
        qb_loop_timer_add(
            loop, QB_LOOP_HIGH, 1'000'000, this, [](void* p) { static_cast<loop_side*>(p)->look(); },
            &h);
    }
};

std::string database() {
    return std::filesystem::temp_directory_path() / "graced-bench" / "graced.sqlite";
}

void store() {
    std::filesystem::remove_all(std::filesystem::path(database()).parent_path());
    std::filesystem::create_directories(std::filesystem::path(database()).parent_path());
    loop_side side;
    stored_state s = many();
    say("made the records", 0);
    store_options o;
    o.path = database();
    auto opened = sqlite_store::open_and_load(o);
    if (!opened)
        throw std::runtime_error(opened.error().message);
    if (!opened->store->start(side.loop, [&](any_input i) {
            if (auto* d = std::get_if<input::durable>(&i))
                side.durable = d->at.value;
            if (auto* f = std::get_if<input::store_failed>(&i))
                throw std::runtime_error(f->why);
        }))
        throw std::runtime_error("the store does not start");
    auto t = clock_type::now();
    opened->store->commit({store_op::replace_all{s.records}, store_op::put_meta{s.meta}}, position{1});
    const double call = seconds_since(t) * 1000;
    side.run([&] { return side.durable == 1; });
    say("the whole state is durable", seconds_since(t), std::max(call, side.longest));
    t = clock_type::now();
    s.records["vs1"].lower(epoch{4});
    opened->store->commit({store_op::lower{"vs1", epoch{4}}, store_op::put_meta{s.meta}}, position{2});
    side.run([&] { return side.durable == 2; });
    say("START is durable", seconds_since(t), side.longest);
    opened->store.reset();
    std::printf("%-52s %8.0f MiB\n", "  its size", static_cast<double>(std::filesystem::file_size(database())) / 1048576);
}

void purge() { // of the database that `store` left
    loop_side side;
    store_options o;
    o.path = database();
    auto opened = sqlite_store::open_and_load(o);
    if (!opened)
        throw std::runtime_error(opened.error().message);
    (void)opened->store->start(side.loop, [&](any_input i) {
        if (auto* d = std::get_if<input::durable>(&i))
            side.durable = d->at.value;
    });
    record_map records = std::move(opened->state.records["vs1"]);
    auto t = clock_type::now();
    if (records.purge(epoch{4}) != count)
        throw std::runtime_error("not all were purged");
    const double memory = seconds_since(t) * 1000;
    say("purge of all in memory", seconds_since(t), memory);
    t = clock_type::now();
    opened->store->commit({store_op::purge{"vs1", epoch{4}}, store_op::put_meta{opened->state.meta}},
                          position{1});
    side.run([&] { return side.durable == 1; });
    say("purge of all is durable", seconds_since(t), side.longest);
}

void start() { // with the database that `store` left
    auto t = clock_type::now();
    for (const char* check : {"PRAGMA quick_check(5)", "PRAGMA integrity_check(5)"}) {
        sqlite3* db = nullptr;
        sqlite3_open(database().c_str(), &db);
        t = clock_type::now();
        if (sqlite3_exec(db, check, nullptr, nullptr, nullptr) != SQLITE_OK)
            throw std::runtime_error("no database: run `store` first");
        say(check, seconds_since(t));
        sqlite3_close(db);
    }
    store_options o;
    o.path = database();
    t = clock_type::now();
    auto opened = sqlite_store::open_and_load(o);
    if (!opened)
        throw std::runtime_error(opened.error().message);
    say("opened, checked, loaded", seconds_since(t));
    t = clock_type::now();
    parameters p;
    p.self = node_id{1};
    p.life = incarnation{1};
    fsm f(p, std::move(opened->state));
    if (f.replicated().servers.at("vs1").records.size() != count)
        throw std::runtime_error("not all are there");
    say("the core has it", seconds_since(t));
}

} // namespace

int main(int argc, char** argv) try {
    CLI::App app{"What many client records cost"};
    std::string what;
    app.add_option("what", what)->required();
    app.add_option("--count", count);
    CLI11_PARSE(app, argc, argv);
    std::printf("--- %s, %zu records\n", what.c_str(), count);
    if (what == "core")
        core();
    else if (what == "join")
        join();
    else if (what == "store")
        store();
    else if (what == "start")
        start();
    else if (what == "purge")
        purge();
    else
        throw std::runtime_error("core, join, store, start or purge");
} catch (const std::exception& e) {
    std::fprintf(stderr, "bench-records: %s\n", e.what());
    return 1;
}
