// SPDX-License-Identifier: GPL-2.0-or-later
// The recovery database: opening and checking, the schema, one statement for each op, the writer.
#include "graced/adapters/sqlite_store.hh"

#include "grace/state.hh"
#include "graced/adapters/client_history.hh"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <ctime>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <sqlite3.h>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sysexits.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace grace {

namespace {

// What one transaction may gather: it bounds the wait of the first batch in it.
constexpr std::size_t max_group_bytes = 8U << 20;
// Somebody else's lock (sqlite3 in a shell, a backup) may hold us up so long; then it is a failure.
constexpr int busy_timeout_ms = 10'000;
constexpr std::chrono::minutes longest_mend_wait{1};
// Room that a database must find before it counts as well again.
constexpr int probe_bytes = 1 << 20;
// Damaged databases that are kept beside the good one.
constexpr int max_set_aside = 8;
// SQLite's virtual machine tells of its progress each so many instructions.
constexpr int progress_steps = 1000;

// Epochs and counts are unsigned 64 bit, SQLite's integers are signed. None that graced can have
// written reaches 2^62 (implausible(), at the load), so that comparisons in SQL are right.
std::int64_t to_column(std::uint64_t v) {
    return static_cast<std::int64_t>(v);
}
std::uint64_t from_column(std::int64_t v) {
    return static_cast<std::uint64_t>(v);
}

// Clients and servers are one clustered table: the primary key keeps a server's records together,
// so that START, renewal and purge of a server each are one statement over one range.
constexpr const char* schema_sql = R"sql(
CREATE TABLE schema_version (version INTEGER NOT NULL, since TEXT NOT NULL) STRICT;
INSERT INTO schema_version VALUES (3, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'));
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE nodes (id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE servers (name TEXT NOT NULL PRIMARY KEY, need INTEGER NOT NULL,
    needed INTEGER NOT NULL, start INTEGER NOT NULL, host INTEGER NOT NULL,
    lost INTEGER NOT NULL, settled INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE records (server TEXT NOT NULL, client BLOB NOT NULL, epoch INTEGER NOT NULL,
    princhash BLOB NOT NULL, PRIMARY KEY (server, client)) STRICT, WITHOUT ROWID;
)sql";

// From each version to the next; never changed once released: tests/unit/data/store has a database
// of each. Version 1 knew of a START only whether it was over; 2 had NFSv4 clients only, by their
// names.
constexpr const char* migrations_sql[] = {R"sql(
ALTER TABLE servers ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE servers ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
UPDATE servers SET settled = start WHERE need = 0;
INSERT INTO schema_version VALUES (2, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'));
PRAGMA user_version = 2;
)sql",
                                          R"sql(
UPDATE records SET client = CAST(x'00' || client AS BLOB) WHERE substr(client, 1, 1) = x'00';
INSERT INTO schema_version VALUES (3, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'));
PRAGMA user_version = 3;
)sql"};
static_assert(std::size(migrations_sql) + 1 == sqlite_store::schema_version);

// The scalar part of stored_meta, one row each. Adding a field here and a default in stored_meta
// needs no new schema version: a row that is missing means the default, save for those of
// version 1.
struct meta_row {
    const char* key;
    bool since_version_1;
    std::uint64_t (*get)(const stored_meta&);
    void (*set)(stored_meta&, std::uint64_t);
};
constexpr meta_row meta_rows[] = {
    {"quorate_view", true, [](const stored_meta& m) { return m.quorate_view; },
     [](stored_meta& m, std::uint64_t v) { m.quorate_view = v; }},
    {"view", false, [](const stored_meta& m) { return m.view; },
     [](stored_meta& m, std::uint64_t v) { m.view = v; }},
    {"history", false, [](const stored_meta& m) { return m.history; },
     [](stored_meta& m, std::uint64_t v) { m.history = v; }},
    {"current", true, [](const stored_meta& m) { return m.current.value; },
     [](stored_meta& m, std::uint64_t v) { m.current = epoch{v}; }},
    {"recovery", true, [](const stored_meta& m) { return m.recovery.value; },
     [](stored_meta& m, std::uint64_t v) { m.recovery = epoch{v}; }},
    {"applied", true, [](const stored_meta& m) { return m.applied.value; },
     [](stored_meta& m, std::uint64_t v) { m.applied = position{v}; }},
    {"starts", true, [](const stored_meta& m) { return m.starts.value; },
     [](stored_meta& m, std::uint64_t v) { m.starts = start_count{v}; }},
    {"lifting", true, [](const stored_meta& m) { return std::uint64_t{m.lifting}; },
     [](stored_meta& m, std::uint64_t v) { m.lifting = v != 0; }},
    {"purged", true, [](const stored_meta& m) { return m.purged.value; },
     [](stored_meta& m, std::uint64_t v) { m.purged = epoch{v}; }},
};

// File systems that other nodes see too. GFS2 first: its locks are what our own gate holds up, so a
// database there deadlocks the daemon with itself. On the others a node's private state would be
// shared with, or lost together with, its neighbours.
struct shared_fs {
    std::uint32_t magic;
    const char* name;
};
constexpr shared_fs shared_filesystems[] = {
    {0x01161970, "GFS2"}, {0x7461636f, "OCFS2"},  {0x6969, "NFS"},        {0xff534d42, "CIFS"},
    {0xfe534d42, "SMB"},  {0x517b, "SMB"},        {0x00c36400, "CephFS"}, {0x0bd00bd0, "Lustre"},
    {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"}, {0x5346414f, "AFS"},    {0x73757245, "Coda"},
};
constexpr std::uint32_t tmpfs_magic = 0x01021994;
constexpr std::uint32_t ramfs_magic = 0x858458f6;

std::string errno_text(int code) {
    return std::generic_category().message(code);
}

class unique_fd {
public:
    unique_fd() = default;
    explicit unique_fd(int fd)
        : fd_(fd) {}
    ~unique_fd() { reset(); }
    unique_fd(unique_fd&& o) noexcept
        : fd_(std::exchange(o.fd_, -1)) {}
    unique_fd& operator=(unique_fd&& o) noexcept {
        if (this != &o) {
            reset();
            fd_ = std::exchange(o.fd_, -1);
        }
        return *this;
    }
    unique_fd(const unique_fd&) = delete;
    unique_fd& operator=(const unique_fd&) = delete;
    [[nodiscard]] int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    void reset() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
        fd_ = -1;
    }
    int fd_ = -1;
};

// SQLite said no. Thrown inside this file only: turned into an error or store_failed at its edge.
struct sqlite_failure {
    int code;     // extended result code
    int sys_code; // errno, 0 if none
    std::string text;
};

[[noreturn]] void raise(sqlite3* db, const char* what) {
    const int code = sqlite3_extended_errcode(db);
    const int sys_code = sqlite3_system_errno(db);
    std::string text = std::string(what) + ": " + sqlite3_errmsg(db);
    if (sys_code != 0 && (code & 0xff) == SQLITE_IOERR) {
        text += " (" + errno_text(sys_code) + ")";
    }
    throw sqlite_failure{code, sys_code, std::move(text)};
}

void exec(sqlite3* db, const char* sql, const char* what) {
    if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
        raise(db, what);
    }
}

// One prepared statement; run() leaves it ready for the next use.
class statement {
public:
    statement(sqlite3* db, const char* sql)
        : db_(db)
        , sql_(sql) {
        if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt_, nullptr) !=
            SQLITE_OK) {
            raise(db, sql);
        }
    }
    ~statement() { sqlite3_finalize(stmt_); }
    statement(const statement&) = delete;
    statement& operator=(const statement&) = delete;

    statement& bind(int i, std::uint64_t v) {
        return check(sqlite3_bind_int64(stmt_, i, to_column(v)));
    }
    statement& text(int i, std::string_view v) {
        return check(sqlite3_bind_text64(stmt_, i, v.data(), v.size(), SQLITE_STATIC, SQLITE_UTF8));
    }
    statement& blob(int i, std::string_view v) {
        // Never a null pointer: that would bind NULL, and princhash is NOT NULL.
        return check(
            sqlite3_bind_blob64(stmt_, i, v.empty() ? "" : v.data(), v.size(), SQLITE_STATIC));
    }
    void run() {
        while (step()) {
        }
    }
    // The next row; false at the end, and then ready for the next use.
    bool step() {
        const int rc = sqlite3_step(stmt_);
        if (rc == SQLITE_ROW) {
            return true;
        }
        if (rc != SQLITE_DONE) {
            // Not raise() after the reset: that would overwrite the error.
            const sqlite_failure failure = capture();
            sqlite3_reset(stmt_);
            throw failure;
        }
        sqlite3_reset(stmt_);
        return false;
    }
    [[nodiscard]] std::int64_t column_int(int i) const { return sqlite3_column_int64(stmt_, i); }
    [[nodiscard]] std::uint64_t column(int i) const { return from_column(column_int(i)); }
    [[nodiscard]] std::string column_bytes(int i) const {
        const void* p = sqlite3_column_blob(stmt_, i); // before _bytes: SQLite's order
        const auto n = static_cast<std::size_t>(sqlite3_column_bytes(stmt_, i));
        return p == nullptr ? std::string{} : std::string(static_cast<const char*>(p), n);
    }

private:
    statement& check(int rc) {
        if (rc != SQLITE_OK) {
            raise(db_, sql_);
        }
        return *this;
    }
    sqlite_failure capture() const {
        try {
            raise(db_, "SQLite");
        } catch (sqlite_failure& f) {
            return std::move(f);
        }
    }
    sqlite3* db_;
    const char* sql_;
    sqlite3_stmt* stmt_ = nullptr;
};

struct db_closer {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using db_handle = std::unique_ptr<sqlite3, db_closer>;

// Keys of mounts begin so (grace/record_key.hh); they are part of no grace.
#define CLIENTS_ONLY " AND NOT (client >= x'006d' AND client < x'006e')"

// The statements that write, and what of the meta is on disk already: a batch in normal running
// changes one or two of its rows, and 1024 servers must not be rewritten for each new client.
class writer {
public:
    writer(sqlite3* db, stored_meta on_disk)
        : db_(db)
        , written_(std::move(on_disk))
        , put_record_(db, "INSERT INTO records VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET "
                          "epoch = excluded.epoch, princhash = excluded.princhash")
        , remove_record_(db, "DELETE FROM records WHERE server = ?1 AND client = ?2")
        , lower_(db, "UPDATE records SET epoch = ?2 WHERE server = ?1 AND epoch > ?2" CLIENTS_ONLY)
        , renew_(db, "UPDATE records SET epoch = ?2 WHERE server = ?1 AND epoch <> ?2" CLIENTS_ONLY)
        , purge_(db, "DELETE FROM records WHERE server = ?1 AND epoch <= ?2" CLIENTS_ONLY)
        , clear_(db, "DELETE FROM records")
        , put_meta_(db, "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = "
                        "excluded.value")
        , put_server_(db, "INSERT OR REPLACE INTO servers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
        , remove_server_(db, "DELETE FROM servers WHERE name = ?1")
        , put_node_(db, "INSERT OR REPLACE INTO nodes VALUES (?1, ?2)")
        , remove_node_(db, "DELETE FROM nodes WHERE id = ?1")
        , epoch_of_(db, "SELECT epoch FROM records WHERE server = ?1 AND client = ?2")
        , to_purge_(db, "SELECT client FROM records WHERE server = ?1 AND epoch <= ?2" CLIENTS_ONLY
                        " LIMIT ?3") {}

    // One transaction: all of it, or a throw and nothing of it. What became of clients by it.
    std::vector<history_event> commit(const std::vector<const store_batch*>& batches) {
        events_.clear();
        exec(db_, "BEGIN IMMEDIATE", "starting a transaction");
        stored_meta written = written_;
        try {
            for (const store_batch* batch : batches) {
                for (const store_operation& op : *batch) {
                    std::visit([&](const auto& o) { apply(o, written); }, op);
                }
            }
            exec(db_, "COMMIT", "committing");
        } catch (...) {
            // If COMMIT itself failed there may be no transaction any more; both are fine.
            sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
            throw;
        }
        written_ = std::move(written);
        return std::move(events_);
    }

private:
    // People ask by a client's name: a host of NFSv3 and an NFSv4 client of the same name share it.
    void note(const char* what, std::string server, std::string_view key, epoch at) {
        events_.push_back(
            {what, std::move(server), std::string(client_in(key)), at, time(nullptr)});
    }
    void apply(const store_op::put_record& o, stored_meta& written) {
        if (kind_of(o.client) == record_kind::mount) {
            return put(o.server, o.client, o.rec);
        }
        const auto before = epoch_of(o.server, o.client);
        put(o.server, o.client, o.rec);
        const auto v = written.servers.find(o.server);
        if (!before) {
            note("recorded", o.server, o.client, o.rec.at);
        } else if (written.recovery && v != written.servers.end() && v->second.need &&
                   *before <= written.recovery) {
            note("reclaimed", o.server, o.client, o.rec.at);
        } else {
            note("returned", o.server, o.client, o.rec.at);
        }
    }
    void apply(const store_op::remove_record& o, stored_meta&) {
        const auto before = epoch_of(o.server, o.client);
        if (before && kind_of(o.client) != record_kind::mount) {
            note("left", o.server, o.client, *before);
        }
        remove_record_.text(1, o.server).blob(2, o.client).run();
    }
    void apply(const store_op::lower& o, stored_meta&) {
        lower_.text(1, o.server).bind(2, o.limit.value).run();
    }
    void apply(const store_op::renew& o, stored_meta&) {
        renew_.text(1, o.server).bind(2, o.at.value).run();
    }
    void apply(const store_op::purge& o, stored_meta&) {
        std::size_t named = 0;
        to_purge_.text(1, o.server).bind(2, o.limit.value).bind(3, client_history::max_named + 1);
        while (to_purge_.step()) {
            const bool more = ++named > client_history::max_named;
            note("purged", o.server, more ? "" : to_purge_.column_bytes(0), o.limit);
        }
        purge_.text(1, o.server).bind(2, o.limit.value).run();
    }
    void apply(const store_op::replace_all& o, stored_meta& written) {
        if (has_missed(o)) {
            note("joined", "", "", written.current);
        }
        clear_.run();
        for (const auto* all : {&o.records, &o.mounts}) {
            for (const auto& [server, clients] : *all) {
                for (const auto& [client, rec] : clients) {
                    put(server, client, rec);
                }
            }
        }
    }
    void apply(const store_op::put_meta& o, stored_meta& written) {
        for (const meta_row& row : meta_rows) {
            if (row.get(o.meta) != row.get(written)) {
                put_meta_.text(1, row.key).bind(2, row.get(o.meta)).run();
            }
        }
        difference(
            written.servers, o.meta.servers,
            [&](const std::string& name, const stored_server& s) {
                put_server_.text(1, name).bind(2, s.need).bind(3, s.needed).bind(4, s.start.value);
                put_server_.bind(5, s.host.value)
                    .bind(6, s.lost.value)
                    .bind(7, s.settled.value)
                    .run();
            },
            [&](const std::string& name) { remove_server_.text(1, name).run(); });
        difference(
            written.nodes, o.meta.nodes,
            [&](node_id id, const std::string& name) {
                put_node_.bind(1, id.value).text(2, name).run();
            },
            [&](node_id id) { remove_node_.bind(1, id.value).run(); });
        written = o.meta;
    }
    template <typename Map, typename Put, typename Remove>
    static void difference(const Map& old, const Map& wanted, Put put, Remove remove) {
        for (const auto& [key, value] : old) {
            if (!wanted.contains(key)) {
                remove(key);
            }
        }
        for (const auto& [key, value] : wanted) {
            const auto was = old.find(key);
            if (was == old.end() || !(was->second == value)) {
                put(key, value);
            }
        }
    }
    void put(const std::string& server, const std::string& client, const record& rec) {
        put_record_.text(1, server)
            .blob(2, client)
            .bind(3, rec.at.value)
            .blob(4, rec.princhash)
            .run();
    }

    // Whether clients came or went, or were recorded anew, while this node did not hear of it.
    bool has_missed(const store_op::replace_all& o) {
        statement here(db_, "SELECT server, client, epoch FROM records WHERE 1" CLIENTS_ONLY
                            " ORDER BY server, client");
        for (const auto& [server, clients] : o.records) {
            for (const auto& [client, rec] : clients) {
                if (!here.step() || here.column_bytes(0) != server ||
                    here.column_bytes(1) != client || here.column(2) < rec.at.value) {
                    return true;
                }
            }
        }
        return here.step();
    }
    std::optional<epoch> epoch_of(const std::string& server, const std::string& client) {
        std::optional<epoch> found;
        epoch_of_.text(1, server).blob(2, client);
        while (epoch_of_.step()) {
            found = epoch{epoch_of_.column(0)};
        }
        return found;
    }

    sqlite3* db_;
    stored_meta written_;
    std::vector<history_event> events_;
    statement put_record_, remove_record_, lower_, renew_, purge_, clear_, put_meta_, put_server_,
        remove_server_, put_node_, remove_node_, epoch_of_, to_purge_;
};

std::size_t weight(const store_operation& op) {
    struct {
        std::size_t operator()(const store_op::put_record& o) const {
            return o.server.size() + o.client.size() + o.rec.princhash.size();
        }
        std::size_t operator()(const store_op::remove_record& o) const {
            return o.server.size() + o.client.size();
        }
        std::size_t operator()(const store_op::lower& o) const { return o.server.size(); }
        std::size_t operator()(const store_op::renew& o) const { return o.server.size(); }
        std::size_t operator()(const store_op::purge& o) const { return o.server.size(); }
        std::size_t operator()(const store_op::replace_all& o) const {
            std::size_t n = 0;
            for (const auto* all : {&o.records, &o.mounts}) {
                for (const auto& [server, clients] : *all) {
                    n += server.size() + clients.weight();
                }
            }
            return n;
        }
        std::size_t operator()(const store_op::put_meta& o) const {
            return 128 + o.meta.servers.size() * 128 + o.meta.nodes.size() * 64;
        }
    } of;
    return 64 + std::visit(of, op);
}

} // namespace

struct sqlite_store::impl {
    store_options options;
    unique_fd lock;
    db_handle db;
    std::optional<writer> out; // used by the thread only, once it runs
    client_history history;    // likewise

