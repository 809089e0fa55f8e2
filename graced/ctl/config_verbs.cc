// SPDX-License-Identifier: GPL-2.0-or-later
// config check, show and server: the configuration file as graced would read it. No daemon needed.
#include "graced/config.hh"
#include "graced/ctl/gracectl.hh"

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>

namespace grace::ctl {

namespace {

struct arguments {
    std::string file;
    std::string server;
    bool shell = false;
};

std::optional<config> load(session& s, const std::string& file) {
    // The default file may be missing for graced, too; one that was named may not.
    auto c = load_config(file.empty() ? default_config_file : file, !file.empty());
    if (c) {
        return *std::move(c);
    }
    s.code = exit_bad_config;
    if (s.as_json) {
        s.around.out << json{{"ok", false},
                             {"code", "bad_config"},
                             {"error", c.error().text()},
                             {"errors", c.error().messages}}
                            .dump(2)
                     << "\n";
    } else {
        s.around.err << c.error().text();
    }
    return std::nullopt;
}

void check(session& s, const arguments& a) {
    const auto c = load(s, a.file);
    if (!c) {
        return;
    }
    s.print({{"ok", true}, {"file", c->file}, {"warnings", c->warnings}}, [&](const json&) {
        std::string out;
        for (const std::string& w : c->warnings) {
            out += "warning: " + w + "\n";
        }
        return out + (c->file.empty() ? std::string(default_config_file) : c->file) + ": ok, " +
               std::to_string(c->servers.size()) +
               (c->servers.size() == 1 ? " server\n" : " servers\n");
    });
}

// The value as the configuration file would have it. Quotes cannot be escaped there, so the other
// kind is used.
std::string as_written(const json& v) {
    if (v.is_string()) {
        const std::string text = v.get<std::string>();
        return text.find('"') == std::string::npos ? '"' + text + '"' : '\'' + text + '\'';
    }
    if (v.is_array()) {
        std::string out = "[";
        for (const json& e : v) {
            out += (out.size() == 1 ? "" : ", ") + as_written(e);
        }
        return out + "]";
    }
    return v.dump();
}

void write_section(std::string& out, const std::string& name, const json& keys) {
    out += (out.empty() ? "[" : "\n[") + name + "]\n";
    for (const auto& [key, value] : keys.items()) {
        const bool nothing = value.is_null() || value == "" || (key == "name" && name != "graced");
        if (!nothing || key == "dlm_group" || key == "fence_command") {
            out += key + " = " + as_written(value) + "\n";
        }
    }
}

// Every value, defaults too; can be read back.
std::string as_file(const json& all) {
    std::string out;
    for (const char* section : {"graced", "grace", "permit", "store", "locks", "gate", "cluster"}) {
        write_section(out, section, all[section]);
    }
    for (const auto& [name, server] : all["server"].items()) {
        write_section(out, "server." + name, server);
    }
    return out;
}

void show(session& s, const arguments& a) {
    if (const auto c = load(s, a.file)) {
        s.print(to_json(*c), as_file);
    }
}

void server(session& s, const arguments& a) {
    const auto c = load(s, a.file);
    if (!c) {
        return;
    }
    const auto found = c->servers.find(a.server);
    if (found == c->servers.end()) {
        std::string known;
        for (const auto& [name, unused] : c->servers) {
            known += (known.empty() ? "" : ", ") + name;
        }
        s.failed(exit_unknown, "no_such_server",
                 (c->file.empty() ? std::string(default_config_file) : c->file) +
                     " has no [server." + a.server + "]; it has " +
                     (known.empty() ? "no servers" : known));
        return;
    }
    if (a.shell) {
        s.around.out << to_shell(*c, found->second);
        return;
    }
    s.print(to_json(*c, found->second), [](const json& j) {
        std::string out;
        write_section(out, "server." + j["name"].get<std::string>(), j);
        return out;
    });
}

} // namespace

void add_config_verbs(CLI::App& app, session& s) {
    CLI::App* group = app.add_subcommand("config", "the configuration file: check, show, server");
    group->require_subcommand(1);
    const auto add = [&](const char* verb, const char* help,
                         void (*run)(session&, const arguments&)) {
        auto a = std::make_shared<arguments>();
        CLI::App* sub = group->add_subcommand(verb, help);
        sub->callback([&s, a, run] { run(s, *a); });
        return std::pair(sub, a);
    };
    const std::string file_help = std::string("default: ") + default_config_file;
    {
        const auto [sub, a] =
            add("check", "read the file and tell everything that is wrong with it", check);
        sub->add_option("file", a->file, file_help);
    }
    {
        const auto [sub, a] = add("show", "every value, defaults too", show);
        sub->add_option("file", a->file, file_help);
    }
    {
        const auto [sub, a] = add("server", "one server's definition", server);
        sub->add_option("server", a->server, "the server's name")->required();
        sub->add_option("--file", a->file, file_help);
        sub->add_flag("--shell", a->shell, "as GRACED_…='…' lines, for eval in a shell");
    }
}

} // namespace grace::ctl
