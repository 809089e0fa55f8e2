// SPDX-License-Identifier: LGPL-2.1-or-later
// One node's protocol machine: input -> state machine -> ordered outputs.
//
//   machine.step(now, input);  for (auto& e : machine.take_output()) perform(e);
//
// It has no clock, file descriptor, thread, log or environment. Replicated state changes only by
// the delivered stream (apply.cc). What this node does about it is decided anew after every input
// by the decide_* functions, each of which is one rule of the protocol, looks at state only, and
// may be called any number of times.
#pragma once

#include "grace/apply.hh"
#include "grace/input.hh"
#include "grace/message.hh"
#include "grace/output.hh"
#include "grace/permit.hh"
#include "grace/state.hh"
#include "grace/wire.hh"

#include <deque>
#include <optional>
#include <set>
#include <tuple>

namespace grace {

struct parameters {
    node_id self;
    std::string name;
    incarnation life;                    // never used before, never 0
    std::uint64_t boot = 0;              // of the kernel; never 0
    duration grace_period = seconds(90); // from the opening of reclaim or a START; doubled at most
    duration orphan_timeout = seconds(600);  // a NEED without a host ends after this
    duration daemon_timeout = seconds(300);  // a node without daemon that blocks others is fenced
    duration grace_start_hold = seconds(20); // an unexpected GraceStart waits this long at most
    duration permit_ttl = milliseconds(2000);
    duration heartbeat_interval = milliseconds(400);
    duration retry = milliseconds(200);   // after a refusal of kernel or DLM
    bool kernel_expected = true;          // false: this node has no GFS2 and no gate
    std::set<node_id> nodes_without_gfs2; // never attach, and need not
};

// What this node knows and does that is not replicated.
struct gate_local {
    bool attached = false;
    std::uint64_t trips = 0;     // the kernel's count
    std::uint64_t accounted = 0; // the count that a barrier has accounted for
    bool open = false;           // an open order is out or acknowledged
    epoch at;                    // epoch of the last order
    std::uint64_t order = 0;     // number of the last order of either kind
    std::uint64_t close_order = 0, close_acked = 0;
    instant retry_at = 0;
    std::uint64_t changes = 0; // how often it was attached or lost
    // A kernel that was closed for a later epoch is closed for this one, too: a node whose state
    // was given up for that of a quorate majority may have been further on.
    bool closed_at(epoch e) const {
        return attached && !open && at >= e && close_acked == close_order && close_order != 0;
    }
};

enum class reclaim_state : std::uint8_t { off, opening, on, closing };

// An NFS server of this node.
struct instance {
    bool running = false; // its nfsd has state: started, and adopted or answered GraceStart
    bool stopping = false;
    start_count answered;        // the START whose records were given to its nfsd
    position taken_at;           // of its START here
    bool dropped = false;        // its nfsd ended without a stop: a START is owed for that
    bool kernel_done = false;    // its nfsd has ended its own grace
    bool tells_completes = true; // false: a record says that its client has begun to reclaim
    reclaim_state reclaim = reclaim_state::off;
    std::uint64_t order = 0;
    instant opened_at = 0, deadline = 0;
    start_count opened_for;                     // the START that opened_at and deadline are about
    start_count finished;                       // reclaim is over for this START …
    msg::outcome how = msg::outcome::reclaimed; // … for this reason
    std::size_t reclaimed = 0;                  // to notice progress
    start_count lift_asked;                     // an operator wants this START's NEED ended
};

struct lock_local {
    bool known = false;
    lock_mode held = lock_mode::nl;
    std::optional<lock_mode> wanted; // outstanding request
    bool cancelling = false;
    bool alive = false, alive_wanted = false;
    std::map<node_id, std::uint64_t> probing; // alive.<node> asked for, about which death
    std::set<node_id> unprobing; // alive.<node> no longer asked for: the answer to that is not here
    std::map<node_id, std::uint64_t> fenced; // proven, of which death
    instant retry_at = 0;
};

class fsm {
public:
    fsm(parameters, std::optional<stored_state> database);

