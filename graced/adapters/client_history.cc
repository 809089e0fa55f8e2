// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/adapters/client_history.hh"

#include <fcntl.h>
#include <functional>
#include <memory>
#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <unistd.h>

namespace grace {
namespace {

// No sync: what a power cut takes is missed by nobody; a database that it damages is begun anew.
constexpr const char* begin_sql = R"sql(
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, time INTEGER NOT NULL,
    what TEXT NOT NULL, server TEXT NOT NULL, client BLOB NOT NULL, epoch INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS events_of_client ON events (server, client);
)sql";
constexpr std::int64_t trim_each = 1000;

struct closer {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using statement = std::unique_ptr<sqlite3_stmt, closer>;

statement prepare(sqlite3* db, const char* sql) {
    sqlite3_stmt* s = nullptr;
    sqlite3_prepare_v2(db, sql, -1, &s, nullptr);
    return statement(s);
}
bool blob(const statement& s, int n, const std::string& v) {
    return sqlite3_bind_blob(s.get(), n, v.data(), static_cast<int>(v.size()), SQLITE_STATIC) ==
           SQLITE_OK;
}
bool text(const statement& s, int n, const std::string& v) {
    return sqlite3_bind_text(s.get(), n, v.data(), static_cast<int>(v.size()), SQLITE_STATIC) ==
           SQLITE_OK;
}
bool number(const statement& s, int n, std::int64_t v) {
    return sqlite3_bind_int64(s.get(), n, v) == SQLITE_OK;
}
std::string column(const statement& s, int n) {
    const auto* p = static_cast<const char*>(sqlite3_column_blob(s.get(), n));
    return p ? std::string(p, static_cast<std::size_t>(sqlite3_column_bytes(s.get(), n)))
             : std::string();
}

// Every row of a question to a history that another process writes.
result<void> ask(const std::string& path, const char* sql,
                 const std::function<void(const statement&)>& bind,
                 const std::function<void(const statement&)>& row) {
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READONLY, nullptr);
    const std::unique_ptr<sqlite3, closer> db(raw);
    if (opened == SQLITE_OK) {
        sqlite3_busy_timeout(raw, 2000);
        if (const statement s = prepare(raw, sql)) {
            bind(s);
            int rc;
            while ((rc = sqlite3_step(s.get())) == SQLITE_ROW)
                row(s);
            if (rc == SQLITE_DONE)
                return {};
        }
    }
    return fail("the history of clients " + path +
                " cannot be read: " + (raw ? sqlite3_errmsg(raw) : "no memory"));
}

// For a query of time, what, server, client, epoch.
result<std::vector<history_event>> ask_events(const std::string& path, const char* sql,
                                              const std::function<void(const statement&)>& with) {
    std::vector<history_event> all;
    auto asked = ask(path, sql, with, [&](const statement& s) {
        all.push_back({column(s, 1), column(s, 2), column(s, 3),
                       epoch{static_cast<std::uint64_t>(sqlite3_column_int64(s.get(), 4))},
                       sqlite3_column_int64(s.get(), 0)});
    });
    if (!asked)
        return tl::unexpected(asked.error());
    return all;
}

} // namespace

client_history::~client_history() {
    sqlite3_close_v2(db_);
}

void client_history::end(const std::string& doing) {
    spdlog::warn("{} the history of clients {} failed: {}; none is kept until graced starts anew",
                 doing, path_, db_ ? sqlite3_errmsg(db_) : "no memory");
    sqlite3_close_v2(db_);
    db_ = nullptr;
}

void client_history::open(const std::string& path) {
    path_ = path;
    for (const bool again : {false, true}) {
        // Names of clients are for root only, as in the recovery database.
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
            ::close(fd);
        const int rc = sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE, nullptr);
        if (rc == SQLITE_OK && sqlite3_exec(db_, begin_sql, nullptr, nullptr, nullptr) == SQLITE_OK)
            return;
        const int code = sqlite3_errcode(db_) & 0xff;
        if (again || (code != SQLITE_CORRUPT && code != SQLITE_NOTADB))
            return end("opening");
        sqlite3_close_v2(db_);
        db_ = nullptr;
        for (const char* file : {"", "-wal", "-shm"})
            unlink((path + file).c_str());
    }
}

