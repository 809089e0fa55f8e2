// SPDX-License-Identifier: LGPL-2.1-or-later
// Everything that can happen to one node. The adapters translate callbacks into these.
#pragma once

#include "grace/ports.hh"
#include "grace/store_op.hh"
#include "grace/types.hh"

#include <optional>
#include <variant>

namespace grace::input {

// --- the group (corosync cpg) ---
struct deliver {
    node_id sender;
    bytes message;
};
enum class left_reason : std::uint8_t { process, node }; // CPG_REASON_PROCDOWN/LEAVE, _NODEDOWN
struct departed {
    node_id node;
    left_reason reason;
};
struct confchg {
    std::vector<node_id> members, joined;
    std::vector<departed> left;
};
// cpg_totem_confchg_fn: the ring that the group's messages now come from.
struct ring {
    std::uint64_t seq;
};
// quorum service: a membership; `votes` of each of its nodes, and what is expected in all. `left`:
// who was in an earlier ring and did not come along into this one; a node that rebooted before it
// was missed is in `votes` all the same (quorum_v1_nodelist_notification_fn_t, corosync 3.1).
struct quorum {
    bool quorate;
    std::uint64_t ring_seq;
    std::map<node_id, std::uint32_t> votes;
    std::uint32_t expected;
    std::set<node_id> left = {};
};
// Members of dlm_controld's group; `known` is false where there is none (embedded lock table).
struct dlm_members {
    bool known;
    std::set<node_id> members;
};

// --- locks (DLM through the keeper) ---
// What is held when the keeper was reached: the first news after start or after locks_lost. A
// former daemon's request may be outstanding; its answer comes as if it were this one's.
struct locks_known {
    lock_mode grace;
    bool alive;
    std::optional<lock_mode> requested = {}; // on grace
    bool alive_requested = false;            // EX on the own alive
};
// `value` only for resource grace and only if the DLM says it is valid (not VALNOTVALID).
struct lock_granted {
    lock_resource resource;
    node_id node;
    lock_mode mode;
    bool value_valid;
    lvb_bytes value;
};
// A request failed (EDEADLK, EAGAIN, …): the mode is what it was before.
struct lock_refused {
    lock_resource resource;
    node_id node;
    int code;
};
struct lock_cancelled {
    lock_resource resource;
    node_id node;
};
struct locks_lost {}; // the keeper is gone; its locks are, or will be

// --- store ---
struct durable {
    position at;
};
struct store_failed { // nothing that was queued becomes durable
    std::string why;
};
// It is well again, with what it held when it failed; `note` for people, empty if there is none.
struct store_opened {
    std::string note;
};

// --- kernel ---
struct kernel_attached {
    std::uint64_t instance;
    epoch at;
    std::uint64_t trips;
};
struct kernel_acked {
    std::uint64_t order;
};
struct kernel_refused {
    std::uint64_t order;
    int code;
    std::string why;
};
struct kernel_tripped {
    std::uint64_t trips;
};
struct kernel_closed {}; // it closed the gate by itself (the permit ran out)
struct kernel_lost {
    std::string why;
};

// --- nfsd's tracker; one upcall is one ticket ---
struct create {
    std::string server, client, princhash;
    ticket id;
};
struct remove {
    std::string server, client;
    ticket id;
};
struct check { // v0 only
    std::string server, client;
    ticket id;
    bool again = false; // a daemon before this one had it, and may have admitted the client
};
struct grace_start {
    std::string server;
    ticket id;
};
struct grace_done {
    std::string server;
    ticket id;
};

// --- an NFS server of this node, as graced-server reports it ---
// Its namespace exists: it may be adopted (running) or is about to start.
struct instance_known {
    std::string server;
    bool running;
    bool stopping;        // a stop had been asked for when this daemon's predecessor ended
    bool tells_completes; // upcalls v1, v2: Create says that a client has reclaimed all it wants
    start_count answered;
};
// Its nfsd ended: if no stop came before, by itself or by hand, and its clients' locks are gone.
struct nfsd_ended {
    std::string server;
};
struct instance_gone {
    std::string server;
};

// --- requests of people and agents ---
struct serve {
    std::string server;
    ticket id;
}; // host it here; answered when reclaim is open
struct stop {
    std::string server;
    ticket id;
}; // START; answered when all live members enforce
struct released {
    std::string server;
    ticket id;
}; // its kernel closed it: another may host it
struct start {
    std::string server;
    ticket id;
}; // START by hand; empty name: every server with records
struct lift {
    std::string server;
    ticket id;
}; // end its NEED; empty name: all
struct extend {
    std::string server;
    duration by; // 1 ns to msg::max_extension
    ticket id;
}; // its clients may reclaim for longer; empty name: of all that NEED
struct hold {
    bool on;
    ticket id;
}; // this node's gate stays closed, in normal too, or no longer; answered when it is closed
struct fence_news {
    node_id node;
    ticket id;
}; // answered when all others enforce
struct bypass {
    node_id node;
    bool on;
    ticket id;
}; // open the gate of a node (none: of all) past everything, or no longer; answered when agreed
struct wait {
    phase until;
    ticket id;
}; // answered when the phase is reached
struct forget {
    ticket id;
}; // the asker went away

struct tick {}; // the deadline that was asked for has come

} // namespace grace::input

namespace grace {

using any_input =
    std::variant<input::deliver, input::confchg, input::ring, input::quorum, input::dlm_members,
                 input::locks_known, input::lock_granted, input::lock_refused,
                 input::lock_cancelled, input::locks_lost, input::durable, input::store_failed, input::store_opened,
                 input::kernel_attached, input::kernel_acked, input::kernel_refused,
                 input::kernel_tripped, input::kernel_closed, input::kernel_lost, input::create,
                 input::remove, input::check, input::grace_start, input::grace_done,
                 input::instance_known, input::nfsd_ended, input::instance_gone, input::serve,
                 input::stop, input::released, input::start, input::lift, input::fence_news,
                 input::bypass, input::wait, input::forget, input::tick, input::extend,
                 input::hold>;

} // namespace grace