    qb_loop_t* loop = nullptr;
    sink to_engine;
    unique_fd wake;
    std::thread thread;

    struct queued_batch {
        store_batch batch;
        position at;
        std::size_t bytes;
    };
    mutable std::mutex mutex; // guards all that follows
    std::condition_variable work;
    std::deque<queued_batch> queue;
    std::size_t queued_bytes = 0;
    bool ending = false;
    bool failed = false;       // nothing is written, until store_opened was said
    bool failure_told = false; // by the loop's thread
    bool mended = false;       // by the writer's; not told yet
    bool writing = false;
    std::size_t writing_bytes = 0;
    std::string why, note; // why it failed; what mending it took
    // Not yet told to the engine: a later position covers an earlier one. There is more than one
    // only if positions went back, as those of a node do that threw its state away for a snapshot.
    std::vector<position> done;
    statistics counts;
    qb_loop_timer_handle watch = 0;
    // When the writer last got anywhere, steady clock; it is asked for while it writes.
    std::atomic<std::int64_t> progress{0};

    ~impl() {
        if (thread.joinable()) {
            {
                const std::lock_guard guard(mutex);
                ending = true;
            }
            work.notify_all();
            thread.join();
        }
        if (loop != nullptr && wake) {
            qb_loop_poll_del(loop, wake.get());
            qb_loop_timer_del(loop, watch);
        }
        out.reset(); // its statements, before the database that they belong to
        db.reset();
    }

