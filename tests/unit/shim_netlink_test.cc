// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel port against a stand-in for the module's end of its two sockets.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/shim_netlink.hh"

#include "kernel_loop.hh"
#include "kernel_netlink.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sys/stat.h>
#include <sys/wait.h>

using namespace grace;
using namespace testing;

namespace {

constexpr std::uint16_t family = 0x21;

struct module {
    testing::loop loop;
    testing::temporary_directory dir;
    std::vector<any_input> inputs;
    int orders = -1, events = -1; // the module's ends
    bool loaded = true;
    int connects = 0;
    shim_netlink kernel{loop.get(), [this](any_input i) { inputs.push_back(std::move(i)); },
                        [this] { return connect(); }};

    ~module() { unload(); }
    result<shim_netlink::connection> connect() {
        connects++;
        if (!loaded)
            return fail("kernel module lockd_shim is not loaded: modprobe it", ENOENT);
        int o[2], e[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, o) != 0 ||
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, e) != 0)
            throw std::runtime_error("socketpair");
        unload();
        loaded = true;
        orders = o[1];
        events = e[1];
        return shim_netlink::connection{o[0], e[0], family};
    }
    void unload() {
        loaded = false;
        for (int* fd : {&orders, &events}) {
            if (*fd >= 0)
                close(*fd);
            *fd = -1;
        }
    }
    request_seen request() {
        octets bytes(4096);
        ssize_t got = -1;
        loop.until([&] { return (got = recv(orders, bytes.data(), bytes.size(), 0)) > 0; });
        if (got <= 0)
            throw std::runtime_error("no request came");
        bytes.resize(std::size_t(got));
        return parse_request(bytes);
    }
    // The next one that is not about the status; those are answered by the way.
    request_seen order() {
        for (;;) {
            const auto r = request();
            if (r.cmd == LOCKD_SHIM_CMD_NS_GET) {
                const int zero = 0;
                say(netlink_writer(family, r.seq)
                        .genl(LOCKD_SHIM_CMD_NS_GET)
                        .u32(LOCKD_SHIM_A_NETNS_INO, 77)
                        .done());
                say(netlink_writer(NLMSG_DONE, r.seq).raw(&zero, 4).done());
            } else if (r.cmd == LOCKD_SHIM_CMD_STATUS_GET) {
                say(status_message(LOCKD_SHIM_CMD_STATUS_GET, r.seq));
                say(error_message(r.seq, 0));
            } else {
                return r;
            }
        }
    }
    std::uint64_t trips = 0;
    std::uint32_t state = LOCKD_SHIM_STATE_CLOSED;
    std::uint32_t hooks = LOCKD_SHIM_HOOK_GFS2_LOCK;
    bool bypass = false;
    octets status_message(std::uint8_t cmd, std::uint32_t seq) {
        return netlink_writer(family, seq)
            .genl(cmd)
            .u32(LOCKD_SHIM_A_VERSION, 1)
            .u64(LOCKD_SHIM_A_INSTANCE, 42)
            .u32(LOCKD_SHIM_A_STATE, state)
            .u64(LOCKD_SHIM_A_EPOCH, 6)
            .u64(LOCKD_SHIM_A_TRIPS, trips)
            .u32(LOCKD_SHIM_A_HOOKS, hooks)
            .u32(LOCKD_SHIM_A_HOOKS_WANTED, LOCKD_SHIM_HOOK_GFS2_LOCK)
            .u8(LOCKD_SHIM_A_BYPASS, bypass)
            .done();
    }
    void say(const octets& bytes) {
        if (send(orders, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0)
            throw std::runtime_error("send");
    }
    void tell(const octets& bytes) {
        if (send(events, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0)
            throw std::runtime_error("send");
    }
    void tell_gate(std::uint32_t now, std::uint32_t reason) {
        state = now;
        tell(netlink_writer(family, 0)
                 .genl(LOCKD_SHIM_CMD_GATE_NTF)
                 .u32(LOCKD_SHIM_A_STATE, now)
                 .u32(LOCKD_SHIM_A_REASON, reason)
                 .u64(LOCKD_SHIM_A_EPOCH, 6)
                 .u64(LOCKD_SHIM_A_TRIPS, trips)
                 .done());
    }
    void tell_hooks(std::uint32_t now) {
        hooks = now;
        netlink_writer w(family, 0);
        w.genl(LOCKD_SHIM_CMD_HOOKS_NTF)
            .u32(LOCKD_SHIM_A_HOOKS, now)
            .u32(LOCKD_SHIM_A_HOOKS_WANTED, LOCKD_SHIM_HOOK_GFS2_LOCK);
        if (!now)
            w.text(LOCKD_SHIM_A_HOOK_ERROR, "gfs2_lock: a live patch has it");
        tell(w.done());
    }
    void answer_attach() {
        const auto r = request();
        REQUIRE(r.cmd == LOCKD_SHIM_CMD_ATTACH);
        say(status_message(LOCKD_SHIM_CMD_ATTACH, r.seq));
        say(error_message(r.seq, 0));
    }
    void attach() {
        answer_attach();
        const auto a = next<input::kernel_attached>();
        CHECK(a.instance == 42);
        CHECK(a.at == epoch{6});
        CHECK(a.trips == trips);
    }
    template <typename T>
    T next() {
        if (!loop.until([&] { return !inputs.empty(); }))
            throw std::runtime_error("no input came");
        T got = std::get<T>(inputs.front());
        inputs.erase(inputs.begin());
        return got;
    }
};

} // namespace

