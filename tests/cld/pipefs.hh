// SPDX-License-Identifier: GPL-2.0-or-later
// A stand-in for rpc_pipefs with nfsd's pipe: a FUSE file system with one directory, nfsd, in which
// the file cld comes and goes. nfsdcld opens it as it opens the kernel's.
//
// What it keeps of the kernel (net/sunrpc/rpc_pipe.c, fs/nfsd/nfs4recover.c):
//   read     takes one message, in as many portions as the reader likes; 0 if there is none
//   write    an answer of exactly the size of the version in use, to an xid that waits; else EINVAL
//   poll     readable while a message is there; always writable; an error once the pipe is removed
//   close    of the last reader: what it had not read to its end is there for the next one
//   removal  EPIPE for who has it open; a pipe made anew is another inode
//   inotify  the file is made and removed through the mount, so that watchers are told
// What it does not: it is a regular file, not a FIFO (the kernel serves FIFOs of FUSE by itself).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

struct fuse_session;
struct fuse_pollhandle;

namespace cld_test {

using bytes = std::vector<std::uint8_t>;

// One upcall, from its being queued to its answer.
struct upcall {
    bytes message;
    std::uint32_t xid = 0;
    // --- by the pipe ---
    std::size_t copied = 0;
    bool done = false, lost = false; // lost: the pipe was removed
    bytes answer;
    std::vector<bytes> listed; // answers with status -EINPROGRESS that came before
};
using upcall_ptr = std::shared_ptr<upcall>;

class pipefs {
public:
    // Mounts it there; throws std::runtime_error. Unmounts at the end.
    explicit pipefs(const std::string& directory);
    ~pipefs();
    pipefs(const pipefs&) = delete;
    pipefs& operator=(const pipefs&) = delete;

    void make_pipe();
    void remove_pipe();
    bool wait_reader(double seconds); // somebody has it open for reading
    std::size_t answer_size = 0;      // that an answer must have
    // How many answers were refused with EINVAL: of a wrong size, or to what was never asked; and
    // those to what had its answer already (from a tracker that was killed before it had noted
    // that).
    std::size_t refused() const;
    std::size_t repeated() const;

    void send(const upcall_ptr&); // queues it
    // True: it was answered. False: not in time, or lost with the pipe.
    bool wait(const upcall_ptr&, double seconds);

    // --- for the FUSE operations ---
    struct pipe {
        std::uint64_t inode = 0;
        bool removed = false;
        int readers = 0;
        std::deque<upcall_ptr> queue;
        std::map<std::uint32_t, upcall_ptr> waiting; // by xid, read to the end or not
        std::set<std::uint32_t> answered;
        std::list<fuse_pollhandle*> pollers;
    };
    struct handle {
        std::shared_ptr<pipe> of;
        upcall_ptr reading;
        bool reads = false;
    };
    std::shared_ptr<pipe> current() const;
    bool create(); // by this process only: false if there is one
    bool unlink();
    handle* open(bool reads);
    void close(handle*);
    int read(handle&, std::size_t size, bytes& out);      // 0 or -errno
    int write(handle&, const std::uint8_t*, std::size_t); // 0 or -errno
    unsigned poll(handle&, fuse_pollhandle*);             // takes the poll handle

private:
    void wake(pipe&);

    std::string directory_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::shared_ptr<pipe> pipe_;
    std::uint64_t last_inode_ = 2;
    std::size_t refused_ = 0, repeated_ = 0;
    fuse_session* session_ = nullptr;
    std::thread loop_;
};

} // namespace cld_test
