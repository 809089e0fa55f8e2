// SPDX-License-Identifier: GPL-2.0-or-later
// Kernel module lockd_shim as the daemon's kernel port, over generic netlink.
//
// Two sockets: one for orders, whose closing (for whatever reason) closes the gate; one for events,
// so that a burst of them cannot overrun the socket that carries acknowledgements. An order is
// performed by the kernel within the system call that sends it; its acknowledgement is read later,
// from the loop. Events that arose before it are read first.
//
// The module is looked for every 500 ms while it is not attached. What it said last is kept for
// `gracectl status`, and asked for anew every two seconds: an event can be lost (lack of memory, an
// overrun), its effect on the status cannot.
//
// A gate that holds nothing back, because a hook is gone or an operator has bypassed it, is no gate
// to the protocol: input kernel_lost, and kernel_attached when it is one again. The socket stays.
#pragma once

#include "grace/input.hh"
#include "graced/adapters/shim_message.hh"
#include "graced/result.hh"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <qb/qbloop.h>
#include <string>
#include <tuple>

namespace grace {

class shim_netlink final : public kernel_port {
public:
    using sink = std::function<void(any_input)>;

    // Two nonblocking sockets that keep the boundaries of messages; `family` is the type of the
    // module's messages on them.
    struct connection {
        int orders = -1, events = -1;
        std::uint16_t family = 0;
    };
    using connector = std::function<result<connection>()>;
    // What became of an order that is none of the protocol's.
    using answered = std::function<void(result<void>)>;

    struct snapshot {
        bool attached = false; // the socket is; whether the gate is one: fit()
        std::string trouble;   // why not, for people
        shim::status last;     // as the module reported it last; all zero if it never did
        std::vector<shim::network_namespace> namespaces;
        instant at = 0; // CLOCK_BOOTTIME of the last report
    };

    // Lets everything pass, or no longer, whether a daemon is attached or not: for gracectl where
    // there is none. Waits for the kernel's answer, 5 s at most.
    static result<void> bypass_directly(bool on);
    static result<bool> bypassed_directly();

    // The real sockets; another connector is for tests.
    static result<connection> connect_to_kernel();

    shim_netlink(qb_loop_t*, sink, connector = connect_to_kernel);
    // Closes the sockets, and with them the gate.
    ~shim_netlink() override;
    shim_netlink(const shim_netlink&) = delete;
    shim_netlink& operator=(const shim_netlink&) = delete;

    // Attaches now, or as soon as it can. Input kernel_attached; kernel_lost with the reason if it
    // cannot, once for each reason.
    void start();

    // Where the server lives: /run/netns/NAME or /proc/PID/ns/net, and the mount of that
    // namespace's nfsd file system (each network namespace has its own).
    void set_namespace(std::string server, std::string netns_path, std::string nfsd_path);
    // Withdraws reclaim, if it is on, and forgets the paths.
    void forget(const std::string& server);

    // Each order is answered with kernel_acked or kernel_refused, unless kernel_lost comes first.
    void close_gate(epoch, std::uint64_t order) override;
    void open_gate(epoch, std::uint64_t trips, std::uint64_t order) override;
    void set_reclaim(const std::string& server, epoch, bool on, std::uint64_t order) override;
    void extend_permit(instant until) override;
    // Writes v4_end_grace from a thread of its own: the kernel makes upcalls to us meanwhile, and
    // waits for their answers.
    void end_nfsd_grace(const std::string& server) override;
    void set_bypass(bool on) override;

    // Whether the gates of all nodes are closed at that epoch, every trip up to that one accounted
    // for: a server that is being stopped by hand lets go of its locks only then (at the latest
    // when all permits have ended). To be called whenever it may have changed; told to the kernel
    // if it has.
    void set_enforced(epoch, std::uint64_t trips, bool on);

