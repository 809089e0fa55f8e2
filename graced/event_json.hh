// SPDX-License-Identifier: GPL-2.0-or-later
// An event of grace_watch.hh as gracectl(8) describes it, for the daemon's answers and for history.
#pragma once

#include "graced/grace_watch.hh"

#include <nlohmann/json.hpp>

namespace grace {

inline nlohmann::json event_json(const grace_event& e) {
    return {{"time", static_cast<double>(e.time) / 1000.0}, // seconds since 1970
            {"what", e.what},
            {"node", e.node},
            {"server", e.server},
            {"detail", e.detail},
            {"count", e.count},
            {"all", e.all}};
}

} // namespace grace
