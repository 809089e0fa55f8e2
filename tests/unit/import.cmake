# SPDX-License-Identifier: GPL-2.0-or-later
# Readers of what other trackers left, and the verbs that use them.
add_executable(import_sources_test unit/import_sources_test.cc)
target_link_libraries(import_sources_test PRIVATE graced_import sqlite3 graced_flags doctest::doctest)
add_test(NAME import_sources COMMAND import_sources_test)
