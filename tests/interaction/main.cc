// SPDX-License-Identifier: GPL-2.0-or-later
// Runs interaction scripts: grace-interaction [--rewrite] FILE…
//
// A script is prose (lines that begin with #, the first one is the title) and blocks: commands, a
// line ----, and what they print, up to an empty line. The commands are in tests/README.md. Exit
// status 0 if every script printed what stands in it.
#include "grace/wire.hh"
#include "interaction/stage.hh"

#include <fstream>
#include <iostream>
#include <sstream>
#include <utility>

namespace grace::interaction {
namespace {

using words = std::vector<std::string>;

words split_words(const std::string& line) {
    std::istringstream in(line);
    words w;
    for (std::string s; in >> s;)
        w.push_back(s);
    return w;
}

unsigned number(const std::string& s) {
    std::size_t used = 0;
    unsigned long n = 0;
    try {
        n = std::stoul(s, &used);
    } catch (const std::logic_error&) {
    }
    if (used == 0 || used != s.size())
        throw std::runtime_error("not a number: " + s);
    return unsigned(n);
}

duration time_of(const std::string& s) { // 5s, 400ms
    if (s.ends_with("ms"))
        return milliseconds(number(s.substr(0, s.size() - 2)));
    if (s.ends_with("s"))
        return seconds(number(s.substr(0, s.size() - 1)));
    throw std::runtime_error("not a time: " + s);
}

std::set<node_id> node_set(const std::string& s) { // 1,2,5
    std::set<node_id> out;
    std::istringstream in(s);
    for (std::string part; std::getline(in, part, ',');)
        out.insert(node_id{number(part)});
    return out;
}

std::string join(const std::set<node_id>& s) {
    std::string out;
    for (node_id n : s)
        out += (out.empty() ? "" : ",") + std::to_string(n.value);
    return out;
}

class script {
public:
    // What the commands of one block print.
    std::string run(const words& commands) {
        printed_.clear();
        for (const std::string& c : commands) {
            try {
                words w = split_words(c);
                if (w.front() == "quietly") {
                    quiet_ = true;
                    w.erase(w.begin());
                }
                command(w);
            } catch (const std::exception& e) {
                quiet_ = false;
                print(std::string("error: ") + e.what());
                failed = true;
            }
            quiet_ = false;
        }
        return printed_.empty() ? "ok\n" : printed_;
    }
    bool failed = false; // an error: never part of a golden output

private:
    void print(const std::string& s) {
        if (!quiet_)
            printed_ += s + "\n";
    }

