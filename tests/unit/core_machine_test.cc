// SPDX-License-Identifier: GPL-2.0-or-later
// One machine, and inputs in an order that a cluster rarely gives: answers that come late, twice or
// never, requests at the wrong moment, peers whose messages cross.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "core_bench.hh"

#include <doctest/doctest.h>

using namespace grace;

namespace {

// A bench that ends with a look at whether its machine ever did a thing twice.
struct machine_test : bench {
    using bench::bench;
    ~machine_test() {
        CHECK_MESSAGE(restless.empty(), (restless.empty() ? std::string() : restless.front()));
    }
    const server_state& server(const std::string& name) const {
        return machine.replicated().servers.at(name);
    }
    reclaim_state reclaim(const std::string& name) const {
        return machine.instances().at(name).reclaim;
    }
    // With a client on record.
    void node2_hosts_vs2() {
        from(2, msg::start{"vs2", msg::start_reason::takes});
        from(2, msg::records{1, {{false, "vs2", "bob", ""}}});
    }
    // Its nfsd ended and came back; reclaim is open for it.
    void drop(const std::string& name) {
        step(input::nfsd_ended{name});
        settle();
    }
    // Of three nodes, of which this is 1. Locks are not granted meanwhile.
    void node2_dies() {
        group({node_id{1}, node_id{3}}, {}, {{node_id{2}, input::left_reason::node}});
        step(input::ring{++ring});
        quorum({1, 3}, 3);
        while (deliver() || durable() || acknowledge()) {
        }
    }
    std::size_t asked_for_alive2(lock_mode m) const {
        const auto asked = all<effect::convert>();
        return std::size_t(std::ranges::count_if(asked, [&](const effect::convert& c) {
            return c.resource == lock_resource::alive && c.node == node_id{2} && c.mode == m;
        }));
    }
    // A group with node 2, which has said this much of itself.
    void meet(msg::hello h) {
        step(input::locks_known{lock_mode::nl, false});
        group({node_id{1}, node_id{2}}, {node_id{1}, node_id{2}});
        step(input::ring{++ring});
        quorum({1, 2}, 2);
        h.number = 1;
        step(input::deliver{node_id{2}, wire::encode({{}, incarnation{2}, h})});
        settle();
    }
    void lose_quorum() { quorum({machine.params().self.value}, 3, false); }
};

parameters without_gate() {
    parameters p = bench::one();
    p.kernel_expected = false;
    return p;
}

// What node 1 has, which node 2 has joined and not got yet.
state of_node_1_and_joiner_2() {
    state s;
    s.view = {incarnation{1}, 1};
    for (unsigned i : {1u, 2u}) {
        s.nodes[node_id{i}].member = true;
        s.nodes[node_id{i}].life = incarnation{i};
    }
    s.nodes[node_id{1}].synced = true;
    return s;
}

} // namespace

TEST_CASE("a machine by itself opens its gate when its heartbeat has come back") {
    machine_test b;
    b.boot();
    while (b.deliver() && b.sent<msg::heartbeat>().empty())
        b.durable();
    while (b.acknowledge() || b.durable() || b.grant()) {
    }
    CHECK_FALSE(b.machine.gate().open);
    CHECK(b.blocked_by("no other member has echoed a heartbeat lately"));
    b.settle();
    CHECK(b.machine.gate().open);
    CHECK(b.machine.blocked_by().empty());
}

// Bad scenario: a peer that is mad echoes a heartbeat of next year, and the gate stays open for
// ever.
TEST_CASE("an echo of what was never sent makes no permit") {
    machine_test b;
    b.boot_with({2});
    b.echo(2);
    b.settle();
    CHECK(b.machine.gate().open);
    b.forget();
    b.from(2, msg::heartbeat{b.now, {{node_id{1}, b.now + seconds(1000)}}});
    CHECK(b.all<effect::extend_permit>().empty());
}

TEST_CASE("a gate that is attached late is told to the others once") {
    machine_test b;
    b.step(input::locks_known{lock_mode::nl, false});
    b.group({node_id{1}}, {node_id{1}});
    b.step(input::ring{++b.ring});
    b.quorum({1}, 1);
    b.settle();
    CHECK(b.sent<msg::attached>().empty());
    CHECK(b.blocked_by("gate is not attached"));
    b.step(input::kernel_attached{1, epoch{1}, 0});
    b.step(input::tick{});
    CHECK(b.sent<msg::attached>().size() == 1);
    b.settle();
    CHECK(b.machine.replicated().nodes.at(node_id{1}).attached);
    CHECK(b.machine.gate().open);
}

TEST_CASE("a node without GFS2 has no gate: it enforces and reclaims at once") {
    machine_test b(without_gate());
    b.boot();
    b.settle();
    CHECK(b.machine.blocked_by().empty());
    b.host("vs1", {"alice"});
    b.drop("vs1");
    CHECK(b.sent<msg::enforcing>().size() == 1);
    CHECK(b.all<effect::close_gate>().empty());
    CHECK(b.reclaim("vs1") == reclaim_state::on);
    b.step(input::lift{"vs1", ticket{1}});
    b.settle();
    CHECK_FALSE(in_grace(b.machine.replicated()));
    CHECK(b.all<effect::open_gate>().empty());
}

// --- the kernel ---

TEST_CASE("a kernel that refuses to open reclaim is asked again after a while, not at once") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.step(input::nfsd_ended{"vs1"});
    while (b.all<effect::set_reclaim>().empty())
        if (!b.deliver() && !b.durable() && !b.grant() && !b.acknowledge())
            break;
    REQUIRE(b.all<effect::set_reclaim>().size() == 1);
    b.orders.clear();
    b.step(input::kernel_refused{b.all<effect::set_reclaim>()[0].order, -16, "busy"});
    CHECK(b.reclaim("vs1") == reclaim_state::off);
    b.settle();
    CHECK(b.all<effect::set_reclaim>().size() == 1);
    CHECK(b.machine.deadline() == b.now + milliseconds(200));
    b.tick(milliseconds(200));
    CHECK(b.all<effect::set_reclaim>().size() == 2);
    b.settle();
    CHECK(b.reclaim("vs1") == reclaim_state::on);
    // What is refused but was not the last order of that server changes nothing for it.
    b.step(input::kernel_refused{1, -16, "late"});
    CHECK(b.reclaim("vs1") == reclaim_state::on);
}

TEST_CASE("a kernel that is gone reclaims for nobody; when it is back all of it is ordered anew") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.drop("vs1");
    REQUIRE(b.reclaim("vs1") == reclaim_state::on);
    b.step(input::kernel_lost{"the module was unloaded"});
    CHECK(b.reclaim("vs1") == reclaim_state::off);
    b.settle();
    CHECK(b.reclaim("vs1") == reclaim_state::off);
    CHECK(b.blocked_by("gate is not attached"));
    b.orders.clear();
    b.step(input::kernel_attached{1, epoch{1}, 0});
    b.settle();
    CHECK(b.reclaim("vs1") == reclaim_state::on);
}

