// SPDX-License-Identifier: GPL-2.0-or-later
// A simulated cluster for the production engine: agreed group, lock table, kernels, disks, clocks.
// Deterministic: one queue of events, ordered by time and then by age. Unit tests script it, the
// simulator draws it.
//
//   world.cc  events, clocks, life and death of nodes and daemons, the node's ports
//   ring.cc   corosync: rings, agreed order, what is stuck when a token is lost; dlm_controld's
//   stop
#pragma once

#include "adapters/embedded_locks.hh"
#include "graced/engine.hh"
#include "sim/transitions.hh"

#include <functional>
#include <memory>
#include <queue>
#include <random>
#include <stdexcept>

namespace grace::sim {

// What the simulated kernel of one node does, and what really happened there.
struct kernel {
    bool loaded = true;
    bool attached = false;
    gate_state gate = gate_state::closed;
    epoch at;
    std::uint64_t trips = 0;
    instant permit = 0;            // by the world's clock
    std::set<std::string> reclaim; // servers in state reclaim
    bool open(instant now) const { return gate == gate_state::open && now < permit; }
};

class world;

// One node: its disk and kernel outlive its daemon, its disk outlives both.
class node : public group_port,
             public lock_port,
             public store_port,
             public kernel_port,
             public tracker_port,
             public control_port,
             public news_port,
             public fence_port {
public:
    node(world& w, node_id i)
        : id(i)
        , world_(w) {}

    const node_id id;
    bool powered = false;
    bool corosync = false;
    bool controld = true; // dlm_controld runs, or would
    std::unique_ptr<engine> daemon;
    bool acted = false; // its kernel has opened its gate or accepted reclaims, since it booted
    instant unfenced_since = 0;
    std::uint64_t life = 0;   // of the daemon; events for an older one are dropped
    std::uint64_t boot = 0;   // of the node
    std::uint64_t keeper = 0; // life of graced-dlm; 0 while there is none
    std::uint64_t keepers = 0;
    std::uint64_t socket = 0;    // life of the daemon's netlink socket
    unsigned side = 0;           // of a cut network: nodes of one side hear each other
    instant stopped_until = 0;   // nothing reaches the daemon before (it hangs, or all is paused)
    bool paused = false;         // the whole node is
    duration skew = 0;           // its clock minus the world's
    bool trip_pending = false;   // its ring has changed, dlm_controld has not heard of it yet
    std::set<lock_key> asked;    // by this daemon of this keeper, and not answered
    bool locks_in_doubt = false; // the keeper died, and who would close the gate does not know yet
    instant echoed = 0;          // when it sent the latest heartbeat that another node heard
    sim::kernel kern;
    stored_state disk;
    bool has_disk = false;
    std::deque<store_batch> unsynced; // given to the disk, not durable yet
    duration slow_disk = 0;
    bool disk_full = false;
    bool disk_broken = false;      // the store has said that it failed: commits are lost
    std::uint64_t store_life = 0;  // of the store; commits of an older one become nothing
    bool wants_out = false;        // of the group: what the daemon asked for last …
    bool out_of_group = false;     // … and what is; it lives
    unsigned crash_in = 0;         // power fails in the midst of so many commits from now; 0: not
    unsigned refuse = 0;           // so many conversions upward are refused with EDEADLK
    std::set<std::string> running; // servers whose nfsd runs here
    // What its daemon has written of them before anybody heard of it (/run/graced/servers).
    struct kept_instance {
        bool running, stopping;
        start_count answered;
    };
    std::map<std::string, kept_instance> kept;
    // Who may reclaim, as nfsd was told. It forgets that with the end of its own grace
    // (nfsd4_cld_grace_done): where the DLM has dropped its locks later, nobody reclaims from it.
    std::map<std::string, std::vector<std::string>> nfsd_lists;
    std::map<std::uint64_t, upcall_status> upcalls;
    std::map<std::uint64_t, std::pair<request_status, std::string>> answers;
    std::vector<std::string> news;
    std::map<std::uint64_t, std::string> grace_starts; // tickets that wait, by server
    bool verbose = false, keep_news = true;
    std::uint64_t heard = 0;            // place of the message that was delivered last
    instant told_at = 0;                // the daemon has been told of its ring's last change
    instant timer = 0, timer_event = 0; // when the daemon wants a tick, and when an event is due
    std::map<unsigned, instant> last;   // by channel: when the last event on it arrives

    const fsm& machine() const { return daemon->machine(); }
    instant clock() const;
    bool open() const;
    void take(any_input in);
    void keep();
    ticket new_ticket() { return ticket{++tickets_}; }

    void mcast(bytes) override;
    void leave() override;
    void join_again() override;
    void query_dlm_members() override;
    void convert(lock_resource, node_id, lock_mode, const lvb_bytes*) override;
    void cancel(lock_resource, node_id) override;
    void commit(store_batch, position) override;
    void close_gate(epoch, std::uint64_t) override;
    void open_gate(epoch, std::uint64_t, std::uint64_t) override;
    void set_reclaim(const std::string&, epoch, bool, std::uint64_t) override;
    void extend_permit(instant) override;
    void end_nfsd_grace(const std::string& server) override { nfsd_lists[server].clear(); }
    void answer(ticket, upcall_status) override;
    void answer_grace_start(ticket, const std::vector<known_client>&) override;
    void answer(ticket, request_status, const std::string&) override;
    void tell(news_level, const std::string&) override;
    void fence(node_id, const std::string&) override;

private:
    void watch_permit();
    world& world_;
    std::uint64_t tickets_ = 0;
    bool permit_timer_ = false;
};

// Who looks at the world from the outside.
class watcher {
public:
    virtual ~watcher() = default;
    virtual void stepped() {}
    virtual void sent(node&, const bytes&) {} // by the daemon
    virtual void ordered(node_id /*from*/, const bytes&, std::uint64_t /*component*/) {}
    virtual void group_changed(std::uint64_t /*component*/) {}
    virtual void merged(node&) {} // others left its ring and came (back) into it in one breath
    virtual void committed(node&, const store_batch&) {}                  // it is durable
    virtual void committing(node&, const store_batch&) {}                 // it was asked for
    virtual void locks_dropped(node&, const std::set<node_id>& /*of*/) {} // by its dlm_controld
    virtual void daemon_died(node&) {}
    virtual void died(node&) {} // power is off
    virtual void booted(node&) {}
    virtual void gate_opened(node&) {}
    virtual void reclaim_opened(node&, const std::string& /*server*/) {}
    virtual void upcall_answered(node&, ticket, upcall_status) {}
    virtual void nfsd_listed(node&, const std::string& /*server*/) {}
};

class world {
public:
    explicit world(unsigned nodes, std::uint64_t seed = 1);

