# SPDX-License-Identifier: GPL-2.0-or-later
# Configuration, control IPC (both ends), gracectl, and what systemd is told.
graced_adapter(graced_config SOURCES config.cc LIBS nlohmann_json::nlohmann_json CLI11::CLI11)
graced_adapter(graced_control SOURCES adapters/control_ipc.cc LIBS nlohmann_json::nlohmann_json)
graced_adapter(graced_control_client SOURCES adapters/control_client.cc
               LIBS nlohmann_json::nlohmann_json)
graced_adapter(graced_notify SOURCES adapters/notify.cc LIBS PkgConfig::systemd)
