// SPDX-License-Identifier: LGPL-2.1-or-later
// The rules of the protocol that one node follows (docs/design.md, "The protocol").
//
// How the file is laid out: step() notes what the input says (the on() functions change nothing
// but what this node knows), then decide() runs every rule. A rule is level-triggered: it compares
// what is with what should be and emits the difference. So no rule depends on which input came
// last, and a rule that could not act now acts as soon as it can.
//
// The order of one grace, by rule:
//   decide_dropped       nfsd ended by itself       -> START(server)
//   decide_gate          START delivered            -> gate closed, NFS in grace (kernel)
//   decide_enforcing     kernel acked, disk durable -> ENFORCING(C)
//   decide_locks         gate closed                -> PR down to NL, then CW where a server NEEDs
//   decide_reclaim       all E, own CW, dead fenced -> reclaim opens
//   decide_done          all reclaimed or deadline  -> reclaim closes, DONE(server)
//   decide_locks         nobody NEEDs               -> CW down; EX at the last node out
//   decide_purge_and_lift  own EX                   -> PURGE; durable everywhere -> LIFT
//   decide_locks, decide_gate  LIFT delivered       -> PR; PR granted -> gate opens
#include "grace/fsm.hh"
#include "grace/wire.hh"

#include <algorithm>
#include <utility>

