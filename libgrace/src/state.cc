// SPDX-License-Identifier: LGPL-2.1-or-later
// Questions that are asked of the replicated state; none of them changes it.
#include "grace/state.hh"

#include <algorithm>

namespace grace {

const char* to_string(lock_mode m) {
    switch (m) {
    case lock_mode::nl:
        return "NL";
    case lock_mode::pr:
        return "PR";
    case lock_mode::cw:
        return "CW";
    case lock_mode::ex:
        return "EX";
    }
    return "?";
}

const char* to_string(gate_state g) {
    switch (g) {
    case gate_state::closed:
        return "closed";
    case gate_state::reclaim:
        return "reclaim";
    case gate_state::open:
        return "open";
    }
    return "?";
}

const char* to_string(phase p) {
    switch (p) {
    case phase::normal:
        return "normal";
    case phase::entering:
        return "entering";
    case phase::reclaiming:
        return "reclaiming";
    case phase::lifting:
        return "lifting";
    }
    return "?";
}

record_map& map_of(server_state& v, std::string_view key) {
    return kind_of(key) == record_kind::mount ? v.mounts : v.records;
}

record_map& map_of(stored_state& s, const std::string& server, std::string_view key) {
    return (kind_of(key) == record_kind::mount ? s.mounts : s.records)[server];
}

bool has_nlm(const server_state& v) {
    const auto first = v.records.upper_bound(nlm_key(""));
    return first != v.records.end() && kind_of(first->first) == record_kind::nlm;
}

standing standing_of(const server_state& v, start_count answered) {
    if (!answered || answered < v.lost)
        return standing::nothing;
    return answered <= v.settled ? standing::intact : standing::reclaiming;
}

bool in_grace(const state& s) {
    return bool(s.recovery);
}

bool any_need(const state& s) {
    return std::ranges::any_of(s.servers, [](const auto& e) { return e.second.need; });
}

bool hosts_need(const state& s, node_id n) {
    return std::ranges::any_of(s.servers,
                               [n](const auto& e) { return e.second.need && e.second.host == n; });
}

bool is_synced(const state& s, node_id n) {
    auto it = s.nodes.find(n);
    return it != s.nodes.end() && it->second.member && it->second.synced;
}

node_id lowest_synced(const state& s) {
    for (const auto& [id, n] : s.nodes)
        if (n.member && n.synced)
            return id;
    return {};
}

node_id purger(const state& s) {
    if (!in_grace(s) || any_need(s))
        return {};
    return is_synced(s, s.last_done) ? s.last_done : lowest_synced(s);
}

bool durable_everywhere(const state& s, position at) {
    bool anybody = false;
    for (const auto& [id, n] : s.nodes) {
        if (!n.member || !n.synced)
            continue;
        if (n.durable < at)
            return false;
        anybody = true;
    }
    return anybody;
}

namespace {
struct redoer {
    state& s;
    server_state& of(const std::string& server) const { return s.servers.at(server); }
    void operator()(const store_op::put_record& o) const {
        map_of(of(o.server), o.client)[o.client] = o.rec;
    }
    void operator()(const store_op::remove_record& o) const {
        map_of(of(o.server), o.client).erase(o.client);
    }
    void operator()(const store_op::lower& o) const { of(o.server).records.lower(o.limit); }
    void operator()(const store_op::renew& o) const { of(o.server).records.renew(o.at); }
    void operator()(const store_op::purge& o) const { of(o.server).records.purge(o.limit); }
    void operator()(const store_op::replace_all&) const {}
    void operator()(const store_op::put_meta&) const {}
};
} // namespace

void redo(state& s, const store_operation& op) {
    std::visit(redoer{s}, op);
}

reclaim_count count_reclaimed(const state& s, const server_state& server) {
    reclaim_count c;
    c.all = server.records.size();
    c.reclaimed = server.records.later_than(s.recovery);
    return c;
}

std::string implausible(const stored_meta& m) {
    constexpr std::uint64_t limit = std::uint64_t{1} << 62;
    const auto number = [](std::uint64_t n) { return std::to_string(n); };
    if (!m.current || m.current.value >= limit)
        return "C is " + number(m.current.value);
    if (m.recovery >= m.current)
        return "R is " + number(m.recovery.value) + ", C is " + number(m.current.value);
    if (m.purged >= m.current)
        return "epoch " + number(m.purged.value) + " was purged, C is " + number(m.current.value);
    if (m.applied.value >= limit || m.starts.value >= limit || m.view >= limit ||
        m.quorate_view >= limit)
        return "a count is beyond what any cluster reaches";
    if (m.lifting && !m.recovery)
        return "it is lifting, but there is no grace";
    for (const auto& [name, v] : m.servers) {
        if (v.need && (!m.recovery || m.lifting))
            return "server '" + name + "' NEEDs, but there is no grace that it could be part of";
        if (const start_count last = std::max({v.start, v.lost, v.settled}); last > m.starts)
            return "server '" + name + "' has START " + number(last.value) + " of " +
                   number(m.starts.value);
    }
    return {};
}

stored_meta to_meta(const state& s, std::uint64_t view, std::uint64_t quorate_view) {
    stored_meta m;
    m.view = view;
    m.history = s.history;
    m.quorate_view = quorate_view;
    m.current = s.current;
    m.recovery = s.recovery;
    m.applied = s.applied;
    m.starts = s.starts;
    m.lifting = s.lifting;
    m.purged = s.purged;
    for (const auto& [id, n] : s.nodes)
        m.nodes[id] = n.name;
    for (const auto& [name, v] : s.servers)
        m.servers[name] = {v.need, v.needed, v.start, v.lost, v.settled, v.host};
    return m;
}

state from_stored(const stored_state& stored) {
    const stored_meta& m = stored.meta;
    state s;
    s.current = m.current;
    s.recovery = m.recovery;
    s.applied = m.applied;
    s.starts = m.starts;
    s.lifting = m.lifting;
    s.purged = m.purged;
    s.history = m.history;
    for (const auto& [id, name] : m.nodes)
        s.nodes[id].name = name;
    for (const auto& [name, v] : m.servers) {
        server_state& server = s.servers[name];
        server.need = v.need;
        server.needed = v.needed;
        server.start = v.start;
        server.lost = v.lost;
        server.settled = v.settled;
        server.host = v.host;
    }
    for (const auto& [name, records] : stored.records)
        s.servers[name].records = records;
    for (const auto& [name, mounts] : stored.mounts)
        s.servers[name].mounts = mounts;
    return s;
}

} // namespace grace
