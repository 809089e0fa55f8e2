// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/ctl/watch.hh"

#include "graced/ctl/history.hh"
#include "graced/ctl/reading.hh"
#include "graced/ctl/render.hh"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <ctime>
#include <map>
#include <set>

namespace grace::ctl {

using nlohmann::json;

namespace {

// Names and reasons come from elsewhere: what is drawn of them is printable ASCII, a byte a column.
std::string plain(std::string s) {
    for (char& c : s)
        if (c < 0x20 || c >= 0x7f)
            c = '?';
    return s;
}

std::string name_of(const json& j, const char* key = "name") {
    const json& v = at(j, key);
    return v.is_string() ? plain(v.get<std::string>()) : "?";
}

std::map<std::string, const json*> by(const json& list, const char* key) {
    std::map<std::string, const json*> all;
    for (const json& one : list)
        all[at(one, key).dump()] = &one;
    return all;
}

std::string gate_of(const json& status) {
    return yes(at(status, "kernel"), "bypass") ? "bypassed" : text(status, "gate");
}

// "… has been frozen for 12 s" is the same reason a second later.
std::string without_seconds(const std::string& s) {
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
        std::size_t end = i;
        while (end < s.size() && std::isdigit(static_cast<unsigned char>(s[end])))
            ++end;
        if (end > i && s.compare(end, 2, " s") == 0)
            i = end;
        out += s[i];
    }
    return out;
}

// --- lines ---

std::size_t width_of(const screen_line& l) {
    std::size_t all = 0;
    for (const piece& p : l)
        all += ctl::width_of(p.text);
    return all;
}

// The first `columns` of it.
std::string first_columns(const std::string& s, std::size_t columns) {
    std::size_t bytes = 0;
    while (bytes < s.size() && columns-- > 0)
        do
            ++bytes;
        while (bytes < s.size() && (s[bytes] & 0xc0) == 0x80);
    return s.substr(0, bytes);
}

screen_line clipped(const screen_line& l, std::size_t width, bool utf8) {
    if (width_of(l) <= width)
        return l;
    screen_line out;
    std::size_t left = width == 0 ? 0 : width - 1; // the last column says that there is more
    for (const piece& p : l) {
        out.push_back({first_columns(p.text, left), p.colour});
        const std::size_t took = ctl::width_of(out.back().text);
        left -= took;
        if (took < ctl::width_of(p.text)) {
            if (width != 0)
                out.back().text += utf8 ? "…" : "~";
            break;
        }
    }
    return out;
}

// `right` stands at the right edge if there is room for both.
screen_line spread(screen_line left, const screen_line& right, std::size_t width, ink between) {
    const std::size_t used = width_of(left) + width_of(right);
    if (used + 1 <= width) {
        left.push_back({std::string(width - used, ' '), between});
        left.insert(left.end(), right.begin(), right.end());
    } else if (width_of(left) < width) {
        left.push_back({std::string(width - width_of(left), ' '), between});
    }
    return left;
}

std::vector<std::string> wrapped(const std::string& s, std::size_t width) {
    std::vector<std::string> lines(1);
    for (std::size_t begin = 0; begin < s.size();) {
        const std::size_t end = std::min(s.find(' ', begin), s.size());
        const std::string word = s.substr(begin, end - begin);
        begin = end + 1;
        if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width)
            lines.emplace_back();
        lines.back() += (lines.back().empty() ? "" : " ") + word;
    }
    return lines;
}

std::string clock_time(double t, const char* format) {
    const auto seconds = static_cast<std::time_t>(std::floor(t));
    std::tm local{};
    std::array<char, 64> text{};
    if (!(t >= 0 && t < 253402300800.0) || ::localtime_r(&seconds, &local) == nullptr ||
        std::strftime(text.data(), text.size(), format, &local) == 0)
        return "?";
    return text.data();
}

std::string milliseconds_of(double t) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), ".%03d",
                  static_cast<int>(std::floor((t - std::floor(t)) * 1000)));
    return text.data();
}

// --- the sections ---

struct row {
    screen_line line;
    bool matters = false; // shown before others if there is no room for all
};

class picture {
public:
    picture(const watch_view& v, std::size_t width, std::size_t height, double now)
        : v_(v)
        , s_(v.status)
        , width_(width)
        , height_(height)
        , now_(now)
        , names_(node_names(v.status))
        , grace_(number(v.status, "recovery", "0") != "0") {}

