// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim/transitions.hh"

#include "grace/wire.hh"
#include "sim/world.hh"

#include <ostream>

namespace grace::sim {
namespace {

template <typename Set>
std::string joined(const Set& all) {
    std::string out;
    for (const auto& one : all) {
        out += out.empty() ? "" : ",";
        if constexpr (std::is_same_v<std::decay_t<decltype(one)>, node_id>)
            out += std::to_string(one.value);
        else
            out += one;
    }
    return out.empty() ? "-" : out;
}

// The state that all members must agree on, after what was delivered.
std::string told_of(const state& s) {
    std::set<std::string> need, records;
    std::set<node_id> enforcing;
    std::string hosts;
    for (const auto& [name, v] : s.servers) {
        if (v.need)
            need.insert(name);
        if (!v.records.empty())
            records.insert(name);
        hosts += (hosts.empty() ? "" : ",") + name + ":" + std::to_string(v.host.value);
    }
    for (const auto& [id, n] : s.nodes)
        if (n.member && n.synced && in_grace(s) && n.enforcing == s.current)
            enforcing.insert(id);
    return " C=" + std::to_string(s.current.value) + " R=" + std::to_string(s.recovery.value) +
           " lifting=" + std::to_string(s.lifting) + " need=" + joined(need) +
           " enforcing=" + joined(enforcing) + " hosts=" + (hosts.empty() ? "-" : hosts) +
           " records=" + joined(records);
}

bool has_purge(const state& s, node_id id) {
    auto n = s.nodes.find(id);
    return s.lifting && n != s.nodes.end() && n->second.durable >= s.purge_at;
}

} // namespace

void transitions::line(const world& w, const char* kind, node_id n, const std::string& rest) {
    out_ << w.now / 1'000'000 << ' ' << kind << ' ' << n.value << rest << '\n';
}

void transitions::fault(const world& w, const char* name) {
    line(w, "fault", {}, std::string(" ") + name);
}

void transitions::observe(const world& w) {
    for (const auto& [id, n] : w.nodes) {
        seen& was = seen_[id];
        if (was.powered && !n->powered)
            line(w, "off", id);
        if (!was.powered && n->powered)
            line(w, "boot", id);
        if (was.powered && n->powered && was.boot != n->boot)
            line(w, "boot", id); // it went off and came back in between
        was.powered = n->powered;
        was.boot = n->boot;
        const bool in_ring = !w.ring_of(id).empty();
        if (was.in_ring && !in_ring)
            line(w, "lost", id);
        for (const auto& [other, m] : w.nodes)
            if (n->powered && m->powered && in_ring && !w.ring_of(other).empty() &&
                !w.ring_of(other).contains(id))
                line(w, "split", id);
        was.in_ring = in_ring;
        if (n->powered && was.daemon && !n->daemon)
            line(w, "kill", id);
        if (!was.daemon && n->daemon)
            line(w, "daemon", id);
        was.daemon = n->daemon != nullptr;
    }
    if (frozen_ && !w.locks.frozen())
        line(w, "fenced", {});
    frozen_ = w.locks.frozen();
    for (const auto& [id, n] : w.nodes) {
        seen& was = seen_[id];
        if (!n->powered) {
            was = {was.boot, false, was.in_ring, false, false, false, {}, {}, {}, lock_mode::nl};
            continue;
        }
        if (n->daemon) {
            const fsm& f = n->machine();
            if (f.synced() != was.synced)
                line(w, f.synced() ? "synced" : "unsynced", id,
                     f.synced() ? told_of(f.replicated()) : "");
            was.synced = f.synced();
            std::set<std::string> stopping;
            for (const auto& [name, i] : f.instances()) {
                if (i.stopping)
                    stopping.insert(name);
                std::uint64_t& finished = was.finished[name];
                auto v = f.replicated().servers.find(name);
                if (i.finished.value != finished && v != f.replicated().servers.end() &&
                    v->second.start == i.finished)
                    line(w, "finished", id, " " + name);
                finished = i.finished.value;
            }
            if (stopping != was.stopping)
                line(w, "stopping", id, " " + joined(stopping));
            was.stopping = stopping;
            if (f.locks().held != was.held && f.locks().held != lock_mode::nl)
                line(w, "lock", id, std::string(" ") + to_string(f.locks().held));
            was.held = f.locks().held;
        } else {
            was.synced = false;
            was.stopping.clear();
            was.finished.clear();
        }
        if (n->kern.reclaim != was.reclaim)
            line(w, "reclaim", id, " " + joined(n->kern.reclaim));
        was.reclaim = n->kern.reclaim;
        if (n->kern.open(w.now) != was.open)
            line(w, was.open ? "close" : "open", id);
        was.open = n->kern.open(w.now);
    }
}

void transitions::delivering(const node& n, const any_input& in) {
    synced_before_ = n.daemon && n.machine().synced();
    if (!synced_before_)
        return;
    const state& s = n.machine().replicated();
    applied_before_ = s.applied.value;
    if (const auto* d = std::get_if<input::deliver>(&in))
        purged_before_ = has_purge(s, d->sender);
}

void transitions::delivered(const world& w, const node& n, const any_input& in) {
    if (!n.daemon || !synced_before_ || !n.machine().synced())
        return;
    const state& s = n.machine().replicated();
    if (const auto* c = std::get_if<input::confchg>(&in)) {
        if (c->left.size() + c->joined.size() != 1)
            return line(w, "many", n.id);
        if (!c->left.empty())
            line(w, "deliver", n.id,
                 std::string(c->left[0].reason == input::left_reason::node ? " NODE_LEFT"
                                                                           : " PROC_LEFT") +
                     " 0 " + std::to_string(c->left[0].node.value) + told_of(s));
        else
            line(w, "deliver", n.id, " JOIN 0 " + std::to_string(c->joined[0].value) + told_of(s));
        return;
    }
    const auto* d = std::get_if<input::deliver>(&in);
    if (!d)
        return;
    const std::optional<envelope> env = wire::decode(d->message);
    if (!env)
        return;
    const bool moved = s.applied.value != applied_before_;
    const std::string from = " " + std::to_string(d->sender.value) + " ";
    std::string what;
    if (const auto* m = std::get_if<msg::durable>(&env->body);
        m && !purged_before_ && has_purge(s, d->sender))
        what = " DURABLE" + from + std::to_string(s.recovery.value);
    if (moved) { // it counted
        if (const auto* m = std::get_if<msg::snapshot>(&env->body))
            what = " SYNC 0 " + std::to_string(m->to.value);
        if (const auto* m = std::get_if<msg::start>(&env->body))
            what = (m->why == msg::start_reason::takes ? " TAKE" : " START") + from + m->server;
        if (const auto* m = std::get_if<msg::released>(&env->body))
            what = " RELEASED" + from + m->server;
        if (const auto* m = std::get_if<msg::node_down>(&env->body))
            what = " NODE_DOWN" + from + std::to_string(m->node.value);
        if (std::get_if<msg::enforcing>(&env->body))
            what = " ENFORCING" + from + "0";
        if (const auto* m = std::get_if<msg::done>(&env->body))
            what = " DONE" + from + m->server;
        if (const auto* m = std::get_if<msg::purge>(&env->body))
            what = " PURGE" + from + std::to_string(m->recovery.value);
        if (const auto* m = std::get_if<msg::lift>(&env->body))
            what = " LIFT" + from + std::to_string(m->recovery.value);
    }
    if (!what.empty())
        line(w, "deliver", n.id, what + told_of(s));
}

} // namespace grace::sim
