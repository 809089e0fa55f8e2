// SPDX-License-Identifier: GPL-2.0-or-later
// Requests of the control IPC: what is taken is an object with a verb, and says the same again.
#include "fuzz.hh"
#include "graced/adapters/control_ipc.hh"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto r = grace::parse_request(std::string(reinterpret_cast<const char*>(data), size));
    if (!r) {
        fuzz::must(!r.error().empty(), "what is refused is refused for a reason");
        return 0;
    }
    fuzz::must(r->is_object() && r->at("verb").is_string(), "a request has a verb");
    const auto again = grace::parse_request(r->dump());
    fuzz::must(again && *again == *r, "parse, dump, parse gives the same request");
    return 0;
}
