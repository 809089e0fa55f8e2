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
        std::visit(
            overloaded{
                [&](const store_op::put_record& o) { s.records[o.server][o.client] = o.rec; },
                [&](const store_op::remove_record& o) { s.records[o.server].erase(o.client); },
                [&](const store_op::lower& o) {
                    s.records[o.server].lower(o.limit);
                },
                [&](const store_op::renew& o) {
                    s.records[o.server].renew(o.at);
                },
                [&](const store_op::purge& o) {
                    s.records[o.server].purge(o.limit);
                },
                [&](const store_op::replace_all& o) { s.records = o.records; },
                [&](const store_op::put_meta& o) { s.meta = o.meta; },
            },
            op);
}

// --- node: the ports ---

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

void node::mcast(bytes m) {
    world_.after(world_.next(*this, world::to_group), [this, l = life, m = std::move(m)] {
        if (l == life && daemon)
            world_.order(id, m);
    });
}

void node::query_dlm_members() {
    world_.after(world_.next(*this, world::from_group), [this, l = life] {
        if (l == life)
            take(input::dlm_members{true, world_.ring_of(id)});
    });
}

void node::leave() {
    world_.after(world_.next(*this, world::to_group), [this, l = life] {
        if (l == life && daemon)
            world_.leave_group(*this);
    });
}

void node::join_again() {
    world_.after(world_.next(*this, world::to_group), [this, l = life] {
        if (l == life && daemon)
            world_.join_group(*this);
    });
}

void node::convert(lock_resource r, node_id n, lock_mode m, const lvb_bytes* v) {
    std::optional<lvb_bytes> value;
    if (v)
        value = *v;
    world_.after(world_.next(*this, world::lock_calls), [this, b = boot, r, n, m, value] {
        if (b != boot)
            return;
        world_.locks.convert(id, {r, r == lock_resource::grace ? node_id{} : n}, m,
                             value ? &*value : nullptr);
        world_.pump_locks();
    });
}

void node::cancel(lock_resource r, node_id n) {
    world_.after(world_.next(*this, world::lock_calls), [this, b = boot, r, n] {
        if (b != boot)
            return;
        world_.locks.cancel(id, {r, r == lock_resource::grace ? node_id{} : n});
        world_.pump_locks();
    });
}

void node::commit(store_batch batch, position at) {
    world_.after(world_.next(*this, world::disk),
                 [this, b = boot, l = life, batch = std::move(batch), at] {
                     if (b != boot || disk_broken)
                         return;
                     apply_batch(disk, batch);
                     has_disk = true;
                     if (l == life)
                         take(input::durable{at});
                 });
}

void node::close_gate(epoch e, std::uint64_t order) {
    kern.gate = gate_state::closed;
    kern.at = e;
    kern.reclaim.clear();
    world_.after(world_.next(*this, world::kernel_acks), [this, l = life, order] {
        if (l == life)
            take(input::kernel_acked{order});
    });
}

void node::open_gate(epoch e, std::uint64_t trips, std::uint64_t order) {
    const bool ok =
        kern.attached && e == kern.at && trips == kern.trips && world_.now < kern.permit;
    if (ok)
        kern.gate = gate_state::open;
    world_.check();
    world_.after(world_.next(*this, world::kernel_acks), [this, l = life, order, ok] {
        if (l != life)
            return;
        if (ok)
            take(input::kernel_acked{order});
        else
            take(input::kernel_refused{order, EAGAIN, "trips or permit"});
    });
}

void node::set_reclaim(const std::string& server, epoch e, bool on, std::uint64_t order) {
    const bool ok = !on || (kern.attached && kern.gate == gate_state::closed && e == kern.at);
    if (ok && on)
        kern.reclaim.insert(server);
    if (!on)
        kern.reclaim.erase(server);
    world_.check();
    world_.after(world_.next(*this, world::kernel_acks), [this, l = life, order, ok] {
        if (l != life)
            return;
        if (ok)
            take(input::kernel_acked{order});
        else
            take(input::kernel_refused{order, ESTALE, "epoch"});
    });
}

void node::extend_permit(instant until) {
    kern.permit = std::max(kern.permit, until);
    if (!permit_timer_)
        watch_permit();
}

