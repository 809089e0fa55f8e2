// SPDX-License-Identifier: GPL-2.0-or-later
// The SQLite databases of nfsdcld and nfsdcltrack: reading every version, writing the newest.
//
// A database may be damaged, or made to look like one: its schema is not run (no views, triggers,
// virtual tables), and what a query may cost is bounded.
#include "graced/import/sources.hh"

#include "grace/types.hh"

#include <cerrno>
#include <charconv>
#include <cinttypes>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

namespace grace::import {

namespace {

constexpr int busy_timeout_ms = 10'000; // as nfsdcld itself waits (CLD_SQLITE_BUSY_TIMEOUT)
// Steps of SQLite's machine, in units of progress_unit: a million records need some hundred
// millions.
constexpr int progress_unit = 1'000'000;
constexpr int max_progress = 2000;

struct close_database {
    void operator()(sqlite3* db) const { sqlite3_close(db); }
};
using database = std::unique_ptr<sqlite3, close_database>;
struct finalize {
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using statement = std::unique_ptr<sqlite3_stmt, finalize>;

tl::unexpected<error> sqlite_error(sqlite3* db, const std::string& what) {
    const int code = sqlite3_extended_errcode(db);
    std::string why = sqlite3_errmsg(db);
    if (code == SQLITE_READONLY_ROLLBACK || code == SQLITE_READONLY_RECOVERY)
        why = "its last writer died in the middle of a transaction. Let SQLite roll it back first: "
              "sqlite3 FILE 'PRAGMA quick_check'";
    return fail(what + ": " + why, EIO);
}

statement prepare(sqlite3* db, const std::string& sql) {
    sqlite3_stmt* s = nullptr;
    sqlite3_prepare_v2(db, sql.c_str(), static_cast<int>(sql.size()), &s, nullptr);
    return statement(s);
}

std::string blob_at(sqlite3_stmt* s, int column) {
    const void* data = sqlite3_column_blob(s, column);
    const int size = sqlite3_column_bytes(s, column);
    return data && size > 0
               ? std::string(static_cast<const char*>(data), static_cast<std::size_t>(size))
               : std::string();
}

std::string quoted(const std::string& name) {
    std::string out = "\"";
    for (char c : name) {
        out += c;
        if (c == '"')
            out += '"';
    }
    return out + "\"";
}

// rec-%016x; nfs-utils 2.3.4 to 2.4.1 wrote it without leading zeros.
std::optional<std::uint64_t> epoch_of(std::string_view table) {
    if (!table.starts_with("rec-"))
        return {};
    table.remove_prefix(4);
    std::uint64_t n = 0;
    const auto [end, code] = std::from_chars(table.data(), table.data() + table.size(), n, 16);
    if (table.empty() || table.size() > 16 || code != std::errc{} ||
        end != table.data() + table.size())
        return {};
    return n;
}

class reader {
public:
    reader(sqlite3* db, std::string path)
        : db_(db)
        , path_(std::move(path)) {}

    result<tracker_records> read() {
        sqlite3_progress_handler(
            db_, progress_unit, [](void* left) { return --*static_cast<int*>(left) < 0 ? 1 : 0; },
            &progress_);
        sqlite3_busy_timeout(db_, busy_timeout_ms);
        sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
        sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
        sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
        sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
        // One snapshot of it, though nfsdcld may go on writing.
        if (sqlite3_exec(db_, "BEGIN", nullptr, nullptr, nullptr) != SQLITE_OK)
            return sqlite_error(db_, path_);
        if (auto whole = check(); !whole)
            return tl::unexpected(whole.error());
        if (auto seen = find_tables(); !seen)
            return tl::unexpected(seen.error());
        if (auto known = read_version(); !known)
            return tl::unexpected(known.error());

        const bool by_epoch = tables_.contains("grace");
        if (out_.version >= 3 && !by_epoch)
            out_.notes.push_back("the database says version " + std::to_string(out_.version) +
                                 " but has no table `grace`: nfsdcld itself would refuse it");
        auto done = by_epoch ? read_epochs() : read_clients();
        if (!done)
            return tl::unexpected(done.error());
        out_.clients.reserve(found_.size());
        for (auto& [name, hash] : found_)
            out_.clients.push_back({name, hash});
        return std::move(out_);
    }

private:
    result<void> check() {
        const statement s = prepare(db_, "PRAGMA quick_check(1)");
        if (!s || sqlite3_step(s.get()) != SQLITE_ROW)
            return sqlite_error(db_, path_ + " is not an SQLite database, or cannot be read");
        const std::string says = blob_at(s.get(), 0);
        if (says != "ok")
            return fail(path_ + " is damaged (" + says.substr(0, 200) +
                            "): what it holds cannot be trusted",
                        EIO);
        return {};
    }

    result<void> find_tables() {
        const statement s =
            prepare(db_, "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0");
        if (!s)
            return sqlite_error(db_, path_);
        int code = 0;
        while ((code = sqlite3_step(s.get())) == SQLITE_ROW && tables_.size() < 1000)
            tables_.insert(blob_at(s.get(), 0));
        if (code != SQLITE_ROW && code != SQLITE_DONE)
            return sqlite_error(db_, path_);
        return {};
    }

