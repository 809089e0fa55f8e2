// SPDX-License-Identifier: GPL-2.0-or-later
// What gracectl's texts are made of. Reading is tolerant: a field that is missing or of another
// type reads as unknown.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace grace::ctl {

inline const nlohmann::json& at(const nlohmann::json& j, const char* key) {
    static const nlohmann::json nothing;
    if (!j.is_object()) {
        return nothing;
    }
    const auto found = j.find(key);
    return found == j.end() ? nothing : *found;
}

// Names come from elsewhere: none of them may steer the terminal. UTF-8 passes, but for the control
// characters that it has beyond ASCII (U+0080 to U+009F: c2 80 to c2 9f).
inline std::string clean(std::string s) {
    for (std::size_t i = 0; i < s.size(); ++i) {
        const auto u = static_cast<unsigned char>(s[i]);
        if (u < 0x20 || u == 0x7f ||
            (u == 0xc2 && i + 1 < s.size() && static_cast<unsigned char>(s[i + 1]) < 0xa0)) {
            s[i] = '?';
            if (u == 0xc2) {
                s[++i] = '?';
            }
        }
    }
    return s;
}

inline std::string text(const nlohmann::json& j, const char* key,
                        const std::string& otherwise = "?") {
    const nlohmann::json& v = at(j, key);
    return v.is_string() ? clean(v.get<std::string>()) : otherwise;
}

inline std::string number(const nlohmann::json& j, const char* key,
                          const std::string& otherwise = "?") {
    const nlohmann::json& v = at(j, key);
    return v.is_number() ? v.dump() : otherwise;
}

inline std::uint64_t count(const nlohmann::json& j, const char* key) {
    const nlohmann::json& v = at(j, key);
    return v.is_number_integer() && v >= 0 ? v.get<std::uint64_t>() : 0;
}

inline std::optional<bool> maybe(const nlohmann::json& j, const char* key) {
    const nlohmann::json& v = at(j, key);
    return v.is_boolean() ? std::optional<bool>(v.get<bool>()) : std::nullopt;
}

inline bool yes(const nlohmann::json& j, const char* key) {
    return maybe(j, key).value_or(false);
}

inline std::optional<double> moment(const nlohmann::json& j, const char* key) {
    const nlohmann::json& v = at(j, key);
    return v.is_number() ? std::optional<double>(v.get<double>()) : std::nullopt;
}

// In columns: each character of UTF-8 counts as one.
inline std::size_t width_of(const std::string& s) {
    return static_cast<std::size_t>(
        std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

inline std::string padded(const std::string& s, std::size_t width, bool right = false) {
    const std::string space(width > width_of(s) ? width - width_of(s) : 0, ' ');
    return right ? space + s : s + space;
}

} // namespace grace::ctl
