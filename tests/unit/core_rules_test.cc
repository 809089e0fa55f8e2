// SPDX-License-Identifier: GPL-2.0-or-later
// Rules that correct members never put to the test: messages that are void whoever sends them, the
// words for people, and the questions that are asked of a state.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/apply.hh"
#include "grace/describe.hh"
#include "grace/fsm.hh"
#include "grace/wire.hh"

#include <doctest/doctest.h>

using namespace grace;

namespace {

// Two synced members; vs1 on node 1 with one record.
state two_members() {
    state s;
    s.view = {incarnation{1}, 1};
    for (unsigned i : {1u, 2u}) {
        node_state& n = s.nodes[node_id{i}];
        n.name = "node" + std::to_string(i);
        n.member = n.synced = n.attached = true;
        n.life = incarnation{i};
    }
    s.servers["vs1"].host = node_id{1};
    s.servers["vs1"].records["alice"] = {epoch{1}, ""};
    return s;
}
std::string void_because(state s, unsigned from, any_message m) {
    const state before = s;
    applied a = apply(s, node_id{from}, {s.view, incarnation{from}, std::move(m)});
    CHECK_FALSE(a.counted);
    CHECK(a.ops.empty());
    CHECK(s == before); // void is void: nothing of it stays
    return a.why_void;
}
bool counts(state& s, unsigned from, any_message m) {
    return apply(s, node_id{from}, {s.view, incarnation{from}, std::move(m)}).counted;
}

} // namespace

TEST_CASE("a message counts only under its view and from a member with state") {
    state s = two_members();
    CHECK_FALSE(
        apply(s, node_id{1}, {{incarnation{1}, 0}, incarnation{1}, msg::attached{}}).counted);
    CHECK_FALSE(apply(s, node_id{1}, {s.view, incarnation{9}, msg::attached{}}).counted);
    CHECK_FALSE(apply(s, node_id{7}, {s.view, incarnation{7}, msg::attached{}}).counted);
    s.nodes[node_id{2}].synced = false;
    CHECK(void_because(s, 2, msg::attached{}) == std::string("its sender has no state"));
    s.nodes[node_id{2}].member = false;
    CHECK(void_because(s, 2, msg::hello{}) == std::string("HELLO from outside the membership"));
}

TEST_CASE("a gate that holds nothing back is no E, with its daemon and without") {
    state s = two_members();
    REQUIRE(counts(s, 1, msg::start{"vs1", msg::start_reason::asked}));
    REQUIRE(counts(s, 2, msg::enforcing{s.current}));
    const state enforcing = s;
    CHECK(counts(s, 2, msg::detached{}));
    CHECK_FALSE(s.nodes[node_id{2}].attached);
    CHECK(s.nodes[node_id{2}].enforcing == epoch{});
    for (const node_id which : {node_id{2}, node_id{}}) {
        s = enforcing;
        s.nodes[node_id{1}].enforcing = s.current;
        CHECK(counts(s, 1, msg::bypass{which, true}));
        CHECK_FALSE(s.nodes[node_id{2}].attached);
        CHECK(s.nodes[node_id{2}].enforcing == epoch{});
        CHECK(s.nodes[node_id{1}].attached == bool(which));
    }
    s = enforcing;
    CHECK(counts(s, 1, msg::bypass{node_id{2}, false})); // the node itself says when it is closed
    CHECK(s.nodes == enforcing.nodes);
    CHECK(void_because(s, 1, msg::bypass{node_id{9}, true}) == "no such node");
}

TEST_CASE("snapshots: only to the member whose HELLO they answer") {
    state s = two_members();
    CHECK(void_because(s, 1, msg::snapshot{}) == "a founding snapshot in a founded group");
    CHECK(void_because(s, 1, msg::snapshot{node_id{2}, 1, 0, 1, {}}) == "answers an older HELLO");
    CHECK(counts(s, 2, msg::hello{}));
    s.nodes[node_id{2}].hello = 4;
    CHECK(void_because(s, 1, msg::snapshot{node_id{2}, 3, 0, 1, {}}) == "answers an older HELLO");
    CHECK(counts(s, 1, msg::snapshot{node_id{2}, 4, 0, 2, {}}));
    CHECK_FALSE(s.nodes[node_id{2}].synced); // the last part makes it a member
    CHECK(counts(s, 1, msg::snapshot{node_id{2}, 4, 1, 2, {}}));
    CHECK(s.nodes[node_id{2}].synced);
}