    void signal() const {
        if (!wake) {
            return; // start() does
        }
        const std::uint64_t one = 1;
        // EAGAIN: the counter is full, so the loop has a wake-up pending anyway.
        [[maybe_unused]] const ssize_t n = ::write(wake.get(), &one, sizeof one);
    }

    static std::int64_t steady_now() {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }
    static int made_progress(void* p) {
        static_cast<impl*>(p)->progress.store(steady_now(), std::memory_order_relaxed);
        return 0; // go on
    }

    void fail_locked(std::string text) {
        if (!failed) {
            failed = true;
            failure_told = mended = false;
            why = std::move(text);
            ++counts.failures;
        }
        queue.clear();
        queued_bytes = 0;
        signal();
    }

    void run() {
        std::unique_lock guard(mutex);
        for (;;) {
            work.wait(guard, [&] { return ending || failed || !queue.empty(); });
            if (failed) {
                if (!mend(guard)) {
                    return;
                }
                continue;
            }
            if (queue.empty()) {
                return; // ending, and all is written
            }
            write_group(guard);
        }
    }

    // What has gathered becomes one transaction.
    void write_group(std::unique_lock<std::mutex>& guard) {
        std::vector<queued_batch> group;
        std::size_t gathered = 0;
        while (!queue.empty() && (group.empty() || gathered < max_group_bytes)) {
            gathered += queue.front().bytes;
            group.push_back(std::move(queue.front()));
            queue.pop_front();
        }
        // Still counted in queued_bytes: they hold memory until they are written.
        progress = steady_now();
        writing = true;
        writing_bytes = gathered;
        guard.unlock();
        const std::int64_t began = steady_now();
        std::string error;
        std::vector<history_event> events;
        try {
            std::vector<const store_batch*> batches;
            std::transform(group.begin(), group.end(), std::back_inserter(batches),
                           [](const queued_batch& b) { return &b.batch; });
            events = out->commit(batches);
        } catch (const sqlite_failure& f) {
            error = describe(f);
        } catch (const std::exception& e) {
            error = "writing the recovery database " + options.path + ": " + e.what();
        }
        const std::int64_t ended = steady_now();
        guard.lock();
        writing = false;
        if (!error.empty()) {
            return fail_locked(std::move(error));
        }
        if (failed) {
            return; // it overflowed or stood still meanwhile: nothing may be called durable then
        }
        counts.batches += group.size();
        ++counts.transactions;
        const double took = static_cast<double>(ended - began) / 1e9;
        counts.commit_seconds += took;
        ++counts.commits[static_cast<std::size_t>(
            std::ranges::lower_bound(statistics::limits, took) - statistics::limits.begin())];
        for (const queued_batch& b : group) {
            queued_bytes -= std::min(queued_bytes, b.bytes);
            if (!done.empty() && done.back() <= b.at) {
                done.back() = b.at;
            } else {
                done.push_back(b.at);
            }
        }
        signal();
        if (events.empty()) {
            return;
        }
        // Behind the news of what is durable. Its disk may stand still, too: the watch goes on.
        progress = steady_now();
        writing = true;
        writing_bytes = 0;
        guard.unlock();
        history.write(events);
        guard.lock();
        writing = false;
    }

