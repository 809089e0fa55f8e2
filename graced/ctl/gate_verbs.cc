// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs about the gate itself: bypass (break glass), exempt.
//
// Bypass without a daemon goes straight to the kernel. Bad scenario: graced has died here, the others
// count this node as enforcing, since a kernel without its daemon closes by itself; the operator
// opens it all the same, and somewhere else reclaims begin. So where others run graced, they must be
// told before.
#include "graced/config.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>

namespace grace::ctl {

namespace {

constexpr wait_limit bypass_limit = 15; // a daemon without quorum says so after 10 s

constexpr const char* what_it_means =
    "While it is on, every lock passes the gate: of programs, and of NFS clients, new ones and "
    "reclaims, as on a node without graced. Clients of servers that stop or move meanwhile can lose "
    "their locks to others, and files can be corrupted by that. No server of the cluster can open "
    "reclaim until it is off. If that is what you want, say --yes";

struct bypass_arguments {
    std::string state, node;
    bool yes = false, cluster = false, told = false;
};

std::string group_name() {
    const auto configured = load_config(default_config_file, false);
    return configured ? configured->graced.group : config{}.graced.group;
}

void straight(session& s, const bypass_arguments& a, const std::string& why) {
    const bool on = a.state == "on";
    if (!s.around.bypass_here || !s.around.graced_elsewhere)
        return s.failed(exit_not_running, "not_running", why);
    if (on && !a.told) {
        const auto others = s.around.graced_elsewhere(group_name());
        if (!others || !others->empty()) {
            std::string nodes;
            if (others)
                for (const std::uint32_t n : *others)
                    nodes += (nodes.empty() ? "" : ", ") + std::to_string(n);
            return s.failed(
                exit_failed, "others_not_told",
                why + ". " +
                    (others ? "But graced runs on node(s) " + nodes +
                                  ", where this node counts as one whose gate is closed. First say "
                                  "there: gracectl bypass on --yes --node THIS-NODE; "
                            : others.error().message +
                                  ", so whether graced runs on other nodes, where this one counts "
                                  "as closed, is not known. If it does, first say there: gracectl "
                                  "bypass on --yes --node THIS-NODE; ") +
                    "then here: gracectl bypass on --yes --told");
        }
    }
    if (const auto done = s.around.bypass_here(on); !done)
        return s.failed(done.error().code == EPERM || done.error().code == EACCES ? exit_permission
                                                                                  : exit_failed,
                        "failed", done.error().message);
    s.print({{"ok", true}, {"bypass", on}, {"directly", true}}, [&](const json&) {
        return why + ".\nThe kernel was told directly: the bypass of this node is " +
               (on ? "ON. End it: gracectl bypass off\n"
                   : "off; its gate is closed until graced runs and opens it.\n");
    });
}

void bypass(session& s, const bypass_arguments& a) {
    const bool on = a.state == "on";
    if (on && !a.yes)
        return s.failed(exit_usage, "usage", what_it_means);
    json request = {{"verb", "bypass"}, {"on", on}};
    const bool here = !a.cluster && a.node.empty();
    if (!here)
        request["node"] = a.cluster ? "" : a.node;
    const auto answer =
        s.around.ask(s.daemon_name(), request,
                     std::chrono::milliseconds(static_cast<std::int64_t>(bypass_limit * 1000)), {});
    if (here && !answer)
        return straight(s, a, answer.error().message);
    if (const auto heard = s.heard(answer))
        s.print(*heard, [&](const json& r) {
            return render_done(r, std::string("The bypass of ") +
                                      (here        ? "this node"
                                       : a.cluster ? "every node"
                                                   : "node " + a.node) +
                                      " is " +
                                      (on ? "ON. End it: gracectl bypass off" : "off") +
                                      (here || !on   ? ""
                                       : a.cluster ? " --cluster"
                                                   : " --node " + a.node) +
                                      ".");
        });
}

} // namespace

void add_gate_verbs(CLI::App& app, session& s) {
    {
        auto a = std::make_shared<bypass_arguments>();
        auto* sub = app.add_subcommand(
            "bypass", "open this node's gate past everything, when graced cannot (break glass)");
        sub->add_option("state", a->state, "on or off")
            ->required()
            ->check(CLI::IsMember({"on", "off"}));
        sub->add_flag("--yes", a->yes, "with on: yes, locks are to go unprotected");
        auto* cluster = sub->add_flag("--cluster", a->cluster, "every node on which graced runs");
        sub->add_option("--node", a->node,
                        "this node (name or id): if graced runs there it switches, if not the "
                        "others count it as open")
            ->excludes(cluster);
        sub->add_flag("--told", a->told,
                      "with on, where graced does not run: the other nodes were told with --node");
        sub->callback([&s, a] { bypass(s, *a); });
    }
    {
        struct arguments {
            std::uint32_t pid = 0;
            bool off = false;
        };
        auto a = std::make_shared<arguments>();
        auto* sub = app.add_subcommand(
            "exempt", "let a process pass the gate: an NFS server in user space that keeps grace by "
                      "graced's word. Ends with the process, and with graced");
        sub->add_option("pid", a->pid, "its process id")->required();
        sub->add_flag("--off", a->off, "no longer");
        sub->callback([&s, a] {
            s.show({{"verb", "exempt"}, {"pid", a->pid}, {"on", !a->off}}, 10, [a](const json& r) {
                return render_done(r, "Process " + std::to_string(a->pid) +
                                          (a->off ? " is held back like any other."
                                                  : " passes the gate."));
            });
        });
    }
}

} // namespace grace::ctl
