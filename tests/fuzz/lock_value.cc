// SPDX-License-Identifier: GPL-2.0-or-later
// The value block of lock `grace`: what decodes is the only encoding of its value.
#include "fuzz.hh"
#include "grace/wire.hh"

#include <algorithm>

using namespace grace;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    lvb_bytes b{};
    std::copy_n(data, std::min(size, b.size()), b.begin());
    if (auto v = wire::decode_lock_value(b))
        fuzz::must(wire::encode_lock_value(*v) == b, "one value, one block");
    std::uint32_t h = 2166136261u;
    for (std::size_t i = 0; i < 28; ++i)
        h = (h ^ b[i]) * 16777619u;
    for (std::size_t i = 0; i < 4; ++i)
        b[28 + i] = static_cast<std::uint8_t>(h >> (8 * i));
    if (auto v = wire::decode_lock_value(b))
        fuzz::must(wire::encode_lock_value(*v) == b, "one value, one block");
    return 0;
}