    // Until the database can be opened and written again; false: the end came first.
    bool mend(std::unique_lock<std::mutex>& guard) {
        auto wait = options.mend_after;
        while (!mended) {
            if (work.wait_for(guard, wait, [&] { return ending; })) {
                return false;
            }
            wait = std::min<std::chrono::milliseconds>(wait * 2, longest_mend_wait);
            guard.unlock();
            std::string trouble = open_anew();
            guard.lock();
            if (trouble.empty()) {
                mended = true;
                signal();
            } else {
                why = std::move(trouble);
            }
        }
        // The loop's thread clears `failed` when it says so. Were it cleared here, a batch that the
        // engine gives us before it knows of the failure would become durable without those lost.
        work.wait(guard, [&] { return ending || !failed; });
        return !failed;
    }
    std::string open_anew();
    void watch_progress() {
        sqlite3_progress_handler(db.get(), progress_steps, made_progress, this);
    }

    // From the loop: a write that hangs in the kernel comes back from there by itself or never.
    void look_for_stall() {
        const std::lock_guard guard(mutex);
        if (!writing || failed) {
            return;
        }
        const auto stood =
            std::chrono::nanoseconds(steady_now() - progress.load(std::memory_order_relaxed));
        // The end of a large commit tells of no progress: it syncs the log, and moves it into the
        // database. A disk that does a mebibyte a second is slow, not still.
        const auto allowed = options.stall_timeout + std::chrono::seconds(writing_bytes >> 20);
        if (stood >= allowed) {
            fail_locked(
                "the recovery database " + options.path +
                " cannot be written: its disk has "
                "stood still for " +
                std::to_string(std::chrono::duration_cast<std::chrono::seconds>(stood).count()) +
                " s ([store] stall_timeout)");
        }
    }
    void arm_watch() {
        const auto each =
            std::chrono::duration_cast<std::chrono::nanoseconds>(options.stall_timeout) / 8;
        qb_loop_timer_add(
            loop, QB_LOOP_HIGH, static_cast<std::uint64_t>(each.count()), this,
            [](void* data) {
                auto* self = static_cast<impl*>(data);
                self->look_for_stall();
                self->arm_watch();
            },
            &watch);
    }

    // For a person: what is wrong with the disk and what to do.
    [[nodiscard]] std::string describe(const sqlite_failure& f) const {
        std::string text =
            "the recovery database " + options.path + " cannot be written: " + f.text;
        switch (f.code & 0xff) {
        case SQLITE_FULL:
            text += "; make room on its file system";
            break;
        case SQLITE_BUSY:
            text += "; another program (a shell, a backup) keeps it locked: end that";
            break;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            text += "; check the disk";
            break;
        default:
            text += "; check the disk and its file system";
            break;
        }
        return text;
    }

