// SPDX-License-Identifier: GPL-2.0-or-later
// The graces that this node has seen, for people: a database beside the recovery database.
//
// A thread of its own writes it, so that neither the loop nor the recovery database ever waits for
// it. Nothing depends on it: its queue and its size are bounded, it is never repaired (a damaged
// one is begun anew), and after an error it ends with a line in the log.
#pragma once

#include "graced/grace_watch.hh"
#include "graced/result.hh"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

struct sqlite3;

namespace grace {

// One grace as it was kept.
struct grace_story {
    epoch at, recovery;                // C and R
    std::int64_t began = 0, ended = 0; // ms since 1970; 0: it is on, or its end is not known
    std::string outcome;               // lifted, followed, unknown; empty: it is on
    std::string why;
    std::vector<grace_event> events; // in their order
};

class grace_history {
public:
    // `keep`: so many graces; older ones are removed.
    grace_history(std::string path, std::int64_t keep);
    // Writes what is queued. As with the recovery database: to be the last that a process does.
    ~grace_history();
    grace_history(const grace_history&) = delete;
    grace_history& operator=(const grace_history&) = delete;

    // Never waits. What is beyond the queue's bound is lost.
    void put(std::vector<grace_event>);

    // For gracectl: the last ones, newest first. `at`: only those of this epoch (there is more than
    // one only if a cluster began anew with empty databases).
    static result<std::vector<grace_story>> read(const std::string& path, std::size_t limit,
                                                 epoch at = {});

private:
    static constexpr std::size_t max_queued = 20'000;
    void run();
    bool open();
    bool write(const std::vector<grace_event>&);
    bool write_one(const grace_event&);
    void end(const char* doing);

    const std::string path_;
    const std::int64_t keep_;
    sqlite3* db_ = nullptr;  // used by the thread only
    std::int64_t grace_ = 0; // row of the one that is on; likewise

    std::mutex mutex_; // guards all that follows
    std::condition_variable work_;
    std::vector<grace_event> queue_;
    bool ending_ = false, failed_ = false;
    std::thread thread_;
};

} // namespace grace
