// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl with the real world around it.
#include "graced/adapters/control_client.hh"
#include "graced/adapters/shim_netlink.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/terminal.hh"
#include "graced/doctor/doctor.hh"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <iostream>
#include <optional>

int main(int argc, char** argv) {
    using namespace grace;
    std::signal(SIGPIPE, SIG_DFL); // `gracectl clients | head` ends quietly
    // Kept, for verbs that ask more than once.
    struct {
        std::string name;
        std::optional<control_client> client;
    } connection;
    ctl::terminal terminal; // of `watch`
    ctl::surroundings world{
        std::cout,
        std::cerr,
        [] {
            return std::chrono::duration<double>(
                       std::chrono::system_clock::now().time_since_epoch())
                .count();
        },
        [&](const std::string& name, const ctl::json& request,
            std::optional<std::chrono::milliseconds> timeout,
            const ctl::progress& on_progress) -> result<ctl::json> {
            if (!connection.client || connection.name != name) {
                const std::chrono::milliseconds most = std::chrono::seconds(5);
                auto fresh = control_client::connect(name, std::min(timeout.value_or(most), most));
                if (!fresh) {
                    return tl::unexpected(fresh.error());
                }
                connection = {name, std::move(*fresh)};
            }
            auto answer = connection.client->request(request, timeout, on_progress);
            if (!answer) {
                connection.client.reset();
            }
            return answer;
        },
        shim_netlink::bypass_directly,
        shim_netlink::bypassed_directly,
        graced_elsewhere,
        [] { return gfs2_mounts(); },
        [](const std::string& runtime_dir, const std::string& database) {
            return doctor::collect(runtime_dir, database);
        },
        ctl::run_program,
        [&] { return terminal.open(); },
        [&](double seconds) { return terminal.wait(seconds); }};
    try {
        return ctl::run(argc, argv, world);
    } catch (const std::exception& e) {
        std::cerr << "gracectl: " << e.what() << "\n";
        return ctl::exit_failed;
    }
}
