// SPDX-License-Identifier: GPL-2.0-or-later
// One seed: a cluster, its people, its faults. First the fault phase, on slow and jittery channels;
// then faults stop, everything is fenced, booted and started, and every grace must lift (L1).
#pragma once

#include "sim/checker.hh"

#include <array>

namespace grace::sim {

// Each kind of fault, and what the table calls it.
#define GRACE_SIM_FAULTS(X)                                                                        \
    X(node_crash, "node crash")                                                                    \
    X(fast_reboot, "node back before its death was noticed")                                       \
    X(daemon_crash, "daemon crash")                                                                \
    X(persist_crash, "power failure in the midst of a commit")                                     \
    X(lost_writes, "unsynced writes lost or torn")                                                 \
    X(cut, "ring split")                                                                           \
    X(merge, "ring merge before fencing")                                                          \
    X(one_way, "one-way link: membership flaps")                                                   \
    X(procdown, "corosync ends in order: procdown, not nodedown")                                  \
    X(controld, "dlm_controld dies, corosync and graced do not")                                   \
    X(in_flight, "messages in flight across a confchg")                                            \
    X(pause, "node pauses, and delivers late and twice on the old ring")                           \
    X(hang, "daemon hangs")                                                                        \
    X(late_ring, "ring id or quorum delayed")                                                      \
    X(slow_fencing, "slow fencing")                                                                \
    X(failing_fencing, "fencing fails, and is tried again")                                        \
    X(freeze, "DLM frozen")                                                                        \
    X(lose_value, "value block lost")                                                              \
    X(deadlock, "conversion deadlock")                                                             \
    X(keeper_crash, "keeper of the locks dies")                                                    \
    X(module_reload, "module unloaded and loaded")                                                 \
    X(netlink, "netlink socket lost")                                                              \
    X(late_permit, "permit timer late")                                                            \
    X(clock_jump, "clock jumps")                                                                   \
    X(disk_full, "disk full")                                                                      \
    X(db_busy, "database busy")                                                                    \
    X(db_corrupt, "database corrupt, moved away")                                                  \
    X(db_old, "member comes back with an old database")                                            \
    X(storm, "upcall storm")                                                                       \
    X(stop, "server stopped")                                                                      \
    X(by_hand, "nfsd stopped by hand")                                                             \
    X(migrate, "server moved")                                                                     \
    X(start, "operator starts a grace")                                                            \
    X(lift, "operator lifts")                                                                      \
    X(blackout, "whole cluster loses power")

enum class fault : unsigned {
#define X(name, text) name,
    GRACE_SIM_FAULTS(X)
#undef X
        count
};
constexpr std::size_t fault_count = static_cast<std::size_t>(fault::count);
extern const std::array<const char*, fault_count> fault_names;
using fault_counts = std::array<std::uint64_t, fault_count>;

class run {
public:
    run(std::uint64_t seed, bool trace, unsigned size);

    std::string go(); // nothing, or what went wrong
    std::string setting() const;
    const fault_counts& injected() const { return injected_; }
    std::uint64_t steps() const { return w_.steps; }
    void tell(transitions& t) { w_.told = &t; }

private:
    void say(const std::string&);
    void hit(fault, const std::string& what);
    unsigned any_node() { return 1 + static_cast<unsigned>(w_.draw(size_)); }
    std::string any_server() { return "vs" + std::to_string(1 + w_.draw(servers_)); }
    std::string any_client() { return "client" + std::to_string(w_.draw(clients_)); }
    bool ok() const { return checker_.bad.empty(); }
    bool may_lose_disk(const node&) const;

    void inject();
    void inject(fault, node&);
    void flap(unsigned node, unsigned times);
    void live(duration);
    void people();
    void fencing();
    void fence_now(node_id);
    void start(node&);
    void ask_to_serve();
    void serve_on(node&, const std::string& server);
    void serves(node&);
    void ends_stray(node&);
    void stops(node&);
    bool on_its_way_down(const node&, const std::string& server) const;
    void ends_held(node&);
    void stop_server(node&);
    void ask_to_stop(node&, const std::string& server);
    void traffic();
    bool quiet() const;
    void calm();
    std::string why_not_open() const;

    struct fencing_job {
        instant due;
        unsigned failures;
        std::uint64_t boot;
    };
    std::uint64_t seed_;
    world w_;
    checker checker_;
    bool trace_, calm_ = false;
    unsigned size_, servers_, clients_, faults_;
    std::vector<fault> kinds_; // drawn for this seed
    fault_counts injected_{};
    std::map<node_id, fencing_job> fencing_;
    std::map<node_id, stored_state> backups_;
    std::map<node_id, instant> disk_trouble_; // the daemon cannot start until then
    std::map<std::string, unsigned> moving_;  // to which node
    std::map<std::pair<node_id, std::string>, std::pair<ticket, std::uint64_t>> serving_;
    // by node, its boot, server: the request, and the life of the daemon that was asked
    std::map<std::tuple<node_id, std::uint64_t, std::string>, std::pair<ticket, std::uint64_t>>
        stopping_;
    std::map<std::tuple<node_id, std::uint64_t, std::string>, instant> releasing_; // and when
    // Its nfsd was ended by hand, and is kept from dropping its locks until then at most.
    std::map<std::tuple<node_id, std::uint64_t, std::string>, instant> held_;
};

} // namespace grace::sim
