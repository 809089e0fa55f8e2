// SPDX-License-Identifier: GPL-2.0-or-later
// Runs a program, without a shell, and keeps what it says.
#include "graced/ctl/gracectl.hh"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace grace::ctl {

result<program_output> run_program(const std::vector<std::string>& command,
                                   std::chrono::seconds limit) {
    std::array<int, 2> out{}, err{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0)
        return fail(std::strerror(errno), errno);
    if (::pipe2(err.data(), O_CLOEXEC) != 0) {
        ::close(out[0]);
        ::close(out[1]);
        return fail(std::strerror(errno), errno);
    }
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, err[1], STDERR_FILENO);
    std::vector<std::string> words = command;
    std::vector<char*> argv;
    for (std::string& w : words)
        argv.push_back(w.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    const int failed = ::posix_spawnp(&child, argv[0], &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    ::close(out[1]);
    ::close(err[1]);
    if (failed != 0) {
        ::close(out[0]);
        ::close(err[0]);
        return fail(command.front() + ": " + std::strerror(failed), failed);
    }

    program_output said{0, {}, {}};
    const auto until = std::chrono::steady_clock::now() + limit;
    bool late = false;
    std::array<pollfd, 2> ends = {pollfd{out[0], POLLIN, 0}, pollfd{err[0], POLLIN, 0}};
    while (ends[0].fd >= 0 || ends[1].fd >= 0) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                              until - std::chrono::steady_clock::now())
                              .count();
        if (left <= 0) {
            late = true;
            break;
        }
        if (::poll(ends.data(), ends.size(), static_cast<int>(std::min<long>(left, 1000))) < 0 &&
            errno != EINTR)
            break;
        for (pollfd& end : ends) {
            std::array<char, 4096> buffer{};
            if (end.fd < 0 || end.revents == 0)
                continue;
            const ssize_t n = ::read(end.fd, buffer.data(), buffer.size());
            if (n > 0)
                (end.fd == out[0] ? said.out : said.err)
                    .append(buffer.data(), static_cast<std::size_t>(n));
            else if (n == 0 || errno != EINTR)
                end.fd = -1;
        }
    }
    ::close(out[0]);
    ::close(err[0]);
    if (late)
        ::kill(child, SIGKILL);
    int how = 0;
    while (::waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
    if (late)
        return fail(command.front() + " has not ended within " + std::to_string(limit.count()) +
                        " s",
                    ETIMEDOUT);
    said.code = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    return said;
}

} // namespace grace::ctl
