// SPDX-License-Identifier: GPL-2.0-or-later
// For the tests of the kernel adapters: a libqb loop that runs until something has happened, and
// the kernel's end of a client tracking pipe, played on a SOCK_SEQPACKET socket.
#pragma once

#include "graced/adapters/cld_message.hh"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <poll.h>
#include <qb/qbloop.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

namespace testing {

class loop {
public:
    loop()
        : loop_(qb_loop_create()) {}
    ~loop() { qb_loop_destroy(loop_); }
    loop(const loop&) = delete;
    loop& operator=(const loop&) = delete;
    qb_loop_t* get() { return loop_; }

    // Runs the loop until the condition holds; false if it did not within the time. That is counted in turns of a millisecond
    // or more: on a machine that stands still, the loop has as many of them.
    bool until(std::function<bool()> condition, int milliseconds = 30000) {
        condition_ = std::move(condition);
        held_ = false;
        left_ = milliseconds;
        if (condition_())
            return true;
        arm();
        qb_loop_run(loop_);
        return held_; // not asked again: it may have consumed something
    }
    void run_for(int milliseconds) {
        until([] { return false; }, milliseconds);
    }

private:
    void arm() {
        qb_loop_timer_handle handle;
        qb_loop_timer_add(loop_, QB_LOOP_MED, 1'000'000, this, look, &handle);
    }
    static void look(void* data) {
        auto* self = static_cast<loop*>(data);
        self->held_ = self->condition_();
        if (self->held_ || --self->left_ <= 0)
            qb_loop_stop(self->loop_);
        else
            self->arm();
    }
    qb_loop_t* loop_;
    std::function<bool()> condition_;
    bool held_ = false;
    int left_ = 0;
};

class temporary_directory {
public:
    temporary_directory() {
        char name[] = "/tmp/graced-test-XXXXXX";
        if (!mkdtemp(name))
            throw std::runtime_error("mkdtemp");
        path = name;
    }
    ~temporary_directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string path;
};

// The kernel's end.
class kernel_end {
public:
    kernel_end(loop& l, std::string path)
        : loop_(l)
        , path_(std::move(path)) {
        make();
    }
    ~kernel_end() {
        hang_up();
        close(listener_);
        unlink(path_.c_str());
    }

    bool has_tracker() {
        return loop_.until([&] {
            if (peer_ < 0)
                peer_ = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            return peer_ >= 0;
        });
    }
    void send(const grace::cld::message& m) { send(grace::cld::encode(m).value()); }
    void send(const std::vector<std::uint8_t>& bytes) {
        ssize_t put = -1;
        loop_.until([&] {
            if (put < 0) // EAGAIN: the tracker has to read first
                put = ::send(peer_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            return put >= 0 || errno != EAGAIN;
        });
        if (put < 0)
            throw std::runtime_error(std::strerror(errno));
    }
    // The next answer's bytes; none if it does not come in time.
    std::optional<std::vector<std::uint8_t>> receive_bytes(int milliseconds = 30000) {
        std::vector<std::uint8_t> bytes(4096);
        ssize_t got = -1;
        loop_.until(
            [&] {
                if (got <= 0)
                    got = recv(peer_, bytes.data(), bytes.size(), 0);
                return got > 0;
            },
            milliseconds);
        if (got <= 0)
            return std::nullopt;
        bytes.resize(std::size_t(got));
        return bytes;
    }
    grace::cld::message receive() {
        const auto bytes = receive_bytes();
        if (!bytes)
            throw std::runtime_error("no answer came");
        return grace::cld::decode(*bytes).value();
    }
    void hang_up() {
        if (peer_ >= 0)
            close(peer_);
        peer_ = -1;
    }
    // As rpc.nfsd 0 does: the pipe is gone for everybody.
    void remove() {
        unlink(path_.c_str());
        hang_up();
        close(listener_);
        listener_ = -1;
    }
    void make() {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
        listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            listen(listener_, 4) != 0)
            throw std::runtime_error(std::strerror(errno));
    }

private:
    loop& loop_;
    std::string path_;
    int listener_ = -1, peer_ = -1;
};

} // namespace testing
