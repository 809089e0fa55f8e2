// SPDX-License-Identifier: GPL-2.0-or-later
// One machine, and inputs in an order that a cluster rarely gives: answers that come late, twice or
// never, requests at the wrong moment.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "core_bench.hh"

#include <doctest/doctest.h>

using namespace grace;

TEST_CASE("a machine by itself opens its gate when its heartbeat has come back") {
    bench b;
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
