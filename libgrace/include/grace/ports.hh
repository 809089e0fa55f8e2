// SPDX-License-Identifier: LGPL-2.1-or-later
// The outside world as the engine sees it: one small abstract class for each thing that can act.
// Every method returns at once; what it causes comes back later as an input (see input.hh). The
// daemon implements them over corosync, DLM, SQLite, the kernel; the simulator over a drawn world.
#pragma once

#include "grace/store_op.hh"
#include "grace/types.hh"

#include <span>

namespace grace {

using bytes = std::vector<std::uint8_t>;

// The closed process group. Answers: input deliver, confchg, ring.
class group_port {
public:
    virtual ~group_port() = default;
    // Queues one message in agreed order. Never blocks, never drops: CS_ERR_TRY_AGAIN is the
    // adapter's business. At most 1 MiB - 1 KiB.
    virtual void mcast(bytes message) = 0;
    // Asks for the members of dlm_controld's own group. Answer: input dlm_members.
    virtual void query_dlm_members() = 0;
    // Out of the group, and into it again: each ends in a confchg for all, this node too.
    virtual void leave() = 0;
    virtual void join_again() = 0;
};

// The lock resources of lockspace `graced`. `own` is alive.<this node>, `probe` is alive.<other>.
enum class lock_resource : std::uint8_t { grace, alive };

// Answers: input lock_granted, lock_refused, lock_cancelled, locks_known, locks_lost.
class lock_port {
public:
    virtual ~lock_port() = default;
    // Requests or converts resource `grace` (alive: node none) or `alive.<node>` to `mode`. One at
    // a time for each: the next when the last was answered, cancelled or not. With `value`, a
    // conversion down from EX writes the value block.
    virtual void convert(lock_resource, node_id, lock_mode mode, const lvb_bytes* value) = 0;
    // Cancels the request that is outstanding. It may lose the race to the grant.
    virtual void cancel(lock_resource, node_id) = 0;
};

// The recovery database. Answers: input durable, store_failed, store_opened.
class store_port {
public:
    virtual ~store_port() = default;
    // Commits the batch; batches become durable in the order given. Several may share one commit.
    virtual void commit(store_batch batch, position at) = 0;
};

// The kernel's gate (module lockd_shim). Answers: input kernel_attached, kernel_acked,
// kernel_refused, kernel_tripped, kernel_lost.
class kernel_port {
public:
    virtual ~kernel_port() = default;
    // Orders are numbered by `order`; the acknowledgement carries the number.
    // closed: local lockers blocked and every NFS namespace in grace when it is acknowledged;
    // withdraws `reclaim` everywhere.
    virtual void close_gate(epoch, std::uint64_t order) = 0;
    // Refused unless `trips` is the kernel's own count and the permit is fresh.
    virtual void open_gate(epoch, std::uint64_t trips, std::uint64_t order) = 0;
    // State `reclaim` of the server's network namespace, on or off.
    virtual void set_reclaim(const std::string& server, epoch, bool on, std::uint64_t order) = 0;
    // The gate may be open until this instant (CLOCK_BOOTTIME).
    virtual void extend_permit(instant until) = 0;
    // Ends nfsd's own grace in the server's namespace (v4_end_grace).
    virtual void end_nfsd_grace(const std::string& server) = 0;
    // The operator's bypass: on, nothing is held back and no order is acknowledged; off, the gate
    // is closed. Answers: input kernel_lost, kernel_attached. A gate without one has nothing to do.
    virtual void set_bypass(bool /*on*/) {}
};

// The status of an upcall's answer, as nfsdcld uses them (utils/nfsdcld/nfsdcld.c).
enum class upcall_status : std::int16_t { ok = 0, refused = -13, failed = -121, unsupported = -95 };

// nfsd's client tracking upcalls. Answers: input upcall.
class tracker_port {
public:
    virtual ~tracker_port() = default;
    virtual void answer(ticket, upcall_status) = 0;
    // GraceStart, v1/v2: one write for each record, then the final answer.
    struct known_client {
        std::string name, princhash;
    };
    virtual void answer_grace_start(ticket, const std::vector<known_client>&) = 0;
};

// What the protocol has to say to the one who asked (control IPC). One answer for each ticket.
enum class request_status : std::uint8_t {
    done,
    not_quorate,
    hosted_elsewhere,
    not_hosted,
    no_such_server,
    no_such_node,
    void_now,
    timeout
};
class control_port {
public:
    virtual ~control_port() = default;
    virtual void answer(ticket, request_status, const std::string& detail) = 0;
};

// News for people: log, history, metrics. Never needed for correctness.
enum class news_level : std::uint8_t { debug, info, warning, error };
class news_port {
public:
    virtual ~news_port() = default;
    virtual void tell(news_level, const std::string& text) = 0;
};

// Asks somebody to fence a node (its daemon has been away for longer than daemon_timeout).
class fence_port {
public:
    virtual ~fence_port() = default;
    virtual void fence(node_id, const std::string& why) = 0;
};

} // namespace grace
