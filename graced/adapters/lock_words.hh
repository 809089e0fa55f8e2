// SPDX-License-Identifier: GPL-2.0-or-later
// The words that the keeper, the embedded lock table and the client share: the name of a lock, what
// is known of it, what can happen to it, and the rule which conversions are allowed.
#pragma once

#include "grace/ports.hh"

#include <cerrno>
#include <compare>
#include <map>
#include <optional>
#include <string>

namespace grace {

// One resource of lockspace `graced`: `grace` (node 0), or `alive.<node>`.
struct lock_key {
    lock_resource resource = lock_resource::grace;
    node_id node;
    auto operator<=>(const lock_key&) const = default;
};

constexpr lock_key grace_lock{};
constexpr lock_key alive_lock(node_id n) {
    return {lock_resource::alive, n};
}
constexpr bool valid_key(lock_key k) {
    return (k.resource == lock_resource::alive) == bool(k.node);
}

// The resource's name in the DLM; it is at most 16 bytes long (DLM_RESNAME_MAXLEN is 64).
inline std::string name_of(lock_key k) {
    return k.resource == lock_resource::grace ? "grace" : "alive." + std::to_string(k.node.value);
}

// Linked nowhere else: the table must not need more of libgrace than its headers.
constexpr const char* mode_name(lock_mode m) {
    switch (m) {
    case lock_mode::nl:
        return "NL";
    case lock_mode::pr:
        return "PR";
    case lock_mode::cw:
        return "CW";
    case lock_mode::ex:
        return "EX";
    }
    return "?";
}

// One node's lock on one resource. Neither set: no lock at all, which the ports call NL.
struct lock_status {
    std::optional<lock_mode> held;
    std::optional<lock_mode> requested; // outstanding; at most one
    bool operator==(const lock_status&) const = default;
};
using lock_map = std::map<lock_key, lock_status>;

// Every request gets exactly one of granted, refused, cancelled. `blocking` (the DLM's blocking
// AST) comes to a holder beside that: somebody waits for this lock.
struct lock_event {
    enum class what : std::uint8_t { granted, refused, cancelled, blocking };
    what kind = what::granted;
    node_id owner; // the node whose lock it is
    lock_key key;
    lock_mode mode = lock_mode::nl; // granted: the mode that is held now
    bool value_valid = false;       // granted, resource grace, from nothing or NL: `value` was read
    lvb_bytes value{};
    int code = 0; // refused: errno
    bool operator==(const lock_event&) const = default;
};

// The rules of the design for a conversion, as an errno: 0 it may go on; EBUSY another request of
// this node for this resource is outstanding; EINVAL not a conversion that the protocol has.
//
// Conversions go down first and up from NL only. Problem scenario: A and B hold PR, both convert to
// CW in place; each waits for the other's PR, which a converting lock keeps. From NL nothing is
// kept while waiting, so EDEADLK cannot come up among requests that pass here.
constexpr int check_conversion(const lock_status& now, lock_mode wanted) {
    if (now.requested)
        return EBUSY;
    const lock_mode held = now.held.value_or(lock_mode::nl);
    if (held == lock_mode::nl || wanted == lock_mode::nl || held == wanted || held == lock_mode::ex)
        return 0;
    return EINVAL;
}

// The DLM's matrix (fs/dlm/lock.c, __dlm_compat_matrix) for the modes in use.
constexpr bool compatible(lock_mode a, lock_mode b) {
    if (a == lock_mode::nl || b == lock_mode::nl)
        return true;
    return a == b && a != lock_mode::ex;
}

} // namespace grace
