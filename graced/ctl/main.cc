// SPDX-License-Identifier: GPL-2.0-or-later
// gracectl with the real world around it.
#include "graced/adapters/control_client.hh"
#include "graced/adapters/shim_netlink.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/doctor/doctor.hh"

#include <chrono>
#include <csignal>
#include <exception>
#include <iostream>

int main(int argc, char** argv) {
    using namespace grace;
    std::signal(SIGPIPE, SIG_DFL); // `gracectl clients | head` ends quietly
    ctl::surroundings world{std::cout,
                            std::cerr,
                            [] {
                                return std::chrono::duration<double>(
                                           std::chrono::system_clock::now().time_since_epoch())
                                    .count();
                            },
                            [](const std::string& name, const ctl::json& request,
                               std::optional<std::chrono::milliseconds> timeout,
                               const ctl::progress& on_progress) -> result<ctl::json> {
                                auto client = control_client::connect(name);
                                if (!client) {
                                    return tl::unexpected(client.error());
                                }
                                return client->request(request, timeout, on_progress);
                            },
                            shim_netlink::bypass_directly,
                            shim_netlink::bypassed_directly,
                            graced_elsewhere,
                            [] { return gfs2_mounts(); },
                            [](const std::string& runtime_dir, const std::string& database) {
                                return doctor::collect(runtime_dir, database);
                            },
                            ctl::run_program};
    try {
        return ctl::run(argc, argv, world);
    } catch (const std::exception& e) {
        std::cerr << "gracectl: " << e.what() << "\n";
        return ctl::exit_failed;
    }
}
