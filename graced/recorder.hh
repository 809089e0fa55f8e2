// SPDX-License-Identifier: GPL-2.0-or-later
// The last inputs of this daemon, in a ring of two segments. Each segment begins with the machine
// as it was then, so that the older one of them can be played again from its start; a full one
// pushes the oldest out. Inputs are kept as bytes: what is copied here costs no more than that.
//
// Bound: two checkpoints and twice `segment_bytes`, and one input more. A state beyond
// `max_checkpoint` is not kept (a million records would be copied every few minutes): the inputs
// are there all the same, and the recording says that nothing can be played from them.
#pragma once

#include "grace/recording.hh"

#include <array>

namespace grace {

class recorder {
public:
    struct limits {
        std::size_t segment_bytes = 1u << 20;
        std::size_t max_checkpoint = 2u << 20;
    };
    recorder();
    explicit recorder(limits l)
        : limits_(l) {}

    // Before the step, so that an input that breaks an invariant is the last one recorded.
    void before_step(instant at, const any_input&, const fsm&);
    void after_step(const output&);

    // As decode_recording() takes it. Times and names are the caller's.
    bytes dump(const std::string& made_by, const std::string& why, std::int64_t realtime,
               instant boottime) const;

private:
    struct segment {
        std::optional<bytes> start;
        bytes steps;
        std::uint32_t count = 0;
    };
    limits limits_;
    std::array<segment, 2> kept_; // the older one, the newer one
    std::uint64_t seen_ = 0;
    bool open_ = false; // the last step has no digest yet
};

} // namespace grace