TEST_CASE("START: its limits") {
    state s = two_members();
    CHECK(void_because(s, 1, msg::start{"nobody", msg::start_reason::asked}) == "no such server");
    s.servers["empty"] = {};
    CHECK(void_because(s, 1, msg::start{"empty", msg::start_reason::asked}) ==
          "nothing to recover");
    for (std::size_t i = s.servers.size(); i < max_servers; ++i)
        s.servers["x" + std::to_string(i)] = {};
    CHECK(void_because(s, 1, msg::start{"one more", msg::start_reason::takes}) ==
          "too many servers");
}

TEST_CASE("RELEASED and NODEDOWN") {
    state s = two_members();
    CHECK(void_because(s, 1, msg::released{"nobody"}) == "not its host");
    CHECK(void_because(s, 2, msg::released{"vs1"}) == "not its host");
    CHECK(void_because(s, 1, msg::node_down{node_id{9}, 0}) == "no such node");
    CHECK(void_because(s, 1, msg::node_down{node_id{2}, 0}) == "an older death");
    CHECK(counts(s, 1, msg::released{"vs1"})); // its locks are gone: a START
    CHECK(s.servers["vs1"].need);
    CHECK(in_grace(s));
}

TEST_CASE("ENFORCING, DONE, PURGE, LIFT: each only in its epoch, from the one who may") {
    state s = two_members();
    CHECK(void_because(s, 1, msg::enforcing{epoch{1}}) == "another epoch");
    CHECK(void_because(s, 1, msg::purge{epoch{1}, start_count{0}}) == "another epoch");
    CHECK(void_because(s, 1, msg::lift{epoch{1}, start_count{0}}) == "another epoch");
    CHECK(void_because(s, 1, msg::done{"nobody", start_count{1}}) == "NEEDs no longer");
    CHECK(void_because(s, 1, msg::done{"vs1", start_count{1}}) == "NEEDs no longer");
    REQUIRE(counts(s, 1, msg::start{"vs1", msg::start_reason::asked}));
    CHECK(void_because(s, 1, msg::enforcing{epoch{1}}) == "another epoch");
    CHECK(void_because(s, 1, msg::done{"vs1", start_count{0}}) == "answers an older START");
    CHECK(void_because(s, 2, msg::done{"vs1", start_count{1}}) == "only its host may say so");
    CHECK(void_because(s, 1, msg::purge{epoch{9}, start_count{1}}) == "another epoch");
    CHECK(void_because(s, 1, msg::purge{epoch{1}, start_count{1}}) == "not the last node out");
    REQUIRE(counts(s, 1, msg::done{"vs1", start_count{1}}));
    CHECK(void_because(s, 1, msg::purge{epoch{1}, start_count{0}}) == "a START came between");
    CHECK(void_because(s, 2, msg::purge{epoch{1}, start_count{1}}) == "not the last node out");
    REQUIRE(counts(s, 1, msg::purge{epoch{1}, start_count{1}}));
    CHECK(s.servers["vs1"].records.empty());
    CHECK(void_because(s, 1, msg::purge{epoch{1}, start_count{1}}) == "purged already");
    CHECK(void_because(s, 2, msg::lift{epoch{1}, start_count{1}}) == "not the last node out");
    CHECK(void_because(s, 1, msg::lift{epoch{9}, start_count{1}}) == "another epoch");
    CHECK(void_because(s, 1, msg::lift{epoch{1}, start_count{0}}) == "another epoch");
    REQUIRE(counts(s, 1, msg::durable{s.applied}));
    CHECK(void_because(s, 1, msg::lift{epoch{1}, start_count{1}}) ==
          "a member has not got the purge on its disk");
    REQUIRE(counts(s, 2, msg::durable{s.applied}));
    REQUIRE(counts(s, 1, msg::lift{epoch{1}, start_count{1}}));
    CHECK_FALSE(in_grace(s));
}