TEST_CASE_FIXTURE(module, "attach, close, open, refusal") {
    trips = 3;
    kernel.start();
    attach();
    kernel.close_gate(epoch{7}, 100);
    auto r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_GATE_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_EPOCH) == 7);
    CHECK(inputs.empty());
    say(error_message(r.seq, 0));
    CHECK(next<input::kernel_acked>().order == 100);

    kernel.open_gate(epoch{7}, 3, 101);
    r = order();
    CHECK(r.numbers.at(LOCKD_SHIM_A_TRIPS) == 3);
    say(error_message(r.seq, -ENODEV, "gfs2_gate is not loaded"));
    const auto refused = next<input::kernel_refused>();
    CHECK(refused.order == 101);
    CHECK(refused.code == -ENODEV);
    CHECK(refused.why == "gfs2_gate is not loaded");
    CHECK(kernel.status().attached);
    CHECK(kernel.status().last.instance == 42);
    CHECK(loop.until([&] { return kernel.status().namespaces.size() == 1; }));
    CHECK(kernel.status().namespaces.at(0).inode == 77);
}

TEST_CASE_FIXTURE(module, "events: trips, the permit's end, and what is told before an ack") {
    kernel.start();
    attach();
    kernel.open_gate(epoch{6}, 0, 1);
    auto r = order();
    tell_gate(LOCKD_SHIM_STATE_OPEN, LOCKD_SHIM_REASON_ORDER);
    say(error_message(r.seq, 0));
    next<input::kernel_acked>();
    tell_gate(LOCKD_SHIM_STATE_CLOSED, LOCKD_SHIM_REASON_PERMIT);
    next<input::kernel_closed>();
    // The trip comes on the other socket, but first.
    kernel.open_gate(epoch{6}, 0, 2);
    r = order();
    trips = 1;
    say(error_message(r.seq, -EAGAIN, "trips"));
    tell(netlink_writer(family, 0).genl(LOCKD_SHIM_CMD_TRIP_NTF).u64(LOCKD_SHIM_A_TRIPS, 1).done());
    CHECK(next<input::kernel_tripped>().trips == 1);
    next<input::kernel_refused>();
    // The same count again is no news; a close by order is none either.
    tell_gate(LOCKD_SHIM_STATE_CLOSED, LOCKD_SHIM_REASON_TRIP);
    tell_gate(LOCKD_SHIM_STATE_CLOSED, LOCKD_SHIM_REASON_ORDER);
    loop.run_for(20);
    CHECK(inputs.empty());
}

TEST_CASE_FIXTURE(module, "a server stopped by hand is told before its trip") {
    kernel.start();
    attach();
    struct stat st {};
    REQUIRE(stat("/proc/self/ns/net", &st) == 0);
    kernel.set_namespace("vs1", "/proc/self/ns/net", "/nowhere");
    kernel.set_namespace("vs2", "/proc/self/ns/uts", "/nowhere");
    const auto tell_server = [&](bool up, std::uint64_t stops) {
        tell(netlink_writer(family, 0)
                 .genl(LOCKD_SHIM_CMD_NS_NTF)
                 .u32(LOCKD_SHIM_A_NETNS_INO, std::uint32_t(st.st_ino))
                 .u64(LOCKD_SHIM_A_NETNS_COOKIE, 9)
                 .u8(LOCKD_SHIM_A_NETNS_UP, 1)
                 .u8(LOCKD_SHIM_A_NFSD_UP, up)
                 .u64(LOCKD_SHIM_A_STOPS, stops)
                 .done());
    };
    tell_server(true, 0);
    tell_server(false, 1);
    trips = 1;
    tell(netlink_writer(family, 0).genl(LOCKD_SHIM_CMD_TRIP_NTF).u64(LOCKD_SHIM_A_TRIPS, 1).done());
    const auto gone = next<input::nfsd_ended>();
    CHECK(gone.server == "vs1");
    CHECK(next<input::kernel_tripped>().trips == 1);
    // Started again; the same count is no news, and what lockd alone dropped is no end of nfsd.
    tell_server(true, 1);
    tell_server(true, 2);
    loop.run_for(20);
    CHECK(inputs.empty());
}

