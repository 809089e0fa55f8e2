// SPDX-License-Identifier: LGPL-2.1-or-later
// What members say to each other. Wire format: wire.hh and docs/wire.md.
//
// Every message but HELLO and SNAPSHOT carries the view and the incarnation it was sent under and
// is void in another one. Bad scenario without it: node 3 is paused, nodes 1 and 2 go on without
// it and lift; node 3 wakes, and what it had queued arrives now, as if it were news.
#pragma once

#include "grace/state.hh"
#include "grace/types.hh"

#include <variant>

namespace grace::msg {

// "I have no state." Said at every confchg by a member that is not synced, with what its database
// has, for the case that nobody is.
struct hello {
    // Rises with each HELLO of one incarnation, and begins at that incarnation: a SNAPSHOT that
    // answers the HELLO of a former life (its sender was slow) must not pass for ours.
    std::uint64_t number = 0;
    std::string name;
    std::uint64_t boot = 0; // of its kernel: another one than the last means that the node was down
    bool attached = false;
    duration permit_ttl = 0;
    bool has_database = false;
    std::uint64_t view = 0, quorate_view = 0; // store_op.hh
    epoch current;
    position applied;
    start_count starts; // no START of the group that is founded gets a number that was used
    // Of the state that it has, up to `applied`: who has the same past sends the difference. 0: it wants all.
    std::uint64_t history = 0;
    // Servers whose nfsd has not stopped here, and which START it was told: it is their host.
    std::map<std::string, start_count> running;
    bool operator==(const hello&) const = default;
};
// One part of the state as of the position of `to`'s HELLO number `hello`. `to` none: founding,
// from the best database among members that all have none synced.
struct snapshot {
    node_id to;
    std::uint64_t hello = 0;
    std::uint32_t part = 0, parts = 1;
    std::vector<std::uint8_t> data;
    bool operator==(const snapshot&) const = default;
};
// The server's records become reclaimable.
enum class start_reason : std::uint8_t {
    asked,  // an operator, or news of a death: its nfsd may have lost nothing
    takes,  // the sender hosts it from here on
    stops,  // the sender, its host, is about to end its nfsd
    dropped // its locks are gone: its nfsd ended by itself, its node left the DLM
};
struct start {
    std::string server;
    start_reason why = start_reason::asked;
    bool operator==(const start&) const = default;
};
// The sender's kernel has closed the server and dropped its locks: another node may host it.
struct released {
    std::string server;
    bool operator==(const released&) const = default;
};
// Quorum's node list has lost a node that the group had lost already as a process.
struct node_down {
    node_id node;
    std::uint64_t deaths = 0; // how often it had died before: makes it idempotent
    bool operator==(const node_down&) const = default;
};
struct attached {
    bool operator==(const attached&) const = default;
};
struct enforcing {
    epoch at;
    bool operator==(const enforcing&) const = default;
};
// How a server's NEED ended. `intact`: its nfsd never stopped, so all its records stay.
enum class outcome : std::uint8_t { reclaimed, deadline, lifted, orphan, intact };
struct done {
    std::string server;
    start_count start; // the START that this answers; an older one is void
    outcome how = outcome::reclaimed;
    bool operator==(const done&) const = default;
};
struct purge {
    epoch recovery;
    start_count starts; // the grace's START count; void if another START came between
    bool operator==(const purge&) const = default;
};
struct lift {
    epoch recovery;
    start_count starts;
    bool operator==(const lift&) const = default;
};
// An operator wants the server's NEED ended; its host does it.
struct lift_request {
    std::string server;
    start_count start;
    bool operator==(const lift_request&) const = default;
};
// An operator gives the server's clients more time to reclaim: its host's deadline, or where nobody
// hosts it, orphan_timeout, is later by `by` (1 ns to max_extension; more than one add up to that).
constexpr duration max_extension = seconds(3600);
struct extend_request {
    std::string server;
    start_count start;
    duration by = 0;
    bool operator==(const extend_request&) const = default;
};
struct record_change {
    bool remove = false;
    std::string server, client, princhash;
    bool operator==(const record_change&) const = default;
};
struct records {
    std::uint64_t batch = 0; // the sender's name for it
    std::vector<record_change> changes;
    bool operator==(const records&) const = default;
};
// The sender's database holds everything up to `at`. PURGED is DURABLE at or past the PURGE.
struct durable {
    position at;
    bool operator==(const durable&) const = default;
};
// The number of this view is on the sender's disk, as one that is quorate.
struct view_stored {
    bool operator==(const view_stored&) const = default;
};
// News and echo for the permit (permit.hh).
struct heartbeat {
    instant sent = 0;
    std::map<node_id, instant> heard; // the latest `sent` delivered here from each other member
    bool operator==(const heartbeat&) const = default;
};
// Comes back to its sender after every confchg that was on its way before it.
struct barrier {
    std::uint64_t number = 0;
    bool operator==(const barrier&) const = default;
};
// The sender's gate holds nothing back any more: its module or a hook is gone, or it is bypassed.
struct detached {
    bool operator==(const detached&) const = default;
};
// An operator opens the node's gate past everything, or no longer. `node` none: every node's.
struct bypass {
    node_id node;
    bool on = false;
    bool operator==(const bypass&) const = default;
};

} // namespace grace::msg

namespace grace {

using any_message =
    std::variant<msg::hello, msg::snapshot, msg::start, msg::released, msg::node_down,
                 msg::attached, msg::enforcing, msg::done, msg::purge, msg::lift, msg::lift_request,
                 msg::records, msg::durable, msg::heartbeat, msg::barrier, msg::detached,
                 msg::bypass, msg::view_stored, msg::extend_request>;

struct envelope {
    view_id view;     // zero for HELLO and SNAPSHOT
    incarnation life; // of the sender's daemon
    any_message body;
    bool operator==(const envelope&) const = default;
};

const char* to_string(msg::outcome);
const char* to_string(msg::start_reason);
std::string describe(const any_message&); // one line for people: "DONE(vs1, start 4, deadline)"

} // namespace grace
