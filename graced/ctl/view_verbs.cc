// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs that only look: status, dump, servers, nodes, clients, version.
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"

#include <CLI/CLI.hpp>
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

// The daemon answers in pages: a page ends with "more": true, the next is asked for by its last
// client. One answer that holds a million clients would stop the daemon's loop for as long as it
// takes to write it.
std::optional<json> all_clients(session& s, const std::string& server) {
    json all = {{"ok", true}, {"clients", json::array()}, {"more", false}};
    json request = {{"verb", "clients"}};
    if (!server.empty()) {
        request["server"] = server;
    }
    for (;;) {
        const auto page = s.ask(request, look_limit);
        if (!page) {
            return std::nullopt;
        }
        const auto clients = page->find("clients");
        if (clients == page->end() || !clients->is_array()) {
            return all;
        }
        for (const json& c : *clients) {
            all["clients"].push_back(c);
        }
        const auto more = page->find("more");
        if (more == page->end() || *more != true || clients->empty()) {
            return all;
        }
        const json& last = clients->back();
        const std::string after_server = last.value("server", "");
        const std::string after_hex = last.value("name_hex", "");
        if (request.value("after_server", "") == after_server &&
            request.value("after_hex", "") == after_hex) {
            all["more"] = true; // a daemon that does not know pages
            return all;
        }
        request["after_server"] = after_server;
        request["after_hex"] = after_hex;
    }
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
    auto server = std::make_shared<std::string>();
    clients->add_option("--server", *server, "only of this server");
    clients->callback([&s, server] {
        if (const auto all = all_clients(s, *server)) {
            s.print(*all, render_clients);
        }
    });

    app.add_subcommand("version", "versions of gracectl and of the running daemon")->callback([&s] {
        show_version(s);
    });
}

} // namespace grace::ctl
