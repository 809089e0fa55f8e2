// SPDX-License-Identifier: GPL-2.0-or-later
// nfsd's client tracking messages as bytes. The offsets stand in one place, checked against the
// kernel's own header; fields are copied with memcpy because nothing in there is aligned.
#include "graced/adapters/cld_message.hh"

#include "grace/types.hh"

#include <linux/nfsd/cld.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>

namespace grace::cld {
namespace {

constexpr std::size_t at_version = 0;
constexpr std::size_t at_command = 1;
constexpr std::size_t at_status = 2;
constexpr std::size_t at_xid = 4;
constexpr std::size_t at_body = 8; // name length; or grace time; or version to use
constexpr std::size_t at_name = 10;
constexpr std::size_t at_hash_length = at_name + max_client_name;
constexpr std::size_t at_hash = at_hash_length + 1;

static_assert(sizeof(cld_msg_hdr) == header_size);
static_assert(sizeof(cld_msg) == size_v1 && sizeof(cld_msg_v2) == size_v2);
static_assert(offsetof(cld_msg_v2, cm_status) == at_status);
static_assert(offsetof(cld_msg_v2, cm_xid) == at_xid);
static_assert(offsetof(cld_msg_v2, cm_u.cm_clntinfo.cc_name.cn_len) == at_body);
static_assert(offsetof(cld_msg_v2, cm_u.cm_clntinfo.cc_name.cn_id) == at_name);
static_assert(offsetof(cld_msg_v2, cm_u.cm_clntinfo.cc_princhash.cp_len) == at_hash_length);
static_assert(offsetof(cld_msg_v2, cm_u.cm_clntinfo.cc_princhash.cp_data) == at_hash);
static_assert(offsetof(cld_msg, cm_u.cm_gracetime) == at_body);
static_assert(offsetof(cld_msg, cm_u.cm_version) == at_body);
static_assert(NFS4_OPAQUE_LIMIT == max_client_name && SHA256_DIGEST_SIZE == max_princhash);
static_assert(Cld_Create == int(command::create) && Cld_GetVersion == int(command::get_version));

template <typename T>
T get(std::span<const std::uint8_t> bytes, std::size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

template <typename T>
void put(std::span<std::uint8_t> bytes, std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

std::string text_at(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t length) {
    return {reinterpret_cast<const char*>(bytes.data()) + at, length};
}

// Where the body is a client: the upcalls about one, and each entry of the GraceStart list.
bool has_name(command cmd, std::int16_t status) {
    return cmd == command::create || cmd == command::remove || cmd == command::check ||
           (cmd == command::grace_start && status == -EINPROGRESS);
}

// nfsd writes the hash into Create only, and reads it from the list only; the bytes behind a name
// of other messages are whatever the kernel's memory held (zeros, today): not ours to believe.
bool has_hash(unsigned version, command cmd) {
    return version == 2 && (cmd == command::create || cmd == command::grace_start);
}

} // namespace

const char* to_string(command c) {
    switch (c) {
    case command::create:
        return "Create";
    case command::remove:
        return "Remove";
    case command::check:
        return "Check";
    case command::grace_done:
        return "GraceDone";
    case command::grace_start:
        return "GraceStart";
    case command::get_version:
        return "GetVersion";
    }
    return "unknown";
}

bool is_legacy_name(std::string_view name) {
    return name.size() > 5 && name.starts_with("hash:");
}

result<message> decode(std::span<const std::uint8_t> bytes) {
    if (bytes.size() < header_size)
        return fail(fmt::format("a message of {} bytes is shorter than its header", bytes.size()),
                    EINVAL);
    message m;
    m.version = get<std::uint8_t>(bytes, at_version);
    const std::size_t size = size_of(m.version);
    if (size == 0)
        return fail(fmt::format("version {} of the message is not known", m.version), EOPNOTSUPP);
    if (bytes.size() != size)
        return fail(fmt::format("a message of version {} has {} bytes, this one {}", m.version,
                                size, bytes.size()),
                    EINVAL);
    const auto number = get<std::uint8_t>(bytes, at_command);
    if (number > std::uint8_t(command::get_version))
        return fail(fmt::format("command {} is not known", number), EOPNOTSUPP);
    m.cmd = command(number);
    m.status = get<std::int16_t>(bytes, at_status);
    m.xid = get<std::uint32_t>(bytes, at_xid);

    if (has_name(m.cmd, m.status)) {
        const auto length = get<std::uint16_t>(bytes, at_body);
        if (length == 0 || length > max_client_name)
            return fail(fmt::format("{} with a client name of {} bytes (1 to {} are possible)",
                                    to_string(m.cmd), length, max_client_name),
                        EREMOTEIO);
        m.name = text_at(bytes, at_name, length);
        if (has_hash(m.version, m.cmd)) {
            const auto hash_length = get<std::uint8_t>(bytes, at_hash_length);
            if (hash_length > max_princhash)
                return fail(fmt::format("{} with a principal hash of {} bytes ({} at most)",
                                        to_string(m.cmd), hash_length, max_princhash),
                            EREMOTEIO);
            m.princhash = text_at(bytes, at_hash, hash_length);
        }
    } else if (m.cmd == command::get_version) {
        m.use_version = get<std::uint8_t>(bytes, at_body);
    } else if (m.cmd == command::grace_done && m.version == 1) {
        m.grace_time = get<std::int64_t>(bytes, at_body);
    }
    return m;
}

result<std::vector<std::uint8_t>> encode(const message& m) {
    const std::size_t size = size_of(m.version);
    if (size == 0)
        return fail(fmt::format("version {} of the message is not known", m.version), EOPNOTSUPP);
    std::vector<std::uint8_t> bytes(size);
    put(bytes, at_version, std::uint8_t(m.version));
    put(bytes, at_command, std::uint8_t(m.cmd));
    put(bytes, at_status, m.status);
    put(bytes, at_xid, m.xid);
    if (has_name(m.cmd, m.status)) {
        if (m.name.empty() || m.name.size() > max_client_name)
            return fail(fmt::format("a client name has 1 to {} bytes, this one {}", max_client_name,
                                    m.name.size()),
                        EINVAL);
        put(bytes, at_body, std::uint16_t(m.name.size()));
        std::memcpy(bytes.data() + at_name, m.name.data(), m.name.size());
        if (has_hash(m.version, m.cmd)) {
            if (m.princhash.size() > max_princhash)
                return fail(fmt::format("a principal hash has {} bytes at most, this one {}",
                                        max_princhash, m.princhash.size()),
                            EINVAL);
            put(bytes, at_hash_length, std::uint8_t(m.princhash.size()));
            std::memcpy(bytes.data() + at_hash, m.princhash.data(), m.princhash.size());
        }
    } else if (m.cmd == command::get_version) {
        put(bytes, at_body, m.use_version);
    } else if (m.cmd == command::grace_done && m.version == 1) {
        put(bytes, at_body, m.grace_time);
    }
    return bytes;
}

void set_status(std::span<std::uint8_t> bytes, std::int16_t status) {
    if (bytes.size() >= header_size)
        put(bytes, at_status, status);
}

void set_use_version(std::span<std::uint8_t> bytes, std::uint8_t version) {
    if (bytes.size() > at_body)
        put(bytes, at_body, version);
}

int fuzz_one(const std::uint8_t* data, std::size_t size) {
    const auto first = decode({data, size});
    if (!first)
        return 0;
    const auto bytes = encode(*first);
    if (!bytes || bytes->size() != size)
        std::abort();
    const auto second = decode(*bytes);
    if (!second || *second != *first)
        std::abort();
    return 0;
}

} // namespace grace::cld