    void command(const words& w) {
        const std::string& verb = w.at(0);
        auto arg = [&](std::size_t i) -> const std::string& {
            if (i >= w.size())
                throw std::runtime_error(verb + ": too few words");
            return w[i];
        };
        if (verb == "nodes" || verb == "cluster") {
            begin(w);
            if (verb == "cluster") {
                quiet_ = true;
                for (auto& [id, n] : stage_->nodes)
                    stage_->start(n);
                stage_->run_for(seconds(1), true);
            }
            return;
        }
        if (!stage_)
            throw std::runtime_error("a script begins with nodes or cluster");
        stage& s = *stage_;
        auto each = [&](auto f) { // "N" or "all"
            if (arg(1) != "all")
                return f(s.at(number(arg(1))));
            for (auto& [id, n] : s.nodes)
                f(n);
        };
        // "N [COUNT]": as many steps of one queue as asked for, all if no count is given.
        auto steps = [&](auto step) {
            each([&](node& n) {
                unsigned count = w.size() > 2 ? number(w[2]) : ~0u;
                bool any = false;
                while (count-- != 0 && step(n))
                    any = true;
                if (!any && arg(1) != "all")
                    throw std::runtime_error("nothing to do for node " + arg(1));
            });
        };

        // --- time and steps ---
        if (verb == "run-until-quiet")
            s.run_until_quiet();
        else if (verb == "run-for")
            s.run_for(time_of(arg(1)), true);
        else if (verb == "pass")
            s.run_for(time_of(arg(1)), false);
        else if (verb == "deliver")
            each([&](node& n) { // no count: what waits now, not what that causes
                std::size_t count = w.size() > 2 ? number(w[2]) : n.inbox.size();
                for (; count != 0 && n.daemon && !n.inbox.empty(); --count) {
                    print(std::to_string(n.id.value) + " <- " + describe(n.inbox.front()));
                    s.deliver(n);
                }
            });
        else if (verb == "kernel-ack")
            steps([&](node& n) { return s.acknowledge(n); });
        else if (verb == "durable")
            steps([&](node& n) { return s.make_durable(n); });
        else if (verb == "grant")
            each([&](node& n) {
                bool any = false;
                while (s.grant(n))
                    any = true;
                if (!any && arg(1) != "all")
                    print(arg(1) + ": " + s.why_not_granted(n));
            });
        else if (verb == "dlm-members")
            s.answer_dlm(s.daemon_at(number(arg(1))), node_set(arg(2)));
        else if (verb == "tick")
            s.step(s.daemon_at(number(arg(1))), input::tick{});
        else if (verb == "hold" || verb == "release")
            hold(s.daemon_at(number(arg(2))), arg(1), verb == "hold");

        // --- faults ---
        else if (verb == "start") // of the daemon, or of the node with it
            s.start(s.at(number(arg(1))), w.size() < 3 || w[2] != "without-kernel");
        else if (verb == "kill")
            s.kill(s.daemon_at(number(arg(1))));
        else if (verb == "crash")
            s.crash(s.at(number(arg(1))));
        else if (verb == "reboot")
            s.reboot(s.at(number(arg(1))));
        else if (verb == "fence")
            s.fence(node_id{number(arg(1))});
        else if (verb == "split") {
            std::vector<std::set<node_id>> parts;
            for (std::size_t i = 1; i < w.size(); ++i)
                parts.push_back(node_set(w[i]));
            s.split(parts);
        } else if (verb == "pause")
            s.pause(s.daemon_at(number(arg(1))));
        else if (verb == "wake")
            s.wake(s.daemon_at(number(arg(1))));
        else if (verb == "leave-dlm")
            s.at(number(arg(1))).in_dlm = false;
        else if (verb == "keeper-gives-up") { // PR and EX of a node without daemon
            auto& held = s.locks["grace"].holders[node_id{number(arg(1))}];
            if (held != lock_mode::cw)
                held = lock_mode::nl;
        } else if (verb == "lose-keeper") {
            node& n = s.daemon_at(number(arg(1)));
            for (auto& [name, l] : s.locks) {
                l.holders.erase(n.id);
                std::erase_if(l.waiting, [&](const auto& r) { return r.node == n.id; });
            }
            s.step(n, input::locks_lost{});
        } else if (verb == "keeper") {
            node& n = s.daemon_at(number(arg(1)));
            s.step(n, input::locks_known{s.locks["grace"].holders[n.id], false});
        } else if (verb == "refuse") { // the oldest request of the node
            refuse(s.daemon_at(number(arg(1))));
        } else if (verb == "kernel-attach")
            s.attach(s.daemon_at(number(arg(1))));
        else if (verb == "kernel-lost") {
            node& n = s.daemon_at(number(arg(1)));
            n.kern = {};
            n.orders.clear();
            s.step(n, input::kernel_lost{"the module was unloaded"});
        } else if (verb == "kernel-refuse") {
            node& n = s.daemon_at(number(arg(1)));
            if (n.orders.empty())
                throw std::runtime_error("no order is out");
            std::uint64_t order = std::visit(
                [](const auto& e) -> std::uint64_t {
                    if constexpr (requires { e.order; })
                        return e.order;
                    else
                        return 0;
                },
                n.orders.front());
            n.orders.pop_front();
            s.step(n, input::kernel_refused{order, -16, "busy"});
        } else if (verb == "trip")
            each([&](node& n) { s.trip(n); });
        else if (verb == "store-fails") { // what is queued never becomes durable
            node& n = s.daemon_at(number(arg(1)));
            n.commits.clear();
            s.step(n, input::store_failed{"the recovery database cannot be written: disk full"});
        } else if (verb == "lose-disk") { // or its database was damaged, and set aside
            node& n = s.at(number(arg(1)));
            n.disk = {};
            n.has_disk = false;
        } else if (verb == "store-opens")
            s.step(s.daemon_at(number(arg(1))), input::store_opened{});
        else if (verb == "value-lost") // VALNOTVALID
            s.value_valid = false;
        else if (verb == "value-is") // what a purger of another life wrote
            s.value = wire::encode_lock_value({epoch{number(arg(1))}, {}, {}});
        else if (verb == "value") { // what stands in the DLM's value block of `grace`
            auto v = wire::decode_lock_value(s.value);
            print(std::string("value block: ") +
                  (v ? "C " + std::to_string(v->current.value) + ", R " +
                           std::to_string(v->recovery.value) + ", purged " +
                           std::to_string(v->purged.value)
                     : std::string("empty")) +
                  (s.value_valid ? "" : "; not valid"));
        } else if (verb == "forget") // the asker of the last request went away
            s.step(s.daemon_at(number(arg(1))), input::forget{last_ticket_});
        else if (verb == "nfsd-stops")
            s.at(number(arg(1))).running.erase(arg(2));
        else if (verb == "nfsd-ends") { // by itself or by hand, without a stop
            node& n = s.daemon_at(number(arg(1)));
            n.running.erase(arg(2));
            s.step(n, input::nfsd_ended{arg(2)});
        } else if (verb == "instance-gone") {
            node& n = s.daemon_at(number(arg(1)));
            n.running.erase(arg(2));
            s.step(n, input::instance_gone{arg(2)});
        }

        // --- nfsd's upcalls, and requests of people ---
        else if (verb == "host")
            host(w);
        else if (verb == "create" || verb == "remove" || verb == "check" || verb == "GraceStart" ||
                 verb == "GraceDone" || verb == "serve" || verb == "stop" || verb == "released" ||
                 verb == "start-grace" || verb == "lift" || verb == "extend" || verb == "enforce" ||
                 verb == "noenforce" || verb == "fence-news" ||
                 verb == "bypass-on" || verb == "bypass-off" || verb == "wait")
            ask(w);

        // --- looking ---
        else if (verb == "state")
            each([&](node& n) { show(n); });
        else if (verb == "records")
            each([&](node& n) { records(n); });
        else if (verb == "disk")
            each([&](node& n) { disk(n); });
        else if (verb == "outputs")
            each([&](node& n) { outputs(n); });
        else if (verb == "blocked")
            for (const std::string& why : s.daemon_at(number(arg(1))).daemon->blocked_by())
                print(arg(1) + ": " + why);
        else
            throw std::runtime_error("no command " + verb);
    }

