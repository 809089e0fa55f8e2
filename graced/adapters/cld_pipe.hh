// SPDX-License-Identifier: GPL-2.0-or-later
// nfsd's client tracking pipes: the place of nfsdcld, for several servers at once.
//
// Each NFS server of this node has an nfsd in a network namespace of its own, and with it a pipe
// `<rpc_pipefs>/nfsd/cld` of its own. The kernel makes the pipe when nfsd starts and removes it
// when nfsd stops; nfsd waits for one second for somebody to open it and then runs *untracked*,
// without an error (fs/nfsd/nfs4recover.c nfsd4_cld_tracking_init). So the pipe's appearance is
// noticed at once (inotify; rpc_pipefs reports its own creations) and looked for every 100 ms
// besides.
//
// An upcall that was read and never answered holds its nfsd thread for ever, and GraceStart holds
// nfsd's global mutex with it: a daemon that dies between the two would leave a server that can be
// neither used nor stopped. So upcalls are read straight into a file mapped shared (`journal_dir`,
// on tmpfs), which the kernel fills in the same system call that takes the message from the queue:
// there is no moment in which a killed daemon has the message and its successor does not. The
// successor finds the open upcalls there and produces their inputs again.
#pragma once

#include "grace/input.hh"
#include "graced/adapters/client_expiry.hh"
#include "graced/result.hh"

#include <functional>
#include <map>
#include <memory>
#include <qb/qbloop.h>
#include <string>
#include <vector>

namespace grace {

class cld_tracker final : public tracker_port {
public:
    using sink = std::function<void(any_input)>;

    struct options {
        // Where open upcalls survive the daemon: a directory on tmpfs (/run/graced). Empty: they
        // do not (tests, demo).
        std::string journal_dir;
    };

    struct pipe_status {
        std::string server, path;
        int version = 0;        // that was asked for with watch()
        bool connected = false; // the pipe exists and is open here
        bool tracked = false;   // the kernel uses it: see tracked()
        std::size_t open_upcalls = 0;
        std::uint64_t upcalls = 0; // read since watch()
        std::string trouble;       // why it is not connected, empty if it is
    };

    // Upcalls that may be open at once for one server; the rest wait in the kernel. One nfsd thread
    // has one at most.
    static constexpr std::size_t max_open_upcalls = 128;

    // The sink is called from the loop only, never from within a call into this object except that
    // one that the loop made; it may call back into it.
    cld_tracker(qb_loop_t*, sink, options);
    cld_tracker(qb_loop_t* loop, sink out)
        : cld_tracker(loop, std::move(out), options{}) {}
    // Leaves open upcalls unanswered, for the next daemon.
    ~cld_tracker() override;
    cld_tracker(const cld_tracker&) = delete;
    cld_tracker& operator=(const cld_tracker&) = delete;

    // Opens the pipe whenever it exists, from now on. `nfsd_fs`: where its nfsd's file system is
    // mounted; version 0 expires clients there, empty: it does not (a stand-in for the kernel).
    // `version` is 2 or 1 (the kernel loads the list of clients at GraceStart), or 0 (it asks for
    // each client with Check: GetVersion and GraceStart are refused, and the kernel makes the pipe
    // anew with its older method). The path may also be a UNIX SOCK_SEQPACKET socket, or a file of
    // a FUSE file system, of a stand-in for the kernel: the same messages on it. A second call for
    // a server replaces the first.
    void watch(std::string server, std::string pipe_path, int version = 2,
               std::string nfsd_fs = {});
    // The server is no longer ours: open upcalls are answered with `failed`.
    void unwatch(const std::string& server);

    // Whether the kernel really uses this pipe. With version 1 and 2: GraceStart was answered since
    // the pipe appeared. With version 0: the pipe is the one that was made after GraceStart had
    // been refused. Ask after rpc.nfsd returned; an nfsd that gave up runs on untracked.
    bool tracked(const std::string& server) const;
    std::vector<pipe_status> status() const;

    // Two readers of one pipe take turns with the upcalls, and each misses the other's clients.
    // Fails if a process named nfsdcld runs in any namespace, or if another process than this has
    // one of the watched pipes open. Reads all of /proc: for the start, not for each minute.
    result<void> check_no_other_tracker() const;

    void answer(ticket, upcall_status) override;
    void answer_grace_start(ticket, const std::vector<known_client>&) override;

private:
    struct pipe;
    using pipe_ptr = std::shared_ptr<pipe>;
    struct open_upcall {
        std::weak_ptr<pipe> from;
        std::size_t slot;
    };

    static int32_t on_pipe(int32_t fd, int32_t events, void* data);
    static int32_t on_inotify(int32_t fd, int32_t events, void* data);
    static void on_timer(void* data);

    void look_after(const pipe_ptr&);
    void look_after_all();
    void open_pipe(const pipe_ptr&);
    void close_pipe(pipe&, const std::string& why);
    void tell_gone(pipe&);
    void forget_upcalls(pipe&);
    void restore_upcalls(const pipe_ptr&);
    void read_upcalls(const pipe_ptr&);
    void handle(const pipe_ptr&, std::size_t slot, std::size_t length, bool again);
    void refuse_check(const pipe_ptr&, std::size_t slot);
    void reply(pipe&, std::size_t slot, std::int16_t status);
    void send(pipe&, bytes message, std::size_t slot);
    void flush(pipe&);
    void update_events(pipe&);
    void watch_directory(pipe&);
    void schedule(std::uint64_t nanoseconds);

    qb_loop_t* loop_;
    sink sink_;
    options options_;
    std::map<std::string, pipe_ptr> pipes_;
    std::map<ticket, open_upcall> tickets_;
    client_expiry expiry_;
    std::uint64_t last_ticket_ = 0;
    int inotify_ = -1;
    qb_loop_timer_handle timer_ = 0;
};

} // namespace grace
