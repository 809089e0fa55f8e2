// SPDX-License-Identifier: GPL-2.0-or-later
#include "dlm_keeper/ctl.hh"

#include "dlm_keeper/protocol.hh"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace grace::keeper {

namespace {
constexpr int timeout_s = 5;

struct descriptor {
    int fd;
    ~descriptor() { ::close(fd); }
};
} // namespace

result<void> run_ctl(const std::string& path, const std::string& command, std::uint32_t node) {
    static const std::map<std::string, admin_command> commands{
        {"dump", admin_command::dump},
        {"freeze", admin_command::freeze},
        {"thaw", admin_command::thaw},
        {"fenced", admin_command::fenced},
        {"keeper-died", admin_command::keeper_died},
    };
    const auto known = commands.find(command);
    if (known == commands.end())
        return fail("unknown command '" + command +
                    "': dump, freeze [NODE], thaw, fenced NODE, keeper-died NODE are known");

    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.size() >= sizeof at.sun_path)
        return fail("the path '" + path + "' is too long for a socket");
    std::memcpy(at.sun_path, path.c_str(), path.size() + 1);
    const descriptor s{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    const timeval limit{timeout_s, 0};
    ::setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(s.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (s.fd < 0 || ::connect(s.fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) < 0)
        return fail("no keeper on '" + path + "': " + std::strerror(errno), errno);

    auto question = make<admin>();
    question.command = static_cast<std::uint32_t>(known->second);
    question.node = node;
    if (::send(s.fd, &question, sizeof question, MSG_NOSIGNAL) < 0)
        return fail("cannot send to the keeper: " + std::string(std::strerror(errno)), errno);
    for (;;) {
        std::array<std::uint8_t, max_message> buffer;
        const ssize_t got = ::recv(s.fd, buffer.data(), buffer.size(), MSG_TRUNC);
        if (got <= 0)
            return fail(got == 0 ? "the keeper closed the connection; its log says why"
                                 : "the keeper did not answer within " + std::to_string(timeout_s) +
                                       " s");
        const std::span<const std::uint8_t> packet(
            buffer.data(), std::min(static_cast<std::size_t>(got), buffer.size()));
        const auto head = parse_header(packet);
        const auto answer =
            head.type == message_type::report ? parse<report>(packet) : std::nullopt;
        if (!answer)
            return fail("the keeper's answer is not understood (" + head.fault +
                        "): is it of the same version?");
        if (answer->failed)
            return fail(get_text(answer->text));
        std::fputs(get_text(answer->text).c_str(), stdout);
        if (!answer->more)
            return {};
    }
}

} // namespace grace::keeper
