// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/ctl/history.hh"

#include "grace/describe.hh"
#include "graced/ctl/reading.hh"
#include "graced/ctl/render.hh"
#include "graced/event_json.hh"
#include "graced/hex.hh"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

namespace grace::ctl {

using nlohmann::json;

namespace {

constexpr std::size_t names_in_text = 20;

double in_seconds(std::int64_t ms) {
    return static_cast<double>(ms) / 1000.0;
}

std::string after(double seconds) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.3f s", seconds);
    return text.data();
}

std::string of_all(const json& e) {
    return number(e, "count") + " of " + number(e, "all");
}

std::string outcome_of(const json& g) {
    return g["outcome"].is_string() ? g["outcome"].get<std::string>() : "on";
}

} // namespace

std::string event_in_words(const json& e) {
    const std::string what = text(e, "what"), node = text(e, "node", ""),
                      server = text(e, "server", ""), detail = text(e, "detail", "");
    if (what == "began")
        return "began: " + detail;
    if (what == "found")
        return "this node came in the midst of it";
    if (what == "need")
        return "server " + server + " NEEDs: " + (detail.empty() ? std::string() : detail + "; ") +
               number(e, "all") + " on record" + (node.empty() ? "" : ", hosted by " + node);
    if (what == "phase")
        return "phase " + detail;
    if (what == "enforcing")
        return "node " + node + " enforces";
    if (what == "not_enforcing")
        return "node " + node + " does not enforce any more";
    if (what == "joined")
        return "node " + node + " has the state";
    if (what == "left")
        return "graced of node " + node + " is gone";
    if (what == "died")
        return "node " + node + " died";
    if (what == "fenced")
        return "node " + node + " is proven fenced";
    if (what == "hosted")
        return "server " + server + " is hosted by " + node;
    if (what == "open")
        return "server " + server + ": reclaim is open on this node";
    if (what == "done")
        return "server " + server + " NEEDs no longer: " + of_all(e) + " have reclaimed";
    if (what == "purged")
        return "server " + server + ": " + of_all(e) + " purged";
    if (what == "purge")
        return "node " + node + " is the last out and purges";
    if (what == "lifted")
        return "lifted";
    if (what == "followed")
        return "another grace began before this one was lifted";
    if (what == "lost")
        return "this node has no state any more";
    if (what == "unknown")
        return "it is over; this node was away when it ended";
    if (what == "more")
        return "what followed was too much to be kept";
    return what + " " + node + server + detail;
}

json grace_json(const grace_story& g, const std::vector<history_event>& names) {
    json all = {{"epoch", g.at.value},
                {"recovery", g.recovery.value},
                {"began", in_seconds(g.began)},
                {"ended", g.ended == 0 ? json() : json(in_seconds(g.ended))},
                {"lasted", g.ended == 0 ? json() : json(in_seconds(g.ended - g.began))},
                {"outcome", g.outcome.empty() ? json() : json(g.outcome)},
                {"why", g.why},
                {"purger", nullptr},
                {"purged", 0},
                {"phases", json::array()},
                {"nodes", json::array()},
                {"servers", json::array()},
                {"events", json::array()},
                {"clients", json::array()}};
    std::map<std::string, json> servers;
    std::uint64_t purged = 0;
    for (const grace_event& e : g.events) {
        const double at = in_seconds(e.time);
        all["events"].push_back(event_json(e));
        if (e.what == "node")
            all["nodes"].push_back(e.node);
        if (e.what == "phase" || e.what == "lifted" || e.what == "followed" || e.what == "lost" ||
            e.what == "unknown") {
            if (!all["phases"].empty() && all["phases"].back()["ended"].is_null())
                all["phases"].back()["ended"] = at;
            if (e.what == "phase")
                all["phases"].push_back({{"phase", e.detail}, {"began", at}, {"ended", nullptr}});
        }
        if (e.what == "purge")
            all["purger"] = e.node;
        if (e.server.empty())
            continue;
        json& s = servers
                      .try_emplace(e.server, json{{"name", e.server},
                                                  {"host", nullptr},
                                                  {"clients", 0},
                                                  {"reclaimed", nullptr},
                                                  {"purged", nullptr},
                                                  {"needed", nullptr},
                                                  {"done", nullptr}})
                      .first->second;
        if (!e.node.empty())
            s["host"] = e.node;
        if (e.what == "need") {
            s["clients"] = e.all;
            s["needed"] = s["needed"].is_null() ? json(at) : s["needed"];
            s["done"] = nullptr;
        } else if (e.what == "done") {
            s["reclaimed"] = e.count;
            s["clients"] = e.all;
            s["done"] = at;
        } else if (e.what == "purged") {
            s["purged"] = e.count;
            purged += e.count;
        }
    }
    for (auto& [name, s] : servers)
        all["servers"].push_back(std::move(s));
    all["purged"] = purged;
    for (const history_event& e : names)
        all["clients"].push_back({{"what", e.what},
                                  {"server", e.server},
                                  {"name", printable(e.client)},
                                  {"name_hex", to_hex(e.client)}});
    return all;
}

