// SPDX-License-Identifier: GPL-2.0-or-later
// grace-sim: random clusters and faults against the production engine.
//
// One seed draws everything. First the fault phase: crashes, daemon deaths, splits, moves, upcalls,
// on slow and jittery channels. Then the calm phase: everything is powered, fenced and started, and
// every grace must lift (L1). What is checked after each event is what the simulated kernels, disks
// and clients see, not what the daemons say.
#include "sim/world.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

namespace grace::sim {
namespace {

struct client_truth {
    bool acknowledged = false; // its record was acknowledged, and nothing has ended that since
    bool lost = false;         // purged, or its server went without it: may not reclaim
};

class run {
public:
    run(std::uint64_t seed, bool trace)
        : seed_(seed)
        , w_(draw_size(seed), seed)
        , trace_(trace) {
        size_ = static_cast<unsigned>(w_.nodes.size());
        w_.defaults.grace_period = seconds(10);
        w_.defaults.orphan_timeout = seconds(30);
        w_.defaults.daemon_timeout = seconds(25);
        w_.defaults.permit_ttl = milliseconds(800);
        w_.defaults.heartbeat_interval = milliseconds(150);
        w_.jitter = milliseconds(static_cast<std::int64_t>(w_.draw(4) * 10));
        servers_ = 1 + static_cast<unsigned>(w_.draw(3));
        faults_ = 3 + static_cast<unsigned>(w_.draw(12));
        w_.upcall_answered = [this](node& n, ticket t, upcall_status s) {
            upcall_answered(n, t, s);
        };
        w_.noticed = [this](node_id n) {
            for (const std::string& s : gone_[n])
                dropped(s);
            gone_.erase(n);
        };
    }

    // Nothing, or what went wrong.
    std::string go() {
        try {
            for (unsigned i = 1; i <= size_; ++i) {
                w_[i].verbose = trace_;
                w_.boot(i);
            }
            for (unsigned i = 1; i <= size_; ++i)
                w_.start_daemon(i);
            w_.run_for(seconds(3));
            for (unsigned i = 0; i < faults_; ++i) {
                fault();
                live(milliseconds(static_cast<std::int64_t>(20 + w_.draw(4000))));
                if (!bad_.empty())
                    return bad_;
            }
            calm();
        } catch (const std::exception& e) {
            return e.what();
        }
        return bad_;
    }
    void tell(transitions& t) { w_.told = &t; }
    std::string setting() const {
        return std::to_string(size_) + " nodes, " + std::to_string(servers_) + " servers, jitter " +
               std::to_string(w_.jitter / 1'000'000) + " ms, " + std::to_string(faults_) +
               " faults";
    }

private:
    static unsigned draw_size(std::uint64_t seed) {
        static const unsigned sizes[] = {3, 3, 3, 2, 4, 5, 1, 3};
        return sizes[seed % 8];
    }
    void say(const std::string& what) {
        if (trace_)
            std::cerr << w_.now / 1'000'000 << " ms ---- " << what << '\n';
    }
    unsigned any_node() { return 1 + static_cast<unsigned>(w_.draw(size_)); }
    std::string any_server() { return "vs" + std::to_string(1 + w_.draw(servers_)); }
    std::string any_client() { return "client" + std::to_string(w_.draw(4)); }

    void fault() {
        unsigned i = any_node();
        node& n = w_[i];
        switch (w_.draw(10)) {
        case 0:
        case 1:
            if (n.powered && !split_) {
                say("power off node " + std::to_string(i));
                drop_servers(n);
                w_.power_off(i);
                later_fence(i);
            }
            break;
        case 2:
            if (n.daemon) {
                say("kill daemon of node " + std::to_string(i));
                w_.kill_daemon(i);
            }
            break;
        case 3:
            if (split_)
                break;
            split(i);
            break;
        case 4:
            if (n.daemon) {
                std::string s = any_server();
                say("operator lifts " + s);
                n.take(input::lift{s, n.new_ticket()});
            }
            break;
        case 5:
            if (n.daemon) {
                std::string s = any_server();
                say("operator starts grace for " + s);
                n.take(input::start{s, n.new_ticket()});
            }
            break;
        case 6:
            stop_server(n);
            break;
        default:
            break; // just time
        }
    }

