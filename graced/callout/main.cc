// SPDX-License-Identifier: GPL-2.0-or-later
// graced-callout: the program that rpc.statd runs (-H) when its lockd begins to watch a client, before
// it says so to lockd. It returns when the client is on record on every live node: then its lock may
// be granted.
//
//   graced-callout add-client|del-client CLIENT MY_NAME
//   graced-callout sm-notify CLIENT ADDRESS STATE
//
// statd does not look at the exit code. A client that cannot be recorded now (graced restarts, no
// quorum) must not get its lock, for it could not reclaim it: so this waits as long as statd lives.
// lockd's request to statd runs out of time meanwhile, and the client is told that there is no lock.
// What can never be recorded (a name that no file can hold) is only said.
//
// The socket: $GRACED_CALLOUT, or /run/graced/callout/socket, where graced-server mounts it in the
// server's namespace.
#include "graced/adapters/callout_socket.hh"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

using grace::callout_answer;

constexpr const char* default_socket = "/run/graced/callout/socket";

struct answer {
    callout_answer what = callout_answer::again;
    std::string text;
};

// One connection; waits for the answer as long as that takes.
answer ask(const char* path, const std::string& packet) {
    const auto failed = [](const char* what) {
        return answer{callout_answer::again, std::string(what) + ": " + std::strerror(errno)};
    };
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (std::strlen(path) >= sizeof address.sun_path)
        return {callout_answer::never, "the socket's path is too long"};
    std::strcpy(address.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed("no socket");
    answer a;
    char buffer[1024];
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        a = failed("graced does not listen");
    else if (send(fd, packet.data(), packet.size(), MSG_NOSIGNAL) < 0)
        a = failed("graced does not hear");
    else if (const ssize_t n = recv(fd, buffer, sizeof buffer, 0); n <= 0)
        a = {callout_answer::again, "graced has gone away"};
    else
        a = {static_cast<callout_answer>(buffer[0]),
             std::string(buffer + 1, static_cast<std::size_t>(n) - 1)};
    close(fd);
    return a;
}

} // namespace

int main(int argc, char** argv) {
    const pid_t statd = getppid();
    if (argc < 3 || argc > 6) {
        std::fprintf(stderr, "usage: graced-callout add-client|del-client CLIENT MY_NAME\n"
                             "       graced-callout sm-notify CLIENT ADDRESS STATE\n"
                             "For rpc.statd's option -H; see graced(8).\n");
        return 2;
    }
    // Without statd nobody waits for this; and graced-server ends both by ending statd.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != statd)
        return 1;
    std::string packet;
    for (int i = 1; i < argc; ++i)
        packet.append(argv[i]).append(1, '\0');
    if (packet.size() > grace::max_callout) {
        std::fprintf(stderr, "graced-callout: the words are too long\n");
        return 1;
    }
    const char* const path =
        std::getenv("GRACED_CALLOUT") ? std::getenv("GRACED_CALLOUT") : default_socket;
    const bool must = std::string_view(argv[1]) == "add-client";
    for (bool told = false;;) {
        const answer a = ask(path, packet);
        if (a.what == callout_answer::done)
            return 0;
        if (a.what != callout_answer::again || !must || !told)
            std::fprintf(stderr, "graced-callout: %s %s: %s\n", argv[1], argv[2], a.text.c_str());
        if (a.what != callout_answer::again || !must)
            return 1;
        told = true;
        usleep(500'000);
    }
}