    void on_wake() {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t n = ::read(wake.get(), &count, sizeof count);
        std::vector<position> reached;
        std::optional<std::string> broken;
        std::optional<std::string> well;
        {
            const std::lock_guard guard(mutex);
            reached.swap(done);
            if (failed && !failure_told) {
                failure_told = true;
                broken = why;
            }
            if (mended) {
                mended = failed = false;
                why.clear();
                well = std::exchange(note, {});
            }
        }
        if (well) {
            work.notify_all();
        }
        // The sink may commit the next batch, so the lock is not held here.
        for (const position at : reached) {
            to_engine(input::durable{at});
        }
        if (broken) {
            to_engine(input::store_failed{*broken});
        }
        if (well) {
            to_engine(input::store_opened{*well});
        }
    }
};

namespace {

struct location {
    std::string directory;
    std::string file;
};

location split(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) {
        return {".", path};
    }
    return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// The directory that the database is to stand in: there, local, writable.
result<void> check_directory(const location& where, std::uint32_t pretend_magic,
                             std::vector<std::string>& warnings) {
    const std::string& dir = where.directory;
    struct stat st {};
    if (::stat(dir.c_str(), &st) != 0) {
        const int code = errno;
        std::string what = "the recovery database's directory " + dir;
        if (code == ENOENT) {
            return fail(what + " does not exist: create it (mkdir -m 0700 " + dir +
                            "), or set [store] path",
                        code);
        }
        return fail(what + " cannot be used: " + errno_text(code), code);
    }
    if (!S_ISDIR(st.st_mode)) {
        return fail("the recovery database's directory " + dir +
                        " is not a directory: set [store] path",
                    ENOTDIR);
    }
    struct statfs fs {};
    if (::statfs(dir.c_str(), &fs) == 0) {
        const auto magic =
            pretend_magic != 0 ? pretend_magic : static_cast<std::uint32_t>(fs.f_type);
        for (const shared_fs& shared : shared_filesystems) {
            if (magic != shared.magic) {
                continue;
            }
            std::string why = magic == 0x01161970
                                  ? "there graced would wait for the very locks that its own gate "
                                    "holds back"
                                  : "each node needs a database of its own that does not depend on "
                                    "other nodes";
            return fail("the recovery database's directory " + dir + " is on " + shared.name +
                            ": " + why + ". Set [store] path to a local disk",
                        EOPNOTSUPP);
        }
        if (magic == tmpfs_magic || magic == ramfs_magic) {
            warnings.push_back(
                "the recovery database's directory " + dir +
                " is in memory: the records of all clients are lost with a restart of "
                "the node. Set [store] path to a local disk");
        }
    }
    // access() says what the kernel would do, read-only mounts included; root passes modes by.
    if (::access(dir.c_str(), R_OK | W_OK | X_OK) != 0) {
        const int code = errno;
        return fail("the recovery database's directory " + dir +
                        " is not writable: " + errno_text(code) +
                        (code == EROFS ? "; remount it, or set [store] path elsewhere"
                                       : "; run graced as root, or change the directory's owner"),
                    code);
    }
    return {};
}

// The lock is on a file of its own: SQLite's locks on the database are per process and vanish when
// any descriptor of it is closed, and an administrator may look into the database while we run.
result<unique_fd> take_lock(const std::string& path) {
    const std::string name = path + ".lock";
    unique_fd fd(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
        const int code = errno;
        return fail("the recovery database's lock file " + name +
                        " cannot be opened: " + errno_text(code),
                    code);
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        const int code = errno;
        if (code != EWOULDBLOCK) {
            return fail("the recovery database's lock file " + name +
                            " cannot be locked: " + errno_text(code),
                        code);
        }
        char pid[32] = {};
        const ssize_t n = ::pread(fd.get(), pid, sizeof pid - 1, 0);
        std::string who = n > 0 ? std::string(pid, static_cast<std::size_t>(n)) : "";
        who.erase(std::remove(who.begin(), who.end(), '\n'), who.end());
        return fail("another graced (pid " + (who.empty() ? "unknown" : who) +
                        ") uses the recovery database " + path +
                        ": stop it, or set another [store] path",
                    EBUSY);
    }
    const std::string me = std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), me.data(), me.size(), 0) != static_cast<ssize_t>(me.size())) {
        const int code = errno;
        return fail("the recovery database's lock file " + name + " cannot be written: " +
                        errno_text(code) + "; make room on its file system",
                    code != 0 ? code : EIO);
    }
    return fd;
}

// What to do with a file that cannot be used is for a person to decide: this node's records may be
// the only ones (a cluster that starts cold). With other members up, nothing is lost by moving it.
std::string advice(const std::string& path) {
    return "Nothing was changed. If other nodes of the cluster run graced with their records, move "
           "it "
           "away (mv " +
           path + " " + path + ".corrupt; also " + path +
           "-wal) and start graced: it gets the state "
           "from them. If this is the only copy, restore a backup, or try `sqlite3 " +
           path + " .recover`; without the records clients lose their locks";
}

error describe_open(const std::string& path, const sqlite_failure& f) {
    switch (f.code & 0xff) {
    case SQLITE_NOTADB:
        return {"the recovery database " + path + " is damaged: it is not a database: " + f.text,
                EUCLEAN};
    case SQLITE_CORRUPT:
        return {"the recovery database " + path + " is damaged: " + f.text, EUCLEAN};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return {
            "the recovery database " + path +
                " is locked by another program (a shell, a backup): end that, then start graced",
            EBUSY};
    case SQLITE_FULL:
        return {"no room for the recovery database " + path + ": " + f.text +
                    ". Make room on its file system, then start graced",
                ENOSPC};
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return {"the recovery database " + path + " is not writable: " + f.text +
                    ". Check the owner and the mode of the file and of its directory",
                EACCES};
    case SQLITE_CANTOPEN:
        return {"the recovery database " + path + " cannot be opened: " + f.text +
                    (f.sys_code != 0 ? " (" + errno_text(f.sys_code) + ")" : ""),
                f.sys_code != 0 ? f.sys_code : EACCES};
    default:
        return {"the recovery database " + path + " cannot be read: " + f.text +
                    ". Check the disk and its file system",
                EIO};
    }
}

std::int64_t pragma_int(sqlite3* db, const char* sql) {
    statement s(db, sql);
    const std::int64_t value = s.step() ? s.column_int(0) : 0;
    return value;
}

std::string pragma_text(sqlite3* db, const char* sql) {
    statement s(db, sql);
    std::string text;
    while (s.step()) {
        text += (text.empty() ? "" : "; ") + s.column_bytes(0);
    }
    return text;
}

tl::unexpected<error> damaged(const std::string& path, const std::string& what) {
    return fail("the recovery database " + path + " is damaged: " + what, EUCLEAN);
}