std::string render_graces(const json& answer, double now) {
    const json& graces = answer["graces"];
    if (graces.empty())
        return "This node has seen no grace yet.\n";
    std::string out = padded("EPOCH", 6, true) + "  " + padded("BEGAN", 45) + padded("LASTED", 11) +
                      padded("ENDED", 9) + padded("PURGED", 7, true) + "\n";
    for (const json& g : graces) {
        out += padded(g["epoch"].dump(), 6, true) + "  " +
               padded(format_time(g["began"].get<double>(), now), 45) +
               padded(g["lasted"].is_null() ? "-" : after(g["lasted"].get<double>()), 11) +
               padded(outcome_of(g), 9) + padded(g["purged"].dump(), 7, true) + "\n";
        out += std::string(8, ' ') +
               (g["why"].get<std::string>().empty() ? "this node came in the midst of it"
                                                    : g["why"].get<std::string>()) +
               "\n";
    }
    return out;
}

std::string render_grace(const json& g, double now) {
    const double began = g["began"].get<double>();
    std::string out =
        "Grace of epoch " + g["epoch"].dump() + " (recovers " + g["recovery"].dump() + ")\n";
    if (const std::string why = g["why"]; !why.empty())
        out += why + "\n";
    out += "began " + format_time(began, now) + ", " +
           (g["lasted"].is_null() ? outcome_of(g)
                                  : outcome_of(g) + " after " + after(g["lasted"].get<double>())) +
           "\n";
    if (!g["purger"].is_null())
        out += "node " + g["purger"].get<std::string>() + " was the last out and purged " +
               g["purged"].dump() + (g["purged"] == 1 ? " client" : " clients") + "\n";

    out +=
        "\n" + padded("PHASE", 14) + padded("AFTER", 12, true) + padded("LASTED", 12, true) + "\n";
    for (const json& p : g["phases"])
        out += padded(p["phase"], 14) + padded(after(p["began"].get<double>() - began), 12, true) +
               padded(p["ended"].is_null()
                          ? "-"
                          : after(p["ended"].get<double>() - p["began"].get<double>()),
                      12, true) +
               "\n";

    std::size_t wide = 6, host = 4;
    for (const json& s : g["servers"]) {
        wide = std::max(wide, s["name"].get<std::string>().size());
        host = std::max(host, s["host"].is_null() ? 1 : s["host"].get<std::string>().size());
    }
    out += "\n" + padded("SERVER", wide + 2) + padded("HOST", host) + padded("CLIENTS", 9, true) +
           padded("RECLAIMED", 11, true) + padded("PURGED", 8, true) +
           padded("DONE AFTER", 13, true) + "\n";
    const auto or_dash = [](const json& j) { return j.is_null() ? std::string("-") : j.dump(); };
    for (const json& s : g["servers"])
        out +=
            padded(s["name"], wide + 2) +
            padded(s["host"].is_null() ? "-" : s["host"].get<std::string>(), host) +
            padded(or_dash(s["clients"]), 9, true) + padded(or_dash(s["reclaimed"]), 11, true) +
            padded(or_dash(s["purged"]), 8, true) +
            padded(s["done"].is_null() ? "-" : after(s["done"].get<double>() - began), 13, true) +
            "\n";

    out += "\n" + padded("AFTER", 12, true) + "  EVENT\n";
    for (const json& e : g["events"])
        if (e["what"] != "node")
            out += padded(after(e["time"].get<double>() - began), 12, true) + "  " +
                   event_in_words(e) + "\n";
    for (const char* what : {"reclaimed", "purged"}) {
        std::size_t n = 0;
        for (const json& c : g["clients"]) {
            if (c["what"] != what)
                continue;
            if (n++ == 0)
                out += "\nClients that " + std::string(*what == 'p' ? "were purged" : "reclaimed") +
                       ":\n";
            if (n <= names_in_text) {
                const std::string name = c["name"];
                out += "  " + c["server"].get<std::string>() + "  " +
                       (name.empty() ? "(others)" : name) + "\n";
            }
        }
        if (n > names_in_text)
            out += "  and " + std::to_string(n - names_in_text) + " more (--json)\n";
    }
    return out;
}

} // namespace grace::ctl