    void begin(const words& w) {
        parameters p;
        for (std::size_t i = 2; i < w.size(); ++i) {
            std::size_t eq = w[i].find('=');
            std::string key = w[i].substr(0, eq),
                        value = eq == std::string::npos ? "" : w[i].substr(eq + 1);
            if (key == "grace")
                p.grace_period = time_of(value);
            else if (key == "orphan")
                p.orphan_timeout = time_of(value);
            else if (key == "daemon")
                p.daemon_timeout = time_of(value);
            else if (key == "without-gfs2")
                p.nodes_without_gfs2 = node_set(value);
            else
                throw std::runtime_error("no parameter " + key);
        }
        stage_ = std::make_unique<stage>(number(w.at(1)), p);
        stage_->line = [this](const std::string& l) { print(l); };
    }

    void hold(node& n, const std::string& what, bool on) {
        static const std::map<std::string, queue> queues{
            {"sends", queue::sends},   {"inbox", queue::inbox}, {"quorum", queue::quorum},
            {"kernel", queue::kernel}, {"disk", queue::disk},   {"locks", queue::locks},
            {"asts", queue::asts}};
        auto it = queues.find(what);
        if (it == queues.end())
            throw std::runtime_error("no queue " + what);
        if (on) {
            n.held.insert(it->second);
            return;
        }
        n.held.erase(it->second);
        if (it->second == queue::sends)
            stage_->flush(n);
        if (it->second == queue::quorum)
            for (const any_input& q : std::exchange(n.quorum_news, {}))
                n.inbox.push_back(q);
        if (it->second == queue::asts)
            stage_->tell_grants(n);
    }

    void refuse(node& n) {
        for (auto& [name, l] : stage_->locks)
            for (auto it = l.waiting.begin(); it != l.waiting.end(); ++it) {
                if (it->node != n.id)
                    continue;
                l.waiting.erase(it);
                if (name == "grace")
                    stage_->step(n, input::lock_refused{lock_resource::grace, {}, -35});
                else
                    stage_->step(n, input::lock_refused{lock_resource::alive,
                                                        node_id{number(name.substr(6))}, -35});
                return;
            }
        throw std::runtime_error("it asks for no lock");
    }

    // serve, nfsd's start, and a record for each client, until all of it is done.
    void host(const words& w) {
        const bool quiet = std::exchange(quiet_, true);
        ask({"serve", w.at(1), w.at(2)});
        stage_->run_until_quiet();
        ask({"GraceStart", w.at(1), w.at(2)});
        stage_->run_until_quiet();
        for (std::size_t i = 3; i < w.size(); ++i) {
            ask({"create", w.at(1), w.at(2), w[i]});
            stage_->run_until_quiet();
        }
        stage_->run_for(seconds(1), true);
        quiet_ = quiet;
    }