    std::vector<screen_line> draw() {
        const bool roomy = height_ >= 20, titled = height_ >= 15;
        head();
        alarms();
        std::vector<row> nodes = node_rows(), servers = server_rows();
        // What is left is shared: a few lines of events at least, else what the lists need.
        const std::size_t around = (titled ? 3U : 0U) + (roomy ? 3U : 0U);
        std::size_t room = height_ > lines_.size() + around ? height_ - lines_.size() - around : 0;
        const std::size_t events_least = std::min<std::size_t>(room / 4, 4);
        const std::size_t lists = room - events_least;
        std::size_t of_nodes = nodes.size(), of_servers = servers.size();
        if (of_nodes + of_servers > lists) {
            const std::size_t others = std::min(of_servers, lists);
            of_nodes = std::min(of_nodes, std::max(lists / 2, lists - others));
            of_servers = std::min(of_servers, lists - of_nodes);
        }
        section("NODES", summary_of_nodes(), std::move(nodes), of_nodes, "node", titled, roomy);
        section("SERVERS", summary_of_servers(), std::move(servers), of_servers, "server", titled,
                roomy);
        room -= of_nodes + of_servers;
        if (roomy)
            lines_.push_back({});
        if (titled)
            lines_.push_back({{"EVENTS", ink::strong}});
        events(room);
        if (lines_.size() > height_)
            lines_.resize(height_);
        for (std::size_t i = 0; i < lines_.size(); ++i) {
            // What is shown is of the past: nothing of it may look as if it were so.
            if (!v_.trouble.empty() && i != 0 && (i < alarm_begin_ || i > alarm_end_))
                for (piece& p : lines_[i])
                    p.colour = ink::faint;
            lines_[i] = clipped(lines_[i], width_, v_.utf8);
        }
        return std::move(lines_);
    }

private:
    void head() {
        const json& self = at(s_, "node");
        screen_line title = {{" graced on " + name_of(self), ink::bar}};
        if (text(s_, "state", "") == "single")
            title.push_back({", single", ink::bar});
        lines_.push_back(spread(std::move(title),
                                {{"q: quit   " + clock_time(now_, "%F %T") + " ", ink::bar}},
                                width_, ink::bar));
        lines_.push_back(phase());
        lines_.push_back(of_this_node());
    }

