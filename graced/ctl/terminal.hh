// SPDX-License-Identifier: GPL-2.0-or-later
// The terminal of `gracectl watch`, by ncurses, and its waiting for keys and signals.
#pragma once

#include "graced/ctl/watch.hh"

namespace grace::ctl {

class terminal {
public:
    terminal() = default;
    ~terminal();
    terminal(const terminal&) = delete;
    terminal& operator=(const terminal&) = delete;

    // None if standard input and output are no terminal, or one that cannot be drawn on. From now
    // on the signals that would end the process are read by wait(), so that none does before the
    // terminal is as it was. Without a screen they end it: there is nothing to restore, and it may
    // hang in a write to a pipe that nobody reads.
    std::unique_ptr<watch_screen> open();
    // false: it is to end: a signal, q, the terminal or the reader of standard output is gone.
    // Returns early after a key, or when the size is another.
    bool wait(double seconds);

private:
    int signals_ = -1; // signalfd; with a screen only
};

} // namespace grace::ctl
