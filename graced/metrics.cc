// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/metrics.hh"

#include "grace/describe.hh"

#include <array>
#include <cmath>
#include <initializer_list>
#include <utility>

namespace grace {
namespace {

using labels = std::initializer_list<std::pair<const char*, std::string>>;

std::string number(double v) {
    if (v == std::floor(v) && std::abs(v) < 1e15)
        return std::to_string(static_cast<std::int64_t>(v));
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.9g", v);
    return text.data();
}

std::string number(std::uint64_t v) {
    return std::to_string(v);
}

// The two formats differ in how a family is named: `graces` with samples graces_total, or
// `graces_total`; and in types, which node_exporter must know or it drops the whole file.
class exposition {
public:
    explicit exposition(metrics_format f)
        : open_(f == metrics_format::openmetrics) {}

    void family(const char* name, const char* type, const char* help, const char* unit = "") {
        family_ = std::string("graced_") + name;
        const std::string kind = type;
        suffix_ = kind == "counter" ? "_total" : kind == "info" ? "_info" : "";
        const std::string shown = open_ ? family_ : family_ + suffix_;
        text_ += "# TYPE " + shown + " ";
        text_ += !open_ && (kind == "info" || kind == "stateset") ? "gauge" : kind;
        if (open_ && *unit)
            text_ += "\n# UNIT " + shown + " " + unit;
        text_ += "\n# HELP " + shown + " " + help + "\n";
    }
    template <typename V>
    void add(labels of, V value) {
        sample(suffix_.c_str(), of, number(value));
    }
    void add(labels of, bool value) { sample(suffix_.c_str(), of, value ? "1" : "0"); }
    void states(std::initializer_list<const char*> all, const std::string& is) {
        for (const char* one : all)
            sample("", {{family_.c_str(), one}}, is == one ? "1" : "0");
    }
    void sample(const char* suffix, labels of, const std::string& value) {
        text_ += family_ + suffix;
        char before = '{';
        for (const auto& [name, is] : of) {
            text_ += before + std::string(name) + "=\"" + escaped(is) + '"';
            before = ',';
        }
        text_ += (before == ',' ? "} " : " ") + value + '\n';
    }
    std::string finish() && { return std::move(text_) + (open_ ? "# EOF\n" : ""); }

private:
    static std::string escaped(const std::string& s) {
        std::string out;
        for (const char c : printable(s)) { // ASCII, without line ends
            if (c == '"' || c == '\\')
                out += '\\';
            out += c;
        }
        return out;
    }
    bool open_;
    std::string text_, family_, suffix_;
};

double in_seconds(duration d) {
    return static_cast<double>(d) / 1e9;
}

void of_cluster(exposition& x, const fsm& f, const metrics_context& c) {
    const state& s = f.replicated();
    x.family("build", "info", "The running daemon.");
    x.add({{"version", GRACED_VERSION},
           {"state", c.state},
           {"locks", c.lock_backend},
           {"gate", c.gate_backend}},
          true);
    x.family("phase", "stateset",
             "Where the cluster is in a grace period; unsynced: this node has no state.");
    x.states({"normal", "entering", "reclaiming", "lifting", "unsynced"},
             f.synced() ? to_string(f.current_phase()) : "unsynced");
    x.family("phase_start_timestamp_seconds", "gauge", "When this phase began, since 1970.",
             "seconds");
    if (f.phase_since() != 0)
        x.add({}, c.realtime + in_seconds(f.phase_since() - c.now));
    x.family("current_epoch", "gauge", "C, the current epoch.");
    x.add({}, s.current.value);
    x.family("recovery_epoch", "gauge",
             "R, the epoch that is being recovered; 0: no grace period.");
    x.add({}, s.recovery.value);
    x.family("quorate", "gauge", "1 if this node is in a quorate membership.");
    x.add({}, f.quorate());
    x.family("synced", "gauge", "1 if this node has the replicated state.");
    x.add({}, f.synced());
    x.family("blocked_reasons", "gauge",
             "What the grace, or the opening of this gate, waits for: lines of blocked_by in "
             "gracectl status.");
    x.add({}, std::uint64_t{f.blocked_by().size()});
    x.family("warnings", "gauge", "Lines of warnings in gracectl status.");
    x.add({}, std::uint64_t{c.warnings});

    struct one_node {
        const char* name;
        const char* help;
        bool (*is)(const fsm&, node_id, const node_state&);
    };
    constexpr one_node about[] = {
        {"node_live", "1 if the node is in the quorate membership.",
         [](const fsm& m, node_id id, const node_state&) { return m.live(id); }},
        {"node_synced", "1 if graced on the node is in the group and has the state.",
         [](const fsm&, node_id, const node_state& n) { return n.member && n.synced; }},
        {"node_attached", "1 if the node's gate is attached, as far as the group has heard.",
         [](const fsm&, node_id, const node_state& n) { return n.attached; }},
        {"node_enforcing", "1 if the node enforces (E); 0 out of grace.",
         [](const fsm& m, node_id id, const node_state&) {
             return in_grace(m.replicated()) && m.live(id) && m.enforces(id);
         }}};
    std::map<node_id, node_state> nodes = s.nodes;
    for (const auto& [id, votes] : f.quorum().votes)
        nodes.try_emplace(id);
    for (const one_node& a : about) {
        x.family(a.name, "gauge", a.help);
        for (const auto& [id, n] : nodes)
            x.add({{"node", n.name.empty() ? std::to_string(id.value) : n.name}}, a.is(f, id, n));
    }
}

void of_servers(exposition& x, const fsm& f, const metrics_context& c) {
    const state& s = f.replicated();
    const auto each = [&](const char* name, const char* help, auto value) {
        x.family(name, "gauge", help);
        for (const auto& [server, v] : s.servers)
            x.add({{"server", server}}, value(server, v));
    };
    each("server_need", "1 if clients of the server may still reclaim (N).",
         [](const std::string&, const server_state& v) { return v.need; });
    each("server_hosted", "1 if a node hosts the server.",
         [](const std::string&, const server_state& v) { return bool(v.host); });
    each("server_clients", "Clients on record.",
         [](const std::string&, const server_state& v) { return std::uint64_t{v.records.size()}; });
    each("server_clients_reclaimed",
         "Of them, how many have reclaimed in this grace; 0 out of grace.",
         [&](const std::string&, const server_state& v) {
             return std::uint64_t{in_grace(s) && v.needed ? count_reclaimed(s, v).reclaimed : 0};
         });
    each("server_mounts", "NFSv3 mounts on record.",
         [](const std::string&, const server_state& v) { return std::uint64_t{v.mounts.size()}; });
    x.family("server_reclaim_open", "gauge", "1 if reclaim is open for the server, on its host.");
    for (const auto& [server, i] : f.instances())
        x.add({{"server", server}}, i.reclaim == reclaim_state::on);
    x.family("server_deadline_timestamp_seconds", "gauge",
             "When reclaim ends at the latest, on its host, since 1970.", "seconds");
    for (const auto& [server, i] : f.instances())
        if (const instant deadline = f.deadline_of(server); deadline != 0)
            x.add({{"server", server}}, c.realtime + in_seconds(deadline - c.now));
    x.family("server_tracked", "gauge",
             "1 if the server's nfsd, on this node, tracks its clients with graced.");
    for (const auto& [server, t] : c.trackers)
        x.add({{"server", server}}, t.tracked);
    x.family("server_upcalls", "counter", "Upcalls of the server's nfsd on this node.");
    for (const auto& [server, t] : c.trackers)
        x.add({{"server", server}}, t.upcalls);
}

void of_node(exposition& x, const fsm& f, const metrics_context& c) {
    x.family("gate_open", "gauge", "1 if new locks are granted on this node.");
    x.add({}, f.gate().open);
    x.family("gate_attached", "gauge", "1 if the kernel's gate is attached.");
    x.add({}, f.gate().attached);
    x.family("gate_bypassed", "gauge", "1 if an operator has opened the gate past everything.");
    x.add({}, c.bypass);
    x.family("gate_held", "gauge", "1 if an operator keeps the gate closed (gracectl enforce).");
    x.add({}, f.held());
    x.family("gate_trips", "counter",
             "How often the gate has closed itself, since the module was loaded.");
    x.add({}, f.gate().trips);
    x.family("gate_waiters", "gauge", "Programs that wait at the gate.");
    if (c.module)
        x.add({}, c.module->waiters);
    x.family("gate_undone_locks", "counter",
             "Locks that were granted behind a closed gate and taken back, since the module was "
             "loaded.");
    if (c.module)
        x.add({}, c.module->undone);
    x.family("gate_exempt_processes", "gauge", "Processes that pass the gate.");
    if (c.module)
        x.add({}, c.module->exempts);
    x.family("permit_ttl_seconds", "gauge", "How long a permit lasts.", "seconds");
    x.add({}, in_seconds(f.params().permit_ttl));
    x.family("permit_remaining_seconds", "gauge",
             "How long the gate may still be open without news from another node.", "seconds");
    if (c.permit_until)
        x.add({}, *c.permit_until > c.now ? in_seconds(*c.permit_until - c.now) : 0.0);
    x.family("lock_mode", "stateset", "The mode in which this node holds the DLM resource grace.");
    x.states({"NL", "PR", "CW", "EX"}, to_string(f.locks().held));
    x.family("lock_waits", "gauge", "1 if a request for another mode is outstanding.");
    x.add({}, f.locks().wanted.has_value());
    x.family("lockspace_frozen_seconds", "gauge",
             "How long the DLM lockspace has stood still; 0: it does not.", "seconds");
    if (c.frozen_for)
        x.add({}, in_seconds(*c.frozen_for));
}

void of_past(exposition& x, const metrics_context& c) {
    x.family("graces", "counter", "Grace periods that this daemon has seen begin.");
    x.add({}, c.graces.begun);
    x.family("purges", "counter", "Purges that this daemon has seen.");
    x.add({}, c.graces.purges);
    x.family("clients_purged", "counter", "Clients that were purged, of all servers.");
    x.add({}, c.graces.clients_purged);
    x.family("grace_duration_seconds", "summary", "How long grace periods lasted.", "seconds");
    x.sample("_count", {}, number(c.graces.ended));
    x.sample("_sum", {}, number(in_seconds(c.graces.lasted)));
    x.family("last_grace_seconds", "gauge", "How long the last grace period lasted.", "seconds");
    if (c.graces.ended != 0)
        x.add({}, in_seconds(c.graces.last));
}

void of_store(exposition& x, const metrics_context& c) {
    x.family("store_failed", "gauge", "1 if the recovery database cannot be written.");
    x.add({}, c.store.failed);
    x.family("store_failures", "counter", "How often it has failed.");
    x.add({}, c.store.failures);
    x.family("store_batches", "counter", "Batches that are durable.");
    x.add({}, c.store.batches);
    x.family("store_queued_batches", "gauge", "Batches that wait for the disk.");
    x.add({}, c.store.queued);
    x.family("store_commit_seconds", "histogram", "How long commits of the recovery database take.",
             "seconds");
    std::uint64_t all = 0;
    for (const auto& [limit, n] : c.store.commits) {
        all += n;
        std::string le = number(limit);
        if (le.find_first_of(".e") == std::string::npos)
            le += ".0"; // OpenMetrics: a float
        x.sample("_bucket", {{"le", le}}, number(all));
    }
    all += c.store.longer;
    x.sample("_bucket", {{"le", "+Inf"}}, number(all));
    x.sample("_count", {}, number(all));
    x.sample("_sum", {}, number(c.store.commit_seconds));
}

} // namespace

std::string metrics_text(const fsm& f, const metrics_context& c, metrics_format format) {
    exposition x(format);
    of_cluster(x, f, c);
    of_servers(x, f, c);
    of_node(x, f, c);
    of_past(x, c);
    of_store(x, c);
    return std::move(x).finish();
}

} // namespace grace
