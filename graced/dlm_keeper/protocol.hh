// SPDX-License-Identifier: GPL-2.0-or-later
// The messages between graced (client) and the keeper graced-dlm, over an AF_UNIX SOCK_SEQPACKET
// socket: one message is one packet is one struct of fixed size, host byte order (both ends are on
// one machine). A packet that is not exactly one known message of this version is a bad one; who
// gets it closes the connection.
//
//   client                               keeper
//   hello(node)            ->
//                          <-  state     what is held and asked for; as soon as the lockspace is
//                          open
//                          <-  notice    refused: another daemon is connected (then it closes)
//   convert(key, mode, id) ->
//                          <-  granted | refused | cancelled(key, id): exactly one for each id
//   cancel(key, id)        ->            no answer of its own; void if `id` is not outstanding
//                          <-  blocking(key)   somebody waits for a lock that is held
//   ping(cookie)           ->  <-  pong(cookie)    also before `hello`, and while frozen
//   release                ->            drop every lock, leave the lockspace, exit
//   admin(command, node)   ->  <-  report ... instead of `hello`: `graced-dlm --ctl`
//
// A request outlives the connection that made it. The next connection sees it in `state` with its
// id and gets its answer; a convert to the same mode takes it over under a new id.
#pragma once

#include "adapters/lock_words.hh"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace grace::keeper {

constexpr const char* default_socket = "/run/graced/dlm.sock";
constexpr std::uint32_t magic = 0x4d4c4447; // "GDLM"
constexpr std::uint16_t version = 1;
constexpr std::size_t max_locks = max_nodes + 1; // `grace` and one `alive` for each node
constexpr std::uint8_t no_mode = 0xff;

enum class message_type : std::uint16_t {
    hello = 1,
    convert,
    cancel,
    ping,
    release,
    admin,
    state = 64,
    granted,
    refused,
    cancelled,
    blocking,
    pong,
    notice,
    report,
};

struct header {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t type;
};

struct wire_key {
    std::uint32_t node;
    std::uint8_t resource; // enum lock_resource
    std::uint8_t zero[3];
};

struct hello {
    static constexpr auto type = message_type::hello;
    header head;
    std::uint32_t node;
    std::uint32_t permit_ms; // how long its kernel's gate may stay open after its last order
};
struct convert {
    static constexpr auto type = message_type::convert;
    header head;
    wire_key key;
    std::uint64_t id; // not 0; the client's
    std::uint8_t mode;
    std::uint8_t has_value;
    std::uint8_t zero[6];
    lvb_bytes value;
};
struct cancel {
    static constexpr auto type = message_type::cancel;
    header head;
    wire_key key;
    std::uint64_t id;
};
struct ping {
    static constexpr auto type = message_type::ping;
    header head;
    std::uint64_t cookie;
};
struct release {
    static constexpr auto type = message_type::release;
    header head;
};
enum class admin_command : std::uint32_t { dump, freeze, thaw, fenced, keeper_died };
struct admin {
    static constexpr auto type = message_type::admin;
    header head;
    std::uint32_t command;
    std::uint32_t node;
};

struct state_entry {
    wire_key key;
    std::uint64_t id;       // of the outstanding request, else 0
    std::uint8_t held;      // or no_mode: no lock at all
    std::uint8_t requested; // or no_mode
    std::uint8_t zero[6];
};
struct state {
    static constexpr auto type = message_type::state;
    header head;
    std::uint32_t count;
    std::uint32_t embedded; // 1: the stand-in without a DLM
    std::array<state_entry, max_locks> entries;
};
struct granted {
    static constexpr auto type = message_type::granted;
    header head;
    wire_key key;
    std::uint64_t id;
    std::uint8_t mode;
    std::uint8_t value_valid;
    std::uint8_t zero[6];
    lvb_bytes value;
};
struct refused {
    static constexpr auto type = message_type::refused;
    header head;
    wire_key key;
    std::uint64_t id;
    std::int32_t code; // errno
    std::uint32_t zero;
};
struct cancelled {
    static constexpr auto type = message_type::cancelled;
    header head;
    wire_key key;
    std::uint64_t id;
};
struct blocking {
    static constexpr auto type = message_type::blocking;
    header head;
    wire_key key;
};
struct pong {
    static constexpr auto type = message_type::pong;
    header head;
    std::uint64_t cookie;
    std::uint32_t ready;      // 1: the lockspace is open
    std::uint32_t blocked_ms; // for how long the kernel has not returned from a lock call
};
struct notice {
    static constexpr auto type = message_type::notice;
    header head;
    std::array<char, 504> text; // for people; ends with NUL
};
struct report {
    static constexpr auto type = message_type::report;
    header head;
    std::uint32_t more; // 1: another one follows
    std::uint32_t failed;
    std::array<char, 4080> text;
};

constexpr std::size_t max_message = sizeof(report);

template <typename T>
T make() {
    // No padding: what is sent is all written, nothing of the stack leaks, and a size is a format.
    static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>);
    static_assert(sizeof(T) <= max_message);
    T m{};
    m.head = {magic, version, static_cast<std::uint16_t>(T::type)};
    return m;
}

// The header of a packet, or why it is none.
struct parsed_header {
    std::optional<message_type> type;
    std::string fault;
};
inline parsed_header parse_header(std::span<const std::uint8_t> packet) {
    header h;
    if (packet.size() < sizeof h)
        return {{}, "a packet of " + std::to_string(packet.size()) + " bytes"};
    std::memcpy(&h, packet.data(), sizeof h);
    if (h.magic != magic)
        return {{}, "a packet without our magic number"};
    if (h.version != version)
        return {{},
                "protocol version " + std::to_string(h.version) + ", this program speaks " +
                    std::to_string(version)};
    return {static_cast<message_type>(h.type), {}};
}

template <typename T>
std::optional<T> parse(std::span<const std::uint8_t> packet) {
    if (packet.size() != sizeof(T))
        return {};
    T m;
    std::memcpy(&m, packet.data(), sizeof m);
    return m;
}

constexpr wire_key to_wire(lock_key k) {
    return {k.node.value, static_cast<std::uint8_t>(k.resource), {}};
}
constexpr std::uint8_t to_wire(lock_mode m) {
    return static_cast<std::uint8_t>(m);
}
constexpr std::uint8_t to_wire(std::optional<lock_mode> m) {
    return m ? to_wire(*m) : no_mode;
}

constexpr std::optional<lock_key> key_from(wire_key w) {
    if (w.resource > static_cast<std::uint8_t>(lock_resource::alive))
        return {};
    const lock_key k{static_cast<lock_resource>(w.resource), node_id{w.node}};
    return valid_key(k) ? std::optional(k) : std::nullopt;
}
constexpr std::optional<lock_mode> mode_from(std::uint8_t w) {
    return w <= static_cast<std::uint8_t>(lock_mode::ex) ? std::optional(lock_mode{w})
                                                         : std::nullopt;
}

// Text fields: cut to what fits, always ended.
template <std::size_t N>
void set_text(std::array<char, N>& to, std::string_view text) {
    to.fill('\0');
    std::memcpy(to.data(), text.data(), std::min(text.size(), N - 1));
}
template <std::size_t N>
std::string get_text(const std::array<char, N>& from) {
    return std::string(from.data(), ::strnlen(from.data(), N));
}

} // namespace grace::keeper
