// SPDX-License-Identifier: GPL-2.0-or-later
// A stand-in for the kernel module, inside the daemon: same answers, same refusals, no protection.
//
// For machines without the module: tests and the demo. It blocks nobody by itself; programs that
// take part ask it over a socket whether a lock would pass (tests/tools). The rules are those of
// lockd-shim/uapi/lockd_shim.h, and its answers come later, from the loop, as the kernel's do.
#pragma once

#include "grace/input.hh"
#include "graced/result.hh"

#include <deque>
#include <functional>
#include <map>
#include <qb/qbloop.h>
#include <set>
#include <string>

namespace grace {

class embedded_kernel final : public kernel_port {
public:
    using sink = std::function<void(any_input)>;

    // The socket is a UNIX SOCK_SEQPACKET listener; one request and one answer is one packet, text:
    //   try local           granted | eagain    a new lock of a program on this node
    //   try nfs SERVER      granted | grace     a new lock of an NFS client
    //   try reclaim SERVER  granted | grace     a reclaim of an NFS client
    //   trip                ok TRIPS            as if dlm_controld had stopped a lockspace
    //   status              one line: state, epoch, trips, servers that may reclaim
    // Anything else is answered with `unknown`. Empty path: no socket.
    embedded_kernel(qb_loop_t*, sink, std::string socket_path);
    ~embedded_kernel() override;
    embedded_kernel(const embedded_kernel&) = delete;
    embedded_kernel& operator=(const embedded_kernel&) = delete;

    // Opens the socket and attaches: input kernel_attached.
    result<void> start();

    void close_gate(epoch, std::uint64_t order) override;
    void open_gate(epoch, std::uint64_t trips, std::uint64_t order) override;
    void set_reclaim(const std::string& server, epoch, bool on, std::uint64_t order) override;
    void extend_permit(instant until) override;
    void end_nfsd_grace(const std::string& server) override;
    void set_bypass(bool on) override;
    bool bypass() const { return bypass_; }

    // Closes the gate and counts: input kernel_tripped.
    void trip();

    bool is_open();
    epoch current() const { return epoch_; }
    std::uint64_t trips() const { return trips_; }
    instant permit_until() const { return permit_until_; }
    const std::set<std::string>& reclaiming() const { return reclaiming_; }
    std::string answer_to(const std::string& request);

private:
    static void on_job(void* data);
    static void on_permit_end(void* data);
    static int32_t on_listener(int32_t fd, int32_t events, void* data);
    static int32_t on_asker(int32_t fd, int32_t events, void* data);

    result<void> listen();
    void later(any_input);
    void acknowledge(std::uint64_t order);
    void refuse(std::uint64_t order, int code, std::string why);
    void shut(const char* why);
    void arm_permit_timer();
    void drop_asker(int fd);

    qb_loop_t* loop_;
    sink sink_;
    std::string socket_path_;
    int listener_ = -1;
    std::set<int> askers_;
    std::deque<any_input> pending_; // inputs that the loop will deliver, in order
    bool job_queued_ = false;
    qb_loop_timer_handle permit_timer_ = 0;

    std::uint64_t instance_;
    bool open_ = false;
    bool bypass_ = false;
    epoch epoch_;
    std::uint64_t trips_ = 0;
    instant permit_until_ = 0;
    std::set<std::string> reclaiming_;
};

} // namespace grace
