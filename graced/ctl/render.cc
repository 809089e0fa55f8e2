// SPDX-License-Identifier: GPL-2.0-or-later
// Status, tables and times as text, readable at 80 columns.
#include "graced/ctl/render.hh"

#include "grace/record_key.hh"
#include "graced/ctl/reading.hh"
#include "graced/hex.hh"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <iomanip>
#include <map>
#include <optional>
#include <sstream>
#include <vector>

namespace grace::ctl {

using nlohmann::json;

namespace {

constexpr std::size_t page_width = 80;

// Columns as wide as their widest cell. A header that starts with '>' aligns to the right.
class table {
public:
    explicit table(std::vector<std::string> header) {
        for (std::string& h : header) {
            right_.push_back(h.front() == '>');
            if (right_.back()) {
                h.erase(0, 1);
            }
        }
        rows_.push_back(std::move(header));
    }
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    [[nodiscard]] std::string str() const {
        std::vector<std::size_t> widths(right_.size(), 0);
        for (const auto& row : rows_) {
            for (std::size_t i = 0; i < row.size(); ++i) {
                widths[i] = std::max(widths[i], width_of(row[i]));
            }
        }
        std::string out;
        for (const auto& row : rows_) {
            std::string line;
            for (std::size_t i = 0; i < row.size(); ++i) {
                line += (i == 0 ? "" : "  ") + padded(row[i], widths[i], right_[i]);
            }
            line.erase(line.find_last_not_of(' ') + 1);
            out += line + "\n";
        }
        return out;
    }

private:
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

// `first` before the first line, as many spaces before the others.
std::string wrapped(const std::string& first, const std::string& body) {
    const std::string indent(width_of(first), ' ');
    std::string out;
    std::string line = first;
    bool empty = true;
    std::size_t begin = 0;
    while (begin < body.size()) {
        const std::size_t end = std::min(body.find(' ', begin), body.size());
        const std::string word = body.substr(begin, end - begin);
        begin = end + 1;
        if (word.empty()) {
            continue;
        }
        if (!empty && width_of(line) + 1 + width_of(word) > page_width) {
            out += line + "\n";
            line = indent;
            empty = true;
        }
        line += (empty ? "" : " ") + word;
        empty = false;
    }
    return out + line + "\n";
}

std::string field(const std::string& name, const std::string& value) {
    return wrapped("  " + padded(name, 11), value);
}

// --- tables ---

std::string servers_table(const json& status, double now) {
    const json& servers = at(status, "servers");
    if (!servers.is_array() || servers.empty()) {
        return "No servers.\n";
    }
    const auto names = node_names(status);
    table t({"SERVER", "N", "HOST", ">CLIENTS", ">RECLAIMED", "STATE"});
    for (const json& s : servers) {
        const bool need = yes(s, "need");
        std::string state;
        if (need) {
            state = yes(s, "reclaim_open") ? "reclaims" : "waits";
            if (const auto deadline = moment(s, "deadline")) {
                state += *deadline >= now ? ", " + format_duration(*deadline - now) + " left"
                                          : ", deadline passed";
            }
        } else {
            state = at(s, "host").is_null() ? "not hosted" : "serves";
        }
        t.add({text(s, "name"), need ? "N" : "-", host_of(s, names), number(s, "clients"),
               need ? number(s, "reclaimed") : "-", state});
    }
    return t.str();
}

std::string nodes_table(const json& status) {
    const json& nodes = at(status, "nodes");
    if (!nodes.is_array() || nodes.empty()) {
        return "No nodes.\n";
    }
    const std::string self = number(at(status, "node"), "id", "");
    table t({"NODE", ">ID", "E", "STATE"});
    for (const json& n : nodes) {
        const std::string id = number(n, "id");
        t.add({text(n, "name") + (id == self ? " *" : ""), id, yes(n, "enforcing") ? "E" : "-",
               node_state(n)});
    }
    return t.str();
}

// Blank-separated loud lines, or nothing.
std::string loud(const char* title, const json& lines) {
    std::string out;
    if (!lines.is_array()) {
        return out;
    }
    for (const json& line : lines) {
        out += wrapped(std::string("!! ") + title + " ",
                       clean(line.is_string() ? line.get<std::string>() : line.dump()));
    }
    return out.empty() ? out : out + "\n";
}

} // namespace

std::map<std::string, std::string> node_names(const json& status) {
    std::map<std::string, std::string> names;
    for (const json& node : at(status, "nodes")) {
        names[number(node, "id")] = text(node, "name", "node " + number(node, "id"));
    }
    return names;
}

std::string host_of(const json& server, const std::map<std::string, std::string>& names) {
    const std::string id = number(server, "host", "");
    if (id.empty() || id == "0") {
        return "nobody";
    }
    const auto found = names.find(id);
    return found == names.end() ? "node " + id : found->second;
}

std::string node_state(const json& node) {
    const std::optional<bool> fenced = maybe(node, "fenced");
    std::string state;
    if (yes(node, "member")) {
        state = yes(node, "synced") ? "up" : "graced is joining";
        if (maybe(node, "attached") == false) {
            state += ", GATE NOT ATTACHED";
        }
    } else if (yes(node, "live")) {
        state = maybe(node, "attached") == false ? "up, graced NEVER RAN since boot"
                                                 : "up, graced NOT RUNNING";
    } else {
        state = "away";
    }
    if (yes(node, "down")) {
        state = fenced == true ? "dead, fenced" : "dead, NOT PROVEN FENCED";
    } else if (fenced) {
        state += *fenced ? ", fenced" : ", NOT PROVEN FENCED";
    }
    return state;
}

std::string format_duration(double seconds) {
    const auto s = static_cast<std::int64_t>(std::llround(std::abs(seconds)));
    const auto two = [](std::int64_t big, const char* big_unit, std::int64_t small,
                        const char* small_unit) {
        return std::to_string(big) + " " + big_unit +
               (small == 0 ? "" : " " + std::to_string(small) + " " + small_unit);
    };
    if (s < 60) {
        return std::to_string(s) + " s";
    }
    if (s < 3600) {
        return two(s / 60, "min", s % 60, "s");
    }
    if (s < 86400) {
        return two(s / 3600, "h", s % 3600 / 60, "min");
    }
    return two(s / 86400, "d", s % 86400 / 3600, "h");
}

std::string format_time(double realtime, double now) {
    // A year that is not one would make strftime fail; the number is then shown as it came.
    if (!(realtime >= 0 && realtime < 253402300800.0)) {
        return json(realtime).dump();
    }
    const auto t = static_cast<std::time_t>(realtime);
    std::tm local{};
    ::localtime_r(&t, &local);
    std::array<char, 64> buffer{};
    std::string s(buffer.data(), std::strftime(buffer.data(), buffer.size(), "%FT%T%z", &local));
    if (s.size() > 5) {
        s.insert(s.size() - 2, ":"); // +0100 -> +01:00, as ISO 8601 has it beside hh:mm
    }
    const double ago = now - realtime;
    return s + (ago >= 0 ? " (" + format_duration(ago) + " ago)"
                         : " (in " + format_duration(ago) + ")");
}

std::string render_status(const json& status, double now) {
    std::string out = loud("WARNING:", at(status, "warnings"));

    const json& self = at(status, "node");
    const std::string phase = text(status, "phase");
    const std::string recovery = number(status, "recovery");
    out += "graced on " + text(self, "name") + " (node " + number(self, "id") + "), " +
           text(status, "state") + ", version " + text(status, "version") + "\n\n";

    out += field("phase", phase);
    out += field("epochs", "C " + number(status, "current") + ", R " + recovery +
                               (recovery == "0" ? " (no grace)" : ""));
    if (const auto since = moment(status, "since")) {
        out += field("since", format_time(*since, now));
    }
    if (const auto deadline = moment(status, "deadline")) {
        out += field("at most", "until " + format_time(*deadline, now));
    }
    std::uint64_t clients = 0;
    std::uint64_t reclaimed = 0;
    std::uint64_t needing = 0;
    for (const json& s : at(status, "servers")) {
        if (yes(s, "need")) {
            ++needing;
            clients += count(s, "clients");
            reclaimed += count(s, "reclaimed");
        }
    }
    if (needing != 0) {
        out += field("reclaimed", std::to_string(reclaimed) + " of " + std::to_string(clients) +
                                      " clients, of " + std::to_string(needing) +
                                      (needing == 1 ? " server" : " servers"));
    }
    const std::optional<bool> quorate = maybe(status, "quorate");
    const std::optional<bool> synced = maybe(status, "synced");
    out += field("cluster", std::string(quorate == true    ? "quorate"
                                        : quorate == false ? "NOT QUORATE"
                                                           : "quorum unknown") +
                                (synced == false ? ", this node is NOT IN SYNC" : ""));

    const json& kernel = at(status, "kernel");
    std::string gate = yes(kernel, "bypass") ? "BYPASSED" : text(status, "gate");
    gate += yes(kernel, "held") ? " (held by an operator)" : "";
    gate += ", kernel " + text(kernel, "backend");
    gate += yes(kernel, "attached") ? " attached" : " NOT ATTACHED";
    if (const std::string trips = number(kernel, "trips", "0"); trips != "0") {
        gate += ", " + trips + (trips == "1" ? " trip" : " trips");
    }
    if (const std::string waiters = number(kernel, "waiters", "0"); waiters != "0") {
        gate += ", " + waiters + (waiters == "1" ? " waiter" : " waiters");
    }
    if (const std::string exempts = number(kernel, "exempts", "0"); exempts != "0") {
        gate += ", " + exempts + (exempts == "1" ? " process" : " processes") + " exempt";
    }
    out += field("gate", gate);
    for (const json& m : at(status, "filesystems")) {
        const std::string how = text(m, "gate");
        out += field("", text(m, "path") + ": " +
                             (how == "private"   ? "PRIVATE locks (localflocks), not protected"
                              : how == "ungated" ? "UNGATED by gfs2_gate's parameter"
                              : how == "open"    ? "OPEN, gfs2_gate is not loaded"
                                                 : how));
    }
    if (const std::string error = text(kernel, "error", ""); !error.empty()) {
        out += field("", "kernel error: " + error);
    }
    const json& lock = at(status, "lock");
    std::string mode = text(lock, "mode") + ", " + text(lock, "backend");
    if (const std::string wanted = text(lock, "requested", ""); !wanted.empty()) {
        mode += ", waits for " + wanted;
    }
    out += field("lock", mode) + "\n";

    out += loud("BLOCKED BY", at(status, "blocked_by"));
    return out + nodes_table(status) + "\n" + servers_table(status, now);
}

std::string render_servers(const json& status, double now) {
    return servers_table(status, now);
}
std::string render_nodes(const json& status) {
    return nodes_table(status);
}

std::string render_clients(const json& answer, double now) {
    const json& clients = at(answer, "clients");
    if (!clients.is_array() || clients.empty()) {
        return "No clients on record.\n";
    }
    // Only the node that hosts a server can ask its nfsd.
    const bool known = std::any_of(clients.begin(), clients.end(),
                                   [](const json& c) { return at(c, "address").is_string(); });
    std::vector<std::string> head = {"SERVER", ">EPOCH", "RECLAIMED", "PRINCIPAL", "PROTOCOL"};
    if (known) {
        head.insert(head.end(), {"STATUS", "ADDRESS"});
    }
    const bool dated = std::any_of(clients.begin(), clients.end(),
                                   [](const json& c) { return at(c, "since").is_number(); });
    if (dated) {
        head.push_back("RECORDED SINCE");
    }
    head.push_back("CLIENT");
    table t(head);
    for (const json& c : clients) {
        std::vector<std::string> row = {
            text(c, "server"), number(c, "epoch"), yes(c, "reclaimed") ? "yes" : "-",
            yes(c, "principal") ? "yes" : "-", text(c, "protocol", "-")};
        if (known) {
            row.insert(row.end(), {text(c, "status", "-"), text(c, "address", "-")});
        }
        if (dated) {
            const json& since = at(c, "since");
            row.push_back(since.is_number() ? format_time(since.get<double>(), now) : "-");
        }
        row.push_back(text(c, "name", text(c, "name_hex")));
        t.add(row);
    }
    std::string out = t.str();
    if (yes(answer, "more")) {
        out += "(and more)\n";
    }
    return out;
}

std::string render_history(const json& answer, double now) {
    const json& events = at(answer, "events");
    if (!events.is_array() || events.empty()) {
        return "Nothing is known of before.\n";
    }
    table t({"TIME", "SERVER", ">EPOCH", "WHAT", "CLIENT"});
    for (const json& e : events) {
        const json& time = at(e, "time");
        t.add({time.is_number() ? format_time(time.get<double>(), now) : "-",
               text(e, "server", "-"), number(e, "epoch"), text(e, "what"), text(e, "name", "-")});
    }
    return t.str();
}

std::string render_doctor(const json& answer) {
    std::string out;
    std::size_t wrong = 0, advice = 0;
    // What is wrong first.
    for (const bool is_advice : {false, true}) {
        for (const json& f : at(answer, "findings")) {
            if ((text(f, "severity") == "advice") != is_advice) {
                continue;
            }
            (is_advice ? advice : wrong) += 1;
            out += wrapped(is_advice ? "-  " : "!! ",
                           text(f, "check") + ", " + text(f, "node") + ": " + text(f, "what", ""));
            out += wrapped("   -> ", text(f, "remedy", "")) + "\n";
        }
    }
    for (const json& c : at(answer, "not_checked")) {
        out += wrapped("?  ", text(c, "check") + ", " + text(c, "node") +
                                  ": not checked: " + text(c, "why"));
    }
    const json& nodes = at(answer, "nodes");
    std::string names;
    for (const json& n : nodes) {
        names += (names.empty() ? "" : ", ") + (n.is_string() ? clean(n.get<std::string>()) : "?");
    }
    return out + (at(answer, "not_checked").empty() ? "" : "\n") + names + ": " +
           std::to_string(wrong) + " wrong, " + std::to_string(advice) + " to look at\n";
}

std::string render_mounts(const json& answer) {
    const json& mounts = at(answer, "mounts");
    if (!mounts.is_array() || mounts.empty()) {
        return "No mounts on record.\n";
    }
    table t({"SERVER", "CLIENT", ">TIMES", "PATH"});
    for (const json& m : mounts) {
        t.add({text(m, "server"), text(m, "client"), number(m, "count"), text(m, "path")});
    }
    return t.str();
}

// support/nfs/rmtab.c of nfs-utils: CLIENT:PATH:0xCOUNT, with ; for the colons of an IPv6 address.
std::string render_rmtab(const json& answer) {
    std::ostringstream out;
    for (const json& m : at(answer, "mounts")) {
        // As it is: with a character replaced it would be another host.
        const json& name = at(m, "client");
        std::string client = name.is_string() ? name.get<std::string>() : "";
        const auto path = from_hex(text(m, "path_hex", ""));
        if (!is_host_name(client) || !path || !is_mount_path(*path)) {
            continue;
        }
        std::replace(client.begin(), client.end(), ':', ';');
        out << client << ':' << *path << ":0x" << std::hex << std::setw(8) << std::setfill('0')
            << m.value("count", std::uint32_t{1}) << '\n';
    }
    return out.str();
}

std::string render_dump(const json& status) {
    std::map<std::string, std::array<char, 2>> lines;
    for (const json& s : at(status, "servers")) {
        auto& flags = lines.try_emplace(text(s, "name"), std::array{' ', ' '}).first->second;
        flags[0] = yes(s, "need") ? 'N' : flags[0];
    }
    for (const json& n : at(status, "nodes")) {
        auto& flags = lines.try_emplace(text(n, "name"), std::array{' ', ' '}).first->second;
        flags[1] = yes(n, "enforcing") ? 'E' : flags[1];
    }
    std::string out =
        "cur=" + number(status, "current", "0") + " rec=" + number(status, "recovery", "0") + "\n";
    out += std::string(54, '=') + "\n";
    for (const auto& [name, flags] : lines) {
        out += name + "\t" + flags[0] + flags[1] + "\n";
    }
    return out;
}

std::string render_done(const json& answer, const std::string& otherwise) {
    return text(answer, "detail", otherwise) + "\n";
}

} // namespace grace::ctl
