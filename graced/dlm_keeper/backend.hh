// SPDX-License-Identifier: GPL-2.0-or-later
// Who really keeps the locks: the kernel's DLM (dlm_backend) or the embedded table. The server
// (server.hh) speaks with the daemons; behind this class it is the same for both.
#pragma once

#include "adapters/lock_words.hh"
#include "result.hh"

#include <functional>
#include <string>

namespace grace::keeper {

class lock_backend {
public:
    virtual ~lock_backend() = default;

    // Opens the lockspace; once, by the keeper that the daemon will find.
    virtual void start() {}

    // All of them return at once and are called from the loop's thread, as are the callbacks. A
    // request passed check_conversion(); it gets one of granted, refused, cancelled.
    virtual void convert(node_id owner, lock_key, lock_mode, const lvb_bytes* value) = 0;
    virtual void cancel(node_id owner, lock_key) = 0;
    virtual lock_map locks_of(node_id owner) const = 0;

    virtual bool ready() const = 0; // the lockspace is open
    virtual std::uint32_t blocked_ms() const { return 0; }
    virtual bool embedded() const { return false; }

    // Drops every lock; `on_released` when done. `leave`: leaves the lockspace, too. Not if another
    // keeper of this node may be using it: leaving takes everybody's locks on this node.
    virtual void release_all(bool leave) = 0;

    // What an admin may ask for. The embedded table plays the cluster; the DLM has a real one.
    virtual std::string dump() const = 0;
    virtual result<std::string> play(std::uint32_t /*command*/, node_id) {
        return fail(
            "this keeper holds locks of the kernel's DLM: only `dump` is possible, the rest "
            "is the cluster's business");
    }

    std::function<void(const lock_event&)> on_event;
    std::function<void()> on_ready;
    std::function<void(const std::string&)> on_trouble; // for the daemon's log, too
    std::function<void(node_id)> on_gone;               // embedded: that node's locks were dropped
    std::function<void()> on_released;
};

} // namespace grace::keeper
