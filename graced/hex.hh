// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes that JSON cannot hold, as two lower-case digits each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

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

// Nothing for what is not such digits.
inline std::optional<std::string> from_hex(std::string_view hex) {
    const auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    std::string out;
    if (hex.size() % 2 != 0)
        return std::nullopt;
    out.reserve(hex.size() / 2);
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        const int high = digit(hex[i]);
        const int low = digit(hex[i + 1]);
        if (high < 0 || low < 0)
            return std::nullopt;
        out += static_cast<char>(high * 16 + low);
    }
    return out;
}

// For people: what is not printable, and a backslash, as \\xHH.
inline std::string printable(std::string_view s) {
    std::string out;
    for (const char c : s) {
        if (c >= 0x20 && c < 0x7f && c != '\\')
            out += c;
        else
            out += "\\x" + to_hex(std::string_view(&c, 1));
    }
    return out;
}
// The bytes that printable() has shown, or hexadecimal digits stand for.
inline std::string from_printable(std::string_view s) {
    if (auto digits = from_hex(s); digits && !digits->empty())
        return *digits;
    std::string out;
    while (!s.empty()) {
        const auto byte =
            s.starts_with("\\x") && s.size() >= 4 ? from_hex(s.substr(2, 2)) : std::nullopt;
        out += byte ? *byte : std::string(1, s.front());
        s.remove_prefix(byte ? 4 : 1);
    }
    return out;
}

} // namespace grace
