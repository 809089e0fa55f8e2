// SPDX-License-Identifier: GPL-2.0-or-later
// What gracectl shows, as golden texts. UTC, and a clock that stands at 2026-01-02T03:04:05.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "ctl_clock.hh"
#include "graced/ctl/render.hh"

#include <cstdlib>
#include <ctime>
#include <doctest/doctest.h>
#include <sstream>

using namespace grace::ctl;
using nlohmann::json;

namespace {

const json normal = json::parse(R"({
  "ok": true, "node": {"id": 1, "name": "node1"}, "state": "cluster", "phase": "normal",
  "quorate": true, "synced": true, "current": 6, "recovery": 0, "since": 1767236645,
  "deadline": null, "gate": "open",
  "lock": {"mode": "PR", "requested": null, "backend": "dlm"},
  "kernel": {"backend": "module", "attached": true, "trips": 0, "waiters": 0, "error": null},
  "blocked_by": [], "warnings": [],
  "nodes": [
    {"id": 1, "name": "node1", "live": true, "member": true, "synced": true, "enforcing": false,
     "attached": true, "down": false, "fenced": null},
    {"id": 2, "name": "node2", "live": true, "member": true, "synced": true, "enforcing": false,
     "attached": true, "down": false, "fenced": null}],
  "servers": [
    {"name": "vs1", "host": 1, "need": false, "start": 7, "clients": 12, "reclaimed": 0,
     "deadline": null, "reclaim_open": false},
    {"name": "vs2", "host": 2, "need": false, "start": 7, "clients": 0, "reclaimed": 0,
     "deadline": null, "reclaim_open": false}],
  "version": "0.1.0"})");

const json reclaiming = json::parse(R"json({
  "ok": true, "node": {"id": 1, "name": "node1"}, "state": "cluster", "phase": "reclaiming",
  "quorate": true, "synced": true, "current": 6, "recovery": 5, "since": 1767323033.4,
  "deadline": 1767323123, "gate": "closed",
  "lock": {"mode": "NL", "requested": "CW", "backend": "embedded"},
  "kernel": {"backend": "module", "attached": true, "trips": 3, "waiters": 1,
             "error": "dlm_ls_stop: another livepatch user holds gfs2_lock"},
  "blocked_by": ["node3: graced never attached its gate",
                 "node4: not proven fenced: the fence agent of node4 failed twice, see the log of dlm_controld on node1 (dlm_tool dump)"],
  "warnings": ["the lock table is embedded: for tests only, no fencing stands behind its locks"],
  "nodes": [
    {"id": 1, "name": "node1", "live": true, "member": true, "synced": true, "enforcing": true,
     "attached": true, "down": false, "fenced": null},
    {"id": 2, "name": "node2", "live": true, "member": true, "synced": false, "enforcing": false,
     "attached": false, "down": false, "fenced": null},
    {"id": 3, "name": "node3", "live": true, "member": false, "synced": false, "enforcing": false,
     "attached": false, "down": false, "fenced": null},
    {"id": 4, "name": "node4", "live": false, "member": false, "synced": false, "enforcing": false,
     "attached": true, "down": true, "fenced": false},
    {"id": 5, "name": "node5", "live": false, "member": false, "synced": false, "enforcing": false,
     "attached": true, "down": true, "fenced": true},
    {"id": 16, "name": "node16", "live": true, "member": false, "synced": false, "enforcing": true,
     "attached": true, "down": false, "fenced": null}],
  "servers": [
    {"name": "vs1", "host": 1, "need": true, "start": 7, "clients": 12, "reclaimed": 3,
     "deadline": 1767323123, "reclaim_open": true},
    {"name": "vs2", "host": null, "need": true, "start": 7, "clients": 1100, "reclaimed": 0,
     "deadline": 1767323000, "reclaim_open": false},
    {"name": "vs3", "host": 9, "need": false, "start": 2, "clients": 4, "reclaimed": 0,
     "deadline": null, "reclaim_open": false},
    {"name": "vs4", "host": null, "need": false, "start": 2, "clients": 4, "reclaimed": 0,
     "deadline": null, "reclaim_open": false}],
  "version": "0.1.0"
})json");

// A golden text starts with a newline for the eye.
void check_golden(const std::string& have, const char* want) {
    CHECK(have == want + 1);
}

} // namespace

TEST_CASE("status: nothing going on") {
    check_golden(render_status(normal, now), R"text(
graced on node1 (node 1), cluster, version 0.1.0

  phase      normal
  epochs     C 6, R 0 (no grace)
  since      2026-01-01T03:04:05+00:00 (1 d ago)
  cluster    quorate
  gate       open, kernel module attached
  lock       PR, dlm

NODE     ID  E  STATE
node1 *   1  -  up
node2     2  -  up

SERVER  N  HOST   CLIENTS  RECLAIMED  STATE
vs1     -  node1       12          -  serves
vs2     -  node2        0          -  serves
)text");
}