// The kernel's own timer: the gate closes by itself when the permit has run out.
void node::watch_permit() {
    permit_timer_ = true;
    // A timer of an earlier boot may fire: it then serves this one, which found it pending.
    world_.after(kern.permit - world_.now, [this] {
        permit_timer_ = false;
        if (world_.now < kern.permit)
            return watch_permit();
        if (kern.gate != gate_state::open)
            return;
        kern.gate = gate_state::closed;
        take(input::kernel_closed{});
    });
}

void node::answer(ticket t, upcall_status s) {
    upcalls[t.value] = s;
    if (world_.upcall_answered)
        world_.upcall_answered(*this, t, s);
}
void node::answer_grace_start(ticket t, const std::vector<known_client>& clients) {
    const std::string server = grace_starts.at(t.value);
    grace_starts.erase(t.value);
    auto& list = nfsd_lists[server];
    list.clear();
    for (const auto& c : clients)
        list.push_back(c.name);
    running[server] = {};
}
void node::answer(ticket t, request_status s, const std::string& d) {
    answers[t.value] = {s, d};
}
void node::tell(news_level l, const std::string& text) {
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
    for (unsigned i = 1; i <= n; ++i)
        nodes[node_id{i}] = std::make_unique<node>(*this, node_id{i});
}

duration world::hop() { // one message, one call, one fsync
    return milliseconds(1) +
           (jitter ? static_cast<duration>(draw(static_cast<std::uint64_t>(jitter))) : 0);
}

duration world::next(node& n, channel c) {
    instant& t = n.last[c];
    t = std::max(t, now + hop());
    return t - now;
}

void world::deliver(node& n, std::function<void()> f) {
    after(next(n, from_group), [&n, l = n.life, f = std::move(f)] {
        if (l == n.life && n.daemon)
            f();
    });
}

