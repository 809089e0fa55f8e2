// SPDX-License-Identifier: GPL-2.0-or-later
#include "dlm_keeper/server.hh"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <utility>

namespace grace::keeper {

namespace {

std::int64_t boottime() {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

constexpr int answer_timeout_ms = 1000;
constexpr int start_lock_tries = 100; // a try each 50 ms
constexpr std::uint64_t second = 1'000'000'000;

// Own descriptors go to high numbers, so that the DLM device gets a low one. A dying process lets
// go of its descriptors from the highest to the lowest (task_work runs last in, first out), and
// hangs at the DLM device while the lockspace is frozen: what is above it is closed by then, and
// the daemon sees at once that this keeper is gone.
int move_high(int fd) {
    const int high = ::fcntl(fd, F_DUPFD_CLOEXEC, 64);
    if (high < 0)
        return fd;
    ::close(fd);
    return high;
}

std::string reason(int code) {
    return std::strerror(code);
}

result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof a.sun_path)
        return fail("the socket path '" + path + "' has " + std::to_string(path.size()) +
                    " characters; 1 to " + std::to_string(sizeof a.sun_path - 1) +
                    " are possible: choose another with --listen");
    std::memcpy(a.sun_path, path.c_str(), path.size() + 1);
    return a;
}

// Does a living keeper answer on that socket?
bool somebody_answers(const sockaddr_un& at) {
    const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool answered = false;
    auto question = make<ping>();
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0 &&
        ::send(fd, &question, sizeof question, MSG_NOSIGNAL) == ssize_t(sizeof question)) {
        pollfd p{fd, POLLIN, 0};
        std::array<std::uint8_t, max_message> buffer;
        answered = ::poll(&p, 1, answer_timeout_ms) == 1 &&
                   ::recv(fd, buffer.data(), buffer.size(), 0) > 0;
    }
    ::close(fd);
    return answered;
}

} // namespace

server::server(qb_loop_t* loop, lock_backend& backend, std::string path)
    : loop_(loop)
    , backend_(backend)
    , path_(std::move(path)) {
    backend_.on_event = [this](const lock_event& e) { relay(e); };
    backend_.on_ready = [this] {
        for (auto& [fd, c] : connections_)
            if (c->node && !c->broken)
                send_state(*c);
    };
    backend_.on_trouble = [this](const std::string& text) {
        for (auto& [fd, c] : connections_)
            if (c->node && !c->broken)
                send_notice(*c, text);
    };
    backend_.on_gone = [this](node_id node) {
        if (connection* c = daemon_of(node)) {
            spdlog::info("closing the connection of node {}: its locks are dropped", node.value);
            c->broken = true;
            ::shutdown(c->fd, SHUT_RDWR);
        }
        std::erase_if(outstanding_, [&](const auto& o) { return o.first.first == node; });
    };
    backend_.on_released = [this] { on_end(0); };
}

server::~server() {
    qb_loop_timer_del(loop_, timer_);
    drop_start_lock();
    for (auto& [fd, c] : connections_)
        c->node = {}; // nothing more is told of them
    while (!connections_.empty())
        close_connection(*connections_.begin()->second);
    if (listen_fd_ < 0)
        return;
    qb_loop_poll_del(loop_, listen_fd_);
    if (path_is_ours())
        ::unlink(path_.c_str());
    ::close(listen_fd_);
}

bool server::path_is_ours() const {
    struct stat st {};
    return ::stat(path_.c_str(), &st) == 0 && st.st_dev == device_ && st.st_ino == inode_;
}