    std::string parameter(const char* key) {
        const statement s = prepare(db_, "SELECT value FROM parameters WHERE key = ?");
        if (!s)
            return {};
        sqlite3_bind_text(s.get(), 1, key, -1, SQLITE_STATIC);
        return sqlite3_step(s.get()) == SQLITE_ROW ? blob_at(s.get(), 0) : std::string();
    }

    result<void> read_version() {
        const std::string text = tables_.contains("parameters") ? parameter("version") : "";
        const auto [end, code] =
            std::from_chars(text.data(), text.data() + text.size(), out_.version);
        if (text.empty() || code != std::errc{} || end != text.data() + text.size())
            return fail(path_ + " is no database of nfsdcld or nfsdcltrack: it has no version",
                        EINVAL);
        if (out_.version < 1 || out_.version > 4)
            return fail(path_ + " has version " + text.substr(0, 20) +
                            "; 1 to 4 are known here (nfs-utils up to 2.9)",
                        EINVAL);
        out_.first_time = parameter("first_time") == "1";
        return {};
    }

    result<void> read_clients() {
        if (!tables_.contains("clients"))
            return fail(path_ + " has no table of clients", EINVAL);
        return read_table("clients");
    }

    result<void> read_epochs() {
        const statement s = prepare(db_, "SELECT current, recovery FROM grace");
        if (!s)
            return sqlite_error(db_, path_);
        if (sqlite3_step(s.get()) != SQLITE_ROW)
            return fail(path_ + ": its table `grace` is empty", EINVAL);
        // nfsdcld stores them by their bits.
        out_.current = static_cast<std::uint64_t>(sqlite3_column_int64(s.get(), 0));
        out_.recovery = static_cast<std::uint64_t>(sqlite3_column_int64(s.get(), 1));
        std::string now, before;
        for (const std::string& table : tables_) {
            if (!table.starts_with("rec-"))
                continue;
            const auto epoch = epoch_of(table);
            if (epoch && *epoch == out_.current && now.empty())
                now = table;
            else if (epoch && out_.recovery && *epoch == out_.recovery && before.empty())
                before = table;
            else
                leave_out(out_.without, "table " + table,
                          "of neither its current nor its recovery epoch");
        }
        if (now.empty())
            return fail(path_ + " has no records of its current epoch: it is incomplete", EINVAL);
        if (out_.recovery == 0)
            return read_table(now);
        // In grace, who is of the recovery epoch may reclaim; nfsdcld itself, started anew, would
        // drop the others. They hold nothing yet, and may lose nothing.
        if (before.empty())
            return fail(path_ + " is in grace and has no records of its recovery epoch: it is "
                                "incomplete",
                        EINVAL);
        if (auto r = read_table(before); !r)
            return r;
        const std::size_t of_before = found_.size();
        if (auto r = read_table(now); !r)
            return r;
        out_.notes.push_back(
            "it was written last in a grace: " + std::to_string(of_before) +
            " clients could reclaim. If that grace has ended since, it is not the database that "
            "nfsd used last");
        return {};
    }

    // Later tables win: a client that reclaimed may have brought another principal.
    result<void> read_table(const std::string& table) {
        const bool hash =
            sqlite3_table_column_metadata(db_, "main", table.c_str(), "princhash", nullptr, nullptr,
                                          nullptr, nullptr, nullptr) == SQLITE_OK;
        const statement s = prepare(db_, std::string("SELECT id") + (hash ? ", princhash" : "") +
                                             " FROM " + quoted(table));
        if (!s)
            return sqlite_error(db_, path_ + ", table " + table);
        int code = 0;
        while ((code = sqlite3_step(s.get())) == SQLITE_ROW) {
            std::string name = blob_at(s.get(), 0);
            std::string princhash = hash ? blob_at(s.get(), 1) : std::string();
            if (found_.size() >= max_clients) {
                leave_out(out_.without, name, "there are too many");
                break;
            }
            if (name.empty())
                leave_out(out_.without, "", "a record without a name");
            else if (name.size() > max_client_name)
                leave_out(out_.without, name.substr(0, 64),
                          "its name is longer than NFSv4 allows (1024 bytes)");
            // Without the hash, or with half of it, anybody else could reclaim in its name.
            else if (!princhash.empty() && princhash.size() != max_princhash)
                leave_out(out_.without, name,
                          "the hash of its principal has " + std::to_string(princhash.size()) +
                              " bytes instead of 32");
            else
                found_[std::move(name)] = std::move(princhash);
        }
        if (code != SQLITE_ROW && code != SQLITE_DONE)
            return sqlite_error(db_, path_ + ", table " + table);
        return {};
    }

