// SPDX-License-Identifier: GPL-2.0-or-later
// nfsd's client tracking messages: layout, limits, and bytes that nobody should send.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/cld_message.hh"

#include <cerrno>
#include <cstring>
#include <doctest/doctest.h>
#include <linux/nfsd/cld.h>
#include <random>

using namespace grace::cld;

namespace {
template <typename T>
std::vector<std::uint8_t> raw(const T& m) {
    std::vector<std::uint8_t> bytes(sizeof m);
    std::memcpy(bytes.data(), &m, sizeof m);
    return bytes;
}
} // namespace

TEST_CASE("a version 2 Create, as the kernel's own structure lays it out") {
    cld_msg_v2 k{};
    k.cm_vers = 2;
    k.cm_cmd = Cld_Create;
    k.cm_xid = 0x01020304;
    k.cm_u.cm_clntinfo.cc_name.cn_len = 5;
    std::memcpy(k.cm_u.cm_clntinfo.cc_name.cn_id, "c\0d\xff!", 5); // opaque: any bytes
    k.cm_u.cm_clntinfo.cc_princhash.cp_len = 32;
    std::memset(k.cm_u.cm_clntinfo.cc_princhash.cp_data, 0xab, 32);
    const auto m = decode(raw(k));
    REQUIRE(m);
    CHECK(m->version == 2);
    CHECK(m->cmd == command::create);
    CHECK(m->xid == 0x01020304);
    CHECK(m->name == std::string("c\0d\xff!", 5));
    CHECK(m->princhash == std::string(32, '\xab'));
    CHECK(encode(*m).value() == raw(k));
}

TEST_CASE("a version 1 GraceDone carries when grace began") {
    cld_msg k{};
    k.cm_vers = 1;
    k.cm_cmd = Cld_GraceDone;
    k.cm_u.cm_gracetime = -5;
    const auto m = decode(raw(k));
    REQUIRE(m);
    CHECK(m->grace_time == -5);
    CHECK(encode(*m).value() == raw(k));
}

TEST_CASE("the answer to GetVersion is the upcall with status and version") {
    message ask;
    ask.cmd = command::get_version;
    ask.xid = 7;
    auto bytes = encode(ask).value();
    CHECK(bytes.size() == size_v1);
    set_status(bytes, 0);
    set_use_version(bytes, 2);
    cld_msg k;
    std::memcpy(&k, bytes.data(), sizeof k);
    CHECK(k.cm_u.cm_version == 2);
    CHECK(+k.cm_xid == 7);
}

TEST_CASE("one client of the GraceStart list") {
    message m;
    m.version = 2;
    m.cmd = command::grace_start;
    m.status = -EINPROGRESS;
    m.name = std::string(1024, 'x');
    m.princhash = "h";
    const auto bytes = encode(m).value();
    cld_msg_v2 k;
    REQUIRE(bytes.size() == sizeof k);
    std::memcpy(&k, bytes.data(), sizeof k);
    CHECK(+k.cm_status == -EINPROGRESS);
    CHECK(+k.cm_u.cm_clntinfo.cc_name.cn_len == 1024);
    CHECK(k.cm_u.cm_clntinfo.cc_princhash.cp_len == 1);
    CHECK(decode(bytes).value() == m);
}

TEST_CASE("what is refused, and with which errno") {
    message m;
    m.version = 2;
    m.name = "a";
    const auto good = encode(m).value();
    const auto code = [](std::vector<std::uint8_t> bytes) {
        const auto got = decode(bytes);
        return got ? 0 : got.error().code;
    };
    CHECK(code(good) == 0);
    CHECK(code({}) == EINVAL);
    CHECK(code(std::vector<std::uint8_t>(good.begin(), good.begin() + 7)) == EINVAL);
    CHECK(code(std::vector<std::uint8_t>(good.begin(), good.end() - 1)) == EINVAL);
    auto bytes = good;
    bytes.push_back(0);
    CHECK(code(bytes) == EINVAL);
    SUBCASE("version 1 at version 2's length") {
        bytes = good;
        bytes[0] = 1;
        CHECK(code(bytes) == EINVAL);
    }
    SUBCASE("a version of the future") {
        bytes = good;
        bytes[0] = 3;
        CHECK(code(bytes) == EOPNOTSUPP);
    }
    SUBCASE("a command of the future") {
        bytes = good;
        bytes[1] = 6;
        CHECK(code(bytes) == EOPNOTSUPP);
    }
    SUBCASE("an empty name, and one that is too long") {
        bytes = good;
        bytes[8] = bytes[9] = 0;
        CHECK(code(bytes) == EREMOTEIO);
        const std::uint16_t length = 1025;
        std::memcpy(&bytes[8], &length, 2);
        CHECK(code(bytes) == EREMOTEIO);
    }
    SUBCASE("a hash that is too long") {
        bytes = good;
        bytes[8 + 2 + 1024] = 33;
        CHECK(code(bytes) == EREMOTEIO);
    }
    const auto encodes = [](unsigned version, std::string name, std::string hash) {
        message n;
        n.version = version;
        n.name = std::move(name);
        n.princhash = std::move(hash);
        return encode(n).has_value();
    };
    CHECK(encodes(2, "a", ""));
    CHECK_FALSE(encodes(0, "a", ""));
    CHECK_FALSE(encodes(2, "", ""));
    CHECK_FALSE(encodes(2, std::string(1025, 'x'), ""));
    CHECK_FALSE(encodes(2, "a", std::string(33, 'x')));
}

TEST_CASE("names of the old directory") {
    CHECK(is_legacy_name("hash:0123"));
    CHECK_FALSE(is_legacy_name("hash:")); // the kernel asks for more than the prefix
    CHECK_FALSE(is_legacy_name("Linux NFSv4.2 c1"));
}

TEST_CASE("any bytes: decoded bytes survive the way back, others are refused") {
    std::mt19937 random(1);
    for (int i = 0; i < 20000; i++) {
        const std::size_t sizes[] = {random() % 3000, size_v1, size_v2};
        std::vector<std::uint8_t> bytes(sizes[random() % 3]);
        for (auto& b : bytes)
            b = std::uint8_t(random());
        if (bytes.size() > 12 && random() % 4) { // near misses find more than noise
            bytes[0] = std::uint8_t(1 + random() % 2);
            bytes[1] = std::uint8_t(random() % 7);
            bytes[9] = std::uint8_t(random() % 5);
        }
        fuzz_one(bytes.data(), bytes.size());
    }
}
