// SPDX-License-Identifier: GPL-2.0-or-later
#include "adapters/lock_client.hh"

#include "dlm_keeper/protocol.hh"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

extern char** environ;

namespace grace {

namespace wire = keeper;

namespace {

constexpr int packets_at_once = 64;

instant now() {
    timespec t{};
    ::clock_gettime(CLOCK_BOOTTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec;
}

// Ids start anywhere, so that those of two lives of the daemon do not meet.
std::uint64_t first_id() {
    std::uint64_t id = 0;
    if (::getrandom(&id, sizeof id, 0) != ssize_t(sizeof id))
        id = static_cast<std::uint64_t>(now());
    return id | 1;
}

} // namespace

lock_client::lock_client(qb_loop_t* loop, lock_client_config config, sink s)
    : loop_(loop)
    , config_(std::move(config))
    , sink_(std::move(s))
    , next_id_(first_id()) {
    qb_loop_timer_add(
        loop_, QB_LOOP_MED, 1, this,
        [](void* self) { static_cast<lock_client*>(self)->on_timer(); }, &timer_);
    qb_loop_timer_add(
        loop_, QB_LOOP_MED, static_cast<std::uint64_t>(config_.ping_every), this,
        [](void* self) { static_cast<lock_client*>(self)->on_ping_timer(); }, &ping_timer_);
}

lock_client::~lock_client() {
    qb_loop_timer_del(loop_, timer_);
    qb_loop_timer_del(loop_, ping_timer_);
    if (fd_ >= 0) {
        qb_loop_poll_del(loop_, fd_);
        ::close(fd_);
    }
}

// --- the connection ---

void lock_client::on_timer() {
    reap();
    if (fd_ < 0)
        connect();
    qb_loop_timer_add(
        loop_, QB_LOOP_MED, static_cast<std::uint64_t>(config_.reconnect_every), this,
        [](void* self) { static_cast<lock_client*>(self)->on_timer(); }, &timer_);
}

void lock_client::connect() {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    const std::string& path = config_.socket_path;
    std::string fault;
    if (path.size() >= sizeof at.sun_path) {
        fault = "the path is too long for a socket";
    } else {
        std::memcpy(at.sun_path, path.c_str(), path.size() + 1);
        fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd_ < 0 || ::connect(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof at) < 0) {
            fault = std::strerror(errno);
            if (fd_ >= 0)
                ::close(fd_);
            fd_ = -1;
        }
    }
    if (fd_ >= 0) {
        broken_ = heard_ = false;
        unanswered_pings_ = 0;
        watch(POLLIN);
        send_ping();
        auto m = wire::make<wire::hello>();
        m.permit_ms = static_cast<std::uint32_t>(config_.permit_ttl / 1'000'000);
        m.node = config_.node.value;
        send(m);
        return;
    }
    if (fault != last_fault_)
        spdlog::warn("no DLM keeper on '{}': {}; trying on", path, fault);
    last_fault_ = fault;
    nobody_there();
}

void lock_client::nobody_there() {
    if (alone_since_ == 0)
        alone_since_ = now();
    if (!config_.keeper_command.empty() && now() - alone_since_ >= config_.spawn_after)
        spawn_keeper();
}

void lock_client::disconnect(const std::string& why) {
    const bool known = std::exchange(known_, false);
    if (why != last_fault_)
        spdlog::log(known ? spdlog::level::err : spdlog::level::warn,
                    "lost the DLM keeper on '{}': {}", config_.socket_path, why);
    last_fault_ = why;
    qb_loop_poll_del(loop_, fd_);
    ::close(std::exchange(fd_, -1));
    queue_.clear();
    slots_.clear();
    frozen_for_ = 0;
    if (known)
        sink_(input::locks_lost{});
}

void lock_client::watch(int events) {
    const auto call = [](int32_t, int32_t revents, void* self) {
        return static_cast<lock_client*>(self)->dispatch(revents);
    };
    if (qb_loop_poll_mod(loop_, QB_LOOP_HIGH, fd_, events, this, call) < 0)
        qb_loop_poll_add(loop_, QB_LOOP_HIGH, fd_, events, this, call);
}

void lock_client::on_ping_timer() {
    qb_loop_timer_add(
        loop_, QB_LOOP_MED, static_cast<std::uint64_t>(config_.ping_every), this,
        [](void* self) { static_cast<lock_client*>(self)->on_ping_timer(); }, &ping_timer_);
    if (fd_ < 0)
        return;
    // Counted in pings and not in time: after a pause of our own everything is late, but no more
    // than one ping is unanswered.
    if (unanswered_pings_ >= (heard_ ? config_.lost_after_pings : config_.silent_after_pings)) {
        // It has the socket open and does not serve it: for our purpose nobody listens.
        disconnect("it does not answer; it is stopped, or hangs in its exit while the lockspace is "
                   "frozen");
        if (alone_since_ == 0)
            alone_since_ = now() - config_.spawn_after; // we have waited already
        nobody_there();
        return;
    }
    send_ping();
}

void lock_client::send_ping() {
    ++unanswered_pings_;
    auto m = wire::make<wire::ping>();
    m.cookie = static_cast<std::uint64_t>(now());
    send(m);
}

void lock_client::spawn_keeper() {
    alone_since_ = now(); // the next one after another `spawn_after`
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&files);
    // A session of its own: what ends us (a terminal, a process group) must not end the locks.
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    std::vector<char*> argv;
    for (std::string& word : config_.keeper_command)
        argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int code = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) {
        spdlog::error("cannot start the DLM keeper '{}': {}", config_.keeper_command.front(),
                      std::strerror(code));
        return;
    }
    spdlog::info("started a DLM keeper, pid {}", pid);
    keepers_.insert(pid);
}

