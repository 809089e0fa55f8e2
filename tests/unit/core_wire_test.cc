// SPDX-License-Identifier: GPL-2.0-or-later
// The codec: what goes in comes out; every shortened or damaged message yields nothing.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/wire.hh"

#include "libgrace/src/codec.hh"

#include <doctest/doctest.h>

using namespace grace;

namespace {
std::vector<any_message> examples() {
    return {
        msg::hello{3,
                   "node1",
                   17,
                   true,
                   milliseconds(900),
                   true,
                   8,
                   7,
                   epoch{5},
                   position{99},
                   start_count{6},
                   0xfedcba98,
                   {{"vs1", start_count{4}}, {"vs2", start_count{6}}}},
        msg::snapshot{node_id{2}, 3, 1, 4, {1, 2, 3}},
        msg::start{"vs1", msg::start_reason::takes},
        msg::released{"vs1"},
        msg::node_down{node_id{3}, 2},
        msg::attached{},
        msg::enforcing{epoch{6}},
        msg::done{"vs1", start_count{4}, msg::outcome::intact},
        msg::purge{epoch{5}, start_count{4}},
        msg::lift{epoch{5}, start_count{4}},
        msg::lift_request{"vs1", start_count{4}},
        msg::extend_request{"vs1", start_count{4}, seconds(60)},
        msg::records{
            1,
            {{false, "vs1", std::string("a\0b", 3), std::string(32, 'h')}, {true, "vs1", "c", ""}}},
        msg::durable{position{100}},
        msg::heartbeat{5, {{node_id{2}, 77}}},
        msg::barrier{9},
        msg::detached{},
        msg::bypass{node_id{2}, true},
        msg::view_stored{},
    };
}
} // namespace

TEST_CASE("every message survives the wire") {
    for (const any_message& m : examples()) {
        envelope e{{incarnation{0xfedcba9876543210}, 12}, incarnation{42}, m};
        auto back = wire::decode(wire::encode(e));
        REQUIRE_MESSAGE(back, describe(m));
        CHECK_MESSAGE(*back == e, describe(m));
    }
    CHECK(examples().size() == std::variant_size_v<any_message>);
}

// Bad scenario: sums with them overflow, and a permit lasts for ever.
TEST_CASE("times that no clock has are refused") {
    for (std::int64_t t : {std::int64_t{-1}, std::int64_t{1} << 61})
        for (const any_message& m : {any_message(msg::heartbeat{t, {}}),
                                     any_message(msg::heartbeat{1, {{node_id{2}, t}}})})
            CHECK_FALSE(wire::decode(wire::encode({{}, incarnation{1}, m})));
}

TEST_CASE("a snapshot of a state that no member could have is refused") {
    state s;
    CHECK(wire::decode_state(wire::encode_state(s)));
    s.recovery = s.current; // R is below C
    CHECK_FALSE(wire::decode_state(wire::encode_state(s)));
    s.recovery = {};
    s.servers["vs1"].need = true; // out of grace
    CHECK_FALSE(wire::decode_state(wire::encode_state(s)));
}

// Such a snapshot would end each daemon that adopts it, after every restart anew.
TEST_CASE(
    "a snapshot is refused that breaks an invariant, or whose numbers are about to run over") {
    const auto good = [](const state& s) {
        return wire::decode_state(wire::encode_state(s)).has_value();
    };
    state s;
    s.current = epoch{3};
    s.recovery = epoch{2};
    s.starts = start_count{2};
    server_state& v = s.servers["vs1"];
    v.need = true;
    v.start = start_count{2};
    v.settled = start_count{1};
    CHECK(good(s)); // reclaiming
    v.lost = start_count{3};
    CHECK_FALSE(good(s)); // by a START that never was
    v.lost = {};
    v.settled = v.start;
    CHECK_FALSE(good(s)); // NEEDs, and is settled
    v.settled = start_count{1};
    s.lifting = true;
    CHECK_FALSE(good(s)); // with a NEED
    v.need = false;
    v.needed = true;
    CHECK_FALSE(good(s)); // purged, and not settled
    s.lifting = false;
    CHECK(good(s)); // done
    v.needed = false;
    CHECK_FALSE(good(s)); // NEEDs not, and is not settled
    v.settled = v.start;
    s.lifting = true;
    CHECK(good(s)); // lifting
    s.starts = start_count{1};
    CHECK_FALSE(good(s)); // fewer STARTs than its last one's number
    s.starts = start_count{2};
    s.recovery = {};
    CHECK_FALSE(good(s)); // out of grace
    s = {};
    s.current = {};
    CHECK_FALSE(good(s));
    constexpr std::uint64_t huge = std::uint64_t{1} << 62;
    for (int which = 0; which < 4; ++which) {
        s = {};
        (which == 0   ? s.current.value
         : which == 1 ? s.applied.value
         : which == 2 ? s.starts.value
                      : s.view.number) = huge;
        CHECK_FALSE(good(s));
    }
}

