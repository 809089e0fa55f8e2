// SPDX-License-Identifier: GPL-2.0-or-later
// The keeper's side of the socket: accepts daemons, checks all that they send, relays requests to
// the backend and its events to the daemon of the node that they belong to.
//
// It never waits: not for the backend (see dlm_worker.hh), and not for a daemon that does not read.
// Such a daemon's connection is closed once `max_queued` messages wait for it; it learns from the
// `state` that it gets when it connects again what it has missed.
#pragma once

#include "dlm_keeper/backend.hh"
#include "dlm_keeper/protocol.hh"

#include <qb/qbloop.h>
#include <sys/types.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace grace::keeper {

class server {
public:
    server(qb_loop_t*, lock_backend&, std::string path);
    ~server();
    server(const server&) = delete;
    server& operator=(const server&) = delete;

    // Listens on the path. A socket there that nobody answers on is replaced: its owner is dead, or
    // hangs in its exit (a holder of DLM locks does while the lockspace is frozen). Error
    // EADDRINUSE: another keeper answers.
    result<void> listen();

    // SIGTERM, or the daemon's `release`.
    void begin_release(const std::string& why);

    std::function<void(int exit_code)> on_end;

private:
    using packet = std::vector<std::uint8_t>;
    struct connection {
        server* owner;
        int fd;
        pid_t pid;
        node_id node; // none before hello
        bool knows_state = false;
        bool broken = false; // shut down, its end is about to be read
        std::deque<packet> queue;
    };
    static constexpr std::size_t max_connections = 128;
    static constexpr std::size_t max_queued = 256;

    void accept_one();
    int32_t dispatch(connection&, int32_t revents);
    void close_connection(connection&);
    bool handle(connection&, std::span<const std::uint8_t>); // false: it was a bad one
    bool handle_hello(connection&, const hello&);
    bool handle_convert(connection&, const convert&);
    bool handle_admin(connection&, const admin&);
    void send_state(connection&);
    void send_report(connection&, bool failed, std::string_view text);
    void send_notice(connection&, std::string_view text);
    template <typename T>
    void send(connection&, const T&);
    void flush(connection&);
    void relay(const lock_event&);
    connection* daemon_of(node_id);
    void look_around(); // every second
    bool path_is_ours() const;
    void take_start_lock();
    void drop_start_lock();

    qb_loop_t* loop_;
    lock_backend& backend_;
    std::string path_;
    int listen_fd_ = -1;
    int start_lock_ = -1; // until the loop runs
    dev_t device_ = 0;
    ino_t inode_ = 0;
    std::map<int, std::unique_ptr<connection>> connections_;
    std::map<std::pair<node_id, lock_key>, std::uint64_t> outstanding_; // id of the request
    // Daemons that were here, or went: how long the gates may outlive them, and since when.
    struct absence {
        std::int64_t permit = 0; // ns
        std::int64_t since = 0;  // CLOCK_BOOTTIME; 0: it is here
    };
    std::map<node_id, absence> daemons_;
    void step_down(node_id owner);
    node_id only_node_; // of a keeper of the DLM
    bool warned_blocked_ = false;
    bool releasing_ = false;
    int alone_for_ = 0; // seconds since somebody else listens on our path and no daemon is here
    qb_loop_timer_handle timer_ = 0;
};

} // namespace grace::keeper