    void split(unsigned i) {
        // One node is cut off; it is fenced later, as DLM demands.
        if (!w_[i].powered || size_ == 1)
            return;
        say("cut off node " + std::to_string(i));
        split_ = i;
        w_.after(w_.token, [this, i] {
            std::vector<unsigned> rest;
            for (node_id k : w_.ring_of(node_id{i}))
                if (k.value != i)
                    rest.push_back(k.value);
            if (!w_[i].powered || rest.empty())
                return;
            w_.locks.freeze(node_id{i});
            for (auto& [s, a] : w_[i].running)
                dropped(s);
            w_.split({rest, {i}});
        });
        w_.after(w_.token + milliseconds(static_cast<std::int64_t>(w_.draw(6000))), [this, i] {
            say("fence node " + std::to_string(i));
            split_ = 0;
            w_.power_off(i); // what it served was dropped when it was cut off
            w_.after(w_.token + milliseconds(10), [this, i, b = w_[i].boot] {
                if (w_[i].boot == b)
                    w_.fence(i);
            });
        });
    }

    void later_fence(unsigned i) {
        w_.after(w_.token + milliseconds(static_cast<std::int64_t>(10 + w_.draw(8000))),
                 [this, i, b = w_[i].boot] {
                     if (w_[i].boot != b)
                         return; // it is back, and was fenced for that
                     say("node " + std::to_string(i) + " is fenced");
                     w_.fence(i);
                 });
    }

    // The node's servers are gone; the others drop their locks when they notice.
    void drop_servers(node& n) {
        for (auto& [s, a] : n.running)
            gone_[n.id].insert(s);
    }
    void dropped(const std::string& server) {
        for (auto& [key, c] : clients_)
            if (key.first == server && c.acknowledged)
                vulnerable_.insert(server);
    }

    void stop_server(node& n) {
        if (!n.daemon || n.running.empty())
            return;
        std::string s = n.running.begin()->first;
        say("stop server " + s + " on node " + std::to_string(n.id.value));
        ticket t = n.new_ticket();
        n.take(input::stop{s, t});
        stopping_[{n.id, n.boot, s}] = t;
    }

    // What administrators and clients do all the time.
    void live(duration d) {
        const instant end = w_.now + d;
        while (w_.now < end && bad_.empty()) {
            w_.run_for(milliseconds(static_cast<std::int64_t>(10 + w_.draw(60))));
            check();
            people();
        }
    }

    void people() {
        for (unsigned i = 1; i <= size_; ++i) {
            node& n = w_[i];
            if (!n.powered && !w_.locks.frozen() && w_.draw(20) == 0) {
                say("boot node " + std::to_string(i));
                w_.boot(i);
            }
            if (n.powered && !n.daemon && w_.draw(8) == 0 && n.id != node_id{split_}) {
                say("start daemon on node " + std::to_string(i));
                w_.start_daemon(i);
            }
            if (!n.daemon)
                continue;
            stops(n);
            serves(n);
        }
        if (w_.draw(4) == 0)
            ask_to_serve();
        if (w_.draw(2) == 0)
            traffic();
    }

    void ask_to_serve() {
        std::string s = any_server();
        for (auto& [id, n] : w_.nodes)
            if (n->powered && n->running.contains(s))
                return;
        node& n = w_[any_node()];
        if (!n.daemon || serving_.contains({n.id, s}) || stopping_.contains({n.id, n.boot, s}))
            return;
        serving_[{n.id, s}] = {w_.serve(n.id.value, s), n.life};
    }

    void serves(node& n) {
        std::erase_if(serving_, [&](auto& e) {
            auto& [key, request] = e;
            if (key.first != n.id)
                return false;
            if (request.second != n.life)
                return true; // its daemon is another one
            auto a = n.answers.find(request.first.value);
            if (a == n.answers.end())
                return false;
            if (a->second.first == request_status::done) {
                say("nfsd of " + key.second + " starts on node " + std::to_string(n.id.value));
                w_.nfsd_start(n.id.value, key.second);
            }
            return true;
        });
    }

    void stops(node& n) {
        std::erase_if(stopping_, [&](auto& e) {
            auto& [id, boot, server] = e.first;
            if (id != n.id)
                return false;
            if (boot != n.boot)
                return true;
            auto a = n.answers.find(e.second.value);
            if (a == n.answers.end())
                return false;
            if (a->second.first != request_status::done)
                return true;
            say("server " + server + " is down on node " + std::to_string(id.value));
            if (n.running.erase(server))
                dropped(server);
            n.take(input::released{server, n.new_ticket()});
            return true;
        });
    }

