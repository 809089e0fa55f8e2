// SPDX-License-Identifier: GPL-2.0-or-later
// fake-nfsd: plays the kernel's nfsd of one server, for tests and the demo without a kernel.
//
// It listens on a UNIX SOCK_SEQPACKET socket where the kernel would have its pipe, and talks with
// the client tracker (graced) as fs/nfsd/nfs4recover.c does: GetVersion, then GraceStart, whose
// answer is the list of clients that may reclaim; then one upcall for each command. Reclaims and
// new locks ask the stand-in gate (graced/adapters/embedded_kernel.hh) whether they would pass.
//
// One command on a line of stdin, one line of answer on stdout:
//   create NAME     a new client has state here: ok | refused STATUS
//   remove NAME     a client left:               ok | refused STATUS
//   reclaim NAME    a client reclaims:           ok | grace (ask again later) | refused [STATUS]
//   lock            a client wants a new lock:   granted | grace
//   gracedone       nfsd's own grace ended; the kernel drops its list: ok | refused STATUS
//   list            the names that may reclaim:  list NAME...
//   quit
// At start it prints `tracking VERSION COUNT`, or `untracked WHY` and exits with status 1.
#include "graced/adapters/cld_message.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iostream>
#include <poll.h>
#include <set>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

using grace::cld::command;
using grace::cld::message;

int seqpacket(const std::string& path, sockaddr_un& address) {
    address = {};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        throw std::runtime_error(path + " is too long for a socket's path");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        throw std::runtime_error(std::string("socket: ") + std::strerror(errno));
    return fd;
}

class fake_nfsd {
public:
    fake_nfsd(std::string server, std::string path, std::string gate, int wait_ms)
        : server_(std::move(server))
        , path_(std::move(path))
        , gate_(std::move(gate))
        , wait_ms_(wait_ms) {
        make_pipe();
    }
    ~fake_nfsd() { remove_pipe(); }

    // False: this nfsd runs untracked, as the kernel's would, with nothing but a line in the log.
    bool start() {
        if (!accept_tracker(wait_ms_)) {
            std::cout << "untracked nobody opened the pipe" << std::endl;
            return false;
        }
        message m;
        m.cmd = command::get_version;
        const auto version = upcall(m);
        if (version.status == 0)
            version_ = version.use_version;
        m.version = version_ == 2 ? 2 : 1;
        m.cmd = command::grace_start;
        const auto answer = upcall(m);
        if (answer.status == -EOPNOTSUPP) {
            // The older method, without a list: on a pipe that is made anew.
            version_ = 0;
            remove_pipe();
            make_pipe();
            accept_tracker(wait_ms_);
        } else if (answer.status != 0) {
            std::cout << "untracked GraceStart was answered with " << answer.status << std::endl;
            return false;
        }
        std::cout << "tracking " << version_ << " " << reclaimable_.size() << std::endl;
        return true;
    }

    void run() {
        std::string input;
        for (;;) {
            pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {listener_, POLLIN, 0}, {peer_, POLLIN, 0}};
            if (poll(fds, 3, -1) < 0)
                continue;
            if (fds[1].revents)
                accept_tracker(0);
            else if (fds[2].revents)
                drain();
            if (!(fds[0].revents & (POLLIN | POLLHUP)))
                continue;
            char chunk[4096];
            const ssize_t got = read(STDIN_FILENO, chunk, sizeof chunk);
            if (got <= 0)
                return;
            input.append(chunk, std::size_t(got));
            for (std::size_t end; (end = input.find('\n')) != std::string::npos;) {
                const std::string line = input.substr(0, end);
                input.erase(0, end + 1);
                if (line == "quit")
                    return;
                std::cout << perform(line) << std::endl;
            }
        }
    }