TEST_CASE("what is of another kind or version is refused, though it is whole") {
    const auto message = wire::encode({{}, incarnation{1}, msg::attached{}});
    for (std::size_t at : {std::size_t{0}, std::size_t{4}, std::size_t{6}}) { // magic, version, tag
        auto other = message;
        other[at] = static_cast<std::uint8_t>(other[at] + 100);
        CHECK_FALSE(wire::decode(other));
    }
    for (std::size_t at : {std::size_t{0}, std::size_t{4}}) {
        auto other = wire::encode_state({});
        other.resize(other.size() - 4);
        other[at] = static_cast<std::uint8_t>(other[at] + 100);
        wire::writer sum;
        sum.put(wire::checksum(other));
        other.insert(other.end(), sum.out.begin(), sum.out.end());
        CHECK_FALSE(wire::decode_state(other));
    }
    for (std::size_t n = 0; n < 4; ++n)
        CHECK_FALSE(wire::decode_state(std::vector<std::uint8_t>(n, 0)));
}

TEST_CASE("no prefix of a message is a message, and no message with a tail") {
    for (const any_message& m : examples()) {
        auto bytes = wire::encode({{incarnation{1}, 1}, incarnation{2}, m});
        for (std::size_t n = 0; n < bytes.size(); ++n)
            CHECK_FALSE(wire::decode(std::span(bytes).first(n)));
        bytes.push_back(0);
        CHECK_FALSE(wire::decode(bytes));
    }
}

TEST_CASE("limits: names that are empty or too long, counts that lie") {
    auto refused = [](any_message m) {
        return !wire::decode(wire::encode({{}, {}, std::move(m)}));
    };
    CHECK(refused(msg::start{"", msg::start_reason::asked}));
    CHECK(refused(msg::start{std::string(65, 'x'), msg::start_reason::asked}));
    CHECK_FALSE(refused(msg::start{std::string(64, 'x'), msg::start_reason::asked}));
    CHECK(refused(msg::records{1, {{false, "vs1", "", ""}}}));
    CHECK(refused(msg::records{1, {{false, "vs1", std::string(max_record_key + 1, 'x'), ""}}}));
    CHECK(refused(msg::records{1, {{false, "vs1", "c", std::string(33, 'x')}}}));
    CHECK(refused(msg::snapshot{node_id{1}, 1, 2, 2, {}}));
    CHECK(refused(msg::snapshot{node_id{1}, 1, 0, 0, {}}));
    CHECK(refused(msg::records{1, std::vector<msg::record_change>(513, {false, "v", "c", ""})}));
}

TEST_CASE("a snapshot survives, and a flipped bit anywhere is noticed") {
    state s;
    s.view = {incarnation{1}, 5};
    s.current = epoch{8};
    s.recovery = epoch{7};
    s.starts = start_count{3};
    s.nodes[node_id{1}] = {"node1", true, true, true,     false,       incarnation{9},
                           17,      2,    1,    epoch{8}, position{3}, 5};
    s.servers["vs1"] = {node_id{1},
                        true,
                        true,
                        start_count{3},
                        start_count{2},
                        start_count{1},
                        {{"c1", {epoch{7}, "p"}}, {"c2", {epoch{8}, ""}}},
                        {}};
    auto bytes = wire::encode_state(s);
    auto back = wire::decode_state(bytes);
    REQUIRE(back);
    CHECK(*back == s);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        auto bad = bytes;
        bad[i] ^= 0x10;
        CHECK_FALSE(wire::decode_state(bad));
    }
}

