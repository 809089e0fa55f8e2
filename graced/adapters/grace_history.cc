// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/adapters/grace_history.hh"

#include <csignal>
#include <fcntl.h>
#include <memory>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace grace {
namespace {

// Synced at checkpoints only: what a power cut takes of the last seconds is missed by nobody.
constexpr const char* begin_sql = R"sql(
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS graces (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
    recovery INTEGER NOT NULL, began INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT '', why TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, grace INTEGER NOT NULL,
    time INTEGER NOT NULL, what TEXT NOT NULL, node TEXT NOT NULL, server TEXT NOT NULL,
    detail TEXT NOT NULL, count INTEGER NOT NULL, total INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS events_of_grace ON events (grace);
)sql";

struct closer {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using statement = std::unique_ptr<sqlite3_stmt, closer>;

bool bind(sqlite3_stmt* s, int n, const std::string& v) {
    return sqlite3_bind_text(s, n, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT) ==
           SQLITE_OK;
}
bool bind(sqlite3_stmt* s, int n, std::int64_t v) {
    return sqlite3_bind_int64(s, n, v) == SQLITE_OK;
}
std::int64_t signed_of(std::uint64_t v) {
    return static_cast<std::int64_t>(v);
}

// Prepared, with its parameters; nothing if that fails.
template <typename... Values>
statement prepare(sqlite3* db, const char* sql, const Values&... values) {
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v2(db, sql, -1, &raw, nullptr) != SQLITE_OK)
        return {};
    statement s(raw);
    [[maybe_unused]] int n = 0;
    if (!(bind(raw, ++n, values) && ...))
        return {};
    return s;
}
template <typename... Values>
bool run_sql(sqlite3* db, const char* sql, const Values&... values) {
    const statement s = prepare(db, sql, values...);
    return s && sqlite3_step(s.get()) == SQLITE_DONE;
}

std::string text_of(const statement& s, int n) {
    const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(s.get(), n));
    return p ? std::string(p, static_cast<std::size_t>(sqlite3_column_bytes(s.get(), n)))
             : std::string();
}
std::uint64_t number_of(const statement& s, int n) {
    return static_cast<std::uint64_t>(sqlite3_column_int64(s.get(), n));
}

bool is_end(const std::string& what) {
    return what == "lifted" || what == "followed" || what == "unknown";
}

} // namespace

