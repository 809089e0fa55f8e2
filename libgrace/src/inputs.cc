// SPDX-License-Identifier: LGPL-2.1-or-later
// What the inputs from locks, disk and kernel mean for what this node knows, and what it notes of
// the messages that were delivered. No rule of the protocol is here.
#include "grace/fsm.hh"
#include "grace/wire.hh"

namespace grace {

// --- locks ---

void fsm::on(const input::locks_known& k) {
    lock_.known = true;
    lock_.held = k.grace;
    lock_.alive = k.alive;
    lock_.wanted = k.requested;
    lock_.alive_wanted = k.alive_requested;
    lock_.cancelling = false;
    lock_.probing.clear();
    lock_.unprobing.clear();
}

void fsm::on(const input::lock_granted& g) {
    if (g.resource == lock_resource::alive) {
        if (g.node == params_.self) {
            lock_.alive = g.mode == lock_mode::ex;
            lock_.alive_wanted = false;
        } else if (g.mode == lock_mode::pr) {
            auto it = lock_.probing.find(g.node);
            if (it != lock_.probing.end()) { // else the grant won the race against our cancel
                lock_.fenced[g.node] = it->second;
                lock_.probing.erase(it);
                tell(news_level::info, "node " + name_of(g.node) + " is proven fenced");
            }
            lock_.unprobing.insert(g.node);
            emit(effect::convert{lock_resource::alive, g.node, lock_mode::nl, false, {}});
        } else {
            lock_.unprobing.erase(g.node);
        }
        return;
    }
    lock_.held = g.mode;
    lock_.wanted.reset();
    lock_.cancelling = false;
    if (!g.value_valid)
        return;
    // The value block is a lower bound: a state older than it is not the cluster's.
    std::optional<lock_value> v = wire::decode_lock_value(g.value);
    if (v && synced_ && v->current > state_.current)
        lose_sync("the DLM's value block knows a later epoch than this group's state");
}

void fsm::on(const input::lock_refused& r) {
    lock_.retry_at = now_ + params_.retry;
    if (r.resource == lock_resource::alive) {
        if (r.node == params_.self)
            lock_.alive_wanted = false;
        else if (lock_.unprobing.erase(r.node) == 0)
            lock_.probing.erase(r.node);
        return;
    }
    lock_.wanted.reset();
    lock_.cancelling = false;
}

void fsm::on(const input::lock_cancelled& c) {
    if (c.resource == lock_resource::alive) {
        if (c.node == params_.self)
            lock_.alive_wanted = false;
        else if (lock_.unprobing.erase(c.node) == 0)
            lock_.probing.erase(c.node);
        return;
    }
    lock_.wanted.reset();
    lock_.cancelling = false;
}

void fsm::on(const input::locks_lost&) {
    tell(news_level::error, "the keeper of the DLM locks (graced-dlm) is gone; the gate is closed "
                            "until another one has taken them anew");
    auto fenced = std::move(lock_.fenced);
    lock_ = {};
    lock_.fenced = std::move(fenced); // a death that was proven stays proven
}

// --- disk ---

void fsm::on(const input::durable& d) {
    committed_ = d.at.value;
    while (!committing_.empty() && committing_.front().first <= d.at.value) {
        durable_here_ = std::max(durable_here_, committing_.front().second);
        committing_.pop_front();
    }
}

// Nothing that this node hears becomes durable any more, and every acknowledgement and LIFT waits
// for each synced member's disk. Bad scenario: one node's disk is full, and no client of any server
// of the cluster can mount. So it gets out of the others' way: its gate closes, its locks go down,
// it leaves the group, and counts there as a node whose daemon died.
void fsm::on(const input::store_failed& f) {
    if (store_failed_)
        return;
    store_failed_ = true;
    tell(news_level::error, f.why +
                                "; this node leaves the group with its gate closed, so that the "
                                "others go on, and joins again when it can be written");
    lose_sync("its recovery database failed");
    buffering_ = false;
    hellos_.clear();
    committing_.clear();
    wants_all_ = true;
    emit(effect::leave_group{});
}

void fsm::on(const input::store_opened& o) {
    if (!store_failed_)
        return;
    store_failed_ = false;
    if (!o.note.empty())
        tell(news_level::warning, o.note);
    tell(news_level::info, "the recovery database can be written again; joining the group");
    emit(effect::join_group{});
}

// --- kernel ---

void fsm::on(const input::kernel_attached& k) {
    const std::uint64_t order = gate_.order, changes = gate_.changes + 1;
    gate_ = {};
    gate_.changes = changes;
    gate_.attached = true;
    gate_.trips = k.trips;
    gate_.at = k.at;
    gate_.order = order;
    // Not accounted for: whatever tripped it while nobody listened goes through the barrier.
    gate_.accounted = k.trips == 0 ? 0 : ~std::uint64_t{0};
    permit_sent_ = 0;
    for (auto& [name, i] : instances_)
        i.reclaim = reclaim_state::off; // attaching closed all
}

void fsm::on(const input::kernel_acked& k) {
    if (k.order == gate_.close_order)
        gate_.close_acked = k.order;
    for (auto& [name, i] : instances_) {
        if (i.order != k.order)
            continue;
        if (i.reclaim == reclaim_state::closing) {
            i.reclaim = reclaim_state::off;
        } else if (i.reclaim == reclaim_state::opening) {
            i.reclaim = reclaim_state::on;
            tell(news_level::info, "server " + name + ": reclaim is open");
        }
    }
}

void fsm::on(const input::kernel_refused& k) {
    tell(news_level::warning, "the kernel refused an order: " + k.why);
    gate_.retry_at = now_ + params_.retry;
    if (k.order == gate_.close_order && gate_.close_acked != k.order) {
        gate_.close_order = gate_.close_acked = 0; // ordered anew
    } else if (k.order == gate_.order && gate_.open) {
        gate_.open = false; // an open order; the kernel stayed closed
        gate_.close_acked = gate_.close_order;
    }
    for (auto& [name, i] : instances_)
        if (i.order == k.order && i.reclaim != reclaim_state::off)
            i.reclaim = reclaim_state::off;
}

void fsm::on(const input::kernel_tripped& k) {
    gate_.trips = k.trips;
    gate_.open = false;
    gate_.close_order = gate_.close_acked = 0; // ask for an acknowledged close
}

void fsm::on(const input::kernel_closed&) {
    gate_.open = false;
    gate_.close_order = gate_.close_acked = 0;
}

void fsm::on(const input::kernel_lost& k) {
    tell(news_level::error, "the kernel's gate is not attached: " + k.why);
    const std::uint64_t order = gate_.order, changes = gate_.changes + 1;
    gate_ = {};
    gate_.changes = changes;
    gate_.order = order;
    for (auto& [name, i] : instances_)
        i.reclaim = reclaim_state::off;
}

// --- what was delivered ---

namespace {
template <typename... F>
struct overloaded : F... {
    using F::operator()...;
};
template <typename... F>
overloaded(F...) -> overloaded<F...>; // clang 14 does not deduce it for aggregates
} // namespace

void fsm::deliver_synced(node_id sender, const envelope& env) {
    const position before = state_.applied;
    const start_count starts = state_.starts;
    applied a = apply(state_, sender, env);
    if (state_.applied !=
        before) // before a HELLO is answered: its own changes are part of the answer
        remember(a.ops);
    const bool mine = sender == params_.self && env.life == params_.life;

    if (const auto* m = std::get_if<msg::start>(&env.body);
        m && mine && a.counted && m->why == msg::start_reason::takes)
        instances_[m->server].taken_at = state_.wants_durable;

    if (const auto* m = std::get_if<msg::start>(&env.body);
        m && mine && a.counted && m->why == msg::start_reason::asked)
        for (auto& [id, r] : requests_)
            if (const auto own = r.starts.find(m->server);
                own != r.starts.end() && r.kind == request_kind::fence_news)
                own->second = state_.servers.at(m->server).start;

    // Requests hear of their own message even where it was void.
    if (const auto* m = std::get_if<msg::start>(&env.body); m && mine)
        for (auto& [id, r] : requests_)
            if (r.server == m->server && r.sent_in != 0 && !r.delivered &&
                m->why == reason_of(r.kind)) {
                if (!a.counted && env.view != state_.view) {
                    r.sent_in = 0;
                    continue;
                }
                r.delivered = true;
                r.counted = a.counted;
            }
    if (const auto* m = std::get_if<msg::released>(&env.body);
        m && mine && (a.counted || env.view == state_.view)) {
        std::erase_if(said_, [&](const auto& e) {
            return std::get<said>(e) == said::released && std::get<std::string>(e) == m->server;
        });
        for (auto& [id, r] : requests_)
            if (r.kind == request_kind::released && r.server == m->server && r.sent_in != 0)
                r.delivered = true;
    }
    if (const auto* m = std::get_if<msg::start>(&env.body);
        m && mine && a.counted && m->why == msg::start_reason::dropped)
        if (instance* i = instance_of(m->server))
            i->dropped = false;
    // Bad scenario: nfsd ends while its last client's Remove is on its way, and its START is void.
    // It is served again, clients come, and when it ends once more, that START "was said already".
    if (const auto* m = std::get_if<msg::start>(&env.body);
        m && mine && !a.counted && env.view == state_.view)
        std::erase_if(said_, [&](const auto& e) {
            return std::get<said>(e) == said::start && std::get<std::string>(e) == m->server;
        });
    if (!a.counted) {
        tell(news_level::debug,
             describe(env.body) + " from node " + name_of(sender) + " is void: " + a.why_void);
        return;
    }
    if (!std::holds_alternative<msg::heartbeat>(env.body) &&
        !std::holds_alternative<msg::records>(env.body) &&
        !std::holds_alternative<msg::durable>(env.body) &&
        !std::holds_alternative<msg::view_stored>(env.body))
        tell(news_level::debug, describe(env.body) + " from node " + name_of(sender));

    std::visit(
        overloaded{
            [](const auto&) {},
            [&](const msg::hello& m) {
                if (mine) { // everyone counts this node as one without state from here on
                    lose_sync("its own HELLO was delivered");
                    hellos_[sender] = {env.life, m};
                    hello_sent_ = true;
                    buffering_ = true;
                    buffer_.clear();
                    buffered_bytes_ = 0;
                    return;
                }
                joined_[sender] = {ring_.seq, starts};
                if (lowest_synced(state_) == params_.self)
                    send_snapshot(sender, m);
            },
            [&](const msg::heartbeat& m) { permit_.heard(sender, m, quorum_.votes.size() == 1); },
            [&](const msg::barrier& m) {
                if (mine && m.number == barrier_)
                    emit(effect::query_dlm_members{});
            },
            [&](const msg::bypass& m) {
                tell(news_level::error,
                     "node " + name_of(sender) + " was told to switch the bypass of " +
                         (m.node ? "node " + name_of(m.node) : "every node") +
                         (m.on ? " ON: no grace period protects locks there" : " off"));
                if (!m.node || m.node == params_.self) {
                    emit(effect::set_bypass{m.on});
                    // At once: else it would say ATTACHED before its kernel has told it.
                    if (m.on && params_.kernel_expected)
                        on(input::kernel_lost{"it is bypassed"});
                }
                for (auto& [id, r] : requests_)
                    if (mine && r.node == m.node && r.sent_in != 0 &&
                        r.kind == (m.on ? request_kind::bypass_on : request_kind::bypass_off))
                        r.delivered = true;
            },
            [&](const msg::lift_request& m) {
                auto it = state_.servers.find(m.server);
                instance* i = instance_of(m.server);
                if (!i || it == state_.servers.end() || it->second.host != params_.self ||
                    it->second.start != m.start || !it->second.need)
                    return;
                i->lift_asked = m.start;
            },
            [&](const msg::extend_request& m) {
                auto it = state_.servers.find(m.server);
                if (it == state_.servers.end() || it->second.start != m.start || !it->second.need)
                    return;
                extension& e = extensions_[m.server];
                if (e.start != m.start)
                    e = {m.start, 0};
                e.by = std::min(e.by + m.by, msg::max_extension);
                tell(news_level::info, "server " + m.server + ": an operator (node " +
                                           name_of(sender) + ") gives its clients " +
                                           std::to_string(m.by / seconds(1)) + " s more to reclaim");
                for (auto& [id, r] : requests_)
                    if (mine && r.kind == request_kind::extend && r.by == m.by)
                        r.starts.erase(m.server);
            },
            [&](const msg::records& m) {
                if (!mine || m.batch != batch_)
                    return;
                for (pending_record& p : records_) {
                    if (p.at != pending_record::where::sent)
                        continue;
                    p.at = pending_record::where::applied;
                    p.applied_at = state_.applied;
                }
            },
            [&](const msg::start& m) {
                if (state_.servers.at(m.server).need)
                    tell(news_level::info, "server " + m.server + " NEEDs (START from node " +
                                               name_of(sender) + "), C " +
                                               std::to_string(state_.current.value));
                else
                    tell(news_level::info, "node " + name_of(sender) + " hosts server " + m.server +
                                               "; it has no client on record");
            },
            [&](const msg::done& m) {
                tell(news_level::info,
                     "server " + m.server + " NEEDs no longer: " + to_string(m.how));
                if (mine)
                    emit(effect::end_nfsd_grace{m.server});
            },
            [&](const msg::purge&) {
                tell(news_level::info, "node " + name_of(sender) +
                                           " is the last out and purges R " +
                                           std::to_string(state_.recovery.value));
            },
            [&](const msg::lift&) { tell(news_level::info, "the grace is lifted"); },
        },
        env.body);
    if (synced_ && state_.applied != before)
        persist(std::move(a.ops));
}

} // namespace grace
