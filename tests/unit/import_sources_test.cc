// SPDX-License-Identifier: GPL-2.0-or-later
// What other trackers left, read from files made as they make them: the schema statements are those
// of nfs-utils (utils/nfsdcld/sqlite.c, utils/nfsdcltrack/sqlite.c), version by version.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/import/sources.hh"

#include <cerrno>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace grace;
using namespace grace::import;
namespace fs = std::filesystem;

namespace {

struct temp_dir {
    fs::path path;
    temp_dir() {
        std::string name = (fs::temp_directory_path() / "graced-import-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~temp_dir() { fs::remove_all(path); }
    [[nodiscard]] std::string operator/(const char* name) const { return path / name; }
};

void write_file(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

struct sqlite_file {
    sqlite3* db = nullptr;
    explicit sqlite_file(const std::string& path) {
        REQUIRE(sqlite3_open(path.c_str(), &db) == SQLITE_OK);
    }
    ~sqlite_file() { sqlite3_close(db); }
    void operator()(const std::string& sql) {
        char* why = nullptr;
        const int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &why);
        INFO(sql, ": ", why ? why : "");
        CHECK(code == SQLITE_OK);
        sqlite3_free(why);
    }
};

std::string make(const temp_dir& d, const std::string& sql) {
    const std::string path = d / "main.sqlite";
    fs::remove(path);
    sqlite_file{path}(sql);
    return path;
}

const std::string parameters = "CREATE TABLE parameters (key TEXT PRIMARY KEY, value TEXT);";
std::string version(int n) {
    return "INSERT OR FAIL INTO parameters values (\"version\", \"" + std::to_string(n) + "\");";
}
const std::string grace_table = "CREATE TABLE grace (current INTEGER , recovery INTEGER);";
const std::string first_time = "INSERT OR FAIL INTO parameters values (\"first_time\", \"1\");";
const std::string hash(64, '7'); // of 32 bytes, in hexadecimal
const std::string hash_bytes(32, '\x77');

std::vector<std::string> names(const std::vector<nfs4_client>& all) {
    std::vector<std::string> out;
    for (const auto& c : all)
        out.push_back(c.name);
    return out;
}
using list = std::vector<std::string>;

} // namespace

TEST_CASE("versions 1 and 2: one table of clients, of nfsdcld (2012) and of nfsdcltrack") {
    temp_dir d;
    auto r = read_tracker_database(
        make(d, parameters + version(1) +
                    "CREATE TABLE clients (id BLOB PRIMARY KEY, time INTEGER);"
                    "INSERT OR REPLACE INTO clients VALUES (x'616c696365', 1353000000);"));
    REQUIRE(r);
    CHECK(r->version == 1);
    CHECK(names(r->clients) == list{"alice"});
    r = read_tracker_database(
        make(d, parameters + version(2) +
                    "CREATE TABLE clients (id BLOB PRIMARY KEY, time INTEGER, has_session INTEGER);"
                    "INSERT OR REPLACE INTO clients VALUES (x'626f62', 0, 1);"
                    "INSERT OR REPLACE INTO clients VALUES (x'00ff', strftime('%s','now'), 0);"));
    REQUIRE(r);
    CHECK(r->version == 2);
    CHECK(names(r->clients) == list{std::string("\0\xff", 2), "bob"});
    CHECK(r->without.empty());

    // Version 1 brought to version 2 as nfsdcltrack does it: the version becomes a number.
    r = read_tracker_database(
        make(d, parameters + version(1) +
                    "CREATE TABLE clients (id BLOB PRIMARY KEY, time INTEGER);"
                    "INSERT INTO clients VALUES (x'616c696365', 5);"
                    "ALTER TABLE clients ADD COLUMN has_session INTEGER;"
                    "UPDATE parameters SET value = 2 WHERE key = \"version\";"));
    REQUIRE(r);
    CHECK(names(r->clients) == list{"alice"});
}

TEST_CASE("version 3: a table for each epoch") {
    temp_dir d;
    auto r = read_tracker_database(make(
        d, parameters + version(3) + grace_table + "INSERT OR FAIL INTO grace values (10, 0);" +
               "CREATE TABLE \"rec-000000000000000a\" (id BLOB PRIMARY KEY);"
               "INSERT OR REPLACE INTO \"rec-000000000000000a\" VALUES (x'616c696365');"));
    REQUIRE(r);
    CHECK(r->current == 10);
    CHECK(!r->first_time); // its first release had no such parameter
    CHECK(names(r->clients) == list{"alice"});
    CHECK(r->notes.empty());

    // nfs-utils of 2019 for some months: no leading zeros.
    r = read_tracker_database(make(d, parameters + version(3) + first_time + grace_table +
                                          "INSERT OR FAIL INTO grace values (10, 9);" +
                                          "CREATE TABLE \"rec-a\" (id BLOB PRIMARY KEY);"
                                          "CREATE TABLE \"rec-9\" (id BLOB PRIMARY KEY);"
                                          "INSERT INTO \"rec-9\" VALUES (x'626f62');"));
    REQUIRE(r);
    CHECK(r->first_time);
    CHECK(names(r->clients) == list{"bob"});
}

TEST_CASE("version 4: with the hash of the principal") {
    temp_dir d;
    const std::string schema =
        parameters + version(4) + "INSERT INTO parameters values (\"first_time\", \"0\");" +
        grace_table + "INSERT OR FAIL INTO grace values (1, 0);" +
        "CREATE TABLE \"rec-0000000000000001\" (id BLOB PRIMARY KEY, princhash BLOB);";
    auto r = read_tracker_database(
        make(d, schema + "INSERT INTO \"rec-0000000000000001\" (id) VALUES (x'616c696365');" +
                    "INSERT INTO \"rec-0000000000000001\" VALUES (x'626f62', x'" + hash + "');"));
    REQUIRE(r);
    CHECK(r->clients == std::vector<nfs4_client>{{"alice", ""}, {"bob", hash_bytes}});

    // In grace: who may reclaim, and who has. Of both, what was recorded last.
    r = read_tracker_database(
        make(d, schema + "UPDATE grace SET current = 2, recovery = 1;" +
                    "INSERT INTO \"rec-0000000000000001\" (id) VALUES (x'616c696365');" +
                    "INSERT INTO \"rec-0000000000000001\" (id) VALUES (x'626f62');" +
                    "CREATE TABLE \"rec-0000000000000002\" (id BLOB PRIMARY KEY, princhash blob);" +
                    "INSERT INTO \"rec-0000000000000002\" VALUES (x'626f62', x'" + hash + "');"));
    REQUIRE(r);
    CHECK(r->clients == std::vector<nfs4_client>{{"alice", ""}, {"bob", hash_bytes}});
    REQUIRE(r->notes.size() == 1);
    CHECK(r->notes[0].find("2 clients could reclaim") != std::string::npos);

    // Epochs are stored by their bits.
    r = read_tracker_database(make(
        d, parameters + version(4) + grace_table + "INSERT INTO grace values (-1, 0);" +
               "CREATE TABLE \"rec-ffffffffffffffff\" (id BLOB PRIMARY KEY, princhash BLOB);"));
    REQUIRE(r);
    CHECK(r->current == ~std::uint64_t{0});
}

TEST_CASE("records that are no records are left out, each with its reason") {
    temp_dir d;
    auto r = read_tracker_database(make(
        d,
        parameters + version(4) + grace_table + "INSERT INTO grace values (2, 0);" +
            "CREATE TABLE \"rec-0000000000000002\" (id BLOB PRIMARY KEY, princhash BLOB);"
            "CREATE TABLE \"rec-0000000000000001\" (id BLOB PRIMARY KEY, princhash BLOB);"
            "CREATE TABLE \"rec-0000000000000001x\" (id BLOB);"
            "INSERT INTO \"rec-0000000000000001\" (id) VALUES (x'6f6c64');"
            "INSERT INTO \"rec-0000000000000002\" (id) VALUES (NULL), (x''), (zeroblob(1025)), "
            "(zeroblob(1024));"
            "INSERT INTO \"rec-0000000000000002\" VALUES (x'68616c66', x'0102'), ('text', NULL);"));
    REQUIRE(r);
    CHECK(names(r->clients) == list{std::string(1024, '\0'), "text"});
    std::string why;
    for (const auto& l : r->without)
        why += l.what.substr(0, 30) + "=" + l.why + ";";
    CHECK(r->without.size() == 6);
    CHECK(why.find("table rec-0000000000000001=of neither") != std::string::npos);
    CHECK(why.find("table rec-0000000000000001x=of neither") != std::string::npos);
    CHECK(why.find("half=the hash of its principal has 2 bytes") != std::string::npos);
    CHECK(why.find("longer than NFSv4 allows") != std::string::npos);
}

TEST_CASE("databases that cannot be taken say why") {
    temp_dir d;
    const auto why = [&](const std::string& sql) {
        const auto r = read_tracker_database(make(d, sql));
        return r ? std::string("taken") : r.error().message;
    };
    CHECK(why("CREATE TABLE other (x);").find("it has no version") != std::string::npos);
    CHECK(why(parameters + version(5)).find("has version 5; 1 to 4") != std::string::npos);
    CHECK(why(parameters + "INSERT INTO parameters VALUES ('version', '4 or so');")
              .find("it has no version") != std::string::npos);
    CHECK(why(parameters + version(2)).find("no table of clients") != std::string::npos);
    CHECK(why(parameters + version(4) + grace_table).find("`grace` is empty") != std::string::npos);
    CHECK(why(parameters + version(4) + grace_table + "INSERT INTO grace VALUES (3, 0);")
              .find("incomplete") != std::string::npos);
    CHECK(why(parameters + version(4) + grace_table + "INSERT INTO grace VALUES (3, 2);" +
              "CREATE TABLE \"rec-0000000000000003\" (id BLOB PRIMARY KEY, princhash BLOB);")
              .find("no records of its recovery epoch") != std::string::npos);
    // A view that poses as a table is not run.
    CHECK(why(parameters + version(2) +
              "CREATE VIEW clients AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 "
              "FROM n) SELECT id FROM n;")
              .find("no table of clients") != std::string::npos);

    auto r = read_tracker_database(d / "nothing");
    REQUIRE(!r);
    CHECK(r.error().code == ENOENT);
    write_file(d / "text", std::string(5000, 'x'));
    CHECK(!read_tracker_database(d / "text"));
    CHECK(!read_tracker_database(d.path.string()));

    // A page overwritten: nothing of it is believed.
    const std::string path =
        make(d, parameters + version(2) +
                    "CREATE TABLE clients (id BLOB PRIMARY KEY, time INTEGER, has_session INTEGER);"
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
                    "INSERT INTO clients SELECT randomblob(40), i, 0 FROM n;");
    {
        std::fstream f(path, std::ios::binary | std::ios::in | std::ios::out);
        f.seekp(4096 * 10);
        f << std::string(4096, '\x5a');
    }
    r = read_tracker_database(path);
    REQUIRE(!r);
    CHECK(r.error().message.find("is damaged") != std::string::npos);
}

TEST_CASE("a database whose writer died in the middle is not read half") {
    temp_dir d;
    const std::string path =
        make(d, parameters + version(2) +
                    "CREATE TABLE clients (id BLOB PRIMARY KEY, time INTEGER, has_session INTEGER);"
                    "INSERT INTO clients VALUES (x'616c696365', 0, 0);");
    // What kill -9 leaves: the file and its hot journal, copied while the transaction is open.
    const std::string copy = d / "copy.sqlite";
    {
        sqlite_file db(path);
        db("PRAGMA cache_size = 1; BEGIN EXCLUSIVE;"
           "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) "
           "INSERT INTO clients SELECT randomblob(100), i, 0 FROM n;");
        REQUIRE(fs::exists(path + "-journal"));
        fs::copy_file(path, copy);
        fs::copy_file(path + "-journal", copy + "-journal");
    }
    const auto r = read_tracker_database(copy);
    REQUIRE(!r);
    CHECK(r.error().message.find("roll it back") != std::string::npos);
    sqlite_file{copy}("PRAGMA quick_check");
    const auto again = read_tracker_database(copy);
    REQUIRE(again);
    CHECK(names(again->clients) == list{"alice"});
}

TEST_CASE("what is exported reads as nfsdcld's version 4, and nothing is written over") {
    temp_dir d;
    const std::vector<nfs4_client> all = {
        {std::string("\0\xff", 2), ""}, {"alice", hash_bytes}, {std::string(1024, 'x'), ""}};
    const std::string path = d / "main.sqlite";
    REQUIRE(write_tracker_database(path, 7, all));
    const auto r = read_tracker_database(path);
    REQUIRE(r);
    CHECK(r->version == 4);
    CHECK(r->current == 7);
    CHECK(r->recovery == 0);
    CHECK(!r->first_time);
    CHECK(r->clients == all);
    struct stat s {};
    REQUIRE(stat(path.c_str(), &s) == 0);
    CHECK((s.st_mode & 0777) == 0600);
    CHECK(!fs::exists(path + ".graced-new"));

    auto again = write_tracker_database(path, 8, all);
    REQUIRE(!again);
    CHECK(again.error().code == EEXIST);
    CHECK(read_tracker_database(path)->current == 7);
    // A journal alone is as bad: nfsdcld's next start would play it into the new file.
    fs::rename(path, d / "old");
    write_file(path + "-journal", "x");
    again = write_tracker_database(path, 8, all);
    REQUIRE(!again);
    CHECK(again.error().message.find("-journal is there") != std::string::npos);
    CHECK(!write_tracker_database(d / "no/such/directory/main.sqlite", 1, {}));
}

TEST_CASE("v4recovery: directories named by a hash; the rest is left out") {
    temp_dir d;
    const std::string digits = "0123456789abcdef0123456789abcdef";
    fs::create_directory(d.path / digits);
    fs::create_directory(d.path / "0123");
    fs::create_directory(d.path / "0123456789ABCDEF0123456789abcdef");
    write_file(d / "ffffffffffffffffffffffffffffffff", "");
    fs::create_directory_symlink(d.path, d.path / "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
    const auto r = read_recovery_directory(d.path);
    REQUIRE(r);
    // As nfsdcld keeps them (legacy.c): with the NUL that the kernel's 33 bytes end in.
    CHECK(names(r->clients) == list{"hash:" + digits + std::string(1, '\0')});
    CHECK(r->without.size() == 4);
    CHECK(read_recovery_directory(d / "nothing").error().code == ENOENT);
}

TEST_CASE("rmtab") {
    const auto t = parse_rmtab("192.0.2.5:/srv/data:0x00000002\n"
                               "2001;db8;;5:/srv/data:0x00000001\n"
                               "host.example:/srv/a:b:0x00000001\n"
                               "host.example:/srv/plain\n"
                               "gone.example:/srv/data:0x00000000\n"
                               "\n"
                               "no colon\n"
                               ":/srv:0x1\n"
                               "host:relative:0x1\n"
                               "two words:/srv:0x1\n"
                               "late.example:/srv:0x1");
    CHECK(t.mounts == std::vector<mount_entry>{{"192.0.2.5", "/srv/data", 2},
                                               {"2001:db8::5", "/srv/data", 1},
                                               {"host.example", "/srv/a:b", 1},
                                               {"host.example", "/srv/plain", 1},
                                               {"late.example", "/srv", 1}});
    CHECK(t.without.size() == 4);
    std::string many;
    for (std::size_t i = 0; i < max_left_out + 500; ++i)
        many += "x\n";
    CHECK(parse_rmtab(many).without.size() == max_left_out + 1);
}

TEST_CASE("statd's sm") {
    temp_dir d;
    // 127.0.0.1, the kernel's callback: program 100021, version 3, procedure 16; cookie; names.
    const std::string fixed =
        "0100007f 000186b5 00000003 00000010 000102030405060708090a0b0c0d0e0f ";
    write_file(d / "client.example",
               fixed + "client.example vs1\n" + fixed + "client.example vs2\n");
    write_file(d / "192.0.2.9", fixed + "192.0.2.9 vs1\n");
    write_file(d / ".hidden", "x");
    write_file(d / "broken", "0100007f zz\n");
    write_file(d / "empty", "");
    REQUIRE(mkfifo((d / "fifo").c_str(), 0600) == 0);
    fs::create_symlink("/etc/passwd", d.path / "link");
    fs::create_directory(d.path / "directory");
    const auto r = read_monitor_directory(d.path);
    REQUIRE(r);
    CHECK(r->hosts == std::vector<monitored_host>{{"192.0.2.9", "vs1"},
                                                  {"client.example", "vs1"},
                                                  {"client.example", "vs2"}});
    CHECK(r->without.size() == 5);
}
