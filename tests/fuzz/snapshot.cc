// SPDX-License-Identifier: GPL-2.0-or-later
// Snapshots. Version and checksum are put right: libFuzzer will not guess a checksum.
#include "fuzz.hh"
#include "grace/wire.hh"

#include <cstring>

using namespace grace;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    (void)wire::decode_state({data, size});
    std::vector<std::uint8_t> in(data, data + size);
    fuzz::put_version(in, wire::version);
    std::uint32_t h = 2166136261u; // FNV-1a, as docs/wire.md
    for (std::uint8_t b : in)
        h = (h ^ b) * 16777619u;
    for (int i = 0; i < 4; ++i)
        in.push_back(static_cast<std::uint8_t>(h >> (8 * i)));
    if (auto s = wire::decode_state(in)) {
        auto again = wire::decode_state(wire::encode_state(*s));
        fuzz::must(again && *again == *s, "decode, encode, decode gives the same state");
    }
    return 0;
}
