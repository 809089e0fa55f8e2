// SPDX-License-Identifier: GPL-2.0-or-later
// An in-process lock table that behaves like the keepers of all nodes and the DLM behind them: the
// stand-in for machines without a DLM, and the lock service of the simulator. No I/O, no clock, no
// thread; ordered containers only, so a run can be repeated.
//
// What it does as the DLM does (fs/dlm/lock.c):
//   - PR and CW exclude each other, EX excludes all but NL;
//   - a conversion is granted at once if it is compatible with all granted modes, overtaking queued
//     conversions; else it waits, first come first served, before all waiting new locks;
//   - a new lock waits behind every queued conversion and every older new lock;
//   - holders in the way get a blocking event, once for each mode that they hold;
//   - the value block of `grace` is read on the way up from nothing or NL, written on the way down
//     from EX if a value is given; it disappears with the last lock;
//   - while the lockspace is frozen nothing is granted and nothing is started: even a conversion
//     down and a cancel wait (dlm_lock_recovery blocks the caller).
// What it does as the keeper does: `grace` is first taken in NL, which stays when a request is
// cancelled; `alive.N` is taken directly and dropped wholly by NL, so a probe leaves nothing
// behind.
#pragma once

#include "adapters/lock_words.hh"

#include <list>
#include <set>
#include <string>
#include <vector>

namespace grace {

class embedded_lock_table {
public:
    // As lock_port, for node `owner`. A request that the rules forbid (check_conversion) gives an
    // event `refused`; an outstanding request is not touched by that.
    void convert(node_id owner, lock_key, lock_mode, const lvb_bytes* value = nullptr);
    // Cancels what is outstanding, if anything is. If the grant came first there is no other event.
    void cancel(node_id owner, lock_key);

    // `dead` left the membership (none: some node did): the lockspace stops.
    void freeze(node_id dead = {});
    // `dead` was fenced, recovery for it is over: its locks are dropped; ends freeze(dead) and a
    // freeze without a name. If it held EX on `grace`, the value block becomes invalid.
    // `lose_value`: so it does if that node only was master of the resource while no other node
    // held more than NL (recover_lvb in fs/dlm/recover.c); the table has no masters, the caller
    // draws.
    void fenced(node_id dead, bool lose_value = false);
    // Ends every freeze; nobody's locks are dropped.
    void thaw();
    // The keeper of `owner` died, its node did not. Its locks are dropped when nothing is frozen;
    // what the node's next keeper asks for meanwhile is new locks, which the old ones may block.
    void keeper_died(node_id owner);

    bool frozen() const { return !frozen_for_.empty(); }
    // What `owner` holds and waits for: what its keeper would say to a daemon that connects.
    lock_map locks_of(node_id owner) const;
    // The modes held on a resource, by node, those of a keeper that is not quite gone too; for
    // assertions.
    std::multimap<node_id, lock_mode> holders(lock_key) const;
    // All of it, a line for each lock, for people.
    std::string dump() const;

    // What has happened since the last call, in order.
    std::vector<lock_event> take_events();

private:
    // One life of one node's keeper.
    struct keeper_id {
        node_id node;
        unsigned life = 0;
        auto operator<=>(const keeper_id&) const = default;
    };
    struct lock {
        std::optional<lock_mode> granted;
        std::optional<lock_mode> wanted;
        std::optional<lvb_bytes> write;
        bool started = true; // false: waits for the thaw outside of the queues
        bool told = false;   // got a blocking event for the mode that it holds
    };
    struct resource {
        std::map<keeper_id, lock> locks;
        std::list<keeper_id> converting, waiting;
        bool has_value = false; // a value block exists (somebody wrote it)
        bool value_valid = true;
        lvb_bytes value{};
    };
    enum class operation : std::uint8_t { start, cancel, drop };
    struct deferred {
        operation op;
        keeper_id owner;
        lock_key key;
    };

    keeper_id keeper_of(node_id) const;
    void emit(keeper_id, lock_event);
    void perform(operation, keeper_id owner, lock_key);
    void start(keeper_id owner, lock_key);
    void revert(keeper_id owner, lock_key);
    void remove_lock(keeper_id owner, lock_key);
    void drop_all(keeper_id owner);
    void grant(lock_key, resource&, keeper_id owner);
    void grant_pending(lock_key);
    void tell_holders(lock_key, resource&, keeper_id waiter);
    void resume();
    static bool conflicts(const resource&, keeper_id owner, lock_mode wanted);

    std::map<lock_key, resource> resources_;
    std::map<node_id, unsigned> lives_;
    std::set<node_id> frozen_for_; // node 0: a freeze without a name
    std::list<deferred> deferred_;
    std::vector<lock_event> events_;
};

} // namespace grace
