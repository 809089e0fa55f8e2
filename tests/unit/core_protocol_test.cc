// SPDX-License-Identifier: GPL-2.0-or-later
// The protocol on a simulated cluster: the production engine, one paragraph of the design a test.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "sim/world.hh"

#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>

using namespace grace;
using sim::world;

namespace {

struct cluster : world {
    explicit cluster(unsigned n)
        : world(n) {
        defaults.grace_period = seconds(20);
        defaults.orphan_timeout = seconds(60);
        defaults.daemon_timeout = seconds(40);
        defaults.permit_ttl = milliseconds(800);
        defaults.heartbeat_interval = milliseconds(200);
        for (unsigned i = 1; i <= n; ++i) {
            boot(i);
            (*this)[i].verbose = std::getenv("VERBOSE") != nullptr;
        }
        for (unsigned i = 1; i <= n; ++i)
            start_daemon(i);
    }
    ~cluster() {
        CHECK_MESSAGE(violations.empty(),
                      (violations.empty() ? std::string() : violations.front()));
    }

    bool open(unsigned i) { return (*this)[i].kern.open(now); }
    bool all_open() {
        return std::ranges::all_of(nodes, [&](auto& e) {
            return !e.second->powered || !e.second->daemon || e.second->kern.open(now);
        });
    }
    bool any_open() {
        return std::ranges::any_of(
            nodes, [&](auto& e) { return e.second->powered && e.second->kern.open(now); });
    }
    void settle() {
        run_until([&] { return all_open(); }, seconds(30), "all gates open");
    }
    const state& st(unsigned i) { return (*this)[i].machine().replicated(); }
    bool answered(unsigned i, ticket t) { return (*this)[i].answers.contains(t.value); }
    request_status result(unsigned i, ticket t) { return (*this)[i].answers.at(t.value).first; }
    bool reclaiming(unsigned i, const std::string& s) {
        return (*this)[i].kern.reclaim.contains(s);
    }
    bool recorded(unsigned i, const std::string& server, const std::string& client) {
        return st(i).servers.at(server).records.contains(client);
    }
    void host(unsigned i, const std::string& server, std::vector<std::string> clients) {
        ticket t = serve(i, server);
        run_until([&] { return answered(i, t); }, seconds(5), "serve");
        REQUIRE(result(i, t) == request_status::done);
        nfsd_start(i, server);
        run_until([&] { return (*this)[i].running.contains(server); }, seconds(5), "nfsd up");
        for (auto& c : clients)
            record(i, server, c);
    }
    void record(unsigned i, const std::string& server, const std::string& client) {
        ticket u = create(i, server, client);
        run_until([&] { return (*this)[i].upcalls.contains(u.value); }, seconds(5), "create");
        REQUIRE((*this)[i].upcalls.at(u.value) == upcall_status::ok);
    }
};

} // namespace

TEST_CASE("cold start without any database: founded, gates open, no grace") {
    cluster c(3);
    c.settle();
    for (unsigned i : {1, 2, 3}) {
        CHECK(c[i].machine().synced());
        CHECK_FALSE(in_grace(c.st(i)));
        CHECK(c.st(i) == c.st(1));
    }
}

TEST_CASE("a record is on every disk before the kernel hears of it") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {});
    ticket u = c.create(1, "vs1", "A");
    c.run_until([&] { return c[1].upcalls.contains(u.value); }, seconds(2), "create");
    for (unsigned i : {1, 2, 3})
        CHECK(c[i].disk.records["vs1"].contains("A"));
}

