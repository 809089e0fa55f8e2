// SPDX-License-Identifier: LGPL-2.1-or-later
// The permit, by echo. A gate may be open until TTL after the latest of this node's own send times
// that another member has echoed.
//
// Bad scenario without the echo: a node is paused for ten seconds; the others drop it and recover
// its locks; it wakes and delivers its own heartbeat to itself on the old ring, about one second
// before it learns of the new membership. Self-delivery proves nothing (measured; corosync 3.1.7).
#pragma once

#include "grace/message.hh"
#include "grace/types.hh"

namespace grace {

class permit {
public:
    // `ttl` and `interval` in ns; ttl must be below corosync's token timeout.
    permit(node_id self, duration ttl, duration interval)
        : self_(self)
        , ttl_(ttl)
        , interval_(interval) {}

    // A new membership: nothing that was heard in an older one counts.
    void reset();
    // A heartbeat was delivered. `alone`: this is the only node in the quorate node list.
    void heard(node_id from, const msg::heartbeat&, bool alone);
    // The heartbeat to send now, if one is due.
    bool due(instant now) const { return now >= next_; }
    instant next() const { return next_; }
    msg::heartbeat beat(instant now);

    instant until() const { return fresh_ == 0 ? 0 : fresh_ + ttl_; }
    duration ttl() const { return ttl_; }

private:
    friend struct archive;
    node_id self_;
    duration ttl_, interval_;
    instant next_ = 0;
    instant last_ = 0;  // the latest send time, in this membership
    instant fresh_ = 0; // our latest send time that came back as an echo
    std::map<node_id, instant> heard_;
};

} // namespace grace