grace_history::grace_history(std::string path, std::int64_t keep)
    : path_(std::move(path))
    , keep_(keep) {
    // Signals belong to the loop's thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        thread_ = std::thread([this] { run(); });
        pthread_setname_np(thread_.native_handle(), "graced-history");
    } catch (const std::system_error& e) {
        failed_ = true;
        spdlog::warn("no history of graces is kept: {}", e.what());
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

grace_history::~grace_history() {
    {
        const std::lock_guard guard(mutex_);
        ending_ = true;
    }
    work_.notify_one();
    if (thread_.joinable())
        thread_.join();
    sqlite3_close_v2(db_);
}

void grace_history::put(std::vector<grace_event> events) {
    if (events.empty())
        return;
    {
        const std::lock_guard guard(mutex_);
        if (failed_ || queue_.size() + events.size() > max_queued)
            return;
        std::move(events.begin(), events.end(), std::back_inserter(queue_));
    }
    work_.notify_one();
}

void grace_history::run() {
    bool good = open();
    std::unique_lock guard(mutex_);
    while (good) {
        work_.wait(guard, [&] { return ending_ || !queue_.empty(); });
        if (queue_.empty())
            return;
        const std::vector<grace_event> events = std::exchange(queue_, {});
        guard.unlock();
        good = write(events);
        guard.lock();
    }
    failed_ = true;
    queue_.clear();
}

void grace_history::end(const char* doing) {
    spdlog::warn("{} the history of graces {} failed: {}; none is kept until graced starts anew",
                 doing, path_, db_ ? sqlite3_errmsg(db_) : "no memory");
    sqlite3_close_v2(db_);
    db_ = nullptr;
}

bool grace_history::open() {
    for (const bool again : {false, true}) {
        const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
            ::close(fd);
        const int rc = sqlite3_open_v2(path_.c_str(), &db_, SQLITE_OPEN_READWRITE, nullptr);
        sqlite3_busy_timeout(db_, 2000); // gracectl reads it
        if (rc == SQLITE_OK && sqlite3_exec(db_, begin_sql, nullptr, nullptr, nullptr) == SQLITE_OK)
            return true;
        const int code = sqlite3_errcode(db_) & 0xff;
        if (again || (code != SQLITE_CORRUPT && code != SQLITE_NOTADB))
            break;
        sqlite3_close_v2(db_);
        db_ = nullptr;
        for (const char* file : {"", "-wal", "-shm"})
            unlink((path_ + file).c_str());
    }
    end("opening");
    return false;
}

bool grace_history::write(const std::vector<grace_event>& events) {
    bool good = run_sql(db_, "BEGIN IMMEDIATE");
    for (const grace_event& e : events)
        good = good && write_one(e);
    good = good && run_sql(db_, "COMMIT");
    if (!good)
        end("writing");
    return good;
}

bool grace_history::write_one(const grace_event& e) {
    const std::int64_t at = signed_of(e.at.value), recovery = signed_of(e.recovery.value);
    bool good = true;
    if (e.what == "found") {
        // This daemon may be the second one in this grace: its story goes on.
        const statement known =
            prepare(db_,
                    "SELECT id FROM graces WHERE epoch = ?1 AND recovery = ?2 AND outcome = '' "
                    "ORDER BY id DESC LIMIT 1",
                    at, recovery);
        if (!known)
            return false;
        const int rc = sqlite3_step(known.get());
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
            return false;
        grace_ = rc == SQLITE_ROW ? sqlite3_column_int64(known.get(), 0) : 0;
    }
    if (e.what == "began" || grace_ == 0) {
        good = run_sql(db_, "UPDATE graces SET outcome = 'unknown' WHERE outcome = ''") &&
               run_sql(db_, "INSERT INTO graces (epoch, recovery, began, why) VALUES (?, ?, ?, ?)",
                       at, recovery, e.time, e.what == "began" ? e.detail : std::string());
        grace_ = sqlite3_last_insert_rowid(db_);
        const std::int64_t last = grace_ - keep_;
        good = good && run_sql(db_, "DELETE FROM graces WHERE id <= ?", last) &&
               run_sql(db_, "DELETE FROM events WHERE grace <= ?", last);
    }
    good = good &&
           run_sql(db_,
                   "INSERT INTO events (grace, time, what, node, server, detail, count, total) "
                   "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                   grace_, e.time, e.what, e.node, e.server, e.detail, signed_of(e.count),
                   signed_of(e.all));
    if (good && is_end(e.what)) {
        good = run_sql(db_, "UPDATE graces SET ended = ?1, outcome = ?2 WHERE id = ?3", e.time,
                       e.what, grace_);
        grace_ = 0;
    }
    return good;
}

result<std::vector<grace_story>> grace_history::read(const std::string& path, std::size_t limit,
                                                     epoch at) {
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READONLY, nullptr);
    const std::unique_ptr<sqlite3, closer> db(raw);
    const auto broken = [&] {
        return fail("the history of graces " + path +
                    " cannot be read: " + (raw ? sqlite3_errmsg(raw) : "no memory"));
    };
    if (opened != SQLITE_OK)
        return broken();
    sqlite3_busy_timeout(raw, 2000);
    std::vector<grace_story> stories;
    const statement graces =
        prepare(raw,
                "SELECT id, epoch, recovery, began, ended, outcome, why FROM graces "
                "WHERE ?1 = 0 OR epoch = ?1 ORDER BY id DESC LIMIT ?2",
                signed_of(at.value), static_cast<std::int64_t>(limit));
    if (!graces)
        return broken();
    int rc = SQLITE_ROW;
    while ((rc = sqlite3_step(graces.get())) == SQLITE_ROW) {
        grace_story g{epoch{number_of(graces, 1)},
                      epoch{number_of(graces, 2)},
                      sqlite3_column_int64(graces.get(), 3),
                      sqlite3_column_int64(graces.get(), 4),
                      text_of(graces, 5),
                      text_of(graces, 6),
                      {}};
        const statement events = prepare(
            raw,
            "SELECT time, what, node, server, detail, count, total FROM events WHERE grace = ? "
            "ORDER BY id",
            sqlite3_column_int64(graces.get(), 0));
        if (!events)
            return broken();
        while ((rc = sqlite3_step(events.get())) == SQLITE_ROW)
            g.events.push_back({g.at, g.recovery, sqlite3_column_int64(events.get(), 0),
                                text_of(events, 1), text_of(events, 2), text_of(events, 3),
                                text_of(events, 4), number_of(events, 5), number_of(events, 6)});
        if (rc != SQLITE_DONE)
            return broken();
        stories.push_back(std::move(g));
    }
    if (rc != SQLITE_DONE)
        return broken();
    return stories;
}

} // namespace grace
