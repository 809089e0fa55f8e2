// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs that only look: status, dump, servers, nodes, clients, version.
#include "graced/adapters/client_history.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/nfsd_clients.hh"
#include "graced/ctl/render.hh"
#include "graced/hex.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>

namespace grace::ctl {

namespace {

constexpr wait_limit look_limit = 10;
const json ask_status = {{"verb", "status"}};

// A part of status, for `--json` of the verbs that show only that part.
void show_part(session& s, std::initializer_list<const char*> keys,
               const std::function<std::string(const json&)>& render) {
    const auto status = s.ask(ask_status, look_limit);
    if (!status) {
        return;
    }
    if (!s.as_json) {
        s.print(*status, render);
        return;
    }
    json part = {{"ok", true}};
    for (const char* key : keys) {
        part[key] = status->contains(key) ? (*status)[key] : json();
    }
    s.print(part, render);
}

struct client_options {
    std::string server, sort, history_of;
    bool not_reclaimed = false, history = false;
};
constexpr std::size_t history_limit = 1000;

// What the nfsd of this node knows of them: it alone has address and minor version.
void ask_nfsd(json& all) {
    const json where = all.value("nfsd_fs", json::object());
    std::map<std::string, std::map<std::string, nfsd_client>> known;
    if (where.is_object()) {
        for (const auto& [server, path] : where.items()) {
            if (path.is_string()) {
                known[server] = read_nfsd_clients(path.get<std::string>());
            }
        }
    }
    for (json& c : all["clients"]) {
        if (!c.is_object()) {
            continue;
        }
        c["address"] = c["minor_version"] = c["status"] = c["last_renew"] = nullptr;
        if (c.value("protocol", "") == "NFSv3") {
            continue; // lockd shows nobody what it knows
        }
        const auto server = known.find(c.value("server", ""));
        const auto name = from_hex(c.value("name_hex", ""));
        if (server == known.end() || !name) {
            continue;
        }
        const auto found = server->second.find(*name);
        if (found == server->second.end()) {
            continue;
        }
        const nfsd_client& n = found->second;
        c["address"] = n.address;
        c["status"] = n.status;
        if (n.minor_version) {
            c["minor_version"] = *n.minor_version;
            c["protocol"] = "NFSv4." + std::to_string(*n.minor_version);
        }
        if (n.last_renew) {
            c["last_renew"] = *n.last_renew;
        }
    }
    all.erase("nfsd_fs");
}

// "recorded since", by the history that the daemon of this node keeps.
void ask_history(json& all) {
    const auto path = all.find("history");
    const auto known = path != all.end() && path->is_string()
                           ? client_history::read_since(path->get<std::string>())
                           : fail("the daemon keeps no history");
    for (json& c : all["clients"]) {
        if (!c.is_object()) {
            continue;
        }
        c["since"] = nullptr;
        const auto name = from_hex(c.value("name_hex", ""));
        if (!known || !name) {
            continue;
        }
        const auto found = known->find({c.value("server", ""), *name});
        if (found != known->end() &&
            !(found->second.gap && c.value("epoch", std::uint64_t{0}) > found->second.at.value)) {
            c["since"] = found->second.time;
        }
    }
    all.erase("history");
}

void show_history(session& s, const client_options& o) {
    const auto page = s.ask({{"verb", "clients"}, {"server", o.server}}, look_limit);
    if (!page) {
        return;
    }
    const auto events = client_history::read(page->value("history", ""), o.server,
                                             from_printable(o.history_of), history_limit);
    if (!events) {
        return s.failed(exit_failed, "failed", events.error().message);
    }
    json all = {{"ok", true}, {"events", json::array()}};
    for (const history_event& e : *events) {
        all["events"].push_back({{"time", e.time},
                                 {"what", e.what},
                                 {"server", e.server},
                                 {"name", printable(e.client)},
                                 {"name_hex", to_hex(e.client)},
                                 {"epoch", e.at.value}});
    }
    s.print(all, [&s](const json& a) { return render_history(a, s.around.now()); });
}

void show_clients(session& s, const client_options& o) {
    if (o.history) {
        return show_history(s, o);
    }
    auto all = all_clients(s, o.server);
    if (!all) {
        return;
    }
    ask_nfsd(*all);
    ask_history(*all);
    json& clients = (*all)["clients"];
    if (o.not_reclaimed) {
        json left = json::array();
        for (json& c : clients) {
            if (c.is_object() && !c.value("reclaimed", true)) {
                left.push_back(std::move(c));
            }
        }
        clients = std::move(left);
    }
    if (!o.sort.empty()) {
        // Stable: what is equal stays in the order of server and name.
        const char* key = o.sort.c_str();
        std::stable_sort(clients.begin(), clients.end(), [&](const json& a, const json& b) {
            if (!a.is_object() || !b.is_object()) {
                return a.is_object() > b.is_object();
            }
            const json x = a.value(key, json()), y = b.value(key, json());
            if (o.sort == "epoch") {
                return y < x;
            }
            if (x.is_null() != y.is_null()) {
                return y.is_null(); // who is not known comes last
            }
            return x < y;
        });
    }
    s.print(*all, [&s](const json& a) { return render_clients(a, s.around.now()); });
}

void show_mounts(session& s, const std::string& server, bool as_rmtab) {
    const auto all = all_pages(s, "mounts", server);
    if (!all) {
        return;
    }
    if (as_rmtab) {
        s.around.out << render_rmtab(*all);
        return;
    }
    s.print(*all, render_mounts);
}

// Asked for here, not by the daemon: see node_view.hh.
void add_filesystems(session& s, json& status) {
    if (!s.around.gfs2_mounts)
        return;
    json all = json::array();
    for (const gfs2_mount& m : s.around.gfs2_mounts())
        all.push_back({{"path", m.path}, {"device", m.device}, {"uuid", m.uuid}, {"gate", m.gate}});
    status["filesystems"] = std::move(all);
}

void show_version(session& s) {
    // The daemon's version is a bonus: no daemon is no error here.
    const auto answer = s.around.ask(s.daemon_name(), ask_status, std::chrono::seconds(3), {});
    json versions = {{"ok", true}, {"gracectl", GRACED_VERSION}, {"graced", nullptr}};
    if (answer && answer->is_object() && answer->contains("version")) {
        versions["graced"] = (*answer)["version"];
    }
    s.print(versions, [](const json& v) {
        return "gracectl " + v["gracectl"].get<std::string>() + "\ngraced " +
               (v["graced"].is_string() ? v["graced"].get<std::string>() : "(not running)") + "\n";
    });
}

} // namespace

// The daemon answers in pages: a page ends with "more": true, the next is asked for by its last
// client. One answer that holds a million clients would stop the daemon's loop for as long as it
// takes to write it.
std::optional<json> all_clients(session& s, const std::string& server) {
    return all_pages(s, "clients", server);
}

std::optional<json> all_pages(session& s, const char* verb, const std::string& server) {
    json all = {{"ok", true}, {verb, json::array()}, {"more", false}};
    json request = {{"verb", verb}};
    if (!server.empty()) {
        request["server"] = server;
    }
    for (;;) {
        const auto page = s.ask(request, look_limit);
        if (!page) {
            return std::nullopt;
        }
        const auto clients = page->find(verb);
        if (clients == page->end() || !clients->is_array()) {
            return all;
        }
        for (const json& c : *clients) {
            all[verb].push_back(c);
        }
        for (const char* where : {"nfsd_fs", "history"}) {
            if (page->contains(where)) {
                all[where] = (*page)[where];
            }
        }
        const auto more = page->find("more");
        if (more == page->end() || *more != true || clients->empty()) {
            return all;
        }
        const json& last = clients->back();
        const std::string after_server = last.value("server", "");
        const std::string after_hex = last.value("key_hex", "");
        if (request.value("after_server", "") == after_server &&
            request.value("after_hex", "") == after_hex) {
            all["more"] = true; // a daemon that does not know pages
            return all;
        }
        request["after_server"] = after_server;
        request["after_hex"] = after_hex;
    }
}

void add_view_verbs(CLI::App& app, session& s) {
    app.add_subcommand("status", "phase, epochs, gate, nodes and servers of the cluster")
        ->callback([&s] {
            if (auto status = s.ask(ask_status, look_limit)) {
                add_filesystems(s, *status);
                s.print(*status, [&s](const json& a) { return render_status(a, s.around.now()); });
                return;
            }
            // It needs no daemon to be on, and must not be forgotten for want of one.
            if (s.around.bypassed_here && s.around.bypassed_here().value_or(false))
                s.around.err << "!! THE GATE OF THIS NODE IS BYPASSED by an operator: no lock is held "
                                "back here. End it: gracectl bypass off\n";
        });
    app.add_subcommand("dump", "epochs and flags, in the format of rados_grace")->callback([&s] {
        show_part(s, {"current", "recovery", "servers", "nodes"}, render_dump);
    });
    app.add_subcommand("servers", "the NFS servers: who needs grace (N), hosts, clients")
        ->callback([&s] {
            show_part(s, {"servers"},
                      [&s](const json& a) { return render_servers(a, s.around.now()); });
        });
    app.add_subcommand("nodes", "the nodes: who enforces (E), and in what state they are")
        ->callback([&s] { show_part(s, {"nodes"}, render_nodes); });

    auto* clients = app.add_subcommand("clients", "the clients on record");
    auto o = std::make_shared<client_options>();
    clients->add_option("--server", o->server, "only of this server");
    clients->add_flag("--not-reclaimed", o->not_reclaimed, "only who may still reclaim");
    clients
        ->add_option("--sort", o->sort,
                     "by name, epoch (the one recorded last first), reclaimed (who has not first), "
                     "address; default: by server and name")
        ->check(CLI::IsMember({"name", "epoch", "reclaimed", "address"}));
    auto* history = clients->add_option(
        "--history", o->history_of,
        "what became of CLIENT (its name as shown, or name_hex), or of all: the last 1000 events that "
        "this node has heard of");
    history->expected(0, 1)->type_name("[CLIENT]");
    clients->callback([&s, o, history] {
        o->history = history->count() > 0;
        show_clients(s, *o);
    });

    auto* mounts = app.add_subcommand("mounts", "who has mounted what over NFSv3");
    auto of = std::make_shared<std::string>();
    auto as_rmtab = std::make_shared<bool>(false);
    CLI::Option* which = mounts->add_option("--server", *of, "only of this server");
    mounts->add_flag("--rmtab", *as_rmtab, "in the format of mountd's rmtab")->needs(which);
    mounts->callback([&s, of, as_rmtab] { show_mounts(s, *of, *as_rmtab); });

    app.add_subcommand("version", "versions of gracectl and of the running daemon")->callback([&s] {
        show_version(s);
    });
}

} // namespace grace::ctl