    sqlite3* db_;
    std::string path_;
    int progress_ = max_progress;
    std::set<std::string> tables_;
    std::map<std::string, std::string> found_;
    tracker_records out_;
};

std::string text_of(int code) {
    return std::strerror(code);
}

bool exists(const std::string& path) {
    struct stat s {};
    return lstat(path.c_str(), &s) == 0;
}

result<void> sync_file(const std::string& path, int flags) {
    const int fd = open(path.c_str(), flags | O_CLOEXEC);
    if (fd < 0)
        return fail(path + ": " + text_of(errno), errno);
    const int code = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    if (code)
        return fail(path + ": " + text_of(code), code);
    return {};
}

// As sqlite_maindb_init_v4() of nfsdcld makes it, then the records.
result<void> fill(const std::string& path, std::uint64_t epoch,
                  std::span<const nfs4_client> clients) {
    sqlite3* raw = nullptr;
    const int opened =
        sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    const database db(raw);
    if (opened != SQLITE_OK)
        return sqlite_error(raw, path);
    char table[32];
    std::snprintf(table, sizeof table, "rec-%016" PRIx64, epoch);
    const std::string schema =
        "PRAGMA synchronous = FULL; BEGIN EXCLUSIVE;"
        "CREATE TABLE parameters (key TEXT PRIMARY KEY, value TEXT);"
        "CREATE TABLE grace (current INTEGER , recovery INTEGER);"
        "INSERT INTO grace VALUES (" +
        std::to_string(static_cast<std::int64_t>(epoch)) + ", 0);" + "CREATE TABLE \"" + table +
        "\" (id BLOB PRIMARY KEY, princhash BLOB);"
        "INSERT INTO parameters VALUES ('version', '4');"
        // 1 would make nfsdcld take in what is left of nfsdcltrack and v4recovery, which is old.
        "INSERT INTO parameters VALUES ('first_time', '0');";
    if (sqlite3_exec(db.get(), schema.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        return sqlite_error(db.get(), path);
    const statement insert =
        prepare(db.get(), std::string("INSERT INTO \"") + table + "\" VALUES (?, ?)");
    if (!insert)
        return sqlite_error(db.get(), path);
    for (const nfs4_client& c : clients) {
        sqlite3_bind_blob(insert.get(), 1, c.name.data(), static_cast<int>(c.name.size()),
                          SQLITE_STATIC);
        if (c.princhash.empty())
            sqlite3_bind_null(insert.get(), 2);
        else
            sqlite3_bind_blob(insert.get(), 2, c.princhash.data(),
                              static_cast<int>(c.princhash.size()), SQLITE_STATIC);
        if (sqlite3_step(insert.get()) != SQLITE_DONE)
            return sqlite_error(db.get(), path);
        sqlite3_reset(insert.get());
    }
    if (sqlite3_exec(db.get(), "COMMIT", nullptr, nullptr, nullptr) != SQLITE_OK)
        return sqlite_error(db.get(), path);
    return {};
}

} // namespace

result<tracker_records> read_tracker_database(const std::string& path) {
    struct stat s {};
    if (stat(path.c_str(), &s) != 0)
        return fail(path + ": " + text_of(errno), errno);
    if (!S_ISREG(s.st_mode))
        return fail(path + " is not a regular file", EINVAL);
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open_v2(path.c_str(), &raw,
                                       SQLITE_OPEN_READONLY | SQLITE_OPEN_PRIVATECACHE, nullptr);
    const database db(raw);
    if (opened != SQLITE_OK)
        return sqlite_error(raw, path);
    return reader(db.get(), path).read();
}

result<tracker_records> read_tracker_image(std::span<const std::uint8_t> image) {
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open(":memory:", &raw);
    const database db(raw);
    if (opened != SQLITE_OK)
        return sqlite_error(raw, "memory");
    auto* copy = static_cast<unsigned char*>(sqlite3_malloc64(image.size() + 1));
    if (!copy)
        return fail("no memory", ENOMEM);
    std::memcpy(copy, image.data(), image.size());
    const auto size = static_cast<sqlite3_int64>(image.size());
    if (sqlite3_deserialize(db.get(), "main", copy, size, size,
                            SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY) !=
        SQLITE_OK)
        return sqlite_error(raw, "memory");
    return reader(db.get(), "the database").read();
}

result<void> write_tracker_database(const std::string& path, std::uint64_t epoch,
                                    std::span<const nfs4_client> clients) {
    for (const char* beside : {"", "-journal", "-wal"})
        if (exists(path + beside))
            return fail(path + beside +
                            " is there already. Stop nfsdcld and move its files away (main.sqlite, "
                            "and -journal if there is one)",
                        EEXIST);
    const std::string temporary = path + ".graced-new";
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    std::filesystem::remove(temporary + "-journal", ignored);
    // Readable for root only from its first byte on, as nfsdcld's directory is.
    const int fd =
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(temporary + " cannot be made: " + text_of(errno), errno);
    close(fd);
    auto done = fill(temporary, epoch, clients);
    if (done)
        done = sync_file(temporary, O_RDONLY);
    // link, not rename: a file that came there meanwhile stays.
    if (done && link(temporary.c_str(), path.c_str()) != 0)
        done = fail(path + ": " + text_of(errno), errno);
    std::filesystem::remove(temporary, ignored);
    if (done)
        done = sync_file(std::filesystem::absolute(path).parent_path(), O_RDONLY | O_DIRECTORY);
    return done;
}

} // namespace grace::import
