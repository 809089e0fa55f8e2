// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/status.hh"

#include "graced/hex.hh"

#include <cctype>
#include <functional>

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
        const instant deadline = f.deadline_of(name);
        bool open = false;
        if (auto i = f.instances().find(name); i != f.instances().end()) {
            open = i->second.reclaim == reclaim_state::on;
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
              {"held", f.held()},
              {"exempts", c.exempts},
              {"waiters", c.waiters < 0 ? json(nullptr) : json(c.waiters)}}},
            {"blocked_by", f.blocked_by()},
            {"warnings", c.warnings},
            {"nodes", nodes},
            {"servers", servers},
            {"version", GRACED_VERSION}};
}

namespace {

// A page of the records in `map` of each server: at most `limit`, after the one with this key.
json page(const fsm& f, record_map server_state::*map, const std::string& server,
          const std::string& after_server, const std::string& after_hex, std::size_t limit,
          const std::function<json(const server_state&, const std::string& key, const record&)>& show,
          bool& more) {
    json all = json::array();
    const std::string after = from_hex(after_hex).value_or("");
    for (const auto& [name, v] : f.replicated().servers) {
        if ((!server.empty() && name != server) || name < after_server)
            continue;
        const record_map& records = v.*map;
        for (auto i = name == after_server ? records.upper_bound(after) : records.begin();
             i != records.end(); ++i) {
            if (all.size() == limit) {
                more = true;
                return all;
            }
            json one = show(v, i->first, i->second);
            one["server"] = name;
            one["key_hex"] = to_hex(i->first);
            all.push_back(std::move(one));
        }
    }
    return all;
}

} // namespace

json clients_json(const fsm& f, const std::string& server, const std::string& after_server,
                  const std::string& after_hex, std::size_t limit) {
    bool more = false;
    json clients = page(
        f, &server_state::records, server, after_server, after_hex, limit,
        [&](const server_state& v, const std::string& key, const record& rec) {
            const std::string name(client_in(key));
            json one = {{"name", printable(name)},
                        {"name_hex", to_hex(name)},
                        {"epoch", rec.at.value},
                        {"reclaimed", !v.need || rec.at > f.replicated().recovery}};
            if (kind_of(key) == record_kind::nlm) {
                one["protocol"] = "NFSv3";
                one["since_epoch"] = since_of(rec).value;
                one["principal"] = false;
                one["principal_hex"] = "";
            } else {
                one["protocol"] = "NFSv4";
                one["principal"] = !rec.princhash.empty();
                one["principal_hex"] = to_hex(rec.princhash);
            }
            return one;
        },
        more);
    return {{"clients", std::move(clients)}, {"more", more}};
}

json mounts_json(const fsm& f, const std::string& server, const std::string& after_server,
                 const std::string& after_hex, std::size_t limit) {
    bool more = false;
    json mounts = page(
        f, &server_state::mounts, server, after_server, after_hex, limit,
        [](const server_state&, const std::string& key, const record& rec) {
            return json{{"client", printable(std::string(client_in(key)))},
                        {"path", printable(std::string(path_in(key)))},
                        {"path_hex", to_hex(path_in(key))},
                        {"count", mount_count(rec)},
                        {"epoch", rec.at.value}};
        },
        more);
    return {{"mounts", std::move(mounts)}, {"more", more}};
}

} // namespace grace