TEST_CASE("E is withdrawn when the gate holds nothing back any more, and said again when it does") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.drop("vs1");
    const auto& self = b.machine.replicated().nodes.at(node_id{1});
    REQUIRE(self.enforcing == b.machine.replicated().current);
    for (int round = 0; round < 2; ++round) {
        b.forget();
        b.step(input::kernel_lost{"a hook is gone"});
        CHECK(b.sent<msg::detached>().size() == 1);
        b.settle();
        CHECK(self.enforcing == epoch{});
        CHECK_FALSE(self.attached);
        CHECK(b.machine.current_phase() == phase::entering);
        CHECK(b.sent<msg::detached>().size() == 1);
        b.orders.clear();
        b.step(input::kernel_attached{1, b.machine.replicated().current, 0});
        b.settle();
        CHECK(self.attached);
        CHECK(self.enforcing == b.machine.replicated().current);
        CHECK(b.machine.current_phase() == phase::reclaiming);
    }
}

TEST_CASE("the bypass of all or of one goes through the group; who is not there is named") {
    machine_test b;
    b.boot_with({2, 3});
    b.settle();
    b.group({node_id{1}, node_id{2}}, {}, {{node_id{3}, input::left_reason::process}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2, 3}, 3);
    b.settle();
    b.forget();
    b.step(input::bypass{{}, true, ticket{1}});
    CHECK(b.all<effect::set_bypass>().empty()); // not before it is agreed
    b.settle();
    REQUIRE(b.all<effect::set_bypass>().size() == 1);
    CHECK(b.all<effect::set_bypass>()[0].on);
    CHECK(b.answer().status == request_status::done);
    CHECK(b.answer().detail.find("node3") != std::string::npos);
    for (const auto& [id, n] : b.machine.replicated().nodes)
        CHECK_FALSE(n.attached);

    b.forget();
    b.step(input::bypass{node_id{2}, false, ticket{2}});
    b.settle();
    CHECK(b.all<effect::set_bypass>().empty());
    CHECK(b.answer().detail.empty());
    b.forget();
    b.step(input::bypass{node_id{9}, true, ticket{3}});
    CHECK(b.answer().status == request_status::no_such_node);
}

TEST_CASE(
    "dlm_controld's members count where they were asked for; without its group nothing is lost") {
    machine_test b;
    b.boot_with({2});
    b.echo(2);
    b.settle();
    b.step(input::dlm_members{true, {node_id{1}}}); // nobody asked
    CHECK(b.sent<msg::start>().empty());
    b.step(input::kernel_tripped{1});
    b.settle();
    b.step(input::dlm_members{false, {}});
    CHECK(b.machine.gate().accounted == 1);
    CHECK(b.sent<msg::start>().empty());
}

// Bad scenario: the host of a server, without a daemon, goes and boots again. Node 1, whose affair
// it is, hears late who left; the others open their gates.
TEST_CASE("the death of a node without daemon is told by whoever saw it out of the ring") {
    parameters p = bench::one();
    p.self = node_id{3};
    machine_test b(p);
    b.boot_with({1, 2});
    b.group({node_id{1}, node_id{3}}, {}, {{node_id{2}, input::left_reason::process}});
    b.settle();
    b.forget();
    const auto ring = [&](const std::vector<unsigned>& nodes, std::set<node_id> left = {}) {
        b.step(input::ring{++b.ring});
        input::quorum q{true, b.ring, {}, 3, std::move(left)};
        for (unsigned n : nodes)
            q.votes[node_id{n}] = 1;
        b.step(q);
    };
    SUBCASE("with the state") {
        ring({1, 3});
        CHECK(b.sent<msg::node_down>().empty());
    }
    SUBCASE("without: it has given up its state, and gets it from node 1, which knows nothing") {
        msg::hello h;
        h.number = 77;
        const envelope hello{{}, b.machine.params().life, h};
        state s = b.machine.replicated();
        apply(s, node_id{3}, hello);
        b.step(input::deliver{node_id{3}, wire::encode(hello)});
        ring({1, 3}, {node_id{2}});
        CHECK_FALSE(b.machine.synced());
        b.step(input::deliver{node_id{1}, wire::encode({s.view, incarnation{1},
                                                        msg::snapshot{node_id{3}, 77, 0, 1,
                                                                      wire::encode_state(s)}})});
        CHECK(b.machine.synced());
        b.forget();
    }
    ring({1, 2, 3});
    REQUIRE(b.sent<msg::node_down>().size() == 1);
    CHECK(b.sent<msg::node_down>()[0].node == node_id{2});
}

// Bad scenario: the node has booted, the START for that is on its way with its HELLO, and the
// server runs again. One that says the same once more would have its clients purged.
TEST_CASE("a node that was out of the ring and is a member again: its HELLO is waited for") {
    parameters p = bench::one();
    p.self = node_id{3};
    machine_test b(p);
    b.boot_with({1, 2});
    b.node2_hosts_vs2();
    b.group({node_id{1}, node_id{3}}, {}, {{node_id{2}, input::left_reason::process}});
    b.settle();
    for (const std::vector<unsigned>& nodes : {std::vector{1u, 3u}, std::vector{1u, 2u, 3u}}) {
        b.step(input::ring{++b.ring});
        b.quorum(nodes, 3);
    }
    b.group({node_id{1}, node_id{2}, node_id{3}}, {node_id{2}});
    b.settle();
    CHECK(b.sent<msg::start>().empty());
    msg::hello h; // of the same boot, and its nfsd runs
    h.number = 2;
    h.running["vs2"] = b.server("vs2").start;
    b.step(input::deliver{node_id{2}, wire::encode({{}, incarnation{2}, h})});
    CHECK(b.sent<msg::start>().size() == 1);
}

TEST_CASE("a member that has left the DLM: a START for what it hosts, and for nothing else") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {"alice"});
    b.node2_hosts_vs2();
    b.settle();
    b.forget();
    b.step(input::kernel_tripped{1});
    b.settle();
    b.step(input::dlm_members{true, {node_id{1}}});
    REQUIRE(b.sent<msg::start>().size() == 1);
    CHECK(b.sent<msg::start>()[0].server == "vs2");
    b.settle();
    CHECK(b.server("vs2").need);
    CHECK_FALSE(b.server("vs1").need);
}

// --- locks ---

