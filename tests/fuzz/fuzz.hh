// SPDX-License-Identifier: GPL-2.0-or-later
// What the fuzzers share. A property that does not hold ends the process; libFuzzer keeps the
// input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

inline void must(bool holds, const char* what) {
    if (holds)
        return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
}

// Messages and snapshots have it behind their magic, little-endian (docs/wire.md).
inline void put_version(std::vector<std::uint8_t>& in, std::uint16_t version) {
    if (in.size() < 6)
        return;
    in[4] = static_cast<std::uint8_t>(version);
    in[5] = static_cast<std::uint8_t>(version >> 8);
}

// Numbers from the input; zeros when it has ended.
class source {
public:
    explicit source(std::span<const std::uint8_t> in)
        : in_(in) {}
    bool empty() const { return in_.empty(); }
    std::uint8_t byte() {
        if (in_.empty())
            return 0;
        const std::uint8_t b = in_.front();
        in_ = in_.subspan(1);
        return b;
    }
    std::uint64_t number(std::uint64_t below) { return byte() % below; }
    bool chance() { return (byte() & 1) != 0; }
    std::vector<std::uint8_t> bytes(std::size_t n) {
        std::vector<std::uint8_t> out(
            in_.begin(),
            in_.begin() + static_cast<std::ptrdiff_t>(n < in_.size() ? n : in_.size()));
        in_ = in_.subspan(out.size());
        return out;
    }

private:
    std::span<const std::uint8_t> in_;
};

} // namespace fuzz