TEST_CASE("records: only of servers that the sender hosts") {
    state s = two_members();
    CHECK(counts(s, 2, msg::records{1, {{false, "vs1", "mallory", ""}, {false, "none", "m", ""}}}));
    CHECK(s.servers["vs1"].records.size() == 1);
    CHECK(counts(s, 1, msg::records{1, {{false, "vs1", "bob", ""}, {true, "vs1", "alice", ""}}}));
    CHECK(s.servers["vs1"].records.contains("bob"));
    CHECK_FALSE(s.servers["vs1"].records.contains("alice"));
}

TEST_CASE("words: one line for each input, effect and message, none is the same as another") {
    const ticket t{7};
    const node_id one{1}, two{2};
    const std::vector<any_input> inputs{
        input::deliver{one, {1, 2, 3}},
        input::confchg{
            {one},
            {one},
            {{two, input::left_reason::node}, {node_id{3}, input::left_reason::process}}},
        input::ring{4},
        input::quorum{true, 4, {{one, 1}}, 3},
        input::quorum{false, 4, {}, 3},
        input::dlm_members{true, {one}},
        input::dlm_members{false, {}},
        input::locks_known{lock_mode::cw, true},
        input::locks_known{lock_mode::nl, false},
        input::lock_granted{lock_resource::grace, {}, lock_mode::ex, true, lvb_bytes{}},
        input::lock_granted{lock_resource::alive, two, lock_mode::pr, false, {}},
        input::lock_refused{lock_resource::grace, {}, -35},
        input::lock_cancelled{lock_resource::grace, {}},
        input::locks_lost{},
        input::durable{position{3}},
        input::store_failed{"disk full"},
        input::store_opened{},
        input::kernel_attached{1, epoch{2}, 3},
        input::kernel_acked{4},
        input::kernel_refused{4, -16, "busy"},
        input::kernel_tripped{1},
        input::kernel_closed{},
        input::kernel_lost{"unloaded"},
        input::create{"vs1", "a b\\", "", t},
        input::remove{"vs1", "a", t},
        input::check{"vs1", "a", t},
        input::grace_start{"vs1", t},
        input::grace_done{"vs1", t},
        input::instance_known{"vs1", true, false, true, start_count{1}},
        input::nfsd_ended{"vs1"},
        input::instance_gone{"vs1"},
        input::serve{"vs1", t},
        input::stop{"vs1", t},
        input::released{"vs1", t},
        input::start{"", t},
        input::lift{"vs1", t},
        input::extend{"vs1", seconds(60), t},
        input::hold{true, t},
        input::hold{false, t},
        input::fence_news{two, t},
        input::bypass{two, true, t},
        input::bypass{{}, false, t},
        input::wait{phase::normal, t},
        input::forget{t},
        input::tick{}};
    const lvb_bytes value = wire::encode_lock_value({epoch{2}, epoch{1}, epoch{1}});
    const std::vector<any_effect> effects{
        effect::close_gate{epoch{2}, 1},
        effect::persist{{store_op::put_record{"vs1", "a", {epoch{1}, ""}},
                         store_op::remove_record{"vs1", "a"}, store_op::lower{"vs1", epoch{1}},
                         store_op::renew{"vs1", epoch{2}}, store_op::purge{"vs1", epoch{1}},
                         store_op::replace_all{{{"vs1", {{"a", {}}}}}}, store_op::put_meta{}},
                        position{1}},
        effect::persist{{}, position{2}},
        effect::send{{}},
        effect::query_dlm_members{},
        effect::convert{lock_resource::grace, {}, lock_mode::cw, false, {}},
        effect::convert{lock_resource::grace, {}, lock_mode::pr, true, value},
        effect::cancel{lock_resource::alive, two},
        effect::set_reclaim{"vs1", epoch{2}, true, 1},
        effect::set_reclaim{"vs1", epoch{2}, false, 1},
        effect::extend_permit{seconds(1)},
        effect::open_gate{epoch{2}, 0, 1},
        effect::end_nfsd_grace{"vs1"},
        effect::set_bypass{true},
        effect::set_bypass{false},
        effect::leave_group{},
        effect::join_group{},
        effect::answer_upcall{t, upcall_status::ok},
        effect::answer_upcall{t, upcall_status::refused},
        effect::answer_upcall{t, upcall_status::failed},
        effect::answer_upcall{t, upcall_status::unsupported},
        effect::answer_grace_start{t, {{"a", ""}, {"b", ""}}},
        effect::fence{two, "why"},
        effect::tell{news_level::info, "news"}};
    std::set<std::string> seen;
    std::set<std::size_t> kinds;
    for (const any_input& i : inputs) {
        CHECK_MESSAGE(seen.insert(describe(i)).second, describe(i));
        kinds.insert(i.index());
    }
    CHECK(kinds.size() == std::variant_size_v<any_input>);
    seen.clear();
    kinds.clear();
    for (const any_effect& e : effects) {
        CHECK_MESSAGE(seen.insert(describe(e)).second, describe(e));
        kinds.insert(e.index());
    }
    for (int s = 0; s <= int(request_status::timeout); ++s) {
        any_effect e = effect::answer_request{t, request_status(s), s ? "detail" : ""};
        CHECK(seen.insert(describe(e)).second);
        kinds.insert(e.index());
    }
    CHECK(kinds.size() == std::variant_size_v<any_effect>);
    CHECK(describe(inputs[23]) == "create vs1/a\\x20b\\x5c (ticket 7)");
    CHECK(describe(effects[6]) == "lock grace to PR, value C 2, R 1, purged 1");
    std::set<std::string> words;
    for (auto g : {gate_state::closed, gate_state::reclaim, gate_state::open})
        CHECK(words.insert(to_string(g)).second);
    for (auto o : {msg::outcome::reclaimed, msg::outcome::deadline, msg::outcome::lifted,
                   msg::outcome::orphan, msg::outcome::intact})
        CHECK(words.insert(to_string(o)).second);
    CHECK(describe(msg::lift_request{"vs1", {}}) == "LIFT-REQUEST(vs1)");
    CHECK(describe(msg::extend_request{"vs1", {}, seconds(60)}) == "EXTEND-REQUEST(vs1, 60 s)");
    CHECK(describe(msg::attached{}) == "ATTACHED");
    CHECK(describe(msg::detached{}) == "DETACHED");
    CHECK(describe(msg::bypass{{}, true}) == "BYPASS(all, on)");
    CHECK(describe(msg::bypass{node_id{2}, false}) == "BYPASS(node 2, off)");
    CHECK(describe(msg::snapshot{node_id{2}, 1, 0, 3, {}}) == "SNAPSHOT(node 2, part 1/3)");
}

