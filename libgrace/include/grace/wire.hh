// SPDX-License-Identifier: LGPL-2.1-or-later
// The codec of messages, snapshots and the lock value block: versioned, little-endian, bounded.
// Decoding accepts any bytes; what is not a message of this version yields nothing.
#pragma once

#include "grace/message.hh"

#include <optional>
#include <span>

namespace grace::wire {

constexpr std::uint16_t version = 2;
constexpr std::size_t snapshot_part_size = 256 * 1024; // well below cpg's 1 MiB - 1 KiB
constexpr std::size_t max_changes = 512;               // records in one message: <= 600 KiB

std::vector<std::uint8_t> encode(const envelope&);
std::optional<envelope> decode(std::span<const std::uint8_t>);

std::vector<std::uint8_t> encode_state(const state&);
std::optional<state> decode_state(std::span<const std::uint8_t>);

lvb_bytes encode_lock_value(const lock_value&);
// Nothing if magic or checksum are wrong, or the block is empty (after the last lock is gone).
std::optional<lock_value> decode_lock_value(const lvb_bytes&);

} // namespace grace::wire
