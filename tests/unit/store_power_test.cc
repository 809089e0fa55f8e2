// SPDX-License-Identifier: GPL-2.0-or-later
// The recovery database on a disk that loses what was not synced (store_disk.hh): the power fails at
// every sync point and between, also twice in a row, also after a sync that failed. No batch that
// was called durable is missing, none is there by half.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/sqlite_store.hh"
#include "unit/store_disk.hh"

#include <climits>
#include <dlfcn.h>
#include <doctest/doctest.h>

using namespace grace;
namespace fs = std::filesystem;

// The linker takes these instead of libc's, for the store's code and for libsqlite3's. What SQLite
// syncs of its files is told by its VFS; directories, and files of the store's own, are told here.
static void synced(int fd, bool by_sqlite) {
    char name[PATH_MAX] = {};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t n = ::readlink(link.c_str(), name, sizeof name - 1);
    const std::string path(name, n > 0 ? static_cast<std::size_t>(n) : 0);
    struct stat st {};
    if (::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && disk::the_disk().has(path + "/"))
        disk::the_disk().note({disk::op::sync_dir, "", "", 0, ""});
    else if (S_ISREG(st.st_mode) && disk::the_disk().has(path) && !by_sqlite)
        disk::the_disk().note({disk::op::sync, path, "", 0, ""});
}
extern "C" int fsync(int fd) {
    static auto real = reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, "fsync"));
    const int rc = real(fd);
    if (rc == 0)
        synced(fd, false);
    return rc;
}
extern "C" int fdatasync(int fd) {
    static auto real = reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, "fdatasync"));
    const int rc = real(fd);
    if (rc == 0)
        synced(fd, true); // the store itself calls fsync
    return rc;
}
// SQLite's writes are told by its VFS (it calls pwrite64); this is the store's own.
extern "C" ssize_t pwrite(int fd, const void* data, size_t n, off_t at) {
    static auto real =
        reinterpret_cast<ssize_t (*)(int, const void*, size_t, off_t)>(dlsym(RTLD_NEXT, "pwrite"));
    const ssize_t done = real(fd, data, n, at);
    char name[PATH_MAX] = {};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = ::readlink(link.c_str(), name, sizeof name - 1);
    const std::string path(name, length > 0 ? static_cast<std::size_t>(length) : 0);
    if (done > 0 && path.ends_with("-wal"))
        disk::the_disk().note({disk::op::write, path, "", at,
                               std::string(static_cast<const char*>(data), static_cast<std::size_t>(done))});
    return done;
}
extern "C" int rename(const char* from, const char* to) noexcept {
    static auto real = reinterpret_cast<int (*)(const char*, const char*)>(dlsym(RTLD_NEXT, "rename"));
    const int rc = real(from, to);
    if (rc == 0 && disk::the_disk().has(from)) {
        disk::the_disk().note({disk::op::rename, from, to, 0, ""});
    }
    return rc;
}