    void step(instant now, const any_input&);
    bool has_output() const { return !out_.empty(); }
    output take_output();
    // When step() wants an input::tick at the latest.
    instant deadline() const { return deadline_; }

    // For status, tests and checkers.
    const parameters& params() const { return params_; }
    const state& replicated() const { return state_; }
    const gate_local& gate() const { return gate_; }
    const lock_local& locks() const { return lock_; }
    const std::map<std::string, instance>& instances() const { return instances_; }
    bool synced() const { return synced_; }
    bool quorate() const { return confirmed() && quorum_.quorate; }
    bool live(node_id n) const { return quorum_.votes.contains(n); }
    const input::quorum& quorum() const { return quorum_; }
    phase current_phase() const;
    instant phase_since() const { return phase_since_; }
    // When a server of this node is done at the latest; 0: reclaim is not open for it.
    instant deadline_of(const std::string& server) const;
    bool held() const { return held_; } // an operator keeps this node's gate closed
    // Live node n holds back everything that new locks or reclaims could collide with.
    bool enforces(node_id n) const;
    bool fencing_proven(node_id n) const;
    // A server of this node that is being stopped may let go of its locks: its START has been
    // delivered, and no gate opens before the lift that follows it.
    bool may_drop() const;
    // Why reclaim does not open, or the gate does not, in words; empty if nothing is in the way.
    std::vector<std::string> blocked_by() const;

private:
    friend struct archive; // recordings hold all that a machine knows
    struct pending_record {
        ticket id;
        msg::record_change change;
        enum class where : std::uint8_t { queued, sent, applied } at = where::queued;
        position applied_at;
    };
    enum class request_kind : std::uint8_t {
        serve,
        stop,
        released,
        start,
        lift,
        extend,
        hold,
        fence_news,
        bypass_on,
        bypass_off,
        wait
    };
    struct request {
        request_kind kind;
        std::string server;
        node_id node;
        phase until = phase::normal;
        std::uint64_t sent_in = 0; // view number + 1 of the message that was sent for it
        bool delivered = false;
        bool counted = false;   // … and was not void
        instant idle_since = 0; // this node could do nothing about it since then; 0: it can
        duration by = 0;        // extend
        // lift: which STARTs it ends; extend: which it has not extended yet; fence_news: those that
        // it said (0: not delivered yet)
        std::map<std::string, start_count> starts;
    };
    struct extension {
        start_count start;
        duration by = 0;
    };
    // On its way to a joiner, or (to none) to all; the state is of the position of that HELLO.
    struct outgoing_snapshot {
        node_id to;
        std::uint64_t hello;
        wire::snapshot_writer writer;
        std::uint32_t under_way = 0; // parts that were sent and did not come back yet
    };
    struct held_grace_start {
        std::string server;
        ticket id;
        instant give_up;
        std::uint64_t after = 0; // the commit that has to be durable before; 0: not ready yet
    };

    struct held_check {
        std::string server, client;
        ticket id;
        bool again;
    };

    // --- inputs ---
    void on(const input::deliver&);
    void on(const input::confchg&);
    void on(const input::ring&);
    void on(const input::quorum&);
    void on(const input::dlm_members&);
    void on(const input::locks_known&);
    void on(const input::lock_granted&);
    void on(const input::lock_refused&);
    void on(const input::lock_cancelled&);
    void on(const input::locks_lost&);
    void on(const input::durable&);
    void on(const input::store_failed&);
    void on(const input::store_opened&);
    void on(const input::kernel_attached&);
    void on(const input::kernel_acked&);
    void on(const input::kernel_refused&);
    void on(const input::kernel_tripped&);
    void on(const input::kernel_closed&);
    void on(const input::kernel_lost&);
    void on(const input::create&);
    void on(const input::remove&);
    void on(const input::check&);
    void on(const input::grace_start&);
    void on(const input::grace_done&);
    void on(const input::instance_known&);
    void on(const input::nfsd_ended&);
    void on(const input::instance_gone&);
    void on(const input::serve&);
    void on(const input::stop&);
    void on(const input::released&);
    void on(const input::start&);
    void on(const input::lift&);
    void on(const input::extend&);
    void on(const input::hold&);
    void on(const input::fence_news&);
    void on(const input::bypass&);
    void on(const input::wait&);
    void on(const input::forget&);
    void on(const input::tick&) {}

