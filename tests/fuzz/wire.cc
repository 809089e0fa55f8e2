// SPDX-License-Identifier: GPL-2.0-or-later
// Messages of the group: what decodes encodes to bytes that decode to the same. As they are, and with
// the version put right: the corpus outlives versions.
#include "grace/wire.hh"
#include "fuzz.hh"

using namespace grace;

namespace {
void decode(std::span<const std::uint8_t> in) {
    if (auto e = wire::decode(in)) {
        auto again = wire::decode(wire::encode(*e));
        fuzz::must(again && *again == *e, "decode, encode, decode gives the same message");
        (void)describe(e->body);
    }
}
} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decode({data, size});
    std::vector<std::uint8_t> in(data, data + size);
    fuzz::put_version(in, wire::version);
    decode(in);
    return 0;
}
