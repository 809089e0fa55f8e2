// SPDX-License-Identifier: LGPL-2.1-or-later
#include "grace/permit.hh"

#include <algorithm>

namespace grace {

void permit::reset() {
    heard_.clear();
    fresh_ = 0;
    last_ = 0;
    next_ = 0;
}

void permit::heard(node_id from, const msg::heartbeat& beat, bool alone) {
    if (from == self_) {
        if (alone)
            fresh_ = std::max(fresh_, beat.sent);
        return;
    }
    heard_[from] = beat.sent;
    // An echo of what was never sent is no echo: a liar could make the permit last for ever.
    if (auto it = beat.heard.find(self_); it != beat.heard.end() && it->second <= last_)
        fresh_ = std::max(fresh_, it->second);
}

msg::heartbeat permit::beat(instant now) {
    next_ = now + interval_;
    last_ = now;
    return {now, heard_};
}

} // namespace grace
