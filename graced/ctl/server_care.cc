// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs about a server as a whole: migrate (Pacemaker moves it), remove (its records go).
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <memory>
#include <ostream>
#include <regex>

namespace grace::ctl {
namespace {

constexpr wait_limit look_limit = 10, act_limit = 30;
constexpr int cib_nothing = 105; // CRM_EX_NOSUCH: no such object

struct arguments {
    std::string server, node;
    wait_limit limit = 0;
    bool yes = false, keep = false;
};

CLI::App* add(CLI::App& app, const char* verb, const char* help,
              const std::shared_ptr<arguments>& a, wait_limit limit) {
    CLI::App* sub = app.add_subcommand(verb, help);
    a->limit = limit;
    sub->add_option("server", a->server, "the server's name")->required();
    sub->add_option("--timeout", a->limit, "seconds to wait for it; 0: no limit")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    return sub;
}

struct view {
    json server, node; // null: there is none
};

std::optional<view> look(session& s, const arguments& a) {
    const auto status = s.ask({{"verb", "status"}}, look_limit);
    if (!status)
        return std::nullopt;
    view v;
    for (const json& one : status->value("servers", json::array()))
        if (one.value("name", "") == a.server)
            v.server = one;
    for (const json& one : status->value("nodes", json::array()))
        if (one.value("name", "") == a.node || (one.contains("id") && one["id"].dump() == a.node))
            v.node = one;
    if (v.server.is_null()) {
        s.failed(exit_unknown, "no_such_server", "no server " + a.server + " is known to graced");
        return std::nullopt;
    }
    return v;
}

// --- migrate ---

// One of Pacemaker's tools; what it printed.
std::optional<std::string> pacemaker(session& s, const std::vector<std::string>& command,
                                     std::chrono::seconds limit) {
    const auto said = s.around.run_program(command, limit);
    if (said && said->code == 0)
        return said->out;
    const bool late = (said && said->code == 124) || (!said && said.error().code == ETIMEDOUT);
    s.failed(late ? exit_timeout : exit_failed, late ? "timeout" : "pacemaker",
             command.front() + (said ? " ended with " + std::to_string(said->code) + ": " +
                                           said->err.substr(0, said->err.find('\n'))
                                     : ": " + said.error().message));
    return std::nullopt;
}

std::optional<std::string> resource_of(session& s, const std::string& server,
                                       const std::string& by_hand) {
    // A name of a server has letters, digits and dashes (graced.conf(5)); graced knows this one.
    const auto said = s.around.run_program(
        {"cibadmin", "--query", "--xpath",
         "//primitive[@class='ocf'][@provider='graced'][@type='server'][instance_attributes/"
         "nvpair[@name='server'][@value='" +
             server + "']]"},
        std::chrono::seconds(30));
    std::smatch id;
    static const std::regex wanted("<primitive [^>]*\\bid=\"([^\"]+)\"");
    if (said && said->code == 0 && std::regex_search(said->out, id, wanted))
        return id[1].str();
    if (said && (said->code == 0 || said->code == cib_nothing))
        s.failed(exit_unknown, "no_such_resource",
                 "Pacemaker has no resource of ocf:graced:server for server " + server + ". " +
                     by_hand);
    else
        s.failed(exit_failed, "no_pacemaker", "Pacemaker does not answer on this node. " + by_hand);
    return std::nullopt;
}

bool is_there(const view& v) {
    return !v.server["host"].is_null() && v.server["host"] == v.node["id"];
}

void migrate(session& s, const arguments& a) {
    const auto before = look(s, a);
    if (!before)
        return;
    if (before->node.is_null())
        return s.failed(exit_unknown, "no_such_node", "no node " + a.node + " is known to graced");
    const std::string node = before->node.value("name", a.node);
    const auto done = [&] {
        s.print({{"ok", true}, {"server", a.server}, {"node", node}},
                [&](const json&) { return "Server " + a.server + " is on " + node + ".\n"; });
    };
    if (is_there(*before))
        return done();
    if (!before->node.value("synced", false) || !before->node.value("attached", false))
        return s.failed(
            exit_not_enforcing, "not_enforcing",
            "graced does not run on " + node +
                ", or its gate is not attached: the server could not open reclaim there");
    const auto id =
        resource_of(s, a.server,
                    "By hand: graced-server stop " + a.server +
                        " where it runs, then graced-server start " + a.server + " on " + node);
    if (!id)
        return;
    // Without it the server goes back when the constraint goes: a second grace, for nothing.
    if (!a.keep) {
        const auto sticky = s.around.run_program(
            {"crm_resource", "--resource", *id, "--meta", "--get-parameter", "resource-stickiness"},
            std::chrono::seconds(30));
        if (!sticky || sticky->code != 0 || std::atoi(sticky->out.c_str()) <= 0)
            return s.failed(exit_failed, "not_sticky",
                            "resource " + *id +
                                " has no resource-stickiness: it could move back by itself. Set it "
                                "(pacemaker.md), or --keep the constraint");
    }
    const std::chrono::seconds limit(a.limit > 0 ? static_cast<std::int64_t>(a.limit) + 1 : 86400);
    const std::string clear = "crm_resource --resource " + *id + " --clear";
    const auto moved_there = [&] {
        if (!pacemaker(s,
                       {"crm_resource", "--wait", "--timeout", std::to_string(limit.count()) + "s"},
                       limit + std::chrono::seconds(10)))
            return false;
        const auto now = look(s, a);
        if (now && !is_there(*now))
            s.failed(exit_failed, "not_moved",
                     "server " + a.server + " is not on " + node +
                         ": crm_mon, and the log of ocf:graced:server, say why");
        return now && is_there(*now);
    };
    s.around.err << "resource " << *id << ": crm_resource --move --node " << node << std::endl;
    if (!pacemaker(s, {"crm_resource", "--resource", *id, "--move", "--node", node},
                   std::chrono::seconds(60)))
        return;
    if (!moved_there()) {
        s.around.err << "gracectl: Pacemaker still has the constraint that moves it: " << clear
                     << "\n";
        return;
    }
    if (a.keep)
        return done();
    if (!pacemaker(s, {"crm_resource", "--resource", *id, "--clear"}, std::chrono::seconds(60)) ||
        !moved_there())
        return;
    done();
}

// --- remove ---

// By a grace that nobody comes to: START, lift, and the purge that is durable on every member. Safe
// in every phase, as those are.
void remove_records(session& s, const arguments& a) {
    const auto hosted = [&](const view& v) { return !v.server["host"].is_null(); };
    const auto before = look(s, a);
    if (!before)
        return;
    if (hosted(*before))
        return s.failed(exit_hosted_elsewhere, "hosted_elsewhere",
                        "server " + a.server + " is hosted by node " +
                            before->server["host"].dump() + ": stop it first (graced-server stop " +
                            a.server + ")");
    const auto clients = before->server.value("clients", std::uint64_t{0});
    const auto gone = [&](std::uint64_t n) {
        s.print({{"ok", true}, {"server", a.server}, {"removed", n}}, [&](const json&) {
            return "Server " + a.server + " has no clients on record" + (n ? " any more" : "") +
                   ".\n";
        });
    };
    if (clients == 0)
        return gone(0);
    if (!a.yes)
        return s.failed(
            exit_usage, "usage",
            std::to_string(clients) + " clients of server " + a.server +
                " would not be able to reclaim their locks any more, and all nodes hold new locks "
                "back for a moment. If that is what you want, say --yes");
    if (!s.ask({{"verb", "start"}, {"server", a.server}}, act_limit))
        return;
    if (!s.ask({{"verb", "lift"}, {"server", a.server}, {"only_unhosted", true}}, act_limit))
        return;
    if (!s.ask({{"verb", "wait"}, {"phase", "normal"}}, a.limit))
        return;
    const auto after = look(s, a);
    if (!after)
        return;
    if (hosted(*after) || after->server.value("clients", std::uint64_t{0}) != 0)
        return s.failed(exit_failed, "void_now",
                        "server " + a.server + " was started meanwhile: nothing more was removed");
    gone(clients);
}

} // namespace

void add_server_care(CLI::App& app, session& s) {
    {
        auto a = std::make_shared<arguments>();
        CLI::App* sub = add(app, "migrate", "have Pacemaker move a server to another node", a, 600);
        sub->add_option("node", a->node, "where to: name or id")->required();
        sub->add_flag("--keep", a->keep, "keep Pacemaker's constraint that moved it");
        sub->callback([&s, a] { migrate(s, *a); });
    }
    {
        auto a = std::make_shared<arguments>();
        CLI::App* sub = add(
            app, "remove", "take the clients of a server that no node hosts off the record", a, 60);
        sub->add_flag("--yes", a->yes, "yes, they are not to reclaim");
        sub->callback([&s, a] { remove_records(s, *a); });
    }
}

} // namespace grace::ctl