    void traffic() {
        std::string s = any_server(), c = any_client();
        for (auto& [id, n] : w_.nodes) {
            if (!n->daemon || !n->running.contains(s))
                continue;
            auto& truth = clients_[{s, c}];
            bool listed = std::ranges::count(n->nfsd_lists[s], c) != 0;
            bool in_reclaim = n->kern.reclaim.contains(s);
            bool open = n->kern.open(w_.now);
            if (listed && in_reclaim) {
                if (truth.lost)
                    fail("S3: " + c + " of " + s + " was purged and may reclaim");
                pending_[{id, n->life, w_.create(id.value, s, c).value}] = {s, c};
            } else if (open && vulnerable_.empty()) {
                // Recorded anew from here on, also if nobody lives to say so (seed 374).
                truth.lost = false;
                pending_[{id, n->life, w_.create(id.value, s, c).value}] = {s, c};
            }
            return;
        }
    }

    // Answers to upcalls, counted at once: later a purge may have taken the record away (seed 948).
    void upcall_answered(node& n, ticket t, upcall_status status) {
        auto it = pending_.find({n.id, n.life, t.value});
        if (it == pending_.end())
            return;
        const auto [server, client] = it->second;
        pending_.erase(it);
        if (status != upcall_status::ok)
            return;
        std::size_t copies = 0;
        for (auto& [k, m] : w_.nodes) {
            auto r = m->disk.records.find(server);
            if (r != m->disk.records.end() && r->second.contains(client))
                ++copies;
        }
        if (copies * 2 <= size_ && copies != size_ && size_ > 2)
            fail("S5: acknowledged, and on " + std::to_string(copies) + " disks of " +
                 std::to_string(size_));
        clients_[{server, client}] = {true, false};
    }

    void check() {
        if (!w_.violations.empty())
            fail(w_.violations.front());
        // S6: quorate members at the same position have the same state.
        std::map<std::pair<view_id, position>, const node*> seen;
        for (auto& [id, n] : w_.nodes) {
            if (!n->daemon || !n->machine().synced() || !n->machine().quorate())
                continue;
            const state& s = n->machine().replicated();
            auto [it, fresh] = seen.insert({{s.view, s.applied}, n.get()});
            if (fresh)
                continue;
            state a = s, b = it->second->machine().replicated();
            for (auto* x : {&a, &b}) // DURABLE moves no position
                for (auto& [k, m] : x->nodes)
                    m.durable = {};
            if (a != b)
                fail("S6: nodes disagree at the same position");
        }
        // A lift has covered what was dropped before it, once the server's START came after.
        for (auto& [id, n] : w_.nodes) {
            if (!n->daemon || !n->machine().synced() || !n->machine().quorate())
                continue;
            const state& s = n->machine().replicated();
            if (s.recovery)
                lift_seen_ = 0;
            for (auto it = vulnerable_.begin(); it != vulnerable_.end();) {
                auto v = s.servers.find(*it);
                if (s.recovery && v != s.servers.end() && v->second.needed)
                    started_.insert(*it);
                if (!s.recovery && started_.contains(*it)) {
                    settle_clients(*it, s);
                    started_.erase(*it);
                    it = vulnerable_.erase(it);
                } else
                    ++it;
            }
        }
        if (vulnerable_.empty())
            return;
        for (auto& [id, n] : w_.nodes)
            if (n->powered && n->kern.open(w_.now))
                fail("S8: the gate of node " + std::to_string(id.value) +
                     " is open after the locks of " + *vulnerable_.begin() + " were dropped");
    }

    void settle_clients(const std::string& server, const state& s) {
        for (auto& [key, c] : clients_) {
            if (key.first != server)
                continue;
            bool on_record = s.servers.at(server).records.contains(key.second);
            if (!on_record)
                c = {false, true};
        }
    }

