// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/grace_watch.hh"

#include "grace/describe.hh"

#include <set>
#include <utility>

namespace grace {

grace_watch::seen grace_watch::take(const fsm& f) {
    const state& s = f.replicated();
    seen v;
    v.applied = s.applied;
    v.current_phase = to_string(f.current_phase());
    v.lifting = s.lifting;
    std::set<node_id> ids;
    for (const auto& [id, n] : s.nodes)
        ids.insert(id);
    for (const auto& [id, votes] : f.quorum().votes)
        ids.insert(id);
    for (const node_id id : ids) {
        const auto it = s.nodes.find(id);
        const node_state n = it == s.nodes.end() ? node_state{} : it->second;
        const bool live = f.live(id);
        v.nodes[id] = {n.name.empty() ? std::to_string(id.value) : printable(n.name),
                       n.deaths,
                       n.member,
                       n.member && n.synced,
                       live,
                       in_grace(s) && live && f.enforces(id),
                       !live && f.fencing_proven(id)};
    }
    for (const auto& [name, server] : s.servers) {
        const auto host = v.nodes.find(server.host);
        const auto i = f.instances().find(name);
        v.servers[name] = {host == v.nodes.end() ? "" : host->second.name,
                           server.host,
                           server.start,
                           server.lost,
                           server.records.size(),
                           server.need,
                           server.needed,
                           i != f.instances().end() && i->second.reclaim == reclaim_state::on};
    }
    return v;
}

// As far as the state tells: a START carries no reason once it is applied.
std::string grace_watch::why(const seen& before, const seen& after, const server_seen& was,
                             const server_seen& is) {
    if (was.host_id) {
        const auto old = before.nodes.find(was.host_id);
        const auto now = after.nodes.find(was.host_id);
        if (old != before.nodes.end() && now != after.nodes.end() &&
            old->second.deaths != now->second.deaths)
            return "node " + was.host + " died";
        if (!is.host_id)
            return "node " + was.host + " has released it";
    }
    if (is.host_id && is.host_id != was.host_id)
        return "node " + is.host + " is to host it";
    if (is.lost == is.start)
        return "its nfsd has ended";
    return "it is to stop, or somebody asked for it";
}

void grace_watch::say(grace_event e) {
    const bool ends = e.what == "lifted" || e.what == "followed" || e.what == "unknown";
    if (++said_ > max_events && !ends) {
        if (said_ != max_events + 1)
            return;
        e = {.what = "more"};
    }
    e.at = at_;
    e.recovery = recovery_;
    e.time = base_ + now_ / 1'000'000;
    out_.push_back(std::move(e));
}

std::vector<grace_event> grace_watch::look(const fsm& f, instant now, std::int64_t realtime_ms) {
    const state& s = f.replicated();
    now_ = now;
    if (!f.synced()) {
        if (std::exchange(synced_, false) && open_)
            say({.what = "lost"});
        return std::exchange(out_, {});
    }
    const bool was_synced = std::exchange(synced_, true);
    // Nothing that anybody counts can have changed: heartbeats, most of all steps.
    if (!in_grace(s) && !open_ && was_synced && s.applied == seen_.applied)
        return {};
    seen is = take(f);
    if (open_ && (!in_grace(s) || s.current != at_))
        end(!was_synced ? "unknown" : in_grace(s) ? "followed" : "lifted", now);
    if (in_grace(s)) {
        if (!open_)
            begin(f, is, was_synced, now, realtime_ms);
        else if (!was_synced)
            say({.what = "found"});
        compare_nodes(is);
        compare_servers(f, is, was_synced);
        if (is.current_phase != seen_.current_phase)
            say({.what = "phase", .detail = is.current_phase});
    } else if (was_synced) {
        compare_out_of_grace(is, now, realtime_ms);
    }
    seen_ = std::move(is);
    return std::exchange(out_, {});
}

void grace_watch::begin(const fsm& f, const seen& is, bool was_synced, instant now,
                        std::int64_t realtime_ms) {
    const state& s = f.replicated();
    open_ = true;
    at_ = s.current;
    recovery_ = s.recovery;
    began_ = now;
    base_ = realtime_ms - now / 1'000'000;
    said_ = 0;
    ++totals_.begun;
    if (!was_synced)
        seen_ = {};
    seen_.current_phase.clear();
    seen_.lifting = false;
    std::string reason;
    for (const auto& [name, v] : is.servers) {
        if (!v.need)
            continue;
        const auto was = seen_.servers.find(name);
        if (reason.empty())
            reason = "server " + name + ": " +
                     why(seen_, is, was == seen_.servers.end() ? server_seen{} : was->second, v);
        else if (!reason.ends_with(", …"))
            reason += ", …";
    }
    if (was_synced)
        say({.what = "began", .detail = reason});
    else if (s.epoch_at == s.applied)
        say({.what = "began", .detail = "the group was founded: every server with records NEEDs"});
    else
        say({.what = "found"});
    // As they were before the step that began it: who died by it was up.
    for (const auto& [id, n] : was_synced ? seen_.nodes : is.nodes)
        say({.what = "node",
             .node = n.name,
             .detail = n.up     ? "up"
                       : n.live ? "without graced"
                                : "down"});
    for (auto& [name, v] : seen_.servers)
        v.need = v.open = false;
    if (!was_synced)
        seen_.nodes = is.nodes;
    for (const auto& [id, n] : is.nodes)
        if (!was_synced && n.enforcing)
            say({.what = "enforcing", .node = n.name});
}

void grace_watch::end(const char* how, instant now) {
    say({.what = how});
    open_ = false;
    ++totals_.ended;
    totals_.last = now - began_;
    totals_.lasted += totals_.last;
}

void grace_watch::compare_nodes(const seen& is) {
    for (const auto& [id, n] : is.nodes) {
        const auto found = seen_.nodes.find(id);
        const node_seen was = found == seen_.nodes.end() ? node_seen{} : found->second;
        const auto say_of = [&](const char* what) { say({.what = what, .node = n.name}); };
        if (n.deaths > was.deaths)
            say_of("died");
        else if (was.up && !n.up)
            say_of("left");
        if (n.fenced && !was.fenced)
            say_of("fenced");
        if (n.synced && !was.synced)
            say_of("joined");
        if (open_ && n.enforcing != was.enforcing && (n.enforcing || n.live))
            say_of(n.enforcing ? "enforcing" : "not_enforcing");
    }
}

void grace_watch::compare_out_of_grace(const seen& is, instant now, std::int64_t realtime_ms) {
    at_ = recovery_ = {};
    base_ = realtime_ms - now / 1'000'000;
    said_ = 0;
    compare_nodes(is);
    for (const auto& [name, v] : is.servers) {
        const auto was = seen_.servers.find(name);
        if (v.host_id && (was == seen_.servers.end() || was->second.host_id != v.host_id))
            say({.what = "hosted", .node = v.host, .server = name});
    }
}

void grace_watch::compare_servers(const fsm& f, const seen& is, bool was_synced) {
    const state& s = f.replicated();
    const bool purging = was_synced && is.lifting && !seen_.lifting;
    std::uint64_t purged = 0;
    for (const auto& [name, v] : is.servers) {
        const auto found = seen_.servers.find(name);
        const server_seen was = found == seen_.servers.end() ? server_seen{} : found->second;
        if (v.need && (!was.need || v.start != was.start))
            say({.what = "need",
                 .node = v.host,
                 .server = name,
                 .detail = was_synced ? why(seen_, is, was, v) : "",
                 .all = v.clients});
        else if (v.needed && v.host_id && v.host_id != was.host_id)
            say({.what = "hosted", .node = v.host, .server = name});
        if (v.open && !was.open)
            say({.what = "open", .node = v.host, .server = name});
        if (was.need && !v.need)
            say({.what = "done",
                 .node = v.host,
                 .server = name,
                 .count = count_reclaimed(s, s.servers.at(name)).reclaimed,
                 .all = v.clients});
        if (purging && v.needed) {
            const std::uint64_t gone = was.clients > v.clients ? was.clients - v.clients : 0;
            purged += gone;
            say({.what = "purged", .server = name, .count = gone, .all = was.clients});
        }
    }
    if (!purging)
        return;
    ++totals_.purges;
    totals_.clients_purged += purged;
    const auto last_out = is.nodes.find(purger(s));
    say({.what = "purge",
         .node = last_out == is.nodes.end() ? "" : last_out->second.name,
         .count = purged});
}

} // namespace grace