// Bad scenario: a daemon dies after it asked for EX. Its successor, which needs another mode, would
// ask for that on top: the keeper has one request at a time, and the queued EX blocks the others.
TEST_CASE("what a former daemon asked the DLM for is its successor's request") {
    machine_test b;
    b.step(input::kernel_attached{1, epoch{1}, 0});
    b.step(input::locks_known{lock_mode::nl, true, lock_mode::ex});
    b.group({node_id{1}}, {node_id{1}});
    b.step(input::ring{++b.ring});
    b.quorum({1}, 1);
    b.settle();
    CHECK(b.all<effect::convert>().empty());
    REQUIRE(b.all<effect::cancel>().size() == 1);
    b.step(input::lock_cancelled{lock_resource::grace, {}});
    REQUIRE(b.all<effect::convert>().size() == 1);
    CHECK(b.all<effect::convert>()[0].mode == lock_mode::pr);
    b.settle();
    CHECK(b.machine.gate().open);
}

TEST_CASE("alive: a proof that comes after it was cancelled proves nothing; a cancelled request is "
          "made again") {
    machine_test b;
    b.boot_with({2, 3});
    b.host("vs1", {});
    b.node2_hosts_vs2();
    b.settle();
    b.node2_dies();
    REQUIRE(b.asked_for_alive2(lock_mode::pr) == 1);
    // Node 2 boots: the request is cancelled, and the grant comes all the same.
    b.forget();
    b.quorum({1, 2, 3}, 3);
    REQUIRE(b.all<effect::cancel>().size() == 1);
    CHECK(b.all<effect::cancel>()[0].node == node_id{2});
    b.step(input::lock_granted{lock_resource::alive, node_id{2}, lock_mode::pr, false, {}});
    CHECK_FALSE(b.machine.fencing_proven(node_id{2}));
    CHECK(b.asked_for_alive2(lock_mode::pr) == 0);

    // Its own alive lock: a cancel or a refusal leaves it wanted.
    machine_test c;
    c.boot();
    REQUIRE(c.converts.size() == 1);
    c.converts.clear();
    c.step(input::lock_cancelled{lock_resource::alive, node_id{1}});
    CHECK(c.converts.size() == 1);
    c.settle();
    CHECK(c.machine.locks().alive);
}

// Bad scenario: a node comes back unfenced and dies again while the frozen lockspace answers
// nothing. A second request beside the first, whose cancel is under way, gets a PR that nobody
// gives back: the node, fenced and booted, waits for its EX for ever.
TEST_CASE(
    "alive: a node that dies again is asked for when the last request is answered, not before") {
    for (const bool granted : {false, true}) {
        CAPTURE(granted);
        machine_test b;
        b.boot_with({2, 3});
        b.host("vs1", {});
        b.node2_hosts_vs2();
        b.settle();
        b.node2_dies();
        REQUIRE(b.asked_for_alive2(lock_mode::pr) == 1);
        b.quorum({1, 2, 3}, 3);
        REQUIRE(b.all<effect::cancel>().size() == 1);
        b.forget();
        b.node2_dies();
        CHECK(b.asked_for_alive2(lock_mode::pr) == 0);
        if (granted) {
            b.step(input::lock_granted{lock_resource::alive, node_id{2}, lock_mode::pr, false, {}});
            CHECK_FALSE(b.machine.fencing_proven(node_id{2}));
            CHECK(b.asked_for_alive2(lock_mode::nl) == 1);
            CHECK(b.asked_for_alive2(lock_mode::pr) == 0);
            b.step(input::lock_granted{lock_resource::alive, node_id{2}, lock_mode::nl, false, {}});
        } else {
            b.step(input::lock_cancelled{lock_resource::alive, node_id{2}});
        }
        CHECK(b.asked_for_alive2(lock_mode::pr) == 1);
        b.step(input::lock_granted{lock_resource::alive, node_id{2}, lock_mode::pr, false, {}});
        CHECK(b.machine.fencing_proven(node_id{2}));
    }
}

TEST_CASE(
    "a value block that is older than the state, or heard of without a state, changes nothing") {
    machine_test b;
    const auto value = [](std::uint64_t c) {
        return wire::encode_lock_value({epoch{c}, epoch{}, epoch{}});
    };
    b.step(input::lock_granted{lock_resource::grace, {}, lock_mode::nl, true, value(9)});
    CHECK_FALSE(b.told("gives up its state"));
    b.open();
    b.step(input::lock_granted{lock_resource::grace, {}, lock_mode::pr, true, value(1)});
    CHECK(b.machine.synced());
    b.step(input::lock_granted{lock_resource::grace, {}, lock_mode::pr, true, value(9)});
    CHECK_FALSE(b.machine.synced());
    CHECK_FALSE(b.machine.gate().open);
}

// --- the stream ---

// Bad scenario: a damaged snapshot made it ask again, and a good one for its first HELLO came
// meanwhile: everyone counts it as a node without state from the second HELLO on.
TEST_CASE("a HELLO that is delivered to a node with a state takes the state away") {
    machine_test b(bench::numbered(2));
    b.group({node_id{1}, node_id{2}}, {node_id{2}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2}, 2);
    const std::uint64_t first = b.sent<msg::hello>().back().number;
    b.deliver(); // the first HELLO
    const auto snapshot = [&](std::uint64_t hello, bytes data) {
        b.step(input::deliver{
            node_id{1}, wire::encode({{incarnation{1}, 1},
                                      incarnation{1},
                                      msg::snapshot{node_id{2}, hello, 0, 1, std::move(data)}})});
    };
    snapshot(first, {1, 2, 3, 4, 5});
    CHECK(b.sent<msg::hello>().size() == 2);
    state s = of_node_1_and_joiner_2();
    s.nodes[node_id{2}].hello = first;
    snapshot(first, wire::encode_state(s));
    REQUIRE(b.machine.synced());
    REQUIRE(b.deliver()); // the second
    CHECK_FALSE(b.machine.synced());
    CHECK(b.told("its own HELLO was delivered"));
    s.nodes[node_id{2}].hello = first + 1;
    snapshot(first + 1, wire::encode_state(s));
    CHECK(b.machine.synced());
}

