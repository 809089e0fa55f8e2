// SPDX-License-Identifier: GPL-2.0-or-later
// lockd_shim's messages: orders as the module's policy wants them, answers and events decoded, and
// bytes that no kernel sends.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/shim_message.hh"

#include "kernel_netlink.hh"

#include <cerrno>
#include <doctest/doctest.h>
#include <random>

using namespace grace;
using namespace testing;

namespace {
constexpr std::uint16_t family = 0x21;

netlink_writer from_module(std::uint8_t cmd, std::uint32_t seq = 0) {
    return netlink_writer(family, seq).genl(cmd);
}

template <typename T>
T only(const octets& bytes) {
    const auto items = shim::decode(bytes, family);
    REQUIRE(items.size() == 1);
    REQUIRE(std::holds_alternative<T>(items[0]));
    return std::get<T>(items[0]);
}
} // namespace

TEST_CASE("orders carry the attributes that the module asks for, and no others") {
    auto r = parse_request(shim::attach(family, 1, 1));
    CHECK(r.cmd == LOCKD_SHIM_CMD_ATTACH);
    CHECK(r.seq == 1);
    CHECK(r.flags == (NLM_F_REQUEST | NLM_F_ACK));
    CHECK(r.numbers == std::map<int, std::uint64_t>{{LOCKD_SHIM_A_VERSION, 1}});

    r = parse_request(shim::gate_closed(family, 2, 7));
    CHECK(r.cmd == LOCKD_SHIM_CMD_GATE_SET);
    CHECK(r.numbers == std::map<int, std::uint64_t>{{LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_CLOSED},
                                                    {LOCKD_SHIM_A_EPOCH, 7}});

    r = parse_request(shim::gate_open(family, 3, 1ull << 40, 5));
    CHECK(r.numbers == std::map<int, std::uint64_t>{{LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_OPEN},
                                                    {LOCKD_SHIM_A_EPOCH, 1ull << 40},
                                                    {LOCKD_SHIM_A_TRIPS, 5}});

    r = parse_request(shim::reclaim_set(family, 4, 12, 7, true));
    CHECK(r.cmd == LOCKD_SHIM_CMD_RECLAIM_SET);
    CHECK(r.numbers == std::map<int, std::uint64_t>{{LOCKD_SHIM_A_NETNS_FD, 12},
                                                    {LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_RECLAIM},
                                                    {LOCKD_SHIM_A_EPOCH, 7}});
    r = parse_request(shim::reclaim_set(family, 4, 12, 7, false));
    CHECK(r.numbers.at(LOCKD_SHIM_A_STATE) == LOCKD_SHIM_STATE_CLOSED);

    r = parse_request(shim::permit_set(family, 5, 123456789012345));
    CHECK(r.cmd == LOCKD_SHIM_CMD_PERMIT_SET);
    CHECK(r.numbers == std::map<int, std::uint64_t>{{LOCKD_SHIM_A_PERMIT_UNTIL, 123456789012345}});

    CHECK(parse_request(shim::status_get(family, 6)).numbers.empty());
    r = parse_request(shim::namespaces_dump(family, 7));
    CHECK(r.cmd == LOCKD_SHIM_CMD_NS_GET);
    CHECK((r.flags & NLM_F_DUMP) == NLM_F_DUMP);
}

TEST_CASE("acknowledgements and refusals") {
    auto a = only<shim::ack>(error_message(9, 0));
    CHECK(a.seq == 9);
    CHECK(a.code == 0);
    a = only<shim::ack>(error_message(10, -ETIME, "the permit has run out"));
    CHECK(a.code == -ETIME);
    CHECK(a.text == "the permit has run out");
    // Without NETLINK_CAP_ACK the kernel puts the whole request in front of the text.
    const auto request = shim::gate_open(family, 11, 7, 0);
    a = only<shim::ack>(error_message(11, -EAGAIN, "trips", false, request));
    CHECK(a.text == "trips");
}

TEST_CASE("a status, with and without the attributes that may be missing") {
    const auto s = only<shim::attach_reply>(from_module(LOCKD_SHIM_CMD_ATTACH, 3)
                                                .u32(LOCKD_SHIM_A_VERSION, 1)
                                                .text(LOCKD_SHIM_A_MODULE_VERSION, "0.1.0")
                                                .u64(LOCKD_SHIM_A_INSTANCE, 0xfeedfacecafe)
                                                .u32(LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_OPEN)
                                                .attribute(LOCKD_SHIM_A_PAD, nullptr, 0)
                                                .u64(LOCKD_SHIM_A_EPOCH, 8)
                                                .u64(LOCKD_SHIM_A_TRIPS, 2)
                                                .u64(LOCKD_SHIM_A_PERMIT_UNTIL, 99)
                                                .u8(LOCKD_SHIM_A_ATTACHED, 1)
                                                .u32(LOCKD_SHIM_A_HOOKS, 7)
                                                .u32(LOCKD_SHIM_A_WAITERS, 4)
                                                .u32(200, 1) // an attribute of the future
                                                .done());
    CHECK(s.seq == 3);
    CHECK(s.now.module_version == "0.1.0");
    CHECK(s.now.instance == 0xfeedfacecafe);
    CHECK(s.now.state == LOCKD_SHIM_STATE_OPEN);
    CHECK(s.now.epoch == 8);
    CHECK(s.now.trips == 2);
    CHECK(s.now.permit_until == 99);
    CHECK(s.now.attached);
    CHECK(s.now.waiters == 4);
    CHECK(s.now.hook_error.empty());
    CHECK(shim::hook_names(s.now.hooks) == "gfs2_lock gfs2_flock dlm_ls_stop");
    CHECK(only<shim::status_reply>(from_module(LOCKD_SHIM_CMD_STATUS_GET).done()).now.epoch == 0);
}

