// SPDX-License-Identifier: GPL-2.0-or-later
// import and export: from the trackers that were there before graced, and back to nfsdcld.
//
// import reads files, compares with what is on record, and sends the difference to the daemon,
// which records it as if nfsd had asked for it: so it may be repeated at will.
#include "grace/record_key.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/hex.hh"
#include "graced/import/sources.hh"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <sstream>

namespace grace::ctl {

namespace {

namespace fs = std::filesystem;

constexpr wait_limit look_limit = 10;
// A request that has to be durable on every member; the first one may wait for a grace to open.
constexpr wait_limit record_limit = 60;
// Bytes of JSON in one request; the daemon takes 64 KiB.
constexpr std::size_t request_size = 48U << 10;

struct import_options {
    std::string server;
    std::string from = "/var/lib/nfs";
    std::string nfsdcld, nfsdcltrack, v4recovery, rmtab, sm;
    bool dry_run = false, replace = false, force = false;

    [[nodiscard]] bool named() const {
        return !(nfsdcld.empty() && nfsdcltrack.empty() && v4recovery.empty() && rmtab.empty() &&
                 sm.empty());
    }
};

std::string shortened(const std::string& s) {
    return printable(s.substr(0, 100)) + (s.size() > 100 ? "…" : "");
}

// Everything that was found, and what the report says of each source.
struct collected {
    std::map<std::string, std::string> clients; // name -> hash of its principal
    std::set<std::string> hosts;                // that hold NLM locks
    std::map<std::pair<std::string, std::string>, std::uint32_t> mounts; // client, path -> count
    std::size_t by_hash = 0;                    // of them, known by the MD5 of their name only
    json sources = json::array();
    json not_taken = json::array();
    json notes = json::array();
    std::string failed; // a source that was named cannot be read

