// SPDX-License-Identifier: GPL-2.0-or-later
// watch: asks for status again and again, with the events that came since; on a terminal it draws
// them (watch.cc), else it prints a line for each change.
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/reading.hh"
#include "graced/ctl/watch.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <ostream>

namespace grace::ctl {

namespace {

constexpr std::size_t events_kept = 500;
constexpr std::chrono::seconds ask_limit{2}; // for so long a key waits at most, too

class watcher {
public:
    watcher(session& s, double interval)
        : s_(s)
        , daemon_(s.daemon_name())
        , interval_(interval) {}

    void run() {
        s_.indent = -1;
        const auto first = ask();
        // As of every verb; only later it waits for a daemon that is gone.
        if (const auto answer = s_.heard(first))
            take(*answer);
        else
            return;
        if (!s_.as_json && s_.around.open_screen)
            screen_ = s_.around.open_screen();
        if (!screen_)
            view_.events.clear(); // of before
        add(watch_event(view_.status, s_.around.now(), "watching", whole()));
        do
            show();
        while (s_.around.wait && s_.around.wait(interval_) && look());
    }

private:
    result<json> ask() {
        return s_.around.ask(daemon_, {{"verb", "status"}, {"events_after", last_}}, ask_limit, {});
    }

    bool look() {
        const result<json> answer = ask();
        std::string trouble;
        if (!answer)
            trouble = answer.error().message;
        else if (const json& ok = at(*answer, "ok"); ok == false)
            trouble = text(*answer, "error");
        if (!trouble.empty()) {
            if (view_.trouble.empty())
                add(watch_event(view_.status, s_.around.now(), "gone", {{"detail", trouble}}));
            view_.trouble = trouble;
            return true;
        }
        const bool was_gone = !view_.trouble.empty();
        const json before = std::exchange(view_.status, json());
        take(*answer, was_gone);
        for (json& e : compare_status(before, view_.status, s_.around.now()))
            add(std::move(e));
        return true;
    }

    void take(json answer, bool was_gone = false) {
        const json events = std::exchange(answer["events"], json());
        answer.erase("events");
        view_.status = std::move(answer);
        view_.trouble.clear();
        view_.answered = s_.around.now();
        if (was_gone)
            add(watch_event(view_.status, s_.around.now(), "back", whole()));
        for (json e : events) {
            last_ = std::max(last_, count(e, "number"));
            if (!e.is_object() ||
                text(e, "what") == "node") // how it was at the beginning: no change
                continue;
            e.erase("number");
            add(std::move(e));
        }
    }

    // For who does not see a screen: where it begins.
    json whole() const {
        const json& s = view_.status;
        std::string words = "phase " + text(s, "phase") + ", C " + number(s, "current") + ", R " +
                            number(s, "recovery") +
                            (yes(s, "quorate") ? ", quorate" : ", NOT QUORATE") + ", gate " +
                            text(s, "gate");
        for (const json& server : at(s, "servers"))
            if (yes(server, "need"))
                words += "; server " + text(server, "name") +
                         " NEEDs: " + number(server, "reclaimed") + " of " +
                         number(server, "clients") + " have reclaimed";
        return {{"node", at(at(s, "node"), "name")}, {"detail", words}, {"status", s}};
    }

    void add(json e) { view_.events.push_back(std::move(e)); }

    void show() {
        if (screen_) {
            // There, these are shown as they are.
            std::erase_if(view_.events, [](const json& e) {
                const std::string what = text(e, "what");
                return what == "reclaimed" || what == "waiters" || what == "blocked" ||
                       what == "warning" || what == "watching";
            });
            while (view_.events.size() > events_kept)
                view_.events.pop_front();
            view_.utf8 = screen_->utf8();
            return screen_->show(
                draw_watch(view_, screen_->width(), screen_->height(), s_.around.now()));
        }
        for (const json& e : view_.events)
            if (s_.as_json)
                s_.around.out << e.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
            else
                s_.around.out << watch_time(moment(e, "time").value_or(0)) << ' ' << watch_words(e)
                              << '\n';
        s_.around.out.flush();
        view_.events.clear();
    }

    session& s_;
    const std::string daemon_;
    const double interval_;
    std::uint64_t last_ = 0; // number of the last event that the daemon has told
    watch_view view_;
    std::unique_ptr<watch_screen> screen_;
};

} // namespace

void add_watch_verb(CLI::App& app, session& s) {
    auto interval = std::make_shared<double>(0.5);
    CLI::App* sub = app.add_subcommand(
        "watch",
        "phase, nodes, servers and events as they come; on a terminal as a screen (q: quit), "
        "else a line for each change");
    sub->add_option("--interval", *interval, "ask so often, in seconds")
        ->capture_default_str()
        ->check(CLI::Range(0.1, 60.0));
    sub->footer("Examples:\n"
                "  gracectl watch                      until q or Ctrl-C\n"
                "  gracectl watch | tee grace.log      a line for each change\n"
                "  gracectl watch --json | jq -r 'select(.what == \"died\") | .node'\n");
    sub->callback([&s, interval] { watcher(s, *interval).run(); });
}

} // namespace grace::ctl
