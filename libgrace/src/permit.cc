// SPDX-License-Identifier: LGPL-2.1-or-later
#include "grace/permit.hh"

#include <algorithm>

namespace grace {

void permit::reset() {
    heard_.clear();
    fresh_ = 0;
    next_ = 0;
}

void permit::heard(node_id from, const msg::heartbeat& beat, bool alone) {
    if (from == self_) {
        if (alone)
            fresh_ = std::max(fresh_, beat.sent);
        return;
    }
    heard_[from] = beat.sent;
    if (auto it = beat.heard.find(self_); it != beat.heard.end())
        fresh_ = std::max(fresh_, it->second);
}

msg::heartbeat permit::beat(instant now) {
    next_ = now + interval_;
    return {now, heard_};
}

} // namespace grace
