// SPDX-License-Identifier: LGPL-2.1-or-later
// The replicated state machine. Each message of the protocol has one function here, and each
// function begins with what makes the message void.
#include "grace/apply.hh"
#include "grace/wire.hh"

#include "codec.hh"

#include <algorithm>
#include <set>

namespace grace {
namespace {

bool has_records(const server_state& v) {
    return !v.records.empty();
}

// Opens an epoch out of normal, and after a PURGE; what starts otherwise joins the grace.
// ◆ After PURGE: what was purged stays purged, so what starts now needs an epoch of its own.
void open_epoch(state& s) {
    if (in_grace(s) && !s.lifting)
        return;
    s.recovery = s.current;
    s.current = next(s.current);
    s.epoch_at = s.applied;
    s.lifting = false;
    s.purge_at = {};
    s.last_done = {};
    for (auto& [name, v] : s.servers)
        v.needed = false;
}

void number(state& s, server_state& v) {
    v.start = s.starts = start_count{s.starts.value + 1};
}

enum class locks : std::uint8_t { may_be_held, gone };

// One START. Clients that reclaimed at an earlier START of this same grace have to do it again.
void start_server(state& s, const std::string& name, locks l, store_batch& ops) {
    open_epoch(s);
    server_state& v = s.servers[name];
    number(s, v);
    v.need = v.needed = true;
    if (l == locks::gone)
        v.lost = v.start;
    v.records.lower(s.recovery);
    ops.push_back(store_op::lower{name, s.recovery});
}

void settle(server_state& v) {
    v.need = v.needed = false;
    v.settled = v.start;
}

// It NEEDs, or is done and its records are not purged yet. Whoever has reclaimed in this grace has
// it and will not do it again; of the others nothing is decided before PURGE.
bool in_reclaim(const state& s, const server_state& v) {
    return v.needed && !s.lifting;
}

// A START of one whose nfsd has not ended: only the number counts, which makes a DONE void.
void go_on(state& s, server_state& v) {
    number(s, v);
    v.need = true;
}

// Its nfsd is no more. Whoever had a lock may reclaim it where the server comes up next (S8).
// Nothing to recover, no grace.
void lose_host(state& s, const std::string& name, store_batch& ops) {
    server_state& v = s.servers[name];
    v.host = {};
    if (has_records(v))
        return start_server(s, name, locks::gone, ops);
    if (!v.need)
        return;
    settle(v);
    if (!any_need(s))
        s.last_done = {};
}

// The death of a node: its servers have no host, and those with clients NEED.
void bury(state& s, node_id id, store_batch& ops) {
    node_state& n = s.nodes[id];
    n.member = n.synced = n.attached = false;
    n.down = true;
    n.deaths += 1;
    n.enforcing = {};
    n.durable = {};
    n.hello = 0;
    for (auto& [name, v] : s.servers)
        if (v.host == id)
            lose_host(s, name, ops);
}

// ◆ Bad scenario: a node said ENFORCING, then a hook is lost or an operator opens its gate; it
// would still count as E, alone and, with its gate attached once, after its daemon's death.
void no_longer_enforces(node_state& n) {
    n.attached = false;
    n.enforcing = {};
}

struct applier {
    state& s;
    node_id sender;
    const envelope& env;
    applied out{};

    node_state& from() { return s.nodes[sender]; }
    void count() {
        s.applied = position{s.applied.value + 1};
        out.counted = true;
    }
    void ignore(const char* why) { out.why_void = why; }

    void operator()(const msg::hello& m) {
        if (!from().member)
            return ignore("HELLO from outside the membership");
        count();
        node_state& n = from();
        // Bad scenario: its daemon dies, then the node reboots before anybody has missed it. No
        // group's news tells that; DLM has dropped its locks.
        if (n.boot != 0 && n.boot != m.boot && !n.down) {
            bury(s, sender, out.ops);
            n.member = true;
        }
        n.name = m.name;
        n.life = env.life;
        n.boot = m.boot;
        n.hello = m.number;
        n.synced = false;
        n.down = false;
        n.attached = n.attached || m.attached;
        n.permit_ttl = m.permit_ttl;
        n.durable = {};
        n.view = 0;
        n.enforcing = {};
        // Bad scenario: power fails everywhere in the midst of a reclaim. The group is founded
        // before the daemon of its host is up, so for all that the founders know the nfsd may still
        // run.
        for (auto& [name, v] : s.servers)
            if (v.host == sender && has_records(v) && !m.running.contains(name))
                start_server(s, name, locks::gone, out.ops);
    }

