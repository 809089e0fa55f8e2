// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim/run.hh"

#include <algorithm>
#include <iostream>

namespace grace::sim {

const std::array<const char*, fault_count> fault_names = {
#define X(name, text) text,
    GRACE_SIM_FAULTS(X)
#undef X
};

namespace {
std::string str(std::uint64_t n) {
    return std::to_string(n);
}
unsigned draw_size(std::uint64_t seed) { // most clusters have three nodes
    static const unsigned sizes[] = {3, 3, 3, 2, 4, 5, 1, 3, 3, 6, 3, 3, 7, 2, 8, 4,
                                     3, 9, 5, 3, 3, 2, 4, 3, 1, 3, 5, 3, 3, 4, 2, 3};
    return sizes[seed * 2654435761U % std::size(sizes)];
}
constexpr unsigned max_steps = 4'000'000; // nothing may go round in circles
// Or waits for its clients: that holds nfsd_mutex, and nobody can start it a second time.
bool runs(const node& n, const std::string& server) {
    return n.running.contains(server) ||
           std::ranges::any_of(n.grace_starts, [&](const auto& g) { return g.second == server; });
}
} // namespace

run::run(std::uint64_t seed, bool trace, unsigned size)
    : seed_(seed)
    , w_(size ? size : draw_size(seed), seed)
    , checker_(w_)
    , trace_(trace) {
    w_.watch = &checker_;
    if (trace)
        checker_.tell = [this](const std::string& what) { say("     " + what); };
    size_ = static_cast<unsigned>(w_.nodes.size());
    w_.defaults.grace_period = seconds(4);
    w_.defaults.orphan_timeout = seconds(8);
    w_.defaults.daemon_timeout = seconds(7);
    w_.defaults.grace_start_hold = seconds(5);
    w_.defaults.permit_ttl = milliseconds(800);
    w_.defaults.heartbeat_interval = milliseconds(200 + 100 * static_cast<int>(w_.draw(2)));
    w_.jitter = milliseconds(static_cast<std::int64_t>(w_.draw(4) * 10));
    servers_ = 1 + static_cast<unsigned>(w_.draw(3));
    clients_ = 1 + static_cast<unsigned>(w_.draw(4));
    faults_ = 3 + static_cast<unsigned>(w_.draw(10));
    w_.v0 = w_.draw(4) == 0;
    for (auto& [id, n] : w_.nodes) {
        n->keep_news = false;
        n->skew = seconds(static_cast<std::int64_t>(w_.draw(100000)));
    }
    // A few kinds a seed, so that each of them meets itself and the others.
    for (unsigned f = 0; f < fault_count; ++f)
        if (w_.draw(4) == 0)
            kinds_.push_back(static_cast<fault>(f));
    if (kinds_.empty())
        kinds_.push_back(fault::node_crash);
    auto has = [&](fault f) { return std::ranges::find(kinds_, f) != kinds_.end(); };
    if (has(fault::late_ring))
        w_.slow_ring = w_.draw_ms(50, 2500);
    if (has(fault::late_permit))
        w_.late_permit = w_.draw_ms(10, 500);
    if (has(fault::lose_value))
        w_.lose_value = 2;
}

std::string run::setting() const {
    std::string s = str(size_) + " nodes, " + str(servers_) + " servers, " + str(clients_) +
                    " clients" + (w_.v0 ? " (upcalls v0)" : "") + ", jitter " +
                    str(static_cast<std::uint64_t>(w_.jitter / 1'000'000)) + " ms, " +
                    str(faults_) + " faults of:";
    for (std::size_t i = 0; i < kinds_.size(); ++i)
        s += (i ? ", " : " ") + std::string(fault_names[static_cast<std::size_t>(kinds_[i])]);
    return s;
}

std::string run::go() {
    try {
        for (unsigned i = 1; i <= size_; ++i) {
            w_[i].verbose = trace_;
            w_.boot(i);
        }
        for (unsigned i = 1; i <= size_; ++i)
            w_.start_daemon(i);
        live(seconds(2));
        for (unsigned i = 0; i < faults_ && ok(); ++i) {
            inject();
            live(w_.draw_ms(20, w_.draw(3) ? 1500 : 4500));
            if (w_.draw(6) == 0) // let things settle, and ask the twin
                for (unsigned k = 0; k < 20 && ok() && !quiet(); ++k)
                    live(milliseconds(500));
            if (ok() && quiet())
                checker_.compare();
        }
        if (ok())
            calm();
    } catch (const std::exception& e) {
        return e.what();
    }
    injected_[static_cast<std::size_t>(fault::lost_writes)] += w_.lost_batches;
    injected_[static_cast<std::size_t>(fault::in_flight)] += w_.in_flight;
    injected_[static_cast<std::size_t>(fault::late_ring)] += w_.late_rings;
    injected_[static_cast<std::size_t>(fault::late_permit)] += w_.late_permits;
    injected_[static_cast<std::size_t>(fault::lose_value)] += w_.lost_values;
    return checker_.bad;
}

void run::say(const std::string& what) {
    if (trace_)
        std::cerr << w_.now / 1'000'000 << " ms ---- " << what << '\n';
}

// What tests/model/grace.pml has steps for; a run is replayed from one of the others to the next.
static bool in_the_model(fault f) {
    switch (f) {
    case fault::node_crash:
    case fault::daemon_crash:
    case fault::persist_crash:
    case fault::lost_writes:
    case fault::slow_fencing:
    case fault::failing_fencing:
    case fault::db_busy:
    case fault::storm:
    case fault::stop:
    case fault::migrate:
        return true;
    default:
        return false;
    }
}

void run::hit(fault f, const std::string& what) {
    ++injected_[static_cast<std::size_t>(f)];
    if (w_.told && !in_the_model(f))
        w_.told->fault(w_, fault_names[static_cast<std::size_t>(f)]);
    say(what);
}

// A database may be lost if all that was ever acknowledged is on more than half of the others.
bool run::may_lose_disk(const node& lost) const {
    std::uint64_t latest = 0;
    for (auto& [id, n] : w_.nodes)
        if (n->has_disk)
            latest = std::max(latest, n->disk.meta.quorate_view);
    std::size_t good = 0;
    for (auto& [id, n] : w_.nodes)
        good += id != lost.id && n->has_disk && n->disk.meta.quorate_view == latest;
    return good * 2 > size_;
}

// --- faults ---

void run::inject() {
    // Some are always possible: people do things, nodes die.
    static const fault always[] = {fault::node_crash, fault::node_crash, fault::stop,
                                   fault::migrate};
    fault f = w_.draw(3) == 0 ? always[w_.draw(std::size(always))] : kinds_[w_.draw(kinds_.size())];
    inject(f, w_[any_node()]);
}

void run::inject(fault f, node& n) {
    const unsigned i = n.id.value;
    const std::string me = " node " + str(i);
    const bool up = n.powered && n.corosync && !n.paused;
    switch (f) {
    case fault::node_crash:
        if (n.powered) {
            hit(f, "power off" + me);
            w_.power_off(i);
        }
        break;
    case fault::fast_reboot:
        if (up && w_.in_ring(n.id)) {
            hit(f, "reset" + me);
            w_.power_off(i);
            w_.after(w_.draw_ms(150, 900), [this, i, b = n.boot] {
                if (w_[i].boot == b)
                    w_.boot(i);
            });
        }
        break;
    case fault::daemon_crash:
        if (n.daemon) {
            hit(f, "kill the daemon of" + me);
            w_.kill_daemon(i);
        }
        break;
    case fault::persist_crash:
        if (n.daemon) {
            n.crash_in = 1 + static_cast<unsigned>(w_.draw(6));
            hit(f, "power of" + me + " fails in commit " + str(n.crash_in) + " from now");
        }
        break;
    case fault::cut:
        if (up && size_ > 1 && n.side == 0) {
            const unsigned side = 1 + static_cast<unsigned>(w_.draw(2));
            hit(f, "cut off" + me);
            w_.cut(i, side);
            if (size_ > 3 && w_.draw(3) == 0) { // and another with it, or for itself
                node& other = w_[any_node()];
                if (other.powered && other.corosync && !other.paused && other.side == 0 &&
                    &other != &n) {
                    say("cut off node " + str(other.id.value));
                    w_.cut(other.id.value, 1 + static_cast<unsigned>(w_.draw(2)));
                }
            }
        }
        break;
    case fault::merge:
        if (up && n.side == 0 && size_ > 1) {
            say("cut off" + me + " for a moment");
            w_.cut(i, 1);
            w_.after(w_.draw_ms(200, 4000), [this, f, i, b = n.boot] {
                if (w_[i].boot != b || w_[i].side == 0)
                    return;
                hit(f, "the links of node " + str(i) + " are back");
                w_.merge(i);
            });
        }
        break;
    case fault::one_way:
        if (up && n.side == 0 && size_ > 1) {
            hit(f, "node " + str(i) + " hears the others, and they do not hear it");
            flap(i, 2 + static_cast<unsigned>(w_.draw(3)));
        }
        break;
    case fault::procdown:
        if (up && w_.in_ring(n.id)) {
            hit(f, "corosync of" + me + " ends");
            w_.leave(i);
        }
        break;
    case fault::controld:
        if (up && w_.in_ring(n.id) && n.controld && n.side == 0) {
            hit(f, "dlm_controld of" + me + " dies");
            w_.lose_controld(i);
        }
        break;
    case fault::pause:
        if (up && w_.in_ring(n.id)) {
            hit(f, "pause" + me);
            w_.pause(i, w_.draw_ms(300, 4000));
        }
        break;
    case fault::hang:
        if (n.daemon) {
            hit(f, "the daemon of" + me + " hangs");
            w_.hang(i, w_.draw_ms(200, 3000));
        }
        break;
    case fault::freeze:
        hit(f, "the DLM is frozen");
        w_.freeze_locks(w_.draw_ms(100, 5000));
        break;
    case fault::deadlock:
        if (n.daemon) {
            n.refuse += 1 + static_cast<unsigned>(w_.draw(3));
            hit(f, "conversions of" + me + " deadlock");
        }
        break;
    case fault::keeper_crash:
        if (n.powered && n.keeper != 0) {
            hit(f, "the keeper of" + me + " dies");
            w_.kill_keeper(i, w_.draw_ms(50, 1500));
        }
        break;
    case fault::module_reload:
        if (up && n.running.empty()) {
            if (n.daemon)
                w_.kill_daemon(i);
            hit(f, "the module of" + me + " is loaded anew");
            w_.reload_module(i);
        }
        break;
    case fault::netlink:
        if (n.daemon) {
            hit(f, "the netlink socket of" + me + " is lost");
            w_.lose_netlink(i, w_.draw_ms(1, 1500));
        }
        break;
    case fault::clock_jump:
        hit(f, "the clock of" + me + " jumps");
        checker_.jumped = w_.now;
        w_.jump(i, w_.draw_ms(1, 5000));
        break;
    case fault::disk_full:
        if (n.powered) {
            hit(f, "the disk of" + me + " is full");
            n.disk_full = true;
            w_.after(w_.draw_ms(200, 6000), [this, &n] {
                n.disk_full = false;
                w_.mend_disk(n.id.value);
            });
        }
        break;
    case fault::db_busy:
        if (n.daemon) {
            hit(f, "the database of" + me + " is busy");
            n.slow_disk = w_.draw_ms(20, 400);
            w_.after(w_.draw_ms(200, 4000), [&n] { n.slow_disk = 0; });
        }
        break;
    case fault::db_corrupt:
    case fault::db_old:
        if (f == fault::db_old && !backups_.contains(n.id))
            break;
        if (n.daemon && w_.draw(2) == 0)
            w_.kill_daemon(i);
        if (n.daemon || !may_lose_disk(n))
            break;
        hit(f, (f == fault::db_old ? "an old database is put back on" : "no readable database on") +
                   me);
        n.has_disk = f == fault::db_old;
        n.disk = f == fault::db_old ? backups_.at(n.id) : stored_state{};
        disk_trouble_[n.id] = w_.now + w_.draw_ms(0, 3000);
        break;
    case fault::storm:
        if (n.daemon && !n.running.empty() && !on_its_way_down(n, *n.running.begin())) {
            hit(f, "upcall storm at" + me);
            checker_.storm(n, *n.running.begin(), 20 + static_cast<unsigned>(w_.draw(100)));
        }
        break;
    case fault::stop:
        stop_server(n);
        break;
    case fault::by_hand:
        if (up && !n.running.empty()) {
            const std::string s = *n.running.begin();
            if (on_its_way_down(n, s))
                break;
            hit(f, "nfsd of " + s + " ends by itself on" + me);
            if (node& slow = w_[any_node()]; &slow != &n && slow.daemon && w_.draw(3) == 0) {
                // Its gate stays open while its permit lasts: what is dropped now is taken there.
                hit(fault::hang, "the daemon of node " + str(slow.id.value) + " hangs");
                w_.hang(slow.id.value, w_.draw_ms(200, 1500));
            }
            n.take(input::nfsd_ended{s});
            w_.trip(i);            // the tripwire on nfsd's way down
            if (w_.draw(3) == 0) { // as what is killed with its namespace: nothing is waited for
                n.running.erase(s);
                checker_.nfsd_gone(n, s, true);
            } else {
                held_[{n.id, n.boot, s}] = w_.now + seconds(5);
                checker_.truth.servers[s].going_since = w_.now;
            }
        }
        break;
    case fault::migrate:
        if (n.daemon && !n.running.empty() && size_ > 1) {
            const std::string s = *n.running.begin();
            if (on_its_way_down(n, s))
                break;
            hit(f, "move " + s + " away from" + me);
            stop_server(n);
            moving_[s] = any_node();
        }
        break;
    case fault::start:
        if (n.daemon) {
            const std::string s = any_server();
            hit(f, "an operator starts a grace for " + s);
            n.take(input::start{w_.draw(4) ? s : "", n.new_ticket()});
        }
        break;
    case fault::lift:
        if (n.daemon) {
            const std::string s = w_.draw(3) ? any_server() : "";
            hit(f, "an operator lifts " + (s.empty() ? "all" : s));
            for (auto& [name, v] : checker_.truth.servers)
                if (s.empty() || s == name)
                    v.lifted_at = w_.now;
            n.take(input::lift{s, n.new_ticket()});
        }
        break;
    case fault::blackout:
        hit(f, "all power fails");
        for (auto& [id, m] : w_.nodes)
            if (w_.draw(8) != 0) // one or another sees it a moment later
                w_.power_off(id.value);
            else
                w_.after(w_.draw_ms(0, 1500), [this, k = id.value, b = m->boot] {
                    if (w_[k].boot == b)
                        w_.power_off(k);
                });
        break;
    case fault::slow_fencing: // drawn with each fencing
    case fault::failing_fencing:
    case fault::lost_writes:
    case fault::in_flight:
    case fault::late_ring:
    case fault::late_permit:
    case fault::lose_value:
    case fault::count:
        break;
    }
}

void run::flap(unsigned i, unsigned times) {
    node& n = w_[i];
    w_.cut(i, 1);
    if (times == 0)
        return;
    w_.after(w_.token + w_.draw_ms(10, 1200), [this, i, times, b = n.boot] {
        if (w_[i].boot != b)
            return;
        w_.merge(i);
        w_.after(w_.draw_ms(10, 1200), [this, i, times, b] {
            if (w_[i].boot == b && w_[i].corosync && !w_[i].paused)
                flap(i, times - 1);
        });
    });
}

// The DLM demands it of each node that was lost, and waits; it takes a quorate rest to do it.
void run::fencing() {
    auto drawn = [&](fault f) { return std::ranges::find(kinds_, f) != kinds_.end() && !calm_; };
    for (node_id id : w_.unfenced) {
        if (fencing_.contains(id))
            continue;
        fencing_job job{w_.now + w_.token + w_.draw_ms(10, 2500), 0, w_[id.value].boot};
        if (drawn(fault::slow_fencing) && w_.draw(2) == 0) {
            hit(fault::slow_fencing, "fencing of node " + str(id.value) + " takes its time");
            job.due += w_.draw_ms(2000, 9000);
        }
        if (drawn(fault::failing_fencing))
            job.failures = static_cast<unsigned>(w_.draw(4));
        fencing_[id] = job;
    }
    std::erase_if(fencing_, [&](const auto& e) { return !w_.unfenced.contains(e.first); });
    for (auto& [id, job] : fencing_) {
        if (w_.now < job.due)
            continue;
        bool by_anybody = false;
        for (auto& [other, n] : w_.nodes)
            by_anybody |= other != id && n->powered && n->corosync && !n->paused &&
                          !w_.unfenced.contains(other) && w_.quorate(other);
        if (!by_anybody)
            continue;
        if (job.failures != 0) {
            --job.failures;
            hit(fault::failing_fencing, "fencing of node " + str(id.value) + " fails");
            job.due = w_.now + w_.draw_ms(500, 4000);
            continue;
        }
        fencing_.erase(id);
        fence_now(id);
        return; // one after the other; the map has changed
    }
}

void run::fence_now(node_id id) {
    node& n = w_[id.value];
    const bool member = n.powered && w_.in_ring(id);
    if (n.powered)
        w_.power_off(id.value);
    auto done = [this, id, b = n.boot] {
        if (w_[id.value].boot != b)
            return; // it is back, and was fenced for that
        say("node " + str(id.value) + " is fenced");
        w_.fence(id.value);
    };
    if (member)
        w_.after(w_.token + milliseconds(10), done);
    else
        done();
}

// --- what administrators and clients do all the time ---

void run::live(duration d) {
    const instant end = w_.now + d;
    while (w_.now < end && ok()) {
        const instant pause = w_.now + w_.draw_ms(10, 70);
        while (w_.now < pause && ok()) {
            if (w_.steps > max_steps)
                throw std::runtime_error("L1: this never comes to rest");
            w_.run_for(milliseconds(10));
        }
        people();
    }
}

void run::start(node& n) {
    if (n.disk_full)
        return;
    if (auto t = disk_trouble_.find(n.id); t != disk_trouble_.end()) {
        if (w_.now < t->second)
            return;
        disk_trouble_.erase(t);
    }
    say("start the daemon on node " + str(n.id.value));
    w_.start_daemon(n.id.value);
}

void run::people() {
    fencing();
    for (auto& [id, p] : w_.nodes) {
        node& n = *p;
        if (!n.powered && w_.draw(w_.locks.frozen() ? 60 : 20) == 0) {
            say("boot node " + str(id.value));
            w_.boot(id.value);
        }
        ends_held(n);
        if (n.powered && !n.daemon && n.corosync && !n.paused && n.side == 0 && w_.draw(8) == 0)
            start(n);
        if (!n.daemon || n.stopped_until > w_.now)
            continue;
        if (w_.draw(40) == 0 && n.has_disk)
            backups_[id] = n.disk;
        stops(n);
        serves(n);
        ends_stray(n);
        if (w_.draw(6) == 0 && n.open())
            checker_.program_calls(n, static_cast<unsigned>(w_.draw(ledger::files)));
    }
    if (w_.draw(4) == 0)
        ask_to_serve();
    for (unsigned k = 0; k < 2; ++k)
        traffic();
}

void run::ask_to_serve() {
    std::string s = any_server();
    for (auto& [id, n] : w_.nodes)
        if (n->powered && runs(*n, s))
            return;
    unsigned i = any_node();
    if (auto m = moving_.find(s); m != moving_.end()) {
        i = m->second;
        if (w_.draw(4) == 0)
            moving_.erase(m);
    }
    serve_on(w_[i], s);
}

void run::serve_on(node& n, const std::string& s) {
    if (!n.daemon || n.stopped_until > w_.now || serving_.contains({n.id, s}) ||
        stopping_.contains({n.id, n.boot, s}) || releasing_.contains({n.id, n.boot, s}))
        return;
    serving_[{n.id, s}] = {w_.serve(n.id.value, s), n.life};
}

void run::serves(node& n) {
    std::erase_if(serving_, [&](auto& e) {
        auto& [key, request] = e;
        if (key.first != n.id)
            return false;
        if (request.second != n.life)
            return true; // its daemon is another one
        auto a = n.answers.find(request.first.value);
        if (a == n.answers.end())
            return false;
        if (a->second.first == request_status::done && !runs(n, key.second)) {
            say("nfsd of " + key.second + " starts on node " + str(n.id.value));
            checker_.nfsd_asked(n, key.second);
            w_.nfsd_start(n.id.value, key.second);
        }
        return true;
    });
}

// Two nodes were told to serve it, the group gave up its state in between, and one of them is its
// host now. The other's nfsd asked, waited too long and serves nobody; whoever runs the cluster
// sees that it runs twice, and ends it.
void run::ends_stray(node& n) {
    if (!n.machine().synced())
        return;
    for (const std::string& s : std::set(n.running)) {
        const auto& servers = n.machine().replicated().servers;
        auto v = servers.find(s);
        if (v == servers.end() || v->second.host == n.id)
            continue;
        const bool twice = v->second.host && checker_.stray(n, s) &&
                           w_.nodes.at(v->second.host)->running.contains(s);
        // A group was founded without this node, and has given the server up: its clients are
        // refused.
        const bool given_up = calm_ && !v->second.host && !v->second.need;
        if (!twice && !given_up)
            continue;
        say("nfsd of " + s + " serves nobody on node " + str(n.id.value) + " and is ended");
        n.running.erase(s);
        checker_.nfsd_gone(n, s, true);
        n.take(input::nfsd_ended{s});
    }
}

bool run::on_its_way_down(const node& n, const std::string& s) const {
    const std::tuple here{n.id, n.boot, s};
    return stopping_.contains(here) || held_.contains(here);
}

// The module keeps an nfsd that goes by hand from dropping its locks until every node enforces; not
// for ever, nor without a daemon (LOCKD_SHIM_CMD_ENFORCED_SET).
void run::ends_held(node& n) {
    std::erase_if(held_, [&](auto& e) {
        auto& [id, boot, server] = e.first;
        if (id != n.id)
            return false;
        if (boot != n.boot || !n.running.contains(server))
            return true;
        const bool enforced = n.daemon && n.kern.attached && n.machine().may_drop() &&
                              n.machine().gate().trips == n.kern.trips;
        if (n.kern.attached && !n.open() && !enforced && w_.now < e.second)
            return false;
        say("nfsd of " + server + " drops its locks on node " + str(id.value));
        n.running.erase(server);
        checker_.nfsd_gone(n, server, !enforced);
        return true;
    });
}

void run::stop_server(node& n) {
    if (!n.daemon || n.running.empty() || n.stopped_until > w_.now)
        return;
    std::string s = *n.running.begin();
    if (on_its_way_down(n, s))
        return;
    hit(fault::stop, "stop server " + s + " on node " + str(n.id.value));
    ask_to_stop(n, s);
}

void run::ask_to_stop(node& n, const std::string& s) {
    const ticket t = n.new_ticket();
    stopping_[{n.id, n.boot, s}] = {t, n.life};
    n.take(input::stop{s, t});
}

void run::stops(node& n) {
    for (auto& [key, asked] : stopping_) // its daemon is another one
        if (auto& [id, boot, server] = key;
            id == n.id && boot == n.boot && asked.second != n.life && n.running.contains(server))
            ask_to_stop(n, server);
    std::erase_if(stopping_, [&](auto& e) {
        auto& [id, boot, server] = e.first;
        if (id != n.id)
            return false;
        if (boot != n.boot)
            return true;
        auto a = n.answers.find(e.second.first.value);
        if (a == n.answers.end())
            return !n.running.contains(server);
        if (a->second.first != request_status::done)
            return true;
        say("server " + server + " is down on node " + str(id.value));
        if (n.running.erase(server))
            checker_.nfsd_gone(n, server, n.open());
        n.take(input::nfsd_ended{server});
        releasing_[e.first] = w_.now + w_.draw_ms(0, 400);
        return true;
    });
    // What else is taken down takes its time; no other node may host it before.
    std::erase_if(releasing_, [&](auto& e) {
        auto& [id, boot, server] = e.first;
        if (id != n.id || (boot == n.boot && w_.now < e.second))
            return false;
        if (boot == n.boot)
            n.take(input::released{server, n.new_ticket()});
        return true;
    });
}

void run::traffic() {
    std::string s = any_server(), c = any_client();
    for (auto& [id, n] : w_.nodes)
        if (n->daemon && !n->paused && n->side == 0 && n->running.contains(s) &&
            !held_.contains({id, n->boot, s})) {
            checker_.client_calls(*n, s, c);
            return;
        }
}

// --- the end ---

bool run::quiet() const {
    for (auto& [id, n] : w_.nodes)
        if (!n->open() || n->stopped_until > w_.now || !n->unsynced.empty())
            return false;
    return w_.unfenced.empty() && !w_.locks.frozen() && !checker_.upcalls_wait();
}

void run::calm() {
    say("calm");
    calm_ = true;
    w_.slow_ring = w_.late_permit = 0;
    moving_.clear();
    for (auto& [id, job] : fencing_) {
        job.failures = 0;
        job.due = std::min(job.due, w_.now + seconds(2));
    }
    for (auto& [id, n] : w_.nodes) {
        n->disk_full = false;
        w_.mend_disk(id.value);
        n->slow_disk = 0;
        n->refuse = n->crash_in = 0;
        if (n->side != 0 && !n->paused)
            w_.merge(id.value);
    }
    const instant limit = w_.now + seconds(90);
    instant reset_at = w_.now + seconds(8);
    while (w_.now < limit && ok()) {
        live(milliseconds(250));
        for (auto& [id, n] : w_.nodes)
            if (n->side != 0 && !n->paused)
                w_.merge(id.value);
        if (w_.now > reset_at) { // where nobody is quorate, a person resets what must be fenced
            for (node_id id : std::set<node_id>(w_.unfenced))
                w_.power_off(id.value);
            reset_at = limit;
        }
        if (quiet()) {
            checker_.compare();
            return;
        }
    }
    if (ok())
        checker_.bad = why_not_open();
}

std::string run::why_not_open() const {
    std::string why = "L1: not all is quiet 90 seconds after the last fault:";
    why += checker_.upcalls();
    for (node_id id : w_.unfenced)
        why += " (node " + str(id.value) + " not fenced)";
    for (auto& [id, n] : w_.nodes) {
        why += " node " + str(id.value);
        if (!n->daemon) {
            why += " has no daemon";
            continue;
        }
        const fsm& f = n->machine();
        why += std::string(" ") + to_string(f.current_phase()) + " gate " +
               (f.gate().open ? "open" : "closed") + "/" + to_string(n->kern.gate) + " at " +
               str(f.gate().at.value) + "/" + str(n->kern.at.value) + " trips " +
               str(f.gate().accounted) + "/" + str(f.gate().trips) + "/" + str(n->kern.trips) +
               " lock " + to_string(f.locks().held) + " close " + str(f.gate().close_order) + "/" +
               str(f.gate().close_acked);
        why += " position " + str(f.replicated().applied.value) + " wanted durable " +
               str(f.replicated().wants_durable.value) + " said";
        for (auto& [other, m] : f.replicated().nodes)
            why += (m.member && m.synced ? " " : " -") + str(m.durable.value);
        for (auto& b : f.blocked_by())
            why += " [" + b + "]";
    }
    if (trace_)
        std::cerr << w_.locks.dump();
    return why;
}

} // namespace grace::sim
