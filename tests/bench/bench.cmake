# SPDX-License-Identifier: GPL-2.0-or-later
# What things cost: tests/bench/run.
add_executable(bench-records ${CMAKE_CURRENT_LIST_DIR}/records.cc)
target_link_libraries(bench-records PRIVATE grace_world graced_store CLI11::CLI11 graced_flags)
