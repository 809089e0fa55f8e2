// SPDX-License-Identifier: GPL-2.0-or-later
// What happened in a simulated run, one line for each event of the protocol, for the model to
// follow (tests/model/replay). `grace-sim --seed N --transitions FILE`.
#pragma once

#include "grace/input.hh"
#include "grace/types.hh"

#include <iosfwd>
#include <map>
#include <set>
#include <string>

namespace grace::sim {

class node;
class world;

class transitions {
public:
    explicit transitions(std::ostream& out)
        : out_(out) {}

    void fault(const world&, const char* name);     // one that the model does not have
    void observe(const world&);                     // before and after each event
    void delivering(const node&, const any_input&); // what comes next, if it is of the stream
    void delivered(const world&, const node&, const any_input&);

private:
    struct seen {
        std::uint64_t boot = 0;
        bool powered = false, in_ring = false, daemon = false, synced = false, open = false;
        std::set<std::string> reclaim, stopping;
        std::map<std::string, std::uint64_t> finished;
        lock_mode held = lock_mode::nl;
    };
    void line(const world&, const char* kind, node_id, const std::string& rest = {});

    std::ostream& out_;
    std::map<node_id, seen> seen_;
    bool frozen_ = false;
    bool synced_before_ = false;
    std::uint64_t applied_before_ = 0;
    bool purged_before_ = false; // the sender of a DURABLE had said it already
};

} // namespace grace::sim