    void ask(const words& w) {
        const std::string& verb = w.at(0);
        node& n = stage_->daemon_at(number(w.at(1)));
        const std::string object = w.size() > 2 ? w[2] : "";
        const bool upcall = w.size() > 3;
        ticket t = stage_->ask(verb + " " + (object.empty() ? "all" : object) +
                               (upcall ? "/" + w[3] : ""));
        last_ticket_ = t;
        any_input in;
        if (verb == "create")
            in = input::create{object, key_of(w.at(3)), "", t};
        else if (verb == "remove")
            in = input::remove{object, key_of(w.at(3)), t};
        else if (verb == "check")
            in = input::check{object, key_of(w.at(3)), t};
        else if (verb == "GraceStart")
            in = input::grace_start{object, t};
        else if (verb == "GraceDone")
            in = input::grace_done{object, t};
        else if (verb == "serve")
            in = input::serve{object, t};
        else if (verb == "stop")
            in = input::stop{object, t};
        else if (verb == "released")
            in = input::released{object, t};
        else if (verb == "start-grace")
            in = input::start{object, t};
        else if (verb == "lift")
            in = input::lift{object, t};
        else if (verb == "extend")
            in = input::extend{object, seconds(static_cast<std::int64_t>(number(w.at(3)))), t};
        else if (verb == "enforce" || verb == "noenforce")
            in = input::hold{verb == "enforce", t};
        else if (verb == "fence-news")
            in = input::fence_news{node_id{number(object)}, t};
        else if (verb == "bypass-on" || verb == "bypass-off")
            in = input::bypass{object == "all" ? node_id{} : node_id{number(object)},
                               verb == "bypass-on", t};
        else
            in = input::wait{phase_of(object), t};
        stage_->step(n, in);
    }

    static phase phase_of(const std::string& s) {
        for (phase p : {phase::normal, phase::entering, phase::reclaiming, phase::lifting})
            if (s == to_string(p))
                return p;
        throw std::runtime_error("no phase " + s);
    }

    void show(const node& n) {
        std::string s = std::to_string(n.id.value) + ": ";
        if (!n.powered)
            return print(s + "down");
        if (!n.daemon)
            s += "no daemon";
        else if (!n.daemon->synced())
            s += "without state";
        else {
            const state& r = n.daemon->replicated();
            s += std::string(to_string(n.daemon->current_phase())) + ", C " +
                 std::to_string(r.current.value) + ", R " + std::to_string(r.recovery.value);
            std::set<node_id> e;
            for (const auto& [id, q] : stage_->nodes)
                if (in_grace(r) && n.daemon->enforces(id) && n.daemon->live(id))
                    e.insert(id);
            if (in_grace(r))
                s += ", E " + (e.empty() ? "none" : join(e));
        }
        if (n.daemon && !n.daemon->quorate())
            s += ", no quorum";
        const bool open = n.kern.gate == gate_state::open && stage_->now < n.kern.permit;
        s += std::string("; gate ") + (open ? "open" : "closed");
        for (const std::string& server : n.kern.reclaim)
            s += ", reclaim " + server;
        auto held = stage_->locks["grace"].holders.find(n.id);
        s += std::string("; ") +
             to_string(held == stage_->locks["grace"].holders.end() ? lock_mode::nl : held->second);
        if (n.daemon && n.daemon->synced())
            for (const auto& [name, v] : n.daemon->replicated().servers)
                s += "; " + name + (v.host ? "@" + std::to_string(v.host.value) : "@none") +
                     (v.need ? " N" : "");
        print(s);
    }

    // nlm:HOST is an NFSv3 client.
    static std::string key_of(const std::string& word) {
        return word.starts_with("nlm:") ? nlm_key(word.substr(4)) : nfs4_key(word);
    }
    static std::string shown(const std::string& key) {
        return (kind_of(key) == record_kind::nlm ? "nlm:" : "") + printable(std::string(client_in(key)));
    }
    void list(const std::string& who, const std::string& server, const record_map& records) {
        std::string s;
        for (const auto& [client, rec] : records)
            s +=
                (s.empty() ? "" : ", ") + shown(client) + " at " + std::to_string(rec.at.value);
        print(who + server + ": " + (s.empty() ? "no client" : s));
    }
    void records(const node& n) {
        if (n.daemon && n.daemon->synced())
            for (const auto& [name, v] : n.daemon->replicated().servers)
                list(std::to_string(n.id.value) + ": ", name, v.records);
    }
    void disk(const node& n) {
        for (const auto& [name, r] : n.disk.records)
            list(std::to_string(n.id.value) + ": on disk, ", name, r);
    }