TEST_CASE("failover: node dies, clients reclaim elsewhere, the last node out purges") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A", "B"});
    c.host(2, "vs2", {"C"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    CHECK(c.st(2).servers.at("vs1").need);
    CHECK_FALSE(c.st(2).servers.at("vs2").need);
    ticket t = c.serve(2, "vs1");
    c.run_for(seconds(5));
    CHECK_FALSE(c.any_open());
    CHECK_FALSE(c.answered(2, t)); // not fenced: reclaim stays closed
    CHECK_FALSE(c.reclaiming(2, "vs1"));
    c.fence(1);
    c.run_until([&] { return c.answered(2, t); }, seconds(5), "reclaim opens");
    CHECK(c.reclaiming(2, "vs1"));
    c.nfsd_start(2, "vs1");
    c.run_until([&] { return c[2].running.contains("vs1"); }, seconds(2), "nfsd");
    CHECK(c[2].nfsd_lists["vs1"] == std::vector<std::string>{"A", "B"});
    c.record(2, "vs1", "A"); // A has reclaimed
    CHECK_FALSE(c.any_open());
    CHECK(c.recorded(3, "vs1", "B"));
    c.run_until([&] { return c.all_open(); }, seconds(60), "lift");
    for (unsigned i : {2, 3}) {
        CHECK(c.recorded(i, "vs1", "A"));
        CHECK_FALSE(c.recorded(i, "vs1", "B"));
        CHECK(c.recorded(i, "vs2", "C"));
        CHECK_FALSE(c[i].disk.records["vs1"].contains("B"));
    }
    // and back: node 1 boots, joins by snapshot, no grace
    c.boot(1);
    c.start_daemon(1);
    c.run_until([&] { return c.open(1) && c.all_open(); }, seconds(20), "node 1 is back");
    CHECK(c.st(1) == c.st(2));
    CHECK(c.st(1).servers.at("vs1").host == node_id{2});
}

TEST_CASE("all clients reclaimed: the grace ends at once, not after the deadline") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    c.fence(1);
    ticket t = c.serve(3, "vs1");
    c.run_until([&] { return c.answered(3, t); }, seconds(5), "reclaim");
    c.nfsd_start(3, "vs1");
    c.record(3, "vs1", "A");
    instant before = c.now;
    c.settle();
    CHECK(c.now - before < seconds(1));
    CHECK(c.recorded(2, "vs1", "A"));
}

TEST_CASE("nothing to recover, no grace") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {});
    epoch before = c.st(2).current;
    c.power_off(1);
    c.run_for(seconds(3));
    CHECK(c.st(2).current == before);
    CHECK(!c.st(2).servers.at("vs1").host);
}

TEST_CASE("one server, one host: START elsewhere is void until RELEASED") {
    cluster c(2);
    c.settle();
    c.host(1, "vs1", {"A"});
    ticket t = c.serve(2, "vs1");
    c.run_until([&] { return c.answered(2, t); }, seconds(5), "answer");
    CHECK(c.result(2, t) == request_status::hosted_elsewhere);
    CHECK_FALSE(in_grace(c.st(1)));
}

TEST_CASE("planned move: all enforce before the locks go, the client reclaims there") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    ticket stop = c[1].new_ticket();
    c[1].take(input::stop{"vs1", stop});
    c.run_until([&] { return c.answered(1, stop); }, seconds(5), "stop");
    CHECK(c.result(1, stop) == request_status::done);
    for (unsigned i : {1, 2, 3})
        CHECK_FALSE(c.open(i));
    c[1].running.erase("vs1");
    ticket rel = c[1].new_ticket();
    c[1].take(input::released{"vs1", rel});
    c.run_until([&] { return c.answered(1, rel); }, seconds(5), "released");
    ticket t = c.serve(2, "vs1");
    c.run_until([&] { return c.answered(2, t); }, seconds(5), "reclaim");
    c.nfsd_start(2, "vs1");
    c.record(2, "vs1", "A");
    c.settle();
    CHECK(c.recorded(1, "vs1", "A"));
}

TEST_CASE("START of a server that never stopped: intact, its records stay") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A", "B"});
    ticket t = c[2].new_ticket();
    c[2].take(input::start{"vs1", t});
    c.run_until([&] { return c.answered(2, t); }, seconds(5), "start");
    c.run_until([&] { return c.all_open(); }, seconds(5), "lift");
    CHECK(c.recorded(3, "vs1", "A"));
    CHECK(c.recorded(3, "vs1", "B"));
}

TEST_CASE("daemon killed: gate closes, no grace, it adopts; records continue") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    epoch before = c.st(2).current;
    c.kill_daemon(1);
    c.run_for(seconds(2));
    CHECK_FALSE(c.open(1));
    CHECK(c.open(2));
    CHECK(c.st(2).current == before);
    c.start_daemon(1);
    c.run_until([&] { return c.open(1); }, seconds(5), "adopted");
    CHECK(c.st(1).current == before);
    CHECK(c.st(1).servers.at("vs1").host == node_id{1});
    c.record(1, "vs1", "B");
    CHECK(c.recorded(2, "vs1", "B"));
}

TEST_CASE("a live node without daemon counts as enforcing after its permit, not before") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.kill_daemon(3);
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    c.fence(1);
    ticket t = c.serve(2, "vs1");
    c.run_until([&] { return c.answered(2, t); }, seconds(5),
                "reclaim opens without node 3's word");
    CHECK(c.result(2, t) == request_status::done);
}

