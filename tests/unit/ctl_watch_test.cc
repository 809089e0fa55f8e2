// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl watch: its screen in usual and odd sizes, what it takes for a change, its lines, and
// a daemon that goes and comes back. UTC, and a clock that stands at 2026-01-02T03:04:05.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/ctl/watch.hh"

#include "ctl_clock.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/reading.hh"

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <doctest/doctest.h>
#include <sstream>

using namespace grace;
using namespace grace::ctl;

namespace {

json node(unsigned id, bool enforcing, bool alive = true) {
    return {{"id", id},
            {"name", "node" + std::to_string(id)},
            {"live", alive},
            {"member", alive},
            {"synced", alive},
            {"enforcing", enforcing},
            {"attached", true},
            {"down", !alive},
            {"fenced", alive ? json() : json(false)}};
}

json server(const std::string& name, json host, bool need, unsigned reclaimed, unsigned clients) {
    return {{"name", name},           {"host", std::move(host)},
            {"need", need},           {"clients", clients},
            {"reclaimed", reclaimed}, {"deadline", need ? json(now + 18) : json()},
            {"reclaim_open", need}};
}

const json normal = {{"ok", true},
                     {"node", {{"id", 2}, {"name", "node2"}}},
                     {"state", "cluster"},
                     {"phase", "normal"},
                     {"quorate", true},
                     {"synced", true},
                     {"current", 1},
                     {"recovery", 0},
                     {"since", now - 3700},
                     {"deadline", nullptr},
                     {"gate", "open"},
                     {"lock", {{"mode", "PR"}, {"requested", nullptr}}},
                     {"kernel", {{"bypass", false}, {"waiters", 0}}},
                     {"blocked_by", json::array()},
                     {"warnings", json::array()},
                     {"nodes", {node(1, false), node(2, false), node(3, false)}},
                     {"servers", {server("vs1", 1, false, 0, 3), server("vs2", 3, false, 0, 12)}}};

json reclaiming() {
    json s = normal;
    s.update({{"phase", "reclaiming"},
              {"current", 2},
              {"recovery", 1},
              {"since", now - 12},
              {"deadline", now + 18},
              {"gate", "closed"},
              {"lock", {{"mode", "CW"}, {"requested", nullptr}}},
              {"kernel", {{"bypass", false}, {"waiters", 4}}},
              {"nodes", {node(1, false, false), node(2, true), node(3, true)}},
              {"servers", {server("vs1", 2, true, 2, 3), server("vs2", 3, false, 0, 12)}}});
    s["nodes"][0]["fenced"] = true;
    return s;
}

json event(double ago, const char* what, const json& fields = json::object()) {
    json e = watch_event(reclaiming(), now - ago, what);
    e.update(fields);
    return e;
}

watch_view in_grace() {
    watch_view v{
        .status = reclaiming(), .events = {}, .trouble = {}, .answered = now, .utf8 = true};
    v.events = {event(14.25, "began", {{"detail", "server vs1: node node1 died"}}),
                event(14.25, "died", {{"node", "node1"}}),
                event(14, "enforcing", {{"node", "node3"}}),
                event(12.5, "fenced", {{"node", "node1"}}),
                event(12, "phase", {{"detail", "reclaiming"}}),
                event(11.125, "open", {{"server", "vs1"}, {"node", "node2"}})};
    return v;
}

std::vector<std::string> drawn(const watch_view& v, std::size_t width, std::size_t height) {
    std::vector<std::string> lines;
    for (const screen_line& l : draw_watch(v, width, height, now)) {
        std::string line;
        for (const piece& p : l)
            line += p.text;
        CHECK(width_of(line) <= width);
        line.erase(line.find_last_not_of(' ') + 1);
        lines.push_back(std::move(line));
    }
    CHECK(lines.size() <= height);
    return lines;
}

std::string joined(const std::vector<std::string>& lines) {
    std::string all;
    for (const auto& l : lines)
        all += l + "\n";
    return all;
}

bool contains(const std::string& s, const std::string& part) {
    return s.find(part) != std::string::npos;
}

ink colour_of(const watch_view& v, const std::string& part) {
    for (const screen_line& l : draw_watch(v, 80, 24, now))
        for (const piece& p : l)
            if (contains(p.text, part))
                return p.colour;
    FAIL(part, " is not drawn");
    return ink::plain;
}

std::vector<std::string> changes(const json& before, const json& after) {
    std::vector<std::string> all;
    for (const json& e : compare_status(before, after, now))
        all.push_back(watch_words(e));
    return all;
}

} // namespace

