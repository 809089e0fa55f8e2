// SPDX-License-Identifier: GPL-2.0-or-later
// What the groups of verbs share: how the daemon is asked, where output goes, and the exit code.
#pragma once

#include "graced/ctl/exit_codes.hh"
#include "graced/node_view.hh"
#include "graced/result.hh"

#include <chrono>
#include <functional>
#include <iosfwd>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace grace::ctl {

class watch_screen; // watch.hh

using nlohmann::json;
using progress = std::function<void(const std::string&)>;
// Seconds, as a person types them; 0: no limit.
using wait_limit = double;

struct program_output {
    int code; // 128 + the signal that ended it
    std::string out, err;
};

// The world outside, so that tests can stand in for it.
struct surroundings {
    std::ostream& out;
    std::ostream& err;
    std::function<double()> now; // CLOCK_REALTIME, seconds
    std::function<result<json>(const std::string& ipc_name, const json& request,
                               std::optional<std::chrono::milliseconds> timeout, const progress&)>
        ask;
    // Without a daemon. Empty: there is no such thing.
    std::function<result<void>(bool on)> bypass_here = {};
    std::function<result<bool>()> bypassed_here = {};
    std::function<result<std::vector<std::uint32_t>>(const std::string& group)> graced_elsewhere =
        {};
    std::function<std::vector<gfs2_mount>()> gfs2_mounts = {};
    // What `doctor` looks at (doctor.hh, collect()).
    std::function<json(const std::string& runtime_dir, const std::string& database)> node_facts =
        {};
    std::function<result<program_output>(const std::vector<std::string>& command,
                                         std::chrono::seconds limit)>
        run_program = {};
    // For `watch`. No screen, or an empty pointer: it prints lines.
    std::function<std::unique_ptr<watch_screen>()> open_screen = {};
    std::function<bool(double seconds)> wait = {}; // false: it is to end
};

class session {
public:
    explicit session(surroundings& s)
        : around(s) {}
    surroundings& around;
    bool as_json = false;
    std::string ipc_name; // empty: from the configuration file, or `graced`
    int code = exit_ok;
    int indent = 2; // of JSON; -1: on one line

    // Where the daemon listens.
    [[nodiscard]] std::string daemon_name() const;

    // The daemon's answer. None if it did not come, or said "ok": false: then the reason was
    // printed and `code` is set.
    std::optional<json> ask(const json& request, wait_limit limit);
    // The same of an answer that came already.
    std::optional<json> heard(const result<json>& answer);
    // ask(), then prints the answer as JSON or as `render` shows it.
    void show(const json& request, wait_limit limit,
              const std::function<std::string(const json&)>& render);
    void print(const json& answer, const std::function<std::string(const json&)>& render);
    void failed(int exit, const std::string& word, const std::string& text);
};

// Each group adds its verbs; their callbacks run while the command line is parsed.
void add_view_verbs(CLI::App&, session&);  // status dump servers nodes clients mounts version
void add_grace_verbs(CLI::App&, session&); // start join lift extend enforce noenforce wait fence-notify
void add_server_care(CLI::App&, session&); // migrate remove
void add_doctor_verb(CLI::App&, session&);
void add_gate_verbs(CLI::App&, session&);    // bypass exempt
void add_server_verbs(CLI::App&, session&);  // server-… (for agents, hidden)
void add_record_verbs(CLI::App&, session&);  // record replay
void add_metrics_verbs(CLI::App&, session&); // metrics
void add_history_verbs(CLI::App&, session&); // history
void add_watch_verb(CLI::App&, session&);    // watch
void add_import_verbs(CLI::App&, session&);  // import export
void add_config_verbs(CLI::App&, session&);  // config check|show|server

// The clients on record, of one server or of all: the daemon answers in pages, this puts them
// together. None as session::ask().
std::optional<json> all_clients(session&, const std::string& server);
// The same of any verb that answers so; the list has its name.
std::optional<json> all_pages(session&, const char* verb, const std::string& server);

// The real run_program. Error ENOENT: there is no such program; ETIMEDOUT: it was killed.
result<program_output> run_program(const std::vector<std::string>& command,
                                   std::chrono::seconds limit);

// gracectl, all of it. The exit code.
int run(int argc, const char* const* argv, surroundings&);

} // namespace grace::ctl
