// SPDX-License-Identifier: GPL-2.0-or-later
// What is left of a daemon that broke an invariant: the dump of its last inputs, which `gracectl
// replay` plays up to the step that did not return.
//
// No input breaks an invariant of the core, so this program brings one that can be broken: its own
// check_invariants(), linked instead of the core's, for the engine that records and for gracectl
// alike.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/describe.hh"
#include "grace/recording.hh"
#include "graced/ctl/gracectl.hh"
#include "sim/world.hh"

#include <cstdio>
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>
#include <unistd.h>

using namespace grace;
using sim::world;

void grace::check_invariants(const fsm& f) {
    for (const auto& [name, v] : f.replicated().servers)
        if (v.records.contains("mallory"))
            throw std::logic_error("invariant broken: mallory is on record");
}

namespace {

// Node 1 of three, until it has broken its invariant.
bytes crash() {
    world w(3);
    for (unsigned i : {1u, 2u, 3u}) {
        w.boot(i);
        w.start_daemon(i);
        if (i == 1)
            w[1].daemon->record();
    }
    w.run_for(seconds(5));
    w.serve(1, "vs1");
    w.run_for(seconds(2));
    w.create(1, "vs1", "alice");
    w.run_for(seconds(1));
    w.create(1, "vs1", "mallory");
    try {
        w.run_for(seconds(1));
    } catch (const std::logic_error& e) {
        // Whose machine it was: all of them hear the same message, and the lowest one first.
        return w[1].daemon->recorded()->dump("test", e.what(), 1'800'000'000'000'000'000, w.now);
    }
    FAIL("no invariant broke");
    return {};
}

struct answer {
    int status;
    std::string out, err;
};
answer gracectl(std::vector<const char*> words) {
    std::ostringstream out, err;
    ctl::surroundings around{out, err, [] { return 0.0; },
                             [](auto&&...) -> result<ctl::json> { return ctl::json{}; }};
    words.insert(words.begin(), "gracectl");
    const int status = ctl::run(static_cast<int>(words.size()), words.data(), around);
    return {status, out.str(), err.str()};
}

} // namespace

TEST_CASE("the dump of a broken invariant ends at the step that broke it") {
    const bytes dump = crash();
    auto d = decode_recording(dump);
    REQUIRE_MESSAGE(d.found, d.fault);
    CHECK(d.found->why == "invariant broken: mallory is on record");
    const auto& inputs = d.found->inputs;
    REQUIRE(inputs.size() > 20);
    CHECK_FALSE(inputs.back().outputs);
    CHECK(describe(inputs.back().in) == "deliver: RECORDS(1) from node 1");
    fsm f = *d.found->start;
    for (std::size_t i = 0; i + 1 < inputs.size(); ++i) {
        f.step(inputs[i].at, inputs[i].in);
        REQUIRE(inputs[i].outputs);
        REQUIRE(*inputs[i].outputs == digest(f.take_output()));
    }
    CHECK_THROWS_WITH_AS(f.step(inputs.back().at, inputs.back().in),
                         "invariant broken: mallory is on record", std::logic_error);
}

TEST_CASE("gracectl replay shows it, and says where and why it stops") {
    const bytes dump = crash();
    char file[] = "/tmp/recorder_crash_test.XXXXXX";
    const int fd = mkstemp(file);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, dump.data(), dump.size()) == static_cast<ssize_t>(dump.size()));
    close(fd);
    const answer a = gracectl({"replay", file});
    const answer j = gracectl({"--json", "replay", file});
    std::remove(file);
    CHECK(a.status == ctl::exit_failed);
    CHECK(a.out.starts_with("recorded by graced test: invariant broken: mallory is on record\n"));
    const std::size_t last = a.out.rfind("  deliver: ");
    REQUIRE(last != std::string::npos);
    CHECK(a.out.substr(last).starts_with("  deliver: RECORDS(1) from node 1\n"));
    CHECK(a.err.find(": invariant broken: mallory is on record") != std::string::npos);
    const auto shown = ctl::json::parse(j.out);
    CHECK(shown.at("code") == "replay_stopped");
    CHECK(shown.at("steps").size() == decode_recording(dump).found->inputs.size());
}
