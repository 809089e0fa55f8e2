// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated corosync: rings of nodes, groups of daemons in them, agreed order, and the stop of
// the lockspace by each node's dlm_controld at each change.
//
// When a node falls silent, the token is lost with it: nothing is ordered in that ring for the
// token's timeout, and permits run out. What was sent meanwhile comes out when the new ring is
// formed, in the old one: all that one's own side sent, of the others any beginning.
#include "sim/world.hh"

#include <algorithm>
#include <utility>

namespace grace::sim {
namespace {
bool is_heartbeat(const bytes& m) { // the tag of a message: see wire.cc
    return m.size() >= 40 && m[6] == 13 && m[7] == 0;
}
instant heartbeat_sent(const bytes& m) {
    std::uint64_t v = 0;
    for (unsigned i = 0; i < 8; ++i)
        v |= std::uint64_t{m[32 + i]} << (8 * i);
    return static_cast<instant>(v);
}
} // namespace

bool world::in_ring(node_id n) const {
    return component_of_.contains(n);
}

std::set<node_id> world::ring_of(node_id n) const {
    auto c = component_of_.find(n);
    return c == component_of_.end() ? std::set<node_id>{} : rings_.at(c->second).ring;
}

std::set<node_id> world::group_of(std::uint64_t c) const {
    std::set<node_id> out;
    if (auto r = rings_.find(c); r != rings_.end())
        for (auto& [id, life] : r->second.group)
            out.insert(id);
    return out;
}

std::uint64_t world::component(node_id n) const {
    auto c = component_of_.find(n);
    return c == component_of_.end() ? 0 : c->second;
}

bool world::quorate(node_id n) const {
    auto c = component_of_.find(n);
    return c != component_of_.end() && rings_.at(c->second).ring.size() * 2 > nodes.size();
}

void world::deliver(node& n, std::function<void()> f) {
    after(next(n, from_group), [&n, l = n.life, f = std::move(f)] {
        if (l == n.life && n.daemon)
            f();
    });
}

void world::hand_out(node_id from, const message& m, const std::set<node_id>& to) {
    const bool beat = is_heartbeat(*m);
    for (node_id id : to) {
        node& n = *nodes.at(id);
        deliver(n, [this, &n, from, m, beat, at = orders] {
            n.heard = at;
            node& s = *nodes.at(from);
            if (beat && (n.id != from || ring_of(n.id).size() == 1))
                s.echoed = std::max(s.echoed, heartbeat_sent(*m) - s.skew);
            n.take(input::deliver{from, *m});
        });
    }
}

// Agreed order: whoever is in the sender's group now delivers, in the order of this call.
void world::order(node_id from, bytes m) {
    auto c = component_of_.find(from);
    if (c == component_of_.end())
        return;
    ring_state& r = rings_[c->second];
    if (!r.group.contains(from))
        return; // it has not joined: corosync has it wait, and its life ends first
    auto shared = std::make_shared<const bytes>(std::move(m));
    if (r.stalled) {
        r.held.emplace_back(from, shared);
        return;
    }
    ++orders;
    if (watch)
        watch->ordered(from, *shared, c->second);
    std::set<node_id> to;
    for (auto& [id, life] : r.group)
        if (hears(id, life, c->second))
            to.insert(id);
    hand_out(from, shared, to);
}

std::set<node_id> world::controlds(node_id n) const {
    std::set<node_id> out = ring_of(n);
    std::erase_if(out, [&](node_id m) { return !nodes.at(m)->controld; });
    return out;
}

void world::announce_ring(std::uint64_t c, const departures& left) {
    const ring_state& r = rings_[c];
    const std::size_t all = nodes.size();
    for (auto& [id, life] : r.group) {
        node& n = *nodes.at(id);
        if (component(id) != c)
            continue;
        input::quorum q{r.ring.size() * 2 > all, r.seq, {}, static_cast<std::uint32_t>(all), {}};
        if (auto l = left.find(id); l != left.end())
            q.left = l->second;
        for (node_id m : r.ring)
            q.votes[m] = 1;
        if (slow_ring && draw(4) == 0 && ++late_rings)
            n.last[from_group] = std::max(
                n.last[from_group], now + static_cast<duration>(draw(std::uint64_t(slow_ring))));
        if (slow_ring && draw(4) == 0 && ++late_rings)
            n.last[from_quorum] = std::max(
                n.last[from_quorum], now + static_cast<duration>(draw(std::uint64_t(slow_ring))));
        deliver(n, [&n, seq = r.seq] { n.take(input::ring{seq}); });
        after(next(n, from_quorum),
              [&n, l = n.life, q] { // another descriptor: in no order with the group's
                  if (l == n.life)
                      n.take(q);
              });
        if (n.told_at == 0)
            n.told_at = std::min(n.last[from_group], n.last[from_quorum]);
    }
}

// A member of the group in this ring. Not one without which the others have gone on, nor a daemon
// whose predecessor is still a member, because a stalled ring has not taken its leave yet.
bool world::hears(node_id id, std::uint64_t life, std::uint64_t c) const {
    return component(id) == c && nodes.at(id)->life == life;
}

void world::tell_confchg(std::uint64_t c, const input::confchg& change) {
    for (auto& [id, life] : rings_[c].group)
        if (node& n = *nodes.at(id); hears(id, life, c))
            deliver(n, [&n, change] { n.take(change); });
    if (watch)
        watch->group_changed(c);
}

// A join and a leave of a daemon are messages in the agreed order, too.
void world::join_group(node& n, std::uint64_t life) {
    auto at = component_of_.find(n.id);
    if (n.life != life || !n.daemon || at == component_of_.end())
        return;
    ring_state& r = rings_[at->second];
    if (auto old = r.group.find(n.id); old != r.group.end()) {
        if (old->second == life)
            return; // a new ring has taken it in
        if (!r.stalled)
            leave_group(n, old->second);
    }
    if (r.stalled) {
        after(milliseconds(20), [this, &n, life] { join_group(n, life); });
        return;
    }
    r.group[n.id] = life;
    input::confchg change;
    for (auto& [id, l] : r.group)
        change.members.push_back(id);
    change.joined = {n.id};
    tell_confchg(at->second, change);
    announce_ring(at->second, {});
}

void world::leave_group(node& n, std::uint64_t life) {
    auto at = component_of_.find(n.id);
    if (at == component_of_.end())
        return;
    ring_state& r = rings_[at->second];
    auto mine = r.group.find(n.id);
    if (mine == r.group.end() || mine->second != life)
        return;
    if (r.stalled) {
        after(milliseconds(20), [this, &n, life] { leave_group(n, life); });
        return;
    }
    r.group.erase(mine);
    input::confchg change;
    for (auto& [id, l] : r.group)
        change.members.push_back(id);
    change.left = {{n.id, input::left_reason::process}};
    tell_confchg(at->second, change);
}

// As the adapter does: where corosync says TRY_AGAIN, what was asked for last counts.
void world::regroup(node& n, std::uint64_t life) {
    if (n.life != life || !n.daemon || n.out_of_group == n.wants_out)
        return;
    auto at = component_of_.find(n.id);
    if (at != component_of_.end() && rings_[at->second].stalled) {
        after(milliseconds(20), [this, &n, life] { regroup(n, life); });
        return;
    }
    n.out_of_group = n.wants_out;
    if (!n.out_of_group)
        return join_group(n, life);
    if (at == component_of_.end())
        return;
    leave_group(n, life);
    input::confchg own;
    for (auto& [id, l] : rings_[at->second].group)
        own.members.push_back(id);
    own.left = {{n.id, input::left_reason::process}};
    deliver(n, [&n, own] { n.take(own); });
}

// A new ring of these nodes.
void world::reform(const std::set<node_id>& ring) {
    const std::uint64_t c = ++components_;
    ring_state& r = rings_[c];
    r.seq = ring_seq_ += 4;
    r.ring = ring;
    std::map<std::uint64_t, std::set<node_id>> sides; // who comes along, by old ring
    for (node_id id : ring) {
        node& n = *nodes.at(id);
        if (n.daemon && !n.out_of_group)
            r.group[id] = n.life;
        if (auto old = component_of_.find(id); old != component_of_.end())
            sides[old->second].insert(id);
    }
    for (auto& [old, side] : sides) {
        ring_state& o = rings_[old];
        if (o.stalled && now - o.stalled_since >= token)
            for (node_id id : side)
                if (nodes.at(id)->open())
                    violations.push_back("S7: the gate of node " + std::to_string(id.value) +
                                         " is open, though the token was lost for its whole time");
        std::map<node_id, std::size_t> limit; // of those that do not come along any beginning
        for (auto& [from, m] : o.held)
            if (!side.contains(from) && !limit.contains(from))
                limit[from] = draw(4);
        std::set<node_id> to;
        for (node_id id : side)
            if (auto g = o.group.find(id); g != o.group.end() && g->second == nodes.at(id)->life)
                to.insert(id);
        for (auto& [from, m] : o.held) {
            if (auto l = limit.find(from); l != limit.end() && (l->second == 0 || l->second-- == 0))
                continue;
            ++orders;
            ++in_flight;
            if (watch)
                watch->ordered(from, *m, old);
            hand_out(from, m, to);
        }
    }
    // Each member first loses those of its old group that did not come along, then sees the others.
    for (auto& [id, life] : r.group) {
        auto old = component_of_.find(id);
        std::map<node_id, std::uint64_t> before;
        if (old != component_of_.end() && rings_[old->second].group.contains(id) &&
            rings_[old->second].group.at(id) == life)
            before = rings_[old->second].group;
        input::confchg gone, joined;
        for (auto& [m, l] : before) {
            auto mc = component_of_.find(m);
            const bool same_ring = mc != component_of_.end() && mc->second == old->second;
            const bool node_came = ring.contains(m) && same_ring;
            if (node_came && r.group.contains(m) && r.group.at(m) == l)
                gone.members.push_back(m);
            else
                gone.left.push_back(
                    {m, node_came || (nodes.at(m)->powered && !nodes.at(m)->corosync)
                            ? input::left_reason::process
                            : input::left_reason::node});
        }
        for (auto& [m, l] : r.group) {
            joined.members.push_back(m);
            if (std::ranges::find(gone.members, m) == gone.members.end())
                joined.joined.push_back(m);
        }
        node& n = *nodes.at(id);
        if (!gone.left.empty())
            deliver(n, [&n, gone] { n.take(gone); });
        if (!joined.joined.empty())
            deliver(n, [&n, joined] { n.take(joined); });
        const bool node_down = std::ranges::any_of(
            gone.left, [](const auto& d) { return d.reason == input::left_reason::node; });
        n.told_at = node_down ? n.last[from_group] : 0; // else by the ring's name or quorum's news
    }
    departures departed;
    std::set<node_id> merging;
    for (node_id id : ring) {
        for (node_id m : ring_of(id))
            if (!ring.contains(m) || component(m) != component(id))
                departed[id].insert(m);
        for (node_id m : ring)
            if (component(id) != 0 && component(m) != component(id) && !departed[id].empty())
                merging.insert(id);
    }
    for (node_id id : ring)
        component_of_[id] = c;
    if (watch) {
        watch->group_changed(c);
        for (node_id id : merging)
            watch->merged(*nodes.at(id));
    }
    // dlm_controld stops the kernel's lockspace before it drops anything, each in its own time.
    for (node_id id : ring)
        stop_lockspace(*nodes.at(id), departed[id]);
    if (away(c))
        stall(*ring.begin());
    announce_ring(c, departed);
}

void world::stop_lockspace(node& n, const std::set<node_id>& departed) {
    auto stop = [this, &n, b = n.boot, departed] {
        if (b != n.boot)
            return;
        n.trip_pending = false;
        if (!n.controld)
            return; // its lockspaces have stopped before, and it hears of nothing any more
        n.kern.gate = gate_state::closed;
        ++n.kern.trips;
        from_kernel(n, input::kernel_tripped{n.kern.trips});
        if (watch)
            watch->locks_dropped(n, departed);
    };
    n.trip_pending = true;
    if (jitter)
        after(hop(), stop);
    else
        stop();
}

bool world::away(std::uint64_t c) const {
    unsigned side = 0;
    bool first = true;
    for (node_id id : rings_.at(c).ring) {
        const node& n = *nodes.at(id);
        if (component(id) != c || !n.powered || !n.corosync || n.paused)
            return true;
        if (!first && n.side != side)
            return true;
        side = n.side;
        first = false;
    }
    return false;
}

void world::stall(node_id id) {
    ring_state& r = rings_[component_of_.at(id)];
    if (r.stalled)
        return;
    r.stalled = true;
    r.stalled_since = now;
}

// Whoever was away is back before the token's time was over: what waited goes its way.
void world::unstall(std::uint64_t c) {
    ring_state& r = rings_[c];
    if (!r.stalled || away(c))
        return;
    r.stalled = false;
    for (auto& [from, m] : std::exchange(r.held, {}))
        order(from, *m);
}

void world::recover(std::uint64_t c) {
    if (!away(c))
        return;
    std::map<unsigned, std::set<node_id>> sides;
    std::set<node_id> gone;
    for (node_id id : rings_[c].ring) {
        if (component(id) != c)
            continue;
        node& n = *nodes.at(id);
        if (n.powered && n.corosync && !n.paused)
            sides[n.side].insert(id);
        else
            gone.insert(id);
    }
    for (node_id id : gone) {
        if (!sides.empty()) {
            must_fence(id);
            locks.freeze(id);
        }
        if (!nodes.at(id)->paused)
            component_of_.erase(id);
    }
    // The quorate ones have the others fenced; where nobody is, it is the people on side 0.
    const bool decided =
        std::ranges::any_of(sides, [&](auto& e) { return e.second.size() * 2 > nodes.size(); });
    for (auto& [side, ring] : sides) {
        if (decided ? ring.size() * 2 <= nodes.size() : side != 0)
            for (node_id id : ring) {
                must_fence(id);
                locks.freeze(id);
            }
        reform(ring);
        after(hop(), [this, side = side] { meet(side); });
    }
}

void world::gather(unsigned side) {
    std::set<node_id> ring;
    for (auto& [id, n] : nodes)
        if (n->powered && n->corosync && !n->paused && n->side == side)
            ring.insert(id);
    // Who died with all the others, too, must be fenced first, and who was not there when those
    // that are here came up (dlm: enable_startup_fencing).
    const bool quorate = ring.size() * 2 > nodes.size();
    if (quorate)
        for (auto& [id, n] : nodes)
            if (n->powered && !ring.contains(id))
                must_fence(id);
    for (node_id id : unfenced)
        if (!ring.contains(id))
            locks.freeze(id);
    // Members of their rings that do not come along, and that nobody has missed so far. Who comes
    // together on another side is missed by them, as if it had waited for the token's time.
    for (node_id id : std::set<node_id>(ring))
        for (node_id m : ring_of(id)) {
            if (ring.contains(m) || component(m) != component(id) || (side != 0 && quorate))
                continue;
            const node_id missed = side == 0 ? m : id;
            must_fence(missed);
            locks.freeze(missed);
        }
    std::erase_if(component_of_, [&](auto& e) {
        const node& n = *nodes.at(e.first);
        return !n.powered || !n.corosync;
    });
    std::set<std::uint64_t> broken;
    for (node_id id : ring)
        for (node_id m : ring_of(id))
            if (!ring.contains(m) && component(m) == component(id))
                broken.insert(component(id));
    if (!ring.empty())
        reform(ring);
    for (std::uint64_t c : broken) { // who stays behind has lost the token
        if (rings_[c].stalled)
            continue;
        rings_[c].stalled = true;
        rings_[c].stalled_since = now;
        after(token, [this, c] { recover(c); });
    }
}

// Rings that hear each other become one.
void world::meet(unsigned side) {
    std::set<std::uint64_t> rings;
    for (auto& [id, n] : nodes)
        if (n->powered && n->corosync && !n->paused && n->side == side && in_ring(id))
            rings.insert(component(id));
    if (rings.size() > 1)
        gather(side);
}

// --- what befalls rings ---

void world::split(std::vector<std::vector<unsigned>> parts) {
    unsigned side = 0;
    for (const auto& part : parts) {
        std::set<node_id> ring;
        for (unsigned i : part) {
            ring.insert(node_id{i});
            (*this)[i].side = side;
        }
        reform(ring);
        ++side;
    }
}

void world::cut(unsigned i, unsigned side) {
    node& n = (*this)[i];
    n.side = side;
    auto at = component_of_.find(n.id);
    if (at == component_of_.end())
        return;
    if (!away(at->second)) { // it was alone, or went over with all the others
        if (ring_of(n.id).size() == 1 && side != 0) {
            must_fence(n.id);
            locks.freeze(n.id);
        }
        return;
    }
    stall(n.id);
    after(token, [this, c = at->second] { recover(c); });
}

void world::merge(unsigned i) {
    node& n = (*this)[i];
    n.side = 0;
    if (!in_ring(n.id) || n.paused)
        return;
    const std::uint64_t c = component(n.id);
    if (rings_[c].stalled && !away(c))
        unstall(c); // nobody had noticed
    else
        gather(0);
}

void world::leave(unsigned i) {
    node& n = (*this)[i];
    if (!n.powered || !n.corosync)
        return;
    n.corosync = false;
    n.trip_pending = false;
    n.kern.gate = gate_state::closed; // dlm_controld ends with it: the lockspace stops
    ++n.kern.trips;
    if (n.daemon) { // it has lost corosync, and hears of that next
        const duration d = hop();
        n.told_at = now + d;
        after(d, [this, &n, l = n.life] {
            if (l == n.life)
                kill_daemon(n.id.value);
        });
    }
    must_fence(n.id);
    locks.freeze(n.id);
    gather(n.side);
    component_of_.erase(n.id);
}

void world::lose_controld(unsigned i) {
    node& n = (*this)[i];
    n.controld = false;
    trip(i); // its kernel stops the lockspaces that nobody looks after any more
    must_fence(n.id);
    locks.freeze(n.id);
    for (node_id m : ring_of(n.id))
        if (m != n.id && component(m) == component(n.id))
            stop_lockspace(*nodes.at(m), {n.id});
}

void world::pause(unsigned i, duration d) {
    node& n = (*this)[i];
    if (!n.powered || n.paused || !in_ring(n.id))
        return;
    n.paused = true;
    n.stopped_until = std::max(n.stopped_until, now + d);
    const std::uint64_t c = component(n.id);
    stall(n.id);
    after(token, [this, c] { recover(c); });
    after(d, [this, &n, b = n.boot, c] {
        if (b != n.boot || !n.paused)
            return;
        n.paused = false;
        if (component(n.id) != c || !n.corosync)
            return;
        bool alone = rings_[c].ring.size() > 1;
        for (node_id m : rings_[c].ring)
            alone &= m == n.id || component(m) != c;
        if (!alone) {
            unstall(c);
            return meet(n.side); // they came up while it stood still
        }
        // The others have gone on without it. It delivers to itself on the old ring for a while,
        // what it sent before and what it sends now, and some of it twice; then it sees them again.
        ring_state& r = rings_[c];
        r.stalled = false;
        auto held = std::exchange(r.held, {});
        for (auto& [from, m] : held)
            if (from == n.id)
                hand_out(from, m, {n.id});
        if (!held.empty() && held.back().first == n.id && draw(2) == 0)
            hand_out(n.id, held.back().second, {n.id});
        after(draw_ms(1, 1000), [this, &n, b] {
            if (b == n.boot && !n.paused)
                meet(n.side);
        });
    });
}

} // namespace grace::sim
