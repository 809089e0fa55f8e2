// SPDX-License-Identifier: LGPL-2.1-or-later
// The codec of messages, snapshots and the lock value block: versioned, little-endian, bounded.
// Decoding accepts any bytes; what is not a message of this version yields nothing.
#pragma once

#include "grace/message.hh"

#include <optional>
#include <span>

namespace grace::wire {

constexpr std::uint16_t version = 5;
// Records in one part of a snapshot. With the longest names, and all that is not a record in the same
// part, it stays below snapshot_part_size, and that below cpg's 1 MiB - 1 KiB.
constexpr std::uint32_t records_in_part = 512;
constexpr std::size_t snapshot_part_size = 768 * 1024;
constexpr std::size_t max_changes = 512;               // records in one message: <= 600 KiB

std::vector<std::uint8_t> encode(const envelope&);
std::optional<envelope> decode(std::span<const std::uint8_t>);

// 64 bits of what was there and what comes: FNV-1a.
std::uint64_t hash(std::span<const std::uint8_t>, std::uint64_t before);

// What a state has that another one with the same past has not: `ops`, behind `applied` and `history`.
struct difference {
    position applied;
    std::uint64_t history = 0;
    store_batch ops; // of records: neither replace_all nor put_meta
};

// A snapshot goes part by part, so that neither end ever has work for more than one of them at a
// time, or memory for the whole. Part 0 has everything but the records. Each part has a checksum. Instead
// of the records it may have a difference.
struct snapshot_writer {
    state from;
    std::uint32_t parts = 1, next = 0; // how many there are; which is written next
    std::uint32_t in_part = records_in_part;
    std::uint64_t records = 0;  // how many the state has
    std::string server, client; // the record that was written last
    std::optional<difference> since = {};
    std::size_t op = 0; // that is written next
};
snapshot_writer write_snapshot(state, std::uint32_t in_part = records_in_part);
snapshot_writer write_difference(state, difference, std::uint32_t in_part = records_in_part);
std::vector<std::uint8_t> next_part(snapshot_writer&); // while next < parts

struct snapshot_reader {
    state into;
    std::uint64_t missing = 0; // records, or operations of a difference, that are to come
    bool begun = false;
    bool is_difference = false;
    difference since = {};
    std::uint64_t records = 0; // how many the state has
};
// In order. False: not a part of this version, damaged, or not of this snapshot.
bool take_part(snapshot_reader&, std::span<const std::uint8_t>);
// Nothing if parts are missing, or it is no state that apply() could have made. Of a difference: without
// records, those are to be made from the ones of the state that it is the difference to.
std::optional<state> finish(snapshot_reader&);

// The whole in one part, whatever its size.
std::vector<std::uint8_t> encode_state(const state&);
std::optional<state> decode_state(std::span<const std::uint8_t>);

lvb_bytes encode_lock_value(const lock_value&);
// Nothing if magic or checksum are wrong, or the block is empty (after the last lock is gone).
std::optional<lock_value> decode_lock_value(const lvb_bytes&);

} // namespace grace::wire
