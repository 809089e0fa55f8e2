// SPDX-License-Identifier: GPL-2.0-or-later
// The stand-in for the kernel module: the same answers and refusals, later and in order.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/embedded_kernel.hh"

#include "kernel_loop.hh"

#include <cerrno>
#include <doctest/doctest.h>
#include <time.h>

using namespace grace;

namespace {

instant in(duration d) {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec + d;
}

struct gate {
    testing::loop loop;
    testing::temporary_directory dir;
    std::vector<any_input> inputs;
    embedded_kernel kernel{loop.get(), [this](any_input i) { inputs.push_back(std::move(i)); },
                           dir / "gate"};

    template <typename T>
    T next() {
        if (!loop.until([&] { return !inputs.empty(); }))
            throw std::runtime_error("no input came");
        T got = std::get<T>(inputs.front());
        inputs.erase(inputs.begin());
        return got;
    }
    std::string ask(const std::string& request) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strcpy(address.sun_path, (dir / "gate").c_str());
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            return "nobody";
        [[maybe_unused]] const auto put = send(fd, request.data(), request.size(), 0);
        char buffer[256];
        ssize_t got = -1;
        loop.until([&] { return (got = recv(fd, buffer, sizeof buffer, 0)) > 0; });
        close(fd);
        return got > 0 ? std::string(buffer, std::size_t(got)) : "nothing";
    }
};

} // namespace

TEST_CASE_FIXTURE(gate, "a grace period, as programs see it") {
    REQUIRE(kernel.start());
    CHECK(inputs.empty()); // never from within a call
    const auto attached = next<input::kernel_attached>();
    CHECK(attached.instance != 0);
    CHECK(attached.trips == 0);
    CHECK(ask("try local") == "eagain");
    CHECK(ask("try nfs vs1") == "grace");
    CHECK(ask("try reclaim vs1") == "grace");

    kernel.close_gate(epoch{2}, 1);
    kernel.set_reclaim("vs1", epoch{2}, true, 2);
    CHECK(next<input::kernel_acked>().order == 1);
    CHECK(next<input::kernel_acked>().order == 2);
    CHECK(ask("try reclaim vs1") == "granted");
    CHECK(ask("try reclaim vs2") == "grace");
    CHECK(ask("try local\n") == "eagain");

    kernel.extend_permit(in(seconds(30)));
    kernel.open_gate(epoch{2}, 0, 3);
    CHECK(next<input::kernel_refused>().code == -EBUSY); // vs1 may still reclaim
    kernel.set_reclaim("vs1", epoch{2}, false, 4);
    kernel.open_gate(epoch{2}, 0, 5);
    CHECK(next<input::kernel_acked>().order == 4);
    CHECK(next<input::kernel_acked>().order == 5);
    CHECK(ask("try local") == "granted");
    CHECK(ask("try nfs vs1") == "granted");
    CHECK(ask("try reclaim vs1") == "grace");
    CHECK(ask("status") == "open epoch 2 trips 0 reclaim none");
    CHECK(ask("nonsense") == "unknown");
}

TEST_CASE_FIXTURE(gate, "refusals") {
    REQUIRE(kernel.start());
    next<input::kernel_attached>();
    kernel.close_gate(epoch{5}, 1);
    next<input::kernel_acked>();
    const auto refused = [&](int code) { return next<input::kernel_refused>().code == code; };
    kernel.close_gate(epoch{4}, 2);
    CHECK(refused(-ESTALE));
    kernel.open_gate(epoch{5}, 0, 3);
    CHECK(refused(-ETIME)); // no permit yet
    kernel.extend_permit(in(seconds(30)));
    kernel.open_gate(epoch{4}, 0, 4);
    CHECK(refused(-ESTALE));
    kernel.open_gate(epoch{5}, 1, 5);
    CHECK(refused(-EAGAIN));
    kernel.set_reclaim("vs1", epoch{4}, true, 6);
    CHECK(refused(-ESTALE));
    kernel.open_gate(epoch{5}, 0, 7);
    next<input::kernel_acked>();
    kernel.set_reclaim("vs1", epoch{5}, true, 8);
    CHECK(refused(-EBUSY));
    kernel.trip();
    CHECK(next<input::kernel_tripped>().trips == 1);
    CHECK_FALSE(kernel.is_open());
    kernel.open_gate(epoch{5}, 0, 9);
    CHECK(refused(-EAGAIN));
    kernel.open_gate(epoch{5}, 1, 10);
    CHECK(next<input::kernel_acked>().order == 10);
    CHECK(ask("trip") == "ok 2");
}

TEST_CASE_FIXTURE(gate, "the permit runs out") {
    kernel.close_gate(epoch{1}, 1);
    const instant end = in(milliseconds(2000)); // to open it before takes no time, on most machines
    kernel.extend_permit(end);
    kernel.extend_permit(end - milliseconds(400)); // shortens nothing
    CHECK(kernel.permit_until() == end);
    kernel.open_gate(epoch{1}, 0, 2);
    next<input::kernel_acked>();
    next<input::kernel_acked>();
    next<input::kernel_closed>();
    CHECK(in(0) >= end);
    CHECK_FALSE(kernel.is_open());
    kernel.extend_permit(in(seconds(30))); // a permit opens nothing
    CHECK_FALSE(kernel.is_open());
    kernel.open_gate(epoch{1}, 0, 3);
    next<input::kernel_acked>();
    kernel.extend_permit(0);
    CHECK_FALSE(kernel.is_open());
    next<input::kernel_closed>();
}

TEST_CASE_FIXTURE(gate, "closing withdraws reclaim") {
    kernel.close_gate(epoch{1}, 1);
    kernel.set_reclaim("vs1", epoch{1}, true, 2);
    kernel.close_gate(epoch{1}, 3);
    CHECK(kernel.reclaiming().empty());
}
