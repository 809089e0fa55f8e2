// SPDX-License-Identifier: GPL-2.0-or-later
// The checks of invariants.cc find what they are for. No input leads there (the fuzzer of the
// machine looks for one): a sound machine is broken by hand, by way of what recordings use to read
// one.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "core_bench.hh"
#include "libgrace/src/archive.hh"

#include <doctest/doctest.h>

using namespace grace;

namespace {

// Members by their type; a member that is renamed or moved stays found.
template <typename T>
T& member(fsm& f) {
    auto all = archive::tie(f);
    return std::get<T&>(all);
}
bool& synced(fsm& f) {
    auto all = archive::tie(f);
    return std::get<2>(all); // behind params and state
}

std::string broken(const fsm& f) {
    try {
        check_invariants(f);
    } catch (const std::logic_error& e) {
        return e.what();
    }
    return "nothing";
}

fsm open_gate() {
    bench b;
    b.open();
    REQUIRE(b.machine.gate().open);
    REQUIRE(broken(b.machine) == "nothing");
    return b.machine;
}

fsm open_reclaim() {
    bench b;
    b.open();
    b.host("vs1", {"alice"});
    b.step(input::nfsd_ended{"vs1"});
    b.settle();
    REQUIRE(b.machine.instances().at("vs1").reclaim == reclaim_state::on);
    REQUIRE(broken(b.machine) == "nothing");
    return b.machine;
}

} // namespace

TEST_CASE("S6, S4: epochs and flags") {
    fsm f = open_gate();
    state& s = member<state>(f);
    s.recovery = s.current;
    CHECK(broken(f) == "invariant broken: S6: R is below C");
    s.recovery = {};
    s.lifting = true;
    CHECK(broken(f) == "invariant broken: S4: nobody NEEDs while lifting");
    s.lifting = false;
    s.servers["vs1"].need = true;
    CHECK(broken(f) == "invariant broken: a NEED only in grace");

    fsm g = open_reclaim();
    member<state>(g).lifting = true; // its server NEEDs
    CHECK(broken(g) == "invariant broken: S4: nobody NEEDs while lifting");
}

TEST_CASE("S7: an open gate has a state, quorum, PR") {
    fsm f = open_gate();
    synced(f) = false;
    CHECK(broken(f) == "invariant broken: S7: an open gate has quorum");
    synced(f) = true;
    member<input::quorum>(f).quorate = false;
    CHECK(broken(f) == "invariant broken: S7: an open gate has quorum");
    member<input::quorum>(f).quorate = true;
    for (lock_mode m : {lock_mode::nl, lock_mode::cw, lock_mode::ex}) {
        member<lock_local>(f).held = m;
        CHECK(broken(f) == "invariant broken: S7: an open gate has PR");
    }
}

TEST_CASE("S1, S8: an open gate is out of grace and accounts for every trip") {
    fsm f = open_gate();
    state& s = member<state>(f);
    s.current = epoch{2};
    s.recovery = epoch{1};
    CHECK(broken(f) == "invariant broken: S1: no gate is open in grace");
    s.recovery = {};
    member<gate_local>(f).trips += 1;
    CHECK(broken(f) == "invariant broken: S8: an open gate accounts for every trip");
}

TEST_CASE("S1, S2, S9: reclaim needs a closed gate, CW, and its own host") {
    fsm f = open_gate();
    for (reclaim_state r : {reclaim_state::on, reclaim_state::opening}) {
        member<std::map<std::string, instance>>(f)["vs1"].reclaim = r;
        CHECK(broken(f) == "invariant broken: S1: no reclaim while the gate is open");
    }
    fsm g = open_reclaim();
    member<lock_local>(g).held = lock_mode::nl;
    CHECK(broken(g) == "invariant broken: S2: reclaim needs CW");
    member<lock_local>(g).held = lock_mode::cw;
    member<state>(g).servers["vs1"].host = node_id{2};
    CHECK(broken(g) == "invariant broken: S9: reclaim only at the server's host");
    member<state>(g).servers.clear();
    CHECK(broken(g) == "invariant broken: S9: reclaim only at the server's host");
}

TEST_CASE("a step that breaks an invariant does not return") {
    fsm f = open_gate();
    state& s = member<state>(f);
    s.recovery = s.current;
    CHECK_THROWS_AS(f.step(seconds(9), input::tick{}), std::logic_error);
}