TEST_CASE("whole-cluster restart: every server with records NEEDs, C rises, nothing is lost") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    epoch before = c.st(1).current;
    for (unsigned i : {1, 2, 3})
        c.power_off(i);
    c.run_for(seconds(5));
    for (unsigned i : {1, 2, 3})
        c.fence(i);
    for (unsigned i : {1, 2})
        c.boot(i);
    for (unsigned i : {1, 2})
        c.start_daemon(i);
    c.run_until([&] { return c[1].machine().synced(); }, seconds(5), "founded");
    CHECK(c.st(1).servers.at("vs1").need);
    CHECK(c.st(1).current > before);
    ticket t = c.serve(2, "vs1");
    c.run_until([&] { return c.answered(2, t); }, seconds(5), "reclaim");
    c.nfsd_start(2, "vs1");
    c.record(2, "vs1", "A");
    c.settle();
    CHECK(c.recorded(1, "vs1", "A"));
}

TEST_CASE("a minority closes, gives up its state, and comes back by snapshot") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.split({{1, 2}, {3}});
    c.run_until([&] { return c.all_open() || !c.open(3); }, seconds(2), "split");
    c.run_for(seconds(2));
    CHECK_FALSE(c.open(3));
    CHECK_FALSE(c[3].machine().synced());
    c.record(1, "vs1", "B");
    c.split({{1, 2, 3}});
    c.run_until([&] { return c.open(3); }, seconds(5), "merged");
    CHECK(c.st(3) == c.st(1));
    CHECK(c.recorded(3, "vs1", "B"));
}

TEST_CASE("second failure during grace: the grace goes on, both servers are served") {
    cluster c(4);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.host(2, "vs2", {"B"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(3)); }, seconds(10), "grace");
    c.fence(1);
    ticket t1 = c.serve(3, "vs1");
    c.run_until([&] { return c.answered(3, t1); }, seconds(5), "reclaim");
    c.nfsd_start(3, "vs1");
    c.run_for(milliseconds(50));
    // nodes 3 and 4 alone are no majority of 4: bring node 1 back first
    c.boot(1);
    c.start_daemon(1);
    c.run_until([&] { return c[1].machine().synced(); }, seconds(5), "node 1 back");
    c.power_off(2);
    c.run_until([&] { return c.st(3).servers.at("vs2").need; }, seconds(10), "vs2 NEEDs");
    c.fence(2);
    ticket t2 = c.serve(4, "vs2");
    c.run_until([&] { return c.answered(4, t2); }, seconds(10), "vs2 reclaims");
    c.nfsd_start(4, "vs2");
    c.run_until([&] { return c[4].running.contains("vs2"); }, seconds(5), "nfsd");
    c.record(3, "vs1", "A");
    c.record(4, "vs2", "B");
    c.settle();
    CHECK(c.recorded(1, "vs1", "A"));
    CHECK(c.recorded(1, "vs2", "B"));
}

TEST_CASE("the last node out dies while it purges: another one takes over") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A", "B"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    c.fence(1);
    c.boot(1);
    c.start_daemon(1);
    ticket t = c.serve(2, "vs1");
    c.run_until([&] { return c.answered(2, t); }, seconds(10), "reclaim");
    c.nfsd_start(2, "vs1");
    c.record(2, "vs1", "A");
    c.run_until([&] { return c.st(3).lifting; }, seconds(60), "PURGE delivered");
    c.power_off(2);
    c.run_until([&] { return c.st(3).servers.at("vs1").need; }, seconds(5), "vs1 NEEDs again");
    c.fence(2);
    ticket t2 = c.serve(3, "vs1");
    c.run_until([&] { return c.answered(3, t2); }, seconds(10), "reclaim");
    c.nfsd_start(3, "vs1");
    c.run_until([&] { return c[3].running.contains("vs1"); }, seconds(5), "nfsd");
    CHECK(c[3].nfsd_lists["vs1"] == std::vector<std::string>{"A"}); // B stays purged
    c.record(3, "vs1", "A");
    c.settle();
}

TEST_CASE("orphan: nobody takes the server, the grace ends after orphan_timeout") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    c.fence(1);
    instant began = c.now;
    c.run_until([&] { return c.all_open(); }, seconds(100), "lift");
    CHECK(c.now - began >= seconds(60));
    CHECK_FALSE(c.recorded(2, "vs1", "A"));
}

