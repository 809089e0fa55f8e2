// SPDX-License-Identifier: GPL-2.0-or-later
// What the daemon tells of a grace, as metrics and as events: the watch on a simulated cluster, and
// the text. With METRICS_SAMPLE=DIRECTORY the text of a grace in its midst is written there in both
// formats, for tools that read such texts (docs_monitoring_test.py).
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/metrics.hh"
#include "sim/world.hh"

#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>

using namespace grace;
using sim::world;

namespace {

constexpr std::int64_t epoch_ms = 1'767'323'045'000;

// Three nodes, and what each one's watch has seen.
struct cluster : world {
    std::map<unsigned, grace_watch> watches;
    std::map<unsigned, std::vector<grace_event>> events;

    cluster()
        : world(3) {
        defaults.grace_period = seconds(20);
        defaults.orphan_timeout = seconds(60);
        defaults.daemon_timeout = seconds(40);
        defaults.permit_ttl = milliseconds(800);
        defaults.heartbeat_interval = milliseconds(200);
        for (unsigned i = 1; i <= 3; ++i)
            boot(i);
        for (unsigned i = 1; i <= 3; ++i)
            start(i);
        settle();
    }
    ~cluster() { CHECK(violations.empty()); }
    void start(unsigned i) {
        start_daemon(i);
        watches[i] = {};
        (*this)[i].daemon->after_effects([this, i] {
            for (grace_event& e :
                 watches[i].look((*this)[i].machine(), now, epoch_ms + now / 1'000'000))
                events[i].push_back(std::move(e));
        });
    }
    void settle() {
        run_until(
            [&] {
                return std::ranges::all_of(nodes, [&](auto& e) {
                    return !e.second->powered || !e.second->daemon || e.second->kern.open(now);
                });
            },
            seconds(120), "all gates open");
    }
    void host(unsigned i, const std::string& server, const std::vector<std::string>& clients) {
        const ticket t = serve(i, server);
        run_until([&] { return (*this)[i].answers.contains(t.value); }, seconds(30), "serve");
        nfsd_start(i, server);
        run_until([&] { return (*this)[i].running.contains(server); }, seconds(5), "nfsd");
        for (const auto& c : clients)
            record(i, server, c);
    }
    void record(unsigned i, const std::string& server, const std::string& client) {
        const ticket u = create(i, server, client);
        run_until([&] { return (*this)[i].upcalls.contains(u.value); }, seconds(5), "create");
    }
    // One line for each event, without its time.
    std::vector<std::string> told(unsigned i) const {
        std::vector<std::string> all;
        const auto of = events.find(i);
        if (of == events.end())
            return all;
        for (const grace_event& e : of->second) {
            std::ostringstream line;
            line << "C" << e.at.value << " " << e.what;
            for (const std::string& part : {e.server, e.node, e.detail})
                if (!part.empty())
                    line << " [" << part << "]";
            if (e.count != 0 || e.all != 0)
                line << " " << e.count << "/" << e.all;
            all.push_back(line.str());
        }
        return all;
    }
    std::size_t place(unsigned i, const std::string& line) const {
        const auto all = told(i);
        const auto found = std::ranges::find(all, line);
        std::string others;
        for (const auto& one : all)
            others += one + "\n";
        REQUIRE_MESSAGE(found != all.end(), line << " is not in\n" << others);
        return static_cast<std::size_t>(found - all.begin());
    }
    std::string metrics(unsigned i, metrics_format format = metrics_format::openmetrics) {
        metrics_context c;
        c.now = (*this)[i].clock();
        c.realtime = epoch_ms / 1000.0 + static_cast<double>(now) / 1e9;
        c.state = "cluster";
        c.lock_backend = "dlm";
        c.gate_backend = "module";
        c.permit_until = c.now + milliseconds(500);
        c.module = {3, 1, 0};
        c.frozen_for = 0;
        c.graces = watches[i].counts();
        c.trackers = {{"vs1", {true, 12}}};
        c.store = {false, 40, 0, 0, 0.125, {{0.001, 3}, {0.01, 20}, {1, 2}}, 1};
        return metrics_text((*this)[i].machine(), c, format);
    }
    void fail_over() {
        host(1, "vs1", {"A", "B"});
        host(2, "vs2", {"C"});
        power_off(1);
        run_until([&] { return in_grace((*this)[2].machine().replicated()); }, seconds(10),
                  "grace");
        run_for(seconds(3));
        fence(1);
        host(2, "vs1", {"A"});
    }
};

std::string value_of(const std::string& text, const std::string& sample) {
    const auto at = text.find("\n" + sample + " ");
    REQUIRE_MESSAGE(at != std::string::npos, sample << " is not in\n" << text);
    const auto begin = at + sample.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
}

} // namespace

