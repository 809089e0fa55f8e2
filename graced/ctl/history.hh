// SPDX-License-Identifier: GPL-2.0-or-later
// A grace as it was kept: as JSON, as text, as a picture. Pure: golden texts test it.
#pragma once

#include "graced/adapters/client_history.hh"
#include "graced/adapters/grace_history.hh"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace grace::ctl {

// What `gracectl --json history EPOCH` has under "grace"; gracectl(8) describes it. Times are
// seconds since 1970. `names`: of clients, as far as they are known.
nlohmann::json grace_json(const grace_story&, const std::vector<history_event>& names = {});

// One of the events, of `watch` too, without its time.
std::string event_in_words(const nlohmann::json& event);
// `graces`: {"graces": [...]}, without events.
std::string render_graces(const nlohmann::json& graces, double now);
std::string render_grace(const nlohmann::json& grace, double now);
// SVG 1.1: nodes and servers as rows, what they were in as bars, by time.
std::string draw_grace(const nlohmann::json& grace);

} // namespace grace::ctl
