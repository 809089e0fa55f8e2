// SPDX-License-Identifier: GPL-2.0-or-later
// The stage of the interaction scripts: production state machines, and around each of them queues
// that move only when the script says so. A message sits in a node's inbox until it is delivered,
// an order to a kernel until it is acknowledged, a commit until it is durable, a lock request until
// it is granted, the news of a grant until it is let through; time stands still until it is told to
// pass.
#pragma once

#include "grace/describe.hh"
#include "grace/fsm.hh"

#include <deque>
#include <functional>
#include <memory>
#include <optional>

namespace grace::interaction {

// Queues that a script may hold: run_until_quiet() leaves them alone.
enum class queue : std::uint8_t { sends, inbox, quorum, kernel, disk, locks, asts };

struct kernel {
    gate_state gate = gate_state::closed;
    epoch at;
    std::uint64_t trips = 0;
    instant permit = 0;
    std::set<std::string> reclaim; // servers whose reclaims it lets pass
    bool attached = false;         // a daemon listens
};

struct node {
    node_id id;
    bool powered = false, in_dlm = false;
    bool left = false; // its daemon is not in the group
    // It stands still, and its rings pass without it: whom it will miss when it wakes.
    bool paused = false;
    std::set<node_id> group_then, partition_then;
    std::unique_ptr<fsm> daemon;
    std::uint64_t lives = 0; // daemons so far
    std::uint64_t boots = 0; // of the node
    kernel kern;
    stored_state disk;
    bool has_disk = false;
    std::map<std::string, start_count> running; // nfsd's; outlive the daemon, not the node
    std::set<queue> held;

    std::deque<bytes> outbox; // only while sends are held
    std::deque<any_input> inbox;
    std::deque<any_input> quorum_news; // only while quorum's news are held
    std::deque<any_effect> orders;     // of close_gate, open_gate, set_reclaim
    std::deque<effect::persist> commits;
    std::deque<any_input> asts; // only while they are held: granted, and not yet known here
    bool asked_dlm = false;     // for the members of dlm_controld's group
};

// One DLM resource: modes held, and the conversions that wait, oldest first.
struct lock {
    std::map<node_id, lock_mode> holders;
    struct request {
        node_id node;
        lock_mode mode;
        std::optional<lvb_bytes> value;
    };
    std::deque<request> waiting;
};

class stage {
public:
    explicit stage(unsigned nodes, parameters defaults = {});

    std::function<void(const std::string&)> line; // one line of output

    instant now = seconds(1);
    std::map<node_id, node> nodes;
    parameters defaults;
    lvb_bytes value{};
    bool value_valid = true;

    node& at(unsigned id);
    node& daemon_at(unsigned id); // throws if no daemon runs there

    // Faults.
    void start(node&, bool with_kernel = true, bool with_keeper = true);
    void leave(node&);
    void join_again(node&);
    void kill(node&);  // the daemon; its kernel closes, its keeper holds CW and alive
    void crash(node&); // the node; the DLM is frozen until fence()
    void reboot(node&);
    void fence(node_id); // its locks are gone, the DLM goes on
    void split(const std::vector<std::set<node_id>>& parts);
    void pause(node&);
    void wake(node&); // into a ring with those who hear it now
    void attach(node&);
    void trip(node&);

    // Steps. Each returns false if there was nothing to do.
    void step(node&, const any_input&);
    bool deliver(node&);
    bool acknowledge(node&);
    bool make_durable(node&);
    bool answer_dlm(node&, std::optional<std::set<node_id>> members = {});
    bool grant(node&);
    void tell_grants(node&); // those whose news was held
    std::string why_not_granted(const node&) const;
    void run_until_quiet();
    void run_for(duration, bool everything_moves);

    std::map<std::string, lock> locks; // "grace", "alive.1", …
    bool frozen = false;
    ticket ask(const std::string& what);
    void flush(node&);
    void reform(const std::set<node_id>& members, const std::set<node_id>& joined,
                const std::vector<input::departed>& left, bool new_ring);
    std::set<node_id> partition_of(node_id) const;
    std::set<node_id> group_of(node_id) const; // those of its partition with a daemon

private:
    void perform(node&, any_effect&);
    void announce_quorum(const std::set<node_id>& partition, const std::set<node_id>& to,
                         const std::set<node_id>& left = {});
    bool grantable(const lock&, const lock::request&) const;
    void watch();

    std::vector<std::set<node_id>> parts_;
    std::set<node_id> unfenced_;
    std::uint64_t ring_ = 0, tickets_ = 0;
    std::map<ticket, std::string> asked_;
};

} // namespace grace::interaction
