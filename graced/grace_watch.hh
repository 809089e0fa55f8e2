// SPDX-License-Identifier: GPL-2.0-or-later
// What happens in a grace, as events for people and counts for metrics: found by comparing what the
// machine says after each step with what it said before. No file, no clock. The protocol does not
// know of it, and nothing depends on it.
//
// Each node sees what is replicated, by its own clock, and of reclaim what its own kernel does.
#pragma once

#include "grace/fsm.hh"

namespace grace {

struct grace_event {
    epoch at = {};         // C of the grace; 0: out of one (died, left, joined, hosted only)
    epoch recovery = {};   // R
    std::int64_t time = 0; // ms since 1970. Within a grace by CLOCK_BOOTTIME: a clock that is set
                           // in its midst makes nothing last longer or shorter
    // Words of `gracectl history`:
    //   began          detail: why
    //   found          this node came, or came back, in the midst of it
    //   node           a node at its beginning; detail: up, without graced, down
    //   need           server, its host; detail: why; all: its clients on record
    //   phase          detail: entering, reclaiming, lifting
    //   enforcing, not_enforcing, joined, left (its daemon), died, fenced   node
    //   hosted         server, its new host
    //   open           server: reclaim is open on this node
    //   done           server, its host; count of all have reclaimed
    //   purged         server; count of all were removed
    //   purge          the last node out
    //   lost           this node has no state any more: what follows is not known here
    //   more           what follows is not kept
    //   lifted, followed (another began after the PURGE), unknown (this node was away): its end
    std::string what = {}, node = {}, server = {}, detail = {};
    std::uint64_t count = 0, all = 0;
    bool operator==(const grace_event&) const = default;
};

class grace_watch {
public:
    static constexpr std::size_t max_events = 10'000; // of one grace

    struct totals {
        std::uint64_t begun = 0, ended = 0, purges = 0, clients_purged = 0;
        duration lasted = 0, last = 0; // of those that ended: all together, and the last one
    };

    // After each step. `now`: CLOCK_BOOTTIME; `realtime_ms`: since 1970. What is new, in order.
    std::vector<grace_event> look(const fsm&, instant now, std::int64_t realtime_ms);
    const totals& counts() const { return totals_; }

private:
    struct node_seen {
        std::string name;
        std::uint64_t deaths = 0;
        bool up = false, synced = false, live = false, enforcing = false, fenced = false;
    };
    struct server_seen {
        std::string host;
        node_id host_id;
        start_count start, lost;
        std::size_t clients = 0;
        bool need = false, needed = false, open = false;
    };
    struct seen {
        position applied;
        std::string current_phase;
        bool lifting = false;
        std::map<node_id, node_seen> nodes;
        std::map<std::string, server_seen> servers;
    };
    static seen take(const fsm&);
    static std::string why(const seen& before, const seen& after, const server_seen& was,
                           const server_seen& is);
    void say(grace_event);
    void begin(const fsm&, const seen&, bool was_synced, instant now, std::int64_t realtime_ms);
    void end(const char* how, instant now);
    void compare_nodes(const seen&);
    void compare_out_of_grace(const seen&, instant now, std::int64_t realtime_ms);
    void compare_servers(const fsm&, const seen&, bool was_synced);

    bool synced_ = false, open_ = false;
    epoch at_, recovery_;
    instant now_ = 0, began_ = 0;
    std::int64_t base_ = 0; // real time, ms, of instant 0
    std::size_t said_ = 0;  // events of this grace
    seen seen_;
    totals totals_;
    std::vector<grace_event> out_;
};

} // namespace grace
