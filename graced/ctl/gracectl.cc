// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl's command line, and the way from a verb to the daemon and back.
#include "graced/ctl/gracectl.hh"

#include "graced/config.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <ostream>

namespace grace::ctl {

namespace {

struct word_for_error {
    int exit;
    const char* word;
};

word_for_error classify(const error& e) {
    switch (e.code) {
    case ECONNREFUSED:
    case ENOTCONN:
        return {exit_not_running, "not_running"};
    case EACCES:
        return {exit_permission, "permission"};
    case ETIMEDOUT:
        return {exit_timeout, "timeout"};
    default:
        return {exit_failed, "failed"};
    }
}

std::string text_at(const json& j, const char* key) {
    const auto found = j.find(key);
    return found != j.end() && found->is_string() ? found->get<std::string>() : "";
}

} // namespace

void session::failed(int exit, const std::string& word, const std::string& text) {
    code = exit;
    if (as_json) {
        around.out << json{{"ok", false}, {"code", word}, {"error", text}}.dump(indent) << "\n";
    } else {
        around.err << "gracectl: " << text << "\n";
    }
}

std::string session::daemon_name() const {
    if (!ipc_name.empty()) {
        return ipc_name;
    }
    // A file that is wrong is the daemon's matter: it must not keep anybody from asking it.
    const auto configured = load_config(default_config_file, false);
    return configured ? configured->graced.ipc_name : config{}.graced.ipc_name;
}

std::optional<json> session::ask(const json& request, wait_limit limit) {
    std::optional<std::chrono::milliseconds> timeout;
    if (limit > 0) {
        timeout = std::chrono::milliseconds(static_cast<std::int64_t>(limit * 1000));
    }
    const auto answer =
        around.ask(daemon_name(), request, timeout, [this](const std::string& line) {
            around.err << line << std::endl; // at once: somebody watches it
        });
    return heard(answer);
}

std::optional<json> session::heard(const result<json>& answer) {
    if (!answer) {
        const word_for_error as = classify(answer.error());
        failed(as.exit, as.word, answer.error().message);
        return std::nullopt;
    }
    const auto ok = answer->find("ok");
    if (ok != answer->end() && ok->is_boolean() && !ok->get<bool>()) {
        const std::string word = text_at(*answer, "code");
        const std::string text = text_at(*answer, "error");
        code = exit_for_code(word);
        code = code == exit_ok ? exit_failed : code;
        if (as_json) {
            around.out << answer->dump(indent, ' ', false, json::error_handler_t::replace) << "\n";
        } else {
            around.err << "gracectl: " << (text.empty() ? word : text) << "\n";
        }
        return std::nullopt;
    }
    return *answer;
}

void session::print(const json& answer, const std::function<std::string(const json&)>& render) {
    if (as_json) {
        around.out << answer.dump(indent, ' ', false, json::error_handler_t::replace) << "\n";
    } else {
        around.out << render(answer);
    }
}

void session::show(const json& request, wait_limit limit,
                   const std::function<std::string(const json&)>& render) {
    if (const auto answer = ask(request, limit)) {
        print(*answer, render);
    }
}

int run(int argc, const char* const* argv, surroundings& around) {
    session s(around);
    CLI::App app("gracectl: look at and steer the cluster-wide NFS grace period that graced keeps",
                 "gracectl");
    app.footer(std::string("--json and --ipc may stand before or after the verb.\n") +
               exit_codes_help);
    app.add_flag("--json", s.as_json, "print JSON");
    app.add_option("--ipc", s.ipc_name,
                   "name of the daemon's control IPC; default: from " +
                       std::string(default_config_file) + ", or graced");
    app.require_subcommand(1);
    app.fallthrough(); // before the verbs are added: they inherit it
    add_view_verbs(app, s);
    add_grace_verbs(app, s);
    add_server_care(app, s);
    add_gate_verbs(app, s);
    add_metrics_verbs(app, s);
    add_watch_verb(app, s);
    add_history_verbs(app, s);
    add_record_verbs(app, s);
    add_import_verbs(app, s);
    add_config_verbs(app, s);
    add_doctor_verb(app, s);
    add_server_verbs(app, s);
    for (CLI::App* verb : app.get_subcommands(nullptr)) {
        const std::string examples = verb->get_footer(); // if it has any
        verb->footer(examples + (examples.empty() ? "" : "\n") + exit_codes_help);
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        // --help ends up here too, with code 0.
        return app.exit(e, around.out, around.err) == 0 ? exit_ok : exit_usage;
    }
    return s.code;
}

} // namespace grace::ctl
