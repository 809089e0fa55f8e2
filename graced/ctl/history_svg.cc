// SPDX-License-Identifier: GPL-2.0-or-later
// A grace as a picture for a postmortem: time goes to the right; the phases on top, below them what
// each node was in, below that each server that NEEDed. Colours can be told apart by people who see
// few of them, and on paper; each bar that has room says in words what it is.
#include "graced/ctl/history.hh"
#include "graced/ctl/render.hh"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <vector>

namespace grace::ctl {

using nlohmann::json;

namespace {

constexpr double width = 1080, left = 170, right = 24, row = 30, bar = 20;
constexpr std::size_t max_nodes_drawn = 64, max_servers_drawn = 40;

struct look {
    const char* word;
    const char* fill;
    const char* text;
};
// By Okabe and Ito, with lighter shades for what lasts.
constexpr look open_gate = {"open", "#cdeadf", "#1d4d3d"};
constexpr look closing = {"closing", "#f3b08c", "#5b2507"};
constexpr look enforces = {"enforces", "#d9dde3", "#333b47"};
constexpr look reclaims = {"takes reclaims", "#f7d774", "#594400"};
constexpr look away = {"no graced", "#b9a7cf", "#2e1f47"};
constexpr look dead = {"dead", "#4a4f57", "#ffffff"};
constexpr look needs = {"NEEDs", "#f7d774", "#594400"};
constexpr look entering = {"entering", "#f3b08c", "#5b2507"};
constexpr look reclaiming = {"reclaiming", "#f7d774", "#594400"};
constexpr look lifting = {"lifting", "#9cc9ec", "#0b3a5e"};

std::string escaped(const std::string& s) {
    std::string out;
    for (const char c : s) {
        switch (c) {
        case '&':
            out += "&amp;";
            break;
        case '<':
            out += "&lt;";
            break;
        case '>':
            out += "&gt;";
            break;
        case '"':
            out += "&quot;";
            break;
        default: // XML 1.0 has no other control characters, escaped or not
            out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
        }
    }
    return out;
}

std::string px(double v) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f", v);
    return text.data();
}

// About as wide as the text will be, at 12 px.
double width_of(const std::string& s) {
    return 6.6 * static_cast<double>(
                     std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string shortened(const std::string& s, double room) {
    if (width_of(s) <= room)
        return s;
    const auto n = static_cast<std::size_t>(std::max(1.0, room / 6.6 - 1));
    std::size_t bytes = 0, letters = 0;
    while (bytes < s.size() && letters < n) {
        do
            ++bytes;
        while (bytes < s.size() && (s[bytes] & 0xc0) == 0x80);
        ++letters;
    }
    return s.substr(0, bytes) + "…";
}

std::string lasted(double seconds) {
    std::array<char, 32> text{};
    if (seconds < 10)
        std::snprintf(text.data(), text.size(), "%.2f s", seconds);
    else if (seconds < 120)
        std::snprintf(text.data(), text.size(), "%.1f s", seconds);
    else
        return format_duration(std::round(seconds));
    return text.data();
}

class picture {
public:
    explicit picture(const json& g)
        : grace_(g)
        , began_(g["began"].get<double>()) {
        double last = began_;
        for (const json& e : g["events"])
            last = std::max(last, e["time"].get<double>());
        over_ = g["ended"].is_number();
        ended_ = std::max(over_ ? g["ended"].get<double>() : last, began_ + 0.001);
        // Room for what was before and after.
        before_ = (ended_ - began_) * 0.06;
        scale_ = (width - left - right) / (ended_ - began_ + 2 * before_);
    }

    std::string draw() {
        header();
        const double top = y_;
        phases();
        y_ += 8;
        nodes();
        y_ += 8;
        servers();
        marks(top);
        axis(top);
        legend();
        return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + px(width) + "\" height=\"" +
               px(y_) + "\" viewBox=\"0 0 " + px(width) + " " + px(y_) +
               "\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"12\">\n"
               "<title>" +
               escaped("graced: grace of epoch " + grace_["epoch"].dump()) +
               "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n" + under_ +
               out_ + over_all_ + "</svg>\n";
    }

private:
    double x(double t) const { return left + (t - began_ + before_) * scale_; }
    // Else nobody here knows what was before.
    bool seen_from_the_start() const { return !grace_["why"].get<std::string>().empty(); }
    double first() const { return began_ - before_; }
    double last() const { return ended_ + before_; }

    void text(std::string& to, double at, double y, const std::string& s,
              const std::string& attributes = "") {
        to += "<text x=\"" + px(at) + "\" y=\"" + px(y) + "\" " +
              (attributes.empty() ? "fill=\"#222222\"" : attributes) + ">" + escaped(s) +
              "</text>\n";
    }
    void label(const std::string& s, const std::string& attributes = "fill=\"#222222\"") {
        text(out_, left - 10, y_ + bar - 5, shortened(s, left - 20),
             attributes + " text-anchor=\"end\"");
    }
    // From `a` to `b`, with its word if there is room; the tooltip has all of it.
    void stretch(double a, double b, const look& l, const std::string& word,
                 const std::string& tip) {
        const double wide = std::max((b - a) * scale_, 1.5);
        out_ += "<rect x=\"" + px(x(a)) + "\" y=\"" + px(y_) + "\" width=\"" + px(wide) +
                "\" height=\"" + px(bar) + "\" fill=\"" + l.fill + "\"><title>" + escaped(tip) +
                "</title></rect>\n";
        if (const std::string shown = width_of(word) + 8 <= wide ? word : std::string(l.word);
            width_of(shown) + 8 <= wide)
            text(out_, x(a) + wide / 2, y_ + bar - 6, shown,
                 std::string("fill=\"") + l.text + "\" text-anchor=\"middle\" font-size=\"11\"");
        used_.insert(l.word);
    }
    void title_of_rows(const char* s) {
        text(out_, 14, y_ + 10, s, "fill=\"#6b7280\" font-size=\"11\" font-weight=\"bold\"");
        y_ += 16;
    }

    void header() {
        text(out_, 14, 28, "Grace of epoch " + grace_["epoch"].dump(),
             "fill=\"#111111\" font-size=\"18\" font-weight=\"bold\"");
        std::string how = format_time(began_, began_);
        how = how.substr(0, how.find(" ("));
        how = "began " + how +
              (over_ ? ", " + grace_.value("outcome", std::string()) + " after " +
                           lasted(ended_ - began_)
                     : ", as far as it is known here");
        text(out_, width - right, 28, how, "fill=\"#444444\" text-anchor=\"end\"");
        std::string why = grace_["why"];
        if (why.empty())
            why = "this node came in the midst of it";
        if (!grace_["purger"].is_null())
            why += "; node " + grace_["purger"].get<std::string>() + " purged " +
                   grace_["purged"].dump() + (grace_["purged"] == 1 ? " client" : " clients");
        text(out_, 14, 48, shortened(why, width - 40), "fill=\"#444444\"");
        y_ = 66;
    }

    void phases() {
        label("phase", "fill=\"#222222\" font-weight=\"bold\"");
        if (seen_from_the_start())
            stretch(first(), began_, open_gate, "", "normal");
        for (const json& p : grace_["phases"]) {
            const double from = p["began"].get<double>();
            const double to = p["ended"].is_number() ? p["ended"].get<double>() : ended_;
            const std::string name = p["phase"];
            const look& l = name == "entering"     ? entering
                            : name == "reclaiming" ? reclaiming
                                                   : lifting;
            stretch(from, to, l, name + " " + lasted(to - from), name + ", " + lasted(to - from));
        }
        if (over_ && grace_["outcome"] == "lifted")
            stretch(ended_, last(), open_gate, "", "normal");
        y_ += row;
    }

    // Each node's changes in order; what it was in between two of them is one bar.
    void nodes() {
        std::vector<std::string> names;
        for (const json& e : grace_["events"]) {
            const std::string what = e["what"], node = e["node"];
            const bool about = what == "node" || what == "enforcing" || what == "joined" ||
                               what == "died" || what == "left";
            if (about && !node.empty() && std::ranges::find(names, node) == names.end())
                names.push_back(node);
        }
        if (names.empty())
            return;
        title_of_rows("NODES");
        std::size_t drawn = 0;
        for (const std::string& name : names) {
            if (++drawn > max_nodes_drawn)
                break;
            label(name);
            node_row(name);
            y_ += row;
        }
    }
    void node_row(const std::string& name) {
        const look* is = nullptr;
        const look* was_alive = &open_gate;
        double since = first();
        bool enforcing = false, taking = false;
        std::set<std::string> serves; // servers that NEED, here
        std::string phase;
        const auto turn = [&](double at, const look* to) {
            if (to == is)
                return;
            if (is && at > since)
                stretch(since, at, *is, is->word,
                        name + ": " + is->word + ", " + lasted(at - since));
            is = to;
            since = at;
        };
        const auto judge = [&](double at) {
            taking = enforcing && phase == "reclaiming" && !serves.empty();
            turn(at, taking ? &reclaims : enforcing ? &enforces : was_alive);
        };
        if (seen_from_the_start())
            turn(first(), &open_gate);
        for (const json& e : grace_["events"]) {
            const std::string what = e["what"], server = e["server"];
            const bool here = e["node"] == name;
            const double at = e["time"].get<double>();
            if (what == "node" && here) {
                was_alive = e["detail"] == "up" ? &closing : e["detail"] == "down" ? &dead : &away;
                if (was_alive != &closing && is)
                    is = was_alive; // before, too
            } else if (what == "enforcing" && here) {
                enforcing = true;
            } else if (what == "not_enforcing" && here) {
                enforcing = false;
                was_alive = &closing;
            } else if (what == "died" && here) {
                enforcing = false;
                was_alive = &dead;
            } else if (what == "left" && here) {
                enforcing = false;
                was_alive = &away;
            } else if (what == "joined" && here) {
                was_alive = &closing;
            } else if (what == "need" || what == "hosted") {
                if (here)
                    serves.insert(server);
                else
                    serves.erase(server);
            } else if (what == "done") {
                serves.erase(server);
            } else if (what == "phase") {
                phase = e["detail"];
            } else {
                continue;
            }
            judge(std::max(at, began_));
        }
        if (over_ && grace_["outcome"] == "lifted") {
            judge(ended_);
            if (enforcing || was_alive == &closing)
                turn(ended_, &open_gate);
            turn(last(), nullptr);
        } else {
            turn(ended_, nullptr);
        }
    }

    void servers() {
        if (grace_["servers"].empty())
            return;
        title_of_rows("SERVERS");
        std::size_t drawn = 0;
        for (const json& s : grace_["servers"]) {
            if (++drawn > max_servers_drawn) {
                label("and " + std::to_string(grace_["servers"].size() - max_servers_drawn) +
                      " more");
                y_ += row;
                break;
            }
            const std::string name = s["name"];
            label(name);
            server_row(name, s);
            y_ += row;
        }
    }
    void server_row(const std::string& name, const json& s) {
        std::string tale;
        if (s["host"].is_string())
            tale += "on " + s["host"].get<std::string>() + ": ";
        if (s["reclaimed"].is_number())
            tale += s["reclaimed"].dump() + " of " + s["clients"].dump() + " reclaimed";
        else
            tale += s["clients"].dump() + " on record";
        if (s["purged"].is_number() && s["purged"] != 0)
            tale += ", " + s["purged"].dump() + " purged";
        double since = -1, end = -1;
        for (const json& e : grace_["events"]) {
            if (e["server"] != name)
                continue;
            const double at = e["time"].get<double>();
            if (e["what"] == "need" && since < 0)
                since = at;
            if (e["what"] == "done" && since >= 0) {
                stretch(since, at, needs, tale,
                        name + " NEEDed " + lasted(at - since) + ", " + tale);
                since = -1;
                end = at;
            }
            if (e["what"] == "open")
                over_all_ +=
                    "<path d=\"M" + px(x(at)) + " " + px(y_) + "v" + px(bar) +
                    "\" stroke=\"#594400\" stroke-width=\"2\"><title>reclaim opens here, " +
                    escaped(lasted(at - began_)) + "</title></path>\n";
        }
        if (since >= 0) {
            stretch(since, ended_, needs, tale, name + ": " + tale);
            end = ended_;
        }
        // No room within: beside it, where there is more.
        if (end >= 0) {
            const double from = x(s["needed"].is_number() ? s["needed"].get<double>() : began_);
            if (width_of(tale) + 8 > x(end) - from) {
                const bool behind = width - right - x(end) > width_of(tale) + 10;
                text(out_, behind ? x(end) + 6 : from - 6, y_ + bar - 6, tale,
                     std::string("fill=\"#444444\" font-size=\"11\"") +
                         (behind ? "" : " text-anchor=\"end\""));
            }
        }
    }

    // What happened at one moment: a line through all rows, with its word above the axis.
    void marks(double top) {
        struct mark {
            double at;
            std::string word;
        };
        std::vector<mark> all;
        for (const json& e : grace_["events"]) {
            const std::string what = e["what"], node = e["node"];
            if (what == "died")
                all.push_back({e["time"].get<double>(), node + " died"});
            else if (what == "fenced")
                all.push_back({e["time"].get<double>(), node + " fenced"});
            else if (what == "purge")
                all.push_back({e["time"].get<double>(), "purge by " + node});
            else if (what == "lost")
                all.push_back({e["time"].get<double>(), "no state here"});
            else if (what == "found" && e["time"] != grace_["began"])
                all.push_back({e["time"].get<double>(), "here again"});
        }
        constexpr std::size_t most = 24;
        if (all.size() > most)
            all.resize(most);
        y_ += 4;
        std::vector<double> taken; // where each line of words is free from
        for (const mark& m : all) {
            const double wide = width_of(m.word) + 10;
            const bool turned = x(m.at) + wide > width - right;
            const double from = turned ? x(m.at) - wide : x(m.at);
            std::size_t line = 0;
            while (line < taken.size() && taken[line] > from)
                ++line;
            if (line == taken.size())
                taken.push_back(0);
            taken[line] = from + wide;
            const double y = y_ + 12 + 15 * static_cast<double>(line);
            under_ += "<path d=\"M" + px(x(m.at)) + " " + px(top) + "V" + px(y) +
                      "\" stroke=\"#9aa1ab\" stroke-dasharray=\"3 3\"/>\n";
            text(out_, turned ? x(m.at) - 4 : x(m.at) + 4, y, m.word,
                 std::string("fill=\"#333b47\" font-size=\"11\"") +
                     (turned ? " text-anchor=\"end\"" : ""));
        }
        y_ += 6 + 15 * static_cast<double>(taken.size());
    }

    void axis(double top) {
        const double span = last() - first();
        double step = std::pow(10.0, std::floor(std::log10(span / 6)));
        for (const double by : {2.0, 2.5, 2.0}) // 1, 2, 5, 10
            if (span / step > 12)
                step *= by;
        const int digits = step >= 1 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));
        y_ += 4;
        out_ += "<path d=\"M" + px(left) + " " + px(y_) + "H" + px(width - right) +
                "\" stroke=\"#6b7280\"/>\n";
        for (int n = 0; began_ + n * step <= last(); ++n) {
            const double at = x(began_ + n * step);
            under_ += "<path d=\"M" + px(at) + " " + px(top - 4) + "V" + px(y_ + 4) +
                      "\" stroke=\"#e5e7eb\"/>\n";
            std::array<char, 32> word{};
            std::snprintf(word.data(), word.size(), "%.*f s", digits, n * step);
            text(out_, at, y_ + 18, word.data(),
                 "fill=\"#6b7280\" font-size=\"11\" text-anchor=\"middle\"");
        }
        text(out_, left - 10, y_ + 18, "since it began",
             "fill=\"#6b7280\" font-size=\"11\" text-anchor=\"end\"");
        y_ += 34;
    }

    void legend() {
        const std::array<std::pair<const look*, const char*>, 7> all = {{
            {&open_gate, "new locks are granted"},
            {&closing, "closes its gate"},
            {&enforces, "enforces"},
            {&reclaims, "clients reclaim"},
            {&lifting, "the purge, the lift"},
            {&away, "without graced"},
            {&dead, "dead"},
        }};
        double at = left;
        for (const auto& [l, means] : all) {
            const bool there = used_.contains(l->word) ||
                               (l == &reclaims && used_.contains("NEEDs")) ||
                               (l == &closing && used_.contains("entering"));
            if (!there)
                continue;
            out_ += "<rect x=\"" + px(at) + "\" y=\"" + px(y_) +
                    "\" width=\"12\" height=\"12\" fill=\"" + l->fill + "\"/>\n";
            text(out_, at + 18, y_ + 10, means, "fill=\"#444444\" font-size=\"11\"");
            at += 18 + width_of(means) * 11 / 12 + 22;
        }
        if (!over_all_.empty()) {
            out_ += "<path d=\"M" + px(at + 5) + " " + px(y_) +
                    "v12\" stroke=\"#594400\" stroke-width=\"2\"/>\n";
            text(out_, at + 14, y_ + 10, "reclaim opens", "fill=\"#444444\" font-size=\"11\"");
        }
        y_ += 26;
    }

    const json& grace_;
    double began_, ended_ = 0, before_ = 0, scale_ = 1, y_ = 0;
    bool over_ = false;
    std::set<std::string> used_;
    std::string under_, out_, over_all_;
};

} // namespace

std::string draw_grace(const json& grace) {
    return picture(grace).draw();
}

} // namespace grace::ctl