TEST_CASE("a grace at 80x24") {
    const std::string have = joined(drawn(in_grace(), 80, 24));
    const char* want = R"(
 graced on node2                                  q: quit   2026-01-02 03:04:05
 normal → entering → RECLAIMING → lifting           for 12 s, at most 18 s more
 gate here: closed, 4 programs wait   C 2  R 1   quorate   lock CW

NODES  3, 2 live, 2 enforce
  node1    -            dead, fenced
  node2 *  closed, E    up
  node3    closed, E    up

SERVERS  2, 1 NEEDs
  vs1  N node2   ██████████████████░░░░░░░░░░ 2 of 3    reclaims, 18 s left
  vs2    node3                                12 clients  serves

EVENTS
  03:03:50.750  the grace of epoch 2 begins: server vs1: node node1 died
  03:03:50.750  node node1 died
  03:03:51.000  node node3 enforces
  03:03:52.500  node node1 is proven fenced
  03:03:53.000  phase reclaiming
  03:03:53.875  server vs1: reclaim is open on this node
)";
    CHECK(have == want + 1);
}

TEST_CASE("every size: nothing is wider or higher than the terminal, and no size is too small") {
    watch_view many = in_grace();
    many.status["nodes"] = json::array();
    for (unsigned i = 1; i <= 9; ++i)
        many.status["nodes"].push_back(node(i, i != 7));
    many.status["servers"] = json::array();
    for (unsigned i = 1; i <= 40; ++i)
        many.status["servers"].push_back(server(
            "a-server-with-a-rather-long-name-" + std::to_string(i), 1 + i % 9, i > 38, 1, 3));
    many.status["blocked_by"] = {
        "node 7 never attached its gate, or it is bypassed: start graced there", "another reason"};
    for (const watch_view& v : {watch_view{}, in_grace(), many})
        for (const std::size_t width : {1U, 2U, 7U, 40U, 80U, 200U, 1000U})
            for (const std::size_t height : {1U, 2U, 3U, 5U, 10U, 15U, 20U, 24U, 60U, 400U})
                drawn(v, width, height);
    CHECK(drawn(many, 0, 0).empty());
    // 24 lines for 49 rows: who is late and who NEEDs come first.
    const std::string small = joined(drawn(many, 80, 24));
    CHECK(contains(small, "  node7    closing"));
    CHECK(contains(small, "more nodes"));
    CHECK(contains(small, "a-server-with-a-rat… N"));
    CHECK(contains(small, "more servers"));
    CHECK(contains(small, "reclaim is open on this node"));
    const std::string large = joined(drawn(many, 200, 60));
    CHECK(contains(large, "a-server-with-a-rather-long-name-40"));
    CHECK(!contains(large, "more nodes"));
    const std::string narrow = joined(drawn(in_grace(), 40, 10));
    CHECK(contains(narrow, "RECLAIMING"));
    CHECK(contains(narrow, "at most 18 s more"));
    CHECK(contains(narrow, "node3"));
    CHECK(contains(narrow, "vs1"));
}

