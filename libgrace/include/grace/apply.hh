// SPDX-License-Identifier: LGPL-2.1-or-later
// The replicated state machine: (state, delivered message or confchg) -> state, and what of it
// goes to disk. Deterministic; no member applies anything that is not in the agreed stream.
#pragma once

#include "grace/input.hh"
#include "grace/message.hh"
#include "grace/state.hh"

namespace grace {

struct applied {
    bool counted = false; // false: void here, and so on every synced member
    const char* why_void = "";
    store_batch ops; // what changed on disk, without the meta row
};

// Precondition: `self` of the caller is synced. Checks view, incarnation and every rule about
// which message counts when.
applied apply(state&, node_id sender, const envelope&);
applied apply(state&, const input::confchg&);

// The founding of a group without state: every server with records NEEDs.
struct founding {
    node_id founder;
    std::map<node_id, std::pair<incarnation, msg::hello>> hellos; // of all members
};
applied found(state& from_database, const founding&);

} // namespace grace