// All but the records. A value that graced cannot have written is damage, as a bad page is.
result<stored_meta> load_meta(sqlite3* db, const std::string& path) {
    stored_meta meta;
    std::map<std::string, std::uint64_t> values;
    for (statement s(db, "SELECT key, value FROM meta"); s.step();) {
        values[s.column_bytes(0)] = s.column(1);
    }
    for (const meta_row& row : meta_rows) {
        const auto found = values.find(row.key);
        if (found != values.end()) {
            row.set(meta, found->second);
        } else if (row.since_version_1) {
            return damaged(path, "table meta has no row '" + std::string(row.key) + "'");
        }
    }
    for (statement s(db, "SELECT id, name FROM nodes"); s.step();) {
        const std::int64_t id = s.column_int(0);
        if (id <= 0 || id > UINT32_MAX) {
            return damaged(path, "table nodes has the id " + std::to_string(id));
        }
        meta.nodes[node_id{static_cast<std::uint32_t>(id)}] = s.column_bytes(1);
    }
    for (statement s(db, "SELECT name, need, needed, start, host, lost, settled FROM servers");
         s.step();) {
        const std::string name = s.column_bytes(0);
        const std::int64_t host = s.column_int(4);
        if (name.empty() || name.size() > max_server_name || host < 0 || host > UINT32_MAX) {
            return damaged(path, "table servers has a row that graced cannot have written ('" +
                                     name + "')");
        }
        meta.servers[name] = {s.column_int(1) != 0,     s.column_int(2) != 0,
                              start_count{s.column(3)}, start_count{s.column(5)},
                              start_count{s.column(6)}, node_id{static_cast<std::uint32_t>(host)}};
    }
    if (const std::string why = implausible(meta); !why.empty()) {
        return damaged(path, why);
    }
    return meta;
}

result<stored_state> load(sqlite3* db, const std::string& path) {
    stored_state state;
    auto meta = load_meta(db, path);
    if (!meta) {
        return tl::unexpected(meta.error());
    }
    state.meta = std::move(*meta);
    for (statement s(db, "SELECT server, client, epoch, princhash FROM records"); s.step();) {
        std::string server = s.column_bytes(0);
        std::string client = s.column_bytes(1);
        record rec{epoch{s.column(2)}, s.column_bytes(3)};
        if (server.empty() || server.size() > max_server_name || client.empty() ||
            client.size() > max_record_key || rec.princhash.size() > max_princhash ||
            rec.at > state.meta.current) {
            return damaged(path,
                           "table records has a row that graced cannot have written (server '" +
                               server + "', epoch " + std::to_string(rec.at.value) + ")");
        }
        map_of(state, server, client).put(client, rec);
    }
    return state;
}

// All of it or nothing.
template <typename F>
void transaction(sqlite3* db, const char* what, F body) {
    exec(db, "BEGIN IMMEDIATE", what);
    try {
        body();
        exec(db, "COMMIT", what);
    } catch (...) {
        sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
        throw;
    }
}

void migrate(sqlite3* db, std::int64_t from) {
    transaction(db, "migrating the tables", [&] {
        for (auto v = static_cast<std::size_t>(from); v < sqlite_store::schema_version; ++v)
            exec(db, migrations_sql[v - 1], "migrating the tables");
    });
}

void create_schema(sqlite3* db) {
    transaction(db, "creating the tables", [&] {
        exec(db, schema_sql, "creating the tables");
        const stored_meta defaults;
        {
            statement put(db, "INSERT INTO meta VALUES (?1, ?2)");
            for (const meta_row& row : meta_rows) {
                put.text(1, row.key).bind(2, row.get(defaults)).run();
            }
        }
        // In the file's header, in the same transaction: half a creation is none.
        const std::string header =
            "PRAGMA application_id = " + std::to_string(sqlite_store::application_id) +
            "; PRAGMA user_version = " + std::to_string(sqlite_store::schema_version);
        exec(db, header.c_str(), "marking the database");
    });
}

// The names of a new database have to survive a power cut too. SQLite syncs the directory for the
// log; this covers the database itself and the lock.
void sync_directory(const std::string& directory) {
    const unique_fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd && ::fsync(fd.get()) != 0) {
        const int code = errno;
        throw sqlite_failure{SQLITE_IOERR, code,
                             "syncing the directory " + directory + ": " + errno_text(code)};
    }
}

// --- migrations ---

// A copy first: whoever has to go back to the older graced finds what that left.
result<void> back_up(sqlite3* db, const std::string& copy) {
    const std::string unfinished = copy + ".new";
    ::unlink(unfinished.c_str());
    const mode_t old_mask = ::umask(0077);
    {
        statement vacuum(db, "VACUUM INTO ?1");
        vacuum.text(1, unfinished);
        try {
            vacuum.run();
        } catch (...) {
            ::umask(old_mask);
            ::unlink(unfinished.c_str());
            throw;
        }
    }
    ::umask(old_mask);
    const unique_fd fd(::open(unfinished.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0 || ::rename(unfinished.c_str(), copy.c_str()) != 0) {
        const int code = errno;
        return fail("the copy " + copy +
                        " of the recovery database cannot be written: " + errno_text(code),
                    EIO);
    }
    sync_directory(split(copy).directory);
    return {};
}

result<void> change_schema(sqlite3* db, const std::string& path, std::int64_t from,
                           std::vector<std::string>& warnings) {
    const std::string copy = path + ".schema-" + std::to_string(from);
    if (auto ok = back_up(db, copy); !ok) {
        return ok;
    }
    migrate(db, from);
    warnings.push_back(
        "the recovery database " + path +
        " was made by an older graced: changed from schema version " + std::to_string(from) +
        " to " + std::to_string(sqlite_store::schema_version) + "; what it was is kept as " + copy);
    return {};
}

// --- opening ---

struct connection {
    db_handle db;
    bool created = false;
    // It can be read, and not written now. At start that is told like a failure later: a daemon
    // that ended instead could not say in `gracectl status` what is wrong.
    std::string trouble;
};

std::string date_for_names() {
    const std::time_t now = std::time(nullptr);
    std::tm t{};
    ::gmtime_r(&now, &t);
    char text[32] = {};
    std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &t);
    return text;
}

