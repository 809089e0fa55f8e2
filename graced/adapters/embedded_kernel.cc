// SPDX-License-Identifier: GPL-2.0-or-later
// The stand-in for the kernel module; see the header.
#include "graced/adapters/embedded_kernel.hh"

#include <cerrno>
#include <cstring>
#include <random>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

namespace grace {
namespace {

constexpr std::size_t max_askers = 128;
constexpr std::size_t max_request = 512;

instant now() {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec;
}

std::string text_of(int code) {
    return std::strerror(code);
}

} // namespace

embedded_kernel::embedded_kernel(qb_loop_t* loop, sink out, std::string socket_path)
    : loop_(loop)
    , sink_(std::move(out))
    , socket_path_(std::move(socket_path)) {
    std::random_device random;
    instance_ = (std::uint64_t{random()} << 32 | random()) | 1; // never 0
}

embedded_kernel::~embedded_kernel() {
    if (permit_timer_)
        qb_loop_timer_del(loop_, permit_timer_);
    if (job_queued_)
        qb_loop_job_del(loop_, QB_LOOP_HIGH, this, on_job);
    while (!askers_.empty())
        drop_asker(*askers_.begin());
    if (listener_ >= 0) {
        qb_loop_poll_del(loop_, listener_);
        close(listener_);
        unlink(socket_path_.c_str());
    }
}

result<void> embedded_kernel::start() {
    spdlog::warn("************************************************************************");
    spdlog::warn("The gate is a STAND-IN inside graced: it stops no lock and protects no data.");
    spdlog::warn(
        "It is for tests and the demo. For data that matters: modprobe -a lockd_shim gfs2_gate");
    spdlog::warn("************************************************************************");
    if (!socket_path_.empty())
        if (auto listening = listen(); !listening)
            return listening;
    later(input::kernel_attached{instance_, epoch_, trips_});
    return {};
}

// --- answers: from the loop, in the order in which they arose, never from within an order ---

void embedded_kernel::later(any_input i) {
    pending_.push_back(std::move(i));
    if (!job_queued_)
        job_queued_ = qb_loop_job_add(loop_, QB_LOOP_HIGH, this, on_job) == 0;
}

void embedded_kernel::on_job(void* data) {
    auto* self = static_cast<embedded_kernel*>(data);
    self->job_queued_ = false;
    std::deque<any_input> batch;
    batch.swap(self->pending_); // what arises meanwhile is for the next turn
    for (auto& i : batch)
        self->sink_(std::move(i));
}

void embedded_kernel::acknowledge(std::uint64_t order) {
    later(input::kernel_acked{order});
}

void embedded_kernel::refuse(std::uint64_t order, int code, std::string why) {
    spdlog::warn("stand-in gate: order {} refused: {}", order, why);
    later(input::kernel_refused{order, code, std::move(why)});
}

// --- orders ---

void embedded_kernel::shut(const char* why) {
    if (open_)
        spdlog::info("stand-in gate: closed ({}), epoch {}, trips {}", why, epoch_.value, trips_);
    open_ = false;
    arm_permit_timer();
}

bool embedded_kernel::is_open() {
    // The kernel compares the clock at each lock too: a timer may be late.
    if (open_ && now() >= permit_until_) {
        shut("the permit ran out");
        later(input::kernel_closed{});
    }
    return open_;
}

void embedded_kernel::close_gate(epoch at, std::uint64_t order) {
    if (bypass_)
        return refuse(order, -EBUSY, "the gate is bypassed");
    if (at < epoch_)
        return refuse(order, -ESTALE,
                      fmt::format("epoch {} is below the current {}", at.value, epoch_.value));
    if (at != epoch_)
        spdlog::info("stand-in gate: epoch {} (was {})", at.value, epoch_.value);
    epoch_ = at;
    reclaiming_.clear();
    shut("an order");
    acknowledge(order);
}

void embedded_kernel::open_gate(epoch at, std::uint64_t trips, std::uint64_t order) {
    if (bypass_)
        return refuse(order, -EBUSY, "the gate is bypassed");
    if (at != epoch_)
        return refuse(order, -ESTALE,
                      fmt::format("epoch {} is not the current {}", at.value, epoch_.value));
    if (trips != trips_)
        return refuse(order, -EAGAIN,
                      fmt::format("the order accounts for {} trips, there were {}", trips, trips_));
    if (now() >= permit_until_)
        return refuse(order, -ETIME, "the permit has run out, or was never given");
    if (!reclaiming_.empty())
        return refuse(order, -EBUSY,
                      fmt::format("clients of {} may still reclaim", *reclaiming_.begin()));
    if (!open_)
        spdlog::info("stand-in gate: open, epoch {}, trips {}", epoch_.value, trips_);
    open_ = true;
    arm_permit_timer();
    acknowledge(order);
}

void embedded_kernel::set_reclaim(const std::string& server, epoch at, bool on,
                                  std::uint64_t order) {
    if (bypass_)
        return refuse(order, -EBUSY, "the gate is bypassed");
    if (at != epoch_)
        return refuse(order, -ESTALE,
                      fmt::format("epoch {} is not the current {}", at.value, epoch_.value));
    if (on && is_open())
        return refuse(order, -EBUSY, "the gate is open");
    if (on && reclaiming_.insert(server).second)
        spdlog::info("stand-in gate: clients of {} may reclaim, epoch {}", server, epoch_.value);
    if (!on && reclaiming_.erase(server) != 0)
        spdlog::info("stand-in gate: clients of {} may not reclaim any more", server);
    acknowledge(order);
}

void embedded_kernel::extend_permit(instant until) {
    is_open(); // if it ran out a moment ago, a new permit does not keep it open
    if (until == 0)
        permit_until_ = 0;
    else if (until > permit_until_)
        permit_until_ = until;
    if (!is_open())
        return;
    arm_permit_timer();
}

void embedded_kernel::end_nfsd_grace(const std::string& server) {
    spdlog::info("stand-in gate: nfsd of {} would end its own grace now", server);
}

void embedded_kernel::trip() {
    trips_++;
    shut("the tripwire");
    later(input::kernel_tripped{trips_});
}

void embedded_kernel::arm_permit_timer() {
    if (permit_timer_)
        qb_loop_timer_del(loop_, permit_timer_);
    permit_timer_ = 0;
    if (!open_)
        return;
    const duration left = std::max<duration>(permit_until_ - now(), 0);
    qb_loop_timer_add(loop_, QB_LOOP_HIGH, std::uint64_t(left) + 1, this, on_permit_end,
                      &permit_timer_);
}

void embedded_kernel::on_permit_end(void* data) {
    auto* self = static_cast<embedded_kernel*>(data);
    self->permit_timer_ = 0;
    if (self->is_open()) // CLOCK_MONOTONIC of the loop and CLOCK_BOOTTIME may differ
        self->arm_permit_timer();
}

// As in the kernel: the gate is closed under it, no order is acknowledged, no reclaim is open.
void embedded_kernel::set_bypass(bool on) {
    if (on == bypass_)
        return;
    bypass_ = on;
    shut("the bypass");
    reclaiming_.clear();
    spdlog::error("stand-in gate: bypass {}", on ? "ON" : "off");
    if (on)
        later(input::kernel_lost{"THE GATE OF THIS NODE IS BYPASSED by an operator"});
    else
        later(input::kernel_attached{instance_, epoch_, trips_});
}

// --- the socket ---

result<void> embedded_kernel::listen() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_path_.size() >= sizeof address.sun_path)
        return fail(fmt::format("the path {} is too long for a socket ({} bytes at most)",
                                socket_path_, sizeof address.sun_path - 1),
                    ENAMETOOLONG);
    std::memcpy(address.sun_path, socket_path_.c_str(), socket_path_.size() + 1);
    listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(socket_path_.c_str()); // of a daemon that was killed
    if (listener_ < 0 ||
        bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_, 32) != 0) {
        const int code = errno;
        if (listener_ >= 0)
            close(listener_);
        listener_ = -1;
        return fail(fmt::format("cannot listen on {}: {}", socket_path_, text_of(code)), code);
    }
    qb_loop_poll_add(loop_, QB_LOOP_MED, listener_, POLLIN, this, on_listener);
    return {};
}