result<void> server::listen() {
    const auto at = address_of(path_);
    if (!at)
        return tl::unexpected(at.error());
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);

    take_start_lock();
    struct stat st {};
    if (::lstat(path_.c_str(), &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return fail("'" + path_ +
                        "' exists and is no socket: remove it or choose another path");
        if (somebody_answers(*at))
            return fail("another graced-dlm answers on '" + path_ + "': it keeps this node's locks",
                        EADDRINUSE);
        spdlog::warn("nobody answers on '{}': its keeper is dead or hangs in its exit; taking over "
                     "the path",
                     path_);
    }

    // Bound beside and renamed over: two keepers that start at once cannot unlink each other's.
    const std::string fresh = path_ + "." + std::to_string(::getpid());
    const auto beside = address_of(fresh);
    if (!beside)
        return tl::unexpected(beside.error());
    ::unlink(fresh.c_str());
    const int fd = move_high(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const mode_t before = ::umask(0177);
    const bool bound =
        fd >= 0 && ::bind(fd, reinterpret_cast<const sockaddr*>(&*beside), sizeof *beside) == 0;
    int code = errno;
    ::umask(before);
    if (!bound || ::listen(fd, 16) < 0 || ::stat(fresh.c_str(), &st) < 0 ||
        ::rename(fresh.c_str(), path_.c_str()) < 0) {
        if (bound)
            code = errno;
        ::unlink(fresh.c_str());
        ::close(fd);
        return fail("cannot listen on '" + path_ + "': " + reason(code), code);
    }
    listen_fd_ = fd;
    device_ = st.st_dev;
    inode_ = st.st_ino;
    qb_loop_poll_add(loop_, QB_LOOP_HIGH, fd, POLLIN, this, [](int32_t, int32_t, void* data) {
        static_cast<server*>(data)->accept_one();
        return int32_t{0};
    });
    look_around();
    qb_loop_job_add(loop_, QB_LOOP_HIGH, this,
                    [](void* data) { static_cast<server*>(data)->drop_start_lock(); });
    spdlog::info("listening on '{}'", path_);
    return {};
}

// Problem scenario: on a busy machine the daemon starts a second keeper before the first one is so
// far. Neither finds anybody on the path; both take it and open the lockspace; the daemon speaks
// with one while the other holds the lockspace too. So only one at a time looks and takes the path,
// and it answers before the next looks. One that hangs meanwhile is waited for in vain: then they
// race.
void server::take_start_lock() {
    start_lock_ = move_high(::open((path_ + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    for (int i = 0; i < start_lock_tries && ::flock(start_lock_, LOCK_EX | LOCK_NB) < 0 &&
                    errno == EWOULDBLOCK;
         ++i)
        ::usleep(50'000);
}

void server::drop_start_lock() {
    if (start_lock_ >= 0)
        ::close(std::exchange(start_lock_, -1));
}

void server::accept_one() {
    int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    fd = move_high(fd);
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
        (peer.uid != 0 && peer.uid != ::geteuid())) {
        spdlog::warn("refused a connection of uid {} (pid {}): root only", peer.uid, peer.pid);
        ::close(fd);
        return;
    }
    if (connections_.size() >= max_connections) {
        spdlog::warn("refused a connection of pid {}: {} are open", peer.pid, max_connections);
        ::close(fd);
        return;
    }
    auto c = std::make_unique<connection>();
    c->owner = this;
    c->fd = fd;
    c->pid = peer.pid;
    qb_loop_poll_add(loop_, QB_LOOP_MED, fd, POLLIN, c.get(),
                     [](int32_t, int32_t revents, void* data) {
                         auto* self = static_cast<connection*>(data);
                         return self->owner->dispatch(*self, revents);
                     });
    connections_[fd] = std::move(c);
}

int32_t server::dispatch(connection& c, int32_t revents) {
    if (revents & POLLOUT)
        flush(c);
    if (!(revents & (POLLIN | POLLHUP | POLLERR)))
        return 0;
    std::array<std::uint8_t, max_message> buffer;
    const ssize_t got = ::recv(c.fd, buffer.data(), buffer.size(), MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        close_connection(c);
        return 0;
    }
    const auto size = static_cast<std::size_t>(got);
    const bool good = size <= buffer.size() && (c.broken || handle(c, {buffer.data(), size}));
    if (!good) {
        spdlog::warn("bad message ({} bytes) from pid {}, node {}: its connection is closed", size,
                     c.pid, c.node.value);
        close_connection(c);
    }
    return 0;
}

void server::close_connection(connection& c) {
    if (c.node) {
        spdlog::info("the daemon of node {} (pid {}) is gone; its locks stay", c.node.value, c.pid);
        daemons_[c.node].since = boottime();
    }
    qb_loop_poll_del(loop_, c.fd);
    ::close(c.fd);
    connections_.erase(c.fd);
}

server::connection* server::daemon_of(node_id node) {
    for (auto& [fd, c] : connections_)
        if (c->node == node && !c->broken)
            return c.get();
    return nullptr;
}

bool server::handle(connection& c, std::span<const std::uint8_t> packet_bytes) {
    const auto head = parse_header(packet_bytes);
    if (!head.type) {
        spdlog::warn("pid {} sent {}", c.pid, head.fault);
        return false;
    }
    switch (*head.type) {
    case message_type::ping:
        if (const auto m = parse<ping>(packet_bytes)) {
            auto answer = make<pong>();
            answer.cookie = m->cookie;
            answer.ready = backend_.ready();
            answer.blocked_ms = backend_.blocked_ms();
            send(c, answer);
            return true;
        }
        return false;
    case message_type::hello:
        if (const auto m = parse<hello>(packet_bytes))
            return handle_hello(c, *m);
        return false;
    case message_type::admin:
        if (const auto m = parse<admin>(packet_bytes))
            return handle_admin(c, *m);
        return false;
    case message_type::convert:
        if (const auto m = parse<convert>(packet_bytes))
            return handle_convert(c, *m);
        return false;
    case message_type::cancel:
        if (const auto m = parse<cancel>(packet_bytes)) {
            const auto key = key_from(m->key);
            if (!c.knows_state || !key)
                return false;
            const auto at = outstanding_.find({c.node, *key});
            if (at != outstanding_.end() && at->second == m->id)
                backend_.cancel(c.node, *key);
            return true;
        }
        return false;
    case message_type::release:
        if (!parse<release>(packet_bytes) || !c.node)
            return false;
        if (backend_.embedded())
            spdlog::info("node {} says `release`; the embedded table goes on for the others",
                         c.node.value);
        else
            begin_release("its daemon (pid " + std::to_string(c.pid) + ") said so");
        return true;
    default:
        return false;
    }
}

bool server::handle_hello(connection& c, const hello& m) {
    const node_id node{m.node};
    if (!node || c.node)
        return false;
    const auto refuse = [&](const std::string& why) {
        spdlog::warn("refused the daemon pid {}: {}", c.pid, why);
        send_notice(c, "refused by graced-dlm: " + why);
        c.broken = true;
        ::shutdown(c.fd, SHUT_RDWR);
        return true;
    };
    if (!backend_.embedded() && only_node_ && node != only_node_)
        return refuse("it says that it is node " + std::to_string(node.value) +
                      ", the locks here are of node " + std::to_string(only_node_.value) +
                      "; stop graced-dlm if the node was renumbered");
    if (const connection* other = daemon_of(node))
        return refuse("another graced (pid " + std::to_string(other->pid) +
                      ") of this node is connected; stop that one first");
    c.node = only_node_ = node;
    daemons_[node] = {static_cast<std::int64_t>(m.permit_ms) * 1'000'000, 0};
    spdlog::info("the daemon of node {} (pid {}) is here", node.value, c.pid);
    if (backend_.ready())
        send_state(c);
    return true;
}

bool server::handle_convert(connection& c, const convert& m) {
    const auto key = key_from(m.key);
    const auto mode = mode_from(m.mode);
    if (!c.knows_state || !key || !mode || m.has_value > 1 || m.id == 0)
        return false;
    const auto refuse = [&](int code) {
        auto answer = make<refused>();
        answer.key = m.key;
        answer.id = m.id;
        answer.code = code;
        send(c, answer);
        return true;
    };
    const lock_map locks = backend_.locks_of(c.node);
    const auto at = locks.find(*key);
    const lock_status now = at == locks.end() ? lock_status{} : at->second;
    if (releasing_)
        return refuse(ESHUTDOWN);
    if (at == locks.end() && locks.size() >= max_locks)
        return refuse(ENOSPC);
    if (now.requested == mode && !m.has_value) {
        outstanding_[{c.node, *key}] = m.id; // takes over what was asked for earlier
        return true;
    }
    if (const int code = check_conversion(now, *mode)) {
        spdlog::warn("node {} asks for {} on {} with {} held{}: refused ({})", c.node.value,
                     mode_name(*mode), name_of(*key), now.held ? mode_name(*now.held) : "nothing",
                     now.requested ? std::string(" and ") + mode_name(*now.requested) + " asked for"
                                   : std::string(),
                     reason(code));
        return refuse(code);
    }
    outstanding_[{c.node, *key}] = m.id;
    spdlog::debug("node {} asks for {} on {}", c.node.value, mode_name(*mode), name_of(*key));
    backend_.convert(c.node, *key, *mode, m.has_value ? &m.value : nullptr);
    return true;
}

bool server::handle_admin(connection& c, const admin& m) {
    if (c.node)
        return false;
    if (static_cast<admin_command>(m.command) == admin_command::dump) {
        std::string text = backend_.dump();
        for (const auto& [fd, other] : connections_)
            if (other->node)
                text += "daemon of node " + std::to_string(other->node.value) + ": pid " +
                        std::to_string(other->pid) + "\n";
        send_report(c, false, text);
        return true;
    }
    spdlog::warn("admin (pid {}) plays the cluster: command {} node {}", c.pid, m.command, m.node);
    const auto done = backend_.play(m.command, node_id{m.node});
    send_report(c, !done, done ? *done : done.error().message);
    return true;
}

void server::send_state(connection& c) {
    auto m = make<state>();
    m.embedded = backend_.embedded();
    for (const auto& [key, status] : backend_.locks_of(c.node)) {
        if (m.count == m.entries.size())
            break;
        state_entry& e = m.entries[m.count++];
        e.key = to_wire(key);
        e.held = to_wire(status.held);
        e.requested = to_wire(status.requested);
        if (const auto at = outstanding_.find({c.node, key}); at != outstanding_.end())
            e.id = at->second;
    }
    c.knows_state = true;
    send(c, m);
}

void server::send_report(connection& c, bool failed, std::string_view text) {
    auto m = make<report>();
    do {
        const std::size_t part = std::min(text.size(), m.text.size() - 1);
        set_text(m.text, text.substr(0, part));
        text.remove_prefix(part);
        m.more = !text.empty();
        m.failed = failed;
        send(c, m);
    } while (m.more);
}

void server::send_notice(connection& c, std::string_view text) {
    auto m = make<notice>();
    set_text(m.text, text);
    send(c, m);
}

template <typename T>
void server::send(connection& c, const T& message) {
    if (c.broken)
        return;
    const auto* raw = reinterpret_cast<const std::uint8_t*>(&message);
    if (c.queue.empty()) {
        if (::send(c.fd, raw, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return;
        if (errno != EAGAIN) {
            c.broken = true; // its end is read soon
            ::shutdown(c.fd, SHUT_RDWR);
            return;
        }
        qb_loop_poll_mod(loop_, QB_LOOP_MED, c.fd, POLLIN | POLLOUT, &c,
                         [](int32_t, int32_t revents, void* data) {
                             auto* self = static_cast<connection*>(data);
                             return self->owner->dispatch(*self, revents);
                         });
    }
    if (c.queue.size() == max_queued) {
        spdlog::warn("pid {} (node {}) does not read: its connection is closed", c.pid,
                     c.node.value);
        c.broken = true;
        ::shutdown(c.fd, SHUT_RDWR);
        return;
    }
    c.queue.emplace_back(raw, raw + sizeof message);
}

void server::flush(connection& c) {
    while (!c.queue.empty()) {
        const packet& p = c.queue.front();
        if (::send(c.fd, p.data(), p.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return;
        c.queue.pop_front();
    }
    qb_loop_poll_mod(loop_, QB_LOOP_MED, c.fd, POLLIN, &c,
                     [](int32_t, int32_t revents, void* data) {
                         auto* self = static_cast<connection*>(data);
                         return self->owner->dispatch(*self, revents);
                     });
}

void server::relay(const lock_event& e) {
    std::uint64_t id = 0;
    if (e.kind != lock_event::what::blocking) {
        const auto at = outstanding_.find({e.owner, e.key});
        if (at != outstanding_.end()) {
            id = at->second;
            outstanding_.erase(at);
        }
    }
    connection* c = daemon_of(e.owner);
    if (!c || !c->knows_state) {
        spdlog::info("node {}: {} on {} while its daemon is away", e.owner.value,
                     e.kind == lock_event::what::granted ? mode_name(e.mode) : "news",
                     name_of(e.key));
        return;
    }
    switch (e.kind) {
    case lock_event::what::granted: {
        auto m = make<granted>();
        m.key = to_wire(e.key);
        m.id = id;
        m.mode = to_wire(e.mode);
        m.value_valid = e.value_valid;
        m.value = e.value;
        return send(*c, m);
    }
    case lock_event::what::refused: {
        auto m = make<refused>();
        m.key = to_wire(e.key);
        m.id = id;
        m.code = e.code;
        return send(*c, m);
    }
    case lock_event::what::cancelled: {
        auto m = make<cancelled>();
        m.key = to_wire(e.key);
        m.id = id;
        return send(*c, m);
    }
    case lock_event::what::blocking: {
        auto m = make<blocking>();
        m.key = to_wire(e.key);
        return send(*c, m);
    }
    }
}

void server::begin_release(const std::string& why) {
    if (releasing_)
        return;
    releasing_ = true;
    spdlog::info("releasing all locks: {}", why);
    for (const auto& [key, status] : backend_.locks_of(only_node_))
        if (!backend_.embedded() && status.held.value_or(lock_mode::nl) != lock_mode::nl)
            spdlog::warn("{} on {} is dropped; the other nodes no longer wait for this node",
                         mode_name(*status.held), name_of(key));
    backend_.release_all(path_is_ours());
}

// A daemon is gone for longer than its permit: its kernel has closed the gate, so PR stands for
// nothing any more, and EX purges nothing. Kept, they would bar reclaim from the whole cluster for
// as long as the daemon is away. CW and `alive` stay: the kernel may still accept reclaims, and
// the node is not dead.
void server::step_down(node_id owner) {
    const lock_map locks = backend_.locks_of(owner);
    for (const auto& [key, status] : locks) {
        // A probe would keep a node that comes back from its `alive`.
        if (key.resource != lock_resource::alive || key.node == owner)
            continue;
        if (status.requested && *status.requested != lock_mode::nl)
            backend_.cancel(owner, key);
        else if (!status.requested && status.held)
            backend_.convert(owner, key, lock_mode::nl, nullptr);
    }
    const auto at = locks.find(grace_lock);
    if (at == locks.end())
        return;
    if (at->second.requested) { // it must not be granted to nobody
        if (*at->second.requested != lock_mode::nl)
            backend_.cancel(owner, grace_lock);
        return;
    }
    const lock_mode held = at->second.held.value_or(lock_mode::nl);
    if (held != lock_mode::pr && held != lock_mode::ex)
        return;
    spdlog::info("node {} has no daemon and its permit is over: {} is given up", owner.value,
                 mode_name(held));
    backend_.convert(owner, grace_lock, lock_mode::nl, nullptr);
}

void server::look_around() {
    qb_loop_timer_add(
        loop_, QB_LOOP_LOW, second, this,
        [](void* data) { static_cast<server*>(data)->look_around(); }, &timer_);
    const std::uint32_t blocked = backend_.blocked_ms();
    if (blocked >= 2000 && !warned_blocked_)
        spdlog::warn("the kernel has not returned from a DLM call for {} ms: the lockspace is "
                     "frozen, a node is to be fenced or quorum is missing (see `dlm_tool ls`)",
                     blocked);
    else if (blocked < 2000 && warned_blocked_)
        spdlog::info("the kernel returned: the lockspace works again");
    warned_blocked_ = blocked >= 2000;

    for (const auto& [node, gone] : daemons_)
        if (gone.since != 0 && boottime() >= gone.since + gone.permit)
            step_down(node);

    // Problem scenario: this process was stopped (SIGSTOP, a debugger) for so long that its daemon
    // gave it up and started another keeper, which took the path. Nobody can reach this one any
    // more, and its PR would keep the whole cluster from reclaiming for ever.
    bool served = path_is_ours();
    for (const auto& [fd, c] : connections_)
        served = served || (c->node && !c->broken);
    alone_for_ = served ? 0 : alone_for_ + 1;
    if (alone_for_ > 3)
        begin_release("'" + path_ + "' is another keeper's now, and no daemon is connected here");
}

} // namespace grace::keeper
