// SPDX-License-Identifier: GPL-2.0-or-later
// A simulated cluster for the production engine: agreed group, lock table, kernels, disks, clock.
// Deterministic: one queue of events, ordered by time and then by age. Unit tests script it, the
// simulator draws it.
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
    instant permit = 0;
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
    std::unique_ptr<engine> daemon;
    std::uint64_t life = 0; // of the daemon; events for an older one are dropped
    std::uint64_t boot = 0; // of the node
    sim::kernel kern;
    stored_state disk;
    bool has_disk = false;
    bool disk_broken = false; // commits are lost, nothing becomes durable
    std::map<std::string, start_count> running;                 // servers whose nfsd runs here
    std::map<std::string, std::vector<std::string>> nfsd_lists; // who may reclaim, as nfsd was told
    std::map<std::uint64_t, upcall_status> upcalls;
    std::map<std::uint64_t, std::pair<request_status, std::string>> answers;
    std::vector<std::string> news;
    std::map<std::uint64_t, std::string> grace_starts; // tickets that wait, by server
    bool verbose = false;
    instant timer = 0, timer_event = 0; // when the daemon wants a tick, and when an event is due
    std::map<unsigned, instant> last;   // by channel: when the last event on it arrives

    const fsm& machine() const { return daemon->machine(); }
    void take(any_input in);
    ticket new_ticket() { return ticket{++tickets_}; }

    void mcast(bytes) override;
    void query_dlm_members() override;
    void leave() override;
    void join_again() override;
    void convert(lock_resource, node_id, lock_mode, const lvb_bytes*) override;
    void cancel(lock_resource, node_id) override;
    void commit(store_batch, position) override;
    void close_gate(epoch, std::uint64_t) override;
    void open_gate(epoch, std::uint64_t, std::uint64_t) override;
    void set_reclaim(const std::string&, epoch, bool, std::uint64_t) override;
    void extend_permit(instant) override;
    void end_nfsd_grace(const std::string&) override {}
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

class world {
public:
    explicit world(unsigned nodes, std::uint64_t seed = 1);

    std::mt19937_64 random;
    duration jitter = 0; // every hop takes up to this much longer
    std::uint64_t draw(std::uint64_t n) { return random() % n; } // 0 .. n-1
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
    std::vector<std::string> violations;
    transitions* told = nullptr; // hears of everything
    std::function<void(node_id)> noticed; // the others have dropped a dead node
    std::function<void(node&, ticket, upcall_status)> upcall_answered; // nfsd has its answer

    node& operator[](unsigned id) { return *nodes.at(node_id{id}); }

    void boot(unsigned id);         // power, ring, kernel module; no daemon
    void start_daemon(unsigned id); // joins the group
    void kill_daemon(unsigned id);  // SIGKILL: PROCDOWN
    void break_disk(unsigned id);   // the store fails, until mend_disk()
    void mend_disk(unsigned id);
    void power_off(unsigned id);    // silent: confchg after `token`, DLM frozen until fence()
    void fence(unsigned id);        // fencing is done
    void split(std::vector<std::vector<unsigned>> parts);

    void after(duration d, std::function<void()> f);
    bool step(); // one event; false if there is none
    void run_for(duration d);
    // Runs until `f` is true; throws after `limit` of simulated time.
    void run_until(const std::function<bool()>& f, duration limit, const char* what);

    // An nfsd on node `id` for `server`: serve, wait for reclaim, GraceStart. Names the request.
    ticket serve(unsigned id, const std::string& server);
    void nfsd_start(unsigned id, const std::string& server);
    ticket create(unsigned id, const std::string& server, const std::string& client);

    // The next input of the group for this node.
    void deliver(node&, std::function<void()>);
    void pump_locks();
    std::uint64_t component(node_id) const;
    std::set<node_id> ring_of(node_id) const; // nodes that it sees
    void leave_group(node&);
    void join_group(node&);
    void order(node_id from, bytes message);
    void check();

    void confchg(std::uint64_t component, std::set<node_id> group,
                 std::map<node_id, input::left_reason> left, std::set<node_id> joined);

private:
    struct event {
        instant at;
        std::uint64_t age;
        std::function<void()> run;
        bool operator<(const event& o) const { return std::tie(at, age) > std::tie(o.at, o.age); }
    };
    struct ring_state {
        std::uint64_t seq = 0;
        std::set<node_id> ring;  // powered nodes
        std::set<node_id> group; // with a daemon
    };
    void reform(const std::set<node_id>& ring, std::map<node_id, input::left_reason> why);
    void announce_ring(std::uint64_t component);
    void arm(node&, instant);
    void notice_death(node_id);
    void trip(const std::set<node_id>& ring); // dlm_ls_stop on each of them

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
