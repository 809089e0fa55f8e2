// SPDX-License-Identifier: GPL-2.0-or-later
// What `gracectl watch` shows: from two answers of the daemon what has changed in between, from one
// the lines of a screen of any size. Pure. watch_verb.cc asks and prints, terminal.cc has the
// terminal.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace grace::ctl {

// Colours mean the same everywhere: good, to look at, wrong.
enum class ink : std::uint8_t { plain, faint, strong, bar, good, busy, bad };
struct piece {
    std::string text; // one column a character; never more than the width in all
    ink colour = ink::plain;
    bool operator==(const piece&) const = default;
};
using screen_line = std::vector<piece>;

struct watch_view {
    nlohmann::json status;             // the last answer to `status`
    std::deque<nlohmann::json> events; // the newest last
    std::string trouble;               // why the daemon does not answer; empty: it does
    double answered = 0;               // when it did last, seconds since 1970
    bool utf8 = false;                 // the terminal shows more than ASCII
};

// The events of this node that the daemon does not tell: reclaims, its gate, quorum, what waits.
// Each has the fields of event_json.hh and `epoch`; gracectl(8) lists the words.
std::vector<nlohmann::json> compare_status(const nlohmann::json& before,
                                           const nlohmann::json& after, double now);
nlohmann::json watch_event(const nlohmann::json& status, double now, const char* what,
                           const nlohmann::json& fields = nlohmann::json::object());
// An event as a line, without its time; printable ASCII.
std::string watch_words(const nlohmann::json& event);
// 2026-01-02T03:04:05.678+01:00
std::string watch_time(double realtime);

// At most `height` lines of at most `width` columns. What does not fit is counted: "+3 more".
std::vector<screen_line> draw_watch(const watch_view&, std::size_t width, std::size_t height,
                                    double now);

// A terminal that is drawn on; its end restores it.
class watch_screen {
public:
    virtual ~watch_screen() = default;
    [[nodiscard]] virtual std::size_t width() const = 0;
    [[nodiscard]] virtual std::size_t height() const = 0;
    [[nodiscard]] virtual bool utf8() const = 0;
    virtual void show(const std::vector<screen_line>&) = 0;
};

} // namespace grace::ctl