void client_history::write(const std::vector<history_event>& events) {
    if (!db_ || events.empty())
        return;
    const auto run = [&](const char* sql) {
        return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK;
    };
    if (!run("BEGIN"))
        return end("writing");
    {
        const statement put = prepare(
            db_, "INSERT INTO events (time, what, server, client, epoch) VALUES (?, ?, ?, ?, ?)");
        for (const history_event& e : events) {
            if (!put || !number(put, 1, e.time) || !text(put, 2, e.what) ||
                !text(put, 3, e.server) || !blob(put, 4, e.client) ||
                !number(put, 5, static_cast<std::int64_t>(e.at.value)) ||
                sqlite3_step(put.get()) != SQLITE_DONE)
                return end("writing");
            sqlite3_reset(put.get());
        }
    }
    written_ += static_cast<std::int64_t>(events.size());
    if (written_ >= trim_each) {
        written_ = 0;
        const statement trim =
            prepare(db_, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?");
        if (!trim || !number(trim, 1, max_events) || sqlite3_step(trim.get()) != SQLITE_DONE)
            return end("trimming");
    }
    if (!run("COMMIT"))
        return end("writing");
}

result<std::vector<history_event>> client_history::read(const std::string& path,
                                                        const std::string& server,
                                                        const std::string& client,
                                                        std::size_t limit) {
    return ask_events(
        path,
        "SELECT time, what, server, client, epoch FROM (SELECT * FROM events"
        " WHERE (?1 = '' OR server = ?1 OR server = '') AND (length(?2) = 0 OR client = ?2"
        " OR length(client) = 0) ORDER BY id DESC LIMIT ?3) ORDER BY id",
        [&](const statement& s) {
            text(s, 1, server);
            blob(s, 2, client);
            number(s, 3, static_cast<std::int64_t>(limit));
        });
}

result<std::vector<history_event>> client_history::read_grace(const std::string& path, epoch at,
                                                              epoch recovery, std::int64_t began,
                                                              std::size_t limit) {
    return ask_events(
        path,
        "SELECT time, what, server, client, epoch FROM events WHERE"
        " ((what = 'reclaimed' AND epoch = ?1) OR (what = 'purged' AND epoch = ?2)) AND time >= ?3"
        " ORDER BY id LIMIT ?4",
        [&](const statement& s) {
            number(s, 1, static_cast<std::int64_t>(at.value));
            number(s, 2, static_cast<std::int64_t>(recovery.value));
            number(s, 3, began);
            number(s, 4, static_cast<std::int64_t>(limit));
        });
}

result<std::map<client_history::client_key, client_history::since>>
client_history::read_since(const std::string& path) {
    std::map<client_key, since> all;
    auto asked = ask(
        path, "SELECT time, what, server, client, epoch FROM events ORDER BY id",
        [](const statement&) {},
        [&](const statement& s) {
            const std::string what = column(s, 1);
            if (what == "joined") {
                for (auto& [key, v] : all)
                    v.gap = true;
                return;
            }
            const client_key key{column(s, 2), column(s, 3)};
            if (what == "left" || what == "purged") {
                all.erase(key);
                return;
            }
            const auto known =
                what == "recorded" ? all.insert_or_assign(key, since{}).first : all.find(key);
            if (known == all.end())
                return;
            if (what == "recorded")
                known->second.time = sqlite3_column_int64(s.get(), 0);
            known->second.at = epoch{static_cast<std::uint64_t>(sqlite3_column_int64(s.get(), 4))};
            known->second.gap = false;
        });
    if (!asked)
        return tl::unexpected(asked.error());
    return all;
}

} // namespace grace
