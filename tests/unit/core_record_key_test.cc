// SPDX-License-Identifier: GPL-2.0-or-later
// Keys of records: no name of one protocol passes for another's. And what the replicated state does
// with each kind: an NFSv3 client is part of its server's grace, a mount is part of none.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/apply.hh"
#include "grace/fsm.hh"
#include "grace/record_key.hh"
#include "grace/wire.hh"

#include <doctest/doctest.h>

using namespace grace;

namespace {

std::string bytes_of(std::initializer_list<char> c) {
    return {c};
}

state one_server() {
    state s;
    s.view = {incarnation{1}, 1};
    node_state& n = s.nodes[node_id{1}];
    n.member = n.synced = n.attached = true;
    n.life = incarnation{1};
    s.servers["vs1"].host = node_id{1};
    return s;
}
applied say(state& s, any_message m) {
    return apply(s, node_id{1}, {s.view, incarnation{1}, std::move(m)});
}
msg::records records(std::vector<std::string> put, std::vector<std::string> gone = {}) {
    msg::records m;
    for (std::string& key : put)
        m.changes.push_back({false, "vs1", std::move(key), {}});
    for (std::string& key : gone)
        m.changes.push_back({true, "vs1", std::move(key), {}});
    return m;
}

} // namespace

TEST_CASE("a client's own name cannot pass for another protocol's") {
    // What an NFSv4 client may call itself: any bytes.
    const std::vector<std::string> owners = {
        "alice",
        bytes_of({'\0'}),
        bytes_of({'\0', 'l', 'h'}),
        bytes_of({'\0', 'm', 'h', '\0', '/'}),
        bytes_of({'\0', '\0', 'l', 'h'}),
        bytes_of({'\0', '\0'}),
        std::string(max_client_name, '\0'),
        std::string(max_client_name, '\xff'),
    };
    std::set<std::string> keys = {nlm_key("h"), mount_key("h", "/")};
    for (const std::string& owner : owners) {
        const std::string key = nfs4_key(owner);
        CHECK(kind_of(key) == record_kind::nfs4);
        CHECK(client_in(key) == owner);
        CHECK(key.size() <= max_record_key);
        CHECK(keys.insert(key).second);
    }
    CHECK(keys.size() == owners.size() + 2);
    CHECK(nfs4_key("alice") == "alice");

    CHECK(kind_of(nlm_key("10.0.0.1")) == record_kind::nlm);
    CHECK(client_in(nlm_key("10.0.0.1")) == "10.0.0.1");
    const std::string mount = mount_key("fe80::1", "/srv/a:b");
    CHECK(kind_of(mount) == record_kind::mount);
    CHECK(client_in(mount) == "fe80::1");
    CHECK(path_in(mount) == "/srv/a:b");
    CHECK(path_in(nlm_key("h")).empty());
    CHECK(mount_key(std::string(max_host_name, 'h'), "/" + std::string(max_mount_path - 1, 'p')).size() ==
          max_record_key);
}

TEST_CASE("names that can stand in a line and as the name of a file") {
    for (const char* good : {"10.0.0.1", "fe80::1%eth0", "a.example.org", "a_b"})
        CHECK(is_host_name(good));
    for (const std::string& bad :
         {std::string(), std::string("a b"), std::string("a\nb"), std::string("a/b"), std::string(".."),
          std::string("-f"), std::string("a\0b", 3), std::string("\xc3\xa9"), std::string("a\x7f"),
          std::string(max_host_name + 1, 'a')})
        CHECK_FALSE(is_host_name(bad));
    CHECK(is_mount_path("/"));
    CHECK(is_mount_path("/with space/\xc3\xa9"));
    for (const std::string& bad : {std::string(), std::string("srv"), std::string("/a\nb"),
                                   std::string("/a\0b", 4), "/" + std::string(max_mount_path, 'a')})
        CHECK_FALSE(is_mount_path(bad));
}

