// SPDX-License-Identifier: GPL-2.0-or-later
// What systemd is told, through libsystemd. Without systemd (no NOTIFY_SOCKET) nothing happens.
#include "graced/adapters/notify.hh"

#include <systemd/sd-daemon.h>
#include <utility>

namespace grace {

namespace {

// STATUS= is one line.
std::string one_line(std::string text) {
    for (char& c : text) {
        if (c == '\n' || c == '\r') {
            c = ' ';
        }
    }
    return text;
}

} // namespace

notifier::notifier(qb_loop_t* loop, std::function<bool()> healthy)
    : loop_(loop)
    , healthy_(std::move(healthy)) {
    std::uint64_t microseconds = 0;
    if (sd_watchdog_enabled(0, &microseconds) > 0 && microseconds != 0) {
        interval_ns_ = microseconds * 1000 / 2;
        beat();
    }
}

notifier::~notifier() {
    if (timer_ != 0) {
        qb_loop_timer_del(loop_, timer_);
    }
}

void notifier::arm() {
    if (qb_loop_timer_add(
            loop_, QB_LOOP_HIGH, interval_ns_, this,
            [](void* data) {
                auto* self = static_cast<notifier*>(data);
                self->timer_ = 0;
                self->beat();
            },
            &timer_) != 0) {
        timer_ = 0;
    }
}

void notifier::beat() {
    if (!healthy_ || healthy_()) {
        sd_notify(0, "WATCHDOG=1");
    }
    arm();
}

void notifier::ready(const std::string& line) {
    last_status_ = one_line(line);
    sd_notify(0, ("READY=1\nSTATUS=" + last_status_).c_str());
}

void notifier::status(const std::string& line) {
    std::string text = one_line(line);
    if (text != last_status_) {
        last_status_ = std::move(text);
        sd_notify(0, ("STATUS=" + last_status_).c_str());
    }
}

void notifier::stopping(const std::string& line) {
    last_status_ = one_line(line);
    sd_notify(0, ("STOPPING=1\nSTATUS=" + last_status_).c_str());
}

} // namespace grace