// Bad scenario: it would keep records that the others do not have.
TEST_CASE("a difference to what this node does not have is not taken: it asks for all") {
    machine_test b(bench::numbered(2));
    b.group({node_id{1}, node_id{2}}, {node_id{2}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2}, 2);
    b.deliver(); // its HELLO
    state s = of_node_1_and_joiner_2();
    const auto answer = [&](wire::snapshot_writer w) {
        const std::uint64_t hello = b.sent<msg::hello>().back().number;
        b.step(input::deliver{node_id{1}, wire::encode({s.view, incarnation{1},
                                                        msg::snapshot{node_id{2}, hello, 0, 1,
                                                                      wire::next_part(w)}})});
    };
    s.nodes[node_id{2}].hello = b.sent<msg::hello>().back().number;
    answer(wire::write_difference(s, {position{9}, 5, {}}));
    CHECK_FALSE(b.machine.synced());
    CHECK(b.told("is not to what this node has"));
    REQUIRE(b.sent<msg::hello>().size() == 2);
    CHECK(b.sent<msg::hello>().back().history == 0);
    b.deliver();
    s.nodes[node_id{2}].hello = b.sent<msg::hello>().back().number;
    answer(wire::write_snapshot(s));
    CHECK(b.machine.synced());
}

TEST_CASE("what waits for a snapshot is bounded: beyond that the joiner asks anew") {
    machine_test b(bench::numbered(2));
    b.group({node_id{1}, node_id{2}}, {node_id{2}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2}, 2);
    b.deliver();
    b.forget();
    const msg::records many{1, std::vector<msg::record_change>(
                                   512, {false, "vs1", std::string(max_client_name, 'x'), ""})};
    const bytes m = wire::encode({{incarnation{1}, 1}, incarnation{1}, many});
    int n = 0;
    for (; n < 200 && b.sent<msg::hello>().empty(); ++n)
        b.step(input::deliver{node_id{1}, m});
    CHECK(n > 50);
    CHECK(b.sent<msg::hello>().size() == 1);
    CHECK(b.told("more news came than can be kept"));
}

// Bad scenario: a node alone has the state for many views, quorate by nodes on which graced does
// not run, and power fails; the others found a group and record clients. Its database must not rank
// before theirs.
TEST_CASE(
    "a view is stored as quorate, and counts for DURABLE, when more than half have its number") {
    machine_test b;
    b.boot_with({2, 3});
    const auto stored = [&] {
        return std::get<store_op::put_meta>(b.all<effect::persist>().back().batch.back()).meta;
    };
    const std::uint64_t before = b.machine.replicated().view.number;
    CHECK(stored().view == before);
    CHECK(stored().quorate_view == before);

    b.group({node_id{1}}, {},
            {{node_id{2}, input::left_reason::process}, {node_id{3}, input::left_reason::process}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2, 3}, 3);
    b.forget();
    b.settle();
    CHECK(b.sent<msg::view_stored>().size() == 1);
    CHECK(b.sent<msg::durable>().empty());
    b.group({node_id{1}, node_id{2}}, {node_id{2}});
    b.settle();
    CHECK(stored().view == before + 2);
    CHECK(stored().quorate_view == before);
    b.hello(2, 2);
    b.settle();
    CHECK(b.sent<msg::durable>().empty());
    b.from(2, msg::view_stored{});
    CHECK(stored().quorate_view == before + 2);
    CHECK(b.sent<msg::durable>().empty()); // not on disk yet
    b.settle();
    CHECK(b.sent<msg::durable>().size() == 1);
}

TEST_CASE("a group is founded with a higher view than any of its databases knows") {
    machine_test b;
    msg::hello h;
    h.view = 17;
    h.permit_ttl = seconds(2);
    b.meet(h);
    CHECK(b.machine.synced());
    CHECK(b.machine.replicated().view.number == 18);
}

TEST_CASE("founding: only when every member has spoken, and only by one who has") {
    machine_test b;
    b.step(input::locks_known{lock_mode::nl, false});
    b.group({node_id{1}, node_id{2}, node_id{3}}, {node_id{1}, node_id{2}, node_id{3}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2, 3}, 3);
    b.settle();
    b.hello(2);
    b.settle();
    CHECK(b.sent<msg::snapshot>().empty()); // node 3 has not spoken: it may have the state
    const bytes all = wire::encode_state({});
    for (unsigned from : {2u, 3u})
        b.step(input::deliver{
            node_id{from}, wire::encode({{}, incarnation{from}, msg::snapshot{{}, 1, 0, 1, all}})});
    CHECK_FALSE(b.machine.synced());
    b.hello(3);
    b.settle();
    CHECK(b.machine.synced());
}

// Bad scenario: the founder adopts what it has founded, its own second HELLO comes behind, and it
// is without state again; it has no HELLO of this node any more, and this one waits for it to
// found.
TEST_CASE("founding: whoever waits for the founder says HELLO again") {
    machine_test b;
    msg::hello h;
    h.quorate_view = 17;
    b.meet(h);
    REQUIRE_FALSE(b.machine.synced()); // node 2 is the one to found
    b.forget();
    b.tick(seconds(4));
    CHECK(b.sent<msg::hello>().empty());
    b.tick(seconds(4));
    CHECK(b.sent<msg::hello>().size() == 1);
    b.forget();
    b.quorum({1}, 2, false); // nobody founds there: no need to ask
    b.tick(seconds(20));
    CHECK(b.sent<msg::hello>().empty());
}

TEST_CASE(
    "records: what was on its way when the membership changed is sent again, and answered once") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {"alice"});
    b.from(2, msg::durable{b.machine.replicated().applied});
    b.settle();
    b.forget();
    b.step(input::create{"vs1", "bob", "", ticket{7}});
    REQUIRE(b.sent<msg::records>().size() == 1);
    b.said.clear(); // lost with the old membership
    b.group({node_id{1}}, {}, {{node_id{2}, input::left_reason::process}});
    b.step(input::ring{++b.ring});
    b.quorum({1}, 1);
    CHECK(b.sent<msg::records>().size() == 2);
    b.settle();
    REQUIRE(b.all<effect::answer_upcall>().size() == 1);
    CHECK(b.all<effect::answer_upcall>()[0].status == upcall_status::ok);
    // The batch before, delivered late: nobody waits for it any more.
    b.step(input::deliver{node_id{1}, wire::encode({b.machine.replicated().view, incarnation{1},
                                                    msg::records{1, {}}})});
    CHECK(b.all<effect::answer_upcall>().size() == 1);
}

// Bad scenario: nfsd ends while a mount is being recorded; who reads rmtab waits for the answer
// before it looks again, and no mount is known from then on.
TEST_CASE("records: what others than nfsd asked for is answered when nfsd ends") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.forget();
    b.step(input::create{"vs1", mount_key("192.0.2.5", "/srv"), encode_mount_count(1), ticket{7}});
    b.step(input::create{"vs1", "bob", "", ticket{8}});
    b.step(input::nfsd_ended{"vs1"});
    REQUIRE(b.all<effect::answer_upcall>().size() == 1);
    CHECK(b.all<effect::answer_upcall>()[0].id == ticket{7});
    CHECK(b.all<effect::answer_upcall>()[0].status == upcall_status::failed);
}

