// SPDX-License-Identifier: GPL-2.0-or-later
// graced: arguments, configuration, log; then the daemon.
#include "graced/daemon.hh"

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/systemd_sink.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

namespace {

void set_up_log(const grace::config& c) {
    std::shared_ptr<spdlog::logger> log;
    if (c.graced.log == "stderr")
        log = spdlog::stderr_logger_st("graced");
    else if (c.graced.log == "journal")
        log = spdlog::systemd_logger_st("graced");
    else
        log = spdlog::basic_logger_st("graced", c.graced.log);
    if (c.graced.log != "journal")
        log->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    const spdlog::level::level_enum levels[] = {spdlog::level::err, spdlog::level::warn,
                                                spdlog::level::info, spdlog::level::debug};
    log->set_level(levels[static_cast<std::size_t>(c.graced.level)]);
    log->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(std::move(log));
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"graced: one grace period for a GFS2 cluster and its NFS servers", "graced"};
    std::string file = grace::default_config_file;
    bool check = false;
    auto* option = app.add_option("-c,--config", file, "configuration file")->capture_default_str();
    app.add_flag("--check", check, "check the configuration file and exit");
    app.set_version_flag("-V,--version", std::string("graced ") + GRACED_VERSION);
    app.footer(
        "Exit codes: 0 asked to stop; 65 database damaged or of another version; 69 corosync\n"
        "or kernel module missing; 70 bug; 74 disk; 75 another graced runs; 78 configuration.");
    CLI11_PARSE(app, argc, argv);

    auto config = grace::load_config(file, option->count() > 0);
    if (!config) {
        std::cerr << config.error().text();
        return static_cast<int>(grace::exit_code::config);
    }
    if (check)
        return 0;
    try {
        set_up_log(*config);
    } catch (const spdlog::spdlog_ex& e) {
        std::cerr << "graced: the log cannot be opened: " << e.what() << "; set `log` in " << file
                  << '\n';
        return static_cast<int>(grace::exit_code::config);
    }
    std::signal(SIGPIPE, SIG_IGN);
    // Problem scenario: memory is short, an allocation for us (the kernel's netlink answers too)
    // writes back a dirty page of GFS2, which is frozen until we close the gate. Needs 5.6; without
    // the capability it is only refused.
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    grace::daemon d(std::move(*config));
    if (auto failed = d.start()) {
        spdlog::critical("{}", failed->message);
        return static_cast<int>(failed->code);
    }
    return static_cast<int>(d.run());
}