TEST_CASE("events") {
    const auto t = only<shim::trip_event>(from_module(LOCKD_SHIM_CMD_TRIP_NTF)
                                              .u64(LOCKD_SHIM_A_TRIPS, 3)
                                              .u32(LOCKD_SHIM_A_CAUSE, LOCKD_SHIM_CAUSE_DLM_LS_STOP)
                                              .done());
    CHECK(t.trips == 3);
    CHECK(std::string(shim::cause_name(t.cause)) == "a lockspace was stopped");
    const auto g = only<shim::gate_event>(from_module(LOCKD_SHIM_CMD_GATE_NTF)
                                              .u32(LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_CLOSED)
                                              .u32(LOCKD_SHIM_A_REASON, LOCKD_SHIM_REASON_PERMIT)
                                              .u64(LOCKD_SHIM_A_EPOCH, 4)
                                              .u64(LOCKD_SHIM_A_TRIPS, 3)
                                              .done());
    CHECK(g.reason == LOCKD_SHIM_REASON_PERMIT);
    CHECK(g.epoch == 4);
    const auto h = only<shim::hooks_event>(from_module(LOCKD_SHIM_CMD_HOOKS_NTF)
                                               .u32(LOCKD_SHIM_A_HOOKS_WANTED, 1)
                                               .text(LOCKD_SHIM_A_HOOK_ERROR, "gfs2_lock: busy")
                                               .done());
    CHECK(h.error == "gfs2_lock: busy");
    const auto n = only<shim::namespace_event>(from_module(LOCKD_SHIM_CMD_NS_NTF)
                                                   .u32(LOCKD_SHIM_A_NETNS_INO, 4026531840)
                                                   .u8(LOCKD_SHIM_A_NETNS_UP, 1)
                                                   .u8(LOCKD_SHIM_A_NFSD_UP, 1)
                                                   .u64(LOCKD_SHIM_A_STOPS, 3)
                                                   .done());
    CHECK(n.ns.inode == 4026531840);
    CHECK(n.ns.nfsd_up);
    CHECK(n.ns.stops == 3);
    CHECK(n.up);
}

TEST_CASE("several messages in one datagram, and a dump's end") {
    octets all;
    for (std::uint32_t ino = 1; ino <= 3; ino++) {
        const auto one =
            from_module(LOCKD_SHIM_CMD_NS_GET, 5).u32(LOCKD_SHIM_A_NETNS_INO, ino).done();
        all.insert(all.end(), one.begin(), one.end());
    }
    const int zero = 0;
    const auto end = netlink_writer(NLMSG_DONE, 5, NLM_F_DUMP_INTR).raw(&zero, 4).done();
    all.insert(all.end(), end.begin(), end.end());
    const auto items = shim::decode(all, family);
    REQUIRE(items.size() == 4);
    CHECK(std::get<shim::namespace_reply>(items[2]).ns.inode == 3);
    CHECK(std::get<shim::dump_done>(items[3]).interrupted);
}

TEST_CASE("what is malformed is left out") {
    CHECK(shim::decode({}, family).empty());
    // An attribute that is too short for its type.
    CHECK(
        shim::decode(from_module(LOCKD_SHIM_CMD_TRIP_NTF).u32(LOCKD_SHIM_A_TRIPS, 3).done(), family)
            .empty());
    CHECK(shim::decode(from_module(99).done(), family).empty());
    CHECK(shim::decode(from_module(LOCKD_SHIM_CMD_TRIP_NTF).done(), family + 1).empty());
    // A string without its end.
    CHECK(only<shim::hooks_event>(from_module(LOCKD_SHIM_CMD_HOOKS_NTF)
                                      .attribute(LOCKD_SHIM_A_HOOK_ERROR, "abcd", 4)
                                      .done())
              .error == "abcd");
    // Cut at every length: no more items than there are, no complaint of the sanitizers.
    const auto whole = error_message(10, -ETIME, "the permit has run out", false,
                                     shim::gate_open(family, 11, 7, 0));
    for (std::size_t n = 0; n < whole.size(); n++)
        CHECK(shim::decode({whole.data(), n}, family).empty());
    std::mt19937 random(1);
    for (int i = 0; i < 50000; i++) {
        auto bytes = i % 2 ? whole
                           : from_module(std::uint8_t(1 + random() % 10))
                                 .u64(LOCKD_SHIM_A_TRIPS, 1)
                                 .text(LOCKD_SHIM_A_HOOK_ERROR, "x")
                                 .done();
        for (int n = 0; n < 4; n++)
            bytes[random() % bytes.size()] = std::uint8_t(random());
        bytes.insert(bytes.begin(), {family, 0});
        shim::fuzz_one(bytes.data(), bytes.size());
    }
}
