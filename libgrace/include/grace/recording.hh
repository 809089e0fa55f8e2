// SPDX-License-Identifier: LGPL-2.1-or-later
// What a machine went through, as bytes that can be played again: a machine as it was at some
// moment (the checkpoint), and every input since. The core is deterministic, so the same inputs
// give the same outputs; each input carries the digest of what it led to, and a replay by another
// version of the core that differs is noticed at the first step where it does.
//
// A recording holds names of clients. It is for the same version of graced that made it: what
// cannot be read exactly is refused, never guessed.
#pragma once

#include "grace/fsm.hh"

namespace grace {

constexpr std::size_t max_recording = 64u << 20; // bytes; a longer file is none

struct recorded_input {
    instant at = 0; // CLOCK_BOOTTIME of the node that recorded it
    any_input in = input::tick{};
    // Of the outputs; none: the step did not return (an invariant broke), or is the last one.
    std::optional<std::uint32_t> outputs;
};

struct recording {
    std::string made_by;       // version of graced
    std::string why;           // who asked, or which invariant broke
    std::int64_t realtime = 0; // when it was written, ns since 1970 …
    instant boottime = 0;      // … and on the clock of the inputs
    std::uint64_t before = 0;  // inputs of this daemon that it does not hold any more
    std::optional<fsm> start;  // none: the state was too large to be kept; nothing can be replayed
    std::vector<recorded_input> inputs;
};

// One input as recorded; recordings hold them one behind the other.
bytes encode_step(instant at, const any_input&);
// All that a machine knows. Its outputs must have been taken.
bytes encode_checkpoint(const fsm&);
// encode_checkpoint() would have at most about so many bytes. Cheap, also for millions of records.
bool checkpoint_fits(const fsm&, std::size_t limit);
std::optional<fsm> decode_checkpoint(std::span<const std::uint8_t>);

// What of the outputs must be the same in a replay: all but the news for people.
std::uint32_t digest(const output&);

// Puts the pieces together without decoding them. `steps`: encode_step() and, behind each, its
// digest (put_digest).
struct recording_parts {
    std::string made_by, why;
    std::int64_t realtime = 0;
    instant boottime = 0;
    std::uint64_t before = 0;
    std::optional<bytes> checkpoint;
    std::uint32_t count = 0;
    std::vector<std::span<const std::uint8_t>> steps;
};
void put_digest(bytes& steps, std::optional<std::uint32_t>);
bytes encode_recording(const recording_parts&);
bytes encode_recording(const recording&);

struct decoded_recording {
    std::optional<recording> found;
    const char* fault = ""; // why there is none
};
decoded_recording decode_recording(std::span<const std::uint8_t>);

} // namespace grace
