// SPDX-License-Identifier: LGPL-2.1-or-later
// The replicated state: what every synced member agrees on at the same position of the stream.
// It changes only in apply.cc, by delivered messages and confchgs.
#pragma once

#include "grace/record_key.hh"
#include "grace/store_op.hh"
#include "grace/types.hh"

#include <optional>

namespace grace {

// A membership of the group as the synced members count them. `founding` is the incarnation of the
// member that founded the group's state, so that two cold starts never share a view.
struct view_id {
    incarnation founding;
    std::uint64_t number = 0;
    auto operator<=>(const view_id&) const = default;
};

struct node_state {
    std::string name;
    bool member = false;      // in the process group
    bool synced = false;      // has the state; only its messages count
    bool attached = false;    // its gate was attached since it was last down, and not detached since
    bool down = false;        // it died and has not come back
    incarnation life;         // of the daemon that said HELLO last
    std::uint64_t boot = 0;   // of the kernel that it said HELLO on; 0: not known
    std::uint64_t hello = 0;  // number of that HELLO; 0: none in this membership
    std::uint64_t deaths = 0; // which death the proof of fencing is about
    epoch enforcing;          // the epoch of its last ENFORCING; E is enforcing == C
    position durable;         // its database holds everything up to here; said in this view
    std::uint64_t view = 0;   // the last view whose number it has said to be on its disk
    duration permit_ttl = 0;  // how long its gate may outlive its daemon
    bool operator==(const node_state&) const = default;
};

struct server_state {
    node_id host;        // none: no node hosts it
    bool need = false;   // N: its clients may still reclaim
    bool needed = false; // it NEEDed in this grace; the purge concerns it
    start_count start;   // number of its last START
    start_count lost;    // … of the last one that stands for locks that are gone for sure
    start_count settled; // … of the last one that was done, and purged
    record_map records;  // NFSv4 and NFSv3 clients
    record_map mounts;   // who has what mounted over NFSv3: no part of any grace
    bool operator==(const server_state&) const = default;
};

struct state {
    view_id view;
    epoch current{1};       // C
    epoch recovery;         // R; none: no grace
    position applied;       // messages applied since the beginning of time
    std::uint64_t history = 0; // hash of all that was applied: states with the same one have the same past
    position epoch_at;      // where C was set
    position wants_durable; // the last position that waits for everyone's DURABLE
    start_count starts;     // STARTs so far
    bool lifting = false;   // PURGE(R) was delivered
    position purge_at;      // where
    epoch purged;           // the last epoch that was purged
    node_id last_done;      // who cleared the last NEED
    std::map<node_id, node_state> nodes;
    std::map<std::string, server_state> servers;
    bool operator==(const state&) const = default;
};

// Where the record with this key belongs: no grace may count, lower or purge a mount.
record_map& map_of(server_state&, std::string_view key);
record_map& map_of(stored_state&, const std::string& server, std::string_view key);
// It has an NFSv3 client on record. None of them ever says that it has reclaimed all it wants.
bool has_nlm(const server_state&);

// What an nfsd still has that was told START `answered`, and has not stopped since.
enum class standing : std::uint8_t {
    nothing,    // its locks are gone
    reclaiming, // what was reclaimed so far; others may still
    intact      // all of it
};
standing standing_of(const server_state&, start_count answered);

bool in_grace(const state&);
bool any_need(const state&);
bool hosts_need(const state&, node_id); // a server of this node NEEDs
bool is_synced(const state&, node_id);
node_id lowest_synced(const state&); // none if nobody is

// The last node out, computed anew from every state: the host of the server that was done last if
// it is a synced member, else the lowest synced member. None while a server NEEDs or in normal.
node_id purger(const state&);

// What a batch does to the records, on the state instead of the database. Neither replace_all nor put_meta.
void redo(state&, const store_operation&);

// Every synced member has said in this view that it has committed everything up to `at`. False
// without any synced member.
bool durable_everywhere(const state&, position at);

// How many of the server's records have reclaimed in this grace (epoch > R), of how many.
struct reclaim_count {
    std::size_t reclaimed = 0, all = 0;
};
reclaim_count count_reclaimed(const state&, const server_state&);

// What goes to disk with each batch, and back.
// Why no graced can have written this; empty if one can. A database that breaks an invariant would
// end the daemon after every start anew, one whose numbers are near the end of their range all
// daemons that adopt it.
std::string implausible(const stored_meta&);
stored_meta to_meta(const state&, std::uint64_t view, std::uint64_t quorate_view);
state from_stored(const stored_state&);

} // namespace grace