TEST_CASE(
    "a failover as each survivor tells it: why, who enforced, reclaimed, was purged, by whom") {
    cluster c;
    c.fail_over();
    c.settle();
    for (const unsigned i : {2U, 3U}) {
        CAPTURE(i);
        const std::vector<std::size_t> order = {
            c.place(i, "C2 began [server vs1: node node1 died]"),
            c.place(i, "C2 node [node1] [up]"),
            c.place(i, "C2 node [node3] [up]"),
            c.place(i, "C2 died [node1]"),
            c.place(i, "C2 need [vs1] [node node1 died] 0/2"),
            c.place(i, "C2 phase [entering]"),
            c.place(i, "C2 enforcing [node2]"),
            c.place(i, "C2 fenced [node1]"),
            c.place(i, "C2 phase [reclaiming]"),
            c.place(i, "C2 done [vs1] [node2] 1/2"),
            c.place(i, "C2 phase [lifting]"),
            c.place(i, "C2 purged [vs1] 1/2"),
            c.place(i, "C2 purge [node2] 1/0"),
            c.place(i, "C2 lifted"),
        };
        CHECK(std::ranges::is_sorted(order));
        CHECK(order.back() + 1 == c.told(i).size());
        CHECK(c.place(i, "C2 enforcing [node3]") < c.place(i, "C2 phase [reclaiming]"));
        CHECK(std::ranges::is_sorted(c.events[i], {}, &grace_event::time));
        CHECK(c.watches[i].counts().begun == 1);
        CHECK(c.watches[i].counts().clients_purged == 1);
        CHECK(c.watches[i].counts().last > seconds(3));
    }
    c.place(2, "C2 open [vs1] [node2]"); // only its host knows
    CHECK(std::ranges::none_of(c.told(3), [](auto& line) { return line.starts_with("C2 open"); }));
    CHECK(c.told(1) ==
          std::vector<std::string>{"C0 hosted [vs1] [node1]", "C0 hosted [vs2] [node2]"});
}

TEST_CASE("a daemon that comes in the midst of a grace says so; a server's death after it is a "
          "grace of its own") {
    cluster c;
    c.fail_over();
    c.kill_daemon(3);
    c.run_for(seconds(2));
    c.events[3].clear();
    c.start(3);
    c.settle();
    CHECK(c.place(3, "C2 found") == 0);
    CHECK(c.place(2, "C2 left [node3]") < c.place(2, "C2 joined [node3]"));
    c.place(3, "C2 lifted");
    c.power_off(2);
    c.fence(2);
    c.run_until([&] { return in_grace(c[3].machine().replicated()); }, seconds(10), "grace");
    CHECK(c.place(3, "C3 began [server vs1: node node2 died, …]") > c.place(3, "C2 lifted"));
}

TEST_CASE("nothing is told while nothing happens") {
    cluster c;
    c.host(1, "vs1", {"A"});
    c.events.clear();
    c.run_for(seconds(60));
    CHECK(c.events.empty());
}