TEST_CASE("an NFSv3 client: recorded since, whatever it locks later") {
    state s = one_server();
    REQUIRE(say(s, records({nlm_key("h")})).counted);
    const server_state& v = s.servers["vs1"];
    CHECK(has_nlm(v));
    CHECK(since_of(v.records.at(nlm_key("h"))) == epoch{1});
    REQUIRE(say(s, msg::start{"vs1", msg::start_reason::dropped}).counted);
    CHECK(s.recovery == epoch{1});
    CHECK(v.need);
    // It reclaims, and another one comes for the first time: only that one is new in this epoch.
    say(s, records({nlm_key("h"), nlm_key("new")}));
    CHECK(v.records.at(nlm_key("h")).at == epoch{2});
    CHECK(since_of(v.records.at(nlm_key("h"))) == epoch{1});
    CHECK(since_of(v.records.at(nlm_key("new"))) == epoch{2});
    say(s, records({}, {nlm_key("h"), nlm_key("new")}));
    CHECK_FALSE(has_nlm(v));
    CHECK(v.records.empty());
    // Neighbours of the kind's range.
    say(s, records({nfs4_key(bytes_of({'\0', 'l'})), "zed", mount_key("h", "/")}));
    CHECK_FALSE(has_nlm(v));
}

TEST_CASE("a mount is part of no grace") {
    state s = one_server();
    const std::string mount = mount_key("h", "/srv");
    const applied put = say(s, records({mount}));
    const server_state& v = s.servers["vs1"];
    CHECK(v.records.empty());
    CHECK(v.mounts.contains(mount));
    CHECK(std::get<store_op::put_record>(put.ops.at(0)).client == mount);
    // A server that has nothing but mounts has nothing to recover.
    CHECK_FALSE(say(s, msg::start{"vs1", msg::start_reason::dropped}).counted);

    say(s, records({"alice"}));
    REQUIRE(say(s, msg::start{"vs1", msg::start_reason::dropped}).counted);
    CHECK(count_reclaimed(s, v).all == 1);
    REQUIRE(say(s, msg::done{"vs1", v.start, msg::outcome::deadline}).counted);
    REQUIRE(say(s, msg::purge{s.recovery, s.starts}).counted);
    CHECK(v.records.empty());
    CHECK(v.mounts.at(mount).at == epoch{1});
    say(s, records({}, {mount}));
    CHECK(v.mounts.empty());
}

TEST_CASE("a server's mounts have a limit") {
    state s = one_server();
    for (std::size_t i = 0; i < max_mounts; ++i)
        s.servers["vs1"].mounts.put(mount_key("h", "/" + std::to_string(i)), {epoch{1}, ""});
    const applied more = say(s, records({mount_key("h", "/more")}));
    CHECK(more.ops.empty());
    CHECK(s.servers["vs1"].mounts.size() == max_mounts);
    CHECK(say(s, records({mount_key("h", "/0")})).ops.size() == 1); // what is there may change
}

TEST_CASE("snapshots carry all kinds, whatever is in a part") {
    state s = one_server();
    for (int i = 0; i < 7; ++i) {
        const std::string n = std::to_string(i);
        say(s, records({"alice" + n, nlm_key("h" + n), mount_key("h" + n, "/srv")}));
    }
    s.servers["vs0"].mounts.put(mount_key("h", "/a"), {epoch{1}, ""}); // nothing but mounts
    s.servers["vs2"].records.put("bob", {epoch{1}, ""});
    for (std::uint32_t in_part : {1u, 2u, 3u, 5u, 8u, 100u}) {
        wire::snapshot_writer w = wire::write_snapshot(s, in_part);
        wire::snapshot_reader r;
        while (w.next < w.parts)
            REQUIRE(wire::take_part(r, wire::next_part(w)));
        const auto got = wire::finish(r);
        REQUIRE(got);
        CHECK(*got == s);
    }
}
