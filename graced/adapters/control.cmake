# SPDX-License-Identifier: GPL-2.0-or-later
# Configuration, control IPC (both ends), gracectl, and what systemd is told.
graced_adapter(graced_config SOURCES config.cc LIBS nlohmann_json::nlohmann_json CLI11::CLI11)
graced_adapter(graced_control SOURCES adapters/control_ipc.cc LIBS nlohmann_json::nlohmann_json)
graced_adapter(graced_control_client SOURCES adapters/control_client.cc
               LIBS nlohmann_json::nlohmann_json)
graced_adapter(graced_callout SOURCES adapters/callout_socket.cc)
graced_adapter(graced_node_view SOURCES node_view.cc LIBS PkgConfig::corosync)
graced_adapter(graced_notify SOURCES adapters/notify.cc LIBS PkgConfig::systemd)

# What `gracectl doctor` looks for; collect.cc looks at the node itself.
graced_adapter(graced_checks SOURCES doctor/read.cc doctor/checks.cc LIBS nlohmann_json::nlohmann_json)
graced_adapter(graced_doctor SOURCES doctor/collect.cc LIBS graced_checks graced_node_view nlohmann_json::nlohmann_json)
target_compile_definitions(graced_doctor PRIVATE GRACED_VERSION="${PROJECT_VERSION}")

# All of gracectl but main(), so that the tests can stand in for the daemon.
graced_adapter(gracectl_verbs SOURCES ctl/gracectl.cc ctl/render.cc ctl/view_verbs.cc
               ctl/grace_verbs.cc ctl/gate_verbs.cc ctl/server_verbs.cc ctl/config_verbs.cc ctl/record_verbs.cc
               ctl/import_verbs.cc ctl/server_care.cc ctl/doctor_verb.cc ctl/program.cc
               ctl/metrics_verbs.cc ctl/history_verbs.cc ctl/history.cc ctl/history_svg.cc
               ctl/watch_verb.cc ctl/watch.cc
               LIBS graced_checks graced_config graced_grace_history graced_history graced_import graced_nfsd_clients
                    nlohmann_json::nlohmann_json CLI11::CLI11)
target_compile_definitions(gracectl_verbs PRIVATE GRACED_VERSION="${PROJECT_VERSION}")
add_executable(gracectl ctl/main.cc ctl/terminal.cc)
target_link_libraries(gracectl PRIVATE gracectl_verbs graced_control_client graced_node_view graced_doctor graced_shim
                      PkgConfig::curses graced_flags)
install(TARGETS gracectl DESTINATION ${CMAKE_INSTALL_SBINDIR})

# Completion: one program that knows what may come next, and what each shell needs to ask it.
set(completion ${CMAKE_CURRENT_SOURCE_DIR}/ctl/completion)
install(PROGRAMS ${completion}/gracectl-complete DESTINATION /usr/libexec/graced)
install(FILES ${completion}/gracectl.bash DESTINATION /usr/share/bash-completion/completions RENAME gracectl)
install(FILES ${completion}/gracectl.zsh DESTINATION /usr/share/zsh/vendor-completions RENAME _gracectl)
install(FILES ${completion}/gracectl.fish DESTINATION /usr/share/fish/vendor_completions.d)
