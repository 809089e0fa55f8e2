// SPDX-License-Identifier: GPL-2.0-or-later
// The daemon's JSON as text for people. Pure: golden texts test it. A field that is missing or of
// another type reads as unknown, so that an older gracectl survives a newer daemon.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace grace::ctl {

// `now`: CLOCK_REALTIME in seconds, for relative times.
std::string render_status(const nlohmann::json& status, double now);
std::string render_servers(const nlohmann::json& status, double now);
std::string render_nodes(const nlohmann::json& status);
std::string render_clients(const nlohmann::json& clients, double now = 0);
std::string render_history(const nlohmann::json& events, double now);
std::string render_mounts(const nlohmann::json& mounts);
// In the format of mountd's rmtab.
std::string render_rmtab(const nlohmann::json& mounts);
// In the format of nfs-ganesha's rados_grace: one line for each server and each node, its flags N
// (needs grace) and E (enforces). A server that is called like a node shares its line.
std::string render_dump(const nlohmann::json& status);
std::string render_doctor(const nlohmann::json& answer);
// A simple answer: its "detail", or `otherwise`.
std::string render_done(const nlohmann::json& answer, const std::string& otherwise);

// By number, as JSON has it.
std::map<std::string, std::string> node_names(const nlohmann::json& status);
std::string host_of(const nlohmann::json& server, const std::map<std::string, std::string>& names);
// "up", "dead, NOT PROVEN FENCED", …
std::string node_state(const nlohmann::json& node);

// 2026-01-02T03:04:05+01:00 (12 s ago); local time.
std::string format_time(double realtime, double now);
// 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h
std::string format_duration(double seconds);

} // namespace grace::ctl