    void operator()(const msg::snapshot& m) {
        auto to = s.nodes.find(m.to);
        if (to == s.nodes.end())
            return ignore("a founding snapshot in a founded group");
        node_state& n = to->second;
        if (!n.member || n.synced || n.hello != m.hello)
            return ignore("answers an older HELLO");
        if (m.part + 1 != m.parts) {
            out.counted = true;
            return;
        }
        count();
        n.synced = true;
        if (s.lifting) // its disk must have the purge, too
            s.wants_durable = s.applied;
    }

    void operator()(const msg::start& m) {
        auto it = s.servers.find(m.server);
        if (m.why == msg::start_reason::takes) {
            if (it == s.servers.end() && s.servers.size() >= max_servers)
                return ignore("too many servers");
            // ◆ One server, one host: until RELEASED, its old host's kernel may still reclaim.
            if (it != s.servers.end() && it->second.host && it->second.host != sender)
                return ignore("hosted by another node that has not released it");
            count();
            return take(s.servers[m.server], m.server);
        }
        if (it == s.servers.end())
            return ignore("no such server");
        server_state& v = it->second;
        switch (m.why) {
        case msg::start_reason::stops:
            if (v.host != sender)
                return ignore("only its host stops it");
            count();
            // Also without records: a client that comes before its nfsd has ended must not lose
            // its lock to another. If the stop is given up, the reclaim goes on.
            if (in_reclaim(s, v))
                go_on(s, v);
            else
                start_server(s, m.server, locks::may_be_held, out.ops);
            return;
        case msg::start_reason::asked:
            // Bad scenario: its nfsd runs and half of its clients have reclaimed, and now they
            // would have to do it again, which they do not know.
            if (v.need)
                return ignore("NEEDs already");
            break;
        case msg::start_reason::dropped:
        case msg::start_reason::takes:
            break;
        }
        if (!has_records(v))
            return ignore("nothing to recover");
        count();
        if (m.why == msg::start_reason::asked && in_reclaim(s, v))
            return go_on(s, v);
        start_server(s, m.server,
                     m.why == msg::start_reason::dropped ? locks::gone : locks::may_be_held,
                     out.ops);
    }

    void take(server_state& v, const std::string& name) {
        // It hosts it already: its nfsd may be in the midst of reclaim, or have been told already
        // that nobody may.
        if (v.host == sender && (v.need || !has_records(v)))
            return;
        if (v.host == sender && in_reclaim(s, v))
            return go_on(s, v);
        const locks l = v.host == sender ? locks::may_be_held : locks::gone;
        v.host = sender;
        if (has_records(v) || v.need)
            return start_server(s, name, l, out.ops);
        number(s, v);
        v.lost = v.start;
        settle(v);
        s.wants_durable = s.applied;
    }

    void operator()(const msg::released& m) {
        auto it = s.servers.find(m.server);
        if (it == s.servers.end() || it->second.host != sender)
            return ignore("not its host");
        count();
        lose_host(s, m.server, out.ops);
    }

    void operator()(const msg::node_down& m) {
        auto it = s.nodes.find(m.node);
        if (it == s.nodes.end())
            return ignore("no such node");
        const node_state& n = it->second;
        if (n.member || n.down || n.deaths != m.deaths)
            return ignore("an older death");
        count();
        bury(s, m.node, out.ops);
    }

    void operator()(const msg::attached&) {
        count();
        from().attached = true;
    }

    void operator()(const msg::detached&) {
        count();
        no_longer_enforces(from());
    }

    void operator()(const msg::bypass& m) {
        if (m.node && !s.nodes.contains(m.node))
            return ignore("no such node");
        count();
        if (!m.on)
            return; // its gate says ATTACHED when it is
        for (auto& [id, n] : s.nodes)
            if (!m.node || m.node == id)
                no_longer_enforces(n);
    }

    void operator()(const msg::enforcing& m) {
        if (!in_grace(s) || m.at != s.current)
            return ignore("another epoch");
        count();
        from().attached = true;
        from().enforcing = m.at;
    }

