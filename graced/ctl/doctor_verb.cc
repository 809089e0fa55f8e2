// SPDX-License-Identifier: GPL-2.0-or-later
// doctor: collects the facts of this node, asks other nodes for theirs, and has them examined
// (graced/doctor/doctor.hh). Goes as far as it can without a daemon.
#include "graced/config.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"
#include "graced/doctor/doctor.hh"

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <ostream>

namespace grace::ctl {
namespace {

constexpr std::chrono::seconds ssh_limit{30};

struct arguments {
    std::string file;
    std::vector<std::string> with;
    bool facts = false, ssh = false, list = false;
};

json own_facts(session& s, const arguments& a) {
    config c; // where to look, if the file says nothing
    json about, errors = json::array();
    if (auto read = load_config(a.file.empty() ? default_config_file : a.file, !a.file.empty())) {
        c = *std::move(read);
        about = to_json(c);
        // It may hold a password, and facts go from node to node.
        about["cluster"].erase("fence_command");
    } else {
        errors = read.error().messages;
    }
    const auto status = s.around.ask(s.ipc_name.empty() ? c.graced.ipc_name : s.ipc_name,
                                     {{"verb", "status"}}, std::chrono::seconds(10), {});
    json f = s.around.node_facts ? s.around.node_facts(c.graced.runtime_dir, c.store.path)
                                 : json::object();
    f["config"] = about;
    f["config_errors"] = errors;
    f["status"] = status ? *status : json();
    f["status_error"] = status ? json() : json(status.error().message);
    const json node = status ? status->value("node", json::object()) : json::object();
    f["node"] = node.is_object() && node.contains("name") ? node["name"]
                : !c.graced.name.empty()                  ? json(c.graced.name)
                                                          : f.value("host", json());
    return f;
}

bool are_facts(const json& f) {
    return f.is_object() && f.value("format", json()) == doctor::facts_format &&
           f.value("node", json()).is_string();
}

// The other nodes, as the daemon knows them, or corosync.
std::vector<std::string> others(const json& own) {
    std::vector<std::string> names;
    const json status = own.value("status", json());
    const json nodes = status.is_object()
                           ? status.value("nodes", json::array())
                           : own.value("corosync", json::object()).value("nodes", json::array());
    for (const json& n : nodes) {
        const std::string name = n.is_object() ? n.value("name", "") : "";
        if (!name.empty() && name.front() != '-' && name != own["node"] && n.value("live", true))
            names.push_back(name);
    }
    return names;
}

void ask_by_ssh(session& s, std::vector<json>& all, json& not_checked) {
    for (const std::string& node : others(all.front())) {
        const auto missing = [&](const std::string& why) {
            not_checked.push_back({{"check", "all"}, {"node", node}, {"why", why}});
        };
        const double before = s.around.now();
        const auto said =
            s.around.run_program({"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--",
                                  node, "gracectl doctor --facts"},
                                 ssh_limit);
        const double after = s.around.now();
        if (!said) {
            missing(said.error().message);
            continue;
        }
        json f = json::parse(said->out, nullptr, false);
        if (said->code != 0 || !are_facts(f)) {
            missing("ssh " + node + " gracectl doctor --facts ended with " +
                    std::to_string(said->code) +
                    (said->err.empty() ? "" : ": " + said->err.substr(0, said->err.find('\n'))));
            continue;
        }
        // Somewhere between; by less than it took it cannot be told.
        const double off = f.value("time", before) - (before + after) / 2;
        f["clock_offset"] = std::abs(off) > (after - before) / 2 ? json(off) : json(0);
        all.push_back(std::move(f));
    }
}

void examine(session& s, const arguments& a) {
    if (a.list) {
        json names = json::array();
        for (const auto& c : doctor::checks())
            names.push_back({{"check", c.name}, {"asks", c.asks}});
        return s.print({{"ok", true}, {"checks", names}}, [](const json& r) {
            std::string out;
            for (const json& c : r["checks"]) {
                std::string name = c["check"];
                name.resize(20, ' ');
                out += name + c["asks"].get<std::string>() + "\n";
            }
            return out;
        });
    }
    std::vector<json> all = {own_facts(s, a)};
    if (a.facts) {
        s.around.out << all.front().dump(2, ' ', false, json::error_handler_t::replace) << "\n";
        return;
    }
    for (const std::string& file : a.with) {
        std::ifstream in(file);
        json f = json::parse(in, nullptr, false);
        if (!in || !are_facts(f))
            return s.failed(exit_failed, "bad_facts",
                            file + " does not hold what `gracectl doctor --facts` prints");
        all.push_back(std::move(f));
    }
    json answer = {
        {"findings", json::array()}, {"not_checked", json::array()}, {"nodes", json::array()}};
    if (a.ssh)
        ask_by_ssh(s, all, answer["not_checked"]);
    const doctor::report r = doctor::examine(all);
    std::size_t wrong = 0;
    for (const auto& f : r.findings) {
        wrong += f.advice ? 0 : 1;
        answer["findings"].push_back({{"check", f.check},
                                      {"node", f.node},
                                      {"severity", f.advice ? "advice" : "wrong"},
                                      {"what", f.what},
                                      {"remedy", f.remedy}});
    }
    for (const auto& n : r.not_checked)
        answer["not_checked"].push_back({{"check", n.check}, {"node", n.node}, {"why", n.why}});
    for (const json& f : all)
        answer["nodes"].push_back(f["node"]);
    answer["ok"] = r.findings.empty();
    s.code = wrong > 0 ? exit_wrong : r.findings.empty() ? exit_ok : exit_advice;
    if (s.code != exit_ok) {
        answer["code"] = wrong > 0 ? "wrong" : "advice";
        answer["error"] = std::to_string(wrong) + " wrong, " +
                          std::to_string(r.findings.size() - wrong) + " to look at";
    }
    s.print(answer, render_doctor);
}

} // namespace

void add_doctor_verb(CLI::App& app, session& s) {
    auto a = std::make_shared<arguments>();
    CLI::App* sub = app.add_subcommand(
        "doctor", "look for what is configured wrong, on this node and between nodes");
    sub->add_option("--file", a->file,
                    std::string("the configuration; default: ") + default_config_file);
    auto* ssh =
        sub->add_flag("--ssh", a->ssh, "ask the other nodes too: ssh NODE gracectl doctor --facts");
    auto* with =
        sub->add_option("--with", a->with, "what --facts said on another node; several times");
    with->allow_extra_args(false);
    auto* facts = sub->add_flag(
        "--facts", a->facts, "print what the checks look at, of this node, as JSON; no passwords");
    auto* list = sub->add_flag("--list", a->list, "print what is checked");
    facts->excludes(ssh)->excludes(with)->excludes(list);
    sub->callback([&s, a] { examine(s, *a); });
}

} // namespace grace::ctl
