// SPDX-License-Identifier: GPL-2.0-or-later
// Datagrams of the kernel module lockd_shim.
#include "adapters/shim_message.hh"
#include "fuzz.hh"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return grace::shim::fuzz_one(data, size);
}
