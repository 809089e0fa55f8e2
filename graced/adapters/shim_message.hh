// SPDX-License-Identifier: GPL-2.0-or-later
// The messages of kernel module lockd_shim as bytes: orders encoded, everything it sends decoded.
//
// lockd-shim/uapi/lockd_shim.h says what they mean. No sockets here: pure functions, so that tests
// and the fuzzer can feed them anything.
#pragma once

#include "lockd-shim/uapi/lockd_shim.h"

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace grace::shim {

// Where the kernel left an attribute out, the field has its zero.
struct status {
    std::uint32_t version = 0;
    std::string module_version;
    std::uint64_t instance = 0;
    std::uint32_t state = LOCKD_SHIM_STATE_CLOSED;
    std::uint32_t reason = LOCKD_SHIM_REASON_LOAD;
    std::uint64_t epoch = 0;
    std::uint64_t trips = 0;
    std::uint64_t permit_until = 0; // CLOCK_BOOTTIME, ns
    bool attached = false;
    std::uint32_t hooks = 0, hooks_wanted = 0; // LOCKD_SHIM_HOOK_*
    std::string hook_error;
    std::uint32_t waiters = 0; // local tasks that wait at the gate
    std::uint64_t undone = 0, deferred = 0;
    std::uint32_t exempts = 0; // processes that pass the gate
    bool bypass = false;       // an operator has opened the gate past everything
};

struct network_namespace {
    std::uint32_t inode = 0;
    std::uint64_t cookie = 0;
    std::uint32_t state = LOCKD_SHIM_STATE_CLOSED; // closed, reclaim or open
    std::uint32_t reclaims_in_flight = 0;
    bool held = false;     // our lock_manager is on its grace list
    bool in_grace = false; // the kernel says so, for whatever reason
    bool opens_blocked = false;
    bool nfsd_up = false;    // started, and not shut down, since gfs2_gate was loaded
    std::uint64_t stops = 0; // how often locks of its server were dropped
    std::uint32_t hosts = 0; // NFSv3 hosts that may reclaim
};

// What the module, or the netlink layer for it, says.
struct ack { // the end of a request: code 0, or a negative errno with the module's own text
    std::uint32_t seq = 0;
    int code = 0;
    std::string text;
};
struct attach_reply {
    std::uint32_t seq = 0;
    status now;
};
struct status_reply {
    std::uint32_t seq = 0;
    status now;
};
struct namespace_reply {
    std::uint32_t seq = 0;
    network_namespace ns;
};
struct dump_done {
    std::uint32_t seq = 0;
    bool interrupted = false;
};
struct trip_event {
    std::uint64_t trips = 0;
    std::uint32_t cause = LOCKD_SHIM_CAUSE_UNSPEC;
};
struct gate_event {
    std::uint32_t state = 0, reason = 0;
    std::uint64_t epoch = 0, trips = 0;
};
struct namespace_event {
    network_namespace ns;
    bool up = false;
};
struct hooks_event {
    std::uint32_t hooks = 0, hooks_wanted = 0;
    std::string error;
};

using item = std::variant<ack, attach_reply, status_reply, namespace_reply, dump_done, trip_event,
                          gate_event, namespace_event, hooks_event>;

// One datagram of the socket: several messages. What is malformed or not known is left out.
std::vector<item> decode(std::span<const std::uint8_t> datagram, std::uint16_t family);

std::vector<std::uint8_t> attach(std::uint16_t family, std::uint32_t seq, std::uint32_t version);
std::vector<std::uint8_t> gate_closed(std::uint16_t family, std::uint32_t seq, std::uint64_t epoch);
std::vector<std::uint8_t> gate_open(std::uint16_t family, std::uint32_t seq, std::uint64_t epoch,
                                    std::uint64_t trips);
std::vector<std::uint8_t> reclaim_set(std::uint16_t family, std::uint32_t seq, int netns_fd,
                                      std::uint64_t epoch, bool on);
std::vector<std::uint8_t> permit_set(std::uint16_t family, std::uint32_t seq, std::uint64_t until);
std::vector<std::uint8_t> host_add(std::uint16_t family, std::uint32_t seq, int netns_fd,
                                   std::uint64_t epoch, const std::string& host);
std::vector<std::uint8_t> exempt_set(std::uint16_t family, std::uint32_t seq, std::uint32_t pid,
                                     bool on);
std::vector<std::uint8_t> bypass_set(std::uint16_t family, std::uint32_t seq, bool on);
std::vector<std::uint8_t> enforced_set(std::uint16_t family, std::uint32_t seq, std::uint64_t epoch,
                                       std::uint64_t trips, bool on);
std::vector<std::uint8_t> status_get(std::uint16_t family, std::uint32_t seq);
std::vector<std::uint8_t> namespaces_dump(std::uint16_t family, std::uint32_t seq);

// For people.
const char* state_name(std::uint32_t state);
const char* reason_name(std::uint32_t reason);
const char* cause_name(std::uint32_t cause);
std::string hook_names(std::uint32_t hooks);

// For LLVMFuzzerTestOneInput.
int fuzz_one(const std::uint8_t* data, std::size_t size);

} // namespace grace::shim