void lock_client::reap() {
    std::erase_if(keepers_, [](pid_t pid) {
        int status = 0;
        if (::waitpid(pid, &status, WNOHANG) == 0)
            return false;
        if (WIFSIGNALED(status))
            spdlog::error("the DLM keeper pid {} died of signal {}", pid, WTERMSIG(status));
        else if (WEXITSTATUS(status) != 0)
            spdlog::warn("the DLM keeper pid {} ended with code {}; its log says why", pid,
                         WEXITSTATUS(status));
        return true;
    });
}

template <typename T>
void lock_client::send(const T& message) {
    if (fd_ < 0 || broken_)
        return;
    const auto* raw = reinterpret_cast<const std::uint8_t*>(&message);
    if (queue_.empty()) {
        if (::send(fd_, raw, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return;
        if (errno != EAGAIN) {
            broken_ = true; // the end is read by dispatch(), not from within a call of the engine
            ::shutdown(fd_, SHUT_RDWR);
            return;
        }
        watch(POLLIN | POLLOUT);
    }
    if (queue_.size() == max_queued) {
        spdlog::error("the DLM keeper does not read: {} messages wait", queue_.size());
        broken_ = true;
        ::shutdown(fd_, SHUT_RDWR);
        return;
    }
    queue_.emplace_back(raw, raw + sizeof message);
}

void lock_client::flush() {
    while (!queue_.empty()) {
        const packet& p = queue_.front();
        if (::send(fd_, p.data(), p.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return;
        queue_.pop_front();
    }
    watch(POLLIN);
}

int32_t lock_client::dispatch(int32_t revents) {
    if (revents & POLLOUT)
        flush();
    if (!(revents & (POLLIN | POLLHUP | POLLERR)))
        return 0;
    for (int i = 0; i < packets_at_once && fd_ >= 0; ++i) {
        std::array<std::uint8_t, wire::max_message> buffer;
        const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), MSG_TRUNC);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (got <= 0) {
            disconnect(got == 0 ? "it closed the connection" : std::strerror(errno));
            return 0;
        }
        const auto size = static_cast<std::size_t>(got);
        if (size > buffer.size() || (!broken_ && !handle({buffer.data(), size}))) {
            disconnect("it sent a message of " + std::to_string(size) +
                       " bytes that is not understood");
            return 0;
        }
    }
    return 0;
}

// --- messages ---

bool lock_client::handle(std::span<const std::uint8_t> raw) {
    const auto head = wire::parse_header(raw);
    if (!head.type) {
        spdlog::error("the DLM keeper sent {}", head.fault);
        return false;
    }
    heard_ = true;
    alone_since_ = 0;
    // Every answer has a key; what is said of it differs.
    const auto answer = [&](auto m, lock_event e) {
        if (!m)
            return false;
        const auto key = wire::key_from(m->key);
        if (!key || !known_)
            return false;
        e.key = *key;
        if constexpr (requires { m->mode; }) {
            const auto mode = wire::mode_from(m->mode);
            if (!mode || m->value_valid > 1)
                return false;
            e.mode = *mode;
            e.value_valid = m->value_valid;
            e.value = m->value;
        }
        if constexpr (requires { m->code; })
            e.code = m->code;
        if constexpr (requires { m->id; }) {
            const auto at = slots_.find(*key);
            if (at == slots_.end() || at->second.id != m->id) {
                // An answer to no request of ours, or a refusal of a second one.
                if (e.kind == lock_event::what::refused)
                    sink_(input::lock_refused{key->resource, key->node, e.code});
                else
                    spdlog::warn("the DLM keeper answers on {} what was not asked", name_of(*key));
                return true;
            }
        }
        return handle_answer(e);
    };
    lock_event e;
    switch (*head.type) {
    case wire::message_type::state:
        return handle_state(raw);
    case wire::message_type::granted:
        return answer(wire::parse<wire::granted>(raw), e);
    case wire::message_type::refused:
        e.kind = lock_event::what::refused;
        return answer(wire::parse<wire::refused>(raw), e);
    case wire::message_type::cancelled:
        e.kind = lock_event::what::cancelled;
        return answer(wire::parse<wire::cancelled>(raw), e);
    case wire::message_type::blocking:
        e.kind = lock_event::what::blocking;
        return answer(wire::parse<wire::blocking>(raw), e);
    case wire::message_type::pong:
        if (const auto m = wire::parse<wire::pong>(raw)) {
            unanswered_pings_ = 0;
            frozen_for_ = milliseconds(m->blocked_ms);
            return true;
        }
        return false;
    case wire::message_type::notice:
        if (const auto m = wire::parse<wire::notice>(raw)) {
            const std::string text = wire::get_text(m->text);
            if (text != last_fault_)
                spdlog::warn("the DLM keeper says: {}", text);
            last_fault_ = text;
            return true;
        }
        return false;
    default:
        return false;
    }
}

bool lock_client::handle_state(std::span<const std::uint8_t> raw) {
    const auto m = wire::parse<wire::state>(raw);
    if (!m || known_ || m->count > m->entries.size())
        return false;
    input::locks_known news{lock_mode::nl, false, {}, false};
    std::vector<lock_key> probes;
    for (std::size_t i = 0; i < m->count; ++i) {
        const wire::state_entry& entry = m->entries[i];
        const auto key = wire::key_from(entry.key);
        const auto held = wire::mode_from(entry.held);
        const auto requested = wire::mode_from(entry.requested);
        if (!key || (!held && entry.held != wire::no_mode) ||
            (!requested && entry.requested != wire::no_mode))
            return false;
        const bool probe = key->resource == lock_resource::alive && key->node != config_.node;
        if (*key == grace_lock)
            news.grace = held.value_or(lock_mode::nl);
        else if (!probe)
            news.alive = held == lock_mode::ex;
        if (requested) {
            slot& s = slots_[*key];
            s.id = entry.id;
            s.mode = *requested;
            s.inherited = !probe;
            s.discard = probe;
            if (*key == grace_lock)
                news.requested = requested;
            else if (!probe)
                news.alive_requested = requested == lock_mode::ex;
            spdlog::info("{} on {} was asked for by a former graced and is outstanding{}",
                         mode_name(*requested), name_of(*key), probe ? "; given back" : "");
        }
        if (probe)
            probes.push_back(*key);
    }
    known_ = true;
    embedded_ = m->embedded;
    last_fault_.clear();
    spdlog::info("reached the DLM keeper: {} on grace, alive {}{}", mode_name(news.grace),
                 news.alive ? "held" : "not held",
                 embedded_ ? "; EMBEDDED lock table, no DLM" : "");
    for (const lock_key key : probes) {
        slot& s = slots_[key];
        s.discard = true;
        if (s.id)
            send_cancel(key, s);
        else
            send_convert(key, s, lock_mode::nl, nullptr);
    }
    sink_(news);
    return true;
}

// An answer to the outstanding request of its key, or `blocking`.
bool lock_client::handle_answer(lock_event e) {
    using what = lock_event::what;
    if (e.kind == what::blocking) {
        if (on_blocking)
            on_blocking(e.key);
        return true;
    }
    const lock_resource resource = e.key.resource;
    const node_id node = e.key.node;
    slot& s = slots_.at(e.key);

    if (s.discard && e.kind == what::granted && e.mode != lock_mode::nl) {
        send_convert(e.key, s, lock_mode::nl, nullptr); // the cancel lost the race
        return true;
    }
    if (s.parked) {
        request next = std::move(*s.parked);
        const bool deliverable = e.kind == what::granted && !s.discard;
        slots_.erase(e.key);
        const lock_status after{deliverable ? std::optional(e.mode) : std::nullopt, {}};
        if (deliverable && (next.cancelled || check_conversion(after, next.mode) != 0)) {
            // Falls through to the grant of the old request: it is the one answer, and the truth.
        } else if (next.cancelled) {
            sink_(input::lock_cancelled{resource, node});
            return true;
        } else {
            slot& fresh = slots_[e.key];
            send_convert(e.key, fresh, next.mode, next.value ? &*next.value : nullptr);
            return true;
        }
    } else {
        const bool silent = s.discard;
        slots_.erase(e.key);
        if (silent)
            return true;
    }
    switch (e.kind) {
    case what::granted:
        sink_(input::lock_granted{resource, node, e.mode, e.value_valid, e.value});
        break;
    case what::refused:
        sink_(input::lock_refused{resource, node, e.code});
        break;
    case what::cancelled:
        sink_(input::lock_cancelled{resource, node});
        break;
    case what::blocking:
        break;
    }
    return true;
}

// --- the port ---

void lock_client::send_convert(lock_key key, slot& s, lock_mode mode, const lvb_bytes* value) {
    s.id = next_id_++;
    s.mode = mode;
    s.cancel_sent = false;
    auto m = wire::make<wire::convert>();
    m.key = wire::to_wire(key);
    m.id = s.id;
    m.mode = wire::to_wire(mode);
    if (value) {
        m.has_value = 1;
        m.value = *value;
    }
    send(m);
}

void lock_client::send_cancel(lock_key key, slot& s) {
    if (s.cancel_sent)
        return;
    s.cancel_sent = true;
    auto m = wire::make<wire::cancel>();
    m.key = wire::to_wire(key);
    m.id = s.id;
    send(m);
}

void lock_client::convert(lock_resource resource, node_id node, lock_mode mode,
                          const lvb_bytes* value) {
    if (!known_)
        return;
    const lock_key key{resource, node};
    const auto at = slots_.find(key);
    if (at == slots_.end())
        return send_convert(key, slots_[key], mode, value);
    slot& s = at->second;
    if (s.mode == mode && !value && !s.discard && !s.cancel_sent) {
        s.inherited = false;
        return send_convert(key, s, mode, nullptr); // the keeper takes over the outstanding one
    }
    if (s.inherited || s.discard) {
        s.parked = request{mode, value ? std::optional(*value) : std::nullopt};
        if (s.mode != lock_mode::nl)
            send_cancel(key, s);
        return;
    }
    slot
        second; // against the port's rule; the keeper refuses it (EBUSY) and goes on with the first
    send_convert(key, second, mode, value);
}

void lock_client::cancel(lock_resource resource, node_id node) {
    const lock_key key{resource, node};
    const auto at = slots_.find(key);
    if (!known_ || at == slots_.end())
        return; // the grant came first
    slot& s = at->second;
    if (s.parked)
        s.parked->cancelled = true;
    else if (!s.discard)
        send_cancel(key, s);
}

void lock_client::release_all() {
    send(wire::make<wire::release>());
}

std::map<lock_key, lock_mode> lock_client::inherited() const {
    std::map<lock_key, lock_mode> out;
    for (const auto& [key, s] : slots_)
        if (s.inherited)
            out[key] = s.mode;
    return out;
}

} // namespace grace
