// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim/world.hh"

#include <algorithm>
#include <iostream>
#include <utility>

namespace grace::sim {
namespace {
template <typename... F>
struct overloaded : F... {
    using F::operator()...;
};
} // namespace

void apply_batch(stored_state& s, const store_batch& batch) {
    for (const store_operation& op : batch)
        std::visit(overloaded{
                       [&](const store_op::put_record& o) {
                           map_of(s, o.server, o.client)[o.client] = o.rec;
                       },
                       [&](const store_op::remove_record& o) {
                           map_of(s, o.server, o.client).erase(o.client);
                       },
                       [&](const store_op::lower& o) { s.records[o.server].lower(o.limit); },
                       [&](const store_op::renew& o) { s.records[o.server].renew(o.at); },
                       [&](const store_op::purge& o) { s.records[o.server].purge(o.limit); },
                       [&](const store_op::replace_all& o) {
                           s.records = o.records;
                           s.mounts = o.mounts;
                       },
                       [&](const store_op::put_meta& o) { s.meta = o.meta; },
                   },
                   op);
}

// --- node: the ports ---

instant node::clock() const {
    return world_.now + skew;
}

bool node::open() const {
    return powered && kern.open(world_.now);
}

void node::take(any_input in) {
    if (daemon && world_.told) {
        world_.told->observe(world_);
        world_.told->delivering(*this, in);
        const any_input copy = in;
        daemon->take(std::move(in));
        world_.told->delivered(world_, *this, copy);
    } else if (daemon) {
        daemon->take(std::move(in));
    }
    world_.check();
}

void node::keep() {
    kept.clear();
    for (const auto& [server, i] : machine().instances())
        kept[server] = {i.running, i.stopping, i.answered};
}

void node::mcast(bytes m) {
    if (world_.watch)
        world_.watch->sent(*this, m);
    world_.after(world_.next(*this, world::to_group), [this, l = life, m = std::move(m)]() mutable {
        if (l == life && daemon)
            world_.order(id, std::move(m));
    });
}

void node::leave() {
    world_.after(world_.next(*this, world::to_group), [this, l = life] {
        if (l == life)
            wants_out = true;
        world_.regroup(*this, l);
    });
}

void node::join_again() {
    world_.after(world_.next(*this, world::to_group), [this, l = life] {
        if (l == life)
            wants_out = false;
        world_.regroup(*this, l);
    });
}

void node::query_dlm_members() {
    world_.after(world_.next(*this, world::from_group), [this, l = life] {
        if (l == life)
            take(input::dlm_members{true, world_.controlds(id)});
    });
}

void node::convert(lock_resource r, node_id n, lock_mode m, const lvb_bytes* v) {
    const lock_key key{r, r == lock_resource::grace ? node_id{} : n};
    if (!asked.insert(key).second)
        world_.violations.push_back("node " + std::to_string(id.value) + " asks for " +
                                    mode_name(m) + " on " + name_of(key) +
                                    " before its last request is answered");
    std::optional<lvb_bytes> value;
    if (v)
        value = *v;
    world_.after(world_.next(*this, world::lock_calls),
                 [this, k = keeper, l = life, r, n, m, value, key] {
                     if (k == 0 || k != keeper)
                         return;
                     if (r == lock_resource::grace && m != lock_mode::nl && refuse != 0) {
                         --refuse; // conversion deadlock: the mode stays what it was
                         world_.after(world_.next(*this, world::lock_events), [this, l, r, n, key] {
                             if (l != life)
                                 return;
                             asked.erase(key);
                             take(input::lock_refused{r, n, EDEADLK});
                         });
                         return;
                     }
                     world_.locks.convert(id, key, m, value ? &*value : nullptr);
                     world_.pump_locks();
                 });
}

void node::cancel(lock_resource r, node_id n) {
    world_.after(world_.next(*this, world::lock_calls), [this, k = keeper, r, n] {
        if (k == 0 || k != keeper)
            return;
        world_.locks.cancel(id, {r, r == lock_resource::grace ? node_id{} : n});
        world_.pump_locks();
    });
}

// Batches are transactions, and become durable in their order. What of them a crash leaves is any
// beginning: a transaction that was torn is rolled back.
void node::commit(store_batch batch, position at) {
    if (world_.watch)
        world_.watch->committing(*this, batch);
    if (disk_broken)
        return;
    if (disk_full)
        return world_.break_disk(id.value);
    unsynced.push_back(std::move(batch));
    if (slow_disk)
        last[world::disk] = std::max(last[world::disk], world_.now + slow_disk);
    if (crash_in != 0 && --crash_in == 0)
        world_.after(world_.draw_ms(0, 3), [this, b = boot] {
            if (b == boot && powered)
                world_.power_off(id.value);
        });
    world_.after(world_.next(*this, world::disk), [this, l = life, st = store_life, at] {
        if (l != life || st != store_life)
            return;
        apply_batch(disk, unsynced.front());
        has_disk = true;
        if (world_.watch)
            world_.watch->committed(*this, unsynced.front());
        unsynced.pop_front();
        take(input::durable{at});
    });
}

void node::close_gate(epoch e, std::uint64_t order) {
    kern.gate = gate_state::closed;
    kern.at = e;
    kern.reclaim.clear();
    world_.from_kernel(*this, input::kernel_acked{order});
}

void node::open_gate(epoch e, std::uint64_t trips, std::uint64_t order) {
    const bool ok =
        kern.attached && e == kern.at && trips == kern.trips && world_.now < kern.permit;
    if (ok) {
        kern.gate = gate_state::open;
        acted = true;
        if (world_.watch)
            world_.watch->gate_opened(*this);
    }
    world_.check();
    if (ok)
        world_.from_kernel(*this, input::kernel_acked{order});
    else
        world_.from_kernel(*this, input::kernel_refused{order, EAGAIN, "trips or permit"});
}

void node::set_reclaim(const std::string& server, epoch e, bool on, std::uint64_t order) {
    const bool ok = !on || (kern.attached && kern.gate == gate_state::closed && e == kern.at);
    if (ok && on) {
        kern.reclaim.insert(server);
        acted = true;
        if (world_.watch)
            world_.watch->reclaim_opened(*this, server);
    }
    if (!on)
        kern.reclaim.erase(server);
    world_.check();
    if (ok)
        world_.from_kernel(*this, input::kernel_acked{order});
    else
        world_.from_kernel(*this, input::kernel_refused{order, ESTALE, "epoch"});
}

void node::extend_permit(instant until) {
    kern.permit = std::max(kern.permit, until - skew);
    if (!permit_timer_)
        watch_permit();
}

// The kernel's own timer: the gate closes by itself when the permit has run out. Whoever asks for
// a lock looks at the clock, also while the timer is late.
void node::watch_permit() {
    permit_timer_ = true;
    duration late = 0;
    if (world_.late_permit && world_.draw(8) == 0 && ++world_.late_permits)
        late = static_cast<duration>(world_.draw(static_cast<std::uint64_t>(world_.late_permit)));
    // A timer of an earlier boot may fire: it then serves this one, which found it pending.
    world_.after(kern.permit - world_.now + late, [this] {
        permit_timer_ = false;
        if (world_.now < kern.permit)
            return watch_permit();
        if (kern.gate != gate_state::open)
            return;
        kern.gate = gate_state::closed;
        world_.from_kernel(*this, input::kernel_closed{});
    });
}

void node::answer(ticket t, upcall_status s) {
    upcalls[t.value] = s;
    if (world_.watch)
        world_.watch->upcall_answered(*this, t, s);
}
void node::answer_grace_start(ticket t, const std::vector<known_client>& clients) {
    const std::string server = grace_starts.at(t.value);
    grace_starts.erase(t.value);
    auto& list = nfsd_lists[server];
    list.clear();
    for (const auto& c : clients)
        list.push_back(c.name);
    running.insert(server);
    if (world_.watch)
        world_.watch->nfsd_listed(*this, server);
}
void node::answer(ticket t, request_status s, const std::string& d) {
    answers[t.value] = {s, d};
}
void node::tell(news_level l, const std::string& text) {
    if (keep_news)
        news.push_back(text);
    if (verbose && l != news_level::debug)
        std::cerr << world_.now / 1'000'000 << " ms node " << id.value << ": " << text << '\n';
}
void node::fence(node_id victim, const std::string&) {
    world_.after(world_.hop(), [this, victim] {
        world_.power_off(victim.value);
        world_.fence(victim.value);
    });
}

// --- world ---

world::world(unsigned n, std::uint64_t seed)
    : random(seed) {
    defaults.permit_ttl = milliseconds(800); // below the token's timeout
    defaults.heartbeat_interval = milliseconds(200);
    for (unsigned i = 1; i <= n; ++i)
        nodes[node_id{i}] = std::make_unique<node>(*this, node_id{i});
}

duration world::hop() { // one message, one call, one fsync
    return milliseconds(1) +
           (jitter ? static_cast<duration>(draw(static_cast<std::uint64_t>(jitter))) : 0);
}

duration world::draw_ms(std::int64_t from, std::int64_t to) {
    return milliseconds(from) +
           static_cast<duration>(draw(static_cast<std::uint64_t>(milliseconds(to - from) + 1)));
}

duration world::next(node& n, channel c) {
    instant& t = n.last[c];
    t = std::max({t, now + hop(), n.stopped_until});
    return t - now;
}

void world::from_kernel(node& n, any_input in) {
    after(next(n, kernel_acks), [&n, l = n.life, k = n.socket, in = std::move(in)]() mutable {
        if (l == n.life && k == n.socket)
            n.take(std::move(in));
    });
}

void world::after(duration d, std::function<void()> f) {
    events_.push({now + std::max<duration>(d, 0), ++age_, std::move(f)});
}

bool world::step() {
    if (events_.empty())
        return false;
    event e = std::move(const_cast<event&>(events_.top())); // popped at once
    events_.pop();
    now = std::max(now, e.at);
    ++steps;
    e.run();
    if (told)
        told->observe(*this);
    check();
    return true;
}

void world::run_for(duration d) {
    const instant end = now + d;
    while (!events_.empty() && events_.top().at <= end)
        step();
    now = end;
}

void world::run_until(const std::function<bool()>& f, duration limit, const char* what) {
    const instant end = now + limit;
    while (!f()) {
        if (events_.empty() || events_.top().at > end)
            throw std::runtime_error(std::string("never came true: ") + what);
        step();
    }
}

void world::boot(unsigned i) {
    node& n = (*this)[i];
    fence(i);                  // a node that comes up clean is as good as fenced
    component_of_.erase(n.id); // it may be back before anybody noticed that it was gone
    n.powered = n.corosync = true;
    n.acted = false;
    n.paused = false;
    n.side = 0;
    n.stopped_until = 0;
    ++n.boot;
    n.kern = {};
    n.keeper = ++n.keepers;
    n.locks_in_doubt = false;
    n.controld = true;
    n.running.clear();
    n.kept.clear();
    n.nfsd_lists.clear();
    n.grace_starts.clear();
    n.last.clear();
    if (watch)
        watch->booted(n);
    gather(0);
}

void world::drop_probes(node& n) { // of a daemon that is no more
    for (const auto& [key, status] : locks.locks_of(n.id)) {
        if (key.resource != lock_resource::alive || key.node == n.id)
            continue;
        if (status.requested)
            locks.cancel(n.id, key);
        else
            locks.convert(n.id, key, lock_mode::nl);
    }
}

void world::start_daemon(unsigned i) {
    node& n = (*this)[i];
    if (!in_ring(n.id))
        return;
    ++n.life;
    n.timer = n.timer_event = 0;
    n.stopped_until = n.paused ? n.stopped_until : 0;
    n.disk_broken = n.wants_out = n.out_of_group = false;
    n.last.clear();
    n.asked.clear();
    parameters p = defaults;
    p.self = n.id;
    p.name = "node" + std::to_string(i);
    p.life = incarnation{(n.boot * 10000 + n.life) * 1000000 + i * 10000};
    p.boot = n.boot;
    n.daemon = std::make_unique<engine>(
        ports{n, n, n, n, n, n, n, n}, [&n] { return n.clock(); },
        [this, &n](instant t) { arm(n, t); }, p, n.has_disk ? std::optional(n.disk) : std::nullopt);
    n.upcalls.clear();
    // What it is told of the servers that its predecessor knew, and which of them have gone since.
    const auto known = n.kept;
    for (auto& [server, k] : known) {
        n.take(input::instance_known{server, k.running, k.stopping, !v0, k.answered});
        if (k.running && !n.running.contains(server))
            n.take(input::nfsd_ended{server});
    }
    n.daemon->before_effects([&n] { n.keep(); });
    ++n.socket;
    n.kern.attached = true;
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    n.take(input::kernel_attached{n.boot, n.kern.at, n.kern.trips});
    n.locks_in_doubt = false;
    if (n.keeper != 0) {
        drop_probes(n); // the client gives back the probes of a former life
        lock_map held = locks.locks_of(n.id);
        n.locks_in_doubt = held[grace_lock].requested.has_value(); // of its former life
        n.take(input::locks_known{held[grace_lock].held.value_or(lock_mode::nl),
                                  held[alive_lock(n.id)].held == lock_mode::ex,
                                  held[grace_lock].requested,
                                  held[alive_lock(n.id)].requested == lock_mode::ex});
    }
    join_group(n, n.life);
}

void world::lose_unsynced(node& n) {
    const std::size_t kept = draw(n.unsynced.size() + 1);
    lost_batches += n.unsynced.size() - kept;
    for (std::size_t k = 0; k < kept; ++k) {
        apply_batch(n.disk, n.unsynced[k]);
        n.has_disk = true;
        if (watch)
            watch->committed(n, n.unsynced[k]);
    }
    n.unsynced.clear();
}

// Some of what it was given is there, nothing of it is said to be, and no more is taken.
void world::break_disk(unsigned i) {
    node& n = (*this)[i];
    n.disk_broken = true;
    ++n.store_life;
    lose_unsynced(n);
    after(next(n, disk), [&n, l = n.life] {
        if (l == n.life)
            n.take(input::store_failed{"the recovery database cannot be written: disk full"});
    });
}

void world::mend_disk(unsigned i) {
    node& n = (*this)[i];
    if (!std::exchange(n.disk_broken, false))
        return;
    after(next(n, disk), [&n, l = n.life] {
        if (l == n.life)
            n.take(input::store_opened{});
    });
}

void world::kill_daemon(unsigned i) {
    node& n = (*this)[i];
    n.daemon.reset();
    if (watch)
        watch->daemon_died(n);
    lose_unsynced(n);
    const std::uint64_t life = n.life++;
    n.grace_starts.clear(); // the pipe is gone: those nfsds do not come up
    n.kern.attached = false;
    // The kernel closes the gate in the moment in which it closes the daemon's socket. That may be
    // later than what the others are told: a process that ends closes one descriptor after the
    // other, and may wait for its disk in between. The permit's end is the latest. Until then the
    // gate is open and nobody listens, so that a keeper which dies now (PR goes with it) closes
    // nothing: as with a daemon that has not heard of it yet, S7 asks for no PR. What that PR stood
    // for is asked all the same: S1, S8.
    if (!late_permit || n.kern.gate != gate_state::open) {
        n.kern.gate = gate_state::closed;
        n.locks_in_doubt = false;
    }
    n.kern.reclaim.clear();
    leave_group(n, life);
    // The keeper goes on: CW and alive stay; PR and EX go once the permit must have run out.
    after(defaults.permit_ttl, [this, &n, l = n.life, k = n.keeper] { step_down(n, l, k); });
}

// What a keeper does every second as long as its daemon is away.
void world::step_down(node& n, std::uint64_t life, std::uint64_t keeper) {
    if (n.keeper != keeper || n.life != life || keeper == 0)
        return;
    drop_probes(n);
    const lock_map held = locks.locks_of(n.id);
    if (auto g = held.find(grace_lock); g != held.end()) {
        if (g->second.requested && *g->second.requested != lock_mode::nl)
            locks.cancel(n.id, grace_lock);
        else if (g->second.held == lock_mode::pr || g->second.held == lock_mode::ex)
            locks.convert(n.id, grace_lock, lock_mode::nl);
    }
    pump_locks();
    after(seconds(1), [this, &n, life, keeper] { step_down(n, life, keeper); });
}

void world::power_off(unsigned i) {
    node& n = (*this)[i];
    if (!n.powered)
        return;
    if (watch)
        watch->died(n);
    n.powered = n.corosync = n.paused = false;
    n.daemon.reset();
    lose_unsynced(n);
    ++n.life;
    ++n.boot;
    n.kern = {};
    n.keeper = 0;
    n.trip_pending = n.locks_in_doubt = false;
    n.crash_in = n.refuse = 0;
    n.slow_disk = 0;
    n.running.clear();
    n.grace_starts.clear();
    must_fence(n.id);
    if (auto c = component_of_.find(n.id); c != component_of_.end()) {
        stall(n.id);
        after(token, [this, at = c->second] { recover(at); });
    }
}

void world::must_fence(node_id id) {
    if (unfenced.insert(id).second)
        nodes.at(id)->unfenced_since = now;
}

void world::fence(unsigned i) {
    const bool lose = lose_value && draw(lose_value) == 0;
    lost_values += lose;
    locks.fenced(node_id{i}, lose);
    unfenced.erase(node_id{i});
    pump_locks();
}

void world::hang(unsigned i, duration d) {
    node& n = (*this)[i];
    n.stopped_until = std::max(n.stopped_until, now + d);
}

void world::jump(unsigned i, duration d) {
    node& n = (*this)[i];
    n.skew += d;
    n.kern.permit -= d;
    n.echoed -= d;
    if (n.daemon && n.timer != 0) {
        n.timer_event = 0;
        arm(n, n.timer);
    }
}

void world::trip(unsigned i) {
    node& n = (*this)[i];
    n.kern.gate = gate_state::closed;
    ++n.kern.trips;
    from_kernel(n, input::kernel_tripped{n.kern.trips});
}

void world::reload_module(unsigned i) {
    node& n = (*this)[i];
    n.kern = {};
}

void world::lose_netlink(unsigned i, duration d) {
    node& n = (*this)[i];
    n.kern.attached = false;
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    ++n.socket; // what the old one still had is lost with it
    from_kernel(n, input::kernel_lost{"the socket is closed"});
    after(d, [&n, l = n.life] {
        if (l != n.life || !n.daemon)
            return;
        ++n.socket;
        n.kern.attached = true;
        n.kern.gate = gate_state::closed;
        n.kern.reclaim.clear();
        n.take(input::kernel_attached{n.boot, n.kern.at, n.kern.trips});
    });
}

void world::kill_keeper(unsigned i, duration d) {
    node& n = (*this)[i];
    if (!n.powered || n.keeper == 0)
        return;
    n.keeper = 0;
    n.locks_in_doubt = n.daemon != nullptr || n.kern.gate == gate_state::open;
    locks.keeper_died(n.id);
    pump_locks();
    after(next(n, lock_events), [&n, l = n.life] {
        if (l != n.life || !n.daemon)
            return;
        n.locks_in_doubt = false;
        n.asked.clear();
        n.take(input::locks_lost{});
    });
    after(d, [this, &n, b = n.boot] {
        if (b != n.boot || n.keeper != 0)
            return;
        n.keeper = ++n.keepers;
        after(next(n, lock_events), [&n, l = n.life] {
            if (l == n.life)
                n.take(input::locks_known{lock_mode::nl, false, {}, false});
        });
    });
}

void world::freeze_locks(duration d) {
    locks.freeze();
    after(d, [this] {
        locks.fenced(node_id{}); // nobody: only the freeze ends
        pump_locks();
    });
}

void world::pump_locks() {
    ++lock_changes;
    for (const lock_event& e : locks.take_events()) {
        node& n = *nodes.at(e.owner);
        after(next(n, lock_events), [&n, l = n.life, k = n.keeper, e] {
            if (l != n.life || k != n.keeper)
                return;
            if (e.kind != lock_event::what::blocking)
                n.asked.erase(e.key);
            if (e.key == grace_lock && e.kind != lock_event::what::blocking)
                n.locks_in_doubt = false;
            switch (e.kind) {
            case lock_event::what::granted:
                n.take(input::lock_granted{e.key.resource, e.key.node, e.mode, e.value_valid,
                                           e.value});
                break;
            case lock_event::what::refused:
                n.take(input::lock_refused{e.key.resource, e.key.node, e.code});
                break;
            case lock_event::what::cancelled:
                n.take(input::lock_cancelled{e.key.resource, e.key.node});
                break;
            case lock_event::what::blocking:
                break;
            }
        });
    }
}

// One timer for each daemon, as in production: arming it anew replaces the older time. Times are
// of the node's clock.
void world::arm(node& n, instant t) {
    n.timer = t;
    if (t == 0 || (n.timer_event != 0 && n.timer_event <= t))
        return;
    n.timer_event = t;
    after(std::max(t - n.clock(), n.stopped_until - now), [this, &n, l = n.life, t] {
        if (l != n.life || !n.daemon || n.timer_event != t)
            return;
        n.timer_event = 0;
        if (n.timer > n.clock() || (n.timer != 0 && n.stopped_until > now))
            arm(n, n.timer); // it was moved back meanwhile
        else if (n.timer != 0)
            n.daemon->tick();
    });
}

ticket world::serve(unsigned id, const std::string& server) {
    node& n = (*this)[id];
    if (!n.kept.contains(server))
        n.take(input::instance_known{server, false, false, !v0, {}});
    ticket t = n.new_ticket();
    n.take(input::serve{server, t});
    return t;
}

void world::nfsd_start(unsigned id, const std::string& server) {
    node& n = (*this)[id];
    ticket t = n.new_ticket();
    n.grace_starts[t.value] = server;
    n.take(input::grace_start{server, t});
}

ticket world::create(unsigned id, const std::string& server, const std::string& client) {
    node& n = (*this)[id];
    ticket t = n.new_ticket();
    n.take(input::create{server, client, {}, t});
    return t;
}

// From the outside: what the kernels really allow at this moment.
void world::check() {
    const node *open = nullptr, *reclaim = nullptr;
    for (auto& [id, n] : nodes) {
        if (!n->powered)
            continue;
        if (n->kern.open(now))
            open = n.get();
        if (n->kern.reclaim.empty())
            continue;
        for (auto& [other, m] : nodes)
            if (other < id && m->powered)
                for (const std::string& s : n->kern.reclaim)
                    if (m->kern.reclaim.contains(s))
                        violations.push_back("S9: " + s + " is open for reclaim on two nodes");
        reclaim = n.get();
    }
    if (open && reclaim)
        violations.push_back("S1: a gate is open while a server may accept a reclaim");
    if (watch)
        watch->stepped();
}

} // namespace grace::sim
