// SPDX-License-Identifier: GPL-2.0-or-later
// Recordings (gracectl replay FILE): any file is refused or read, and what is read is shown. The
// checksum is put right. A machine from a file may be one that never was: a step of it may throw
// (broken invariant, .at()), as gracectl expects; it may do nothing worse.
#include "grace/recording.hh"
#include "fuzz.hh"
#include "grace/describe.hh"

#include <exception>

using namespace grace;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, data + size);
    std::uint32_t h = 2166136261u;
    for (std::uint8_t b : in)
        h = (h ^ b) * 16777619u;
    for (int i = 0; i < 4; ++i)
        in.push_back(static_cast<std::uint8_t>(h >> (8 * i)));
    auto d = decode_recording(in);
    if (!d.found) {
        fuzz::must(*d.fault != 0, "what is refused is refused for a reason");
        return 0;
    }
    const bytes out = encode_recording(*d.found);
    auto again = decode_recording(out);
    fuzz::must(again.found && encode_recording(*again.found) == out,
               "decode, encode, decode gives the same recording");
    for (const recorded_input& i : d.found->inputs) {
        (void)describe(i.in);
        if (!d.found->start)
            continue;
        try {
            d.found->start->step(i.at, i.in);
        } catch (const std::exception&) {
            return 0;
        }
        for (const any_effect& e : d.found->start->take_output())
            (void)describe(e);
    }
    return 0;
}