    // Who asked is answered from the loop, or from within if there is no module.
    void set_bypass(bool on, answered);
    // The process (an NFS server in user space) passes the gate, until it ends or this daemon does.
    void set_exempt(std::uint32_t pid, bool on, answered);
    // Where the NSM hosts (names or addresses, as lockd knows them) come from that are on record
    // for a server: those whose reclaims over NLM pass while it may reclaim. Asked when reclaim
    // opens.
    using host_source = std::function<std::vector<std::string>(const std::string& server)>;
    void hosts_from(host_source source) { host_source_ = std::move(source); }

    const snapshot& status() const { return status_; }
    // The last permit that was given to the kernel; 0: none.
    instant permit_until() const { return permit_until_; }
    // The server's namespace has an nfsd, as far as the module has seen it start.
    bool nfsd_runs(const std::string& server) const;
    // Why the gate, though its module is there, holds nothing back; empty if it does.
    std::string unfit() const;

private:
    enum class purpose : std::uint8_t {
        attach,
        close,
        open,
        reclaim,
        withdraw,
        permit,
        host,
        enforced,
        other,
        status,
        dump
    };
    struct request {
        purpose what;
        std::uint64_t order = 0;
        std::uint64_t at = 0;      // epoch of a close
        answered answer = nullptr; // other
        std::string name = {};     // host
    };
    struct place {
        std::string netns, nfsd;
    };
    struct writers; // shared with the threads that write v4_end_grace

    static int32_t on_orders(int32_t fd, int32_t events, void* data);
    static int32_t on_events(int32_t fd, int32_t events, void* data);
    static void on_retry(void* data);
    static void on_refresh(void* data);
    static void on_job(void* data);

    void connect();
    void disconnect();
    void lose(const std::string& why);
    void read_socket(int fd);
    void handle(const shim::item&);
    void finish(const shim::ack&, request);
    std::string why_not_attached(const shim::ack&) const;
    void note_status(const shim::status&);
    void note_trips(std::uint64_t trips);
    void note_server(const shim::network_namespace&);
    void note_closed();
    void judge();
    void tell_hosts(const std::string& server, std::uint64_t at);
    void send_hosts();
    void ask(std::uint32_t seq, const std::vector<std::uint8_t>& message, answered);
    void refresh();
    std::uint32_t next_seq();
    void send(std::uint32_t seq, const std::vector<std::uint8_t>& message, request);
    void withdraw(int netns_fd, std::uint64_t at);
    void drop_reclaim(const std::string& server);
    void refresh_soon();
    void later(any_input);
    void refuse(std::uint64_t order, int code, std::string why);

    qb_loop_t* loop_;
    sink sink_;
    connector connector_;
    connection connection_;
    std::uint32_t seq_ = 0;
    std::uint32_t attach_seq_ = 0, gate_seq_ = 0, dump_seq_ = 0;
    bool attach_replied_ = false;
    bool open_ = false;    // as far as we know
    bool offered_ = false; // the protocol takes the gate for one: kernel_attached, not lost since
    std::map<std::uint32_t, request> under_way_;
    std::map<std::string, place> places_;
    host_source host_source_;
    std::map<std::uint64_t, std::uint64_t> stops_; // of each network namespace (cookie), as told
    // Servers that may reclaim, or for which it was asked: an open file of the namespace each,
    // because the path may lead to another one later.
    std::map<std::string, int> reclaiming_;
    // Hosts that the kernel is still to hear of: (server, host, epoch). A few at a time are out.
    std::deque<std::tuple<std::string, std::string, std::uint64_t>> hosts_;
    std::size_t hosts_out_ = 0;
    std::optional<std::pair<epoch, std::uint64_t>> enforced_; // told to the kernel
    std::map<std::uint32_t, int> exempt_; // pid: its pidfd, to tell the kernel again
    std::vector<shim::network_namespace> dump_;
    std::vector<std::uint8_t> buffer_;
    snapshot status_;
    instant permit_until_ = 0;
    std::string told_; // the last reason that kernel_lost named
    std::deque<any_input> pending_;
    bool job_queued_ = false;
    qb_loop_timer_handle retry_timer_ = 0, refresh_timer_ = 0;
    std::shared_ptr<writers> writers_;
};

} // namespace grace