TEST_CASE("records: those that gather go in one message, of a bounded size") {
    machine_test b;
    b.open();
    b.host("vs1", {});
    b.forget();
    for (unsigned i = 0; i < 700; ++i)
        b.step(input::create{"vs1", "c" + std::to_string(i), "", ticket{i}});
    b.settle();
    std::vector<std::size_t> sizes;
    for (const auto& m : b.sent<msg::records>())
        sizes.push_back(m.changes.size());
    CHECK(sizes == std::vector<std::size_t>{1, 512, 187});
    CHECK(b.all<effect::answer_upcall>().size() == 700);
    CHECK(b.server("vs1").records.size() == 700);
}

TEST_CASE("records: of a server that moved away meanwhile they fail; without quorum they wait") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {});
    b.forget();
    b.step(input::create{"vs1", "bob", "", ticket{7}});
    b.from(1, msg::released{"vs1"}); // ordered before it
    b.settle();
    b.from(2, msg::durable{b.machine.replicated().applied});
    b.settle();
    REQUIRE(b.all<effect::answer_upcall>().size() == 1);
    CHECK(b.all<effect::answer_upcall>()[0].status == upcall_status::failed);
    b.forget();
    b.quorum({1}, 3, false);
    b.step(input::create{"vs1", "carol", "", ticket{8}});
    b.settle();
    CHECK(b.all<effect::answer_upcall>().empty());
}

// --- nfsd ---

TEST_CASE("check: admitted only while reclaim is open, from the records of that server") {
    machine_test b;
    const auto status = [&](const char* server, const char* client) {
        b.forget();
        b.step(input::check{server, client, ticket{1}});
        b.settle();
        return b.all<effect::answer_upcall>().at(0).status;
    };
    b.step(input::check{"vs1", "alice", ticket{1}}); // no state: nobody knows yet
    b.settle();
    CHECK(b.all<effect::answer_upcall>().empty());
    b.open();
    CHECK(b.all<effect::answer_upcall>().at(0).status == upcall_status::refused); // not hosted here
    b.host("vs1", {"alice"});
    CHECK(status("vs9", "alice") == upcall_status::refused); // no such server
    CHECK(status("vs1", "alice") == upcall_status::refused); // no grace
    b.drop("vs1");
    CHECK(status("vs1", "mallory") == upcall_status::refused);
    CHECK(status("vs1", "alice") == upcall_status::ok);
}

// A refusal costs a client all of its locks.
TEST_CASE("check: who is on record waits until it is known whether it may reclaim") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.forget();
    b.step(input::nfsd_ended{"vs1"});
    b.step(input::check{"vs1", "alice", ticket{1}}); // before START is delivered
    b.deliver();
    CHECK(b.server("vs1").need);
    CHECK(b.all<effect::answer_upcall>().empty()); // not every node enforces
    b.settle();
    REQUIRE(b.all<effect::answer_upcall>().size() == 1);
    CHECK(b.all<effect::answer_upcall>()[0].status == upcall_status::ok);

    b.forget();
    b.lose_quorum();
    b.step(input::check{"vs1", "alice", ticket{2}});
    b.settle();
    CHECK(b.all<effect::answer_upcall>().empty());
    b.step(input::instance_gone{"vs1"});
    b.quorum({1}, 1);
    b.settle();
    CHECK(b.all<effect::answer_upcall>().at(0).status == upcall_status::refused);
}

// Bad scenario: a client that was purged is refused, goes on as a new one, is expired, and
// reclaims.
TEST_CASE("check: a record of this grace lets in only whom a Check has let in before") {
    machine_test b;
    const auto status = [&](const char* client, bool again = false) {
        b.forget();
        b.step(input::check{"vs1", client, ticket{1}, again});
        b.settle();
        return b.all<effect::answer_upcall>().at(0).status;
    };
    b.open();
    b.host("vs1", {"alice", "bob"});
    b.drop("vs1");
    CHECK(status("mallory") == upcall_status::refused);
    b.step(input::create{"vs1", "mallory", {}, ticket{2}});
    b.settle();
    CHECK(b.server("vs1").records.contains("mallory"));
    CHECK(status("mallory") == upcall_status::refused);
    CHECK(status("alice") == upcall_status::ok);
    CHECK(status("alice") == upcall_status::ok); // another file, on another thread
    // Admitted by a daemon that was killed before it could tell nfsd.
    b.step(input::create{"vs1", "bob", {}, ticket{3}});
    b.settle();
    CHECK(status("bob") == upcall_status::refused);
    CHECK(status("bob", true) == upcall_status::ok);
}

TEST_CASE("GraceDone: ends the reclaim that it is about, and no other") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.step(input::grace_done{"vs9", ticket{1}});
    b.step(input::grace_done{"vs1", ticket{2}}); // out of grace
    b.settle();
    CHECK(b.sent<msg::done>().empty());
    CHECK_FALSE(in_grace(b.machine.replicated()));
    b.drop("vs1");
    b.step(input::grace_done{"vs1", ticket{3}}); // of the nfsd before: this one has not asked
    b.settle();
    CHECK(b.server("vs1").need);
    b.step(input::grace_start{"vs1", ticket{4}});
    b.settle();
    b.forget();
    b.step(input::grace_done{"vs1", ticket{5}});
    b.step(input::grace_done{"vs1", ticket{6}});
    CHECK(b.reclaim("vs1") == reclaim_state::closing);
    b.settle();
    CHECK(b.sent<msg::done>().size() == 1);
    CHECK_FALSE(in_grace(b.machine.replicated()));
}

// Bad scenario: the daemon is killed with a GraceDone unanswered. Its successor is asked before it
// has opened reclaim, and waits for the deadline then, though nobody can reclaim any more.
TEST_CASE("GraceDone before reclaim is open counts when it is") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice", "bob"});
    b.drop("vs1");
    b.step(input::grace_start{"vs1", ticket{1}});
    b.settle();
    b.step(input::create{"vs1", "alice", {}, ticket{2}});
    b.settle();
    b.lose_quorum();
    b.step(input::grace_done{"vs1", ticket{3}});
    b.quorum({1}, 1);
    b.forget();
    b.settle();
    CHECK(b.sent<msg::done>().size() == 1);
    CHECK_FALSE(in_grace(b.machine.replicated()));
    CHECK(b.server("vs1").records.contains("alice"));
    CHECK_FALSE(b.server("vs1").records.contains("bob"));
}