TEST_CASE("a difference survives in parts; one that lies is refused") {
    state s;
    s.current = epoch{5};
    s.starts = start_count{1};
    s.applied = position{30};
    s.history = 77;
    s.servers["vs1"] = {{},
                        false,
                        false,
                        start_count{1},
                        {},
                        start_count{1},
                        {{"alice", {epoch{5}, ""}}, {"bob", {epoch{4}, "p"}}},
                        {}};
    const auto since = [](store_batch ops) {
        return wire::difference{position{20}, 66, std::move(ops)};
    };
    const auto read = [](wire::snapshot_writer w, wire::snapshot_reader& r) {
        while (w.next < w.parts)
            if (!wire::take_part(r, wire::next_part(w)))
                return std::optional<state>{};
        return wire::finish(r);
    };
    const store_batch all = {store_op::put_record{"vs1", "bob", {epoch{4}, "p"}},
                             store_op::remove_record{"vs1", "carol"},
                             store_op::lower{"vs1", epoch{4}}, store_op::renew{"vs1", epoch{5}},
                             store_op::purge{"vs1", epoch{3}}};
    for (std::uint32_t in_part : {1u, 2u, 512u}) {
        wire::snapshot_reader r;
        auto back = read(wire::write_difference(s, since(all), in_part), r);
        REQUIRE(back);
        CHECK(r.is_difference);
        CHECK(r.records == 2);
        CHECK(r.since.applied == position{20});
        CHECK(r.since.history == 66);
        CHECK(r.since.ops.size() == all.size());
        CHECK(back->servers.at("vs1").records.empty());
        CHECK(back->history == 77);
        // What it does to the records of who has the same past.
        back->servers.at("vs1").records = {{"alice", {epoch{3}, ""}}, {"carol", {epoch{4}, ""}}};
        for (const auto& op : r.since.ops)
            redo(*back, op);
        CHECK(back->servers.at("vs1").records ==
              record_map{{"alice", {epoch{5}, ""}}, {"bob", {epoch{5}, "p"}}});
    }
    wire::snapshot_reader nothing;
    CHECK(read(wire::write_difference(s, since({})), nothing));
    for (const store_operation& bad : {store_operation{store_op::lower{"vs9", epoch{4}}},
                                       {store_op::renew{"vs1", epoch{6}}},
                                       {store_op::put_record{"vs1", "bob", {epoch{6}, ""}}},
                                       {store_op::remove_record{"vs1", ""}},
                                       {store_op::replace_all{}},
                                       {store_op::put_meta{}}}) {
        wire::snapshot_reader r;
        CHECK_FALSE(read(wire::write_difference(s, since({bad})), r));
    }
    // One part is missing, one comes twice.
    wire::snapshot_writer w = wire::write_difference(s, since(all), 3);
    REQUIRE(w.parts == 2);
    const auto first = wire::next_part(w), second = wire::next_part(w);
    wire::snapshot_reader half, more;
    CHECK(wire::take_part(half, first));
    CHECK_FALSE(wire::finish(half));
    CHECK(wire::take_part(more, first));
    CHECK(wire::take_part(more, second));
    CHECK_FALSE(wire::take_part(more, second));
}

TEST_CASE("the lock value block: empty, damaged, good") {
    lock_value v{epoch{5}, epoch{4}, epoch{3}};
    auto b = wire::encode_lock_value(v);
    CHECK(wire::decode_lock_value(b) == v);
    CHECK_FALSE(wire::decode_lock_value(lvb_bytes{}));
    b[9] ^= 1;
    CHECK_FALSE(wire::decode_lock_value(b));
}
