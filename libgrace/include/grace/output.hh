// SPDX-License-Identifier: LGPL-2.1-or-later
// What one step wants done. fsm::take_output() returns effects in the order in which they must be
// performed:
//
//   1. close orders to the kernel: closing is local, immediate, and waits for nobody;
//   2. persist: queued to the database before anything that tells others;
//   3. mcast, out of the group and into it;
//   4. lock operations;
//   5. other orders to the kernel (reclaim, permit, open): they rest on locks that are granted;
//   6. answers to upcalls and requests;
//   7. news for people.
//
// An effect whose completion matters comes back as an input (durable, kernel_acked, deliver, …).
#pragma once

#include "grace/ports.hh"
#include "grace/types.hh"

#include <variant>

namespace grace {

namespace effect {
struct close_gate {
    epoch at;
    std::uint64_t order;
};
struct persist {
    store_batch batch;
    position at;
};
struct send {
    bytes message;
};
struct query_dlm_members {};
struct leave_group {};
struct join_group {};
struct convert {
    lock_resource resource;
    node_id node;
    lock_mode mode;
    bool with_value;
    lvb_bytes value;
};
struct cancel {
    lock_resource resource;
    node_id node;
};
struct set_reclaim {
    std::string server;
    epoch at;
    bool on;
    std::uint64_t order;
};
struct open_gate {
    epoch at;
    std::uint64_t trips, order;
};
struct extend_permit {
    instant until;
};
struct end_nfsd_grace {
    std::string server;
};
struct set_bypass {
    bool on;
};
struct answer_upcall {
    ticket id;
    upcall_status status;
};
struct answer_grace_start {
    ticket id;
    std::vector<tracker_port::known_client> clients;
};
struct answer_request {
    ticket id;
    request_status status;
    std::string detail;
};
struct fence {
    node_id node;
    std::string why;
};
struct tell {
    news_level level;
    std::string text;
};
} // namespace effect

// In the order of the list above: the variant's index is the rank.
using any_effect =
    std::variant<effect::close_gate, effect::persist, effect::send, effect::query_dlm_members,
                 effect::leave_group, effect::join_group, effect::convert, effect::cancel,
                 effect::set_reclaim, effect::extend_permit, effect::open_gate,
                 effect::end_nfsd_grace, effect::set_bypass, effect::answer_upcall,
                 effect::answer_grace_start, effect::answer_request, effect::fence, effect::tell>;

using output = std::vector<any_effect>;

} // namespace grace