private:
    std::string perform(const std::string& line) {
        const auto space = line.find(' ');
        const std::string verb = line.substr(0, space);
        const std::string name = space == std::string::npos ? "" : line.substr(space + 1);
        if (verb == "create" && !name.empty())
            return about(command::create, name);
        if (verb == "remove" && !name.empty())
            return about(command::remove, name);
        if (verb == "reclaim" && !name.empty())
            return reclaim(name);
        if (verb == "lock")
            return ask_gate("try nfs " + server_);
        if (verb == "gracedone") {
            reclaimable_.clear();
            message m;
            m.version = version_ == 2 ? 2 : 1;
            m.cmd = command::grace_done;
            return outcome(upcall(m));
        }
        if (verb == "list") {
            std::string all = "list";
            for (const auto& n : reclaimable_)
                all += " " + n;
            return all;
        }
        return "unknown " + line;
    }

    std::string reclaim(const std::string& name) {
        if (version_ > 0 && !reclaimable_.contains(name))
            return "refused";
        const auto gate = ask_gate("try reclaim " + server_);
        if (gate != "granted")
            return gate;
        if (version_ == 0)
            return about(command::check, name);
        return about(command::create, name); // the kernel does it at RECLAIM_COMPLETE
    }

    std::string about(command c, const std::string& name) {
        message m;
        m.version = version_ == 2 ? 2 : 1;
        m.cmd = c;
        m.name = name;
        return outcome(upcall(m));
    }

    static std::string outcome(const message& answer) {
        return answer.status == 0 ? "ok" : "refused " + std::to_string(answer.status);
    }

    // As nfsd's threads: waits for the answer, however long it takes, through any number of
    // trackers.
    message upcall(message m) {
        m.xid = next_xid_++;
        const auto bytes = grace::cld::encode(m);
        if (!bytes) {
            std::cerr << "fake-nfsd: " << bytes.error().message << "\n";
            m.status = -EINVAL;
            return m;
        }
        bool sent = false;
        for (;;) {
            if (peer_ < 0) {
                accept_tracker(-1);
                sent = false; // the same xid again: it may have died before it read it
                continue;
            }
            if (!sent) {
                sent = send(peer_, bytes->data(), bytes->size(), MSG_NOSIGNAL) >= 0;
                if (!sent)
                    lose_tracker();
                continue;
            }
            std::uint8_t buffer[4096];
            const ssize_t got = recv(peer_, buffer, sizeof buffer, 0);
            if (got <= 0) {
                lose_tracker();
                continue;
            }
            if (std::size_t(got) != bytes->size()) { // the kernel: EINVAL
                std::cerr << "fake-nfsd: an answer of " << got << " bytes instead of "
                          << bytes->size() << "\n";
                continue;
            }
            const auto answer = grace::cld::decode({buffer, std::size_t(got)});
            if (!answer || answer->xid != m.xid || answer->cmd != m.cmd) {
                std::cerr << "fake-nfsd: an answer to nothing that was asked\n";
                continue;
            }
            if (answer->status == -EINPROGRESS) {
                reclaimable_.insert(answer->name);
                continue;
            }
            return *answer;
        }
    }

    void drain() {
        std::uint8_t buffer[4096];
        const ssize_t got = recv(peer_, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            lose_tracker();
    }

    bool accept_tracker(int timeout_ms) {
        pollfd fd{listener_, POLLIN, 0};
        if (poll(&fd, 1, timeout_ms) <= 0)
            return false;
        const int peer = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (peer < 0)
            return false;
        lose_tracker();
        peer_ = peer;
        return true;
    }

    void lose_tracker() {
        if (peer_ >= 0)
            close(peer_);
        peer_ = -1;
    }

    void make_pipe() {
        sockaddr_un address;
        listener_ = seqpacket(path_, address);
        unlink(path_.c_str());
        if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            listen(listener_, 4) != 0)
            throw std::runtime_error("cannot listen on " + path_ + ": " + std::strerror(errno));
    }

    void remove_pipe() {
        unlink(path_.c_str());
        lose_tracker();
        close(listener_);
        listener_ = -1;
    }

    // A gate that does not answer is a closed gate.
    std::string ask_gate(const std::string& request) {
        if (gate_.empty())
            return "grace";
        sockaddr_un address;
        const int fd = seqpacket(gate_, address);
        std::string answer = "grace";
        char buffer[256];
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
            send(fd, request.data(), request.size(), MSG_NOSIGNAL) >= 0) {
            const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
            if (got > 0)
                answer.assign(buffer, std::size_t(got));
        }
        close(fd);
        return answer;
    }

    std::string server_, path_, gate_;
    int wait_ms_;
    int listener_ = -1, peer_ = -1;
    unsigned version_ = 1;
    std::uint32_t next_xid_ = 0;
    std::set<std::string> reclaimable_;
};

} // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "fake-nfsd: plays the kernel's nfsd of one server for a client tracker. Commands on "
        "stdin: create NAME, remove NAME, reclaim NAME, lock, gracedone, list, quit"};
    std::string server, path, gate;
    double wait = 30;
    app.add_option("--server", server, "name of the server")->required();
    app.add_option("--socket", path, "where the tracker finds it, as it would find nfsd's pipe")
        ->required();
    app.add_option("--gate", gate, "socket of the stand-in gate; without: always in grace");
    app.add_option("--wait", wait, "seconds to wait for a tracker (the kernel: 1)")
        ->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    try {
        fake_nfsd nfsd(server, path, gate, int(wait * 1000));
        if (!nfsd.start())
            return 1;
        nfsd.run();
    } catch (const std::exception& e) {
        std::cerr << "fake-nfsd: " << e.what() << "\n";
        return 2;
    }
    return 0;
}