int32_t embedded_kernel::on_listener(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<embedded_kernel*>(data);
    const int asker = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (asker < 0)
        return 0;
    if (self->askers_.size() >= max_askers) {
        close(asker);
        return 0;
    }
    self->askers_.insert(asker);
    qb_loop_poll_add(self->loop_, QB_LOOP_MED, asker, POLLIN, self, on_asker);
    return 0;
}

void embedded_kernel::drop_asker(int fd) {
    qb_loop_poll_del(loop_, fd);
    close(fd);
    askers_.erase(fd);
}

int32_t embedded_kernel::on_asker(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<embedded_kernel*>(data);
    char request[max_request];
    const ssize_t got = recv(fd, request, sizeof request, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        self->drop_asker(fd);
        return 0;
    }
    const std::string answer = self->answer_to({request, std::size_t(got)});
    if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) < 0)
        self->drop_asker(fd); // it asks without listening
    return 0;
}

std::string embedded_kernel::answer_to(const std::string& request) {
    std::string line = request;
    while (!line.empty() && (line.back() == '\n' || line.back() == '\0'))
        line.pop_back();
    if (line == "try local")
        return bypass_ || is_open() ? "granted" : "eagain";
    if (line.starts_with("try nfs "))
        return bypass_ || is_open() ? "granted" : "grace";
    if (line.starts_with("try reclaim "))
        return bypass_ || (!is_open() && reclaiming_.contains(line.substr(12))) ? "granted"
                                                                                 : "grace";
    if (line == "trip") {
        trip();
        return fmt::format("ok {}", trips_);
    }
    if (line == "status") {
        std::string servers;
        for (const auto& server : reclaiming_)
            servers += " " + server;
        return fmt::format("{} epoch {} trips {} reclaim{}", is_open() ? "open" : "closed",
                           epoch_.value, trips_, servers.empty() ? " none" : servers);
    }
    return "unknown";
}

} // namespace grace
