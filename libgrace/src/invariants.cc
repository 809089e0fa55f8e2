// SPDX-License-Identifier: LGPL-2.1-or-later
// The invariants of docs/design.md as far as one node can see them, checked after every step, in
// release builds too. A node that breaks one must not go on: the daemon dies, its kernel closes.
#include "grace/fsm.hh"

#include <stdexcept>

namespace grace {
namespace {
void require(bool holds, const char* what) {
    if (!holds)
        throw std::logic_error(std::string("invariant broken: ") + what);
}
} // namespace

void check_invariants(const fsm& f) {
    const state& s = f.replicated();
    require(!s.recovery || s.recovery < s.current, "S6: R is below C");
    require(!s.lifting || (in_grace(s) && !any_need(s)), "S4: nobody NEEDs while lifting");
    require(!any_need(s) || in_grace(s), "a NEED only in grace");
    if (f.gate().open) {
        require(f.synced() && f.quorate(), "S7: an open gate has quorum");
        require(f.locks().held == lock_mode::pr, "S7: an open gate has PR");
        require(!in_grace(s), "S1: no gate is open in grace");
        require(f.gate().accounted == f.gate().trips, "S8: an open gate accounts for every trip");
    }
    for (const auto& [name, i] : f.instances()) {
        if (i.reclaim != reclaim_state::on && i.reclaim != reclaim_state::opening)
            continue;
        require(!f.gate().open, "S1: no reclaim while the gate is open");
        require(f.locks().held == lock_mode::cw, "S2: reclaim needs CW");
        require(s.servers.contains(name) && s.servers.at(name).host == f.params().self,
                "S9: reclaim only at the server's host");
    }
}

} // namespace grace
