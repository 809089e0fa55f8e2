// SPDX-License-Identifier: LGPL-2.1-or-later
// How a node gets the state: by snapshot from a synced member, or by founding when nobody has one.
//
// A member without state says HELLO at every confchg. Where a synced member hears it, the lowest
// one takes a snapshot at exactly that position and sends it; the joiner keeps what is delivered
// after its HELLO and applies it on top. Where every member of a quorate group says HELLO (cold
// start, or the pieces of a split that nobody can order), the one with the best database founds the
// state anew: best is the latest quorate view, then C, then the applied position. Never a
// minority's suffix: a view is stored as quorate when more than half have its number on disk
// (decide_view).
#include "grace/fsm.hh"
#include "grace/wire.hh"

#include <algorithm>
#include <iterator>

namespace grace {
namespace {
constexpr std::size_t max_buffered = 64u << 20;
// Parts of one snapshot between this node and its own hearing of them. Corosync's queue is shared
// by all that the node says. Bad scenario: 80 MB of snapshot stand in it, the next heartbeat behind
// them, and every gate of this node closes.
constexpr std::uint32_t parts_under_way = 2;
// Memory for what joiners may have missed. A change of a record takes about 200 bytes.
constexpr std::size_t max_past = 8u << 20;
constexpr duration hello_patience = seconds(5); // without any part of a snapshot
} // namespace

void fsm::send(const any_message& m) {
    emit(effect::send{wire::encode({synced_ ? state_.view : view_id{}, params_.life, m})});
}

std::size_t weight_of(const store_operation& op) {
    std::size_t w = sizeof op;
    if (const auto* o = std::get_if<store_op::put_record>(&op))
        w += o->client.size() + o->rec.princhash.size();
    else if (const auto* r = std::get_if<store_op::remove_record>(&op))
        w += r->client.size();
    return w;
}

// What a joiner that stands where this state stood before would have to do.
void fsm::remember(const store_batch& batch) {
    pasts_.push_back({state_.applied, state_.history, batch});
    const auto weigh = [](const past& p) {
        std::size_t w = sizeof p;
        for (const store_operation& op : p.ops)
            w += weight_of(op);
        return w;
    };
    pasts_weight_ += weigh(pasts_.back());
    for (; pasts_weight_ > max_past; pasts_.pop_front())
        pasts_weight_ -= weigh(pasts_.front());
}

std::optional<wire::difference> fsm::difference_since(position applied,
                                                      std::uint64_t history) const {
    auto p = std::ranges::lower_bound(pasts_, applied, {}, &past::applied);
    if (history == 0 || p == pasts_.end() || p->applied != applied || p->history != history)
        return {};
    wire::difference d{applied, history, {}};
    for (++p; p != pasts_.end(); ++p)
        d.ops.insert(d.ops.end(), p->ops.begin(), p->ops.end());
    return d;
}

// On the records that this node has. False: they are not those that it is the difference to.
bool fsm::take_difference(state& to) {
    if (wants_all_ || incoming_.since.applied != state_.applied ||
        incoming_.since.history != state_.history)
        return false;
    for (auto& [name, v] : to.servers)
        if (auto mine = state_.servers.find(name); mine != state_.servers.end()) {
            v.records = mine->second.records;
            v.mounts = mine->second.mounts;
        }
    std::uint64_t records = 0;
    for (const store_operation& op : incoming_.since.ops)
        redo(to, op);
    for (const auto& [name, v] : to.servers)
        records += v.records.size() + v.mounts.size();
    return records == incoming_.records;
}

void fsm::persist(store_batch batch) {
    if (decided_) {
        std::ranges::move(batch, std::back_inserter(undecided_));
        return;
    }
    batch.push_back(store_op::put_meta{to_meta(state_, stored_view_, stored_quorate_view_)});
    committing_.emplace_back(++commits_, state_.applied);
    emit(effect::persist{std::move(batch), position{commits_}});
}

void fsm::lose_sync(const char* why) {
    if (!synced_)
        return;
    tell(news_level::warning, std::string("this node gives up its state and joins anew: ") + why +
                                  "; its gate is closed");
    synced_ = false;
    pasts_.clear();
    pasts_weight_ = 0;
    if (decided_) {
        state_ = std::move(*decided_);
        decided_.reset();
        undecided_.clear();
    }
    hello_sent_ = false;
    hellos_.clear();
    buffering_ = false;
    for (const auto& [id, d] : std::exchange(returned_, {}))
        if (!d.joined)
            gone_.insert(id);
    joined_.clear();
    orphan_since_.clear(); // nobody can be served, nor return, before there is a group again
    holds_up_since_.clear();
    on_new_view();
    // What was applied may not be in the state that comes next: say it again (idempotent).
    for (pending_record& p : records_)
        p.at = pending_record::where::queued;
}

// Nothing that was said in an older view counts in this one.
void fsm::on_new_view() {
    said_.clear();
    permit_.reset();
    view_commit_ = quorate_commit_ = 0;
    barrier_ = 0;
    dlm_lost_.clear(); // ◆ the STARTs for those were void, if they were on their way
    outgoing_.clear();
    for (pending_record& p : records_)
        if (p.at == pending_record::where::sent)
            p.at = pending_record::where::queued;
    for (auto& [id, r] : requests_)
        if (!r.delivered)
            r.sent_in = 0;
}

void fsm::on(const input::confchg& change) {
    members_ = change.members;
    in_group_ = std::ranges::find(members_, params_.self) != members_.end();
    for (node_id id : change.joined)
        gone_.erase(id); // HELLO says whether it has booted
    if (!in_group_)
        gone_.clear();
    for (const input::departed& d : change.left)
        if (d.reason == input::left_reason::node)
            ring_pending_ = loss_unjudged_ = true;

    // Bad scenario: this node was cut off alone, or stopped, and comes back in the same breath; it
    // must not pass for a member that never left. While quorum has not said of the ring after a
    // loss which side it was, both give up their state, and the best database decides.
    if (synced_ && loss_unjudged_ && !change.joined.empty())
        lose_sync("nodes left and came back before the quorum of the rest was known");

    if (synced_) {
        // Bad scenario: two nodes are cut from each other. Node 2 buries node 1, whose server has
        // lost nothing, then hears that it is not quorate. Its database would be the later one when
        // the group is founded anew, and node 1's clients would lose their locks by it.
        if (ring_pending_ && !decided_)
            decided_ = state_;
        applied a = apply(state_, change);
        remember(a.ops);
        on_new_view();
        persist(std::move(a.ops));
        return;
    }
    hello_sent_ = false;
    hellos_.clear();
    buffering_ = false;
    buffer_.clear();
    incoming_ = {};
    outgoing_.clear();
    said_.clear();
}

void fsm::on(const input::ring& r) {
    ring_ = r;
    ring_pending_ = false;
    judge_loss();
}

void fsm::on(const input::quorum& q) {
    // What came before its snapshot is in there.
    const bool others = others_may_have_gone_on(q);
    if (synced_ && q.ring_seq > synced_in_) {
        // Not only when the group's news are as far: by then the next ring may be quorate.
        if (!q.quorate)
            lose_sync("quorum is lost");
        else if (others)
            lose_sync("nodes left and came back, and may have gone on without it");
    }
    quorum_ = q;
    // Bad scenario: the host of a server, without a daemon, dies as another node boots. Node 4 of
    // four gives up its state in the new ring, and gets it back from node 1, which has not heard
    // yet who left. The dead node boots; nobody has told its death, and node 4 opens its gate.
    if (!q.quorate || others)
        gone_.clear(); // long past, for all that it knows
    if (!synced_ && q.quorate && in_group_)
        for (node_id id : q.left)
            if (!q.votes.contains(id))
                gone_.insert(id);
    // Bad scenario: a node that was cut off hears late, with the state of the others by then, that
    // they had left its ring. What came before its snapshot is in there.
    if (synced_ && q.ring_seq > synced_in_)
        for (node_id id : q.left) {
            auto n = state_.nodes.find(id);
            if (n == state_.nodes.end() || n->second.down)
                continue;
            // Bad scenario: quorum's news are late. The node has joined again since it left, and
            // taken a server over; a START for that would have its records purged, of clients that
            // have lost nothing. But what it hosted when it joined the DLM had dropped.
            auto j = joined_.find(id);
            const bool joined = j != joined_.end() && j->second.first >= q.ring_seq;
            returned_[id] = {n->second.deaths, joined ? j->second.second : state_.starts, joined};
            if (!joined && q.votes.contains(id))
                tell(news_level::warning,
                     "node " + name_of(id) + " was out of the ring for a moment");
        }
    judge_loss();
}

// Bad scenario: node 2 of three is paused; nodes 1 and 3 go on and acknowledge a removal. Node 1
// reboots, node 3 stops, node 2 wakes up in a ring with node 1. That is quorate, and no daemon is
// there that would join the group: to node 2 it looks as if both had just died, and its old state
// would become the latest.
bool fsm::others_may_have_gone_on(const input::quorum& q) const {
    std::uint64_t with_us_all_along = 0;
    bool new_ones = false;
    for (const auto& [id, votes] : q.votes)
        if (quorum_.votes.contains(id) && !q.left.contains(id))
            with_us_all_along += votes;
        else
            new_ones = true;
    return new_ones && !q.left.empty() && with_us_all_along * 2 <= q.expected;
}

// Ring and quorum come on descriptors of their own, in any order.
void fsm::judge_loss() {
    if (confirmed())
        loss_unjudged_ = false;
}

void fsm::on(const input::deliver& d) {
    std::optional<envelope> env = wire::decode(d.message);
    if (!env) {
        tell(news_level::error, "node " + name_of(d.sender) +
                                    " sent a message that is not of this version of graced: "
                                    "run the same version on all nodes; the message was ignored");
        return;
    }
    if (const auto* part = std::get_if<msg::snapshot>(&env->body);
        part && d.sender == params_.self && env->life == params_.life)
        for (outgoing_snapshot& o : outgoing_)
            if (o.to == part->to && o.hello == part->hello && o.under_way > 0)
                --o.under_way;
    if (synced_)
        deliver_synced(d.sender, *env);
    else
        deliver_unsynced(d.sender, *env);
}

void fsm::deliver_unsynced(node_id sender, const envelope& env) {
    if (store_failed_) // on its way out of the group; it could keep nothing
        return;
    if (const auto* hello = std::get_if<msg::hello>(&env.body)) {
        hellos_[sender] = {env.life, *hello};
        if (sender == params_.self && env.life == params_.life) {
            buffering_ = true;
            buffer_.clear();
            buffered_bytes_ = 0;
            incoming_ = {};
            incoming_parts_ = 0;
            return;
        }
    }
    if (const auto* part = std::get_if<msg::snapshot>(&env.body)) {
        if (!part->to || part->to == params_.self) {
            adopt_snapshot(sender, env);
            return;
        }
    }
    if (!buffering_)
        return;
    envelope kept = env;
    if (auto* part = std::get_if<msg::snapshot>(&kept.body))
        part->data.clear();
    buffered_bytes_ += sizeof(envelope);
    if (const auto* r = std::get_if<msg::records>(&kept.body))
        for (const auto& c : r->changes)
            buffered_bytes_ += sizeof c + c.client.size();
    buffer_.emplace_back(sender, std::move(kept));
    if (buffered_bytes_ > max_buffered) { // a bound on everything: begin again
        tell(news_level::warning, "more news came than can be kept while waiting for a snapshot; "
                                  "asking for another one");
        buffering_ = false;
        buffer_.clear();
        hello_sent_ = false;
    }
}

void fsm::adopt_snapshot(node_id sender, const envelope& env) {
    const auto& part = std::get<msg::snapshot>(env.body);
    auto said_by = [&](node_id n) -> const msg::hello* {
        auto it = hellos_.find(n);
        return it == hellos_.end() ? nullptr : &it->second.second;
    };
    if (part.to) {
        const msg::hello* mine = said_by(params_.self);
        if (!buffering_ || !mine || mine->number != part.hello)
            return;
    } else { // every member of this view must have said that it has no state
        const msg::hello* founders = said_by(sender);
        if (!founders || founders->number != part.hello)
            return;
        for (node_id m : members_)
            if (!hellos_.contains(m))
                return;
    }
    if (part.part == 0) {
        incoming_ = {};
        incoming_parts_ = 0;
        incoming_from_ = sender;
    }
    if (part.part != incoming_parts_ || sender != incoming_from_)
        return;
    heard_at_ = now_;
    std::optional<state> decoded;
    if (wire::take_part(incoming_, part.data)) {
        if (++incoming_parts_ < part.parts)
            return;
        decoded = wire::finish(incoming_);
    }
    if (decoded && incoming_.is_difference && (!part.to || !take_difference(*decoded))) {
        tell(news_level::warning, "the difference from node " + name_of(sender) +
                                      " is not to what this node has; asking for the whole state");
        incoming_ = {};
        incoming_parts_ = 0;
        wants_all_ = true;
        hello_sent_ = false;
        return;
    }
    const bool is_difference = incoming_.is_difference;
    store_batch ops = std::move(incoming_.since.ops);
    incoming_ = {};
    incoming_parts_ = 0;
    if (!decoded) {
        tell(news_level::error,
             "the snapshot from node " + name_of(sender) + " is damaged; asking for another one");
        hello_sent_ = false;
        return;
    }
    if (part.to && !quorate()) // its sender may be on the minority's side, too
        decided_ = std::move(state_);
    state_ = std::move(*decoded);
    synced_ = true;
    synced_in_ = ring_.seq;
    has_database_ = true;
    wants_all_ = false;
    durable_here_ = {};
    committing_.clear();
    if (!part.to) {
        gone_.clear(); // who is not there has no host's part in what is founded, or is told anew
        founding f{sender, hellos_};
        applied a = found(state_, f);
        remember({}); // nobody has the same past yet
        on_new_view();
        persist(std::move(a.ops));
        tell(news_level::info, "the group is founded anew from the database of node " +
                                   name_of(sender) + " at C " +
                                   std::to_string(state_.current.value));
    } else {
        std::string how = " by " + std::to_string(ops.size()) + " changes";
        if (!is_difference) {
            store_op::replace_all all;
            for (const auto& [name, v] : state_.servers) {
                all.records[name] = v.records;
                all.mounts[name] = v.mounts;
            }
            ops = {std::move(all)};
            how = "";
        }
        on_new_view();
        remember({});
        persist(std::move(ops));
        std::deque<std::pair<node_id, envelope>> kept;
        kept.swap(buffer_);
        for (const auto& [from, e] : kept)
            deliver_synced(from, e);
        if (synced_)
            deliver_synced(sender, {env.view, env.life,
                                    msg::snapshot{part.to, part.hello, part.part, part.parts, {}}});
        // Bad scenario: its sender had said HELLO itself meanwhile; on every member this snapshot
        // is void, and nobody counts this node.
        if (synced_ && !is_synced(state_, params_.self)) {
            auto heard = std::move(hellos_); // in this view: they still count
            lose_sync("the sender of the snapshot had given up its state before it came");
            hellos_ = std::move(heard);
            return;
        }
        for (node_id id : std::exchange(gone_, {}))
            if (auto n = state_.nodes.find(id);
                n != state_.nodes.end() && !n->second.member && !n->second.down)
                returned_[id] = {n->second.deaths, state_.starts, false};
        tell(news_level::info, "joined: state taken from node " + name_of(sender) + how +
                                   ", at C " + std::to_string(state_.current.value));
    }
    for (auto& [name, i] : instances_)
        i.taken_at = state_.wants_durable;
    buffer_.clear();
    buffering_ = false;
    hellos_.clear();
}

// Taken here and now; it goes out as its parts come back (decide_snapshots).
void fsm::send_snapshot(node_id to, const msg::hello& h) {
    std::erase_if(outgoing_, [&](const outgoing_snapshot& o) { return o.to == to; });
    std::optional<wire::difference> since;
    if (to)
        since = difference_since(h.applied, h.history);
    outgoing_.push_back(
        {to, h.number,
         since ? wire::write_difference(state_, std::move(*since)) : wire::write_snapshot(state_),
         0});
}

void fsm::decide_snapshots() {
    for (outgoing_snapshot& o : outgoing_)
        while (o.under_way < parts_under_way && o.writer.next < o.writer.parts) {
            ++o.under_way;
            const std::uint32_t part = o.writer.next;
            send(msg::snapshot{o.to, o.hello, part, o.writer.parts, wire::next_part(o.writer)});
        }
    std::erase_if(outgoing_,
                  [](const outgoing_snapshot& o) { return o.writer.next == o.writer.parts; });
}

void fsm::decide_hello() {
    if (synced_ || !in_group_ || store_failed_)
        return;
    // Bad scenario: the member whose turn it was to answer had given up its state, and nobody knew
    // before its own HELLO came. Whoever has not said HELLO in this view has the state: ask again.
    // Another one: a founder gives up what it has founded, for its own HELLO came behind, and waits
    // for the one of a node that has not understood the founding, and waits for the next.
    if (hello_sent_ && ((quorate() && may_found()) || std::ranges::any_of(members_, [&](node_id m) {
                            return !hellos_.contains(m);
                        }))) {
        const instant again = heard_at_ + hello_patience;
        if (now_ < again)
            wake_at(again);
        else
            hello_sent_ = false;
    }
    if (hello_sent_)
        return;
    hello_sent_ = true;
    heard_at_ = now_;
    msg::hello h;
    h.number = ++hello_number_;
    h.name = params_.name;
    h.boot = params_.boot;
    h.attached = gate_.attached || !params_.kernel_expected;
    h.permit_ttl = params_.permit_ttl;
    h.has_database = has_database_;
    h.view = stored_view_;
    h.quorate_view = stored_quorate_view_;
    h.current = state_.current;
    h.applied = state_.applied;
    h.starts = state_.starts;
    h.history = wants_all_ ? 0 : state_.history;
    for (const auto& [name, i] : instances_)
        if (i.running) // also while it is being stopped: until RELEASED it is here
            h.running[name] = i.answered;
    send(h);
}

// Every member has said HELLO, and together they have what any quorate majority had.
//
// Bad scenario: nodes 1 and 2 crash; node 1 is back, quorate with a node 3 on which graced has not
// started; node 1 was in the minority before the crash, and nodes 2 and 3 have the records. Another
// one: node 1's database was damaged and set aside, or its disk was replaced, and it is back before
// node 2. So only a node that has a database counts; one without adds nothing to a majority. A
// group whose nodes have none founds itself when all of them are there.
bool fsm::may_found() const {
    std::uint64_t votes = 0, with_database = 0;
    for (node_id m : members_) {
        auto it = hellos_.find(m);
        if (it == hellos_.end())
            return false; // somebody has not spoken, or is synced and will send
        auto v = quorum_.votes.find(m);
        if (v == quorum_.votes.end())
            continue;
        votes += v->second;
        if (it->second.second.has_database)
            with_database += v->second;
    }
    // A node without GFS2 has no records that nobody else has, whether graced runs there or not.
    for (const auto& [id, v] : quorum_.votes)
        if (params_.nodes_without_gfs2.contains(id) && !hellos_.contains(id))
            votes += v;
    const bool all_live = std::ranges::all_of(quorum_.votes, [&](const auto& v) {
        auto it = hellos_.find(v.first);
        return it != hellos_.end() && it->second.second.has_database;
    });
    return with_database * 2 > quorum_.expected || all_live || votes >= quorum_.expected;
}

void fsm::decide_founding() {
    if (synced_ || !in_group_ || !quorate() || !may_found())
        return;
    std::uint64_t round = 0;
    for (node_id m : members_)
        round += hellos_.at(m).second.number;

    auto rank = [&](node_id n) {
        const msg::hello& h = hellos_.at(n).second;
        // the lowest node among equals
        return std::tuple(h.quorate_view, h.current, h.applied, ~n.value);
    };
    node_id best = *std::ranges::max_element(
        members_, [&](node_id a, node_id b) { return rank(a) < rank(b); });
    if (best != params_.self || !once(said::founding, round))
        return;
    send_snapshot({}, hellos_.at(params_.self).second);
}

} // namespace grace