TEST_CASE("out of a grace: who hosts a server, daemons that go and come, a node that dies") {
    cluster c;
    c.events.clear();
    c.host(1, "vs1", {});
    CHECK(c.told(2) == std::vector<std::string>{"C0 hosted [vs1] [node1]"});
    c.events.clear();
    c.kill_daemon(3);
    c.run_for(seconds(2));
    CHECK(c.told(2) == std::vector<std::string>{"C0 left [node3]"});
    c.start(3);
    c.settle();
    CHECK(c.told(2).back() == "C0 joined [node3]");
    c.events.clear();
    c.power_off(3); // it hosts nothing: no grace
    c.run_for(seconds(5));
    c.place(2, "C0 died [node3]");
    CHECK(std::ranges::all_of(c.told(2), [](const auto& l) { return l.starts_with("C0 "); }));
}

TEST_CASE("metrics of a grace in its midst, and after it") {
    cluster c;
    c.fail_over();
    const std::string text = c.metrics(2);
    CHECK(text.ends_with("\n# EOF\n"));
    CHECK(value_of(text, "graced_phase{graced_phase=\"reclaiming\"}") == "1");
    CHECK(value_of(text, "graced_phase{graced_phase=\"normal\"}") == "0");
    CHECK(value_of(text, "graced_current_epoch") == "2");
    CHECK(value_of(text, "graced_recovery_epoch") == "1");
    CHECK(value_of(text, "graced_server_need{server=\"vs1\"}") == "1");
    CHECK(value_of(text, "graced_server_clients{server=\"vs1\"}") == "2");
    CHECK(value_of(text, "graced_server_clients_reclaimed{server=\"vs1\"}") == "1");
    CHECK(value_of(text, "graced_server_clients_reclaimed{server=\"vs2\"}") == "0");
    CHECK(value_of(text, "graced_server_reclaim_open{server=\"vs1\"}") == "1");
    CHECK(value_of(text, "graced_node_live{node=\"node1\"}") == "0");
    CHECK(value_of(text, "graced_node_enforcing{node=\"node3\"}") == "1");
    CHECK(value_of(text, "graced_gate_open") == "0");
    CHECK(value_of(text, "graced_lock_mode{graced_lock_mode=\"CW\"}") == "1");
    CHECK(value_of(text, "graced_permit_remaining_seconds") == "0.5");
    CHECK(value_of(text, "graced_graces_total") == "1");
    CHECK(value_of(text, "graced_store_commit_seconds_bucket{le=\"0.01\"}") == "23");
    CHECK(value_of(text, "graced_store_commit_seconds_bucket{le=\"1.0\"}") == "25");
    CHECK(value_of(text, "graced_store_commit_seconds_bucket{le=\"+Inf\"}") == "26");
    // Deadline: some time from now, after 1970.
    CHECK(std::stod(value_of(text, "graced_server_deadline_timestamp_seconds{server=\"vs1\"}")) >
          epoch_ms / 1000.0);
    // Clients have no labels.
    CHECK(text.find("\"A\"") == std::string::npos);
    const std::string old = c.metrics(2, metrics_format::prometheus);
    CHECK(old.find("# TYPE graced_graces_total counter\n") != std::string::npos);
    CHECK(old.find("# TYPE graced_phase gauge\n") != std::string::npos);
    CHECK(old.find("# UNIT") == std::string::npos);
    CHECK(old.find("# EOF") == std::string::npos);
    if (const char* where = std::getenv("METRICS_SAMPLE")) {
        std::ofstream(std::string(where) + "/openmetrics") << text;
        std::ofstream(std::string(where) + "/prometheus") << old;
    }
    c.settle();
    const std::string after = c.metrics(2);
    CHECK(value_of(after, "graced_phase{graced_phase=\"normal\"}") == "1");
    CHECK(value_of(after, "graced_grace_duration_seconds_count") == "1");
    CHECK(value_of(after, "graced_clients_purged_total") == "1");
    CHECK(value_of(after, "graced_purges_total") == "1");
    CHECK(value_of(after, "graced_gate_open") == "1");
    CHECK(value_of(after, "graced_node_enforcing{node=\"node2\"}") == "0");
}
