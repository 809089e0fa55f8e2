// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl doctor: what the documents ask for and people get wrong. Three parts, so that each can
// be tested by itself: texts of files become facts (pure), the facts of a node are collected (reads
// only, no daemon needed), and checks look at facts (pure).
//
// The facts of a node are one JSON object, as it is handed from node to node: `gracectl doctor
// --facts`. What could not be found out is null or missing, and a check that needs it says so. They
// hold no passwords: of files that have some, only what is asked for is taken.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace grace::doctor {

using nlohmann::json;

constexpr int facts_format = 1;

// --- texts to facts ---

// corosync.conf(5), what graced depends on: {"token", "two_node", "wait_for_all",
// "last_man_standing", "nodes": [{"id", "name"}]}.
json read_corosync_conf(const std::string& text);
// dlm.conf(5): {"fencing", "plocks", "all": [agents of fence_all], "nodes": {"1": [agents]}}.
json read_dlm_conf(const std::string& text);
// Pacemaker's CIB: {"stonith", "agents": {"power1": "fence_ipmilan"}, "levels": [[devices]]}.
json read_cib(const std::string& text);
// The GFS2s of fstab(5): [{"path", "options"}].
json read_fstab(const std::string& text);
// The type of the file system that `path` is on, by mountinfo (proc(5)); empty if it is not told.
std::string filesystem_of(const std::string& path, const std::string& mountinfo);
// Whether modprobe.d's text makes a load of gfs2 wait for the gate (gfs2-hooks/modprobe.d).
bool loads_gate_first(const std::string& modprobe_conf);
// What an nfs-server.service drop-in writes to nfsv4gracetime; null if it writes none.
json grace_time_of_dropin(const std::string& text);

// --- the facts of this node ---

// All but "status" and "config", which who calls knows. `root`: for tests.
json collect(const std::string& runtime_dir, const std::string& database,
             const std::string& root = "");

// --- checks ---

struct finding {
    std::string check; // its name
    std::string node;  // where
    bool advice;       // else something is wrong: locks, or the cluster's rest, may be lost by it
    std::string what, remedy;
};
struct skipped {
    std::string check, node, why;
};
struct report {
    std::vector<finding> findings;
    std::vector<skipped> not_checked;
};

// A check of one node's facts, or of those of several.
struct check {
    const char* name;
    const char* asks;
    std::function<void(const json& facts, report&)> of_node;
    std::function<void(const std::vector<json>& all, report&)> of_all;
};
const std::vector<check>& checks();

// All of them. `all`: facts of nodes; the first is the one that asks.
report examine(const std::vector<json>& all);

} // namespace grace::doctor
