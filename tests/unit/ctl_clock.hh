// SPDX-License-Identifier: GPL-2.0-or-later
// The time of what gracectl shows in golden texts: UTC, and a clock that stands.
#pragma once

#include <cstdlib>
#include <ctime>

inline constexpr double now = 1767323045; // 2026-01-02T03:04:05

struct utc {
    utc() {
        ::setenv("TZ", "UTC", 1);
        ::tzset();
    }
} const in_utc;
