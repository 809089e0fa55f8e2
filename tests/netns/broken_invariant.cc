// SPDX-License-Identifier: GPL-2.0-or-later
// graced with an invariant that can be broken: whoever records a client `mallory` breaks it. No
// input breaks one of the core's, and what the daemon does then has to be seen once: linked into
// graced-broken instead of the core's check_invariants(), for tests only, never installed.
#include "grace/fsm.hh"

#include <stdexcept>

void grace::check_invariants(const fsm& f) {
    for (const auto& [name, v] : f.replicated().servers)
        if (v.records.contains("mallory"))
            throw std::logic_error("invariant broken: mallory is on record");
}
