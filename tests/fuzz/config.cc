// SPDX-License-Identifier: GPL-2.0-or-later
// Configuration files: errors are messages, and what is accepted can be shown.
#include "graced/config.hh"
#include "fuzz.hh"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto c = grace::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.conf");
    if (!c) {
        fuzz::must(!c.error().messages.empty(), "what is refused is refused for a reason");
        (void)c.error().text();
        return 0;
    }
    (void)grace::to_json(*c).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    for (const auto& [name, server] : c->servers)
        (void)grace::to_shell(*c, server);
    return 0;
}