    std::mt19937_64 random;
    duration jitter = 0; // every hop takes up to this much longer
    std::uint64_t draw(std::uint64_t n) { return random() % n; } // 0 .. n-1
    duration draw_ms(std::int64_t from, std::int64_t to);        // milliseconds, as nanoseconds
    duration hop();
    // The delay of the next event on one of a node's channels: never before an earlier one.
    enum channel : unsigned {
        from_group,
        from_quorum,
        to_group,
        lock_calls,
        lock_events,
        kernel_acks,
        disk
    };
    duration next(node&, channel);

    parameters defaults;
    instant now = seconds(1);
    std::map<node_id, std::unique_ptr<node>> nodes;
    embedded_lock_table locks;
    instant token = seconds(1); // silent death to confchg
    duration slow_ring = 0;     // a ring's name may come so much later
    duration late_permit = 0;   // the kernel's permit timer fires up to so much later
    bool v0 = false;            // nfsd asks for each client, and keeps no list
    unsigned lose_value = 0;    // one fencing of so many loses the value block; 0: none
    std::set<node_id> unfenced; // died or were cut off since they were last known to be fenced
    void must_fence(node_id);
    std::vector<std::string> violations;
    watcher* watch = nullptr;
    transitions* told = nullptr; // hears of everything, for the model
    // How often what is drawn in here happened.
    std::uint64_t lost_batches = 0, late_rings = 0, late_permits = 0, lost_values = 0,
                  in_flight = 0;
    std::uint64_t steps = 0;
    std::uint64_t lock_changes = 0, orders = 0;

    node& operator[](unsigned id) { return *nodes.at(node_id{id}); }

