// SPDX-License-Identifier: GPL-2.0-or-later
// What systemd is told: READY, STATUS, STOPPING, and the watchdog's sign of life.
//
// The sign of life comes from a timer of the loop, so a loop that hangs gives none: systemd kills
// the daemon, and the kernel's gate has closed by itself long before (its permit ran out).
#pragma once

#include <cstdint>
#include <functional>
#include <qb/qbloop.h>
#include <string>

namespace grace {

class notifier {
public:
    // Starts the watchdog timer at half of WATCHDOG_USEC if systemd asked for one. With `healthy`,
    // the sign is only given while it says true.
    explicit notifier(qb_loop_t*, std::function<bool()> healthy = {});
    ~notifier();
    notifier(const notifier&) = delete;
    notifier& operator=(const notifier&) = delete;

    void ready(const std::string& status);
    void status(const std::string& line); // sent only if it changed
    void stopping(const std::string& status);

private:
    void arm();
    void beat();
    qb_loop_t* loop_;
    std::function<bool()> healthy_;
    std::uint64_t interval_ns_ = 0; // 0: no watchdog
    qb_loop_timer_handle timer_ = 0;
    std::string last_status_;
};

} // namespace grace