namespace {

class temp_dir {
public:
    temp_dir() {
        // Memory: the model says what is durable, not the machine's disk.
        std::string name = fs::exists("/dev/shm") ? "/dev/shm/graced-power-XXXXXX"
                                                  : "/tmp/graced-power-XXXXXX";
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
        fs::create_directory(run());
        fs::create_directory(after());
    }
    ~temp_dir() { fs::remove_all(path_); }
    temp_dir(const temp_dir&) = delete;
    temp_dir& operator=(const temp_dir&) = delete;
    [[nodiscard]] std::string run() const { return path_ + "/run"; }
    [[nodiscard]] std::string after() const { return path_ + "/after"; }

private:
    std::string path_;
};

store_options in(const std::string& directory) {
    store_options o;
    o.path = directory + "/graced.sqlite";
    o.mend_after = std::chrono::milliseconds(1);
    return o;
}

// Batch number n: some records, one is changed and one removed again, and the number itself. Large
// names, so that a few dozen batches fill the log and bring on a checkpoint.
store_batch batch(std::uint64_t n) {
    store_batch b;
    const std::string server = "vs" + std::to_string(n % 3);
    for (std::uint64_t i = 0; i < 40; ++i)
        b.push_back(store_op::put_record{
            server, std::to_string(n) + "." + std::to_string(i) + std::string(900, 'x'),
            {epoch{n}, std::string(i % 33, 'p')}});
    b.push_back(store_op::remove_record{server, std::to_string(n) + ".3" + std::string(900, 'x')});
    if (n % 7 == 0)
        b.push_back(store_op::lower{server, epoch{n - 1}});
    if (n % 25 == 0)
        b.push_back(store_op::purge{server, epoch{n - 5}});
    stored_meta m;
    m.current = epoch{1000};
    m.applied = position{n};
    m.starts = start_count{n};
    m.servers[server] = {false, false, start_count{n}, {}, start_count{n}, node_id{1}};
    b.push_back(store_op::put_meta{m});
    return b;
}

void perform(stored_state& s, const store_batch& b) {
    for (const store_operation& o : b) {
        if (const auto* put = std::get_if<store_op::put_record>(&o)) {
            s.records[put->server][put->client] = put->rec;
        } else if (const auto* gone = std::get_if<store_op::remove_record>(&o)) {
            s.records[gone->server].erase(gone->client);
        } else if (const auto* low = std::get_if<store_op::lower>(&o)) {
            s.records[low->server].lower(low->limit);
        } else if (const auto* p = std::get_if<store_op::purge>(&o)) {
            s.records[p->server].purge(p->limit);
        } else if (const auto* all = std::get_if<store_op::replace_all>(&o)) {
            s.records = all->records;
        } else if (const auto* meta = std::get_if<store_op::put_meta>(&o)) {
            s.meta = meta->meta;
        }
    }
}

struct engine_side {
    qb_loop_t* loop = qb_loop_create();
    std::uint64_t durable = 0;
    int failures = 0, opened = 0;
    std::function<bool()> until;
    int turns = 0;
    engine_side() = default;
    ~engine_side() { qb_loop_destroy(loop); }
    engine_side(const engine_side&) = delete;
    engine_side& operator=(const engine_side&) = delete;
    sqlite_store::sink sink() {
        return [this](any_input i) {
            if (const auto* d = std::get_if<input::durable>(&i)) {
                durable = d->at.value;
                disk::the_disk().note(
                    {disk::op::told, "", "", static_cast<std::int64_t>(d->at.value), ""});
            }
            failures += std::holds_alternative<input::store_failed>(i);
            opened += std::holds_alternative<input::store_opened>(i);
        };
    }
    bool run(std::function<bool()> condition) {
        until = std::move(condition);
        turns = 0;
        look();
        qb_loop_run(loop);
        return until();
    }
    void look() {
        if (until() || ++turns > 20'000)
            return qb_loop_stop(loop);
        qb_loop_timer_handle h = 0;
        qb_loop_timer_add(
            loop, QB_LOOP_LOW, 1'000'000, this, [](void* p) { static_cast<engine_side*>(p)->look(); },
            &h);
    }
};

// Opens, writes batches first..last in groups of three, closes or not (`cut`: the process is gone).
void write_batches(const std::string& directory, std::uint64_t first, std::uint64_t last) {
    engine_side engine;
    auto opened = sqlite_store::open_and_load(in(directory));
    REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
    REQUIRE(opened->store->start(engine.loop, engine.sink()));
    for (std::uint64_t n = first; n <= last; ++n) {
        opened->store->commit(batch(n), position{n});
        if (n % 3 == 0 || n == last)
            REQUIRE(engine.run([&] { return engine.durable == n; }));
    }
}

std::vector<stored_state> all_states(std::uint64_t last) {
    std::vector<stored_state> states(1);
    for (std::uint64_t n = 1; n <= last; ++n) {
        states.push_back(states.back());
        perform(states.back(), batch(n));
        std::erase_if(states.back().records, [](const auto& e) { return e.second.empty(); });
    }
    return states;
}

// What the store finds in `directory`, against what it was told. Returns the batch it is at.
std::uint64_t check(const std::string& directory, const std::vector<stored_state>& states,
                    std::uint64_t told) {
    auto opened = sqlite_store::open_and_load(in(directory));
    REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
    const std::uint64_t at = opened->state.meta.applied.value;
    REQUIRE(at >= told);
    REQUIRE(at < states.size());
    if (at != 0) {
        // servers are put one at a time in batches; what counts is what the meta row said last
        REQUIRE(opened->state.meta == states[at].meta);
        REQUIRE(opened->state.records == states[at].records);
    }
    return at;
}

struct outcome {
    std::size_t places = 0, images = 0;
    std::uint64_t lost = 0; // images that miss something that was told
};

// Draws `each` images at every sync point, before and after it, and at some other places.
template <typename F>
outcome cut_everywhere(const std::vector<disk::op>& log, const disk::image& before, int each, F look) {
    std::mt19937_64 random(7);
    disk::surface surface;
    surface.load(before);
    std::uint64_t told = 0;
    outcome o;
    for (std::size_t i = 0; i <= log.size(); ++i) {
        const auto is_sync = [&](std::size_t k) {
            return k < log.size() && (log[k].kind == disk::op::sync || log[k].kind == disk::op::sync_dir ||
                                      log[k].kind == disk::op::failed_sync ||
                                      log[k].kind == disk::op::told);
        };
        if (i < 60 || is_sync(i) || (i > 0 && is_sync(i - 1)) || i == log.size() ||
            random() % 40 == 0) {
            ++o.places;
            for (int n = 0; n < each; ++n, ++o.images)
                look(surface.draw(random), told, random);
        }
        if (i < log.size()) {
            surface.apply(log[i]);
            if (log[i].kind == disk::op::told)
                told = static_cast<std::uint64_t>(log[i].at);
        }
    }
    return o;
}

constexpr std::uint64_t batches = 60;

std::vector<disk::op> recorded_run(const temp_dir& dir) {
    disk::use();
    disk::the_disk().start(dir.run());
    write_batches(dir.run(), 1, batches);
    return disk::the_disk().stop();
}

} // namespace

TEST_CASE("the power fails at every sync point: nothing that was told is lost, nothing is half there") {
    const temp_dir dir;
    const auto log = recorded_run(dir);
    const auto states = all_states(batches);
    std::size_t syncs = 0, checkpoints = 0;
    for (const disk::op& o : log) {
        syncs += o.kind == disk::op::sync;
        checkpoints += o.kind == disk::op::sync && !o.name.ends_with("-wal");
    }
    CHECK(checkpoints >= 3); // the log was moved into the database while it was written, too
    const outcome o = cut_everywhere(
        log, {}, 3, [&](const disk::image& image, std::uint64_t told, std::mt19937_64&) {
            disk::write_files(dir.after(), image);
            check(dir.after(), states, told);
        });
    MESSAGE(log.size() << " operations, " << syncs << " syncs (" << checkpoints
                       << " of the database); power cut at " << o.places << " places, " << o.images
                       << " images");
}

TEST_CASE("the power fails again while the database is opened after the first time") {
    const temp_dir dir;
    const auto log = recorded_run(dir);
    const auto states = all_states(batches + 3);
    std::size_t second = 0;
    cut_everywhere(log, {}, 1, [&](const disk::image& image, std::uint64_t told, std::mt19937_64& random) {
        if (random() % 8 != 0)
            return;
        disk::write_files(dir.after(), image);
        disk::the_disk().start(dir.after());
        std::uint64_t at = 0;
        {
            auto opened = sqlite_store::open_and_load(in(dir.after()));
            REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
            at = opened->state.meta.applied.value;
        }
        if (at < batches)
            write_batches(dir.after(), at + 1, at + 2);
        const auto again = disk::the_disk().stop();
        cut_everywhere(again, image, 1,
                       [&](const disk::image& i, std::uint64_t then, std::mt19937_64&) {
                           ++second;
                           disk::write_files(dir.after(), i);
                           check(dir.after(), states, std::max(told, then));
                       });
    });
    MESSAGE(second << " images of a second power cut");
    CHECK(second > 200);
}

// Bad scenario: the fsync of the log fails, the kernel drops the pages, but still shows them. The
// log is found intact, goes on behind the hole, and a power cut takes all that was told since.
TEST_CASE("a sync that fails: after mending nothing rests on what it was to write") {
    for (std::uint64_t failing = 5; failing <= 45; failing += 3) {
        CAPTURE(failing);
        const temp_dir dir;
        disk::use();
        disk::the_disk().start(dir.run());
        auto states = all_states(failing);
        {
            engine_side engine;
            auto opened = sqlite_store::open_and_load(in(dir.run()));
            REQUIRE(opened);
            sqlite_store& store = *opened->store;
            REQUIRE(store.start(engine.loop, engine.sink()));
            for (std::uint64_t n = 1; n < failing; ++n) {
                store.commit(batch(n), position{n});
                REQUIRE(engine.run([&] { return engine.durable == n; }));
            }
            disk::the_disk().fail_syncs = 1 + static_cast<int>(failing % 3);
            store.commit(batch(failing), position{failing});
            REQUIRE(engine.run([&] { return engine.failures == 1; }));
            REQUIRE(engine.run([&] { return engine.opened == 1; }));
            CHECK(engine.durable == failing - 1);
            // As the protocol goes on: the whole state from another member, then news.
            store.commit({store_op::replace_all{states[failing].records},
                          store_op::put_meta{states[failing].meta}},
                         position{failing});
            for (std::uint64_t n = failing + 1; n <= failing + 6; ++n) {
                states.push_back(states.back());
                perform(states.back(), batch(n));
                std::erase_if(states.back().records, [](const auto& e) { return e.second.empty(); });
                store.commit(batch(n), position{n});
                REQUIRE(engine.run([&] { return engine.durable == n; }));
            }
        }
        const auto log = disk::the_disk().stop();
        cut_everywhere(log, {}, 1,
                       [&](const disk::image& image, std::uint64_t told, std::mt19937_64&) {
                           disk::write_files(dir.after(), image);
                           check(dir.after(), states, told);
                       });
    }
}

// The test above must be able to fail: with synchronous = NORMAL the log is synced at checkpoints
// only. Leave those syncs out of the recording, and something that was told is lost.
TEST_CASE("without the syncs of the log the same test finds losses") {
    const temp_dir dir;
    auto log = recorded_run(dir);
    std::erase_if(log, [](const disk::op& o) {
        return o.kind == disk::op::sync && o.name.ends_with("-wal");
    });
    std::size_t lost = 0, images = 0;
    cut_everywhere(log, {}, 1, [&](const disk::image& image, std::uint64_t told, std::mt19937_64&) {
        if (told == 0 || ++images > 60)
            return;
        disk::write_files(dir.after(), image);
        auto opened = sqlite_store::open_and_load(in(dir.after()));
        lost += !opened || opened->state.meta.applied.value < told;
    });
    CHECK(lost > 5);
    MESSAGE(lost << " of " << images << " images miss what was told");
}