// Its nfsd has crashed once more, so quickly that nobody missed the pipe. Whoever had reclaimed has
// lost its locks a second time.
TEST_CASE("GraceStart in the midst of a reclaim is a START; one without quorum gives up") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice", "bob"});
    b.drop("vs1");
    b.step(input::grace_start{"vs1", ticket{1}});
    b.step(input::create{"vs1", "alice", "", ticket{2}});
    b.settle();
    b.forget();
    b.step(input::grace_start{"vs1", ticket{3}});
    CHECK(b.all<effect::answer_grace_start>().empty());
    b.settle();
    CHECK(b.sent<msg::start>().size() == 1);
    REQUIRE(b.all<effect::answer_grace_start>().size() == 1);
    CHECK(b.all<effect::answer_grace_start>()[0].clients.size() == 2);

    machine_test c; // nobody has founded anything
    c.step(input::grace_start{"vs1", ticket{1}});
    CHECK(c.all<effect::answer_grace_start>().empty());
    c.tick(seconds(20));
    REQUIRE(c.all<effect::answer_grace_start>().size() == 1);
    CHECK(c.all<effect::answer_grace_start>()[0].clients.empty());
    CHECK(c.told("no client may reclaim"));
}

// Bad scenario: its nfsd crashes once more near the end of the grace, reclaim stays open, and the
// clients of the new one, who have lost their locks again, are purged a moment later.
TEST_CASE("a START in the midst of a reclaim: its clients have a whole grace period") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice", "bob"});
    b.drop("vs1");
    b.step(input::grace_start{"vs1", ticket{1}});
    b.settle();
    REQUIRE(b.reclaim("vs1") == reclaim_state::on);
    const instant opened = b.now;
    const duration period = b.machine.params().grace_period;
    b.tick(period - seconds(1));
    b.settle();
    b.step(input::grace_start{"vs1", ticket{2}});
    b.settle();
    b.forget();
    b.tick(opened + period + seconds(1) - b.now);
    b.settle();
    CHECK(b.server("vs1").need);
    b.step(input::create{"vs1", "alice", "", ticket{3}});
    b.settle();
    CHECK(b.server("vs1").need);
    b.tick(2 * period);
    b.settle();
    CHECK(b.sent<msg::done>().size() == 1);
    CHECK(b.server("vs1").records.contains("alice"));
    CHECK_FALSE(b.server("vs1").records.contains("bob"));
}

// Bad scenario: its answer named no START. After a restart of the daemon it passes for an nfsd that
// has lost everything, and its clients are purged, who hold their locks.
TEST_CASE("an nfsd that was told nothing has what its clients are given since there is a state") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.lose_quorum();
    b.step(input::grace_start{"vs1", ticket{1}});
    b.tick(seconds(20));
    REQUIRE(b.all<effect::answer_grace_start>().back().clients.empty());
    CHECK_FALSE(b.machine.instances().at("vs1").answered);
    b.group({node_id{1}}); // it says HELLO anew, and that vs1 runs
    b.quorum({1}, 1);
    b.settle();
    REQUIRE(b.machine.synced());
    REQUIRE(b.server("vs1").need);
    CHECK(b.machine.instances().at("vs1").answered >= b.server("vs1").lost);
    b.step(input::lift{"vs1", ticket{2}});
    b.settle();
    REQUIRE_FALSE(in_grace(b.machine.replicated()));
    CHECK(standing_of(b.server("vs1"), b.machine.instances().at("vs1").answered) ==
          standing::intact);
}

TEST_CASE(
    "an nfsd by hand for a server that another node hosts: void, and nobody may reclaim here") {
    machine_test b;
    b.boot_with({2});
    b.node2_hosts_vs2();
    b.settle();
    b.forget();
    b.step(input::grace_start{"vs2", ticket{1}});
    REQUIRE(b.sent<msg::start>().size() == 1);
    CHECK(b.sent<msg::start>()[0].why == msg::start_reason::takes);
    b.settle();
    CHECK(b.server("vs2").host == node_id{2});
    CHECK_FALSE(in_grace(b.machine.replicated()));
    CHECK(b.all<effect::answer_grace_start>().empty());
    b.tick(seconds(20));
    REQUIRE(b.all<effect::answer_grace_start>().size() == 1);
    CHECK(b.all<effect::answer_grace_start>()[0].clients.empty());
    CHECK(b.sent<msg::start>().size() == 1); // said once
}

TEST_CASE("an nfsd that ends: nothing is owed for a server that is unknown, elsewhere, or STARTed "
          "since") {
    machine_test b;
    b.boot_with({2});
    b.settle();
    b.step(input::instance_known{"vs9", true, false, true, start_count{1}});
    b.step(input::instance_known{"vs9", true, false, true, start_count{1}});
    b.step(input::nfsd_ended{"vs9"});
    CHECK(b.sent<msg::start>().empty());
    b.host("vs1", {"alice"});
    b.from(2, msg::durable{b.machine.replicated().applied});
    b.settle();
    b.forget();
    b.from(1, msg::released{"vs1"});
    b.step(input::nfsd_ended{"vs1"});
    CHECK(b.sent<msg::start>().empty());
}

// --- requests ---

// Bad scenario: a node that was paused hears its START before it hears that the others go on
// without it. They have clients on record, and its nfsd would be told that nobody may reclaim.
TEST_CASE("serve: a server without clients, too, not before all have its START on disk") {
    machine_test b;
    b.boot_with({2});
    b.settle();
    b.durable_at_peers();
    b.forget();
    b.step(input::serve{"vs1", ticket{1}});
    b.step(input::grace_start{"vs1", ticket{2}});
    b.settle();
    CHECK(b.server("vs1").host == node_id{1});
    CHECK(b.all<effect::answer_request>().empty());
    CHECK(b.all<effect::answer_grace_start>().empty());
    b.durable_at_peers();
    CHECK(b.answer().status == request_status::done);
    CHECK(b.all<effect::answer_grace_start>().size() == 1);
}

TEST_CASE("serve: beyond the number of servers there may be") {
    machine_test b;
    b.open();
    for (std::size_t i = 0; i < max_servers; ++i)
        b.from(1, msg::start{"x" + std::to_string(i), msg::start_reason::takes});
    b.forget();
    b.step(input::serve{"one more", ticket{1}});
    b.settle();
    CHECK(b.answer().status == request_status::void_now);
    CHECK(b.answer().detail.find("servers already") != std::string::npos);
}

TEST_CASE("stop: refused where it cannot be done, and then the server stays as it was") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {"alice"});
    b.from(2, msg::start{"vs2", msg::start_reason::takes});
    b.forget();
    b.step(input::stop{"vs2", ticket{1}});
    CHECK(b.answer().status == request_status::not_hosted);
    b.lose_quorum();
    b.forget();
    b.step(input::stop{"vs1", ticket{2}});
    CHECK(b.machine.instances().at("vs1").stopping);
    b.tick(seconds(11));
    CHECK(b.answer().status == request_status::not_quorate);
    CHECK_FALSE(b.machine.instances().at("vs1").stopping);
}