TEST_CASE_FIXTURE(module, "lost events show in the status") {
    kernel.start();
    attach();
    kernel.open_gate(epoch{6}, 0, 1);
    const auto r = order();
    state = LOCKD_SHIM_STATE_OPEN;
    say(error_message(r.seq, 0));
    next<input::kernel_acked>();
    trips = 2; // no event came
    state = LOCKD_SHIM_STATE_CLOSED;
    const auto again = request(); // within two seconds
    CHECK(again.cmd == LOCKD_SHIM_CMD_STATUS_GET);
    say(status_message(LOCKD_SHIM_CMD_STATUS_GET, again.seq));
    CHECK(next<input::kernel_tripped>().trips == 2);
}

TEST_CASE_FIXTURE(module, "reclaim: the namespace's file goes along; closing withdraws") {
    kernel.start();
    attach();
    kernel.set_reclaim("vs1", epoch{6}, true, 1);
    CHECK(next<input::kernel_refused>().why.find("vs1") != std::string::npos);
    kernel.set_namespace("vs1", dir / "absent", dir.path);
    kernel.set_reclaim("vs1", epoch{6}, true, 2);
    const auto refused = next<input::kernel_refused>();
    CHECK(refused.code == -ENOENT);
    CHECK(refused.why.find("absent") != std::string::npos);

    kernel.set_namespace("vs1", "/proc/self/ns/net", dir.path);
    kernel.set_namespace("vs2", "/proc/self/ns/net", dir.path);
    kernel.set_reclaim("vs1", epoch{6}, true, 3);
    auto r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_RECLAIM_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_STATE) == LOCKD_SHIM_STATE_RECLAIM);
    const auto fd = int(r.numbers.at(LOCKD_SHIM_A_NETNS_FD));
    CHECK(fcntl(fd, F_GETFD) >= 0);
    say(error_message(r.seq, 0));
    CHECK(next<input::kernel_acked>().order == 3);

    SUBCASE("one by one") {
        kernel.set_reclaim("vs1", epoch{6}, false, 4);
        r = order();
        CHECK(r.numbers.at(LOCKD_SHIM_A_STATE) == LOCKD_SHIM_STATE_CLOSED);
        say(error_message(r.seq, 0));
        CHECK(next<input::kernel_acked>().order == 4);
        kernel.set_reclaim("vs1", epoch{6}, false, 5); // nothing to withdraw
        CHECK(next<input::kernel_acked>().order == 5);
    }
    SUBCASE("closing in the same epoch: withdrawn before") {
        kernel.set_reclaim("vs2", epoch{6}, true, 4);
        say(error_message(order().seq, 0));
        next<input::kernel_acked>();
        kernel.close_gate(epoch{6}, 5);
        for (int n = 0; n < 2; n++) {
            r = order();
            CHECK(r.cmd == LOCKD_SHIM_CMD_RECLAIM_SET);
            CHECK(r.numbers.at(LOCKD_SHIM_A_STATE) == LOCKD_SHIM_STATE_CLOSED);
            say(error_message(r.seq, 0));
        }
        CHECK(inputs.empty());
        r = order();
        CHECK(r.cmd == LOCKD_SHIM_CMD_GATE_SET);
        say(error_message(r.seq, 0));
        CHECK(next<input::kernel_acked>().order == 5);
    }
    SUBCASE("closing in the next epoch: the module withdraws by itself") {
        kernel.close_gate(epoch{7}, 5);
        r = order();
        CHECK(r.numbers.at(LOCKD_SHIM_A_EPOCH) == 7);
        say(error_message(r.seq, -ESTALE, "the order is for another epoch"));
        r = order();
        CHECK(r.cmd == LOCKD_SHIM_CMD_GATE_SET);
        say(error_message(r.seq, 0));
        CHECK(next<input::kernel_acked>().order == 5);
    }
    SUBCASE("a second order that is refused does not hide the first one's permission") {
        kernel.set_reclaim("vs1", epoch{4}, true, 4);
        say(error_message(order().seq, -ESTALE, "the order is for another epoch"));
        next<input::kernel_refused>();
        kernel.close_gate(epoch{6}, 5);
        CHECK(order().cmd == LOCKD_SHIM_CMD_RECLAIM_SET);
        CHECK(order().cmd == LOCKD_SHIM_CMD_GATE_SET);
    }
    SUBCASE("forgetting the server withdraws") {
        kernel.forget("vs1");
        r = order();
        CHECK(r.numbers.at(LOCKD_SHIM_A_STATE) == LOCKD_SHIM_STATE_CLOSED);
        CHECK(r.numbers.at(LOCKD_SHIM_A_EPOCH) == 6);
    }
    SUBCASE("a withdrawal that fails closes the socket") {
        kernel.forget("vs1");
        say(error_message(order().seq, -EIO, "no"));
        next<input::kernel_lost>();
        attach();
    }
    if (connects == 1) // else the number is in use again
        CHECK(fcntl(fd, F_GETFD) < 0);
}