// The log may be in the page cache only: a sync of it failed, the kernel dropped the dirty pages
// and shows them as if they were written (Linux). Bad scenarios: it is continued, and a power cut
// takes the part in the middle and all commits behind it; or it is moved into the database, and a
// power cut in the midst of that leaves a torn database and no log to mend it with. Written once
// more, with the bytes that it has, it is dirty again, and a sync means what it says.
void sync_log_anew(const std::string& log) {
    const auto trouble = [&](const char* what) {
        const int code = errno;
        throw sqlite_failure{code == ENOSPC ? SQLITE_FULL : SQLITE_IOERR, code,
                             std::string(what) + " its log " + log + ": " + errno_text(code)};
    };
    const unique_fd fd(::open(log.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) {
        if (errno == ENOENT) {
            return;
        }
        trouble("opening");
    }
    std::vector<char> part(1U << 20);
    off_t at = 0;
    while (true) {
        const ssize_t n = ::pread(fd.get(), part.data(), part.size(), at);
        if (n < 0) {
            trouble("reading");
        }
        if (n == 0) {
            break;
        }
        for (ssize_t done = 0; done < n;) {
            const ssize_t m = ::pwrite(fd.get(), part.data() + done,
                                       static_cast<std::size_t>(n - done), at + done);
            if (m < 0) {
                trouble("writing");
            }
            done += m;
        }
        at += n;
    }
    if (::fsync(fd.get()) != 0) {
        trouble("syncing");
    }
}

// Opens or creates, and checks. Throws sqlite_failure.
result<connection> connect(const store_options& options, std::vector<std::string>& warnings) {
    const std::string& path = options.path;
    connection c;
    struct stat st {};
    const bool there = ::lstat(path.c_str(), &st) == 0;
    try {
        sync_log_anew(path + "-wal");
    } catch (const sqlite_failure& f) {
        c.trouble = describe_open(path, f).message;
    }
    sqlite3* raw = nullptr;
    // NOMUTEX: first the loop's thread, then only the writer's. 0600 by umask: principals' hashes.
    const mode_t old_mask = ::umask(0077);
    const int rc = sqlite3_open_v2(path.c_str(), &raw,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                       SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
                                   nullptr);
    ::umask(old_mask);
    c.db.reset(raw);
    if (raw == nullptr) {
        return fail("no memory to open the recovery database " + path, ENOMEM);
    }
    if (rc != SQLITE_OK) {
        raise(raw, "opening it");
    }
    sqlite3_extended_result_codes(raw, 1);
    sqlite3_busy_timeout(raw, busy_timeout_ms);

    // The first read: fails here if it is no database.
    const std::int64_t id = pragma_int(raw, "PRAGMA application_id");
    const std::int64_t version = pragma_int(raw, "PRAGMA user_version");
    c.created = pragma_int(raw, "SELECT count(*) FROM sqlite_schema") == 0;
    if (!c.created && id != sqlite_store::application_id) {
        return fail("the recovery database " + path +
                        " was made by another program (application id " + std::to_string(id) +
                        "): set [store] path to another file. Nothing was changed",
                    EPROTO);
    }
    if (!c.created && version > sqlite_store::schema_version) {
        return fail("the recovery database " + path + " has schema version " +
                        std::to_string(version) + ", this graced knows " +
                        std::to_string(sqlite_store::schema_version) +
                        ": it was used by a newer graced. Install that again (or, if other nodes "
                        "hold the records, move the file away). Nothing was changed",
                    EPROTO);
    }
    if (!c.created && version < 1) {
        return damaged(path, "it has schema version " + std::to_string(version) +
                                 ", which never existed");
    }
    if (!c.created) {
        std::string verdict = pragma_text(raw, "PRAGMA quick_check(5)");
        if (verdict != "ok") {
            std::replace(verdict.begin(), verdict.end(), '\n', ' ');
            return damaged(path, verdict);
        }
    }
    const std::string mode = pragma_text(raw, "PRAGMA journal_mode = WAL");
    if (mode != "wal") {
        return fail("the recovery database " + path + " cannot use a write-ahead log (" + mode +
                        "): its file system lacks shared memory maps. Set [store] path to a "
                        "local disk",
                    EOPNOTSUPP);
    }
    exec(raw, "PRAGMA synchronous = FULL", "setting synchronous");
    // After a checkpoint the log starts anew; what a burst made of it is given back.
    exec(raw, "PRAGMA journal_size_limit = 16777216", "setting the log's size");
    exec(raw, "PRAGMA cell_size_check = ON", "setting cell_size_check");
    if (options.max_pages != 0) {
        exec(raw, ("PRAGMA max_page_count = " + std::to_string(options.max_pages)).c_str(),
             "setting the largest size");
    }
    if (c.created) {
        if (there) {
            // A crash while it was created looks like this; so does a file that was truncated.
            warnings.push_back("the recovery database " + path +
                               " was there, but empty: it is taken for a new one");
        }
        create_schema(raw);
        sync_directory(split(path).directory);
    } else if (version < sqlite_store::schema_version) {
        if (!c.trouble.empty()) {
            return fail(c.trouble, EIO);
        }
        if (auto ok = change_schema(raw, path, version, warnings); !ok) {
            return tl::unexpected(ok.error());
        }
    }
    return c;
}

// A damaged database gets out of the way, with its log, which is of no use to another one.
result<void> set_aside(const std::string& path, const error& why,
                       std::vector<std::string>& warnings) {
    const location where = split(path);
    int kept = 0;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(where.directory, ignored)) {
        const std::string name = entry.path().filename();
        kept += name.starts_with(where.file + ".damaged-") && !name.ends_with("-wal");
    }
    if (kept >= max_set_aside) {
        return fail(why.message + ". There are " + std::to_string(kept) +
                        " damaged ones beside it already (" + path +
                        ".damaged-*): check the disk, remove them, then start graced",
                    EUCLEAN);
    }
    std::string aside = path + ".damaged-" + date_for_names();
    for (int n = 2; std::filesystem::exists(aside, ignored); ++n) {
        aside = path + ".damaged-" + date_for_names() + "." + std::to_string(n);
    }
    // The log first. Bad scenario if it were the other way round, and the power failed in between:
    // a log without its database, which is a case for a person.
    for (const char* suffix : {"-wal", ""}) {
        if (::rename((path + suffix).c_str(), (aside + suffix).c_str()) != 0 && errno != ENOENT) {
            const int code = errno;
            return fail(why.message + ". It cannot be renamed: " + errno_text(code), code);
        }
    }
    ::unlink((path + "-shm").c_str());
    sync_directory(where.directory);
    warnings.push_back(why.message + ". It was set aside as " + aside +
                       "; this node has no records until another member gives it the state");
    return {};
}

template <typename F>
auto errors_of(const std::string& path, F f) -> decltype(f()) {
    try {
        return f();
    } catch (const sqlite_failure& failure) {
        return tl::unexpected(describe_open(path, failure));
    }
}

// Opens it, and hands it to `load`; what is damaged is set aside once, if it may be.
template <typename T>
result<std::pair<connection, T>> open_with(const store_options& options,
                                           std::vector<std::string>& warnings,
                                           result<T> (*load)(sqlite3*, const std::string&)) {
    for (bool again = false;; again = true) {
        auto opened = errors_of(options.path, [&]() -> result<std::pair<connection, T>> {
            auto c = connect(options, warnings);
            if (!c) {
                return tl::unexpected(c.error());
            }
            auto loaded = load(c->db.get(), options.path);
            if (!loaded) {
                return tl::unexpected(loaded.error());
            }
            return std::pair{std::move(*c), std::move(*loaded)};
        });
        if (opened || opened.error().code != EUCLEAN) {
            return opened;
        }
        if (again || !options.set_aside) {
            opened.error().message += ". " + advice(options.path);
            return opened;
        }
        auto moved = errors_of(options.path,
                               [&] { return set_aside(options.path, opened.error(), warnings); });
        if (!moved) {
            return tl::unexpected(moved.error());
        }
    }
}

