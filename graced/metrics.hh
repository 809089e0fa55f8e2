// SPDX-License-Identifier: GPL-2.0-or-later
// What the daemon knows, as metrics: OpenMetrics 1.0, or the older text format of Prometheus, which
// is all that node_exporter's textfile collector reads. Every family is always there with its type,
// so that dashboards and alerts can be checked against it; samples only where something is known.
// Labels are names of nodes and servers, which are few. Clients have none: they are many, and their
// names are nobody's business.
#pragma once

#include "graced/grace_watch.hh"

#include <array>
#include <optional>
#include <string>

namespace grace {

enum class metrics_format : std::uint8_t { openmetrics, prometheus };

struct metrics_context {
    instant now = 0;     // CLOCK_BOOTTIME
    double realtime = 0; // seconds since 1970 at `now`
    std::string state, lock_backend, gate_backend;
    bool bypass = false;
    std::size_t warnings = 0;            // lines of status
    std::optional<instant> permit_until; // 0: none was given yet
    struct kernel {                      // of the module; none with a stand-in
        std::uint64_t waiters = 0, undone = 0, exempts = 0;
    };
    std::optional<kernel> module;
    std::optional<duration> frozen_for; // of the lockspace
    grace_watch::totals graces;
    struct tracker {
        bool tracked = false;
        std::uint64_t upcalls = 0;
    };
    std::map<std::string, tracker> trackers; // by server, on this node
    struct database {
        bool failed = false;
        std::uint64_t batches = 0, queued = 0, failures = 0;
        double commit_seconds = 0;
        // (limit in seconds, commits that took at most so long and longer than the one before)
        std::vector<std::pair<double, std::uint64_t>> commits;
        std::uint64_t longer = 0; // commits beyond the last limit
    } store;
};

std::string metrics_text(const fsm&, const metrics_context&, metrics_format);

} // namespace grace
