// SPDX-License-Identifier: GPL-2.0-or-later
// Recordings: what was recorded plays again exactly, from the start and from the middle.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/recording.hh"
#include "graced/recorder.hh"
#include "libgrace/src/codec.hh"
#include "sim/world.hh"

#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <iterator>

using namespace grace;
using namespace grace::sim;

namespace {

// Node 2 of three: it joins, node 1 with a server and clients dies, node 2 takes the server over.
bytes failover(bool record_late) {
    world w(3);
    for (unsigned i : {1u, 2u, 3u}) {
        w.boot(i);
        w.start_daemon(i);
        if (i == 2 && !record_late)
            w[2].daemon->record();
    }
    w.run_for(seconds(5));
    w.serve(1, "vs1");
    w.run_for(seconds(5));
    if (record_late)
        w[2].daemon->record();
    for (const char* client : {"alice", "bob"})
        w.create(1, "vs1", client);
    w.run_for(seconds(1));
    w.power_off(1);
    w.run_for(seconds(3));
    w.fence(1);
    w.serve(2, "vs1");
    w.run_for(seconds(5));
    CHECK(w.violations.empty());
    return w[2].daemon->recorded()->dump("test", "asked", 0, w.now);
}

// Plays all of it; the machine at the end.
fsm replay(const recording& r) {
    REQUIRE(r.start);
    fsm f = *r.start;
    for (const recorded_input& i : r.inputs) {
        f.step(i.at, i.in);
        REQUIRE(i.outputs);
        REQUIRE(*i.outputs == digest(f.take_output()));
    }
    return f;
}

bytes read(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

} // namespace

TEST_CASE("a recording plays again, each step with the outputs that it had") {
    for (bool late : {false, true}) {
        const bytes b = failover(late);
        auto d = decode_recording(b);
        REQUIRE_MESSAGE(d.found, d.fault);
        CHECK(d.found->inputs.size() > 50);
        CHECK(d.found->before == 0);
        const fsm end = replay(*d.found);
        CHECK(end.replicated().servers.at("vs1").records.size() == 2);
        CHECK(end.replicated().servers.at("vs1").host == node_id{2});
        CHECK(encode_recording(*d.found) == b);
    }
}

TEST_CASE("a machine that was written and read goes on like the one it was taken from") {
    auto d = decode_recording(failover(false));
    REQUIRE(d.found);
    fsm one = *d.found->start;
    for (const recorded_input& i : d.found->inputs) {
        auto other = decode_checkpoint(encode_checkpoint(one));
        REQUIRE(other);
        one.step(i.at, i.in);
        other->step(i.at, i.in);
        REQUIRE(digest(one.take_output()) == digest(other->take_output()));
        REQUIRE(encode_checkpoint(one) == encode_checkpoint(*other));
    }
}

TEST_CASE("the ring forgets the oldest and begins at a checkpoint") {
    auto d = decode_recording(failover(false));
    REQUIRE(d.found);
    fsm machine = *d.found->start;
    recorder ring(recorder::limits{4096, 1 << 20});
    recorder no_room(recorder::limits{4096, 0});
    for (const recorded_input& i : d.found->inputs) {
        ring.before_step(i.at, i.in, machine);
        no_room.before_step(i.at, i.in, machine);
        machine.step(i.at, i.in);
        const output o = machine.take_output();
        ring.after_step(o);
        no_room.after_step(o);
    }
    auto kept = decode_recording(ring.dump("test", "asked", 0, 0));
    REQUIRE(kept.found);
    CHECK(kept.found->before > 0);
    CHECK(kept.found->before + kept.found->inputs.size() == d.found->inputs.size());
    CHECK(encode_checkpoint(replay(*kept.found)) == encode_checkpoint(machine));

    auto shown = decode_recording(no_room.dump("test", "asked", 0, 0));
    REQUIRE(shown.found);
    CHECK(!shown.found->start);
    CHECK(!shown.found->inputs.empty());
}

TEST_CASE("the step that did not return is the last one and has no outputs") {
    parameters one;
    one.self = node_id{1};
    one.life = incarnation{1};
    fsm machine(one, std::nullopt);
    recorder ring;
    ring.before_step(1, input::tick{}, machine);
    ring.after_step({});
    ring.before_step(2, input::kernel_closed{}, machine);
    auto d =
        decode_recording(ring.dump("test", "invariant broken: S1", 1'800'000'000'000'000'000, 3));
    REQUIRE(d.found);
    CHECK(d.found->realtime == 1'800'000'000'000'000'000); // of this century
    REQUIRE(d.found->inputs.size() == 2);
    CHECK(d.found->inputs[0].outputs);
    CHECK(!d.found->inputs[1].outputs);
}

TEST_CASE("a damaged recording is refused") {
    bytes b = failover(true);
    for (std::size_t at : {std::size_t{0}, std::size_t{5}, b.size() / 2, b.size() - 1}) {
        bytes c = b;
        c[at] ^= 1;
        CHECK(!decode_recording(c).found);
    }
    for (std::size_t n : {std::size_t{0}, std::size_t{3}, std::size_t{10}, b.size() - 1})
        CHECK(!decode_recording(std::span(b).first(n)).found);
}

TEST_CASE("a recording that is whole, and holds what this version cannot read") {
    const bytes good = failover(true);
    const auto sealed = [](bytes b) { // with the checksum of what it is now
        wire::writer sum;
        sum.put(wire::checksum(b));
        b.insert(b.end(), sum.out.begin(), sum.out.end());
        return decode_recording(b);
    };
    bytes body(good.begin(), good.end() - 4);
    CHECK(sealed(body).found);
    body.push_back(0);
    CHECK(std::string(sealed(body).fault).find("its inputs cannot be read") == 0);
    body.pop_back();
    body[4] = 99;
    CHECK(std::string(sealed(body).fault).find("another format") != std::string::npos);
    recording_parts p{"test", "asked", 0, 0, 0, bytes{1, 2, 3}, 0, {}};
    CHECK(
        std::string(decode_recording(encode_recording(p)).fault).find("its start cannot be read") ==
        0);
    CHECK(decode_recording(bytes(max_recording + 1)).fault ==
          std::string("longer than any recording"));
}

TEST_CASE("a recording without a start: its inputs can be read") {
    recording r;
    r.made_by = "test";
    r.inputs.push_back({1, input::kernel_tripped{3}, 7u});
    r.inputs.push_back({2, input::tick{}, {}});
    const auto d = decode_recording(encode_recording(r));
    REQUIRE(d.found);
    CHECK_FALSE(d.found->start);
    REQUIRE(d.found->inputs.size() == 2);
    CHECK(std::get<input::kernel_tripped>(d.found->inputs[0].in).trips == 3);
    CHECK(d.found->inputs[0].outputs == 7u);
}

TEST_CASE("no part of a checkpoint is one, none with a tail, and a changed byte does no harm") {
    auto d = decode_recording(failover(false));
    REQUIRE(d.found);
    fsm machine = *d.found->start;
    std::size_t refused = 0;
    for (std::size_t step = 0; step < d.found->inputs.size(); ++step) {
        machine.step(d.found->inputs[step].at, d.found->inputs[step].in);
        machine.take_output();
        if (step % 40 != 5)
            continue;
        bytes b = encode_checkpoint(machine);
        REQUIRE(decode_checkpoint(b));
        for (std::size_t n = 0; n < b.size(); ++n)
            REQUIRE_FALSE(decode_checkpoint(std::span(b).first(n)));
        for (std::size_t n = 0; n < b.size(); ++n)
            for (const std::uint8_t with : {std::uint8_t{0x01}, std::uint8_t{0x80}}) {
                bytes c = b;
                c[n] ^= with;
                refused += !decode_checkpoint(c);
            }
        b.push_back(0);
        CHECK_FALSE(decode_checkpoint(b));
    }
    CHECK(refused > 1000);
}

TEST_CASE("whether a checkpoint fits is known without writing it") {
    auto d = decode_recording(failover(false));
    REQUIRE(d.found);
    const fsm end = replay(*d.found); // two clients on record
    CHECK(checkpoint_fits(end, 1 << 20));
    CHECK_FALSE(checkpoint_fits(end, 100));        // by their number
    CHECK_FALSE(checkpoint_fits(end, 2 * 64 + 2)); // by their names
}

// Recordings are for the version that made them. Where the core's members or behaviour changed on
// purpose: GRACED_REWRITE=1 build/bin/core_recording_test
TEST_CASE("the recording of a failover plays as it did") {
    const std::string file = std::string(RECORDINGS) + "/failover.rec";
    if (getenv("GRACED_REWRITE")) {
        const bytes b = failover(true);
        std::ofstream(file, std::ios::binary)
            .write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
    }
    auto d = decode_recording(read(file));
    REQUIRE_MESSAGE(d.found, d.fault);
    replay(*d.found);
}