TEST_CASE("stop: the last record goes while its START is on its way: a grace all the same") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.forget();
    b.step(input::remove{"vs1", "alice", ticket{1}});
    b.step(input::stop{"vs1", ticket{2}});
    CHECK(b.all<effect::answer_request>().empty());
    b.settle();
    CHECK(b.answer().status == request_status::done);
    CHECK(in_grace(b.machine.replicated()));
    b.step(input::released{"vs1", ticket{3}});
    b.settle();
    CHECK_FALSE(in_grace(b.machine.replicated()));
}

TEST_CASE("released: said once, though the node is served again while it cannot act") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {});
    b.forget();
    b.step(input::released{"vs1", ticket{3}});
    b.step(input::serve{"vs1", ticket{4}});
    CHECK(b.sent<msg::released>().size() == 1);
    ++b.ring; // quorum's news of a ring that the group has not named yet
    b.quorum({1, 2}, 2);
    b.settle();
    CHECK(b.all<effect::answer_request>().empty());
    CHECK(b.server("vs1").host == node_id{1});
    b.step(input::ring{b.ring});
    b.settle();
    b.durable_at_peers();
    const auto answers = b.all<effect::answer_request>();
    REQUIRE(answers.size() == 2);
    CHECK(answers[0].status == request_status::done);
    CHECK(answers[1].status == request_status::done);
    CHECK(b.sent<msg::released>().size() == 1);
    CHECK(b.server("vs1").host == node_id{1});
}

TEST_CASE("released: no reclaim opens before it has come back, though the server is served again") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.step(input::stop{"vs1", ticket{3}});
    b.settle();
    REQUIRE(b.machine.locks().held == lock_mode::cw);
    b.step(input::released{"vs1", ticket{4}});
    b.step(input::serve{"vs1", ticket{5}});
    while (b.durable() || b.acknowledge() || b.grant()) {
    }
    CHECK(b.reclaim("vs1") == reclaim_state::off);
    b.settle();
    CHECK(b.reclaim("vs1") == reclaim_state::on);
}

TEST_CASE("start: all servers with records; what NEEDs already keeps its START") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.host("vs2", {"bob"});
    b.host("empty", {});
    b.drop("vs2");
    const start_count before = b.server("vs2").start;
    b.forget();
    b.step(input::start{"", ticket{1}});
    CHECK(b.answer().status == request_status::done);
    CHECK(b.answer().detail == "2 servers");
    REQUIRE(b.sent<msg::start>().size() == 1);
    CHECK(b.sent<msg::start>()[0].server == "vs1");
    b.forget();
    b.step(input::start{"vs2", ticket{2}});
    b.settle();
    CHECK(b.answer().detail == "server vs2 NEEDs already");
    CHECK(b.server("vs2").start == before);
}

TEST_CASE("lift: one server of two, and the grace goes on; while it is being lifted there is "
          "nothing to lift") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.host("vs2", {"bob"});
    b.step(input::nfsd_ended{"vs1"});
    b.step(input::nfsd_ended{"vs2"});
    b.settle();
    b.forget();
    b.step(input::lift{"vs1", ticket{1}});
    b.settle();
    CHECK(b.answer().status == request_status::done);
    CHECK_FALSE(b.server("vs1").need);
    CHECK(b.server("vs2").need);
    b.forget();
    b.step(input::lift{"vs2", ticket{2}});
    while (b.deliver() || b.acknowledge() || b.grant()) { // its disk does nothing
    }
    CHECK(b.answer().status == request_status::done);
    b.forget();
    b.step(input::lift{"", ticket{3}});
    CHECK(b.answer().status == request_status::void_now);
    CHECK(b.answer().detail == "no such server NEEDs: the grace is being lifted");
}

TEST_CASE("a lift that asks about another START, or another node's server, is nobody's") {
    machine_test b;
    b.boot_with({2});
    b.host("vs1", {"alice"});
    b.node2_hosts_vs2();
    b.from(2, msg::start{"vs2", msg::start_reason::asked});
    b.drop("vs1");
    b.forget();
    const start_count start = b.server("vs1").start;
    b.from(2, msg::lift_request{"vs9", start});
    b.from(2, msg::lift_request{"vs2", b.server("vs2").start});
    b.from(2, msg::lift_request{"vs1", start_count{start.value + 1}});
    b.settle();
    CHECK(b.sent<msg::done>().empty());
    b.from(2, msg::lift_request{"vs1", start});
    b.settle();
    CHECK(b.sent<msg::done>().size() == 1);
    b.from(2, msg::lift_request{"vs1", start}); // NEEDs no longer
    b.settle();
    CHECK(b.sent<msg::done>().size() == 1);
}

TEST_CASE("extend: an operator gives a server's clients more time, up to an hour for each START") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.forget();
    b.step(input::extend{"vs1", seconds(60), ticket{1}});
    CHECK(b.answer().status == request_status::void_now);
    CHECK(b.answer().detail == "there is no grace: nothing has a deadline");
    b.forget();
    b.step(input::extend{"vs9", seconds(60), ticket{2}});
    CHECK(b.answer().status == request_status::no_such_server);

    b.drop("vs1");
    b.forget();
    b.step(input::extend{"vs1", seconds(60), ticket{3}}); // before its nfsd is back
    CHECK(b.all<effect::answer_request>().empty());
    b.settle();
    CHECK(b.answer().status == request_status::done);
    b.step(input::grace_start{"vs1", ticket{4}});
    b.settle();
    REQUIRE(b.reclaim("vs1") == reclaim_state::on);
    const instant opened = b.now;
    const duration period = b.machine.params().grace_period;
    CHECK(b.machine.deadline_of("vs1") == opened + period + seconds(60));
    b.tick(period + seconds(59));
    b.settle();
    CHECK(b.server("vs1").need);
    const start_count start = b.server("vs1").start;
    b.from(1, msg::extend_request{"vs1", start_count{start.value + 1}, seconds(60)}); // of another START
    b.from(1, msg::extend_request{"vs9", start, seconds(60)});
    CHECK(b.machine.deadline_of("vs1") == opened + period + seconds(60));
    b.from(1, msg::extend_request{"vs1", start, msg::max_extension});
    CHECK(b.machine.deadline_of("vs1") == opened + period + msg::max_extension);
    b.tick(msg::max_extension - seconds(60));
    b.settle();
    CHECK(b.server("vs1").need);
    b.tick(seconds(2));
    b.settle();
    CHECK_FALSE(b.machine.replicated().recovery);
    CHECK(b.machine.deadline_of("vs1") == 0);
    CHECK_FALSE(b.server("vs1").records.contains("alice"));
}

