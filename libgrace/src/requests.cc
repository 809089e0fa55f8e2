// SPDX-License-Identifier: LGPL-2.1-or-later
// Requests of people and agents: each becomes a message, and is answered when what it asked for is
// true, not when it was sent.
#include "grace/fsm.hh"

#include <algorithm>

namespace grace {
namespace {
constexpr duration patience = seconds(10); // without quorum a request waits this long
}

msg::start_reason fsm::reason_of(request_kind k) {
    switch (k) {
    case request_kind::serve:
        return msg::start_reason::takes;
    case request_kind::stop:
        return msg::start_reason::stops;
    default:
        return msg::start_reason::asked;
    }
}

void fsm::on(const input::instance_known& k) {
    instance& i = instances_[k.server];
    i.running = k.running;
    i.stopping = k.stopping;
    i.tells_completes = k.tells_completes;
    i.answered = k.answered;
}

void fsm::on(const input::nfsd_ended& e) {
    instance& i = instances_[e.server];
    i.dropped |= i.running && !i.stopping;
    i.running = i.kernel_done = false;
    i.answered = {};
    forget_upcalls(e.server);
}

void fsm::on(const input::instance_gone& g) {
    instances_.erase(g.server);
}

void fsm::ask(ticket id, request_kind kind, std::string server, node_id node, phase until) {
    request r{};
    r.kind = kind;
    r.server = std::move(server);
    r.node = node;
    r.until = until;
    requests_[id] = std::move(r);
}

void fsm::on(const input::serve& q) {
    instances_[q.server].stopping = false;
    ask(q.id, request_kind::serve, q.server);
}

void fsm::on(const input::stop& q) {
    // At once: a server that is about to go must not say that its state is intact.
    if (instance* i = instance_of(q.server))
        i->stopping = true;
    ask(q.id, request_kind::stop, q.server);
}

void fsm::on(const input::released& q) {
    instances_.erase(q.server);
    forget_upcalls(q.server);
    ask(q.id, request_kind::released, q.server);
}

void fsm::on(const input::start& q) {
    ask(q.id, request_kind::start, q.server);
}
void fsm::on(const input::lift& q) {
    ask(q.id, request_kind::lift, q.server);
    // Bad scenario: it is asked where graced has just started, before the group has answered. While
    // it waits, a node dies; what it would end then is a grace that nobody knew of who asked.
    if (synced_)
        for (const auto& [name, server] : state_.servers)
            if (server.need && (q.server.empty() || name == q.server))
                requests_[q.id].starts[name] = server.start;
}
void fsm::on(const input::extend& q) {
    ask(q.id, request_kind::extend, q.server);
    requests_[q.id].by = q.by;
}
void fsm::on(const input::hold& q) {
    if (q.on && !gate_.attached)
        return answer(q.id, request_status::void_now,
                      "this node's gate is not attached or is bypassed: there is nothing that could "
                      "hold locks back (gracectl status)");
    if (q.on != held_)
        tell(news_level::warning, q.on ? "an operator holds this node's gate closed: no new lock, to "
                                         "NFS clients or local programs (gracectl noenforce ends it)"
                                       : "no operator holds this node's gate closed any more");
    held_ = q.on;
    ask(q.id, request_kind::hold, {});
    requests_[q.id].counted = q.on;
}
void fsm::on(const input::fence_news& q) {
    ask(q.id, request_kind::fence_news, {}, q.node);
}
void fsm::on(const input::bypass& q) {
    ask(q.id, q.on ? request_kind::bypass_on : request_kind::bypass_off, {}, q.node);
}
void fsm::on(const input::wait& q) {
    ask(q.id, request_kind::wait, {}, {}, q.until);
}

void fsm::on(const input::forget& f) {
    requests_.erase(f.id);
}

void fsm::decide_requests() {
    for (auto it = requests_.begin(); it != requests_.end();)
        it = settle(it->first, it->second) ? requests_.erase(it) : std::next(it);
}

bool fsm::settle(ticket id, request& r) {
    auto finish = [&](request_status s, std::string detail = {}) {
        if (instance* i = instance_of(r.server);
            i && r.kind == request_kind::stop && s != request_status::done)
            i->stopping = false; // it stays
        answer(id, s, std::move(detail));
        return true;
    };
    if (r.kind == request_kind::wait)
        return synced_ && current_phase() == r.until ? finish(request_status::done) : false;
    if (r.kind == request_kind::hold) { // closing asks nobody
        if (r.counted != held_)
            return finish(request_status::void_now, "somebody asked for the opposite meanwhile");
        return !held_ || gate_.closed_at(gate_.at) ? finish(request_status::done) : false;
    }
    if (r.kind == request_kind::lift && !synced_)
        return finish(request_status::not_quorate,
                      "this node has no quorum, or has not joined the group yet, and does not know "
                      "what would be lifted: ask again, or on another node");
    if (!acting()) {
        // Not since it was asked: a request may wait for a fencing for minutes, and each change of
        // the membership leaves the node undecided for a moment.
        if (r.idle_since == 0)
            r.idle_since = now_;
        if (now_ >= r.idle_since + patience)
            return finish(request_status::not_quorate,
                          "this node has no quorum, or has not joined the group yet");
        wake_at(r.idle_since + patience);
        return false;
    }
    r.idle_since = 0;
    auto it = state_.servers.find(r.server);
    const server_state* v = it == state_.servers.end() ? nullptr : &it->second;
    auto say_start = [&] {
        if (r.delivered || r.sent_in == state_.view.number + 1)
            return;
        r.sent_in = state_.view.number + 1;
        send(msg::start{r.server, reason_of(r.kind)});
    };

    // What came of it went with the state that this node gave up.
    auto again_if = [&](bool lost) {
        if (r.delivered && lost) {
            r.delivered = r.counted = false;
            r.sent_in = 0;
        }
    };

    switch (r.kind) {
    case request_kind::serve: {
        again_if(r.counted && (!v || v->host != params_.self));
        say_start();
        if (!r.delivered)
            return false;
        if (!v)
            return finish(request_status::void_now,
                          "there are " + std::to_string(max_servers) + " servers already");
        if (!r.counted || v->host != params_.self) {
            return finish(request_status::hosted_elsewhere,
                          "server " + r.server + " is hosted by node " + name_of(v->host) +
                              ": stop it there first (graced-server stop " + r.server + ")");
        }
        if (v->need ? instances_[r.server].reclaim == reclaim_state::on : is_taken(r.server))
            return finish(request_status::done);
        return false;
    }
    case request_kind::stop:
        if (!v || v->host != params_.self)
            return finish(request_status::not_hosted,
                          "server " + r.server + " is not hosted on this node");
        again_if(!v->need);
        say_start();
        if (!r.delivered)
            return false;
        return in_grace(state_) && everyone_enforces() ? finish(request_status::done) : false;

    case request_kind::released:
        // Bad scenario: RELEASED, and the TAKE of a serve behind it, are delivered while this node
        // is undecided. Later it sees itself as the host and says RELEASED again, of an nfsd that
        // runs: another node takes the server, and there are two.
        if (!v || v->host != params_.self || (r.delivered && instances_.contains(r.server)))
            return finish(request_status::done);
        again_if(true);
        if (r.sent_in != state_.view.number + 1) { // once a view: a second one may meet a TAKE
            r.sent_in = state_.view.number + 1;
            if (once(said::released, r.server, v->start.value))
                send(msg::released{r.server});
        }
        return false;

    case request_kind::start:
        if (r.server.empty()) { // every server with records
            std::size_t n = 0;
            for (const auto& [name, server] : state_.servers)
                if (!server.records.empty() && ++n && !server.need)
                    send(msg::start{name, msg::start_reason::asked});
            return n ? finish(request_status::done, std::to_string(n) + " servers")
                     : finish(request_status::void_now,
                              "no server has clients on record: there is nothing to recover");
        }
        if (!v)
            return finish(request_status::no_such_server, "no server " + r.server + " is known");
        say_start();
        if (!r.delivered)
            return false;
        if (v->need)
            return finish(request_status::done,
                          r.counted ? "" : "server " + r.server + " NEEDs already");
        return r.counted ? finish(request_status::done)
                         : finish(request_status::void_now,
                                  "server " + r.server +
                                      " has no clients on record: there is nothing to recover");

    case request_kind::lift: {
        if (!r.server.empty() && !v)
            return finish(request_status::no_such_server, "no server " + r.server + " is known");
        if (r.starts.empty())
            return finish(request_status::void_now,
                          in_grace(state_) ? "no such server NEEDs: the grace is being lifted"
                                           : "there is no grace to lift");
        bool waiting = false;
        for (const auto& [name, start] : r.starts) {
            const server_state& server = state_.servers.at(name);
            if (server.need && server.start != start)
                return finish(request_status::void_now,
                              "server " + name +
                                  " has lost its locks anew meanwhile, and its "
                                  "clients may reclaim them: lift it again if they shall not");
            if (!server.need)
                continue;
            waiting = true;
            if (!server.host) {
                if (once(said::done, name, start.value))
                    send(msg::done{name, start, msg::outcome::lifted});
            } else if (!is_synced(state_, server.host)) {
                return finish(request_status::void_now,
                              "graced does not run on node " + name_of(server.host) +
                                  ", which hosts server " + name +
                                  ": its kernel may still accept reclaims. Start graced there, or "
                                  "fence the node");
            } else if (once(said::lift_request, name, start.value)) {
                send(msg::lift_request{name, start});
            }
        }
        return waiting ? false : finish(request_status::done);
    }
    case request_kind::extend:
        if (!r.server.empty() && !v)
            return finish(request_status::no_such_server, "no server " + r.server + " is known");
        if (!r.counted)
            for (const auto& [name, server] : state_.servers)
                if (server.need && (r.server.empty() || name == r.server))
                    r.starts[name] = server.start;
        if (!r.counted && r.starts.empty())
            return finish(request_status::void_now,
                          in_grace(state_) ? "no such server NEEDs: it has no deadline"
                                           : "there is no grace: nothing has a deadline");
        r.counted = true;
        for (const auto& [name, start] : r.starts)
            if (const auto now = state_.servers.find(name);
                now == state_.servers.end() || !now->second.need || now->second.start != start)
                return finish(request_status::void_now,
                              "server " + name +
                                  ": this START is over, or it has lost its locks anew meanwhile "
                                  "(gracectl status): if it still NEEDs, extend that");
        if (r.sent_in != state_.view.number + 1) {
            r.sent_in = state_.view.number + 1;
            for (const auto& [name, start] : r.starts)
                send(msg::extend_request{name, start, r.by});
        }
        return r.starts.empty() ? finish(request_status::done) : false;

    case request_kind::fence_news: {
        if (!state_.nodes.contains(r.node))
            return finish(request_status::no_such_node,
                          "no node " + std::to_string(r.node.value) + " is known");
        // News only: START for what it hosts; proof of fencing comes from the DLM alone.
        bool waiting = false, need = false, lives = false;
        for (const auto& [name, server] : state_.servers) {
            if (server.need)
                need = true;
            if (server.host != r.node || server.records.empty() || server.need)
                continue;
            // Bad scenario: a node that lives answers at once that it has lost nothing. To say
            // START again until all enforce would be a storm of them, one epoch used up after the
            // other.
            if (const auto own = r.starts.find(name); own != r.starts.end() &&
                                                      own->second != start_count{} &&
                                                      own->second <= server.start) {
                lives = true;
                continue;
            }
            waiting = true;
            if (once(said::start, name, server.start.value)) {
                r.starts[name] = {};
                send(msg::start{name, msg::start_reason::asked});
            }
        }
        if (waiting)
            return false;
        // That grace is lifted when all have enforced: the purge needs the EX lock.
        if (!need && (!lives || !in_grace(state_)))
            return finish(request_status::done,
                          "node " + name_of(r.node) +
                              (lives ? " lives, and its servers have lost nothing"
                                     : " hosts no server with clients on record"));
        return everyone_enforces(r.node) ? finish(request_status::done) : false;
    }
    case request_kind::bypass_on:
    case request_kind::bypass_off: {
        const bool on = r.kind == request_kind::bypass_on;
        if (r.node && !state_.nodes.contains(r.node))
            return finish(request_status::no_such_node,
                          "no node " + std::to_string(r.node.value) + " is known");
        if (!r.delivered) {
            if (r.sent_in != state_.view.number + 1) {
                r.sent_in = state_.view.number + 1;
                send(msg::bypass{r.node, on});
            }
            return false;
        }
        std::string alone; // live, and nobody there to hear it
        for (const auto& [n, votes] : quorum_.votes)
            if (!is_synced(state_, n) && (!r.node || r.node == n))
                alone += (alone.empty() ? "" : ", ") + name_of(n);
        return finish(request_status::done,
                      alone.empty() ? ""
                                    : "graced does not run on " + alone +
                                          ": nothing was switched there. Do it there by hand: "
                                          "gracectl bypass " +
                                          (on ? "on --yes --told" : "off"));
    }
    case request_kind::hold:
    case request_kind::wait:
        break;
    }
    return false;
}

std::vector<std::string> fsm::blocked_by() const {
    std::vector<std::string> why;
    if (!synced_)
        why.push_back("this node has not joined the group yet");
    if (!quorate())
        why.push_back("this node has no quorum");
    else if (!synced_ && !store_failed_ && hellos_.size() == members_.size() && !may_found()) {
        std::string without;
        for (const auto& [id, h] : hellos_)
            if (!h.second.has_database)
                without += (without.empty() ? "" : ", ") + h.second.name;
        why.push_back(
            "the group cannot be founded yet: " +
            (without.empty() ? std::string() : "no database has been kept on " + without + "; ") +
            "start graced on the other nodes, which may have the latest records");
    }
    if (store_failed_)
        why.push_back("the recovery database cannot be written");
    if (params_.kernel_expected && !gate_.attached)
        why.push_back("this node's gate is not attached or is bypassed: see the warnings, or load "
                      "lockd_shim and gfs2_gate");
    if (held_)
        why.push_back("an operator holds this node's gate closed: gracectl noenforce ends it");
    if (!lock_.known)
        why.push_back("the keeper of the DLM locks does not answer");
    if (!synced_ || !quorate())
        return why;
    if (!synced_majority()) {
        std::string where;
        for (const auto& [id, votes] : quorum_.votes)
            if (!is_synced(state_, id))
                where += (where.empty() ? "" : ", ") + name_of(id);
        why.push_back("graced runs on too few nodes: without more than half of the votes no record "
                      "is kept and no grace is lifted; start it on " +
                      where);
    }
    if (!in_grace(state_)) {
        if (lock_.known && lock_.held != lock_mode::pr)
            why.push_back("waiting for the PR lock");
        if (lock_.known && !lock_.alive)
            why.push_back("waiting for the EX lock on this node's alive resource");
        if (dlm_lost_.contains(params_.self))
            why.push_back("dlm_controld does not run on this node any more: its lockspaces have "
                          "stopped, reboot it");
        else if (gate_.accounted != gate_.trips)
            why.push_back("the tripwire went and is not accounted for yet");
        for (const auto& [id, n] : state_.nodes)
            if (!n.member && !n.down && !live(id))
                why.push_back("the death of node " + name_of(id) + " is not told to all yet");
        if (permit_.until() <= now_)
            why.push_back("no other member has echoed a heartbeat lately (permit)");
        return why;
    }
    for (const auto& [id, votes] : quorum_.votes) {
        if (enforces(id))
            continue;
        auto n = state_.nodes.find(id);
        if (n == state_.nodes.end() || (!n->second.member && !n->second.attached))
            why.push_back(
                "node " + name_of(id) +
                " never attached its gate, or it is bypassed: start graced there, or name it in "
                "nodes_without_gfs2");
        else if (!n->second.member)
            why.push_back("node " + name_of(id) +
                          " lost its graced; its permit has not run out yet");
        else
            why.push_back("node " + name_of(id) +
                          (n->second.attached ? " does not enforce yet"
                                              : " has no gate that holds locks back: its module or "
                                                "a hook is gone, or it is bypassed (gracectl "
                                                "status there)"));
    }
    for (const auto& [id, n] : state_.nodes)
        if (any_need(state_) && !live(id) && !fencing_proven(id) &&
            !params_.nodes_without_gfs2.contains(id))
            why.push_back("node " + name_of(id) + " is not proven fenced");
    if (hosts_need(state_, params_.self) && lock_.held != lock_mode::cw)
        why.push_back("waiting for the CW lock");
    for (const auto& [name, v] : state_.servers)
        if (v.need && !v.host)
            why.push_back("server " + name + " NEEDs and no node hosts it");
    if (state_.lifting) {
        for (const auto& [id, n] : state_.nodes)
            if (n.member && n.synced && n.durable < state_.purge_at)
                why.push_back("node " + name_of(id) + " has not got the purge on its disk yet");
    } else if (const node_id last = purger(state_)) {
        why.push_back(last == params_.self && lock_.held != lock_mode::ex
                          ? "waiting for the EX lock, to purge"
                          : "node " + name_of(last) + " is the last out and has not purged yet");
    }
    return why;
}

} // namespace grace
