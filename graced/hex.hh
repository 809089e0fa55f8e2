// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes that JSON cannot hold, as two lower-case digits each.
#pragma once

#include <cstdint>
#include <string>

namespace grace {

// `range`: of characters or bytes.
std::string to_hex(const auto& range) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out;
    out.reserve(range.size() * 2);
    for (const auto each : range) {
        const auto b = static_cast<std::uint8_t>(each);
        out += digits[b >> 4];
        out += digits[b & 15];
    }
    return out;
}

} // namespace grace