TEST_CASE("extend: what is asked about a START that another followed is not given to that one") {
    machine_test b;
    b.open();
    b.host("vs1", {"alice"});
    b.drop("vs1");
    b.forget();
    b.step(input::extend{"", seconds(60), ticket{1}});
    b.from(1, msg::start{"vs1", msg::start_reason::dropped}); // before that comes back
    CHECK(b.answer().status == request_status::void_now);
    b.settle();
    b.step(input::grace_start{"vs1", ticket{2}});
    b.settle();
    CHECK(b.machine.deadline_of("vs1") == b.now + b.machine.params().grace_period);
}

TEST_CASE("enforce: an operator keeps the gate closed, in normal and after a grace") {
    machine_test b;
    b.step(input::hold{true, ticket{1}});
    CHECK(b.answer().status == request_status::void_now); // nothing that could hold locks back
    CHECK_FALSE(b.machine.held());
    b.open();
    b.host("vs1", {"alice"});
    REQUIRE(b.machine.gate().open);
    b.forget();
    b.step(input::hold{true, ticket{2}});
    CHECK(b.all<effect::close_gate>().size() == 1);
    CHECK(b.all<effect::answer_request>().empty()); // the kernel has not closed it yet
    b.settle();
    CHECK(b.answer().status == request_status::done);
    CHECK_FALSE(b.machine.gate().open);
    CHECK(b.machine.locks().held == lock_mode::pr); // it says nothing about the others
    CHECK(b.blocked_by("an operator holds this node's gate closed: gracectl noenforce ends it"));

    b.from(1, msg::start{"vs1", msg::start_reason::asked}); // a grace that is over at once
    REQUIRE(b.machine.replicated().recovery);
    b.settle();
    CHECK_FALSE(b.machine.replicated().recovery);
    CHECK_FALSE(b.machine.gate().open);

    b.forget();
    b.step(input::hold{false, ticket{3}});
    b.settle();
    CHECK(b.answer().status == request_status::done);
    b.tick(milliseconds(500)); // a permit anew
    b.settle();
    CHECK(b.machine.gate().open);
    CHECK_FALSE(b.blocked_by("an operator"));
}

TEST_CASE("enforce: who is overtaken by noenforce is told so") {
    machine_test b;
    b.open();
    b.forget();
    b.step(input::hold{true, ticket{1}});
    b.step(input::hold{false, ticket{2}});
    b.settle();
    const auto answers = b.all<effect::answer_request>();
    REQUIRE(answers.size() == 2);
    CHECK(answers[0].status == request_status::void_now);
    CHECK(answers[1].status == request_status::done);
    CHECK(b.machine.gate().open);
}

TEST_CASE("fence news: of a node without clients there is none; of one with clients, once") {
    machine_test b;
    b.boot_with({2});
    b.from(2, msg::start{"empty", msg::start_reason::takes});
    b.step(input::fence_news{node_id{2}, ticket{1}});
    CHECK(b.answer().status == request_status::done);
    b.node2_hosts_vs2();
    b.settle();
    b.forget();
    b.step(input::fence_news{node_id{2}, ticket{2}});
    b.step(input::fence_news{node_id{2}, ticket{3}});
    CHECK(b.sent<msg::start>().size() == 1);
    CHECK(b.all<effect::answer_request>().empty());
    b.settle();
    CHECK(b.all<effect::answer_request>().size() == 2); // all but the fenced one enforce
}

// Bad scenario: an alert says that a node is lost which lives. It answers at once that it has lost
// nothing; said again each time, that was a storm of STARTs, and one epoch used up after the other.
TEST_CASE("fence news: of a node that lives: it is asked once, and over when all have enforced") {
    machine_test b;
    b.boot_with({2});
    b.node2_hosts_vs2();
    b.settle();
    b.forget();
    b.step(input::fence_news{node_id{2}, ticket{1}});
    b.deliver();
    REQUIRE(b.server("vs2").need);
    // Before this node enforces.
    b.from(2, msg::done{"vs2", b.server("vs2").start, msg::outcome::intact});
    CHECK(b.all<effect::answer_request>().empty());
    b.settle();
    REQUIRE(b.all<effect::answer_request>().size() == 1);
    CHECK(b.answer().status == request_status::done);
    CHECK(b.sent<msg::start>().size() == 1);
}

TEST_CASE("wait: for a phase that comes, and for a state first") {
    machine_test b;
    b.step(input::wait{phase::normal, ticket{1}});
    CHECK(b.all<effect::answer_request>().empty()); // it has no state
    b.open();
    CHECK(b.answer().status == request_status::done);
    b.forget();
    b.step(input::wait{phase::reclaiming, ticket{2}});
    b.host("vs1", {"alice"});
    b.forget();
    b.drop("vs1");
    CHECK(b.answer().id == ticket{2});
}

// --- why not ---

TEST_CASE("status names who is missing, who is dead and who is last") {
    parameters p = bench::one();
    p.nodes_without_gfs2 = {node_id{4}};
    machine_test b(p);
    b.boot_with({2, 3, 4, 5});
    b.from(5, msg::start{"vs5", msg::start_reason::takes});
    b.from(5, msg::records{1, {{false, "vs5", "bob", ""}}});
    b.settle();
    b.group({node_id{1}}, {},
            {{node_id{2}, input::left_reason::process},
             {node_id{3}, input::left_reason::process},
             {node_id{4}, input::left_reason::node},
             {node_id{5}, input::left_reason::node}});
    b.step(input::ring{++b.ring});
    b.quorum({1, 2, 3}, 5);
    b.settle();
    CHECK(b.blocked_by("start it on node2, node3"));
    CHECK_FALSE(b.blocked_by("node node4")); // it has no GFS2: its death needs no proof
    CHECK(b.machine.fencing_proven(node_id{5}));

    machine_test c; // a peer is the last out
    c.boot_with({2});
    c.node2_hosts_vs2();
    c.from(2, msg::start{"vs2", msg::start_reason::asked});
    c.settle();
    c.from(2, msg::done{"vs2", c.server("vs2").start, msg::outcome::reclaimed});
    c.settle();
    CHECK(c.blocked_by("node node2 is the last out and has not purged yet"));
    c.from(2, msg::purge{c.machine.replicated().recovery, c.machine.replicated().starts});
    c.settle();
    CHECK(c.blocked_by("node node2 has not got the purge on its disk yet"));
    CHECK_FALSE(c.blocked_by("node node1 has not got the purge"));
}

TEST_CASE("the questions about a state in which nobody is a member") {
    const state s;
    CHECK_FALSE(lowest_synced(s));
    CHECK_FALSE(purger(s));
    CHECK_FALSE(durable_everywhere(s, position{0}));
}
