// SPDX-License-Identifier: GPL-2.0-or-later
// The recovery database with real files: every op, order, group commit, kill -9, a full disk, and
// everything that open_and_load refuses.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/record_key.hh"
#include "graced/adapters/sqlite_store.hh"
#include "unit/store_disk.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace grace;
namespace fs = std::filesystem;

namespace {

class temp_dir {
public:
    temp_dir() {
        std::string name = (fs::temp_directory_path() / "graced-store-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~temp_dir() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    temp_dir(const temp_dir&) = delete;
    temp_dir& operator=(const temp_dir&) = delete;
    [[nodiscard]] std::string file(const std::string& name = "graced.sqlite") const {
        return path_ + "/" + name;
    }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

store_options at_path(std::string path) {
    store_options o;
    o.path = std::move(path);
    return o;
}

// A loop, and what the store told the engine.
struct engine_side {
    qb_loop_t* loop = qb_loop_create();
    std::vector<std::uint64_t> durable;
    std::vector<std::string> failures;
    std::vector<std::string> opened; // notes
    std::function<bool()> until;
    int turns = 0;

    engine_side() = default;
    ~engine_side() { qb_loop_destroy(loop); }
    engine_side(const engine_side&) = delete;
    engine_side& operator=(const engine_side&) = delete;

    sqlite_store::sink sink() {
        return [this](any_input in) {
            if (const auto* d = std::get_if<input::durable>(&in)) {
                durable.push_back(d->at.value);
            } else if (const auto* f = std::get_if<input::store_failed>(&in)) {
                failures.push_back(f->why);
            } else if (const auto* o = std::get_if<input::store_opened>(&in)) {
                opened.push_back(o->note);
            } else {
                FAIL("an input that the store does not send");
            }
        };
    }
    // Runs the loop until `condition`, at most 20 s.
    bool run(std::function<bool()> condition) {
        until = std::move(condition);
        turns = 0;
        look();
        qb_loop_run(loop);
        return until();
    }
    void look() {
        if (until() || ++turns > 10'000) {
            qb_loop_stop(loop);
            return;
        }
        qb_loop_timer_handle handle = 0;
        qb_loop_timer_add(
            loop, QB_LOOP_LOW, 2'000'000, this,
            [](void* data) { static_cast<engine_side*>(data)->look(); }, &handle);
    }
};

// Opens, commits the batches with positions 1, 2, …, waits for the last.
void write_all(const std::string& path, const std::vector<store_batch>& batches) {
    engine_side engine;
    auto opened = sqlite_store::open_and_load(at_path(path));
    REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
    REQUIRE(opened->store->start(engine.loop, engine.sink()));
    std::uint64_t n = 0;
    for (const store_batch& b : batches) {
        opened->store->commit(b, position{++n});
    }
    REQUIRE(engine.run([&] { return n == 0 || (!engine.durable.empty() && engine.durable.back() == n); }));
}

stored_state read_all(const std::string& path) {
    auto opened = sqlite_store::open_and_load(at_path(path));
    REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
    return opened->state;
}

error open_error(store_options o) {
    auto opened = sqlite_store::open_and_load(std::move(o));
    REQUIRE(!opened.has_value());
    MESSAGE(opened.error().message);
    return opened.error();
}

// The naive twin: what each op means, written down once more.
struct twin {
    stored_state& s;
    void operator()(const store_op::put_record& o) { map(o.server, o.client)[o.client] = o.rec; }
    void operator()(const store_op::remove_record& o) {
        map(o.server, o.client).erase(o.client);
    }
    void operator()(const store_op::lower& o) {
        s.records[o.server].lower(o.limit);
    }
    void operator()(const store_op::renew& o) {
        s.records[o.server].renew(o.at);
    }
    void operator()(const store_op::purge& o) {
        s.records[o.server].purge(o.limit);
    }
    void operator()(const store_op::replace_all& o) {
        s.records = o.records;
        s.mounts = o.mounts;
    }
    record_map& map(const std::string& server, const std::string& key) {
        return (key.starts_with(std::string("\0m", 2)) ? s.mounts : s.records)[server];
    }
    void operator()(const store_op::put_meta& o) { s.meta = o.meta; }
};

void check_same(stored_state want, const stored_state& have) {
    for (auto* all : {&want.records, &want.mounts})
        std::erase_if(*all, [](const auto& s) { return s.second.empty(); });
    CHECK(want.meta == have.meta);
    CHECK(want.records == have.records);
    CHECK(want.mounts == have.mounts);
}

class random_ops {
public:
    static constexpr epoch latest{(1ULL << 62) - 1};
    explicit random_ops(std::uint64_t seed)
        : rng_(seed) {}
    store_operation draw() {
        switch (upto(12)) {
        case 0:
            return store_op::remove_record{server(), client()};
        case 1:
            return store_op::lower{server(), any_epoch()};
        case 2:
            return store_op::renew{server(), any_epoch()};
        case 3:
            return store_op::purge{server(), any_epoch()};
        case 4: {
            store_op::replace_all all;
            for (std::uint64_t i = upto(20); i > 0; --i) {
                const std::string key = client();
                auto& of = kind_of(key) == record_kind::mount ? all.mounts : all.records;
                of[server()][key] = rec();
            }
            return all;
        }
        case 5:
        case 6: {
            stored_meta m;
            m.view = rng_() >> 2;
            m.quorate_view = rng_() >> 2;
            m.current = latest;
            m.recovery = any_epoch();
            m.applied = position{rng_() >> 2};
            m.starts = start_count{100 + upto(100)};
            m.lifting = m.recovery && upto(2) == 1;
            m.purged = any_epoch();
            for (std::uint64_t i = upto(4); i > 0; --i) {
                m.servers[server()] = {
                    m.recovery && !m.lifting && upto(2) == 1, upto(2) == 1,
                    start_count{upto(100)}, start_count{upto(100)},
                    start_count{upto(100)}, node_id{static_cast<std::uint32_t>(rng_())}};
                m.nodes[node_id{static_cast<std::uint32_t>(1 + upto(5))}] =
                    "node" + std::to_string(upto(9));
            }
            return store_op::put_meta{m};
        }
        default:
            return store_op::put_record{server(), client(), rec()};
        }
    }
    std::uint64_t upto(std::uint64_t n) { return rng_() % n; }

private:
    std::string server() { return "vs" + std::to_string(upto(4)); }
    std::string client() {
        // Opaque bytes: zeros, quotes, high bytes, and the longest name.
        static const std::string odd[] = {std::string("\0\0x", 3), std::string("\xff\xfe'\"", 4),
                                          std::string(1024, 'n'), "Linux NFSv4.1 host"};
        // Mounts, and their neighbours in the order of keys.
        static const std::string kinds[] = {mount_key("a", "/"), mount_key("a", "/b"), nlm_key("a"),
                                            std::string("\0n", 2), std::string("\0m", 2)};
        if (upto(4) == 0)
            return kinds[upto(5)];
        return upto(4) == 0 ? odd[upto(4)] : "client" + std::to_string(upto(12));
    }
    epoch any_epoch() {
        static const std::uint64_t edges[] = {0, 1, (1ULL << 32) + 1, latest.value - 1};
        return epoch{upto(3) == 0 ? edges[upto(4)] : upto(8)};
    }
    record rec() { return {any_epoch(), upto(2) == 0 ? "" : std::string(32, '\0')}; }
    std::mt19937_64 rng_;
};

// A mount namespace of our own: mounts of a test vanish with it. False where that is not allowed.
bool own_mounts() {
    static const bool done = ::unshare(CLONE_NEWNS) == 0 &&
                             ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    return done;
}

void shell_sql(const std::string& path, const char* sql) {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(path.c_str(), &db) == SQLITE_OK);
    char* why = nullptr;
    const int rc = sqlite3_exec(db, sql, nullptr, nullptr, &why);
    REQUIRE_MESSAGE(rc == SQLITE_OK, why);
    sqlite3_close(db);
}

std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

bool warned(const std::vector<std::string>& warnings, const std::string& what) {
    return std::any_of(warnings.begin(), warnings.end(), [&](const std::string& w) {
        return w.find(what) != std::string::npos;
    });
}

} // namespace

TEST_CASE("a new database has the defaults, and is private") {
    const temp_dir dir;
    {
        auto opened = sqlite_store::open_and_load(at_path(dir.file()));
        REQUIRE(opened);
        CHECK(opened->created);
        CHECK(opened->state.meta == stored_meta{});
        CHECK(opened->state.records.empty());
    }
    auto again = sqlite_store::open_and_load(at_path(dir.file()));
    REQUIRE(again);
    CHECK_FALSE(again->created);
    CHECK(again->state.meta == stored_meta{});
    struct stat st {};
    REQUIRE(::stat(dir.file().c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
}

TEST_CASE("every op means what its comment says, up to the largest numbers") {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        CAPTURE(seed);
        const temp_dir dir;
        random_ops ops(seed);
        stored_state want;
        stored_meta beginning;
        beginning.current = random_ops::latest;
        std::vector<store_batch> batches{{store_op::put_meta{beginning}}};
        want.meta = beginning;
        for (int i = 0; i < 60; ++i) {
            store_batch batch;
            for (std::uint64_t n = ops.upto(6); n > 0; --n) {
                batch.push_back(ops.draw());
                std::visit(twin{want}, batch.back());
            }
            batches.push_back(std::move(batch));
            if (i % 20 == 19) {
                write_all(dir.file(), batches); // reopened three times
                check_same(want, read_all(dir.file()));
                batches.clear();
            }
        }
    }
}

TEST_CASE("batches become durable in order, and share commits") {
    const temp_dir dir;
    engine_side engine;
    auto opened = sqlite_store::open_and_load(at_path(dir.file()));
    REQUIRE(opened);
    REQUIRE(opened->store->start(engine.loop, engine.sink()));
    constexpr std::uint64_t batches = 2000;
    for (std::uint64_t n = 1; n <= batches; ++n) {
        opened->store->commit(
            {store_op::put_record{"vs1", "client" + std::to_string(n), {epoch{n}, ""}}},
            position{n});
    }
    REQUIRE(
        engine.run([&] { return !engine.durable.empty() && engine.durable.back() == batches; }));
    CHECK(std::is_sorted(engine.durable.begin(), engine.durable.end()));
    const auto stats = opened->store->stats();
    CHECK(stats.batches == batches);
    CHECK(stats.transactions < batches / 4);
    CHECK(engine.durable.size() <= stats.transactions);
    MESSAGE(batches << " batches in " << stats.transactions << " commits, " << engine.durable.size()
                    << " wake-ups");
}

TEST_CASE("positions that go back (a snapshot replaced our state) are each reported") {
    const temp_dir dir;
    engine_side engine;
    auto opened = sqlite_store::open_and_load(at_path(dir.file()));
    REQUIRE(opened);
    opened->store->commit({store_op::put_record{"vs1", "a", {epoch{1}, ""}}}, position{100});
    opened->store->commit({store_op::replace_all{}}, position{5});
    opened->store->commit({store_op::put_record{"vs1", "b", {epoch{1}, ""}}}, position{6});
    REQUIRE(opened->store->start(engine.loop, engine.sink()));
    REQUIRE(engine.run([&] { return !engine.durable.empty() && engine.durable.back() == 6; }));
    CHECK(engine.durable.front() == 100);
    CHECK(engine.failures.empty());
}

TEST_CASE("what is queued is committed when the store is closed") {
    const temp_dir dir;
    {
        engine_side engine;
        auto opened = sqlite_store::open_and_load(at_path(dir.file()));
        REQUIRE(opened);
        REQUIRE(opened->store->start(engine.loop, engine.sink()));
        for (std::uint64_t n = 1; n <= 100; ++n) {
            opened->store->commit({store_op::put_record{"vs1", std::to_string(n), {epoch{1}, ""}}},
                                  position{n});
        }
        opened->store.reset();
    }
    CHECK(read_all(dir.file()).records["vs1"].size() == 100);
}

TEST_CASE(
    "kill -9 in the middle of commits: acknowledged batches are there, none is there by half") {
    for (int round = 0; round < 6; ++round) {
        const temp_dir dir;
        int acks[2];
        REQUIRE(::pipe2(acks, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            engine_side engine;
            auto opened = sqlite_store::open_and_load(at_path(dir.file()));
            if (!opened || !opened->store->start(engine.loop, engine.sink())) {
                ::_exit(1);
            }
            std::uint64_t sent = 0;
            std::size_t told = 0;
            engine.run([&] {
                for (; told < engine.durable.size(); ++told) {
                    const std::uint64_t at = engine.durable[told];
                    if (::write(acks[1], &at, sizeof at) != sizeof at) {
                        ::_exit(2);
                    }
                }
                for (int i = 0; i < 20; ++i) {
                    ++sent;
                    stored_meta meta;
                    meta.applied = position{sent};
                    const std::string name = std::to_string(sent);
                    opened->store->commit({store_op::put_record{"vs1", name, {epoch{1}, ""}},
                                           store_op::put_record{"vs2", name, {epoch{1}, ""}},
                                           store_op::put_meta{meta}},
                                          position{sent});
                }
                return false;
            });
            ::_exit(3);
        }
        ::close(acks[1]);
        std::uint64_t acknowledged = 0;
        REQUIRE(::read(acks[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged);
        ::usleep(static_cast<useconds_t>(10'000 + round * 17'000));
        ::kill(child, SIGKILL);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE(WIFSIGNALED(status));
        for (std::uint64_t at = 0; ::read(acks[0], &at, sizeof at) == sizeof at;) {
            acknowledged = at;
        }
        ::close(acks[0]);
        auto state = read_all(dir.file()); // its lock went with it
        MESSAGE("acknowledged " << acknowledged << ", found " << state.meta.applied.value);
        CHECK(state.meta.applied.value >= acknowledged);
        CHECK(state.records["vs1"].size() == state.meta.applied.value);
        CHECK(state.records["vs2"] == state.records["vs1"]);
        CHECK(state.records["vs1"].contains(std::to_string(state.meta.applied.value)));
    }
}

static void check_full(const store_options& options) {
    engine_side engine;
    std::uint64_t reached = 0;
    {
        auto opened = sqlite_store::open_and_load(options);
        REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
        REQUIRE(opened->store->start(engine.loop, engine.sink()));
        std::uint64_t sent = 0;
        REQUIRE(engine.run([&] {
            for (int i = 0; i < 10; ++i) {
                ++sent;
                stored_meta meta;
                meta.applied = position{sent};
                opened->store->commit(
                    {store_op::put_record{"vs1", std::string(900, 'x') + std::to_string(sent), {}},
                     store_op::put_meta{meta}},
                    position{sent});
            }
            return !engine.failures.empty();
        }));
        MESSAGE(engine.failures.front());
        CHECK(engine.failures.front().find(options.path) != std::string::npos);
        REQUIRE(!engine.durable.empty());
        reached = engine.durable.back();
        CHECK(reached < sent);
        // It stays failed, and says so once.
        opened->store->commit({}, position{sent + 1});
        int turns = 0;
        engine.run([&] { return ++turns > 20; });
        CHECK(engine.failures.size() == 1);
        CHECK(engine.durable.back() == reached);
        CHECK(opened->store->stats().failed);
    }
    store_options unbounded = options;
    unbounded.max_pages = 0;
    auto state = sqlite_store::open_and_load(unbounded);
    REQUIRE_MESSAGE(state.has_value(), (state ? "" : state.error().message));
    if (state->store->stats().failed) { // no room even for emptying the log: it says so from the start
        engine_side later;
        REQUIRE(state->store->start(later.loop, later.sink()));
        REQUIRE(later.run([&] { return !later.failures.empty(); }));
        MESSAGE(later.failures.front());
        state->store.reset();
    }
    CHECK(state->state.meta.applied.value == reached);
    CHECK(state->state.records["vs1"].size() == reached);
}

TEST_CASE("a full database: store_failed, nothing durable after it, the rest is intact") {
    const temp_dir dir;
    store_options options = at_path(dir.file());
    options.max_pages = 60;
    check_full(options);
}

TEST_CASE("a full file system: the same") {
    if (!own_mounts()) {
        MESSAGE("skipped: no mounts here");
        return;
    }
    const temp_dir dir;
    REQUIRE(::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=1m") == 0);
    check_full(at_path(dir.file()));
    CHECK(::umount2(dir.path().c_str(), MNT_DETACH) == 0);
}

TEST_CASE("a disk that stands still does not eat the memory") {
    const temp_dir dir;
    engine_side engine;
    store_options options = at_path(dir.file());
    options.max_queued_bytes = 10'000;
    auto opened = sqlite_store::open_and_load(options);
    REQUIRE(opened);
    for (std::uint64_t n = 1; n <= 100; ++n) { // the writer does not run yet: a very slow disk
        opened->store->commit({store_op::put_record{"vs1", std::string(900, 'x'), {}}},
                              position{n});
    }
    REQUIRE(opened->store->start(engine.loop, engine.sink()));
    REQUIRE(engine.run([&] { return !engine.failures.empty(); }));
    CHECK(engine.durable.empty());
    CHECK(engine.failures.front().find("too slow") != std::string::npos);
}

static store_options quick(std::string path) {
    store_options o = at_path(std::move(path));
    o.mend_after = std::chrono::milliseconds(5);
    return o;
}

TEST_CASE("an error of the disk: said once, what is queued is dropped, and it is well again by itself") {
    const temp_dir dir;
    disk::use();
    disk::the_disk().start(dir.path());
    engine_side engine;
    auto opened = sqlite_store::open_and_load(quick(dir.file()));
    REQUIRE(opened);
    sqlite_store& store = *opened->store;
    REQUIRE(store.start(engine.loop, engine.sink()));
    store.commit({store_op::put_record{"vs1", "before", {}}}, position{1});
    REQUIRE(engine.run([&] { return !engine.durable.empty(); }));
    SUBCASE("a sync fails") {
        disk::the_disk().fail_syncs = 3;
    }
    SUBCASE("no space") {
        disk::the_disk().fail_writes = true;
    }
    store.commit({store_op::put_record{"vs1", "lost", {}}}, position{2});
    REQUIRE(engine.run([&] { return !engine.failures.empty(); }));
    CHECK(store.stats().failed);
    CHECK(store.stats().why.find(dir.file()) != std::string::npos);
    // The engine may not know yet, or go on: nothing of it may be durable without what was lost.
    store.commit({store_op::put_record{"vs1", "behind the hole", {}}}, position{3});
    int turns = 0;
    engine.run([&] { return ++turns > 20; });
    disk::the_disk().fail_writes = false;
    REQUIRE(engine.run([&] { return !engine.opened.empty(); }));
    CHECK_FALSE(store.stats().failed);
    store.commit({store_op::put_record{"vs1", "after", {}}}, position{4});
    REQUIRE(engine.run([&] { return engine.durable.back() == 4; }));
    CHECK(engine.durable == std::vector<std::uint64_t>{1, 4});
    CHECK(engine.failures.size() == 1);
    CHECK(engine.opened.size() == 1);
    disk::the_disk().stop();
    opened->store.reset();
    const auto state = read_all(dir.file());
    CHECK_FALSE(state.records.at("vs1").contains("behind the hole"));
    CHECK(state.records.at("vs1").contains("after"));
}

TEST_CASE("a disk that stands still has failed after stall_timeout; long work has not") {
    const temp_dir dir;
    disk::use();
    disk::the_disk().start(dir.path());
    engine_side engine;
    store_options options = quick(dir.file());
    options.stall_timeout = std::chrono::milliseconds(2000);
    auto opened = sqlite_store::open_and_load(options);
    REQUIRE(opened);
    sqlite_store& store = *opened->store;
    REQUIRE(store.start(engine.loop, engine.sink()));
    // A commit of more than that, which gets on all the time.
    store_batch large;
    for (int i = 0; i < 10'000; ++i) {
        large.emplace_back(store_op::put_record{
            "vs1", std::string(900, 'x') + std::to_string(i * 7919 % 10'000), {epoch{1}, ""}});
    }
    disk::the_disk().slow_for_us = 3'000'000;
    const auto before = std::chrono::steady_clock::now();
    store.commit(std::move(large), position{1});
    REQUIRE(engine.run([&] { return !engine.durable.empty() || !engine.failures.empty(); }));
    const auto took = std::chrono::steady_clock::now() - before;
    REQUIRE(disk::the_disk().slow_for_us <= 0); // there were writes enough
    REQUIRE(engine.failures.empty());
    CHECK(took > options.stall_timeout);
    // A sync that hangs: said while it hangs, and once it is over the store is well again.
    disk::the_disk().stall_ms = 4000;
    store.commit({store_op::put_record{"vs1", "slow", {}}}, position{2});
    REQUIRE(engine.run([&] { return !engine.failures.empty(); }));
    CHECK(engine.failures.front().find("stood still") != std::string::npos);
    CHECK(engine.durable.back() == 1);
    disk::the_disk().stall_ms = 0;
    REQUIRE(engine.run([&] { return !engine.opened.empty(); }));
    CHECK(engine.durable.back() == 1); // though it came to the disk: nobody may rest on it now
    store.commit({store_op::put_record{"vs1", "again", {}}}, position{3});
    REQUIRE(engine.run([&] { return engine.durable.back() == 3; }));
    disk::the_disk().stop();
}

TEST_CASE("a second graced is refused and told the first one's pid") {
    const temp_dir dir;
    auto first = sqlite_store::open_and_load(at_path(dir.file()));
    REQUIRE(first);
    const error e = open_error(at_path(dir.file()));
    CHECK(e.code == EBUSY);
    CHECK(e.message.find("pid " + std::to_string(::getpid())) != std::string::npos);
    CHECK(sqlite_store::exit_code(e) == 75);
    first->store.reset();
    CHECK(sqlite_store::open_and_load(at_path(dir.file())));
}

TEST_CASE("paths that cannot be used") {
    const temp_dir dir;
    CHECK(open_error(at_path(dir.file("no/such/file"))).code == ENOENT);
    std::ofstream(dir.file("plain")) << "x";
    CHECK(open_error(at_path(dir.file("plain/file"))).code == ENOTDIR);
    fs::create_directory(dir.file("sub"));
    CHECK(open_error(at_path(dir.file("sub"))).code == EISDIR);
    CHECK(open_error(at_path(dir.file("sub/"))).code == EISDIR);
    fs::create_symlink(dir.file("plain"), dir.file("link"));
    CHECK(open_error(at_path(dir.file("link"))).code == EINVAL);
    if (own_mounts()) {
        const std::string sub = dir.file("sub");
        REQUIRE(::mount(sub.c_str(), sub.c_str(), nullptr, MS_BIND, nullptr) == 0);
        REQUIRE(::mount(nullptr, sub.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) ==
                0);
        const error e = open_error(at_path(dir.file("sub/file")));
        CHECK(e.code == EROFS);
        CHECK(sqlite_store::exit_code(e) == 78);
        ::umount2(sub.c_str(), MNT_DETACH);
    } else {
        MESSAGE("skipped: read-only mount");
    }
}

TEST_CASE("file systems of a cluster are refused, memory is complained about") {
    const temp_dir dir;
    for (const std::uint32_t magic : {0x01161970U, 0x6969U, 0x7461636fU}) {
        store_options o = at_path(dir.file());
        o.pretend_fs_magic = magic;
        CHECK(open_error(o).code == EOPNOTSUPP);
        CHECK_FALSE(fs::exists(dir.file()));
    }
    store_options o = at_path(dir.file());
    o.pretend_fs_magic = 0x01021994;
    auto opened = sqlite_store::open_and_load(o);
    REQUIRE(opened);
    REQUIRE(opened->warnings.size() == 1);
    CHECK(opened->warnings.front().find("in memory") != std::string::npos);
}

TEST_CASE("damage is found, and nothing is touched") {
    const temp_dir dir;
    stored_meta meta;
    meta.current = epoch{7};
    meta.servers["vs1"] = {};
    std::vector<store_batch> batches{{store_op::put_meta{meta}}};
    for (int i = 0; i < 500; ++i) {
        batches.push_back({store_op::put_record{
            "vs1", std::string(100, 'c') + std::to_string(i), {epoch{3}, std::string(32, 'p')}}});
    }
    write_all(dir.file(), batches);
    SUBCASE("garbage in the pages") {
        std::fstream f(dir.file(), std::ios::in | std::ios::out | std::ios::binary);
        f.seekp(3 * 4096);
        f << std::string(4L * 4096, '\x5a');
        f.close();
    }
    SUBCASE("not a database") {
        std::ofstream(dir.file()) << std::string(8192, 'T');
    }
    SUBCASE("cut off") {
        fs::resize_file(dir.file(), 2 * 4096 + 100);
    }
    SUBCASE("a row of the meta is gone") {
        shell_sql(dir.file(), "DELETE FROM meta WHERE key = 'current'");
    }
    SUBCASE("a record that graced cannot have written") {
        shell_sql(dir.file(), "INSERT INTO records VALUES ('vs1', zeroblob(2000), 1, x'')");
    }
    SUBCASE("R is not below C") {
        shell_sql(dir.file(), "UPDATE meta SET value = 7 WHERE key = 'recovery'");
    }
    SUBCASE("C is none") {
        shell_sql(dir.file(), "UPDATE meta SET value = 0 WHERE key = 'current'");
    }
    SUBCASE("C is beyond all") {
        shell_sql(dir.file(), "UPDATE meta SET value = -2 WHERE key = 'current'");
    }
    SUBCASE("a purge of the future") {
        shell_sql(dir.file(), "UPDATE meta SET value = 7 WHERE key = 'purged'");
    }
    SUBCASE("lifting without a grace") {
        shell_sql(dir.file(), "UPDATE meta SET value = 1 WHERE key = 'lifting'");
    }
    SUBCASE("a NEED without a grace") {
        shell_sql(dir.file(), "UPDATE servers SET need = 1");
    }
    SUBCASE("a START that nobody has counted") {
        shell_sql(dir.file(), "UPDATE servers SET start = 3");
    }
    SUBCASE("a record of the future") {
        shell_sql(dir.file(), "UPDATE records SET epoch = 8");
    }
    SUBCASE("an epoch below none") {
        shell_sql(dir.file(), "UPDATE records SET epoch = -8");
    }
    SUBCASE("the log without its database") {
        fs::rename(dir.file(), dir.file("elsewhere"));
        std::ofstream(dir.file() + "-wal") << "commits";
    }
    const std::string before = content(dir.file());
    const error e = open_error(at_path(dir.file()));
    CHECK(e.code == EUCLEAN);
    CHECK(sqlite_store::exit_code(e) == 65);
    CHECK(content(dir.file()) == before);
    CHECK(e.message.find("Nothing was changed") != std::string::npos);
}

TEST_CASE("a damaged database is set aside where others have the records") {
    const temp_dir dir;
    store_options options = at_path(dir.file());
    options.set_aside = true;
    write_all(dir.file(), {{store_op::put_record{"vs1", "a", {epoch{1}, ""}}}});
    shell_sql(dir.file(), "UPDATE meta SET value = 7 WHERE key = 'recovery'");
    const std::string before = content(dir.file());
    {
        auto opened = sqlite_store::open_and_load(options);
        REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
        CHECK(opened->created);
        CHECK(opened->state.records.empty());
        CHECK(warned(opened->warnings, "set aside as " + dir.file() + ".damaged-"));
    }
    std::vector<std::string> aside;
    for (const auto& e : fs::directory_iterator(dir.path())) {
        if (e.path().filename().string().starts_with("graced.sqlite.damaged-")) {
            aside.push_back(e.path());
        }
    }
    REQUIRE(aside.size() == 1);
    CHECK(content(aside.front()) == before);
    // A disk that goes on making damaged ones is not filled up with them.
    for (int i = 0; i < 7; ++i) {
        std::ofstream(dir.file()) << std::string(8192, 'T');
        CHECK(sqlite_store::open_and_load(options));
    }
    std::ofstream(dir.file()) << std::string(8192, 'T');
    const error e = open_error(options);
    CHECK(e.code == EUCLEAN);
    CHECK(content(dir.file()) == std::string(8192, 'T'));
    // Whoever cannot tell whose it is leaves it alone.
    fs::remove(dir.file());
    write_all(dir.file(), {{store_op::put_record{"vs1", "a", {epoch{1}, ""}}}});
    shell_sql(dir.file(), "PRAGMA application_id = 7");
    CHECK(open_error(options).code == EPROTO);
}

TEST_CASE("an empty file is a new database, with a warning") {
    const temp_dir dir;
    std::ofstream(dir.file()).flush();
    auto opened = sqlite_store::open_and_load(at_path(dir.file()));
    REQUIRE(opened);
    CHECK(opened->created);
    CHECK(opened->warnings.size() >= 1);
}

TEST_CASE("a database of version 1 is changed, after a copy of it was made") {
    const temp_dir dir;
    fs::copy_file(std::string(STORE_DATA) + "/schema-1.sqlite", dir.file());
    const std::string copy = dir.file() + ".schema-1";
    {
        auto opened = sqlite_store::open_and_load(at_path(dir.file()));
        REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
        CHECK(warned(opened->warnings, copy));
        const stored_meta& m = opened->state.meta;
        CHECK(m.current == epoch{4});
        CHECK(m.recovery == epoch{3});
        CHECK(m.applied == position{77});
        // What was over when it was written was settled; what NEEDs was not.
        CHECK(m.servers.at("vs1") ==
              stored_server{false, false, start_count{2}, start_count{}, start_count{2}, node_id{1}});
        CHECK(m.servers.at("vs2") ==
              stored_server{true, true, start_count{3}, start_count{}, start_count{}, node_id{2}});
        CHECK(opened->state.records.at("vs1").at("alice").princhash == std::string(32, 'h'));
        CHECK(opened->state.records.at("vs2").at(std::string("b\0b", 3)).at == epoch{3});
        CHECK(opened->state.mounts.empty());
    }
    CHECK_FALSE(warned(sqlite_store::open_and_load(at_path(dir.file()))->warnings, copy));
    // The older graced can go on with the copy.
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open_v2(copy.c_str(), &db, SQLITE_OPEN_READONLY, nullptr) == SQLITE_OK);
    sqlite3_stmt* s = nullptr;
    REQUIRE(sqlite3_prepare_v2(db,
                               "SELECT count(*), (SELECT user_version FROM pragma_user_version), "
                               "(SELECT application_id FROM pragma_application_id) FROM records",
                               -1, &s, nullptr) == SQLITE_OK);
    REQUIRE(sqlite3_step(s) == SQLITE_ROW);
    CHECK(sqlite3_column_int(s, 0) == 3);
    CHECK(sqlite3_column_int(s, 1) == 1);
    CHECK(sqlite3_column_int(s, 2) == sqlite_store::application_id);
    sqlite3_finalize(s);
    sqlite3_close(db);
    struct stat st {};
    REQUIRE(::stat(copy.c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
}

TEST_CASE("no room for the copy: the database is not changed") {
    if (!own_mounts()) {
        MESSAGE("skipped: no mounts here");
        return;
    }
    const temp_dir dir;
    REQUIRE(::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=100k") == 0);
    fs::copy_file(std::string(STORE_DATA) + "/schema-1.sqlite", dir.file());
    {
        std::ofstream fill(dir.file("fill"));
        while (fill << std::string(1000, 'x') << std::flush) {
        }
    }
    fs::resize_file(dir.file("fill"), fs::file_size(dir.file("fill")) - 8192);
    const std::string before = content(dir.file());
    CHECK(sqlite_store::exit_code(open_error(at_path(dir.file()))) == 74);
    CHECK(content(dir.file()) == before);
    CHECK_FALSE(fs::exists(dir.file() + ".schema-1"));
    CHECK_FALSE(fs::exists(dir.file() + ".schema-1.new"));
    ::umount2(dir.path().c_str(), MNT_DETACH);
}

TEST_CASE("databases of the future and of others") {
    const temp_dir dir;
    write_all(dir.file(), {{store_op::put_record{"vs1", "a", {epoch{1}, ""}}}});
    SUBCASE("newer") {
        shell_sql(dir.file(), ("PRAGMA user_version = " +
                               std::to_string(sqlite_store::schema_version + 1)).c_str());
        const error e = open_error(at_path(dir.file()));
        CHECK(e.code == EPROTO);
        CHECK(e.message.find("newer graced") != std::string::npos);
    }
    SUBCASE("of another program") {
        shell_sql(dir.file(), "PRAGMA application_id = 7");
        CHECK(open_error(at_path(dir.file())).code == EPROTO);
    }
    CHECK(fs::exists(dir.file()));
}