    void calm() {
        say("calm");
        // Fencing that is under way. Looked at all the time, for a whole grace may pass (seed 105).
        for (int i = 0; i < 400 && bad_.empty(); ++i) {
            w_.run_for(milliseconds(50));
            check();
        }
        for (unsigned i = 1; i <= size_; ++i) {
            if (!w_[i].powered)
                w_.boot(i);
            w_.run_for(milliseconds(100));
            if (!w_[i].daemon)
                w_.start_daemon(i);
            w_.run_for(milliseconds(200));
        }
        const instant end = w_.now + seconds(120);
        while (w_.now < end) {
            live(milliseconds(500));
            if (!bad_.empty())
                return;
            bool all = true;
            for (auto& [id, n] : w_.nodes)
                all &= n->kern.open(w_.now);
            if (all)
                return;
        }
        std::string why = "L1: not all gates are open two minutes after the last fault:";
        for (auto& [id, n] : w_.nodes) {
            why +=
                " node " + std::to_string(id.value) + " " + to_string(n->machine().current_phase());
            const fsm& f = n->machine();
            why += std::string(" gate ") + (f.gate().open ? "open" : "closed") + "/" +
                   to_string(n->kern.gate) + " at " + std::to_string(f.gate().at.value) + "/" +
                   std::to_string(n->kern.at.value) + " trips " +
                   std::to_string(f.gate().accounted) + "/" + std::to_string(f.gate().trips) + "/" +
                   std::to_string(n->kern.trips) + " lock " + to_string(f.locks().held) +
                   " close " + std::to_string(f.gate().close_order) + "/" +
                   std::to_string(f.gate().close_acked);
            for (auto& b : f.blocked_by())
                why += " [" + b + "]";
        }
        if (trace_)
            std::cerr << w_.locks.dump();
        fail(why);
    }

    void fail(std::string what) {
        if (bad_.empty())
            bad_ = std::move(what);
    }

    std::uint64_t seed_;
    world w_;
    bool trace_;
    unsigned size_ = 0, servers_ = 0, faults_ = 0, split_ = 0, lift_seen_ = 0;
    std::string bad_;
    std::map<std::pair<std::string, std::string>, client_truth> clients_;
    std::map<node_id, std::set<std::string>> gone_; // servers of nodes that died unnoticed so far
    std::set<std::string> vulnerable_, started_;    // servers whose clients' locks were dropped
    std::map<std::pair<node_id, std::string>, std::pair<ticket, std::uint64_t>> serving_;
    std::map<std::tuple<node_id, std::uint64_t, std::string>, ticket> stopping_;
    std::map<std::tuple<node_id, std::uint64_t, std::uint64_t>, std::pair<std::string, std::string>>
        pending_;
};

} // namespace
} // namespace grace::sim

int main(int argc, char** argv) {
    CLI::App app{"grace-sim: the protocol under random faults"};
    std::uint64_t seed = 1, seeds = 1;
    bool trace = false, stop_at_first = false;
    app.add_option("--seed", seed, "first seed")->capture_default_str();
    app.add_option("--seeds", seeds, "how many")->capture_default_str();
    app.add_flag("--trace", trace, "tell the story");
    app.add_flag("--stop-at-first", stop_at_first, "no more seeds after one that failed");
    std::string transitions_file;
    app.add_option("--transitions", transitions_file,
                   "write what happened, for tests/model/replay (the last seed's)");
    CLI11_PARSE(app, argc, argv);
    std::uint64_t failed = 0;
    auto began = std::chrono::steady_clock::now();
    for (std::uint64_t s = seed; s < seed + seeds; ++s) {
        grace::sim::run r(s, trace);
        std::ofstream file;
        grace::sim::transitions told(file);
        if (!transitions_file.empty()) {
            file.open(transitions_file);
            file << "seed " << s << ": " << r.setting() << '\n';
            r.tell(told);
        }
        if (seeds == 1)
            std::printf("seed %llu: %s\n", static_cast<unsigned long long>(s), r.setting().c_str());
        std::string bad = r.go();
        if (bad.empty())
            continue;
        ++failed;
        std::printf("seed %llu: %s: %s\n", static_cast<unsigned long long>(s), r.setting().c_str(),
                    bad.c_str());
        std::fflush(stdout);
        if (stop_at_first) {
            seeds = s - seed + 1;
            break;
        }
    }
    double t = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    std::printf("%llu seeds, %llu failed, %.1f seeds a second\n",
                static_cast<unsigned long long>(seeds), static_cast<unsigned long long>(failed),
                static_cast<double>(seeds) / t);
    return failed ? 1 : 0;
}