    void operator()(const msg::done& m) {
        auto it = s.servers.find(m.server);
        if (it == s.servers.end() || !it->second.need)
            return ignore("NEEDs no longer");
        server_state& v = it->second;
        // ◆ Bad scenario: DONE is on its way, its server dies and is started again; the old DONE
        // would end the NEED of clients that have just lost their locks.
        if (v.start != m.start)
            return ignore("answers an older START");
        if (v.host && v.host != sender)
            return ignore("only its host may say so");
        count();
        // Settled it is at PURGE. Bad scenario: the deadline has passed, and before PURGE an
        // operator starts a grace, or the group is founded anew. Its nfsd, taken for intact, keeps
        // everybody on record: who has not reclaimed loses his lock to others, and reclaims it in
        // the next grace.
        v.need = false;
        if (m.how == msg::outcome::intact) {
            settle(v);
            v.records.renew(s.current);
            out.ops.push_back(store_op::renew{m.server, s.current});
        }
        if (!any_need(s))
            s.last_done = sender;
    }

    void operator()(const msg::purge& m) {
        if (!in_grace(s) || m.recovery != s.recovery)
            return ignore("another epoch");
        if (s.lifting)
            return ignore("purged already");
        if (m.starts != s.starts)
            return ignore("a START came between");
        if (purger(s) != sender)
            return ignore("not the last node out");
        count();
        s.lifting = true;
        s.purge_at = s.wants_durable = s.applied;
        s.purged = s.recovery;
        for (auto& [name, v] : s.servers) {
            if (!v.needed)
                continue;
            v.settled = v.start;
            v.records.purge(s.recovery);
            out.ops.push_back(store_op::purge{name, s.recovery});
        }
    }

    void operator()(const msg::lift& m) {
        if (!s.lifting || m.recovery != s.recovery || m.starts != s.starts)
            return ignore("another epoch");
        if (purger(s) != sender)
            return ignore("not the last node out");
        // Bad scenario: LIFT is on its way, a joiner is synced by a snapshot that says lifting; the
        // gates open, the power fails, and the joiner's disk brings the purged records back.
        if (!durable_everywhere(s, s.purge_at))
            return ignore("a member has not got the purge on its disk");
        count();
        s.recovery = {};
        s.lifting = false;
        s.purge_at = {};
        s.last_done = {};
        for (auto& [name, v] : s.servers)
            v.needed = false;
    }

    void operator()(const msg::records& m) {
        count();
        s.wants_durable = s.applied;
        for (const msg::record_change& c : m.changes) {
            auto it = s.servers.find(c.server);
            if (it == s.servers.end() || it->second.host != sender)
                continue;
            record_map& map = map_of(it->second, c.client);
            if (c.remove) {
                map.erase(c.client);
                out.ops.push_back(store_op::remove_record{c.server, c.client});
                continue;
            }
            const auto known = map.find(c.client);
            record rec{s.current, c.princhash};
            switch (kind_of(c.client)) {
            case record_kind::nlm:
                rec.princhash =
                    encode_since(known == map.end() ? s.current : since_of(known->second));
                break;
            case record_kind::mount:
                if (known == map.end() && map.size() >= max_mounts)
                    continue;
                break;
            case record_kind::nfs4:
                break;
            }
            map[c.client] = rec;
            out.ops.push_back(store_op::put_record{c.server, c.client, rec});
        }
    }