namespace grace {

fsm::fsm(parameters params, std::optional<stored_state> database)
    : params_(std::move(params))
    , hello_number_(params_.life.value)
    , permit_(params_.self, params_.permit_ttl, params_.heartbeat_interval) {
    if (database) {
        state_ = from_stored(*database);
        stored_quorate_view_ = database->meta.quorate_view;
        stored_view_ = std::max(database->meta.view, stored_quorate_view_);
        // Made, and never given a state: it was started once, alone, or its predecessor was lost.
        has_database_ = database->meta.applied.value != 0;
    }
}

void fsm::step(instant now, const any_input& in) {
    now_ = now;
    std::visit([this](const auto& i) { on(i); }, in);
    decide();
    check_invariants(*this);
}

output fsm::take_output() {
    output o;
    o.swap(out_);
    std::ranges::stable_sort(o, {}, [](const any_effect& e) { return e.index(); });
    return o;
}

void fsm::decide() {
    deadline_ = 0;
    decide_hello();
    decide_founding();
    decide_snapshots();
    decide_membership();
    decide_dropped();
    decide_gate();
    decide_enforcing();
    decide_done();
    decide_reclaim();
    decide_locks();
    decide_purge_and_lift();
    decide_durable();
    decide_barrier();
    decide_checks();
    decide_records();
    decide_grace_starts();
    decide_requests();
    decide_permit();
    decide_timeouts();

    if (phase p = current_phase(); p != phase_) {
        phase_ = p;
        phase_since_ = now_;
        tell(news_level::info, std::string("phase ") + to_string(p) + ", C " +
                                   std::to_string(state_.current.value) + ", R " +
                                   std::to_string(state_.recovery.value));
    }
}

// ---------------------------------------------------------------------------------------------
// What one node may conclude.

// Quorum counts only for the ring that the group's messages come from; until corosync's services
// name the same ring, this node is undecided and closed.
bool fsm::confirmed() const {
    return !ring_pending_ && in_group_ && quorum_.ring_seq == ring_.seq;
}

// More than half of the expected votes have it, or every live member has.
template <typename P>
bool fsm::more_than_half(P has_it) const {
    std::uint64_t votes = 0;
    bool all = true;
    for (const auto& [id, v] : quorum_.votes) {
        if (has_it(id))
            votes += v;
        else
            all = false;
    }
    return all || votes * 2 > quorum_.expected;
}

bool fsm::synced_majority() const {
    return more_than_half([&](node_id id) { return is_synced(state_, id); });
}

bool fsm::view_stored_by_majority() const {
    return more_than_half([&](node_id id) {
        return is_synced(state_, id) && state_.nodes.at(id).view == state_.view.number;
    });
}

bool fsm::enforces(node_id id) const {
    if (params_.nodes_without_gfs2.contains(id))
        return true;
    auto it = state_.nodes.find(id);
    if (it == state_.nodes.end())
        return false;
    const node_state& n = it->second;
    if (n.member && n.synced)
        return in_grace(state_) && n.enforcing == state_.current;
    // ◆ Its daemon is gone. Its kernel fails closed by itself: at once when the socket closed, at
    // the latest when its permit ran out. Only a gate that had attached can do that.
    auto since = daemonless_since_.find(id);
    return n.attached && since != daemonless_since_.end() && now_ >= since->second + n.permit_ttl;
}

bool fsm::everyone_enforces(node_id except) const {
    return std::ranges::all_of(
        quorum_.votes, [&](const auto& v) { return v.first == except || enforces(v.first); });
}

bool fsm::fencing_proven(node_id id) const {
    auto it = state_.nodes.find(id);
    auto proof = lock_.fenced.find(id);
    return it != state_.nodes.end() && proof != lock_.fenced.end() &&
           proof->second == it->second.deaths;
}

// ◆ CW proves that no PR is left, not that the dead are fenced: each node that is not live must
// have lost its EX on alive.<node>, which the DLM gives away only after quorum and fencing.
bool fsm::all_fenced() const {
    return std::ranges::all_of(state_.nodes, [&](const auto& e) {
        return live(e.first) || params_.nodes_without_gfs2.contains(e.first) ||
               fencing_proven(e.first);
    });
}

phase fsm::current_phase() const {
    if (!in_grace(state_))
        return phase::normal;
    if (state_.lifting || !any_need(state_))
        return phase::lifting;
    return synced_ && everyone_enforces() && all_fenced() ? phase::reclaiming : phase::entering;
}

// The trip is accounted for when a barrier has come back from behind the START. Not while lifting:
// the START that moves the epoch on after a PURGE asks for new gates. Nobody's fencing is waited
// for: the gate of a node that is gone has closed by itself, and the wait holds nfsd's mutex.
bool fsm::may_drop() const {
    return acting() && in_grace(state_) && !state_.lifting && any_need(state_) && gate_.attached &&
           gate_.closed_at(state_.current) && gate_.accounted == gate_.trips && everyone_enforces();
}

// A node whose daemon died first is no member of the group, so nobody's confchg tells its own
// death: NODEDOWN does. Bad scenario: dlm_controld has dropped its locks and the trip is accounted
// for, but NODEDOWN is still on its way; a gate that opens now grants what its clients are about to
// reclaim.
bool fsm::death_untold() const {
    return !returned_.empty() || std::ranges::any_of(state_.nodes, [&](const auto& e) {
        return !e.second.member && !e.second.down && !live(e.first);
    });
}

bool fsm::may_open() const {
    return acting() && !death_untold() && !in_grace(state_) && lock_.held == lock_mode::pr &&
           !lock_.wanted && lock_.alive && gate_.accounted == gate_.trips && !held_ &&
           permit_.until() > now_ && gate_.attached && (gate_.open || gate_.closed_at(gate_.at));
}

// Its nfsd has not stopped since before the START, and was not in the midst of reclaim: it has lost
// nothing, nobody will reclaim, and its records must not be purged for that.
bool fsm::intact(const server_state& v, const instance& i) const {
    return i.running && !i.stopping && standing_of(v, i.answered) == standing::intact;
}

duration fsm::extension_of(const std::string& server, start_count start) const {
    auto it = extensions_.find(server);
    return it != extensions_.end() && it->second.start == start ? it->second.by : 0;
}

instant fsm::deadline_of(const std::string& server) const {
    auto v = state_.servers.find(server);
    auto i = instances_.find(server);
    if (v == state_.servers.end() || !v->second.need || i == instances_.end() ||
        i->second.reclaim != reclaim_state::on)
        return 0;
    return i->second.deadline + extension_of(server, v->second.start);
}

// Bad scenario: a server is released here and served here again at once, and this node hears late
// of its own RELEASED: another node has taken the server by then, and opens reclaim for it, too.
bool fsm::being_released(const std::string& name) const {
    return std::ranges::any_of(said_,
                               [&](const auto& e) {
                                   return std::get<said>(e) == said::released &&
                                          std::get<std::string>(e) == name;
                               }) ||
           std::ranges::any_of(requests_, [&](const auto& e) {
               const request& r = e.second;
               return r.kind == request_kind::released && r.server == name && !r.delivered;
           });
}

// All have its START on disk. Bad scenario: this node was paused, and hears its START before it
// hears that the others go on without it; they have its clients on record, and its nfsd would be
// told that nobody may reclaim.
bool fsm::is_taken(const std::string& server) const {
    auto i = instances_.find(server);
    return i != instances_.end() && durable_everywhere(state_, i->second.taken_at);
}

bool fsm::may_reclaim(const std::string& name, const instance& i) const {
    auto it = state_.servers.find(name);
    if (it == state_.servers.end() || !acting() || !in_grace(state_) || state_.lifting)
        return false;
    const server_state& v = it->second;
    return v.need && v.host == params_.self && !i.stopping && i.finished != v.start &&
           !being_released(name) && !intact(v, i) && lock_.held == lock_mode::cw && !lock_.wanted &&
           (gate_.closed_at(state_.current) || !params_.kernel_expected) && everyone_enforces() &&
           all_fenced();
}

bool fsm::reclaims_off() const {
    return std::ranges::all_of(
        instances_, [](const auto& e) { return e.second.reclaim == reclaim_state::off; });
}

instance* fsm::instance_of(const std::string& name) {
    auto it = instances_.find(name);
    return it == instances_.end() ? nullptr : &it->second;
}

std::string fsm::name_of(node_id id) const {
    auto it = state_.nodes.find(id);
    if (it != state_.nodes.end() && !it->second.name.empty())
        return it->second.name;
    return std::to_string(id.value);
}

void fsm::answer(ticket id, request_status status, std::string detail) {
    emit(effect::answer_request{id, status, std::move(detail)});
}

// ---------------------------------------------------------------------------------------------
// Membership: what this node adds to the stream about who is there.

void fsm::decide_membership() {
    if (synced_ && confirmed() && !quorum_.quorate) {
        // An inquorate node's state is not continued by anyone: it joins anew (stateful merge).
        lose_sync("quorum is lost");
        decide_hello();
    }
    for (auto it = daemonless_since_.begin(); it != daemonless_since_.end();)
        it = live(it->first) && !is_synced(state_, it->first) ? std::next(it)
                                                              : daemonless_since_.erase(it);
    if (!acting())
        return;

    if (decided_) { // this is the side that goes on
        decided_.reset();
        persist(std::exchange(undecided_, {}));
    }
    decide_view();
    for (const auto& [id, votes] : quorum_.votes) {
        lock_.fenced.erase(id); // it is back: its next death needs a proof of its own
        if (is_synced(state_, id))
            continue;
        instant since = daemonless_since_.try_emplace(id, now_).first->second;
        if (auto n = state_.nodes.find(id); n != state_.nodes.end()) {
            instant closed = since + n->second.permit_ttl;
            if (closed > now_)
                wake_at(closed);
        }
    }
    const bool counted = state_.nodes[params_.self].attached;
    if ((gate_.attached || !params_.kernel_expected) && !counted &&
        once(said::attached, gate_.changes))
        send(msg::attached{});
    // Not before the kernel has spoken: a daemon that returns adopts what its gate was counted as.
    if (!gate_.attached && gate_.changes != 0 && counted && once(said::detached, gate_.changes))
        send(msg::detached{});

    // ◆ A node may die after its daemon, and is then no member of the group any more.
    std::erase_if(returned_, [&](const auto& e) {
        auto n = state_.nodes.find(e.first);
        const departure& d = e.second;
        if (n == state_.nodes.end() || n->second.down || n->second.deaths != d.deaths)
            return true;
        // Bad scenario: a START for a member whose HELLO, which says that it has booted, is on its
        // way. The server has had one for that by then, and may run again; clients that have
        // reclaimed, and will not do it twice, would be purged.
        if ((!n->second.member || n->second.hello == 0) && !d.joined)
            return false;
        // Its daemon has joined before NODEDOWN was said, on the same boot: it was cut off for a
        // moment, and DLM has dropped its locks all the same.
        bool told = true;
        for (const auto& [name, v] : state_.servers) {
            if (v.host != e.first || v.records.empty() || v.need || v.lost > d.starts)
                continue;
            told = false;
            if (once(said::start, name, v.start.value))
                send(msg::start{name, msg::start_reason::dropped});
        }
        return told;
    });
    // Of a node that is back not every member knows: who joined since has not been told.
    const bool lowest = lowest_synced(state_) == params_.self;
    const auto returned = [&](node_id id) {
        auto r = returned_.find(id);
        return r != returned_.end() && !r->second.joined;
    };
    for (const auto& [id, n] : state_.nodes) {
        if (n.member || n.down)
            continue;
        if (!live(id)) // and if it is back before that is told
            returned_.try_emplace(id, departure{n.deaths, state_.starts, false});
        if ((live(id) ? returned(id) : lowest) && once(said::node_down, id.value, n.deaths))
            send(msg::node_down{id, n.deaths});
    }
}

// Two steps, before anything is acknowledged in this view: each member stores its number; when more
// than half have, it is stored as quorate, and ranks where a group is founded. ◆ Bad scenarios:
// node 2 alone has the state for many views, quorate by nodes on which graced does not run; or it
// stores a view and dies before the others have. Nodes 1 and 3 found a group, record clients, and
// power fails: node 2's database would rank before theirs. Of a view that ranks, any majority has
// one that knows the number, and founds with a higher one.
void fsm::decide_view() {
    if (view_commit_ == 0) {
        stored_view_ = std::max(stored_view_, state_.view.number);
        persist({});
        view_commit_ = commits_;
    }
    if (view_is_stored() && once(said::view_stored, state_.view.number))
        send(msg::view_stored{});
    if (quorate_commit_ == 0 && view_stored_by_majority()) {
        stored_quorate_view_ = state_.view.number;
        persist({});
        quorate_commit_ = commits_;
    }
}

// A server that was stopped by hand, or crashed: what its clients held was dropped, so they must
// have a grace before anybody else gets it.
void fsm::decide_dropped() {
    if (!acting())
        return;
    // An nfsd that asks for its clients has just started: what it had before is gone.
    for (const held_grace_start& g : grace_starts_)
        if (auto v = state_.servers.find(g.server);
            v != state_.servers.end() && v->second.host == params_.self && !v->second.need)
            instances_[g.server].dropped = true;
    for (auto& [name, i] : instances_) {
        auto v = state_.servers.find(name);
        const bool ours = v != state_.servers.end() && v->second.host == params_.self;
        // Bad scenario: this node had no state when its nfsd waited, so that was told that nobody
        // may reclaim, of no START. What its clients have done since is its own all the same: after
        // a restart of the daemon it would pass for one that has lost everything.
        if (i.running && !i.answered && !i.dropped && ours)
            i.answered = v->second.start;
        if (!i.dropped)
            continue;
        if (!ours || v->second.records.empty())
            i.dropped = false;
        else if (once(said::start, name, v->second.start.value))
            send(msg::start{name, msg::start_reason::dropped});
    }
}

// ---------------------------------------------------------------------------------------------
// The gate. Closing asks nobody; opening asks for everything.

void fsm::decide_gate() {
    if (!gate_.attached)
        return;
    const epoch at = std::max(state_.current, gate_.at);
    if (may_open()) {
        wake_at(permit_.until());
        if (gate_.open || now_ < gate_.retry_at) {
            if (!gate_.open)
                wake_at(gate_.retry_at);
            return;
        }
        if (gate_.at == at) {
            gate_.open = true;
            emit(effect::open_gate{at, gate_.accounted, ++gate_.order});
            return;
        }
    }
    if (!gate_.open && gate_.at == at && gate_.close_order != 0)
        return;
    gate_.open = false;
    gate_.at = at;
    gate_.close_order = ++gate_.order;
    emit(effect::close_gate{at, gate_.close_order});
    for (auto& [name, i] : instances_) { // the order withdraws reclaim everywhere
        if (i.reclaim == reclaim_state::off)
            continue;
        i.reclaim = reclaim_state::closing;
        i.order = gate_.close_order;
    }
}

void fsm::decide_enforcing() {
    if (!acting() || !in_grace(state_) || state_.lifting)
        return;
    if (state_.nodes[params_.self].enforcing == state_.current)
        return;
    if (params_.kernel_expected && !gate_.closed_at(state_.current))
        return;
    // Bad scenario: this node was cut off while it reclaimed, and merges within the same epoch: its
    // gate is closed for it already, but not yet the server that another node hosts by now.
    if (std::ranges::any_of(
            instances_, [](const auto& e) { return e.second.reclaim == reclaim_state::closing; }))
        return;
    // ◆ Every purge delivered before, and C itself, must be durable here.
    if (!view_is_stored() || durable_here_ < state_.epoch_at || durable_here_.value == 0)
        return;
    if (once(said::enforcing, state_.current.value, gate_.changes))
        send(msg::enforcing{state_.current});
}

// ---------------------------------------------------------------------------------------------
// Reclaim, per server of this node.

void fsm::decide_reclaim() {
    for (auto& [name, i] : instances_) {
        const bool may = may_reclaim(name, i);
        if (may && i.reclaim == reclaim_state::off && now_ >= gate_.retry_at) {
            i.reclaim = reclaim_state::opening;
            i.order = ++gate_.order;
            emit(effect::set_reclaim{name, gate_.at, true, i.order});
        } else if (!may &&
                   (i.reclaim == reclaim_state::on || i.reclaim == reclaim_state::opening)) {
            i.reclaim = reclaim_state::closing;
            i.order = ++gate_.order;
            emit(effect::set_reclaim{name, gate_.at, false, i.order});
        } else if (may && i.reclaim == reclaim_state::off) {
            wake_at(gate_.retry_at);
        }
    }
}

void fsm::decide_done() {
    if (!acting() || !in_grace(state_) || state_.lifting)
        return;
    for (auto& [name, i] : instances_) {
        auto it = state_.servers.find(name);
        if (it == state_.servers.end())
            continue;
        const server_state& v = it->second;
        if (!v.need || v.host != params_.self)
            continue;

        if (intact(v, i) && i.finished != v.start) {
            i.finished = v.start;
            i.how = msg::outcome::intact;
        }
        // An operator's lift. Bad scenarios: the nfsd never stopped (intact, above), its clients
        // hold their locks, and their records are purged because somebody was impatient; or it is
        // being stopped, and the grace that is to cover that ends before its locks are dropped.
        if (i.finished != v.start && i.lift_asked == v.start && !i.stopping) {
            i.finished = v.start;
            i.how = msg::outcome::lifted;
        }
        if (i.finished != v.start && i.reclaim == reclaim_state::on) {
            reclaim_count c = count_reclaimed(state_, v);
            // Bad scenario: nfsd ends twice in one grace, reclaim stays open, and the second nfsd's
            // clients get what the first had left of its time.
            if (i.opened_for != v.start) {
                i.opened_for = v.start;
                i.opened_at = now_;
                i.deadline = now_ + params_.grace_period;
                i.reclaimed = c.reclaimed;
            }
            if (c.reclaimed > i.reclaimed) { // extended while reclaims arrive, at most doubled
                i.reclaimed = c.reclaimed;
                i.deadline =
                    std::min(now_ + params_.grace_period, i.opened_at + 2 * params_.grace_period);
            }
            // Its nfsd admits no reclaim of an NFSv4 client any more, and may have said so before
            // this daemon was there, or had opened. An NFSv3 client never says that it has
            // reclaimed all.
            const instant deadline = i.deadline + extension_of(name, v.start);
            const bool over = i.kernel_done && standing_of(v, i.answered) == standing::reclaiming;
            const bool all = c.reclaimed == c.all && i.tells_completes;
            if (c.all == 0 || (!has_nlm(v) && (all || over))) {
                i.finished = v.start;
                i.how = c.reclaimed == c.all ? msg::outcome::reclaimed : msg::outcome::deadline;
            } else if (now_ >= deadline) {
                i.finished = v.start;
                i.how = msg::outcome::deadline;
            } else {
                wake_at(deadline);
            }
        }
        // Its kernel must have stopped to reclaim before anyone may conclude that it is over.
        if (i.finished == v.start && i.reclaim == reclaim_state::off &&
            once(said::done, name, v.start.value))
            send(msg::done{name, v.start, i.how});
    }
    // A server that this node should host and does not know: its namespace is gone.
    for (const auto& [name, v] : state_.servers)
        if (v.host == params_.self && !instances_.contains(name) &&
            once(said::released, name, v.start.value))
            send(msg::released{name});
}

// ---------------------------------------------------------------------------------------------
// Locks: down first, up from NL only, one request at a time.

std::optional<lock_mode> fsm::wanted_mode() const {
    if (store_failed_) // the others go on without this node: PR here would keep reclaim closed
        return lock_mode::nl;
    if (!acting())
        return {};
    if (!in_grace(state_))
        return lock_mode::pr;
    // ◆ A node on which no server NEEDs holds no CW: it would keep the last node out from EX.
    if (any_need(state_))
        return hosts_need(state_, params_.self) ? lock_mode::cw : lock_mode::nl;
    return purger(state_) == params_.self ? lock_mode::ex : lock_mode::nl;
}

void fsm::decide_locks() {
    if (!lock_.known)
        return;
    if (now_ < lock_.retry_at) {
        wake_at(lock_.retry_at);
        return;
    }
    if (!lock_.alive && !lock_.alive_wanted) {
        lock_.alive_wanted = true;
        emit(effect::convert{lock_resource::alive, params_.self, lock_mode::ex, false, {}});
    }
    // Proofs of fencing, on every node: whoever comes to host the server needs them at once.
    for (auto it = lock_.probing.begin(); it != lock_.probing.end(); ++it)
        if (live(it->first) && acting()) {
            emit(effect::cancel{lock_resource::alive, it->first});
            lock_.unprobing.insert(it->first);
            lock_.probing.erase(it);
            break; // the next step takes the next one
        }
    // Bad scenario for a second request before the first is answered: a node comes back unfenced,
    // the request is cancelled, the lockspace is frozen and answers nothing; the node dies again.
    // The one grant that then comes is taken for the answer to neither, PR stays, and the node,
    // fenced and booted, waits for its EX for ever.
    if (acting() && in_grace(state_) && any_need(state_)) {
        for (const auto& [id, n] : state_.nodes) {
            if (live(id) || fencing_proven(id) || lock_.probing.contains(id) || !n.down ||
                lock_.unprobing.contains(id) || params_.nodes_without_gfs2.contains(id))
                continue;
            lock_.probing[id] = n.deaths;
            emit(effect::convert{lock_resource::alive, id, lock_mode::pr, false, {}});
        }
    }

    const std::optional<lock_mode> want = wanted_mode();
    if (!want)
        return;
    if (lock_.wanted) {
        // ◆ A queued request that is no longer wanted blocks others' in the DLM's queue. NL blocks
        // nobody and is the way to every other mode. Bad scenario if it were cancelled: PR goes
        // down to NL on its way to CW, and each input that comes meanwhile cancels it and asks
        // anew.
        if (*lock_.wanted != *want && *lock_.wanted != lock_mode::nl && !lock_.cancelling) {
            lock_.cancelling = true;
            emit(effect::cancel{lock_resource::grace, {}});
        }
        return;
    }
    if (lock_.held == *want)
        return;
    lock_mode next_mode = *want;
    if (lock_.held != lock_mode::nl) {
        // The lock goes only after the kernel has closed what it stands for.
        if (lock_.held == lock_mode::pr && gate_.attached && !gate_.closed_at(gate_.at))
            return;
        if (lock_.held == lock_mode::cw && !reclaims_off())
            return;
        next_mode =
            lock_.held == lock_mode::ex && *want == lock_mode::pr ? lock_mode::pr : lock_mode::nl;
    }
    const bool from_ex = lock_.held == lock_mode::ex;
    lvb_bytes value{};
    if (from_ex)
        value = wire::encode_lock_value({state_.current, state_.recovery, state_.purged});
    lock_.wanted = next_mode;
    emit(effect::convert{lock_resource::grace, {}, next_mode, from_ex, value});
}

// ---------------------------------------------------------------------------------------------
// The last node out.

void fsm::decide_purge_and_lift() {
    if (!acting() || purger(state_) != params_.self)
        return;
    if (lock_.held != lock_mode::ex || lock_.wanted || !view_is_stored())
        return;
    if (!state_.lifting) {
        if (once(said::purge, state_.recovery.value, state_.starts.value))
            send(msg::purge{state_.recovery, state_.starts});
    } else if (durable_everywhere(state_, state_.purge_at) && synced_majority()) {
        // Said again after it was void because a joiner was synced meanwhile.
        if (once(said::lift, state_.starts.value, state_.wants_durable.value))
            send(msg::lift{state_.recovery, state_.starts});
    }
}

void fsm::decide_durable() {
    if (!acting() || !view_is_stored_as_quorate())
        return;
    const position said_already = state_.nodes[params_.self].durable;
    // ◆ A joiner says it too: a PURGE that it got by snapshot waits for its disk as well.
    const bool asked = said_already < state_.wants_durable || said_already.value == 0;
    if (asked && durable_here_ > said_already && durable_here_ >= state_.wants_durable &&
        once(said::durable, durable_here_.value))
        send(msg::durable{durable_here_});
}

// ---------------------------------------------------------------------------------------------
// The tripwire went: the gate opens again only after a barrier has come back, with every confchg
// that could have caused the stop before it, and dlm_controld's group has been compared with ours.

void fsm::decide_barrier() {
    if (!acting() || !gate_.attached || gate_.accounted == gate_.trips || barrier_ != 0)
        return;
    if (dlm_lost_.contains(params_.self) && now_ < gate_.retry_at) {
        wake_at(gate_.retry_at);
        return;
    }
    if (barrier_trips_ != gate_.trips) {
        barrier_trips_ = gate_.trips;
        ++barrier_round_;
    }
    barrier_ = (gate_.trips << 16) | (barrier_round_ & 0xffff);
    send(msg::barrier{barrier_});
}

void fsm::on(const input::dlm_members& d) {
    if (barrier_ == 0)
        return;
    barrier_ = 0;
    if (!acting()) // asked again when it is decided which ring this is
        return;
    bool found_any = false;
    for (const auto& [id, n] : state_.nodes) {
        if (!live(id) || params_.nodes_without_gfs2.contains(id))
            continue;
        if (!d.known || d.members.contains(id)) {
            dlm_lost_.erase(id);
            continue;
        }
        if (!dlm_lost_.insert(id).second)
            continue;
        for (const auto& [name, v] : state_.servers) {
            if (v.host != id)
                continue;
            tell(news_level::warning, "node " + name_of(id) +
                                          " has left the DLM but not the cluster: its locks are "
                                          "gone, grace starts for server " +
                                          name);
            send(msg::start{name, msg::start_reason::dropped});
            found_any = true;
        }
    }
    // The STARTs must have been delivered before the gate may open: another barrier behind them.
    if (found_any)
        ++barrier_round_;
    // Bad scenario: this node's own dlm_controld is gone. Its lockspaces have stopped for good; the
    // next change of the membership stops none, so the tripwire would not close an open gate.
    else if (dlm_lost_.contains(params_.self))
        gate_.retry_at = now_ + params_.retry;
    else
        gate_.accounted = barrier_trips_;
}

// ---------------------------------------------------------------------------------------------
// Records: durable on every synced member before the kernel hears of it.

void fsm::decide_records() {
    using where = pending_record::where;
    if (!acting() || !synced_majority())
        return;
    bool in_flight = false;
    for (const pending_record& p : records_)
        in_flight |= p.at == where::sent;
    if (!in_flight) { // one message for all that gathered meanwhile
        msg::records m;
        for (pending_record& p : records_) {
            if (p.at != where::queued || m.changes.size() == wire::max_changes)
                continue;
            p.at = where::sent;
            m.changes.push_back(p.change);
        }
        if (!m.changes.empty()) {
            m.batch = ++batch_;
            send(m);
        }
    }
    while (!records_.empty() && records_.front().at == where::applied &&
           durable_everywhere(state_, records_.front().applied_at)) {
        const pending_record& p = records_.front();
        auto it = state_.servers.find(p.change.server);
        const bool ours = it != state_.servers.end() && it->second.host == params_.self;
        emit(effect::answer_upcall{p.id, ours ? upcall_status::ok : upcall_status::failed});
        records_.pop_front();
    }
}

void fsm::on(const input::create& c) {
    const bool nfs4 = kind_of(c.client) == record_kind::nfs4;
    if (c.client.empty() || c.client.size() > max_record_key ||
        (nfs4 && client_in(c.client).size() > max_client_name) ||
        c.princhash.size() > max_princhash) {
        emit(effect::answer_upcall{c.id, upcall_status::failed});
        return;
    }
    records_.push_back({c.id, {false, c.server, c.client, c.princhash}, {}, {}});
}

// What an nfsd asked that is no more. Bad scenario: a client's reclaim waits while this node is out
// of the group, and the nfsd ends meanwhile. Said after the START that stands for its lost locks,
// the record passes for a reclaim out of that START's list: the client may not reclaim, and has
// nothing.
void fsm::forget_upcalls(const std::string& server) {
    std::erase_if(records_, [&](const pending_record& p) {
        if (p.change.server != server)
            return false;
        // Asked by others than that nfsd: they wait, and ask again.
        if (kind_of(p.change.client) != record_kind::nfs4)
            emit(effect::answer_upcall{p.id, upcall_status::failed});
        return true;
    });
}

void fsm::on(const input::remove& r) {
    records_.push_back({r.id, {true, r.server, r.client, {}}, {}, {}});
}

// v0: the kernel keeps no list and asks for each client.
void fsm::on(const input::check& c) {
    if (instance* i = instance_of(c.server))
        i->tells_completes = false;
    checks_.push_back({c.server, c.client, c.id, c.again});
}

// What is admitted is recorded. Whoever is on record waits until it is known whether it may
// reclaim: it holds no more than its own nfsd thread. Bad scenarios: the daemon was killed with
// this upcall unanswered, and its successor has no state yet; or another node has just died. A
// refusal costs the client all of its locks.
void fsm::decide_checks() {
    enum class verdict { wait, refuse, admit };
    const auto admitted_before = [&](const held_check& c, start_count at) {
        auto it = admitted_.find(c.server);
        return it != admitted_.end() && it->second.first == at &&
               it->second.second.contains(c.client);
    };
    const auto judge = [&](const held_check& c) {
        if (!acting())
            return verdict::wait;
        auto it = state_.servers.find(c.server);
        const instance* i = instance_of(c.server);
        if (!i || it == state_.servers.end() || it->second.host != params_.self || i->stopping)
            return verdict::refuse;
        if (i->dropped) // its START is on its way
            return verdict::wait;
        if (!it->second.need)
            return verdict::refuse;
        const auto rec = it->second.records.find(c.client);
        if (rec == it->second.records.end())
            return verdict::refuse;
        // Bad scenario: a client that was purged is refused, goes on as a new one (Create), is
        // expired, and reclaims. Later than R is also who was admitted, and asks on another thread,
        // or whom a daemon before this one admitted and could not tell.
        if (rec->second.at > state_.recovery && !c.again && !admitted_before(c, it->second.start))
            return verdict::refuse;
        return i->reclaim == reclaim_state::on ? verdict::admit : verdict::wait;
    };
    std::erase_if(checks_, [&](const held_check& c) {
        switch (judge(c)) {
        case verdict::wait:
            return false;
        case verdict::refuse:
            emit(effect::answer_upcall{c.id, upcall_status::refused});
            return true;
        case verdict::admit:
            break;
        }
        const server_state& v = state_.servers.at(c.server);
        auto& [at, clients] = admitted_[c.server];
        if (at != v.start)
            clients.clear();
        at = v.start;
        clients.insert(c.client);
        records_.push_back(
            {c.id, {false, c.server, c.client, v.records.at(c.client).princhash}, {}, {}});
        return true;
    });
}

void fsm::on(const input::grace_start& g) {
    // Bad scenario: nfsd was started again while this daemon was away and adopted the server as one
    // that runs. Whoever asks has just started and has nothing: were it taken for intact, its START
    // would be answered so, said anew, and so on.
    if (instance* i = instance_of(g.server)) {
        i->dropped |= i->running; // it ended, and came back before its pipe was missed
        i->running = i->kernel_done = false;
        i->answered = {};
    }
    forget_upcalls(g.server);
    grace_starts_.push_back({g.server, g.id, now_ + params_.grace_start_hold});
}

void fsm::on(const input::grace_done& g) {
    emit(effect::answer_upcall{g.id, upcall_status::ok});
    if (instance* i = instance_of(g.server))
        i->kernel_done = i->running;
}

// nfsd starts and asks who may reclaim. It holds nfsd_mutex of the whole machine until it is
// answered, so the wait is bounded; whoever is not in the answer cannot reclaim.
void fsm::decide_grace_starts() {
    std::erase_if(grace_starts_, [&](held_grace_start& g) {
        auto it = state_.servers.find(g.server);
        instance& i = instances_[g.server];
        std::vector<tracker_port::known_client> clients;
        const bool known = synced_ && it != state_.servers.end();
        const bool ours = known && it->second.host == params_.self;
        if (now_ < g.give_up) {
            // Bad scenario: this node is cut off, and what its side heard last was a purge; its
            // nfsd is told that nobody may reclaim, and the others, who go on, have the records.
            const bool ready = ours && acting() && !i.dropped && !being_released(g.server) &&
                               (it->second.need ? i.reclaim == reclaim_state::on
                                                : it->second.records.empty() && is_taken(g.server));
            // Bad scenario: this node forgets the START that its nfsd was told; then nobody knows
            // any more who of its clients may still reclaim.
            if (!ready)
                g.after = 0;
            else if (g.after == 0)
                g.after = commits_;
            if (g.after == 0 || committed_ < g.after) {
                // Somebody started nfsd by hand where it was never served; or it waits since before
                // the group was founded anew, and has no host any more.
                if (acting() && !ours && (!known || !it->second.need || !it->second.host) &&
                    once(said::start_take, g.server, known ? it->second.start.value : 0))
                    send(msg::start{g.server, msg::start_reason::takes});
                wake_at(g.give_up);
                return false;
            }
        } else {
            tell(news_level::error,
                 "server " + g.server +
                     ": its nfsd started before reclaim was open and waited too "
                     "long; no client may reclaim (start servers with graced-server)");
        }
        if (ours && it->second.need && i.reclaim == reclaim_state::on)
            for (const auto& [client, rec] : it->second.records)
                if (rec.at <= state_.recovery && kind_of(client) == record_kind::nfs4)
                    clients.push_back({std::string(client_in(client)), rec.princhash});
        i.answered = ours && acting() ? it->second.start : start_count{};
        i.running = true;
        i.stopping = false;
        tell(news_level::info, "server " + g.server + ": nfsd is up; " +
                                   std::to_string(clients.size()) + " clients may reclaim");
        emit(effect::answer_grace_start{g.id, std::move(clients)});
        return true;
    });
}

// ---------------------------------------------------------------------------------------------
// Permit and bounded waits.

void fsm::decide_permit() {
    if (!acting() || in_grace(state_))
        return;
    if (permit_.due(now_))
        send(permit_.beat(now_));
    wake_at(permit_.next());
    if (gate_.attached && permit_.until() > permit_sent_) {
        permit_sent_ = permit_.until();
        emit(effect::extend_permit{permit_sent_});
    }
}

void fsm::decide_timeouts() {
    // ◆ An orphan's time is that in which somebody could have served it. Bad scenario: the fencing
    // of its host takes longer, and the clients are purged in the moment in which it could have
    // started. Where a node is back in the ring before it was fenced, only the DLM knows, and
    // waits.
    const bool may_be_served = current_phase() == phase::reclaiming && !lock_.wanted;
    std::erase_if(orphan_since_, [&](const auto& e) {
        auto it = state_.servers.find(e.first);
        return !may_be_served || it == state_.servers.end() || !it->second.need || it->second.host;
    });
    if (!acting() || !in_grace(state_) || lowest_synced(state_) != params_.self)
        return;
    // ◆ A node that lives without a daemon and was part of this grace: while its server NEEDs,
    // nobody else may clear that, its kernel may still accept reclaims; and it may have died
    // between its DONE and giving up CW, which its keeper holds against the last node out. After
    // daemon_timeout it is fenced.
    // Counted from when it holds up this grace, not from its daemon's end: else a node without
    // graced for long would be fenced in the first moment of any grace.
    std::set<node_id> holding_up;
    const auto fence_when_due = [&](const std::string& server, node_id host) {
        if (!daemonless_since_.contains(host))
            return;
        holding_up.insert(host);
        const instant end =
            holds_up_since_.try_emplace(host, now_).first->second + params_.daemon_timeout;
        if (now_ < end)
            wake_at(end);
        else if (fence_asked_.insert(host).second)
            emit(effect::fence{host, "graced has been away from node " + name_of(host) +
                                         " for longer than daemon_timeout while its server " +
                                         server + " holds up the grace"});
    };
    for (const auto& [name, v] : state_.servers) {
        if (v.needed && v.host)
            fence_when_due(name, v.host);
        if (!v.need || v.host || !may_be_served)
            continue;
        const instant end =
            orphan_since_.try_emplace(name, now_).first->second + params_.orphan_timeout +
            extension_of(name, v.start);
        if (now_ < end)
            wake_at(end);
        else if (once(said::done, name, v.start.value))
            send(msg::done{name, v.start, msg::outcome::orphan});
    }
    std::erase_if(holds_up_since_, [&](const auto& e) { return !holding_up.contains(e.first); });
    std::erase_if(fence_asked_, [&](node_id n) { return !holding_up.contains(n); });
}

} // namespace grace