TEST_CASE("orphan: an operator's extension counts for it, too, said on any node") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(3)); }, seconds(10), "grace");
    const ticket t = c[3].new_ticket();
    c[3].take(input::extend{"vs1", seconds(30), t});
    c.run_until([&] { return c.answered(3, t); }, seconds(5), "extend");
    CHECK(c.result(3, t) == request_status::done);
    c.fence(1);
    const instant began = c.now;
    c.run_until([&] { return c.all_open(); }, seconds(100), "lift");
    CHECK(c.now - began >= seconds(90));
}

TEST_CASE("a request that waits for long outlives a change of the membership") {
    cluster c(5);
    c.settle();
    c.host(1, "vs1", {"alice"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)); }, seconds(10), "grace");
    const ticket t = c.serve(2, "vs1");
    c.run_for(seconds(15)); // the fencing takes its time
    REQUIRE_FALSE(c.answered(2, t));
    c.power_off(5);
    c.run_for(seconds(5));
    CHECK_FALSE(c.answered(2, t));
    c.fence(1);
    c.fence(5);
    c.run_until([&] { return c.answered(2, t); }, seconds(10), "serve");
    CHECK(c.result(2, t) == request_status::done);
}

TEST_CASE("the operator lifts") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.power_off(1);
    c.run_until([&] { return in_grace(c.st(2)) && in_grace(c.st(3)); }, seconds(10), "grace");
    c.fence(1);
    ticket t = c[3].new_ticket();
    c[3].take(input::lift{"", t});
    c.run_until([&] { return c.all_open(); }, seconds(5), "lift");
    CHECK(c.result(3, t) == request_status::done);
}

TEST_CASE("a tripped gate opens again only by an order that names the trip") {
    cluster c(2);
    c.settle();
    c[1].kern.gate = gate_state::closed;
    c[1].kern.trips = 1;
    c[1].take(input::kernel_tripped{1});
    CHECK_FALSE(c.open(1));
    c.run_until([&] { return c.open(1); }, seconds(2), "open again");
    CHECK(c[1].machine().gate().accounted == 1);
}

TEST_CASE(
    "a server that is stopped lets go of its locks when every node enforces, at each stop anew") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    c.host(1, "vs2", {"B"});
    c.settle();
    CHECK_FALSE(c[1].machine().may_drop());
    const auto stop = [&](const std::string& server) {
        c[1].running.erase(server);
        c[1].kern.gate = gate_state::closed;
        ++c[1].kern.trips;
        c[1].take(input::nfsd_ended{server});
        c[1].take(input::kernel_tripped{c[1].kern.trips});
        CHECK_FALSE(c[1].machine().may_drop());
        c.run_until([&] { return c[1].machine().may_drop(); }, seconds(2), "every node to enforce");
        CHECK(c.st(2).servers.at(server).need);
        CHECK(c.st(3).servers.at(server).need);
        CHECK_FALSE(c.any_open());
    };
    stop("vs1");
    stop("vs2"); // in the same grace, where all enforce already
    c[3].take(input::lift{"", c[3].new_ticket()});
    c.run_until([&] { return c.all_open(); }, seconds(5), "lift");
    CHECK_FALSE(c[1].machine().may_drop());
}

TEST_CASE("an nfsd that ends without a stop: a START for its clients, and they may reclaim") {
    cluster c(3);
    c.settle();
    c.host(1, "vs1", {"A"});
    const epoch before = c.st(1).current;
    c[1].running.erase("vs1");
    c[1].take(input::nfsd_ended{"vs1"});
    c.run_until([&] { return in_grace(c.st(2)) && !c.any_open(); }, seconds(1), "closed gates");
    CHECK(c.st(2).current == next(before));
    CHECK(c.st(2).servers.at("vs1").need);
    CHECK(c.st(2).servers.at("vs1").records.at("A").at <= c.st(2).recovery);
    // Said once: what it dropped is covered by that START.
    const start_count start = c.st(2).servers.at("vs1").start;
    c.run_for(seconds(1));
    CHECK(c.st(2).servers.at("vs1").start == start);
    // One that is being stopped in order owes nothing more.
    cluster d(3);
    d.settle();
    d.host(1, "vs1", {"A"});
    d[1].take(input::stop{"vs1", d[1].new_ticket()});
    d.run_until([&] { return in_grace(d.st(2)); }, seconds(1), "grace");
    const start_count stop = d.st(2).servers.at("vs1").start;
    d[1].take(input::nfsd_ended{"vs1"});
    d.run_for(seconds(1));
    CHECK(d.st(2).servers.at("vs1").start == stop);
}
