// SPDX-License-Identifier: GPL-2.0-or-later
// graced-dlm: the keeper of one node's DLM locks. It is a process of its own so that the locks
// outlive the daemon (its kernel may go on accepting reclaims without it), and so that nothing but
// this small program hangs when a holder of DLM locks exits while the lockspace is frozen.
//
//   graced-dlm [--listen PATH]              keeps locks of the kernel's DLM, in lockspace `graced`
//   graced-dlm --embedded [--listen PATH]   the same protocol over a table in this process, for
//                                           several nodes: a stand-in without a DLM
//   graced-dlm --ctl PATH COMMAND [NODE]    dump; freeze, thaw, fenced, keeper-died
//
// SIGTERM and SIGINT are an orderly end: all locks are unlocked, the lockspace is left. SIGKILL is
// safe, too: the kernel drops a dead process's locks, once the lockspace is not frozen.
// Exit codes: 0, 1 (an error), 3 (another keeper answers on that path: nothing to do).
#include "dlm_keeper/ctl.hh"
#include "dlm_keeper/dlm_backend.hh"
#include "dlm_keeper/embedded_backend.hh"
#include "dlm_keeper/server.hh"

#include <CLI/CLI.hpp>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdio>
#include <unistd.h>

using namespace grace;
using namespace grace::keeper;

namespace {

// Not to be chosen: nodes in two lockspaces would exclude each other from nothing.
constexpr const char* lockspace = "graced";
constexpr std::uint64_t release_limit_ns = 10'000'000'000;

struct running {
    qb_loop_t* loop;
    server* front;
    int exit_code = 0;
};

int32_t on_signal(int32_t number, void* data) {
    auto* r = static_cast<running*>(data);
    qb_loop_timer_handle ignored;
    qb_loop_timer_add(
        r->loop, QB_LOOP_HIGH, release_limit_ns, data,
        [](void* again) {
            spdlog::error("the locks could not be unlocked within {} s: the lockspace is frozen. "
                          "This process now ends, but will hang in the kernel until a fencing is "
                          "over or quorum is back; its locks go then",
                          release_limit_ns / 1'000'000'000);
            static_cast<running*>(again)->exit_code = 1;
            qb_loop_stop(static_cast<running*>(again)->loop);
        },
        &ignored);
    r->front->begin_release(number == SIGTERM ? "SIGTERM" : "SIGINT");
    return 0;
}

int serve(lock_backend& backend, qb_loop_t* loop, const std::string& path) {
    server front(loop, backend, path);
    running r{loop, &front};
    front.on_end = [&r](int code) {
        r.exit_code = code;
        qb_loop_stop(r.loop);
    };
    if (const auto ok = front.listen(); !ok) {
        spdlog::error("{}", ok.error().message);
        return ok.error().code == EADDRINUSE ? 3 : 1;
    }
    // Not before: of several that were started at once only the one that listens may touch the DLM.
    backend.start();
    for (const int number : {SIGTERM, SIGINT})
        qb_loop_signal_add(loop, QB_LOOP_HIGH, number, &r, on_signal, nullptr);
    qb_loop_run(loop);
    spdlog::info("the end");
    return r.exit_code;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Keeps the DLM locks of this node's graced"};
    std::string path = default_socket, level = "info", command, ctl;
    bool embedded = false;
    std::uint32_t node = 0;
    app.add_option("--listen", path, "socket for graced")->capture_default_str();
    app.add_flag("--embedded", embedded, "no DLM: a lock table in this process, for several nodes");
    app.add_option("--log-level", level, "trace, debug, info, warning, error, critical, off")
        ->capture_default_str();
    auto* ctl_option = app.add_option("--ctl", ctl, "ask the keeper that listens on this socket");
    app.add_option("command", command,
                   "dump | freeze [NODE] | thaw | fenced NODE | keeper-died NODE")
        ->needs(ctl_option);
    app.add_option("node", node, "node id")->needs(ctl_option);
    CLI11_PARSE(app, argc, argv);

    if (*ctl_option) {
        const auto done = run_ctl(ctl, command.empty() ? "dump" : command, node);
        if (!done)
            std::fprintf(stderr, "graced-dlm: %s\n", done.error().message.c_str());
        return done ? 0 : 1;
    }

    // stderr: the journal's, or the terminal's.
    spdlog::set_default_logger(spdlog::stderr_color_mt("graced-dlm"));
    spdlog::set_level(spdlog::level::from_str(level));
    std::signal(SIGPIPE, SIG_IGN);
    if (::chdir("/") < 0) // holds no file system busy
        spdlog::warn("cannot change to /");

    qb_loop_t* loop = qb_loop_create();
    int code = 1;
    if (embedded) {
        spdlog::warn("EMBEDDED LOCK TABLE: a stand-in for the DLM inside this process. It protects "
                     "nothing beyond this machine; never use it for a real cluster");
        embedded_backend backend;
        code = serve(backend, loop, path);
    } else {
        dlm_backend backend(loop, lockspace);
        code = serve(backend, loop, path);
    }
    spdlog::shutdown();
    // Not exit(): the worker may be inside the kernel and must not see static objects go.
    ::_exit(code);
}