    // These change nothing that goes to disk, so they do not move the position.
    void operator()(const msg::durable& m) {
        out.counted = true;
        from().durable = std::max(from().durable, std::min(m.at, s.applied));
    }
    void operator()(const msg::view_stored&) {
        out.counted = true;
        from().view = s.view.number;
    }
    void operator()(const msg::heartbeat&) { out.counted = true; }
    void operator()(const msg::barrier&) { out.counted = true; }
    void operator()(const msg::lift_request&) { out.counted = true; }
    void operator()(const msg::extend_request&) { out.counted = true; }
};

// States with the same history have the same past, and so the same records.
void go_on_in_history(state& s, const wire::writer& what) {
    s.history = wire::hash(what.out, s.history);
}

// What a confchg or a founding leaves.
void go_on_in_history(state& s) {
    wire::writer w;
    w.put(s.view.founding);
    w.put(s.view.number);
    for (const auto& [id, n] : s.nodes) {
        w.put(id);
        w.put(n.member);
        w.put(n.deaths);
    }
    go_on_in_history(s, w);
}

void go_on_in_history(state& s, node_id sender, const envelope& env) {
    wire::writer w;
    if (const auto* m = std::get_if<msg::snapshot>(&env.body)) // not everyone keeps its data
        w.out = wire::encode(
            {env.view, env.life, msg::snapshot{m->to, m->hello, m->part, m->parts, {}}});
    else
        w.out = wire::encode(env);
    w.put(sender);
    go_on_in_history(s, w);
}

bool speaks_without_view(const any_message& m) {
    return std::holds_alternative<msg::hello>(m);
}

} // namespace

applied apply(state& s, node_id sender, const envelope& env) {
    applier a{s, sender, env};
    if (!speaks_without_view(env.body)) {
        auto it = s.nodes.find(sender);
        if (env.view != s.view) {
            a.ignore("sent under another membership");
            return a.out;
        }
        if (it == s.nodes.end() || !it->second.synced || it->second.life != env.life) {
            a.ignore("its sender has no state");
            return a.out;
        }
    }
    const position before = s.applied;
    std::visit(a, env.body);
    if (s.applied != before)
        go_on_in_history(s, sender, env);
    return a.out;
}

applied apply(state& s, const input::confchg& change) {
    applied out;
    out.counted = true;
    s.applied = position{s.applied.value + 1};
    s.view.number += 1;
    for (const input::departed& d : change.left) {
        node_state& n = s.nodes[d.node];
        n.member = n.synced = false;
        n.enforcing = {};
        if (d.reason == input::left_reason::node)
            bury(s, d.node, out.ops);
    }
    for (node_id id : change.members)
        s.nodes[id].member = true;
    for (auto& [id, n] : s.nodes) {
        // ◆ Bad scenario: node 2 says DURABLE and dies; node 1's comes in the next view, and the
        // record is acknowledged. A database that ranks as node 2's, and left before, lacks it.
        n.durable = {};
        if (!n.synced)
            n.hello = 0; // it says HELLO anew in this membership
    }
    go_on_in_history(s);
    return out;
}

applied found(state& s, const founding& f) {
    applied out;
    out.counted = true;
    s.applied = position{s.applied.value + 1};
    std::uint64_t view = 0;
    std::map<node_id, node_state> nodes;
    for (const auto& [id, n] : s.nodes)
        nodes[id].name = n.name;
    for (const auto& [id, said] : f.hellos) {
        const auto& [life, hello] = said;
        view = std::max(view, hello.view);
        node_state& n = nodes[id];
        n.name = hello.name;
        n.member = n.synced = true;
        n.attached = hello.attached;
        n.life = life;
        n.boot = hello.boot;
        n.hello = hello.number;
        n.permit_ttl = hello.permit_ttl;
        s.starts = std::max(s.starts, hello.starts);
        for (const auto& [name, answered] : hello.running)
            s.starts = std::max(s.starts, answered);
    }
    s.nodes = std::move(nodes);
    // Not the founder's life: it may have founded before, and have been in a view of this number
    // that quorum did not confirm.
    s.view = {incarnation{f.hellos.at(f.founder).second.number}, view + 1};

    // A server whose nfsd never stopped keeps its host. A host that is not here may still run it
    // without a daemon: its death will come as NODEDOWN.
    std::map<std::string, standing> found;
    std::set<std::string> halfway;
    for (auto& [name, v] : s.servers) {
        if (in_reclaim(s, v))
            halfway.insert(name);
        if (f.hellos.contains(v.host))
            v.host = {};
        if (v.host) // nobody knows how far it has come
            found[name] = in_reclaim(s, v) ? standing::reclaiming : standing::intact;
        for (const auto& [id, said] : f.hellos) {
            auto runs = said.second.running.find(name);
            if (v.host || runs == said.second.running.end())
                continue;
            v.host = id;
            found[name] = standing_of(v, runs->second);
            // Bad scenario: no database knows the START that its nfsd was told, for it had no
            // client and waited for no disk. It gets clients, settled seems an older START, and at
            // the next founding they, who have lost nothing, are asked to reclaim, and are purged.
            v.start = std::max(v.start, runs->second);
        }
    }
    const epoch before = s.recovery;
    s.recovery = {};
    s.lifting = false;
    s.purge_at = s.epoch_at = {};
    s.last_done = {};
    for (auto& [name, v] : s.servers) {
        if (!has_records(v)) {
            settle(v);
        } else if (halfway.contains(name) && found[name] == standing::reclaiming) {
            // Bad scenario: half of its clients had reclaimed when the group lost its state. Those
            // do not know and will not do it again; the others still may.
            open_epoch(s);
            go_on(s, v);
            v.needed = true;
            v.records.part(before, s.recovery, s.current);
        } else {
            start_server(s, name,
                         found[name] == standing::intact ? locks::may_be_held : locks::gone,
                         out.ops);
        }
    }
    store_op::replace_all all;
    for (const auto& [name, v] : s.servers) {
        all.records[name] = v.records;
        all.mounts[name] = v.mounts;
    }
    out.ops = {std::move(all)};
    s.wants_durable = s.applied;
    go_on_in_history(s);
    return out;
}

} // namespace grace