TEST_CASE_FIXTURE(module, "a gate that holds nothing back is none, though its module is attached") {
    kernel.start();
    attach();
    kernel.set_namespace("vs1", "/proc/self/ns/net", dir.path);
    kernel.set_reclaim("vs1", epoch{6}, true, 1);
    say(error_message(order().seq, 0));
    next<input::kernel_acked>();
    SUBCASE("a hook is lost, and is back") {
        tell_hooks(0);
        CHECK(next<input::kernel_lost>().why.find("a live patch") != std::string::npos);
        tell_hooks(0); // told once
        trips = 5;
        tell_hooks(LOCKD_SHIM_HOOK_GFS2_LOCK);
        CHECK(next<input::kernel_attached>().instance == 42);
    }
    SUBCASE("an operator bypasses it, and ends that") {
        bypass = true;
        tell_gate(LOCKD_SHIM_STATE_OPEN, LOCKD_SHIM_REASON_BYPASS);
        CHECK(next<input::kernel_lost>().why.find("BYPASSED") != std::string::npos);
        tell_gate(LOCKD_SHIM_STATE_OPEN, LOCKD_SHIM_REASON_BYPASS);
        bypass = false;
        trips = 3; // what tripped meanwhile is told with the attaching, not before
        tell_gate(LOCKD_SHIM_STATE_CLOSED, LOCKD_SHIM_REASON_BYPASS);
        CHECK(next<input::kernel_attached>().trips == 3);
    }
    SUBCASE("no event came: the status says so") {
        bypass = true;
        auto r = request(); // within two seconds
        while (r.cmd != LOCKD_SHIM_CMD_STATUS_GET)
            r = request();
        say(status_message(LOCKD_SHIM_CMD_STATUS_GET, r.seq));
        next<input::kernel_lost>();
        CHECK(kernel.status().attached);
    }
    // The kernel has withdrawn the permission: nothing is left to withdraw.
    kernel.set_reclaim("vs1", epoch{6}, false, 2);
    CHECK(next<input::kernel_acked>().order == 2);
}

TEST_CASE_FIXTURE(module, "attaching to a gate that is bypassed") {
    bypass = true;
    kernel.start();
    answer_attach();
    next<input::kernel_lost>();
    CHECK(kernel.status().attached);
    CHECK(kernel.unfit().find("BYPASSED") != std::string::npos);
}

TEST_CASE_FIXTURE(module, "NFSv3 hosts follow the permission to reclaim, a few at a time") {
    kernel.start();
    attach();
    kernel.set_namespace("vs1", "/proc/self/ns/net", dir.path);
    std::vector<std::string> hosts{"", std::string(256, 'x')};
    for (int i = 0; i < 100; ++i)
        hosts.push_back("10.0.0." + std::to_string(i));
    kernel.hosts_from([&](const std::string& server) {
        CHECK(server == "vs1");
        return hosts;
    });
    kernel.set_reclaim("vs1", epoch{6}, true, 1);
    auto r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_RECLAIM_SET);
    say(error_message(r.seq, 0));
    std::vector<std::uint32_t> first;
    for (int i = 0; i < 64; ++i) {
        r = order();
        REQUIRE(r.cmd == LOCKD_SHIM_CMD_HOST_ADD);
        CHECK(r.numbers.at(LOCKD_SHIM_A_EPOCH) == 6);
        first.push_back(r.seq);
    }
    loop.run_for(20);
    octets none(64);
    CHECK(recv(orders, none.data(), none.size(), MSG_PEEK) < 0); // the rest waits
    for (const auto seq : first)
        say(error_message(seq, seq == first[3] ? -ENOMEM : 0)); // one is lost, with a message
    for (int i = 64; i < 100; ++i) {
        r = order();
        CHECK(r.cmd == LOCKD_SHIM_CMD_HOST_ADD);
        say(error_message(r.seq, 0));
    }
    CHECK(next<input::kernel_acked>().order == 1);
}