TEST_CASE("bytes that are no message of this version are named, and ignored") {
    parameters p;
    p.self = node_id{1};
    p.life = incarnation{1};
    fsm f(p, {});
    f.step(seconds(1), input::deliver{node_id{2}, {1, 2, 3}});
    const output o = f.take_output();
    REQUIRE(o.size() == 1);
    CHECK(std::get<effect::tell>(o.front()).level == news_level::error);
}

TEST_CASE("upcalls with names beyond their limits fail at once") {
    parameters p;
    p.self = node_id{1};
    p.life = incarnation{1};
    fsm f(p, {});
    for (const input::create& c : {input::create{"vs1", "", "", ticket{1}},
                                   input::create{"vs1", std::string(1025, 'x'), "", ticket{1}},
                                   input::create{"vs1", "a", std::string(33, 'h'), ticket{1}}}) {
        f.step(seconds(1), c);
        const output o = f.take_output();
        REQUIRE(o.size() == 1);
        CHECK(std::get<effect::answer_upcall>(o.front()).status == upcall_status::failed);
    }
}

TEST_CASE("a snapshot that is damaged, or not asked for, is no state") {
    parameters p;
    p.self = node_id{2};
    p.name = "node2";
    p.life = incarnation{2};
    fsm f(p, {});
    auto from = [&](unsigned sender, any_message m) {
        f.step(seconds(1), input::deliver{node_id{sender},
                                          wire::encode({{}, incarnation{sender}, std::move(m)})});
    };
    f.step(seconds(1), input::confchg{{node_id{1}, node_id{2}}, {node_id{2}}, {}});
    from(1, msg::snapshot{node_id{2}, 1, 0, 1, {1}}); // before its HELLO came back
    CHECK_FALSE(f.synced());
    msg::hello mine;
    mine.number = 1;
    from(2, mine);
    from(1, msg::snapshot{node_id{2}, 9, 0, 1, {1}}); // answers another HELLO
    from(1, msg::snapshot{{}, 1, 0, 1, {1}});         // a founding by one who has not said HELLO
    from(1, msg::snapshot{node_id{2}, 1, 1, 2, {1}}); // the second part without the first
    from(1, msg::snapshot{node_id{3}, 1, 0, 1, {1}}); // for somebody else
    f.take_output();
    from(1, msg::snapshot{node_id{2}, 1, 0, 1, {1, 2, 3, 4, 5}});
    CHECK_FALSE(f.synced());
    bool hello = false; // it asks for another one
    for (const any_effect& e : f.take_output())
        if (const auto* s = std::get_if<effect::send>(&e))
            hello |= std::holds_alternative<msg::hello>(wire::decode(s->message)->body);
    CHECK(hello);

    // In two parts, with a record that came between; the state is good.
    mine.number = 2;
    from(2, mine);
    state s = two_members();
    s.nodes[node_id{2}].synced = false;
    s.nodes[node_id{2}].hello = 2;
    s.servers["vs1"].records["carol"] = {epoch{1}, ""};
    wire::snapshot_writer parts = wire::write_snapshot(s, 1);
    REQUIRE(parts.parts == 2);
    const envelope more{s.view, incarnation{1}, msg::records{1, {{false, "vs1", "bob", ""}}}};
    f.step(seconds(1), input::deliver{node_id{1}, wire::encode(more)});
    for (const auto& part : {msg::snapshot{node_id{2}, 2, 0, 2, wire::next_part(parts)},
                             msg::snapshot{node_id{2}, 2, 1, 2, wire::next_part(parts)}})
        f.step(seconds(1),
               input::deliver{node_id{1}, wire::encode({s.view, incarnation{1}, part})});
    CHECK(f.synced());
    CHECK(f.replicated().servers.at("vs1").records.contains("bob"));
}

// Bad scenario: a server without clients was started, and every database that knows of it is lost.
// Its nfsd runs on, gets clients, and the group is founded once more: they are asked to reclaim
// what they have not lost, and purged.
TEST_CASE("founding: a server whose nfsd was told a START that no database knows keeps its state") {
    state s;
    s.current = epoch{2};
    s.servers["vs1"] = {};
    founding f{node_id{1}, {}};
    f.hellos[node_id{1}] = {incarnation{1}, {}};
    f.hellos.at(node_id{1}).second.running = {{"vs1", start_count{5}}, {"unknown", start_count{7}}};
    REQUIRE(found(s, f).counted);
    CHECK(s.starts == start_count{7}); // none is given twice
    CHECK(s.servers["vs1"].host == node_id{1});
    CHECK(standing_of(s.servers["vs1"], start_count{5}) == standing::intact);
    s.servers["vs1"].records.put("alice", {s.current, {}});
    REQUIRE(found(s, f).counted);
    CHECK(s.servers["vs1"].need);
    CHECK(standing_of(s.servers["vs1"], start_count{5}) == standing::intact);
}
