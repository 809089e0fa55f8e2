// SPDX-License-Identifier: GPL-2.0-or-later
// lock_port over the socket of the keeper graced-dlm (dlm_keeper/protocol.hh), on a libqb loop.
//
// The inputs that it produces, in order:
//   locks_known                        the keeper was reached and its lockspace is open
//   lock_granted|_refused|_cancelled   one for each convert(), none for cancel()
//   locks_lost                         the connection is gone, or the keeper does not answer; all
//                                      requests are void. Then it connects again, and starts a
//                                      keeper if nobody listens
// convert() and cancel() while nothing is known are void, too.
//
// What a former daemon of this node left in the keeper:
//   - A request on `grace` or on the own `alive` that is still outstanding: its answer is delivered
//     when it comes (locks_known names such requests, inherited() too). A convert() meanwhile to
//     the same mode takes it over; one to another mode cancels it and is sent when that is settled,
//     so it gets its one answer all the same. If the old grant wins and the new mode cannot be
//     reached from it, the answer is lock_granted with the *old* mode.
//   - Probes (`alive` of other nodes): given back before anything else is done with them. A new
//   life
//     has nobody to prove dead yet, and a forgotten PR would keep a node out that comes back.
#pragma once

#include "adapters/lock_words.hh"
#include "grace/input.hh"
#include "grace/ports.hh"

#include <qb/qbloop.h>
#include <sys/types.h>

#include <deque>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace grace {

struct lock_client_config {
    std::string socket_path = "/run/graced/dlm.sock";
    node_id node;
    // Started when nobody has listened for `spawn_after`; empty: never (systemd's business).
    std::vector<std::string> keeper_command;
    // How long this node's gate may stay open without the daemon: so long the keeper keeps its PR.
    duration permit_ttl = seconds(2);
    duration reconnect_every = milliseconds(100);
    duration spawn_after = seconds(1);
    // Pings go out once in `ping_every`; so many without an answer mean that the keeper is dead, or
    // hangs in its exit with the socket still open.
    duration ping_every = seconds(1);
    unsigned lost_after_pings = 5;
    // The same before its first word. A keeper that hangs in its exit still has connections
    // accepted by the kernel, which it will never see; so this is short.
    unsigned silent_after_pings = 2;
};

class lock_client : public lock_port {
public:
    using sink = std::function<void(any_input)>;

    // Connects from within the loop, so `sink` is not called before the loop runs.
    lock_client(qb_loop_t*, lock_client_config, sink);
    ~lock_client() override; // the keeper goes on, with the locks
    lock_client(const lock_client&) = delete;
    lock_client& operator=(const lock_client&) = delete;

    void convert(lock_resource, node_id, lock_mode, const lvb_bytes* value) override;
    void cancel(lock_resource, node_id) override;

    // This node leaves for good: the keeper drops all locks and ends.
    void release_all();

    // Requests of a former life that are outstanding, with the mode asked for.
    std::map<lock_key, lock_mode> inherited() const;
    bool known() const { return known_; }
    bool embedded() const { return embedded_; }
    // For how long the kernel has not returned from a DLM call, at the last ping: the lockspace is
    // frozen. 0: it is not.
    duration frozen_for() const { return frozen_for_; }

    // Another node waits for a lock that this node holds. For the log; the protocol needs it not.
    std::function<void(lock_key)> on_blocking;

private:
    struct request {
        lock_mode mode;
        std::optional<lvb_bytes> value;
        bool cancelled = false;
    };
    struct slot { // one outstanding request
        std::uint64_t id = 0;
        lock_mode mode = lock_mode::nl;
        bool inherited = false;
        bool discard = false; // a probe of a former life on its way out
        bool cancel_sent = false;
        std::optional<request> parked; // sent when this one is settled
    };
    using packet = std::vector<std::uint8_t>;
    static constexpr std::size_t max_queued = 1024;

    void connect();
    void disconnect(const std::string& why);
    void on_timer();
    void on_ping_timer();
    int32_t dispatch(int32_t revents);
    bool handle(std::span<const std::uint8_t>); // false: it was a bad one
    bool handle_state(std::span<const std::uint8_t>);
    bool handle_answer(lock_event);
    void send_convert(lock_key, slot&, lock_mode, const lvb_bytes* value);
    void send_cancel(lock_key, slot&);
    template <typename T>
    void send(const T&);
    void flush();
    void watch(int events);
    void send_ping();
    void nobody_there();
    void spawn_keeper();
    void reap();

    qb_loop_t* loop_;
    lock_client_config config_;
    sink sink_;
    int fd_ = -1;
    bool known_ = false;
    bool embedded_ = false;
    bool heard_ = false;  // something came on this connection
    bool broken_ = false; // shut down; its end is about to be read
    duration frozen_for_ = 0;
    std::deque<packet> queue_;
    std::map<lock_key, slot> slots_;
    std::uint64_t next_id_;
    unsigned unanswered_pings_ = 0;
    instant alone_since_ = 0; // nobody has listened since; 0: somebody does
    std::string last_fault_;  // logged once, not ten times a second
    std::set<pid_t> keepers_; // that we started
    qb_loop_timer_handle timer_ = 0, ping_timer_ = 0;
};

} // namespace grace
