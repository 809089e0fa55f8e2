// SPDX-License-Identifier: GPL-2.0-or-later
// What the node itself says, without a daemon: which GFS2 is mounted and whether its locks are
// gated, and on which nodes corosync knows a graced. For gracectl; the daemon must not look at
// mounts, which may hang with a frozen lockspace.
#pragma once

#include "graced/result.hh"

#include <cstdint>
#include <string>
#include <vector>

namespace grace {

struct gfs2_mount {
    std::string path;
    std::string device; // major:minor
    std::string uuid;   // empty if the kernel does not tell it
    std::string gate;   // gated, ungated (parameter of gfs2_gate), private (localflocks), open (no
                        // gfs2_gate is loaded)
};

// From mountinfo, /sys/fs/gfs2 and gfs2_gate's parameter `ungated`: not from its parameter
// `filesystems`, whose reader waits for every mount that is under way. `root`: for tests.
std::vector<gfs2_mount> gfs2_mounts(const std::string& root = "");

// The other nodes on which a process is in graced's CPG group.
result<std::vector<std::uint32_t>> graced_elsewhere(const std::string& group);

} // namespace grace