// It can be written, and has room.
void probe(sqlite3* db) {
    exec(db, "BEGIN IMMEDIATE", "trying to write it");
    try {
        exec(db, "CREATE TABLE probe (x BLOB)", "trying to write it");
        statement(db, "INSERT INTO probe VALUES (zeroblob(?1))").bind(1, probe_bytes).run();
        exec(db, "COMMIT", "trying to write it");
    } catch (...) {
        sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
        throw;
    }
    exec(db, "DROP TABLE probe", "trying to write it");
}

} // namespace

std::string sqlite_store::impl::open_anew() {
    out.reset();
    db.reset();
    std::vector<std::string> warnings;
    auto opened = open_with<stored_meta>(options, warnings, load_meta);
    if (!opened) {
        return opened.error().message;
    }
    if (!opened->first.trouble.empty()) {
        return opened->first.trouble;
    }
    sqlite3* raw = opened->first.db.get();
    auto ready = errors_of(options.path, [&]() -> result<void> {
        probe(raw);
        out.emplace(raw, std::move(opened->second));
        return {};
    });
    if (!ready) {
        return ready.error().message;
    }
    db = std::move(opened->first.db);
    watch_progress();
    const std::lock_guard guard(mutex);
    note.clear();
    for (const std::string& w : warnings) {
        note += (note.empty() ? "" : "; ") + w;
    }
    return {};
}

sqlite_store::sqlite_store(std::unique_ptr<impl> i)
    : impl_(std::move(i)) {}
sqlite_store::~sqlite_store() = default;

result<opened_store> sqlite_store::open_and_load(store_options options) {
    opened_store opened;
    const std::string path = options.path;
    const location where = split(path);
    if (where.file.empty()) {
        return fail("[store] path = " + path + " names a directory: add the file's name", EISDIR);
    }
    if (auto ok = check_directory(where, options.pretend_fs_magic, opened.warnings); !ok) {
        return tl::unexpected(ok.error());
    }
    struct stat st {};
    const bool there = ::lstat(path.c_str(), &st) == 0;
    if (there && !S_ISREG(st.st_mode)) {
        return fail("the recovery database " + path +
                        (S_ISDIR(st.st_mode) ? " is a directory" : " is not a regular file") +
                        ": set [store] path to a file",
                    S_ISDIR(st.st_mode) ? EISDIR : EINVAL);
    }
    if (!there && ::access((path + "-wal").c_str(), F_OK) == 0) {
        // SQLite would take the log for a leftover and remove it, and with it the last commits.
        return fail(
            "the recovery database " + path + " is missing, but its log " + path +
                "-wal is there: put the database back beside it, or, if other nodes hold the "
                "records, move the log away. Nothing was changed",
            EUCLEAN);
    }
    auto state = std::make_unique<impl>();
    auto lock = take_lock(path);
    if (!lock) {
        return tl::unexpected(lock.error());
    }
    state->lock = std::move(*lock);
    auto connected = open_with<stored_state>(options, opened.warnings, load);
    if (!connected) {
        return tl::unexpected(connected.error());
    }
    opened.state = std::move(connected->second);
    opened.created = connected->first.created;
    state->db = std::move(connected->first.db);
    auto ready = errors_of(path, [&]() -> result<void> {
        state->out.emplace(state->db.get(), opened.state.meta);
        return {};
    });
    if (!ready) {
        return tl::unexpected(ready.error());
    }
    state->options = std::move(options);
    state->watch_progress();
    if (!state->options.history.empty()) {
        state->history.open(state->options.history);
    }
    if (!connected->first.trouble.empty()) {
        const std::lock_guard guard(state->mutex);
        state->fail_locked(std::move(connected->first.trouble));
    }
    opened.store.reset(new sqlite_store(std::move(state)));
    return opened;
}

int sqlite_store::exit_code(const error& e) {
    switch (e.code) {
    case EUCLEAN:
    case EPROTO:
        return EX_DATAERR;
    case EBUSY:
        return EX_TEMPFAIL;
    case EIO:
    case ENOSPC:
        return EX_IOERR;
    default:
        return EX_CONFIG;
    }
}

result<void> sqlite_store::start(qb_loop_t* loop, sink to_engine) {
    impl& self = *impl_;
    self.wake = unique_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!self.wake) {
        const int code = errno;
        return fail("no eventfd for the recovery database's writer: " + errno_text(code), code);
    }
    self.to_engine = std::move(to_engine);
    const int rc = qb_loop_poll_add(loop, QB_LOOP_HIGH, self.wake.get(), POLLIN, &self,
                                    [](int, int, void* data) -> std::int32_t {
                                        static_cast<impl*>(data)->on_wake();
                                        return 0;
                                    });
    if (rc != 0) {
        return fail("the loop does not take the recovery database's eventfd: " + errno_text(-rc),
                    -rc);
    }
    self.loop = loop;
    // Signals belong to the loop's thread (signalfd, qb's handlers): this one takes none.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = 0;
    try {
        self.arm_watch();
        self.thread = std::thread([&self] { self.run(); });
        pthread_setname_np(self.thread.native_handle(), "graced-store");
    } catch (const std::system_error& e) {
        code = e.code().value();
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (code != 0) {
        return fail("no thread for the recovery database's writer: " + errno_text(code), code);
    }
    self.signal(); // an overflow before the start has not been told to anybody
    return {};
}

void sqlite_store::commit(store_batch batch, position at) {
    impl& self = *impl_;
    std::size_t size = 0;
    for (const store_operation& op : batch) {
        size += weight(op);
    }
    {
        const std::lock_guard guard(self.mutex);
        if (self.failed) {
            return; // store_failed is said already, or about to be
        }
        // A single batch may be larger than the bound (a snapshot), if it has the queue for itself.
        if (self.queued_bytes != 0 && self.queued_bytes + size > self.options.max_queued_bytes) {
            self.fail_locked("the recovery database " + self.options.path +
                             " is too slow: " + std::to_string(self.queue.size()) + " batches (" +
                             std::to_string(self.queued_bytes >> 10) +
                             " KiB) wait for the disk; check it");
            return;
        }
        self.queued_bytes += size;
        self.queue.push_back({std::move(batch), at, size});
    }
    self.work.notify_one();
}

sqlite_store::statistics sqlite_store::stats() const {
    const std::lock_guard guard(impl_->mutex);
    statistics s = impl_->counts;
    s.queued = impl_->queue.size();
    s.failed = impl_->failed;
    s.why = impl_->why;
    return s;
}

} // namespace grace