TEST_CASE_FIXTURE(module,
                  "that every node enforces is told when it changes, and anew to another module") {
    kernel.set_enforced(epoch{6}, 2, true); // nobody is there
    kernel.start();
    attach();
    const auto told = [&](std::uint64_t on, std::uint64_t at, std::uint64_t count) {
        const auto r = order();
        CHECK(r.cmd == LOCKD_SHIM_CMD_ENFORCED_SET);
        CHECK(r.numbers.at(LOCKD_SHIM_A_ENFORCED) == on);
        CHECK(r.numbers.at(LOCKD_SHIM_A_EPOCH) == at);
        CHECK(r.numbers.at(LOCKD_SHIM_A_TRIPS) == count);
        return r.seq;
    };
    kernel.set_enforced(epoch{6}, 2, false); // so it is anyway
    kernel.set_enforced(epoch{6}, 2, true);
    kernel.set_enforced(epoch{6}, 2, true);
    say(error_message(told(1, 6, 2), 0));
    kernel.set_enforced(epoch{6}, 3, true);
    say(error_message(told(1, 6, 3), 0));
    kernel.set_enforced(epoch{7}, 3, true);
    say(error_message(told(1, 7, 3), 0));
    kernel.set_enforced(epoch{7}, 4, false);
    say(error_message(told(0, 7, 4), 0));
    unload();
    next<input::kernel_lost>();
    loaded = true;
    REQUIRE(loop.until([&] { return orders >= 0; }));
    attach();
    kernel.set_enforced(epoch{8}, 0, true);
    say(error_message(told(1, 8, 0), 0));
}

TEST_CASE_FIXTURE(module, "orders of people: bypass, exempt") {
    std::vector<result<void>> answers;
    const auto note = [&](result<void> r) { answers.push_back(std::move(r)); };
    const auto answered = [&] { return loop.until([&] { return !answers.empty(); }); };
    kernel.set_bypass(true, note); // nobody is there
    REQUIRE(answers.size() == 1);
    CHECK_FALSE(answers[0]);
    answers.clear();
    kernel.start();
    attach();
    kernel.set_bypass(true, note);
    auto r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_BYPASS_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_BYPASS) == 1);
    CHECK(answers.empty());
    say(error_message(r.seq, 0));
    REQUIRE(answered());
    CHECK(answers[0]);
    answers.clear();

    kernel.set_exempt(0x7fffffff, true, note); // no such process
    REQUIRE(answers.size() == 1);
    CHECK_FALSE(answers[0]);
    answers.clear();
    const auto self = std::uint32_t(getpid());
    kernel.set_exempt(self, true, note);
    r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_EXEMPT_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_PID) == self);
    say(error_message(r.seq, -ENOSPC, "too many processes are exempt"));
    REQUIRE(answered());
    CHECK(answers[0].error().message.find("too many") != std::string::npos);
    answers.clear();
    kernel.set_exempt(self, true, note);
    say(error_message(order().seq, 0));
    REQUIRE(answered());
    CHECK(answers[0]);
    // Another module knows nothing of it: told again.
    unload();
    next<input::kernel_lost>();
    loaded = true;
    REQUIRE(loop.until([&] { return orders >= 0; }));
    attach();
    r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_EXEMPT_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_PID) == self);
    // Who waits is answered when the module goes.
    answers.clear();
    kernel.set_bypass(false, note);
    unload();
    REQUIRE(answered());
    CHECK_FALSE(answers[0]);
}

