// SPDX-License-Identifier: LGPL-2.1-or-later
// The words of the protocol as types: node ids, epochs, lock modes, gate states, records.
// Everything here is passive data; the rules that use it are in fsm.cc and apply.cc.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace grace {

// An integer that does not mix with others: epoch{3} + node_id{1} does not compile.
template <typename Tag, typename Int>
struct tagged {
    Int value = 0;
    constexpr tagged() = default;
    constexpr explicit tagged(Int v)
        : value(v) {}
    constexpr auto operator<=>(const tagged&) const = default;
    constexpr explicit operator bool() const { return value != 0; }
};

using node_id = tagged<struct node_id_tag, std::uint32_t>;         // corosync's node id; 0 = none
using epoch = tagged<struct epoch_tag, std::uint64_t>;             // C and R; 0 = none
using position = tagged<struct position_tag, std::uint64_t>;       // place in the agreed stream
using start_count = tagged<struct start_tag, std::uint64_t>;       // number of a START
using incarnation = tagged<struct incarnation_tag, std::uint64_t>; // one life of one daemon
using ticket = tagged<struct ticket_tag, std::uint64_t>; // an adapter's name for a request

constexpr epoch next(epoch e) {
    return epoch{e.value + 1};
}
constexpr epoch previous(epoch e) {
    return epoch{e.value - 1};
}

// Time on one node, nanoseconds of CLOCK_BOOTTIME. Never compared across nodes.
using instant = std::int64_t;
using duration = std::int64_t;
constexpr duration milliseconds(std::int64_t n) {
    return n * 1'000'000;
}
constexpr duration seconds(std::int64_t n) {
    return n * 1'000'000'000;
}

// DLM lock modes that the protocol uses (linux/dlmconstants.h has the numbers).
enum class lock_mode : std::uint8_t { nl, pr, cw, ex };

// The in-kernel barrier. `reclaim` is a property of one network namespace while the gate is closed.
enum class gate_state : std::uint8_t { closed, reclaim, open };

enum class phase : std::uint8_t { normal, entering, reclaiming, lifting };

const char* to_string(lock_mode);
const char* to_string(gate_state);
const char* to_string(phase);

// Limits: every container that a peer, a kernel or a disk can fill has one.
constexpr std::size_t max_server_name = 64;   // a DNS label; it is also the NFSv4 server scope
constexpr std::size_t max_client_name = 1024; // NFS4_OPAQUE_LIMIT (include/linux/nfs4.h)
constexpr std::size_t max_princhash = 32;     // SHA-256 (fs/nfsd/nfs4recover.c)
constexpr std::size_t max_nodes = 64;
constexpr std::size_t max_servers = 1024;
constexpr std::size_t max_node_name = 255;

// One client on record for one server. It may reclaim while epoch <= R.
struct record {
    epoch at;              // the epoch in which it was recorded, or reclaimed last
    std::string princhash; // principal hash from cld v2, empty if none; at most 32 bytes
    bool operator==(const record&) const = default;
};

// The value block of resource `grace`: a lower bound only (design: VALNOTVALID means unknown).
struct lock_value {
    epoch current;
    epoch recovery;
    epoch purged;
    bool operator==(const lock_value&) const = default;
};
using lvb_bytes = std::array<std::uint8_t, 32>;

} // namespace grace
