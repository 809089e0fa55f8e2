// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel port over generic netlink; see the header. What the module answers, and when, is
// written in lockd-shim/uapi/lockd_shim.h.
#include "graced/adapters/shim_netlink.hh"

#include "graced/adapters/kernel_write.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <mutex>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <poll.h>
#include <set>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <thread>
#include <time.h>
#include <unistd.h>

namespace grace {
namespace {

constexpr std::uint64_t retry_after = 500'000'000;
constexpr std::uint64_t refresh_after = 2'000'000'000;
constexpr std::uint64_t refresh_after_event = 100'000'000;
constexpr std::size_t max_under_way = 4096;
constexpr std::size_t max_namespaces = 4096;
constexpr std::size_t max_writers = 16;
constexpr std::size_t max_hosts_out = 64;
constexpr int direct_patience_ms = 5000;
constexpr int batch = 64; // datagrams taken in one turn

instant now() {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec;
}

std::string text_of(int code) {
    return std::strerror(code < 0 ? -code : code);
}

std::string words(const shim::ack& a) {
    return a.text.empty() ? text_of(a.code) : a.text;
}

// One socket of generic netlink; -1 and errno if that fails.
int genl_socket() {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (fd < 0)
        return -1;
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    const int on = 1;
    if (bind(fd, reinterpret_cast<sockaddr*>(&self), sizeof self) != 0) {
        const int code = errno;
        close(fd);
        errno = code;
        return -1;
    }
    // The module's own words in a refusal, without our request in front of them.
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    const int size = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    return fd;
}

bool same_file(int a, int b) {
    struct stat sa {};
    struct stat sb {};
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

} // namespace

namespace {
// A process that has not ended; its number cannot have become another's while the pidfd is open.
bool lives(int pidfd) {
    pollfd p{pidfd, POLLIN, 0};
    return poll(&p, 1, 0) == 0;
}
} // namespace

namespace {
// One request without a daemon's sockets; what came with its acknowledgement.
result<std::vector<shim::item>>
ask_directly(const std::function<std::vector<std::uint8_t>(std::uint16_t family)>& request) {
    auto c = shim_netlink::connect_to_kernel();
    if (!c)
        return tl::unexpected(c.error());
    close(c->events);
    const std::unique_ptr<int, void (*)(int*)> closes(&c->orders, [](int* fd) { close(*fd); });
    const auto message = request(c->family);
    if (::send(c->orders, message.data(), message.size(), MSG_NOSIGNAL) < 0)
        return fail("kernel module lockd_shim cannot be asked: " + text_of(errno), errno);
    std::vector<shim::item> all;
    for (;;) {
        pollfd p{c->orders, POLLIN, 0};
        if (poll(&p, 1, direct_patience_ms) != 1)
            return fail("kernel module lockd_shim does not answer", ETIMEDOUT);
        std::uint8_t buffer[8192];
        const ssize_t got = recv(c->orders, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got <= 0)
            return fail("kernel module lockd_shim hung up", EPIPE);
        for (auto& i : shim::decode({buffer, std::size_t(got)}, c->family)) {
            if (const auto* a = std::get_if<shim::ack>(&i)) {
                if (a->code != 0)
                    return fail("kernel module lockd_shim refused: " + words(*a), -a->code);
                return all;
            }
            all.push_back(std::move(i));
        }
    }
}
} // namespace

result<void> shim_netlink::bypass_directly(bool on) {
    if (auto r = ask_directly([on](auto family) { return shim::bypass_set(family, 1, on); }); !r)
        return tl::unexpected(r.error());
    return {};
}

result<bool> shim_netlink::bypassed_directly() {
    const auto said = ask_directly([](auto family) { return shim::status_get(family, 1); });
    if (!said)
        return tl::unexpected(said.error());
    for (const auto& i : *said)
        if (const auto* status = std::get_if<shim::status_reply>(&i))
            return status->now.bypass;
    return fail("kernel module lockd_shim does not tell its status", EPROTO);
}

struct shim_netlink::writers {
    std::mutex lock;
    std::set<std::string> busy; // files that are being written
};

result<shim_netlink::connection> shim_netlink::connect_to_kernel() {
    // Asking the kernel for a family that is not there makes it run modprobe, with us waiting.
    if (access("/sys/module/lockd_shim", F_OK) != 0)
        return fail("kernel module lockd_shim is not loaded: modprobe -a lockd_shim gfs2_gate",
                    ENOENT);
    std::unique_ptr<nl_sock, void (*)(nl_sock*)> ask(nl_socket_alloc(), nl_socket_free);
    if (!ask)
        return fail("no memory for a netlink socket", ENOMEM);
    if (const int code = genl_connect(ask.get()); code < 0)
        return fail(fmt::format("no generic netlink: {}", nl_geterror(code)), ENOTSUP);
    const timeval limit{1, 0};
    setsockopt(nl_socket_get_fd(ask.get()), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    const int family = genl_ctrl_resolve(ask.get(), LOCKD_SHIM_FAMILY_NAME);
    const int group =
        genl_ctrl_resolve_grp(ask.get(), LOCKD_SHIM_FAMILY_NAME, LOCKD_SHIM_MCGRP_EVENTS);
    if (family < 0 || group < 0)
        return fail(fmt::format("kernel module lockd_shim is loaded, but cannot be reached ({}): "
                                "graced has to run in the initial network namespace",
                                nl_geterror(family < 0 ? family : group)),
                    ENOENT);

    connection c;
    c.family = std::uint16_t(family);
    c.orders = genl_socket();
    c.events = c.orders < 0 ? -1 : genl_socket();
    if (c.events < 0 ||
        setsockopt(c.events, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
        const int code = errno;
        if (c.orders >= 0)
            close(c.orders);
        if (c.events >= 0)
            close(c.events);
        return fail(
            fmt::format("cannot talk to kernel module lockd_shim: {}{}", text_of(code),
                        code == EPERM ? ": graced needs CAP_NET_ADMIN, run it as root" : ""),
            code);
    }
    return c;
}

shim_netlink::shim_netlink(qb_loop_t* loop, sink out, connector how)
    : loop_(loop)
    , sink_(std::move(out))
    , connector_(std::move(how))
    , buffer_(65536)
    , writers_(std::make_shared<writers>()) {}

shim_netlink::~shim_netlink() {
    disconnect();
    if (retry_timer_)
        qb_loop_timer_del(loop_, retry_timer_);
    if (job_queued_)
        qb_loop_job_del(loop_, QB_LOOP_HIGH, this, on_job);
    for (const auto& [pid, fd] : exempt_)
        close(fd);
}

// --- attaching and losing ---

void shim_netlink::start() {
    connect();
}

void shim_netlink::connect() {
    auto c = connector_();
    if (!c)
        return lose(c.error().message);
    connection_ = *c;
    qb_loop_poll_add(loop_, QB_LOOP_HIGH, connection_.events, POLLIN, this, on_events);
    qb_loop_poll_add(loop_, QB_LOOP_HIGH, connection_.orders, POLLIN, this, on_orders);
    attach_replied_ = false;
    attach_seq_ = next_seq();
    send(attach_seq_, shim::attach(connection_.family, attach_seq_, LOCKD_SHIM_VERSION),
         {purpose::attach});
}

void shim_netlink::disconnect() {
    for (int* fd : {&connection_.orders, &connection_.events}) {
        if (*fd < 0)
            continue;
        qb_loop_poll_del(loop_, *fd);
        close(*fd);
        *fd = -1;
    }
    if (refresh_timer_)
        qb_loop_timer_del(loop_, refresh_timer_);
    refresh_timer_ = 0;
    while (!reclaiming_.empty())
        drop_reclaim(reclaiming_.begin()->first);
    std::map<std::uint32_t, request> lost;
    lost.swap(under_way_);
    hosts_.clear();
    hosts_out_ = 0;
    dump_.clear();
    dump_seq_ = 0;
    open_ = offered_ = false;
    status_.attached = false;
    enforced_.reset();
    for (auto& [seq, r] : lost)
        if (r.answer)
            r.answer(fail("the socket to kernel module lockd_shim was closed", ENOTCONN));
}

void shim_netlink::lose(const std::string& why) {
    const bool was_attached = status_.attached;
    disconnect();
    status_.trouble = why;
    // Once for each reason, not twice a second.
    if (was_attached || told_ != why)
        later(input::kernel_lost{why});
    told_ = why;
    if (!retry_timer_)
        qb_loop_timer_add(loop_, QB_LOOP_MED, retry_after, this, on_retry, &retry_timer_);
}

void shim_netlink::on_retry(void* data) {
    auto* self = static_cast<shim_netlink*>(data);
    self->retry_timer_ = 0;
    self->connect();
}

std::string shim_netlink::why_not_attached(const shim::ack& a) const {
    switch (-a.code) {
    case EBUSY:
        return "another graced is attached to kernel module lockd_shim: only one may be; stop it "
               "(systemctl status graced shows the one of systemd)";
    case EPROTONOSUPPORT:
        return fmt::format("kernel module lockd_shim and this graced do not fit together: {}. "
                           "Install both from one release, then stop graced, modprobe -r gfs2_gate "
                           "lockd_shim, and start graced again",
                           a.text.empty() ? fmt::format("graced speaks version {}, the module "
                                                        "another one",
                                                        LOCKD_SHIM_VERSION)
                                          : a.text);
    case EPERM:
        return "kernel module lockd_shim lets nobody attach without CAP_NET_ADMIN: run graced as "
               "root";
    default:
        return "kernel module lockd_shim cannot be attached: " +
               (a.code == 0 ? "it sent no status" : words(a));
    }
}

// --- from the kernel ---

int32_t shim_netlink::on_orders(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<shim_netlink*>(data);
    // First what happened before the acknowledgement: a trip that an order to open did not know of
    // must not be reported after the order was refused for it.
    if (self->connection_.orders == fd)
        self->read_socket(self->connection_.events);
    if (self->connection_.orders == fd)
        self->read_socket(fd);
    return 0;
}

int32_t shim_netlink::on_events(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<shim_netlink*>(data);
    if (self->connection_.events == fd)
        self->read_socket(fd);
    return 0;
}

void shim_netlink::read_socket(int fd) {
    const bool is_events = fd == connection_.events;
    const std::uint16_t family = connection_.family;
    for (int n = 0; n < batch; n++) {
        sockaddr_nl from{};
        socklen_t from_size = sizeof from;
        const ssize_t got = recvfrom(fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT,
                                     reinterpret_cast<sockaddr*>(&from), &from_size);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got < 0 && errno == ENOBUFS && is_events) {
            spdlog::warn("events of lockd_shim were lost (overrun); asking for the status instead");
            refresh();
            continue;
        }
        if (got <= 0)
            return lose(got == 0
                            ? "kernel module lockd_shim hung up"
                            : "the socket to kernel module lockd_shim failed: " + text_of(errno));
        if (from.nl_family == AF_NETLINK && from.nl_pid != 0)
            continue; // not from the kernel
        // A copy of what is decoded: an input may lead to an order, and that to lose().
        const auto items = shim::decode({buffer_.data(), std::size_t(got)}, family);
        for (const auto& i : items) {
            handle(i);
            if ((is_events ? connection_.events : connection_.orders) != fd)
                return;
        }
    }
}

void shim_netlink::handle(const shim::item& i) {
    if (const auto* a = std::get_if<shim::ack>(&i)) {
        const auto it = under_way_.find(a->seq);
        if (it == under_way_.end())
            return;
        const request r = it->second;
        under_way_.erase(it);
        finish(*a, r);
    } else if (const auto* attached = std::get_if<shim::attach_reply>(&i)) {
        if (attached->seq == attach_seq_) {
            attach_replied_ = true;
            status_.last = attached->now;
            status_.at = now();
        }
    } else if (const auto* status = std::get_if<shim::status_reply>(&i)) {
        note_status(status->now);
    } else if (const auto* ns = std::get_if<shim::namespace_reply>(&i)) {
        if (ns->seq == dump_seq_ && dump_.size() < max_namespaces)
            dump_.push_back(ns->ns);
    } else if (const auto* end = std::get_if<shim::dump_done>(&i)) {
        under_way_.erase(end->seq);
        if (end->seq == dump_seq_) {
            for (const auto& each : dump_)
                note_server(each);
            status_.namespaces = std::move(dump_);
            dump_.clear();
            dump_seq_ = 0;
        }
    } else if (const auto* trip = std::get_if<shim::trip_event>(&i)) {
        if (trip->trips > status_.last.trips)
            spdlog::info("gate: tripwire: {} (trip {})", shim::cause_name(trip->cause),
                         trip->trips);
        note_trips(trip->trips);
    } else if (const auto* gate = std::get_if<shim::gate_event>(&i)) {
        spdlog::info("gate: {} ({}), epoch {}, trips {}", shim::state_name(gate->state),
                     shim::reason_name(gate->reason), gate->epoch, gate->trips);
        status_.last.state = gate->state;
        status_.last.reason = gate->reason;
        status_.last.epoch = gate->epoch;
        if (gate->reason == LOCKD_SHIM_REASON_BYPASS)
            status_.last.bypass = gate->state == LOCKD_SHIM_STATE_OPEN;
        refresh_soon();
        note_trips(gate->trips);
        judge();
        if (gate->state == LOCKD_SHIM_STATE_CLOSED && gate->reason != LOCKD_SHIM_REASON_ORDER &&
            gate->reason != LOCKD_SHIM_REASON_ATTACH && gate->reason != LOCKD_SHIM_REASON_TRIP)
            note_closed();
    } else if (const auto* change = std::get_if<shim::namespace_event>(&i)) {
        if (change->up)
            note_server(change->ns);
        else
            stops_.erase(change->ns.cookie);
        refresh_soon();
    } else if (const auto* hooks = std::get_if<shim::hooks_event>(&i)) {
        status_.last.hooks = hooks->hooks;
        status_.last.hooks_wanted = hooks->hooks_wanted;
        status_.last.hook_error = hooks->error;
        if (!hooks->error.empty())
            spdlog::error("gate: {}. The gate stays closed until that is mended", hooks->error);
        else
            spdlog::info("gate: hooks in place: {}; wanted: {}", shim::hook_names(hooks->hooks),
                         shim::hook_names(hooks->hooks_wanted));
        judge();
    }
}

void shim_netlink::finish(const shim::ack& a, request r) {
    // Not ours any more, or nobody's: the module was unloaded by force, or its family is gone.
    if (r.what != purpose::attach && (a.code == -ENOTCONN || a.code == -ENOENT))
        return lose("kernel module lockd_shim does not know us any more: " + words(a));
    switch (r.what) {
    case purpose::attach:
        if (a.code != 0 || !attach_replied_)
            return lose(why_not_attached(a));
        status_.attached = true;
        status_.trouble.clear();
        told_.clear();
        spdlog::info("attached to kernel module lockd_shim {}: epoch {}, trips {}, hooks {}",
                     status_.last.module_version, status_.last.epoch, status_.last.trips,
                     shim::hook_names(status_.last.hooks));
        refresh();
        for (auto it = exempt_.begin(); it != exempt_.end();) {
            if (lives(it->second)) {
                const auto seq = next_seq();
                send(seq, shim::exempt_set(connection_.family, seq, it->first, true),
                     {purpose::other});
                ++it;
            } else {
                close(it->second);
                it = exempt_.erase(it);
            }
        }
        judge();
        return;
    case purpose::close:
    case purpose::open:
    case purpose::reclaim:
        if (a.code == 0) {
            if (r.what == purpose::close)
                status_.last.epoch = r.at;
            if (r.what == purpose::open && a.seq == gate_seq_)
                open_ = true;
            sink_(input::kernel_acked{r.order});
            return;
        }
        sink_(input::kernel_refused{r.order, a.code, words(a)});
        return;
    case purpose::withdraw:
        // ESTALE: the module's epoch is another one by now, and with the change it withdrew all.
        // Else: the close behind promises that nobody may reclaim; closing the socket keeps that.
        if (a.code != 0 && a.code != -ESTALE)
            lose("kernel module lockd_shim did not withdraw a permission to reclaim: " + words(a));
        return;
    case purpose::enforced:
        // Refused if the kernel has another epoch or more trips by now.
        if (a.code != 0)
            enforced_.reset();
        if (a.code != 0 && a.code != -ESTALE && a.code != -EAGAIN && a.code != -EBUSY)
            spdlog::warn("kernel module lockd_shim refused an order: {}", words(a));
        return;
    case purpose::permit:
        if (a.code == -ETIME)
            spdlog::debug("a permit came too late to be one: {}", words(a));
        else if (a.code != 0)
            spdlog::warn("kernel module lockd_shim refused a permit: {}", words(a));
        return;
    case purpose::host:
        --hosts_out_;
        // EBUSY, ESTALE: reclaim is over, and the records with it.
        if (a.code != 0 && a.code != -EBUSY && a.code != -ESTALE)
            spdlog::error("NFSv3 client {} may not reclaim: kernel module lockd_shim did not take "
                          "its record: {}",
                          r.name, words(a));
        return send_hosts();
    case purpose::other:
        if (r.answer)
            r.answer(a.code == 0 ? result<void>{}
                                 : fail("kernel module lockd_shim refused: " + words(a), -a.code));
        else if (a.code != 0)
            spdlog::warn("kernel module lockd_shim refused an order: {}", words(a));
        return;
    case purpose::status:
    case purpose::dump:
        if (a.code != 0)
            spdlog::warn("kernel module lockd_shim does not tell its status: {}", words(a));
        return;
    }
}

// The status of the kernel, when it was asked for: events that were lost show here.
void shim_netlink::note_status(const shim::status& s) {
    const std::uint64_t known = status_.last.trips;
    status_.last = s;
    status_.last.trips = known;
    status_.at = now();
    note_trips(s.trips);
    if (s.state == LOCKD_SHIM_STATE_CLOSED)
        note_closed();
    judge();
}

std::string shim_netlink::unfit() const {
    const shim::status& s = status_.last;
    if (s.bypass)
        return "THE GATE OF THIS NODE IS BYPASSED by an operator: no lock is held back here, and "
               "no server of the cluster can open reclaim. End it: gracectl bypass off";
    if ((s.hooks & s.hooks_wanted) != s.hooks_wanted)
        return "the gate does not hold every lock back: " +
               (s.hook_error.empty() ? "a hook is not in place" : s.hook_error);
    return {};
}

// Bad scenario: the gate is closed and has said so, and then gfs2 is loaded anew under a live
// patch, or an operator bypasses the gate. Nobody orders anything in grace, so nothing would be
// refused, and this node would go on counting as one that enforces.
void shim_netlink::judge() {
    if (!status_.attached)
        return;
    const std::string why = unfit();
    if (why.empty()) {
        if (!offered_) {
            offered_ = true;
            told_.clear();
            sink_(input::kernel_attached{status_.last.instance, epoch{status_.last.epoch},
                                         status_.last.trips});
        }
        return;
    }
    if (!offered_ && told_ == why)
        return;
    offered_ = open_ = false;
    told_ = why;
    hosts_.clear();
    while (!reclaiming_.empty()) // the kernel has withdrawn them by itself
        drop_reclaim(reclaiming_.begin()->first);
    spdlog::error("gate: {}", why);
    sink_(input::kernel_lost{why});
}

void shim_netlink::note_trips(std::uint64_t trips) {
    if (trips <= status_.last.trips)
        return;
    status_.last.trips = trips;
    open_ = false;
    if (offered_)
        sink_(input::kernel_tripped{trips});
}

// Problem scenario: somebody stops nfsd by hand. The kernel closes the gate before the first lock
// is dropped, and counts a trip; the dropping takes its time. If all that we made of it were the
// trip, the barrier could be back and the gate open again before the last lock is gone. This is
// told before the trip is, so the server's START goes out before the barrier.
void shim_netlink::note_server(const shim::network_namespace& ns) {
    const auto [it, first] = stops_.try_emplace(ns.cookie, ns.stops);
    const bool stopped = it->second != ns.stops || (first && ns.stops != 0);
    it->second = ns.stops;
    if (!stopped)
        return;
    for (const auto& [server, at] : places_) {
        struct stat st {};
        if (stat(at.netns.c_str(), &st) != 0 || st.st_ino != ns.inode)
            continue;
        if (ns.nfsd_up) {
            spdlog::error("server {}: its NFSv3 locks were released by hand; clients that held "
                          "them are not given a grace period for that",
                          server);
            continue;
        }
        spdlog::info("server {}: the kernel says that its nfsd is being stopped", server);
        sink_(input::nfsd_ended{server});
    }
}

void shim_netlink::note_closed() {
    if (!open_ || !offered_)
        return;
    open_ = false;
    sink_(input::kernel_closed{});
}

// --- orders ---

std::uint32_t shim_netlink::next_seq() {
    if (++seq_ == 0) // 0 is the number of events
        seq_ = 1;
    return seq_;
}

void shim_netlink::send(std::uint32_t seq, const std::vector<std::uint8_t>& message, request r) {
    if (connection_.orders < 0) {
        if (r.what == purpose::close || r.what == purpose::open || r.what == purpose::reclaim)
            refuse(r.order, -ENOTCONN, "kernel module lockd_shim is not attached");
        if (r.answer)
            r.answer(
                fail("kernel module lockd_shim is not attached: " + status_.trouble, ENOTCONN));
        return;
    }
    if (under_way_.size() >= max_under_way)
        return lose("kernel module lockd_shim does not answer");
    under_way_.emplace(seq, std::move(r));
    if (::send(connection_.orders, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        lose("the socket to kernel module lockd_shim failed: " + text_of(errno));
}

void shim_netlink::close_gate(epoch at, std::uint64_t order) {
    open_ = false;
    // The module keeps permissions of the very epoch (a trip leaves them alone, too); the port's
    // promise is that closing withdraws all of them. They are withdrawn before: the kernel performs
    // requests of a socket in order, so this order's acknowledgement stands for theirs. Those of
    // another epoch it withdraws by itself, and refuses ours as stale.
    while (!reclaiming_.empty()) {
        withdraw(reclaiming_.begin()->second, at.value);
        if (!reclaiming_.empty()) // send() may have lost the connection, and them with it
            drop_reclaim(reclaiming_.begin()->first);
    }
    gate_seq_ = next_seq();
    send(gate_seq_, shim::gate_closed(connection_.family, gate_seq_, at.value),
         {purpose::close, order, at.value});
}

void shim_netlink::open_gate(epoch at, std::uint64_t trips, std::uint64_t order) {
    gate_seq_ = next_seq();
    send(gate_seq_, shim::gate_open(connection_.family, gate_seq_, at.value, trips),
         {purpose::open, order});
}

void shim_netlink::set_reclaim(const std::string& server, epoch at, bool on, std::uint64_t order) {
    const auto before = reclaiming_.find(server);
    if (!on) {
        if (before == reclaiming_.end()) // attaching withdrew all that was given before
            return later(input::kernel_acked{order});
        const auto seq = next_seq();
        send(seq, shim::reclaim_set(connection_.family, seq, before->second, at.value, false),
             {purpose::reclaim, order});
        return drop_reclaim(server); // the kernel has taken the request, with the file, by now
    }

    const auto known = places_.find(server);
    if (known == places_.end() || known->second.netns.empty())
        return refuse(order, -ENOENT,
                      fmt::format("the network namespace of server {} is not known here", server));
    const int fd = ::open(known->second.netns.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        const int code = errno;
        return refuse(order, -code,
                      fmt::format("cannot open {}, the network namespace of server {}: {}",
                                  known->second.netns, server, text_of(code)));
    }
    if (connection_.orders < 0) {
        close(fd);
        return refuse(order, -ENOTCONN, "kernel module lockd_shim is not attached");
    }
    if (before != reclaiming_.end() && !same_file(before->second, fd))
        withdraw(before->second, at.value); // the server was made anew in another namespace
    drop_reclaim(server);
    // Kept even if the kernel refuses: to withdraw what was not given is no error, to leave what
    // an earlier order gave is one.
    reclaiming_.emplace(server, fd);
    const auto seq = next_seq();
    send(seq, shim::reclaim_set(connection_.family, seq, fd, at.value, true),
         {purpose::reclaim, order});
    tell_hosts(server, at.value); // performed after it, in the order in which they are sent
}

void shim_netlink::tell_hosts(const std::string& server, std::uint64_t at) {
    std::erase_if(hosts_, [&](const auto& h) { return std::get<0>(h) == server; });
    if (!host_source_)
        return;
    auto hosts = host_source_(server);
    std::erase_if(hosts,
                  [](const auto& h) { return h.empty() || h.size() >= LOCKD_SHIM_HOST_LEN; });
    if (hosts.size() > LOCKD_SHIM_HOSTS_MAX) {
        spdlog::error("server {}: {} NFSv3 clients are on record, {} at most may reclaim", server,
                      hosts.size(), LOCKD_SHIM_HOSTS_MAX);
        hosts.resize(LOCKD_SHIM_HOSTS_MAX);
    }
    for (const std::string& host : hosts)
        hosts_.emplace_back(server, host, at);
    send_hosts();
}

// A few at a time: thousands of answers would not fit into the socket's buffer.
void shim_netlink::send_hosts() {
    while (!hosts_.empty() && hosts_out_ < max_hosts_out && connection_.orders >= 0) {
        const auto [server, host, at] = std::move(hosts_.front());
        hosts_.pop_front();
        const auto it = reclaiming_.find(server);
        if (it == reclaiming_.end())
            continue;
        const auto seq = next_seq();
        ++hosts_out_;
        send(seq, shim::host_add(connection_.family, seq, it->second, at, host),
             {purpose::host, 0, 0, nullptr, host});
    }
}

// --- orders of people ---

void shim_netlink::ask(std::uint32_t seq, const std::vector<std::uint8_t>& message,
                       answered answer) {
    send(seq, message, {purpose::other, 0, 0, std::move(answer)});
}

void shim_netlink::set_bypass(bool on) {
    set_bypass(on, nullptr);
}

void shim_netlink::set_enforced(epoch at, std::uint64_t trips, bool on) {
    const auto wanted = on ? std::optional(std::pair(at, trips)) : std::nullopt;
    if (!status_.attached || enforced_ == wanted)
        return;
    enforced_ = wanted;
    const auto seq = next_seq();
    send(seq, shim::enforced_set(connection_.family, seq, at.value, trips, on),
         {purpose::enforced});
}

void shim_netlink::set_bypass(bool on, answered answer) {
    const auto seq = next_seq();
    ask(seq, shim::bypass_set(connection_.family, seq, on), std::move(answer));
}

void shim_netlink::set_exempt(std::uint32_t pid, bool on, answered answer) {
    if (const auto it = exempt_.find(pid); it != exempt_.end()) {
        close(it->second);
        exempt_.erase(it);
    }
    const auto seq = next_seq();
    if (!on)
        return ask(seq, shim::exempt_set(connection_.family, seq, pid, false), std::move(answer));
    // glibc 2.36 has pidfd_open(); Debian 12's headers of it clash with linux/ ones.
    const int fd = int(syscall(SYS_pidfd_open, pid_t(pid), 0));
    if (fd < 0)
        return answer(fail(fmt::format("process {}: {}", pid, text_of(errno)), errno));
    exempt_[pid] = fd;
    ask(seq, shim::exempt_set(connection_.family, seq, pid, true),
        [this, pid, fd, answer = std::move(answer)](result<void> r) {
            // Its number may have become another's between the two, unless it still lives.
            if (r && !lives(fd))
                r = fail(fmt::format("process {} has ended", pid), ESRCH);
            if (const auto it = exempt_.find(pid); !r && it != exempt_.end() && it->second == fd) {
                close(fd);
                exempt_.erase(it);
            }
            answer(std::move(r));
        });
}

void shim_netlink::withdraw(int netns_fd, std::uint64_t at) {
    const auto seq = next_seq();
    send(seq, shim::reclaim_set(connection_.family, seq, netns_fd, at, false), {purpose::withdraw});
}

void shim_netlink::drop_reclaim(const std::string& server) {
    const auto it = reclaiming_.find(server);
    if (it == reclaiming_.end())
        return;
    close(it->second);
    reclaiming_.erase(it);
}

void shim_netlink::extend_permit(instant until) {
    if (connection_.orders < 0)
        return; // nothing is open that a permit would keep open
    std::uint64_t at = until > 0 ? std::uint64_t(until) : 0;
    // A wrong clock of ours must not become an error of every heartbeat.
    const std::uint64_t furthest =
        std::uint64_t(now()) + LOCKD_SHIM_PERMIT_MAX_NSEC - std::uint64_t(seconds(1));
    if (at > furthest)
        at = furthest;
    permit_until_ = instant(at);
    const auto seq = next_seq();
    send(seq, shim::permit_set(connection_.family, seq, at), {purpose::permit});
}

void shim_netlink::refresh() {
    if (refresh_timer_)
        qb_loop_timer_del(loop_, refresh_timer_);
    refresh_timer_ = 0;
    if (connection_.orders < 0)
        return;
    auto seq = next_seq();
    send(seq, shim::status_get(connection_.family, seq), {purpose::status});
    if (connection_.orders >= 0) {
        seq = next_seq();
        dump_.clear();
        dump_seq_ = seq;
        send(seq, shim::namespaces_dump(connection_.family, seq), {purpose::dump});
    }
    if (connection_.orders >= 0)
        qb_loop_timer_add(loop_, QB_LOOP_LOW, refresh_after, this, on_refresh, &refresh_timer_);
}

// For the people who look: with the namespaces as they are after the event.
void shim_netlink::refresh_soon() {
    if (!refresh_timer_) // not attached, or about to be
        return;
    qb_loop_timer_del(loop_, refresh_timer_);
    refresh_timer_ = 0;
    qb_loop_timer_add(loop_, QB_LOOP_LOW, refresh_after_event, this, on_refresh, &refresh_timer_);
}

void shim_netlink::on_refresh(void* data) {
    auto* self = static_cast<shim_netlink*>(data);
    self->refresh_timer_ = 0;
    self->refresh();
}

// --- servers ---

void shim_netlink::set_namespace(std::string server, std::string netns_path,
                                 std::string nfsd_path) {
    place& p = places_[std::move(server)];
    p.netns = std::move(netns_path);
    p.nfsd = std::move(nfsd_path);
}

bool shim_netlink::nfsd_runs(const std::string& server) const {
    const auto at = places_.find(server);
    struct stat st {};
    if (at == places_.end() || stat(at->second.netns.c_str(), &st) != 0)
        return false;
    return std::ranges::any_of(status_.namespaces, [&](const shim::network_namespace& ns) {
        return ns.nfsd_up && ns.inode == st.st_ino;
    });
}

void shim_netlink::forget(const std::string& server) {
    if (const auto it = reclaiming_.find(server); it != reclaiming_.end()) {
        withdraw(it->second, status_.last.epoch);
        drop_reclaim(server);
    }
    places_.erase(server);
}

void shim_netlink::end_nfsd_grace(const std::string& server) {
    const auto known = places_.find(server);
    if (known == places_.end() || known->second.nfsd.empty()) {
        spdlog::warn("cannot end the grace of nfsd of server {}: its namespace is not known here",
                     server);
        return;
    }
    const std::string path = known->second.nfsd + "/v4_end_grace";
    {
        const std::lock_guard held(writers_->lock);
        if (writers_->busy.contains(path))
            return; // it is being told
        if (writers_->busy.size() >= max_writers) {
            spdlog::error(
                "cannot write {}: {} nfsds already keep a thread waiting; their own grace "
                "ends when nfsv4gracetime has passed",
                path, max_writers);
            return;
        }
        writers_->busy.insert(path);
    }
    const auto write_it = [path, server, shared = writers_] {
        const int code = write_apart(path, "Y\n");
        // EBUSY: nfsd does not run, or its grace is over (fs/nfsd/nfsctl.c write_v4_end_grace).
        if (code != 0 && code != EBUSY)
            spdlog::warn("cannot end the grace of nfsd of server {}: {}: {}; it ends by itself "
                         "when nfsv4gracetime has passed",
                         server, path, text_of(code));
        const std::lock_guard held(shared->lock);
        shared->busy.erase(path);
    };
    try {
        std::thread(write_it).detach();
    } catch (const std::system_error& e) {
        spdlog::error("cannot end the grace of nfsd of server {}: no thread: {}", server, e.what());
        const std::lock_guard held(writers_->lock);
        writers_->busy.erase(path);
    }
}

// --- answers that do not come from the kernel: from the loop, too, never from within an order ---

void shim_netlink::later(any_input i) {
    pending_.push_back(std::move(i));
    if (!job_queued_)
        job_queued_ = qb_loop_job_add(loop_, QB_LOOP_HIGH, this, on_job) == 0;
}

void shim_netlink::on_job(void* data) {
    auto* self = static_cast<shim_netlink*>(data);
    self->job_queued_ = false;
    std::deque<any_input> taken;
    taken.swap(self->pending_);
    for (auto& i : taken)
        self->sink_(std::move(i));
}

void shim_netlink::refuse(std::uint64_t order, int code, std::string why) {
    later(input::kernel_refused{order, code, std::move(why)});
}

} // namespace grace