    void boot(unsigned id);         // power, ring, kernel module; no daemon
    void start_daemon(unsigned id); // joins the group
    void kill_daemon(unsigned id);  // SIGKILL: PROCDOWN
    void break_disk(unsigned id);   // the store fails, until mend_disk()
    void mend_disk(unsigned id);
    void power_off(unsigned id); // silent: confchg after `token`, DLM frozen until fence()
    void fence(unsigned id);     // fencing is done
    void split(std::vector<std::vector<unsigned>> parts); // new rings at once; nothing to fence
    void cut(unsigned id, unsigned side); // links go; new rings after `token`; it must be fenced
    void merge(unsigned id);              // its links are back
    void leave(unsigned id);              // its corosync ends in order: PROCDOWN, at once
    void lose_controld(unsigned id);      // its dlm_controld dies; it must be fenced
    void pause(unsigned id, duration);    // all of the node stands still
    void hang(unsigned id, duration);     // only the daemon does
    void jump(unsigned id, duration);     // its clock goes forward
    void trip(unsigned id);               // its gate, by nfsd on its way down
    void reload_module(unsigned id);      // while no daemon is attached
    void lose_netlink(unsigned id, duration); // the daemon's socket; attached again after that
    void kill_keeper(unsigned id, duration);  // another one after that
    void freeze_locks(duration);

    void after(duration d, std::function<void()> f);
    bool step(); // one event; false if there is none
    void run_for(duration d);
    // Runs until `f` is true; throws after `limit` of simulated time.
    void run_until(const std::function<bool()>& f, duration limit, const char* what);

    // An nfsd on node `id` for `server`: serve, wait for reclaim, GraceStart. Names the request.
    ticket serve(unsigned id, const std::string& server);
    void nfsd_start(unsigned id, const std::string& server);
    ticket create(unsigned id, const std::string& server, const std::string& client);

    void pump_locks();
    bool in_ring(node_id) const;
    std::set<node_id> ring_of(node_id) const; // nodes that it sees
    std::set<node_id> group_of(std::uint64_t component) const;
    std::set<node_id> controlds(node_id) const; // dlm_controld's group, as this node sees it
    std::uint64_t component(node_id) const;
    bool quorate(node_id) const;
    void order(node_id from, bytes message);
    void check();

private:
    friend class node;
    struct event {
        instant at;
        std::uint64_t age;
        std::function<void()> run;
        bool operator<(const event& o) const { return std::tie(at, age) > std::tie(o.at, o.age); }
    };
    using message = std::shared_ptr<const bytes>;
    struct ring_state {
        std::uint64_t seq = 0;
        std::set<node_id> ring;                 // nodes
        std::map<node_id, std::uint64_t> group; // with a daemon, and which life of it
        bool stalled = false;                   // the token is lost: nothing is ordered
        instant stalled_since = 0;
        std::vector<std::pair<node_id, message>> held;
    };
    void from_kernel(node&, any_input);         // by netlink
    void deliver(node&, std::function<void()>); // the next input of the group for this node
    void hand_out(node_id from, const message&, const std::set<node_id>& to);
    void join_group(node&, std::uint64_t life);
    void leave_group(node&, std::uint64_t life);
    void regroup(node&, std::uint64_t life); // its daemon leaves the group, or joins it again
    bool hears(node_id, std::uint64_t life, std::uint64_t c) const;
    void tell_confchg(std::uint64_t component, const input::confchg&);
    void reform(const std::set<node_id>& ring);
    void recover(std::uint64_t component); // the token's time is over: new rings of who is there
    void gather(unsigned side);            // one ring of all that are on this side
    void meet(unsigned side);              // … if they have several
    void stall(node_id);
    void unstall(std::uint64_t component);
    bool away(std::uint64_t component) const; // somebody in it cannot pass the token on
    using departures = std::map<node_id, std::set<node_id>>; // by node that sees it
    void announce_ring(std::uint64_t component, const departures&);
    void stop_lockspace(node&, const std::set<node_id>& departed);
    void arm(node&, instant);
    void lose_unsynced(node&);
    void drop_probes(node&);
    void step_down(node&, std::uint64_t life, std::uint64_t keeper);

    std::priority_queue<event> events_;
    std::uint64_t age_ = 0;
    std::uint64_t ring_seq_ = 0;
    std::uint64_t components_ = 0;
    std::map<std::uint64_t, ring_state> rings_;
    std::map<node_id, std::uint64_t> component_of_;
};

// What a batch does to a database; also the reference for the real store.
void apply_batch(stored_state&, const store_batch&);

} // namespace grace::sim
