// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl's exit codes. Scripts, agents and CI rely on them: a number never changes its meaning.
#pragma once

#include <string>

namespace grace::ctl {

enum exit_code : int {
    exit_ok = 0,
    exit_failed = 1,
    exit_usage = 2,
    exit_not_running = 3,
    exit_not_quorate = 4,
    exit_not_enforcing = 5, // somebody who has to enforce does not
    exit_unknown = 6,       // no such node, server or grace
    exit_timeout = 7,
    exit_hosted_elsewhere = 8,
    exit_permission = 9,
    exit_wrong = 10,      // doctor: something is wrong
    exit_advice = 11,     // doctor: nothing is, but there is advice
    exit_bad_config = 78, // EX_CONFIG, as graced itself exits
};

constexpr const char* exit_codes_help =
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 graced is not running, 4 not quorate, 5 not "
    "enforcing,\n"
    "  6 no such node, server or grace, 7 timeout, 8 hosted elsewhere, 9 no permission,\n"
    "  10 something is wrong, 11 there is advice (doctor), 78 the configuration is wrong (config\n"
    "  verbs).";

// For an answer's "code" (control_ipc.hh, to_code(request_status), and the words of
// control_server).
inline int exit_for_code(const std::string& code) {
    if (code == "done") {
        return exit_ok;
    }
    if (code == "not_quorate") {
        return exit_not_quorate;
    }
    if (code == "not_enforcing") {
        return exit_not_enforcing;
    }
    if (code == "no_such_server" || code == "no_such_node") {
        return exit_unknown;
    }
    if (code == "timeout") {
        return exit_timeout;
    }
    if (code == "hosted_elsewhere") {
        return exit_hosted_elsewhere;
    }
    if (code == "permission") {
        return exit_permission;
    }
    return exit_failed;
}

} // namespace grace::ctl