TEST_CASE("status: a grace period with everything that can be wrong") {
    check_golden(render_status(reclaiming, now), R"text(
!! WARNING: the lock table is embedded: for tests only, no fencing stands behind
            its locks

graced on node1 (node 1), cluster, version 0.1.0

  phase      reclaiming
  epochs     C 6, R 5
  since      2026-01-02T03:03:53+00:00 (12 s ago)
  at most    until 2026-01-02T03:05:23+00:00 (in 1 min 18 s)
  reclaimed  3 of 1112 clients, of 2 servers
  cluster    quorate
  gate       closed, kernel module attached, 3 trips, 1 waiter
             kernel error: dlm_ls_stop: another livepatch user holds gfs2_lock
  lock       NL, embedded, waits for CW

!! BLOCKED BY node3: graced never attached its gate
!! BLOCKED BY node4: not proven fenced: the fence agent of node4 failed twice,
              see the log of dlm_controld on node1 (dlm_tool dump)

NODE     ID  E  STATE
node1 *   1  E  up
node2     2  -  graced is joining, GATE NOT ATTACHED
node3     3  -  up, graced NEVER RAN since boot
node4     4  -  dead, NOT PROVEN FENCED
node5     5  -  dead, fenced
node16   16  E  up, graced NOT RUNNING

SERVER  N  HOST    CLIENTS  RECLAIMED  STATE
vs1     N  node1        12          3  reclaims, 1 min 18 s left
vs2     N  nobody     1100          0  waits, deadline passed
vs3     -  node 9        4          -  serves
vs4     -  nobody        4          -  not hosted
)text");
}

TEST_CASE("status: no line is wider than the page") {
    std::istringstream lines(render_status(reclaiming, now));
    for (std::string line; std::getline(lines, line);) {
        CHECK_MESSAGE(line.size() <= 80, line);
    }
}

TEST_CASE("status: fields that are missing or of another type") {
    check_golden(render_status(json::object(), now), R"text(
graced on ? (node ?), ?, version ?

  phase      ?
  epochs     C ?, R ?
  cluster    quorum unknown
  gate       ?, kernel ? NOT ATTACHED
  lock       ?, ?

No nodes.

No servers.
)text");
    const json odd = json::parse(
        R"({"node": 3, "phase": [], "current": "x", "since": "now", "deadline": 1e300, "quorate": 1,
            "warnings": [7, null], "blocked_by": "x", "nodes": [1, {}], "servers": [null, {"need": 1}]})");
    CHECK(render_status(odd, now).find("!! WARNING: 7\n") == 0);
    CHECK(!render_servers(odd, now).empty());
    CHECK(!render_nodes(odd).empty());
    CHECK(!render_dump(odd).empty());
    CHECK(!render_clients(odd).empty());
    for (const char* text : {"null", "[]", "3", "\"x\"", "{\"clients\": [3]}"}) {
        const json j = json::parse(text);
        CHECK(!render_status(j, now).empty());
        CHECK(!render_dump(j).empty());
        CHECK(!render_clients(j).empty());
    }
}

TEST_CASE("status: an inquorate node out of sync") {
    json j = normal;
    j["quorate"] = false;
    j["synced"] = false;
    j["phase"] = "unsynced";
    const std::string text = render_status(j, now);
    CHECK(text.find("  phase      unsynced\n") != std::string::npos);
    CHECK(text.find("  cluster    NOT QUORATE, this node is NOT IN SYNC\n") != std::string::npos);
}

TEST_CASE("names cannot steer the terminal") {
    json j = normal;
    j["nodes"][0]["name"] = "evil\x1b[2J\n";
    j["warnings"] = {"a\x1b]0;title\x07"};
    const std::string text = render_status(j, now);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find('\x07') == std::string::npos);
    CHECK(text.find("evil?[2J?") != std::string::npos);
}

TEST_CASE("dump, as rados_grace prints it") {
    CHECK(render_dump(normal) == "cur=6 rec=0\n"
                                 "======================================================\n"
                                 "node1\t  \nnode2\t  \nvs1\t  \nvs2\t  \n");
    CHECK(render_dump(reclaiming) ==
          "cur=6 rec=5\n"
          "======================================================\n"
          "node1\t E\nnode16\t E\nnode2\t  \nnode3\t  \nnode4\t  \nnode5\t  \n"
          "vs1\tN \nvs2\tN \nvs3\t  \nvs4\t  \n");
    // One server on each node, called like it: the lines that rados_grace would have.
    json simple = reclaiming;
    simple["servers"] = {{{"name", "node1"}, {"need", true}}, {{"name", "node2"}, {"need", false}}};
    CHECK(render_dump(simple).find("node1\tNE\n") != std::string::npos);
}

TEST_CASE("clients") {
    const json answer = json::parse(R"({"clients": [
        {"server": "vs1", "name": "Linux NFSv4.1 host1", "name_hex": "4c", "epoch": 5,
         "reclaimed": true, "principal": true, "protocol": "NFSv4"},
        {"server": "vs1", "name": "\\x00\\xff", "name_hex": "00ff", "epoch": 18446744073709551615,
         "reclaimed": false, "principal": false}], "more": false})");
    check_golden(render_clients(answer), R"text(
SERVER                 EPOCH  RECLAIMED  PRINCIPAL  PROTOCOL  CLIENT
vs1                        5  yes        yes        NFSv4     Linux NFSv4.1 host1
vs1     18446744073709551615  -          -          -         \x00\xff
)text");
    CHECK(render_clients(json{{"clients", json::array()}}) == "No clients on record.\n");
}

TEST_CASE("durations and times") {
    CHECK(format_duration(0) == "0 s");
    CHECK(format_duration(59.4) == "59 s");
    CHECK(format_duration(60) == "1 min");
    CHECK(format_duration(185) == "3 min 5 s");
    CHECK(format_duration(7800) == "2 h 10 min");
    CHECK(format_duration(86400 * 3 + 4 * 3600) == "3 d 4 h");
    CHECK(format_time(now, now) == "2026-01-02T03:04:05+00:00 (0 s ago)");
    CHECK(format_time(now + 90, now) == "2026-01-02T03:05:35+00:00 (in 1 min 30 s)");
    CHECK(format_time(-1, now) == "-1.0");
}
