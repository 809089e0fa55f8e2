// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs that change or wait for the grace period, or hold a gate: start, join, lift, extend, enforce,
// noenforce, wait, fence-notify.
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"

#include <CLI/CLI.hpp>
#include <memory>

namespace grace::ctl {

namespace {

struct arguments {
    std::string subject; // server, phase or node
    wait_limit limit = 0;
    int seconds = 60;
};

CLI::App* add(CLI::App& app, const char* verb, const char* help,
              const std::shared_ptr<arguments>& a, wait_limit limit) {
    CLI::App* sub = app.add_subcommand(verb, help);
    a->limit = limit;
    sub->add_option("--timeout", a->limit, "seconds to wait for the answer; 0: no limit")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    return sub;
}

// The daemon is told the limit too, for its progress lines; the client is who keeps it.
json with_limit(json request, wait_limit limit) {
    if (limit > 0) {
        request["timeout"] = limit;
    }
    return request;
}

} // namespace

void add_grace_verbs(CLI::App& app, session& s) {
    {
        auto a = std::make_shared<arguments>();
        auto* sub = add(app, "start", "start a grace period, or join the one that is on", a, 30);
        sub->add_option("server", a->subject, "whose clients may reclaim; default: every server's");
        sub->callback([&s, a] {
            s.show(with_limit({{"verb", "start"}, {"server", a->subject}}, a->limit), a->limit,
                   [](const json& r) {
                       return render_done(r, "Grace is starting: see gracectl status.");
                   });
        });
    }
    {
        auto a = std::make_shared<arguments>();
        auto* sub =
            add(app, "join", "join the grace period that is on; where there is none, fail", a, 30);
        sub->add_option("server", a->subject, "whose clients may reclaim")->required();
        sub->callback([&s, a] {
            s.show(
                with_limit({{"verb", "start"}, {"server", a->subject}, {"join", true}}, a->limit),
                a->limit, [a](const json& r) {
                    return render_done(r, "Server " + a->subject +
                                              " has joined the grace: see gracectl status.");
                });
        });
    }
    {
        auto a = std::make_shared<arguments>();
        auto* sub =
            add(app, "lift",
                "end a server's need for grace. Clients that did not reclaim yet lose their "
                "locks",
                a, 30);
        sub->add_option("server", a->subject, "default: every server");
        sub->callback([&s, a] {
            s.show(with_limit({{"verb", "lift"}, {"server", a->subject}}, a->limit), a->limit,
                   [](const json& r) {
                       return render_done(r,
                                          "Grace ends when the last server is done: see gracectl "
                                          "status.");
                   });
        });
    }
    {
        auto a = std::make_shared<arguments>();
        auto* sub = add(app, "extend", "give a server's clients more time to reclaim", a, 30);
        sub->add_option("server", a->subject, "default: every server that NEEDs");
        sub->add_option("--by", a->seconds, "seconds; what is added to one START adds up to 3600 at most")
            ->check(CLI::Range(1, 3600))
            ->capture_default_str();
        sub->callback([&s, a] {
            s.show(with_limit({{"verb", "extend"}, {"server", a->subject}, {"seconds", a->seconds}},
                              a->limit),
                   a->limit, [a](const json& r) {
                       return render_done(r, "Its deadline is " + std::to_string(a->seconds) +
                                                 " s later: see gracectl status.");
                   });
        });
    }
    for (const bool on : {true, false}) {
        auto a = std::make_shared<arguments>();
        auto* sub = add(app, on ? "enforce" : "noenforce",
                        on ? "keep this node's gate closed, in normal too: no new lock, to NFS "
                             "clients or local programs"
                           : "let this node's gate open again when the protocol says so",
                        a, 30);
        sub->callback([&s, a, on] {
            s.show(with_limit({{"verb", "hold"}, {"on", on}}, a->limit), a->limit,
                   [on](const json& r) {
                       return render_done(r, on ? "The gate of this node is closed, and stays so "
                                                  "until gracectl noenforce (or graced ends)."
                                                : "Nobody holds the gate of this node closed: see "
                                                  "gracectl status.");
                   });
        });
    }
    {
        auto a = std::make_shared<arguments>();
        auto* sub = add(app, "wait", "wait until the cluster is in a phase", a, 0);
        sub->add_option("phase", a->subject, "normal, entering, reclaiming or lifting")
            ->required()
            ->check(CLI::IsMember({"normal", "entering", "reclaiming", "lifting"}));
        sub->callback([&s, a] {
            s.show(
                with_limit({{"verb", "wait"}, {"phase", a->subject}}, a->limit), a->limit,
                [a](const json& r) { return render_done(r, "The phase is " + a->subject + "."); });
        });
    }
    {
        auto a = std::make_shared<arguments>();
        auto* sub =
            add(app, "fence-notify",
                "tell that a node is about to be fenced; returns when all others enforce", a, 60);
        sub->add_option("node", a->subject, "name or id of the node")->required();
        sub->callback([&s, a] {
            s.show(with_limit({{"verb", "fence-notify"}, {"node", a->subject}}, a->limit), a->limit,
                   [a](const json& r) {
                       return render_done(r, "All nodes but " + a->subject + " enforce.");
                   });
        });
    }
}

} // namespace grace::ctl
