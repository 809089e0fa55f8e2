# SPDX-License-Identifier: GPL-2.0-or-later
# Configuration, control IPC, gracectl.
add_executable(config_file_test unit/config_file_test.cc)
target_compile_definitions(config_file_test PRIVATE
  GRACED_EXAMPLE_CONF="${PROJECT_SOURCE_DIR}/systemd/graced.conf")
target_link_libraries(config_file_test PRIVATE graced_config graced_flags doctest::doctest)
add_test(NAME config_file COMMAND config_file_test)