    void add(const std::vector<import::nfs4_client>& found) {
        for (const auto& c : found) {
            const bool fresh = clients.try_emplace(c.name, c.princhash).second;
            by_hash += fresh && c.name.starts_with("hash:") ? 1 : 0;
        }
    }
    void without(const char* source, const std::vector<import::left_out>& all) {
        for (const auto& l : all)
            not_taken.push_back({{"source", source}, {"what", shortened(l.what)}, {"why", l.why}});
    }
    void source(const char* kind, const std::string& path, std::size_t found,
                const std::string& says) {
        sources.push_back({{"kind", kind}, {"path", path}, {"found", found}, {"says", says}});
    }
};

// `named`: a person named this file, so it must be there.
template <typename T>
bool readable(collected& c, const char* kind, const std::string& path, bool named,
              const result<T>& read) {
    if (read)
        return true;
    if (named || read.error().code != ENOENT) {
        c.failed += (c.failed.empty() ? "" : "; ") + read.error().message;
        c.source(kind, path, 0, "not read: " + read.error().message);
    } else {
        c.source(kind, path, 0, "not there");
    }
    return false;
}

// Of one program's database; whether it holds the records that nfsd used last.
bool add_tracker(collected& c, const char* kind, const std::string& path, bool named) {
    const auto read = import::read_tracker_database(path);
    if (!readable(c, kind, path, named, read))
        return false;
    c.add(read->clients);
    c.without(kind, read->without);
    for (const std::string& n : read->notes)
        c.notes.push_back(std::string(kind) + ": " + n);
    c.source(kind, path, read->clients.size(), "version " + std::to_string(read->version));
    return !read->first_time && (!read->clients.empty() || read->version >= 3);
}

collected collect(const import_options& o) {
    collected c;
    const bool named = o.named();
    const auto path_of = [&](const std::string& given, const char* below) {
        return named ? given : (fs::path(o.from) / below).string();
    };
    const std::string cld = path_of(o.nfsdcld, "nfsdcld/main.sqlite"),
                      track = path_of(o.nfsdcltrack, "nfsdcltrack/main.sqlite"),
                      recovery = path_of(o.v4recovery, "v4recovery"),
                      rmtab = path_of(o.rmtab, "rmtab"), sm = path_of(o.sm, "sm");

    bool superseded = false;
    if (!cld.empty())
        superseded = add_tracker(c, "nfsdcld", cld, named) && !named;
    // Bad scenario: nfsdcld took over from an older tracker years ago, whose files nobody removed;
    // clients of then would be on record again, and could take back locks that others hold by now.
    const char* old = "left out: nfsdcld has taken over from it, what is here is old (name it with "
                      "its option to take it all the same)";
    if (!track.empty()) {
        if (superseded && fs::exists(track))
            c.source("nfsdcltrack", track, 0, old);
        else
            add_tracker(c, "nfsdcltrack", track, named);
    }
    if (!recovery.empty()) {
        const auto read = import::read_recovery_directory(recovery);
        if (readable(c, "v4recovery", recovery, named, read)) {
            if (superseded && !read->clients.empty()) {
                c.source("v4recovery", recovery, 0, old);
            } else {
                c.add(read->clients);
                c.without("v4recovery", read->without);
                c.source("v4recovery", recovery, read->clients.size(),
                         "names as MD5 only; the names themselves are nowhere");
            }
        }
    }
    if (!rmtab.empty()) {
        const auto read = import::read_rmtab(rmtab);
        if (readable(c, "rmtab", rmtab, named, read)) {
            c.without("rmtab", read->without);
            for (const auto& m : read->mounts)
                c.mounts[{m.host, m.path}] = m.count;
            c.source("rmtab", rmtab, read->mounts.size(), "mounts of NFSv3 clients");
        }
    }
    if (!sm.empty()) {
        const auto read = import::read_monitor_directory(sm);
        if (readable(c, "sm", sm, named, read)) {
            c.without("sm", read->without);
            for (const auto& h : read->hosts)
                c.hosts.insert(h.host);
            c.source("sm", sm, read->hosts.size(), "lock clients of NFSv3");
        }
    }
    if (c.by_hash)
        c.notes.push_back(
            std::to_string(c.by_hash) +
            " clients are known by the MD5 of their name only. nfsd finds them if the server's "
            "cld_version is 1 or 2 and its kernel still has the legacy tracker; with cld_version 0 "
            "they cannot reclaim. graced cannot tell when they have reclaimed: the grace lasts to "
            "its deadline, and removes these records");
    return c;
}

std::string render_import(const json& a) {
    std::ostringstream out;
    for (const json& s : a["sources"])
        out << s["kind"].get<std::string>() << " " << s["path"].get<std::string>() << ": "
            << (s["found"] != 0 ? s["found"].dump() + " found; " : "")
            << s["says"].get<std::string>() << "\n";
    std::map<std::pair<std::string, std::string>, std::pair<std::size_t, std::string>> grouped;
    for (const json& n : a["not_taken"]) {
        auto& [count, names] = grouped[{n["source"], n["why"]}];
        if (++count <= 5)
            names += (count == 1 ? "" : ", ") + n["what"].get<std::string>();
    }
    if (!grouped.empty())
        out << "Not taken:\n";
    for (const auto& [key, what] : grouped)
        out << "  " << key.first << ", " << what.first << " times, " << key.second << ": "
            << what.second << (what.first > 5 ? ", … (--json names all)" : "") << "\n";
    for (const json& n : a["notes"])
        out << "Note: " << n.get<std::string>() << ".\n";
    const auto count = [&](const char* key) { return a[key].dump(); };
    out << "server " << a["server"].get<std::string>() << ": " << count("added")
        << (a["dry_run"] == true ? " would be added, " : " added, ") << count("known")
        << " known already, " << count("changed") << " with another principal, " << count("removed")
        << " removed";
    if (a["refused"] != 0)
        out << ", " << count("refused") << " REFUSED (the server moved away, or quorum was lost: "
            << "run it again)";
    out << "\n";
    if (a["dry_run"] == true)
        out << "Nothing was changed (--dry-run).\n";
    return out.str();
}

void run_import(session& s, const import_options& o) {
    collected c = collect(o);
    if (!c.failed.empty())
        return s.failed(exit_failed, "failed", c.failed + ": nothing was imported");
    if (o.replace && c.clients.empty())
        return s.failed(exit_failed, "failed",
                        "no client was found, and --replace would remove every record of server " +
                            o.server + ": nothing was imported");

    // What is on record. A dry run does without it where no daemon runs.
    std::map<std::string, std::string> existing;
    std::set<std::string> existing_hosts;
    std::map<std::pair<std::string, std::string>, std::uint32_t> existing_mounts;
    bool compared = true;
    if (o.dry_run) {
        const auto alive =
            s.around.ask(s.daemon_name(), {{"verb", "status"}}, std::chrono::seconds(3), {});
        compared = alive.has_value();
    }
    if (compared) {
        const auto all = all_clients(s, o.server);
        if (!all)
            return;
        for (const json& r : (*all)["clients"]) {
            const auto name = from_hex(r.value("name_hex", ""));
            if (!name || r.value("server", "") != o.server)
                continue;
            if (r.value("protocol", "") == "NFSv3")
                existing_hosts.insert(*name);
            else
                existing[*name] = from_hex(r.value("principal_hex", "")).value_or("");
        }
        const auto mounts = all_pages(s, "mounts", o.server);
        if (!mounts)
            return;
        for (const json& m : (*mounts)["mounts"])
            existing_mounts[{m.value("client", ""), from_hex(m.value("path_hex", "")).value_or("")}] =
                m.value("count", std::uint32_t{0});
    } else {
        c.notes.push_back("graced is not running: what was found is not compared with what is on "
                          "record");
    }

    json report = {{"ok", true},           {"server", o.server},
                   {"dry_run", o.dry_run}, {"added", 0},
                   {"known", 0},           {"changed", 0},
                   {"removed", 0},         {"refused", 0},
                   {"sources", c.sources}, {"not_taken", c.not_taken},
                   {"notes", c.notes}};
    std::size_t refused = 0, counts[4] = {};
    const char* const names[4] = {"added", "known", "changed", "removed"};

    json request;
    std::size_t size = 0;
    const auto begin = [&] {
        request = {{"verb", "import"},         {"server", o.server},
                   {"force", o.force},         {"timeout", record_limit},
                   {"records", json::array()}, {"remove", json::array()},
                   {"hosts", json::array()},   {"mounts", json::array()}};
        size = 0;
    };
    bool any = false;
    const auto send = [&](bool last) -> bool {
        if (o.dry_run || (size == 0 && !(last && any)))
            return true;
        any = true;
        request["last"] = last;
        const auto answer = s.ask(request, record_limit);
        if (!answer)
            return false;
        for (int i = 0; i < 4; ++i)
            counts[i] += answer->value(names[i], std::size_t{0});
        refused += answer->value("refused", std::size_t{0});
        begin();
        return true;
    };
    begin();
    for (const auto& [name, hash] : c.clients) {
        const auto there = existing.find(name);
        if (there != existing.end() && there->second == hash) {
            ++counts[1];
            continue;
        }
        if (o.dry_run) {
            ++counts[there == existing.end() ? 0 : 2];
            continue;
        }
        const std::size_t more = 2 * (name.size() + hash.size()) + 64;
        if (size + more > request_size && !send(false))
            return;
        request["records"].push_back({{"name_hex", to_hex(name)}, {"princhash_hex", to_hex(hash)}});
        size += more;
    }
    // Of NFSv3 only what is missing is added: --replace is about NFSv4 clients.
    const auto add = [&](const char* list, json entry, bool there, bool same) -> bool {
        if (same || o.dry_run) {
            ++counts[same ? 1 : there ? 2 : 0];
            return true;
        }
        const std::size_t more = entry.dump().size() + 8;
        if (size + more > request_size && !send(false))
            return false;
        request[list].push_back(std::move(entry));
        size += more;
        return true;
    };
    for (const std::string& host : c.hosts)
        if (const bool there = existing_hosts.contains(host); !add("hosts", host, there, there))
            return;
    for (const auto& [mount, count] : c.mounts) {
        const auto there = existing_mounts.find(mount);
        const bool known = there != existing_mounts.end();
        if (!add("mounts",
                 {{"client", mount.first}, {"path_hex", to_hex(mount.second)}, {"count", count}},
                 known, known && there->second == count))
            return;
    }
    for (const auto& [name, hash] : existing) {
        if (!o.replace || c.clients.contains(name))
            continue;
        if (o.dry_run) {
            ++counts[3];
            continue;
        }
        const std::size_t more = 2 * name.size() + 8;
        if (size + more > request_size && !send(false))
            return;
        request["remove"].push_back(to_hex(name));
        size += more;
    }
    if (!send(true))
        return;
    for (int i = 0; i < 4; ++i)
        report[names[i]] = counts[i];
    report["refused"] = refused;
    if (refused != 0) {
        report["ok"] = false;
        report["code"] = "failed";
        s.code = exit_failed;
    }
    s.print(report, render_import);
}

void run_export(session& s, const std::string& server, const std::string& file) {
    const auto status = s.ask({{"verb", "status"}}, look_limit);
    if (!status)
        return;
    const json* about = nullptr;
    for (const json& v : (*status)["servers"])
        if (v.value("name", "") == server)
            about = &v;
    if (!about)
        return s.failed(exit_unknown, "no_such_server", "no server " + server + " is known");
    const auto all = all_clients(s, server);
    if (!all)
        return;
    std::vector<import::nfs4_client> clients;
    std::size_t without = 0;
    for (const json& r : (*all)["clients"]) {
        if (r.value("protocol", "") == "NFSv3") {
            ++without;
            continue;
        }
        const auto name = from_hex(r.value("name_hex", ""));
        const auto hash = from_hex(r.value("principal_hex", ""));
        // A record that lost its hash would let anybody reclaim in that client's name.
        if (!name || name->empty() || !hash || r.value("principal", false) != !hash->empty())
            return s.failed(exit_failed, "failed",
                            "graced's answer is not understood (another version?): nothing was "
                            "written");
        clients.push_back({*name, *hash});
    }
    const auto epoch = std::max<std::uint64_t>(1, status->value("current", std::uint64_t{1}));
    if (auto done = import::write_tracker_database(file, epoch, clients); !done)
        return s.failed(exit_failed, "failed", done.error().message);
    json notes = json::array();
    if (about->value("need", false))
        notes.push_back("server " + server +
                        " is in grace: when it is over, who has not reclaimed is no longer on "
                        "record. Export again then");
    if (without != 0)
        notes.push_back(std::to_string(without) +
                        " clients are of NFSv3: nfsdcld keeps none of those. Their statd's records are "
                        "not written");
    notes.push_back("nfsdcld may use it once server " + server +
                    " is stopped, and nothing else was recorded since");
    s.print({{"ok", true},
             {"server", server},
             {"file", file},
             {"clients", clients.size()},
             {"notes", notes}},
            [](const json& a) {
                std::string out = a["file"].get<std::string>() + ": " + a["clients"].dump() +
                                  " clients of server " + a["server"].get<std::string>() +
                                  ", nfsdcld's version 4\n";
                for (const json& n : a["notes"])
                    out += "Note: " + n.get<std::string>() + ".\n";
                return out;
            });
}

} // namespace

void add_import_verbs(CLI::App& app, session& s) {
    auto o = std::make_shared<import_options>();
    CLI::App* in = app.add_subcommand(
        "import", "take over the clients of nfsdcld, nfsdcltrack or nfsd's own directory");
    in->add_option("--server", o->server, "the server whose clients they are")->required();
    in->add_option("--from", o->from, "a directory like /var/lib/nfs, with everything in it")
        ->capture_default_str();
    in->add_option("--nfsdcld", o->nfsdcld, "nfsdcld's main.sqlite; read only what is named");
    in->add_option("--nfsdcltrack", o->nfsdcltrack, "nfsdcltrack's main.sqlite; the same");
    in->add_option("--v4recovery", o->v4recovery, "the directory v4recovery; the same");
    in->add_option("--rmtab", o->rmtab, "mountd's rmtab; the same");
    in->add_option("--sm", o->sm, "statd's directory sm; the same");
    in->add_flag("--dry-run", o->dry_run, "say what would be done");
    in->add_flag("--replace", o->replace,
                 "remove the server's NFSv4 clients that are in none of the sources");
    in->add_flag("--force", o->force, "though the server runs under graced already");
    in->callback([&s, o] { run_import(s, *o); });

    auto server = std::make_shared<std::string>();
    auto file = std::make_shared<std::string>();
    CLI::App* out = app.add_subcommand("export", "write a database for nfsdcld, to go back to it");
    out->add_option("--server", *server, "the server whose clients")->required();
    out->add_option("file", *file, "the new main.sqlite")->required();
    out->callback([&s, server, file] { run_export(s, *server, *file); });
}

} // namespace grace::ctl
