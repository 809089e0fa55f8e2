// SPDX-License-Identifier: GPL-2.0-or-later
// The recovery database in SQLite on local disk: store_port for the engine, and the load at start.
//
// One thread writes, so that the loop (heartbeats, permits) never waits for a disk. Batches become
// durable in the order in which they were given; those that queued up behind an fsync share the
// next one (group commit). What is durable comes back on the loop as input `durable`.
//
// What makes it durable: WAL with synchronous=FULL, that is one fsync of the log for each commit,
// and of the directory when the log is created; a checkpoint syncs the log before the database.
// (synchronous=NORMAL, usual with WAL, loses the last commits at a power cut: then a client that
// was told "you are on record" is not, and is refused later.)
//
// After an error, or a disk that stands still, nothing of what was queued is written any more and
// store_failed is said: after a failed fsync the kernel may have dropped the dirty pages, and a
// retry would "succeed" without them. The thread then closes the database and tries to open it
// anew, ever more slowly; every opening writes the log once more (sync_log_anew). When the database
// is well again the thread says store_opened.
#pragma once

#include "grace/input.hh"
#include "grace/ports.hh"
#include "graced/result.hh"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <qb/qbloop.h>
#include <string>
#include <vector>

namespace grace {

struct store_options {
    std::string path = "/var/lib/graced/graced.sqlite";
    std::string history; // file for the history of clients (client_history.hh); empty: none is kept
    // The queue's bound, in bytes of names and records. A disk that stands still must not eat the
    // memory: beyond this the store has failed.
    std::size_t max_queued_bytes = 256U << 20;
    // A commit that makes no progress for so long has failed: the others' upcalls wait for it.
    std::chrono::milliseconds stall_timeout{10'000};
    // Wait before the first attempt to open a failed database anew; doubled up to a minute.
    std::chrono::milliseconds mend_after{1000};
    // A damaged database is renamed and a new one begun: for a node whose records the others have.
    bool set_aside = false;
    // Pages of 4 KiB that the database may have; 0: no bound of our own. (Tests: a full disk.)
    std::uint32_t max_pages = 0;
    // The file system's magic number instead of statfs(2)'s; 0: ask. (Tests: a GFS2.)
    std::uint32_t pretend_fs_magic = 0;
};

class sqlite_store;

struct opened_store {
    std::unique_ptr<sqlite_store> store;
    stored_state state;
    bool created = false;              // there was none: this node knows nothing
    std::vector<std::string> warnings; // for the log, loudly
};

class sqlite_store : public store_port {
public:
    using sink = std::function<void(any_input)>;
    static constexpr int schema_version = 3;
    static constexpr std::int32_t application_id = 0x47524143; // "GRAC"

    // Opens (or creates) the database, takes its lock, checks it, reads everything. Blocks: for use
    // before the daemon joins the group. Nothing is ever repaired or removed; what is damaged is
    // renamed if set_aside says so. Codes:
    //   ENOENT, ENOTDIR, EACCES, EROFS, EISDIR  the path                    exit 78
    //   EOPNOTSUPP  a cluster or network file system                        exit 78
    //   EUCLEAN     not a database, or a damaged one                        exit 65
    //   EPROTO      made by a newer graced, or by another program           exit 65
    //   EBUSY       another graced uses it                                  exit 75
    //   EIO, ENOSPC the disk                                                exit 74
    static result<opened_store> open_and_load(store_options);
    // The exit code of the daemon (sysexits.h) for an error of open_and_load.
    static int exit_code(const error&);

    // Starts the writer thread; completions go to `sink` on the loop's thread from now on.
    result<void> start(qb_loop_t*, sink);

    // From the loop's thread only; never blocks. Before start(): queued.
    void commit(store_batch batch, position at) override;

    struct statistics {
        std::uint64_t batches = 0;      // made durable
        std::uint64_t transactions = 0; // in so many commits
        std::uint64_t queued = 0;       // batches that wait now
        bool failed = false;
        std::string why;            // … it failed, for people
        std::uint64_t failures = 0; // so far
        // How long commits took: how many took at most so long, the last one with any; seconds.
        static constexpr std::array<double, 9> limits = {0.001, 0.0025, 0.01, 0.025, 0.1,
                                                         0.25,  1,      2.5,  10};
        std::array<std::uint64_t, limits.size() + 1> commits{};
        double commit_seconds = 0; // all together
    };
    [[nodiscard]] statistics stats() const;

    // Commits what is queued (if it was started), then closes. No input comes any more. Waits for a
    // disk that stands still: to be the last that a process does.
    ~sqlite_store() override;
    sqlite_store(const sqlite_store&) = delete;
    sqlite_store& operator=(const sqlite_store&) = delete;

private:
    struct impl;
    explicit sqlite_store(std::unique_ptr<impl>);
    std::unique_ptr<impl> impl_;
};

} // namespace grace
