// SPDX-License-Identifier: LGPL-2.1-or-later
// Bytes out and bytes in, for messages (wire.cc) and recordings (recording.cc). Integers are
// little-endian, strings and blobs a u32 length and the bytes, containers a u32 count and the
// entries in order. A reader that met the end, a length beyond its limit or a value that there is
// none of stays failed; whoever asked looks at at_end() once, when everything was read.
#pragma once

#include "grace/record_key.hh"

#include <span>
#include <type_traits>
#include <variant>

namespace grace::wire {

class writer {
public:
    template <typename T>
    requires std::is_integral_v<T>
    void put(T v) {
        using U = std::make_unsigned_t<std::conditional_t<std::is_same_v<T, bool>, char, T>>;
        auto u = static_cast<U>(v);
        for (std::size_t i = 0; i < sizeof(U); ++i)
            out.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(u) >> (8 * i)));
    }
    template <typename Tag, typename Int>
    void put(tagged<Tag, Int> v) {
        put(v.value);
    }
    template <typename T>
    requires std::is_enum_v<T>
    void put(T v) { put(static_cast<std::underlying_type_t<T>>(v)); }
    void put(const std::string& s) {
        put(static_cast<std::uint32_t>(s.size()));
        out.insert(out.end(), s.begin(), s.end());
    }
    void put(std::span<const std::uint8_t> s) {
        put(static_cast<std::uint32_t>(s.size()));
        out.insert(out.end(), s.begin(), s.end());
    }
    void put(const record& r) {
        put(r.at);
        put(r.princhash);
    }
    template <typename C, typename F>
    void each(const C& c, F f) {
        put(static_cast<std::uint32_t>(c.size()));
        for (const auto& e : c)
            f(e);
    }
    std::vector<std::uint8_t> out;
};

class reader {
public:
    explicit reader(std::span<const std::uint8_t> in)
        : in_(in) {}
    bool ok() const { return ok_; }
    bool at_end() const { return ok_ && in_.empty(); }
    void fail() { ok_ = false; }
    std::size_t left() const { return in_.size(); }

    template <typename T>
    requires std::is_integral_v<T>
    void get(T& v) {
        if constexpr (std::is_same_v<T, bool>) {
            std::uint8_t b = 0;
            get(b);
            if (b > 1)
                fail();
            v = b == 1;
        } else {
            std::uint64_t u = 0;
            if (in_.size() < sizeof(T)) {
                fail();
                return;
            }
            for (std::size_t i = 0; i < sizeof(T); ++i)
                u |= std::uint64_t{in_[i]} << (8 * i);
            in_ = in_.subspan(sizeof(T));
            v = static_cast<T>(u);
        }
    }
    template <typename Tag, typename Int>
    void get(tagged<Tag, Int>& v) {
        get(v.value);
    }
    template <typename T>
    requires std::is_enum_v<T>
    void get(T& v, T last) {
        std::underlying_type_t<T> u{};
        get(u);
        if (u > static_cast<std::underlying_type_t<T>>(last))
            fail();
        else
            v = static_cast<T>(u);
    }
    void get(std::string& s, std::size_t limit) {
        std::uint32_t n = 0;
        get(n);
        if (!ok_ || n > limit || n > in_.size()) {
            fail();
            return;
        }
        s.assign(reinterpret_cast<const char*>(in_.data()), n);
        in_ = in_.subspan(n);
    }
    void get(std::vector<std::uint8_t>& v, std::size_t limit) {
        std::uint32_t n = 0;
        get(n);
        if (!ok_ || n > limit || n > in_.size()) {
            fail();
            return;
        }
        v.assign(in_.begin(), in_.begin() + n);
        in_ = in_.subspan(n);
    }
    void get_server(std::string& s) {
        get(s, max_server_name);
        if (s.empty())
            fail();
    }
    void get_client(std::string& s) {
        get(s, max_record_key);
        if (s.empty())
            fail();
    }
    void get(record& r) {
        get(r.at);
        get(r.princhash, max_princhash);
    }
    template <typename F>
    void each(std::size_t limit, F f) {
        std::uint32_t n = 0;
        get(n);
        if (n > limit)
            fail();
        for (std::uint32_t i = 0; ok_ && i < n; ++i)
            f();
    }

private:
    std::span<const std::uint8_t> in_;
    bool ok_ = true;
};

// Makes the variant's alternative number `tag`; false if there is none.
template <std::size_t I = 0, typename... T>
bool choose(std::variant<T...>& v, std::size_t tag) {
    if constexpr (I == sizeof...(T)) {
        return false;
    } else {
        if (tag != I)
            return choose<I + 1>(v, tag);
        v.template emplace<I>();
        return true;
    }
}

inline std::uint32_t checksum(std::span<const std::uint8_t> in) { // FNV-1a
    std::uint32_t h = 2166136261u;
    for (std::uint8_t b : in)
        h = (h ^ b) * 16777619u;
    return h;
}

} // namespace grace::wire
