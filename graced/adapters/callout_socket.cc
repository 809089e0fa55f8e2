// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/adapters/callout_socket.hh"

#include "grace/record_key.hh"

#include <cerrno>
#include <cstring>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

namespace grace {
namespace {

// statd asks one thing at a time, and waits for the answer.
constexpr std::size_t max_connections = 64;

} // namespace

tl::expected<callout_request, std::string> parse_callout(std::span<const char> in) {
    if (in.size() > max_callout)
        return tl::unexpected(std::string("the callout's words are too long"));
    std::vector<std::string> words;
    for (std::size_t begin = 0; begin < in.size();) {
        const auto end = static_cast<const char*>(
            std::memchr(in.data() + begin, '\0', in.size() - begin));
        if (!end)
            return tl::unexpected(std::string("the last word has no end"));
        words.emplace_back(in.data() + begin, end);
        begin = static_cast<std::size_t>(end - in.data()) + 1;
    }
    if (words.size() < 2)
        return tl::unexpected(std::string("a callout has an event and a client at least"));
    callout_request r;
    if (words[0] == "add-client")
        r.what = callout_request::event::add_client;
    else if (words[0] == "del-client")
        r.what = callout_request::event::del_client;
    else if (words[0] == "sm-notify")
        r.what = callout_request::event::sm_notify;
    else
        return tl::unexpected(std::string("there is no such event"));
    if (!is_host_name(words[1]))
        return tl::unexpected(std::string("the client has no usable name: 1 to 255 printable "
                                          "characters without space and slash"));
    r.client = words[1];
    return r;
}

callout_server::callout_server(qb_loop_t* loop, handler h)
    : loop_(loop)
    , handle_(std::move(h)) {}

callout_server::~callout_server() {
    while (!connections_.empty())
        drop(connections_.begin()->first);
    while (!listeners_.empty())
        close(listeners_.begin()->first);
}

result<void> callout_server::listen(const std::string& server, const std::string& path, uid_t user) {
    if (const auto it = listeners_.find(server); it != listeners_.end()) {
        if (it->second.path == path && it->second.user == user && access(path.c_str(), F_OK) == 0)
            return {};
        close(server);
    }
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail("the path " + path + " is too long for a socket", ENAMETOOLONG);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(std::string("no socket: ") + std::strerror(errno), errno);
    struct stat there {};
    if (lstat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode))
        unlink(path.c_str());
    // Everybody may connect to it; who it is says the kernel (on_connect).
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        chmod(path.c_str(), 0666) != 0 || ::listen(fd, 16) != 0) {
        const int code = errno;
        ::close(fd);
        return fail("the callout's socket " + path + " cannot be made: " + std::strerror(code), code);
    }
    if (qb_loop_poll_add(loop_, QB_LOOP_MED, fd, POLLIN, this, on_connect) != 0) {
        ::close(fd);
        return fail("the loop takes no more descriptors");
    }
    listeners_[server] = {path, fd, user};
    return {};
}

void callout_server::close(const std::string& server) {
    const auto it = listeners_.find(server);
    if (it == listeners_.end())
        return;
    qb_loop_poll_del(loop_, it->second.fd);
    ::close(it->second.fd);
    unlink(it->second.path.c_str());
    listeners_.erase(it);
    for (auto c = connections_.begin(); c != connections_.end();) {
        const int fd = c->first;
        const bool its = c->second.server == server;
        ++c;
        if (its)
            drop(fd);
    }
}

std::int32_t callout_server::on_connect(std::int32_t fd, std::int32_t, void* data) {
    auto& self = *static_cast<callout_server*>(data);
    const std::string* server = nullptr;
    uid_t user = 0;
    for (const auto& [name, l] : self.listeners_)
        if (l.fd == fd) {
            server = &name;
            user = l.user;
        }
    const int peer = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0 || !server)
        return 0;
    ucred who{};
    socklen_t size = sizeof who;
    const bool known = getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0;
    if (!known || (who.uid != 0 && who.uid != user) ||
        self.connections_.size() >= max_connections) {
        spdlog::warn("server {}: a callout of user {} is refused", *server, who.uid);
        ::close(peer);
        return 0;
    }
    if (qb_loop_poll_add(self.loop_, QB_LOOP_MED, peer, POLLIN, &self, on_packet) != 0) {
        ::close(peer);
        return 0;
    }
    self.connections_[peer] = {*server, ++self.last_};
    return 0;
}

std::int32_t callout_server::on_packet(std::int32_t fd, std::int32_t, void* data) {
    auto& self = *static_cast<callout_server*>(data);
    const auto it = self.connections_.find(fd);
    if (it == self.connections_.end())
        return 0;
    char buffer[max_callout + 1];
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        self.drop(fd);
        return 0;
    }
    const std::string server = it->second.server;
    const std::uint64_t number = it->second.number;
    const auto request = parse_callout({buffer, static_cast<std::size_t>(n)});
    if (!request) {
        spdlog::error("server {}: what its statd says is not understood, and the client's locks will "
                      "not outlive the server: {}",
                      server, request.error());
        self.answer(fd, number, callout_answer::never, request.error());
        return 0;
    }
    self.handle_(server, *request, [&self, fd, number](callout_answer a, const std::string& text) {
        self.answer(fd, number, a, text);
    });
    return 0;
}

// The number: another connection may have got the descriptor meanwhile.
void callout_server::answer(int fd, std::uint64_t number, callout_answer a,
                            const std::string& text) {
    const auto it = connections_.find(fd);
    if (it == connections_.end() || it->second.number != number)
        return;
    const std::string packet = static_cast<char>(a) + text.substr(0, 1000);
    if (send(fd, packet.data(), packet.size(), MSG_NOSIGNAL) < 0)
        drop(fd);
}

void callout_server::drop(int fd) {
    qb_loop_poll_del(loop_, fd);
    ::close(fd);
    connections_.erase(fd);
}

} // namespace grace