    void outputs(const node& n) {
        const std::string who = std::to_string(n.id.value) + ": ";
        for (const any_effect& e : n.orders)
            print(who + "kernel: " + describe(e));
        for (const effect::persist& p : n.commits)
            print(who + "disk: commit " + std::to_string(p.at.value));
        for (const auto& [name, l] : stage_->locks)
            for (const auto& r : l.waiting)
                if (r.node == n.id)
                    print(who + "lock: " + name + " to " + to_string(r.mode));
        for (const any_input& i : n.asts)
            print(who + "not known yet: " + describe(i));
        for (const bytes& m : n.outbox)
            print(who + "not sent yet: " + describe(any_effect{effect::send{m}}));
        for (const any_input& i : n.inbox)
            print(who + "inbox: " + describe(i));
    }

    std::unique_ptr<stage> stage_;
    std::string printed_;
    ticket last_ticket_;
    bool quiet_ = false;
};

struct file {
    std::string title;
    std::string text;     // as it stands
    std::string produced; // with what was printed now
    bool failed = false;
};

file run_file(const std::string& path) {
    std::ifstream in(path);
    if (!in)
        throw std::runtime_error("cannot read " + path);
    file f;
    script s;
    words commands;
    for (std::string line; std::getline(in, line);) {
        f.text += line + "\n";
        f.produced += line + "\n";
        if (line.starts_with("#") && f.title.empty())
            f.title = line.substr(line.find_first_not_of("# "));
        if (line == "----") {
            f.produced += s.run(commands);
            commands.clear();
            bool ended = false;
            while (!ended && std::getline(in, line)) {
                f.text += line + "\n";
                ended = line.empty();
            }
            if (ended)
                f.produced += "\n";
        } else if (!line.empty() && !line.starts_with("#")) {
            commands.push_back(line);
        }
    }
    f.failed = s.failed || !commands.empty();
    return f;
}

// The first line that differs, with a little around it.
void show_difference(const file& f) {
    auto lines = [](const std::string& text) {
        std::istringstream in(text);
        words w;
        for (std::string l; std::getline(in, l);)
            w.push_back(l);
        return w;
    };
    const words want = lines(f.text), got = lines(f.produced);
    std::size_t i = 0;
    while (i < want.size() && i < got.size() && want[i] == got[i])
        ++i;
    for (std::size_t k = i < 4 ? 0 : i - 4; k < i; ++k)
        std::cout << "    " << want[k] << "\n";
    for (std::size_t k = i; k < std::min(i + 6, want.size()) && !want[k].empty(); ++k)
        std::cout << "  - " << want[k] << "\n";
    for (std::size_t k = i; k < std::min(i + 6, got.size()) && !got[k].empty(); ++k)
        std::cout << "  + " << got[k] << "\n";
}

int run_all(const words& paths, bool rewrite) {
    unsigned passed = 0, failed = 0;
    for (const std::string& path : paths) {
        file f = run_file(path);
        const bool same = f.text == f.produced;
        if (!same && rewrite)
            std::ofstream(path) << f.produced;
        const bool good = !f.failed && (same || rewrite);
        ++(good ? passed : failed);
        std::cout << (!good  ? "FAILED    "
                      : same ? "passed    "
                             : "rewritten ")
                  << path << ": " << f.title << "\n";
        if (!good && !same)
            show_difference(f);
        else if (!good)
            std::cout << "    it has an error, or commands without ----\n";
    }
    std::cout << passed << " passed, " << failed << " failed, 0 skipped\n";
    return failed == 0 ? 0 : 1;
}

} // namespace
} // namespace grace::interaction

int main(int argc, char** argv) {
    std::vector<std::string> paths(argv + 1, argv + argc);
    const bool rewrite = std::erase(paths, "--rewrite") != 0;
    if (paths.empty()) {
        std::cerr << "usage: grace-interaction [--rewrite] FILE…\n";
        return 2;
    }
    try {
        return grace::interaction::run_all(paths, rewrite);
    } catch (const std::exception& e) {
        std::cerr << "grace-interaction: " << e.what() << "\n";
        return 2;
    }
}
