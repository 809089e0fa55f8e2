// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/status.hh"

#include "graced/hex.hh"

#include <cctype>

namespace grace {
namespace {

using nlohmann::json;

json real_time(const status_context& c, instant t) {
    if (t == 0)
        return nullptr;
    return c.realtime_s + (t - c.now) / 1'000'000'000;
}

json or_null(node_id n) {
    return n ? json(n.value) : json(nullptr);
}

} // namespace

json status_json(const fsm& f, const status_context& c) {
    const state& s = f.replicated();
    json nodes = json::array(), servers = json::array();
    std::set<node_id> ids;
    for (const auto& [id, n] : s.nodes)
        ids.insert(id);
    for (const auto& [id, v] : f.quorum().votes)
        ids.insert(id);
    for (node_id id : ids) {
        auto it = s.nodes.find(id);
        const node_state n = it == s.nodes.end() ? node_state{} : it->second;
        const bool live = f.live(id);
        nodes.push_back({{"id", id.value},
                         {"name", n.name.empty() ? std::to_string(id.value) : n.name},
                         {"live", live},
                         {"member", n.member},
                         {"synced", n.member && n.synced},
                         {"enforcing", in_grace(s) && live && f.enforces(id)},
                         {"attached", n.attached},
                         {"down", n.down},
                         {"fenced", live ? json(nullptr) : json(f.fencing_proven(id))}});
    }
    instant latest = 0;
    for (const auto& [name, v] : s.servers) {
        reclaim_count count = count_reclaimed(s, v);
        instant deadline = 0;
        bool open = false;
        if (auto i = f.instances().find(name); i != f.instances().end()) {
            open = i->second.reclaim == reclaim_state::on;
            if (v.need && open)
                deadline = i->second.deadline;
        }
        if (deadline > latest)
            latest = deadline;
        servers.push_back({{"name", name},
                           {"host", or_null(v.host)},
                           {"need", v.need},
                           {"start", v.start.value},
                           {"clients", count.all},
                           {"reclaimed", in_grace(s) && v.needed ? count.reclaimed : 0},
                           {"deadline", real_time(c, deadline)},
                           {"reclaim_open", open}});
    }
    return {{"node", {{"id", f.params().self.value}, {"name", f.params().name}}},
            {"state", c.state},
            {"phase", f.synced() ? to_string(f.current_phase()) : "unsynced"},
            {"quorate", f.quorate()},
            {"synced", f.synced()},
            {"current", s.current.value},
            {"recovery", s.recovery.value},
            {"since", real_time(c, f.phase_since())},
            {"deadline", real_time(c, latest)},
            {"gate", f.gate().open ? "open" : "closed"},
            {"lock",
             {{"mode", to_string(f.locks().held)},
              {"requested", f.locks().wanted ? json(to_string(*f.locks().wanted)) : json(nullptr)},
              {"backend", c.lock_backend}}},
            {"kernel",
             {{"backend", c.gate_backend},
              {"attached", f.gate().attached},
              {"trips", f.gate().trips},
              {"bypass", c.bypass},
              {"exempts", c.exempts},
              {"waiters", c.waiters < 0 ? json(nullptr) : json(c.waiters)}}},
            {"blocked_by", f.blocked_by()},
            {"warnings", c.warnings},
            {"nodes", nodes},
            {"servers", servers},
            {"version", GRACED_VERSION}};
}

json clients_json(const fsm& f, const std::string& server, const std::string& after_server,
                  const std::string& after_hex, std::size_t limit) {
    const state& s = f.replicated();
    json clients = json::array();
    bool more = false;
    for (const auto& [name, v] : s.servers) {
        if (!server.empty() && name != server)
            continue;
        if (name < after_server)
            continue;
        for (const auto& [client, rec] : v.records) {
            if (name == after_server && to_hex(client) <= after_hex)
                continue;
            if (clients.size() == limit) {
                more = true;
                break;
            }
            clients.push_back({{"server", name},
                               {"name", printable(client)},
                               {"name_hex", to_hex(client)},
                               {"epoch", rec.at.value},
                               {"reclaimed", !v.need || rec.at > s.recovery},
                               {"principal", !rec.princhash.empty()},
                               {"principal_hex", to_hex(rec.princhash)}});
        }
        if (more)
            break;
    }
    return {{"clients", clients}, {"more", more}};
}

} // namespace grace