    screen_line phase() const {
        const std::string is = text(s_, "phase");
        const ink colour = is == "normal"                         ? ink::good
                           : is == "unsynced" || is == "entering" ? ink::bad
                                                                  : ink::busy;
        std::string upper = is;
        std::ranges::transform(upper, upper.begin(),
                               [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
        std::string so_far, left;
        if (const auto since = moment(s_, "since"); since && now_ >= *since)
            so_far = "for " + format_duration(now_ - *since);
        if (const auto deadline = moment(s_, "deadline"))
            left = *deadline > now_ ? "at most " + format_duration(*deadline - now_) + " more"
                                    : "deadline passed";
        const std::string comma = so_far.empty() || left.empty() ? "" : ", ";
        screen_line times = {{so_far + comma, ink::plain}, {left + " ", ink::strong}};
        screen_line chain = {{" ", ink::plain}};
        for (const char* one : {"normal", "entering", "reclaiming", "lifting"}) {
            if (chain.size() > 1)
                chain.push_back({v_.utf8 ? " → " : " > ", ink::faint});
            chain.push_back(is == one ? piece{upper, colour} : piece{one, ink::faint});
        }
        if (is == "unsynced")
            chain = {{" NO STATE: this node is not in sync", colour}};
        if (width_of(chain) + width_of(times) >= width_)
            chain = {{" " + upper, colour}};
        if (width_of(chain) + width_of(times) >= width_ && !left.empty())
            times.erase(times.begin());
        return spread(std::move(chain), times, width_, ink::plain);
    }

    screen_line of_this_node() const {
        const std::string gate = gate_of(s_);
        screen_line l = {{" gate here: ", ink::plain},
                         {gate == "bypassed" ? "BYPASSED" : gate, gate == "open"     ? ink::good
                                                                  : gate == "closed" ? ink::busy
                                                                                     : ink::bad}};
        if (const std::uint64_t n = count(at(s_, "kernel"), "waiters"); n != 0)
            l.push_back({", " + std::to_string(n) + (n == 1 ? " program waits" : " programs wait"),
                         ink::busy});
        l.push_back({"   C " + number(s_, "current") + "  R " + number(s_, "recovery") + "   ",
                     grace_ ? ink::plain : ink::faint});
        const auto quorate = maybe(s_, "quorate");
        l.push_back(quorate == false ? piece{"NOT QUORATE", ink::bad}
                                     : piece{quorate ? "quorate" : "quorum unknown", ink::plain});
        l.push_back({"   lock " + text(at(s_, "lock"), "mode"), ink::plain});
        if (const std::string wanted = text(at(s_, "lock"), "requested", ""); !wanted.empty())
            l.push_back({", waits for " + wanted, ink::busy});
        return l;
    }

    // What is wrong and what the grace waits for, in full as far as there is room.
    void alarms() {
        struct alarm {
            std::string first, text;
            ink colour;
        };
        std::vector<alarm> all;
        if (!v_.trouble.empty())
            all.push_back({"!! ",
                           plain(v_.trouble) + " (shown is how it was " +
                               format_duration(std::max(0.0, now_ - v_.answered)) +
                               " ago; waiting for it)",
                           ink::bad});
        const auto add = [&](const json& list, const char* first, ink colour) {
            if (list.is_array())
                for (const json& one : list)
                    all.push_back({first,
                                   plain(one.is_string() ? one.get<std::string>() : one.dump()),
                                   colour});
        };
        if (v_.trouble.empty()) {
            if (yes(at(s_, "kernel"), "bypass"))
                all.push_back(
                    {"!! ", "the gate of this node is BYPASSED: gracectl bypass off", ink::bad});
            add(at(s_, "blocked_by"), "waits: ", ink::busy);
            add(at(s_, "warnings"), "!! ", ink::bad);
        }
        // At most so many lines of each; the last one is cut off at the edge if there is more.
        const auto lay_out = [&](std::size_t of_each) {
            std::vector<screen_line> lines;
            for (const alarm& a : all) {
                const std::string indent(a.first.size() + 1, ' ');
                const auto parts = wrapped(a.text, width_ - std::min(width_, indent.size() + 1));
                for (std::size_t i = 0; i < std::min(parts.size(), of_each); ++i) {
                    const bool cut = i + 1 == of_each && i + 1 < parts.size();
                    lines.push_back({{i == 0 ? " " + a.first : indent, a.colour},
                                     {parts[i] + (cut ? " " + parts[i + 1] : ""), a.colour}});
                }
            }
            return lines;
        };
        const std::size_t most = std::max<std::size_t>(1, height_ / 5);
        std::vector<screen_line> shown = lay_out(most + 1);
        if (shown.size() > most)
            shown = lay_out(std::max<std::size_t>(1, most / all.size()));
        if (shown.size() > most) {
            shown.resize(most);
            shown.back() = {
                {" +" + std::to_string(all.size() - most + 1) + " more: gracectl status",
                 all[most - 1].colour}};
        }
        alarm_begin_ = lines_.size();
        for (screen_line& l : shown)
            lines_.push_back(std::move(l));
        alarm_end_ = lines_.size() - 1;
    }

    std::string summary_of_nodes() const {
        std::size_t live = 0, enforce = 0;
        for (const json& n : at(s_, "nodes")) {
            live += yes(n, "live");
            enforce += yes(n, "enforcing");
        }
        return std::to_string(at(s_, "nodes").size()) + ", " + std::to_string(live) + " live" +
               (grace_ ? ", " + std::to_string(enforce) + " enforce" : "");
    }
    std::string summary_of_servers() const {
        std::size_t need = 0, unhosted = 0;
        for (const json& s : at(s_, "servers")) {
            need += yes(s, "need");
            unhosted += at(s, "host").is_null();
        }
        return std::to_string(at(s_, "servers").size()) +
               (need != 0 ? ", " + std::to_string(need) + (need == 1 ? " NEEDs" : " NEED") : "") +
               (unhosted != 0 ? ", " + std::to_string(unhosted) + " not hosted" : "");
    }

    std::size_t widest(const json& list) const {
        std::size_t w = 4;
        for (const json& one : list)
            w = std::max(w, name_of(one).size());
        return std::min(w, std::max<std::size_t>(8, width_ / 4));
    }
    std::string shortened(const std::string& s, std::size_t width) const {
        return padded(clipped({{s, ink::plain}}, width, v_.utf8).front().text, width);
    }

    std::vector<row> node_rows() const {
        std::vector<row> rows;
        const std::string self = number(at(s_, "node"), "id", "");
        const std::size_t wide = widest(at(s_, "nodes")) + 2;
        for (const json& n : at(s_, "nodes")) {
            const bool here = number(n, "id") == self, live = yes(n, "live"),
                       enforces = yes(n, "enforcing"), gated = yes(n, "attached");
            // Of others it is known what the protocol says: a gate that may be open, by its permit.
            piece gate = {"-", ink::faint};
            if (here && gate_of(s_) == "bypassed")
                gate = {"BYPASSED", ink::bad};
            else if (enforces)
                gate = {"closed, E", ink::good};
            else if (grace_ && live && gated)
                gate = {"closing", ink::busy};
            else if (here)
                gate = {text(s_, "gate"), gate_of(s_) == "open" ? ink::good : ink::busy};
            else if (live && gated && yes(n, "synced"))
                gate = {"may be open", ink::good};
            const std::string state = node_state(n);
            const bool fine = live && yes(n, "synced") && gated && (!grace_ || enforces);
            const bool dead = !live && maybe(n, "fenced") == true;
            gate.text = padded(gate.text, 13);
            rows.push_back({{{"  ", ink::plain},
                             {shortened(name_of(n) + (here ? " *" : ""), wide + 2), ink::strong},
                             gate,
                             {state, fine   ? ink::plain
                                     : dead ? ink::faint
                                            : ink::bad}},
                            !fine && !dead});
        }
        return rows;
    }

    std::string bar(std::uint64_t part, std::uint64_t all, std::size_t width) const {
        std::size_t full = width;
        if (part < all) // full is full only when it is
            full = std::min<std::size_t>(
                width == 0 ? 0 : width - 1,
                static_cast<std::size_t>(static_cast<double>(part) / static_cast<double>(all) *
                                         static_cast<double>(width)));
        std::string s;
        for (std::size_t i = 0; i < width; ++i)
            s += i < full ? (v_.utf8 ? "█" : "#") : (v_.utf8 ? "░" : ".");
        return s;
    }

    std::vector<row> server_rows() const {
        std::vector<row> rows;
        const json& servers = at(s_, "servers");
        const std::string self = number(at(s_, "node"), "id", "");
        const std::size_t wide = widest(servers);
        std::size_t host_wide = 6, count_wide = 0;
        bool bars = false;
        for (const json& s : servers) {
            host_wide = std::max(host_wide, plain(host_of(s, names_)).size());
            const std::string clients = number(s, "clients");
            count_wide = std::max(count_wide, clients.size());
            bars = bars || yes(s, "need") || count(s, "reclaimed") != 0;
        }
        host_wide = std::min(host_wide, std::max<std::size_t>(8, width_ / 5));
        const std::size_t counts = 2 * count_wide + 4; // "2 of 3"
        const std::size_t states = 24, others = 2 + wide + 3 + host_wide + 2 + counts + 3 + states;
        const std::size_t bar_wide =
            !bars ? 0 : std::clamp<std::size_t>(width_ > others ? width_ - others : 0, 6, 60);
        for (const json& s : servers) {
            const bool need = yes(s, "need"), hosted = !at(s, "host").is_null();
            const std::uint64_t all = count(s, "clients"), done = count(s, "reclaimed");
            const bool took_part = need || done != 0;
            std::string state = hosted ? "serves" : "not hosted";
            if (need) {
                state = !hosted                             ? "waits for a host"
                        : yes(s, "reclaim_open")            ? "reclaims"
                        : number(s, "host") == self         ? "waits"
                        : text(s_, "phase") == "reclaiming" ? "reclaims there"
                                                            : "waits";
                if (const auto deadline = moment(s, "deadline"))
                    state += *deadline > now_ ? ", " + format_duration(*deadline - now_) + " left"
                                              : ", deadline passed";
            } else if (took_part) {
                state = "done";
            }
            const ink colour = need ? ink::busy : took_part ? ink::good : ink::plain;
            screen_line l = {{"  ", ink::plain},
                             {shortened(name_of(s), wide), ink::strong},
                             {need ? " N " : "   ", ink::busy},
                             {shortened(plain(host_of(s, names_)), host_wide + 1),
                              hosted ? ink::plain : ink::busy},
                             {" ", ink::plain}};
            if (took_part)
                l.push_back({bar(done, all, bar_wide) + " ", colour});
            else if (bars)
                l.push_back({std::string(bar_wide + 1, ' '), ink::plain});
            const std::string numbers =
                took_part ? std::to_string(done) + " of " + std::to_string(all)
                          : std::to_string(all) + (all == 1 ? " client" : " clients");
            l.push_back({padded(numbers, bars ? counts : count_wide + 8), ink::plain});
            l.push_back({"  " + state, took_part ? colour : hosted ? ink::plain : ink::faint});
            rows.push_back({std::move(l), need});
        }
        return rows;
    }

    void section(const char* title, const std::string& summary, std::vector<row> rows,
                 std::size_t room, const std::string& one, bool titled, bool roomy) {
        if (roomy)
            lines_.push_back({});
        if (titled)
            lines_.push_back({{title, ink::strong}, {"  " + summary, ink::faint}});
        if (room == 0)
            return;
        std::size_t shown = rows.size();
        if (shown > room) {
            shown = room - 1;
            std::ranges::stable_partition(rows, [](const row& r) { return r.matters; });
        }
        for (std::size_t i = 0; i < shown; ++i)
            lines_.push_back(std::move(rows[i].line));
        if (const std::size_t left = rows.size() - shown; left != 0)
            lines_.push_back(
                {{"  +" + std::to_string(left) + " more " + one + (left == 1 ? "" : "s"),
                  ink::faint}});
    }

    // The newest at the bottom.
    void events(std::size_t room) {
        const std::size_t n = std::min(room, v_.events.size());
        for (std::size_t i = v_.events.size() - n; i < v_.events.size(); ++i) {
            const json& e = v_.events[i];
            const double t = moment(e, "time").value_or(0);
            const bool old = now_ - t > 86400;
            lines_.push_back({{"  " +
                                   (old ? clock_time(t, "%m-%d %H:%M ")
                                        : clock_time(t, "%T") + milliseconds_of(t)) +
                                   "  ",
                               ink::faint},
                              {watch_words(e), colour_of(e)}});
        }
        if (v_.events.empty() && room != 0)
            lines_.push_back({{"  none yet", ink::faint}});
    }
    static ink colour_of(const json& e) {
        static const std::set<std::string> bad = {"died",     "left",     "lost",
                                                  "gone",     "unsynced", "not_enforcing",
                                                  "detached", "warning",  "inquorate"};
        static const std::set<std::string> good = {"lifted", "back", "synced", "quorate"};
        const std::string what = text(e, "what");
        if (what == "gate")
            return text(e, "detail") == "bypassed" ? ink::bad : ink::plain;
        return bad.contains(what)                   ? ink::bad
               : good.contains(what)                ? ink::good
               : what == "began" || what == "phase" ? ink::busy
                                                    : ink::plain;
    }

    const watch_view& v_;
    const json& s_;
    const std::size_t width_, height_;
    const double now_;
    const std::map<std::string, std::string> names_;
    const bool grace_;
    std::size_t alarm_begin_ = 0, alarm_end_ = 0;
    std::vector<screen_line> lines_;
};

} // namespace

json watch_event(const json& status, double now, const char* what, const json& fields) {
    json e = {{"time", std::floor(now * 1000) / 1000},
              {"what", what},
              {"node", ""},
              {"server", ""},
              {"detail", ""},
              {"count", 0},
              {"all", 0},
              {"epoch", number(status, "recovery", "0") == "0" ? json(0) : at(status, "current")}};
    e.update(fields);
    return e;
}

std::vector<json> compare_status(const json& before, const json& after, double now) {
    std::vector<json> all;
    const auto say = [&](const char* what, const json& fields = json::object()) {
        all.push_back(watch_event(after, now, what, fields));
    };
    const json self = name_of(at(after, "node"));
    const auto turned = [&](const char* key, const char* on, const char* off) {
        if (maybe(before, key) != maybe(after, key))
            say(yes(after, key) ? on : off, {{"node", self}});
    };
    turned("quorate", "quorate", "inquorate");
    turned("synced", "synced", "unsynced");
    const auto nodes = by(at(before, "nodes"), "id");
    for (const json& n : at(after, "nodes"))
        if (const auto was = nodes.find(at(n, "id").dump());
            was != nodes.end() && yes(n, "live") &&
            maybe(*was->second, "attached") != maybe(n, "attached"))
            say(yes(n, "attached") ? "attached" : "detached", {{"node", name_of(n)}});
    if (gate_of(before) != gate_of(after))
        say("gate", {{"node", self}, {"detail", gate_of(after)}});
    const auto servers = by(at(before, "servers"), "name");
    for (const json& s : at(after, "servers")) {
        const auto was = servers.find(at(s, "name").dump());
        const std::uint64_t before_now =
            was == servers.end() ? 0 : count(*was->second, "reclaimed");
        if (count(s, "reclaimed") > before_now)
            say("reclaimed",
                {{"server", name_of(s)}, {"count", at(s, "reclaimed")}, {"all", at(s, "clients")}});
    }
    if (const json& was = at(at(before, "kernel"), "waiters"),
        &is = at(at(after, "kernel"), "waiters");
        was != is && is.is_number())
        say("waiters", {{"node", self}, {"count", is}});
    for (const auto& [key, what] : {std::pair{"blocked_by", "blocked"}, {"warnings", "warning"}}) {
        std::set<std::string> known;
        for (const json& one : at(before, key))
            known.insert(without_seconds(one.is_string() ? one.get<std::string>() : one.dump()));
        for (const json& one : at(after, key))
            if (one.is_string() && !known.contains(without_seconds(one.get<std::string>())))
                say(what, {{"node", self}, {"detail", one}});
    }
    return all;
}

std::string watch_words(const json& e) {
    const std::string what = text(e, "what"), node = text(e, "node", ""),
                      server = text(e, "server", ""), detail = text(e, "detail", "");
    const std::string grace = "the grace of epoch " + number(e, "epoch");
    std::string words;
    if (what == "began")
        words = grace + " begins: " + detail;
    else if (what == "found")
        words = "this node comes in the midst of " + grace;
    else if (what == "lifted")
        words = grace + " is lifted";
    else if (what == "followed")
        words = "another grace begins before that of epoch " + number(e, "epoch") + " is lifted";
    else if (what == "unknown")
        words = grace + " is over; this node was away when it ended";
    else if (what == "watching" || what == "back")
        words = (what == "back" ? "graced answers again: " : "") + node + ": " + detail;
    else if (what == "gone")
        words = detail;
    else if (what == "quorate" || what == "inquorate")
        words = node + (what == "quorate" ? " has quorum" : " HAS NO QUORUM");
    else if (what == "synced" || what == "unsynced")
        words = node + (what == "synced" ? " has the state" : " has no state");
    else if (what == "attached" || what == "detached")
        words = "the gate of " + node + (what == "attached" ? " is attached" : " is NOT ATTACHED");
    else if (what == "gate")
        words = "the gate of " + node + " is " + (detail == "bypassed" ? "BYPASSED" : detail);
    else if (what == "reclaimed")
        words = "server " + server + ": " + number(e, "count") + " of " + number(e, "all") +
                " have reclaimed";
    else if (what == "waiters")
        words = number(e, "count") + " programs wait at the gate of " + node;
    else if (what == "blocked")
        words = "waits: " + detail;
    else if (what == "warning")
        words = "!! " + detail;
    else
        words = event_in_words(e);
    return plain(words);
}

std::string watch_time(double t) {
    std::string zone = clock_time(t, "%z");
    if (zone.size() == 5)
        zone.insert(3, ":");
    return clock_time(t, "%FT%T") + milliseconds_of(t) + zone;
}

std::vector<screen_line> draw_watch(const watch_view& v, std::size_t width, std::size_t height,
                                    double now) {
    return width == 0 || height == 0 ? std::vector<screen_line>{}
                                     : picture(v, width, height, now).draw();
}

} // namespace grace::ctl