TEST_CASE("names from elsewhere cannot steer the terminal") {
    watch_view v = in_grace();
    v.status["servers"][0]["name"] = "v\x1b[2Js\xc2\x9b"
                                     "1";
    v.status["nodes"][0]["name"] = "no\nde";
    v.status["blocked_by"] = {"because\r\x07 of it"};
    v.events.push_back(event(1, "done", {{"server", "v\x1b[0m"}}));
    v.trouble = "gone\x1b";
    for (const bool utf8 : {true, false}) {
        v.utf8 = utf8;
        const std::string all = joined(drawn(v, 200, 60));
        for (const char c : all)
            CHECK_MESSAGE((c == '\n' || static_cast<unsigned char>(c) >= 0x20), all);
        CHECK(!contains(all, "\x9b"));
        if (!utf8)
            CHECK(std::ranges::all_of(all, [](char c) { return c > 0; }));
    }
    CHECK(!contains(watch_words(v.events.back()), "\x1b"));
}

TEST_CASE("colours: what is wrong, what goes on, what is good") {
    watch_view v = in_grace();
    CHECK(colour_of(v, "RECLAIMING") == ink::busy);
    CHECK(colour_of(v, "closed, E") == ink::good);
    CHECK(colour_of(v, "dead, fenced") == ink::faint);
    v.events.push_back(event(1, "died", {{"node", "node3"}}));
    CHECK(colour_of(v, "node node3 died") == ink::bad);
    v.status["nodes"][0]["fenced"] = false;
    CHECK(colour_of(v, "NOT PROVEN FENCED") == ink::bad);
    v.status["kernel"]["bypass"] = true;
    CHECK(colour_of(v, "gracectl bypass off") == ink::bad);
    v.status = normal;
    CHECK(colour_of(v, "NORMAL") == ink::good);
}

TEST_CASE("a daemon that does not answer: said, how old the picture is, and nothing looks alive") {
    watch_view v = in_grace();
    v.trouble = "graced is not running on this node";
    v.answered = now - 90;
    CHECK(contains(joined(drawn(v, 80, 24)),
                   "!! graced is not running on this node (shown is how it "
                   "was 1 min 30 s ago;"));
    CHECK(colour_of(v, "not running") == ink::bad);
    CHECK(colour_of(v, "closed, E") == ink::faint);
    CHECK(colour_of(v, "RECLAIMING") == ink::faint);
}

TEST_CASE(
    "what is wrong and what is waited for: in full, else how each begins, else how many more") {
    watch_view v = in_grace();
    const std::string longer =
        "the lock table is an embedded stand-in for the DLM: it protects nothing "
        "beyond this machine; for tests only";
    v.status["warnings"] = {longer};
    CHECK(contains(joined(drawn(v, 80, 24)), "  beyond this machine; for tests only\n"));
    v.status["blocked_by"] = {"one reason", longer, longer};
    std::string all = joined(drawn(v, 80, 24));
    CHECK(contains(all, " waits: one reason\n"));
    CHECK(contains(
        all, " !! the lock table is an embedded stand-in for the DLM: it protects nothing bey…"));
    v.status["warnings"] = {longer, longer, longer};
    all = joined(drawn(v, 80, 24));
    CHECK(contains(all, " waits: the lock table"));
    CHECK(contains(all, " +3 more: gracectl status\n"));
}

