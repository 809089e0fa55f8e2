# SPDX-License-Identifier: GPL-2.0-or-later
# The recovery database: real files, a killed writer, a full disk.
add_executable(store_sqlite_test unit/store_sqlite_test.cc)
target_link_libraries(store_sqlite_test PRIVATE graced_store graced_flags doctest::doctest)
add_test(NAME store_sqlite COMMAND store_sqlite_test)