    // --- sync.cc: joining, founding, snapshots ---
    void deliver_unsynced(node_id sender, const envelope&);
    void deliver_synced(node_id sender, const envelope&);
    void adopt_snapshot(node_id sender, const envelope&);
    void send_snapshot(node_id to, const msg::hello&);
    void remember(const store_batch&);
    std::optional<wire::difference> difference_since(position, std::uint64_t history) const;
    bool take_difference(state&);
    void decide_snapshots();
    bool may_found() const;
    void lose_sync(const char* why);
    void after_sync();
    void decide_hello();
    void decide_founding();
    void on_new_view();
    void judge_loss();
    bool others_may_have_gone_on(const input::quorum&) const;
    void persist(store_batch);

    // --- fsm.cc: the rules ---
    void decide();
    void decide_membership();
    void decide_view();
    void decide_dropped();
    void decide_gate();
    void decide_reclaim();
    void decide_done();
    void decide_locks();
    void decide_enforcing();
    void decide_purge_and_lift();
    void decide_durable();
    void decide_barrier();
    void decide_checks();
    void decide_records();
    void forget_upcalls(const std::string& server);
    void decide_grace_starts();
    void decide_requests();
    bool settle(ticket, request&); // true: answered
    static msg::start_reason reason_of(request_kind);
    void ask(ticket, request_kind, std::string server, node_id = {}, phase = phase::normal);
    void decide_permit();
    void decide_timeouts();

    bool confirmed() const;
    bool acting() const { return synced_ && quorate(); }
    bool synced_majority() const;
    bool view_stored_by_majority() const;
    template <typename P>
    bool more_than_half(P has_it) const;
    bool everyone_enforces(node_id except = {}) const;
    bool all_fenced() const;
    bool death_untold() const;
    bool may_open() const;
    bool view_is_stored() const { return view_commit_ != 0 && committed_ >= view_commit_; }
    bool view_is_stored_as_quorate() const {
        return quorate_commit_ != 0 && committed_ >= quorate_commit_;
    }
    bool may_reclaim(const std::string& server, const instance&) const;
    bool being_released(const std::string& server) const;
    bool is_taken(const std::string& server) const;
    bool reclaims_off() const;
    bool intact(const server_state&, const instance&) const;
    duration extension_of(const std::string& server, start_count) const;
    std::optional<lock_mode> wanted_mode() const;
    instance* instance_of(const std::string&);

    // One message of a kind and argument for each view: what was lost with an old view is said
    // again in the new one, what is on its way is not said twice.
    void send(const any_message&);
    enum class said : std::uint8_t {
        founding,
        attached,
        detached,
        node_down,
        enforcing,
        purge,
        lift,
        durable,
        view_stored,
        barrier,
        lift_request,
        done,
        released,
        start,
        start_take
    };
    bool once(said kind, std::uint64_t a, std::uint64_t b = 0) {
        return said_.insert({kind, {}, a, b}).second;
    }
    bool once(said kind, const std::string& name, std::uint64_t a) {
        return said_.insert({kind, name, a, 0}).second;
    }
    void wake_at(instant t) { deadline_ = deadline_ == 0 ? t : std::min(deadline_, t); }
    template <typename E>
    void emit(E e) {
        out_.push_back(any_effect{std::move(e)});
    }
    void tell(news_level l, std::string text) { emit(effect::tell{l, std::move(text)}); }
    void answer(ticket, request_status, std::string detail = {});
    std::string name_of(node_id) const;

    parameters params_;
    state state_;
    bool synced_ = false;
    std::uint64_t synced_in_ = 0; // the ring in which it got the state
    bool has_database_ = false;
    std::uint64_t stored_view_ = 0, stored_quorate_view_ = 0; // store_op.hh

