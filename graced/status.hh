// SPDX-License-Identifier: GPL-2.0-or-later
// The state machine as the JSON that gracectl shows.
#pragma once

#include "grace/fsm.hh"

#include <nlohmann/json.hpp>

namespace grace {

struct status_context {
    instant now = 0;             // CLOCK_BOOTTIME
    std::int64_t realtime_s = 0; // CLOCK_REALTIME at `now`
    std::string state;           // cluster | single
    std::string lock_backend, gate_backend;
    std::vector<std::string> warnings;
    std::int64_t waiters = -1; // -1: unknown
    bool bypass = false;       // an operator has opened this node's gate past everything
    std::uint32_t exempts = 0; // processes that pass the gate
};

nlohmann::json status_json(const fsm&, const status_context&);
// At most `limit` clients after the one with key `after_hex`, of one server or of all.
nlohmann::json clients_json(const fsm&, const std::string& server, const std::string& after_server,
                            const std::string& after_hex, std::size_t limit);
// The same of who has mounted what over NFSv3.
nlohmann::json mounts_json(const fsm&, const std::string& server, const std::string& after_server,
                           const std::string& after_hex, std::size_t limit);

} // namespace grace
