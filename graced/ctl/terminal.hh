// SPDX-License-Identifier: GPL-2.0-or-later
// The terminal of `gracectl watch`, by ncurses; and waiting that a signal ends.
#pragma once

#include "graced/ctl/watch.hh"

namespace grace::ctl {

// Blocks the signals that end a program and has them read from a descriptor, so that none of them
// ends it before the terminal is as it was. For one watch in a process.
class terminal {
public:
    terminal();
    ~terminal();
    terminal(const terminal&) = delete;
    terminal& operator=(const terminal&) = delete;

    // None if standard input and output are no terminal, or one that cannot be drawn on.
    std::unique_ptr<watch_screen> open();
    // false: it is to end: a signal, q, the terminal or the reader of standard output is gone.
    // Returns early after a key, or when the size is another.
    bool wait(double seconds);

private:
    int signals_ = -1;
    bool drawn_on_ = false;
};

} // namespace grace::ctl
