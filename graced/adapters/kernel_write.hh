// SPDX-License-Identifier: GPL-2.0-or-later
// Writes to kernel files that may wait for this very daemon.
//
// Bad scenario: nfsd, told to end its grace or to expire a client, sends an upcall (GraceDone,
// Remove) and waits for its answer, uninterruptibly. If a thread of the daemon were what waits, and
// the daemon is killed meanwhile, the kernel could not end that thread: the process stays, with its
// sockets open, no successor can start, and nobody is left to answer. So another process waits.
#pragma once

#include <string>

namespace grace {

// Opens `path` and writes `text` in a process of its own that has no other descriptor. Returns when
// that is done: 0, or the code of the error. Call it from a thread.
int write_apart(const std::string& path, const std::string& text);

} // namespace grace
