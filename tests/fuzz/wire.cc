// SPDX-License-Identifier: GPL-2.0-or-later
// Messages of the group: what decodes encodes to bytes that decode to the same.
#include "grace/wire.hh"
#include "fuzz.hh"

using namespace grace;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (auto e = wire::decode({data, size})) {
        auto again = wire::decode(wire::encode(*e));
        fuzz::must(again && *again == *e, "decode, encode, decode gives the same message");
        (void)describe(e->body);
    }
    return 0;
}
