// SPDX-License-Identifier: GPL-2.0-or-later
// Upcalls of nfsd; fuzz_one() has the property (what decodes survives the way back).
#include "adapters/cld_message.hh"
#include "fuzz.hh"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return grace::cld::fuzz_one(data, size);
}