void world::trip(const std::set<node_id>& ring) {
    for (node_id id : ring) {
        node& n = *nodes.at(id);
        n.kern.gate = gate_state::closed;
        ++n.kern.trips;
        after(next(n, kernel_acks), [&n, l = n.life, t = n.kern.trips] {
            if (l == n.life)
                n.take(input::kernel_tripped{t});
        });
    }
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
    if (told)
        told->observe(*this);
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

std::set<node_id> world::ring_of(node_id n) const {
    auto c = component_of_.find(n);
    return c == component_of_.end() ? std::set<node_id>{} : rings_.at(c->second).ring;
}

std::uint64_t world::component(node_id n) const {
    return component_of_.at(n);
}

// Agreed order: whoever is in the sender's group now delivers, in the order of this call.
void world::order(node_id from, bytes message) {
    auto c = component_of_.find(from);
    if (c == component_of_.end())
        return;
    for (node_id to : rings_[c->second].group) {
        node& n = *nodes.at(to);
        deliver(n, [&n, from, message] { n.take(input::deliver{from, message}); });
    }
}

void world::announce_ring(std::uint64_t c) {
    const ring_state& r = rings_[c];
    const std::size_t all = nodes.size();
    for (node_id id : r.group) {
        node& n = *nodes.at(id);
        input::quorum q{r.ring.size() * 2 > all, r.seq, {}, static_cast<std::uint32_t>(all)};
        for (node_id m : r.ring)
            q.votes[m] = 1;
        deliver(n, [&n, seq = r.seq] { n.take(input::ring{seq}); });
        after(next(n, from_quorum),
              [&n, l = n.life, q] { // another descriptor: in no order with the group's
                  if (l == n.life)
                      n.take(q);
              });
    }
}

void world::confchg(std::uint64_t c, std::set<node_id> group,
                    std::map<node_id, input::left_reason> left, std::set<node_id> joined) {
    rings_[c].group = group;
    input::confchg change;
    change.members.assign(group.begin(), group.end());
    change.joined.assign(joined.begin(), joined.end());
    for (auto [id, why] : left)
        change.left.push_back({id, why});
    for (node_id id : group) {
        node& n = *nodes.at(id);
        deliver(n, [&n, change] { n.take(change); });
    }
}

// A new ring of these nodes; `why` says of members that leave how they are seen to leave.
void world::reform(const std::set<node_id>& ring, std::map<node_id, input::left_reason> why) {
    const std::uint64_t c = ++components_;
    rings_[c].seq = ring_seq_ += 4;
    rings_[c].ring = ring;
    std::set<node_id> group;
    for (node_id id : ring)
        if (nodes.at(id)->daemon)
            group.insert(id);
    rings_[c].group = group;
    // Each member first loses those of its old group that did not come along, then sees the others.
    for (node_id id : group) {
        auto old = component_of_.find(id);
        std::set<node_id> before;
        if (old != component_of_.end())
            before = rings_[old->second].group;
        input::confchg gone, joined;
        for (node_id m : before) {
            auto mc = component_of_.find(m);
            bool with_me =
                group.contains(m) && mc != component_of_.end() && mc->second == old->second;
            if (with_me)
                gone.members.push_back(m);
            else
                gone.left.push_back({m, why.contains(m) ? why.at(m) : input::left_reason::node});
        }
        joined.members.assign(group.begin(), group.end());
        for (node_id m : group)
            if (std::ranges::find(gone.members, m) == gone.members.end())
                joined.joined.push_back(m);
        node& n = *nodes.at(id);
        if (!gone.left.empty())
            deliver(n, [&n, gone] { n.take(gone); });
        if (!joined.joined.empty())
            deliver(n, [&n, joined] { n.take(joined); });
    }
    for (node_id id : ring)
        component_of_[id] = c;
    trip(ring); // dlm_controld stops the kernel's lockspace before it drops anything
    announce_ring(c);
}

void world::boot(unsigned i) {
    node& n = (*this)[i];
    if (component_of_.contains(n.id)) { // back before anybody noticed that it was gone
        notice_death(n.id);
    }
    fence(i); // a node that comes up clean is as good as fenced
    n.powered = true;
    ++n.boot;
    n.kern = {};
    n.running.clear();
    std::set<node_id> ring{n.id};
    for (auto& [id, other] : nodes)
        if (other->powered && id != n.id && component_of_.contains(id))
            ring.insert(id);
    reform(ring, {});
}

void world::start_daemon(unsigned i) {
    node& n = (*this)[i];
    ++n.life;
    n.timer = n.timer_event = 0;
    parameters p = defaults;
    p.self = n.id;
    p.name = "node" + std::to_string(i);
    p.life = incarnation{n.boot * 1000 + n.life * 64 + i};
    p.boot = n.boot;
    n.daemon = std::make_unique<engine>(
        ports{n, n, n, n, n, n, n, n}, [this] { return now; }, [this, &n](instant t) { arm(n, t); },
        p, n.has_disk ? std::optional(n.disk) : std::nullopt);
    n.upcalls.clear();
    for (auto& [server, answered] : n.running)
        n.take(input::instance_known{server, true, false, true, answered});
    n.kern.attached = true;
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    n.take(input::kernel_attached{n.boot, n.kern.at, n.kern.trips});
    lock_map held = locks.locks_of(n.id);
    for (const auto& [key, status] : held) { // the client gives back the probes of a former life
        if (key.resource != lock_resource::alive || key.node == n.id)
            continue;
        locks.cancel(n.id, key);
        locks.convert(n.id, key, lock_mode::nl);
    }
    n.take(input::locks_known{held[grace_lock].held.value_or(lock_mode::nl),
                              held[alive_lock(n.id)].held == lock_mode::ex});
    const std::uint64_t c = component_of_.at(n.id);
    std::set<node_id> group = rings_[c].group;
    group.insert(n.id);
    confchg(c, group, {}, {n.id});
    announce_ring(c);
}

void world::kill_daemon(unsigned i) {
    node& n = (*this)[i];
    for (auto& [server, inst] : n.machine().instances())
        if (n.running.contains(server))
            n.running[server] = inst.answered;
    n.daemon.reset();
    ++n.life;
    n.kern.attached = false;
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    const std::uint64_t c = component_of_.at(n.id);
    std::set<node_id> group = rings_[c].group;
    group.erase(n.id);
    confchg(c, group, {{n.id, input::left_reason::process}}, {});
    // The keeper goes on: CW and alive stay; PR and EX go once the permit must have run out.
    after(defaults.permit_ttl, [this, &n, l = n.life, b = n.boot] {
        if (n.boot != b || n.life != l)
            return;
        for (const auto& [key, status] : locks.locks_of(n.id)) {
            if (key.resource != lock_resource::alive || key.node == n.id)
                continue;
            locks.cancel(n.id, key);
            locks.convert(n.id, key, lock_mode::nl);
        }
        auto held = locks.locks_of(n.id)[grace_lock].held;
        if (held == lock_mode::pr || held == lock_mode::ex)
            locks.convert(n.id, grace_lock, lock_mode::nl);
        pump_locks();
    });
}

void world::leave_group(node& n) {
    const std::uint64_t c = component_of_.at(n.id);
    std::set<node_id> group = rings_[c].group;
    if (group.erase(n.id) == 0)
        return;
    confchg(c, group, {{n.id, input::left_reason::process}}, {});
    input::confchg own{{group.begin(), group.end()}, {}, {{n.id, input::left_reason::process}}};
    deliver(n, [&n, own] { n.take(own); });
}

void world::join_group(node& n) {
    const std::uint64_t c = component_of_.at(n.id);
    std::set<node_id> group = rings_[c].group;
    if (group.insert(n.id).second)
        confchg(c, group, {}, {n.id});
}

void world::break_disk(unsigned i) {
    node& n = (*this)[i];
    n.disk_broken = true;
    n.take(input::store_failed{"the recovery database cannot be written: disk full"});
}

void world::mend_disk(unsigned i) {
    node& n = (*this)[i];
    if (std::exchange(n.disk_broken, false))
        n.take(input::store_opened{});
}

void world::power_off(unsigned i) {
    node& n = (*this)[i];
    if (!n.powered)
        return;
    n.powered = false;
    n.daemon.reset();
    ++n.life;
    ++n.boot;
    n.kern = {};
    n.running.clear();
    after(token, [this, &n, b = n.boot] {
        if (n.boot == b)
            notice_death(n.id);
    });
}

// Its corosync's peers notice: a new ring without it, and the DLM stops for recovery.
void world::notice_death(node_id id) {
    auto c = component_of_.find(id);
    if (c == component_of_.end())
        return;
    std::set<node_id> rest = rings_[c->second].ring;
    rest.erase(id);
    if (noticed)
        noticed(id);
    locks.freeze(id);
    component_of_.erase(c);
    if (!rest.empty())
        reform(rest, {{id, input::left_reason::node}});
}

void world::fence(unsigned i) {
    locks.fenced(node_id{i});
    pump_locks();
}

void world::split(std::vector<std::vector<unsigned>> parts) {
    for (const auto& part : parts) {
        std::set<node_id> ring;
        for (unsigned i : part)
            ring.insert(node_id{i});
        reform(ring, {});
    }
}

void world::pump_locks() {
    for (const lock_event& e : locks.take_events()) {
        node& n = *nodes.at(e.owner);
        after(next(n, lock_events), [&n, l = n.life, e] {
            if (l != n.life)
                return;
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

// One timer for each daemon, as in production: arming it anew replaces the older time.
void world::arm(node& n, instant t) {
    n.timer = t;
    if (t == 0 || (n.timer_event != 0 && n.timer_event <= t))
        return;
    n.timer_event = t;
    after(t - now, [this, &n, l = n.life, t] {
        if (l != n.life || !n.daemon || n.timer_event != t)
            return;
        n.timer_event = 0;
        if (n.timer > now)
            arm(n, n.timer); // it was moved back meanwhile
        else if (n.timer != 0)
            n.daemon->tick();
    });
}

ticket world::serve(unsigned id, const std::string& server) {
    ticket t = (*this)[id].new_ticket();
    (*this)[id].take(input::serve{server, t});
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
    bool open = false;
    std::map<std::string, int> reclaim;
    for (auto& [id, n] : nodes) {
        if (!n->powered)
            continue;
        open |= n->kern.open(now);
        for (const std::string& s : n->kern.reclaim)
            ++reclaim[s];
    }
    if (open && !reclaim.empty())
        violations.push_back("S1: a gate is open while a server may accept a reclaim");
    for (auto& [server, hosts] : reclaim)
        if (hosts > 1)
            violations.push_back("S9: " + server + " is open for reclaim on two nodes");
}

} // namespace grace::sim
