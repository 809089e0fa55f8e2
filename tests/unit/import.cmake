# SPDX-License-Identifier: GPL-2.0-or-later
# Readers of what other trackers left, and the verbs that use them.
add_executable(import_sources_test unit/import_sources_test.cc)
target_link_libraries(import_sources_test PRIVATE graced_import sqlite3 graced_flags doctest::doctest)
add_test(NAME import_sources COMMAND import_sources_test)

add_executable(ctl_clients_test unit/ctl_clients_test.cc)
target_compile_definitions(ctl_clients_test PRIVATE GRACED_VERSION="${PROJECT_VERSION}")
target_link_libraries(ctl_clients_test PRIVATE gracectl_verbs graced_flags doctest::doctest)
add_test(NAME ctl_clients COMMAND ctl_clients_test)