    // group
    bool in_group_ = false;
    std::vector<node_id> members_;
    input::ring ring_{};
    // What it had, and has not written, since a node left and while quorum has not said which side
    // this one is on: a minority's suffix is nobody's state, and not on its disk either.
    std::optional<state> decided_;
    store_batch undecided_;
    bool loss_unjudged_ = false; // a node left; quorum has not spoken of the ring that follows
    bool ring_pending_ = true;   // a node left; the ring that follows has not been named yet
    input::quorum quorum_{};
    std::uint64_t hello_number_;
    bool hello_sent_ = false;
    instant heard_at_ = 0; // when it said HELLO, or heard a part of the answer
    std::map<node_id, std::pair<incarnation, msg::hello>> hellos_; // while nobody is synced
    bool buffering_ = false;
    std::deque<std::pair<node_id, envelope>> buffer_;
    std::size_t buffered_bytes_ = 0;
    // What was applied lately, for joiners that were away for a short time only. `history` is the
    // state's behind `ops`; the first one has lost what came before it.
    struct past {
        position applied;
        std::uint64_t history;
        store_batch ops;
    };
    std::deque<past> pasts_;
    std::size_t pasts_weight_ = 0;
    bool wants_all_ = false; // its disk may not hold what it has: no difference would do
    wire::snapshot_reader incoming_;
    std::uint32_t incoming_parts_ = 0;
    node_id incoming_from_;
    std::deque<outgoing_snapshot> outgoing_;
    std::set<std::tuple<said, std::string, std::uint64_t, std::uint64_t>> said_;

    // disk
    std::uint64_t commits_ = 0;
    std::deque<std::pair<std::uint64_t, position>> committing_; // commit number, position
    position durable_here_;
    // The commits that stored the number of this view, and that it is quorate; 0: none yet.
    std::uint64_t view_commit_ = 0, quorate_commit_ = 0;
    std::uint64_t committed_ = 0;
    bool store_failed_ = false;

    gate_local gate_;
    lock_local lock_;
    std::map<std::string, instance> instances_;
    bool held_ = false; // by an operator, until he says otherwise or this daemon ends
    std::map<std::string, extension> extensions_; // what operators added to a START's time
    permit permit_;
    instant permit_sent_ = 0;
    std::set<node_id> dlm_lost_; // in our group, not in dlm_controld's; STARTed in this view
    // Left the ring, and may be in it again before NODEDOWN is told. No group's news tells it of a
    // node without daemon.
    struct departure {
        std::uint64_t deaths; // before
        start_count starts;   // by then: what it has taken later it has not lost by this
        bool joined;          // its daemon has, since; then no NODEDOWN
    };
    std::map<node_id, departure> returned_;
    // The same of who left the quorate ring while this node had no state, to be asked of the state
    // that it gets; none whose daemon has joined since.
    std::set<node_id> gone_;
    // In which ring each one's HELLO was delivered, and how many STARTs came before.
    std::map<node_id, std::pair<std::uint64_t, start_count>> joined_;
    std::uint64_t barrier_ = 0; // number of the barrier that is out
    std::uint64_t barrier_trips_ = 0, barrier_round_ = 0;
    std::map<node_id, instant> daemonless_since_, holds_up_since_;
    std::map<std::string, instant> orphan_since_;
    std::set<node_id> fence_asked_;
    std::deque<pending_record> records_;
    std::uint64_t batch_ = 0;
    std::deque<held_grace_start> grace_starts_;
    std::deque<held_check> checks_;
    // By server: who was let in by a Check, and at which START. The same client's next one passes.
    std::map<std::string, std::pair<start_count, std::set<std::string>>> admitted_;
    std::map<ticket, request> requests_;

    phase phase_ = phase::normal;
    instant phase_since_ = 0;
    instant now_ = 0;
    instant deadline_ = 0;
    output out_;
};

// Throws std::logic_error that names the broken invariant (design: S1..S9 as one node can see
// them).
void check_invariants(const fsm&);

} // namespace grace
