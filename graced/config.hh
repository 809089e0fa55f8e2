// SPDX-License-Identifier: GPL-2.0-or-later
// The configuration file: its struct with defaults, and the one function that reads and checks it.
//
// Syntax: sections in brackets, `key = value`, `#` starts a comment, strings in double quotes where
// they hold spaces, commas or `#`, lists in brackets (over several lines if you like). A key that
// is not known is an error: a misspelt `periood` must not mean "the default, silently".
// systemd/graced.conf is the commented example; `gracectl config check` runs this code.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace grace {

constexpr const char* default_config_file = "/etc/graced/graced.conf";
constexpr int exit_config = 78; // EX_CONFIG: systemd must not restart on it (sysexits.h)

enum class daemon_state : std::uint8_t { cluster, single };
enum class lock_backend : std::uint8_t { dlm, embedded };
enum class gate_backend : std::uint8_t { module, embedded, none };
enum class log_level : std::uint8_t { error, warning, info, debug };

const char* to_string(daemon_state);
const char* to_string(lock_backend);
const char* to_string(gate_backend);
const char* to_string(log_level);

// One [server.NAME]. Only graced-server uses most of it; the daemon needs name and cld_version.
struct server_config {
    std::string name;                   // DNS label of up to 64 characters: scope and host name too
    std::vector<std::string> addresses; // ADDRESS/PREFIX, no two servers share one
    std::string interface;              // the node's interface that the addresses stand on
    std::vector<std::string> exports;   // lines of exports(5)
    std::uint32_t threads = 8;          // of nfsd, 1..1024
    std::uint32_t cld_version = 2;      // of nfsd's tracking upcalls: 0, 1 or 2
    // NFSv3 has to be asked for: on kernel 6.1 its locks over GFS2 are broken (two clients of one
    // node can hold the same lock).
    std::vector<std::string> nfs_versions = {"4.0", "4.1", "4.2"};
    // nfsd's own grace time, seconds, 10..3600. It frees its list of known clients when that ends,
    // so it has to outlast graced's grace. 0: auto, see nfsd_grace_time().
    std::uint32_t grace_time = 0;
    std::uint32_t lease_time = 0; // seconds, 10..3600; 0: what the kernel has (90)
};

struct config {
    struct {
        daemon_state state = daemon_state::cluster;
        std::string group = "graced"; // CPG group
        std::string name;             // of this node; empty: from corosync, or the host name
        std::string runtime_dir = "/run/graced";
        std::string ipc_name = "graced"; // of the control IPC (an abstract socket)
        log_level level = log_level::info;
        std::string log = "stderr"; // stderr, journal or an absolute path
    } graced;
    struct {
        std::chrono::seconds period{90};
        std::chrono::seconds orphan_timeout{600};
        std::chrono::seconds daemon_timeout{300};
        std::chrono::seconds grace_start_hold{20};
        std::set<std::uint32_t> nodes_without_gfs2;
    } grace;
    struct {
        std::optional<std::chrono::milliseconds> ttl;       // none: from corosync's token timeout
        std::optional<std::chrono::milliseconds> heartbeat; // none: from ttl
    } permit;
    struct {
        std::string path = "/var/lib/graced/graced.sqlite";
        std::chrono::seconds stall_timeout{10}; // a disk that stands still so long has failed
        std::uint32_t history = 500;            // graces that are kept for people; 0: none
    } store;
    struct {
        lock_backend backend = lock_backend::dlm;
        std::string socket = "/run/graced/dlm.sock";
        std::vector<std::string> keeper = {"/usr/sbin/graced-dlm"}; // program and arguments
    } locks;
    struct {
        gate_backend backend = gate_backend::module;
        std::string socket; // embedded only
    } gate;
    struct {
        std::string dlm_group = "dlm:controld"; // empty: there is none
        std::string fence_command;              // empty: do not fence
    } cluster;
    std::map<std::string, server_config> servers;

    std::string file;                  // where it was read; empty: nothing but defaults
    std::vector<std::string> warnings; // allowed, but probably not what was meant
};

// Everything that is wrong with a file, not only the first thing.
struct config_errors {
    std::string file;
    std::vector<std::string> messages;
    [[nodiscard]] std::string text() const; // one line for each, ends with a newline
};

// `file` is only a name for messages.
tl::expected<config, config_errors> parse_config(std::string_view text, const std::string& file);

// A missing file is an error if `required`; else the defaults, with a warning.
tl::expected<config, config_errors> load_config(const std::string& path, bool required = true);

// The value for nfsd's nfsv4gracetime: as configured, or longer than graced's longest grace (twice
// the period) as far as the kernel allows (3600).
std::uint32_t nfsd_grace_time(const config&, const server_config&);

nlohmann::json to_json(const config&);
nlohmann::json to_json(const config&, const server_config&);
// `GRACED_…='…'` lines for `eval` in a POSIX shell; lists are separated by newlines.
std::string to_shell(const config&, const server_config&);

} // namespace grace