TEST_CASE("the bar: full only when all have reclaimed; ASCII where the terminal has no more") {
    watch_view v = in_grace();
    v.status["servers"] = {server("vs1", 2, true, 999'999, 1'000'000)};
    CHECK(contains(joined(drawn(v, 80, 24)), "█░ 999999 of 1000000"));
    v.utf8 = false;
    CHECK(contains(joined(drawn(v, 80, 24)), "#. 999999 of 1000000"));
    v.status["servers"] = {server("vs1", 2, true, 3, 3)};
    CHECK(contains(joined(drawn(v, 80, 24)), "## 3 of 3"));
    v.status["servers"] = {server("vs1", 2, true, 0, 0)};
    CHECK(contains(joined(drawn(v, 80, 24)), "## 0 of 0"));
}

TEST_CASE("changes between two answers") {
    CHECK(changes(normal, normal).empty());
    json is = normal;
    is.update({{"quorate", false}, {"synced", false}, {"gate", "closed"}});
    is["blocked_by"] = {"this node has no quorum"};
    CHECK(changes(normal, is) == std::vector<std::string>{"node2 HAS NO QUORUM",
                                                          "node2 has no state",
                                                          "the gate of node2 is closed",
                                                          "waits: this node has no quorum"});
    json more = is;
    more["kernel"] = {{"bypass", true}, {"waiters", 2}};
    more["nodes"][2]["attached"] = false;
    CHECK(changes(is, more) == std::vector<std::string>{"the gate of node3 is NOT ATTACHED",
                                                        "the gate of node2 is BYPASSED",
                                                        "2 programs wait at the gate of node2"});
    json was = reclaiming();
    is = was;
    is["servers"][0]["reclaimed"] = 3;
    CHECK(changes(was, is) == std::vector<std::string>{"server vs1: 3 of 3 have reclaimed"});
    // Seconds that go on are no news.
    was["warnings"] = {"the DLM lockspace has been frozen for 9 s (fencing of node1)"};
    is = was;
    is["warnings"] = {"the DLM lockspace has been frozen for 10 s (fencing of node1)"};
    CHECK(changes(was, is).empty());
    is["warnings"] = {"the DLM lockspace has been frozen for 10 s (fencing of node3)"};
    CHECK(changes(was, is).size() == 1);
    // Anything may come from a daemon of another version.
    CHECK(changes(json::object(), json::array()).empty());
    CHECK_NOTHROW(
        changes(json::parse(R"({"nodes": 7, "servers": [1, {}], "blocked_by": {"a": 1}})"),
                json::parse(R"({"nodes": [[]], "servers": 3, "warnings": [2]})")));
}

namespace {

// The verb without a terminal; each answer is waited for once.
struct bench {
    std::vector<result<json>> answers;
    std::vector<json> asked;
    std::ostringstream out, err;
    int run(std::vector<const char*> args) {
        args.insert(args.begin(), {"gracectl", "--ipc", "graced"});
        surroundings around{out, err, [] { return now; },
                            [this](const std::string&, const json& request, auto, const auto&) {
                                asked.push_back(request);
                                return answers.at(asked.size() - 1);
                            }};
        around.wait = [this](double) { return asked.size() < answers.size(); };
        return ctl::run(static_cast<int>(args.size()), args.data(), around);
    }
};

json with_events(json status, const std::vector<json>& events, unsigned first = 1) {
    status["events"] = events;
    for (json& e : status["events"])
        e["number"] = first++;
    return status;
}

const error gone{"graced is not running on this node", ECONNREFUSED};

} // namespace

TEST_CASE("lines: where it begins, a line for each change, a daemon that goes and comes back") {
    bench b;
    json later = reclaiming();
    later["servers"][0]["reclaimed"] = 3;
    b.answers = {with_events(normal, {event(900, "lifted")}, 40),
                 with_events(reclaiming(),
                             {event(1, "node", {{"node", "node1"}}),
                              event(1, "began", {{"detail", "server vs1: node node1 died"}})},
                             41),
                 with_events(later, {}),
                 tl::unexpected(gone),
                 tl::unexpected(gone),
                 with_events(later, {})};
    CHECK(b.run({"watch"}) == exit_ok);
    CHECK(b.out.str() ==
          R"(2026-01-02T03:04:05.000+00:00 node2: phase normal, C 1, R 0, quorate, gate open
2026-01-02T03:04:04.000+00:00 the grace of epoch 2 begins: server vs1: node node1 died
2026-01-02T03:04:05.000+00:00 the gate of node2 is closed
2026-01-02T03:04:05.000+00:00 server vs1: 2 of 3 have reclaimed
2026-01-02T03:04:05.000+00:00 4 programs wait at the gate of node2
2026-01-02T03:04:05.000+00:00 server vs1: 3 of 3 have reclaimed
2026-01-02T03:04:05.000+00:00 graced is not running on this node
2026-01-02T03:04:05.000+00:00 graced answers again: node2: phase reclaiming, C 2, R 1, quorate, gate closed; server vs1 NEEDs: 3 of 3 have reclaimed
)");
    CHECK(b.err.str().empty());
    // Each event is asked for once.
    CHECK(b.asked[0] == json{{"verb", "status"}, {"events_after", 0}});
    CHECK(b.asked[1]["events_after"] == 40);
    CHECK(b.asked[2]["events_after"] == 42);
    CHECK(b.asked[5]["events_after"] == 42);
}

TEST_CASE("--json: an object on each line, all with the same fields") {
    bench b;
    b.answers = {with_events(normal, {}), with_events(reclaiming(), {event(1, "phase")}),
                 tl::unexpected(gone), with_events(reclaiming(), {})};
    CHECK(b.run({"--json", "watch"}) == exit_ok);
    std::istringstream lines(b.out.str());
    std::vector<std::string> words;
    for (std::string line; std::getline(lines, line);) {
        const json e = json::parse(line);
        words.push_back(e.at("what"));
        for (const char* key : {"time", "count", "all", "epoch"})
            CHECK_MESSAGE(e.at(key).is_number(), line);
        for (const char* key : {"node", "server", "detail"})
            CHECK_MESSAGE(e.at(key).is_string(), line);
        CHECK(!e.contains("number"));
        CHECK(e.contains("status") == (words.back() == "watching" || words.back() == "back"));
    }
    CHECK(words == std::vector<std::string>{"watching", "phase", "gate", "reclaimed", "waiters",
                                            "gone", "back"});
}

TEST_CASE("exit codes: a daemon that is not there at the beginning is no watch") {
    bench b;
    b.answers = {tl::unexpected(gone)};
    CHECK(b.run({"watch"}) == exit_not_running);
    CHECK(contains(b.err.str(), "not running"));
    bench as_json;
    as_json.answers = {tl::unexpected(gone)};
    CHECK(as_json.run({"watch", "--json"}) == exit_not_running);
    CHECK(json::parse(as_json.out.str())["code"] == "not_running");
    CHECK(bench{}.run({"watch", "--interval", "0"}) == exit_usage);
}

TEST_CASE("a screen: events of before too, and what is shown otherwise is no event") {
    struct shown final : watch_screen {
        explicit shown(std::vector<std::string>& to)
            : all(to) {}
        [[nodiscard]] std::size_t width() const override { return 80; }
        [[nodiscard]] std::size_t height() const override { return 24; }
        [[nodiscard]] bool utf8() const override { return false; }
        void show(const std::vector<screen_line>& lines) override {
            all.emplace_back();
            for (const screen_line& l : lines) {
                for (const piece& p : l)
                    all.back() += p.text;
                all.back() += '\n';
            }
        }
        std::vector<std::string>& all;
    };
    std::vector<std::string> screens, asked;
    std::ostringstream out, err;
    std::vector<json> answers = {with_events(normal, {event(900, "lifted")}),
                                 with_events(reclaiming(), {})};
    surroundings around{out, err, [] { return now; },
                        [&](const std::string&, const json&, auto, const auto&) -> result<json> {
                            asked.emplace_back();
                            return answers.at(asked.size() - 1);
                        }};
    around.open_screen = [&] { return std::make_unique<shown>(screens); };
    around.wait = [&](double) { return asked.size() < answers.size(); };
    const std::vector<const char*> args = {"gracectl", "--ipc", "graced", "watch"};
    CHECK(ctl::run(static_cast<int>(args.size()), args.data(), around) == exit_ok);
    REQUIRE(screens.size() == 2);
    CHECK(contains(screens[0], "NORMAL"));
    CHECK(contains(screens[0], "the grace of epoch 2 is lifted"));
    CHECK(contains(screens[1], "RECLAIMING"));
    CHECK(!contains(screens[1], "have reclaimed"));
    CHECK(contains(screens[1], "the gate of node2 is closed"));
    CHECK(out.str().empty());
}