TEST_CASE_FIXTURE(module, "not loaded, unloaded, loaded again") {
    loaded = false;
    kernel.start();
    CHECK(next<input::kernel_lost>().why.find("modprobe") != std::string::npos);
    kernel.close_gate(epoch{1}, 1);
    CHECK(next<input::kernel_refused>().code == -ENOTCONN);
    kernel.extend_permit(seconds(1000000));
    CHECK(loop.until([&] { return connects >= 3; }));
    CHECK(inputs.empty()); // told once
    loaded = true;
    REQUIRE(loop.until([&] { return orders >= 0; }));
    attach();
    kernel.close_gate(epoch{7}, 2);
    unload();
    CHECK(next<input::kernel_lost>().why.find("hung up") != std::string::npos);
    CHECK_FALSE(kernel.status().attached);
    loaded = true;
    REQUIRE(loop.until([&] { return orders >= 0; }));
    attach();
}

TEST_CASE_FIXTURE(module, "attach is refused") {
    kernel.start();
    const auto r = request();
    SUBCASE("busy") {
        say(error_message(r.seq, -EBUSY, "another daemon is attached"));
        CHECK(next<input::kernel_lost>().why.find("another graced") != std::string::npos);
    }
    SUBCASE("version") {
        say(error_message(r.seq, -EPROTONOSUPPORT, "the module speaks version 2, the daemon 1"));
        CHECK(next<input::kernel_lost>().why.find("version 2, the daemon 1") != std::string::npos);
    }
    SUBCASE("no status") {
        say(error_message(r.seq, 0));
        CHECK(next<input::kernel_lost>().why.find("sent no status") != std::string::npos);
    }
}

TEST_CASE_FIXTURE(module, "an order after the module forgot us") {
    kernel.start();
    attach();
    kernel.close_gate(epoch{7}, 1);
    say(error_message(order().seq, -ENOTCONN, "this socket is not attached"));
    next<input::kernel_lost>();
    attach();
}

TEST_CASE_FIXTURE(module, "a permit far ahead is cut, garbage is ignored") {
    kernel.start();
    attach();
    kernel.extend_permit(std::numeric_limits<instant>::max());
    const auto r = order();
    CHECK(r.cmd == LOCKD_SHIM_CMD_PERMIT_SET);
    CHECK(r.numbers.at(LOCKD_SHIM_A_PERMIT_UNTIL) < std::uint64_t(1) << 62);
    say(error_message(r.seq, -ETIME));
    say(octets(100, 0xff));
    tell(octets(3, 0));
    tell(error_message(4711, 0));
    loop.run_for(20);
    CHECK(inputs.empty());
    CHECK(kernel.status().attached);
}

TEST_CASE_FIXTURE(module, "v4_end_grace is written by a thread, which may wait long") {
    const std::string path = dir / "v4_end_grace";
    REQUIRE(mkfifo(path.c_str(), 0600) == 0); // open() waits for a reader
    kernel.end_nfsd_grace("vs1");             // not known: nothing happens
    kernel.set_namespace("vs1", "/proc/self/ns/net", dir.path);
    kernel.end_nfsd_grace("vs1");
    kernel.end_nfsd_grace("vs1"); // it is under way
    std::string line;
    std::getline(std::ifstream(path), line);
    CHECK(line == "Y");
}

// nfsd may wait within the write for an answer of this daemon: the successor of one that was killed
// would never come up if the write hung in it.
TEST_CASE_FIXTURE(module, "v4_end_grace is written by another process, which outlives the daemon") {
    const std::string path = dir / "v4_end_grace";
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    const pid_t daemon = fork();
    REQUIRE(daemon >= 0);
    if (daemon == 0) {
        kernel.set_namespace("vs1", "/proc/self/ns/net", dir.path);
        kernel.end_nfsd_grace("vs1");
        pause();
        _exit(0);
    }
    const auto has_child = [daemon] {
        for (const auto& process : std::filesystem::directory_iterator("/proc")) {
            std::string all;
            std::getline(std::ifstream(process.path() / "stat"), all);
            const auto name = all.rfind(')'); // its state and its parent are behind that
            if (name != std::string::npos &&
                std::atoi(all.c_str() + std::min(name + 4, all.size())) == daemon)
                return true;
        }
        return false;
    };
    REQUIRE(loop.until(has_child)); // the writer
    kill(daemon, SIGKILL);
    int how = 0;
    REQUIRE(waitpid(daemon, &how, 0) == daemon); // at once, whatever the writer waits for
    const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK);
    REQUIRE(fd >= 0);
    char line[3] = {};
    CHECK(loop.until([&] { return read(fd, line, 2) == 2; }));
    CHECK(std::string(line) == "Y\n");
    close(fd);
}
