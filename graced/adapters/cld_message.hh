// SPDX-License-Identifier: GPL-2.0-or-later
// nfsd's client tracking messages as bytes: encode and decode, nothing else.
//
// Layout: include/uapi/linux/nfsd/cld.h (packed, host byte order). A message is an upcall (kernel
// to us), the answer to one (us to kernel), or one client of the list that answers GraceStart
// (status -EINPROGRESS). All three share one layout, and its length is fixed by the version in use:
// the kernel refuses any other length (EINVAL, fs/nfsd/nfs4recover.c cld_pipe_downcall), and
// reading version 1 traffic in version 2 portions mixes up message boundaries until nfsd hangs.
#pragma once

#include "graced/result.hh"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace grace::cld {

enum class command : std::uint8_t {
    create = 0,
    remove = 1,
    check = 2,
    grace_done = 3,
    grace_start = 4,
    get_version = 5
};

const char* to_string(command);

constexpr std::size_t header_size = 8;
constexpr std::size_t size_v1 = 1034;
constexpr std::size_t size_v2 = 1067;

// The length that every message of a version has; 0 for a version that is not known here. What
// graced calls version 0 (no list in the kernel) has messages of version 1.
constexpr std::size_t size_of(unsigned version) {
    return version == 1 ? size_v1 : version == 2 ? size_v2 : 0;
}

struct message {
    unsigned version = 1; // of the message: 1 or 2
    command cmd = command::create;
    std::int16_t status = 0;
    std::uint32_t xid = 0;
    // create, remove, check, and grace_start with status -EINPROGRESS: 1 to 1024 bytes, opaque.
    std::string name;
    // Version 2 of create and of the grace_start list: at most 32 bytes, empty if none.
    std::string princhash;
    // get_version, in the answer: the version to use from now on.
    std::uint8_t use_version = 0;
    // grace_done, version 1: when grace began, seconds since 1970.
    std::int64_t grace_time = 0;

    bool operator==(const message&) const = default;
};

// The kernel takes a name with this prefix in the GraceStart list as a record of the old directory
// v4recovery: it strips the prefix and compares the rest with a hash. A client that calls itself
// that way is never found on the list, so its reclaims are refused; it cannot pass for another.
bool is_legacy_name(std::string_view name);

// Any bytes in, never undefined behaviour. The error's code is the errno to answer with: EOPNOTSUPP
// for a version or command that is not known, EINVAL for a wrong length, EREMOTEIO for a bad name.
result<message> decode(std::span<const std::uint8_t> bytes);

// Fails for a version, a name or a hash that the layout cannot hold. The rest is filled with zeros.
result<std::vector<std::uint8_t>> encode(const message&);

// An answer is the upcall's own bytes with another status (and, for get_version, the version).
// `bytes` must hold a header at least.
void set_status(std::span<std::uint8_t> bytes, std::int16_t status);
void set_use_version(std::span<std::uint8_t> bytes, std::uint8_t version);

// For LLVMFuzzerTestOneInput: decodes, and aborts if what was decoded does not survive the way
// back.
int fuzz_one(const std::uint8_t* data, std::size_t size);

} // namespace grace::cld
