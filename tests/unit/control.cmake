# SPDX-License-Identifier: GPL-2.0-or-later
# Configuration, control IPC, gracectl.
add_executable(config_file_test unit/config_file_test.cc)
target_compile_definitions(config_file_test PRIVATE
  GRACED_EXAMPLE_CONF="${PROJECT_SOURCE_DIR}/systemd/graced.conf")
target_link_libraries(config_file_test PRIVATE graced_config graced_flags doctest::doctest)
add_test(NAME config_file COMMAND config_file_test)

add_executable(control_ipc_test unit/control_ipc_test.cc)
target_link_libraries(control_ipc_test PRIVATE graced_control graced_control_client graced_notify
                      graced_flags doctest::doctest)
add_test(NAME control_ipc COMMAND control_ipc_test)

add_executable(node_view_test unit/node_view_test.cc)
target_link_libraries(node_view_test PRIVATE graced_node_view graced_cld graced_flags doctest::doctest)
add_test(NAME node_view COMMAND node_view_test)

add_executable(ctl_render_test unit/ctl_render_test.cc)
target_link_libraries(ctl_render_test PRIVATE gracectl_verbs graced_flags doctest::doctest)
add_test(NAME ctl_render COMMAND ctl_render_test)

add_executable(ctl_watch_test unit/ctl_watch_test.cc)
target_link_libraries(ctl_watch_test PRIVATE gracectl_verbs graced_flags doctest::doctest)
add_test(NAME ctl_watch COMMAND ctl_watch_test)

add_executable(ctl_verbs_test unit/ctl_verbs_test.cc)
target_compile_definitions(ctl_verbs_test PRIVATE GRACED_VERSION="${PROJECT_VERSION}")
target_link_libraries(ctl_verbs_test PRIVATE gracectl_verbs graced_flags doctest::doctest)
add_test(NAME ctl_verbs COMMAND ctl_verbs_test)

add_executable(callout_socket_test unit/callout_socket_test.cc)
target_compile_definitions(callout_socket_test PRIVATE GRACED_CALLOUT_PROGRAM="$<TARGET_FILE:graced-callout>")
target_link_libraries(callout_socket_test PRIVATE graced_callout graced_flags doctest::doctest)
add_dependencies(callout_socket_test graced-callout)
add_test(NAME callout_socket COMMAND callout_socket_test)

add_executable(doctor_checks_test unit/doctor_checks_test.cc)
target_link_libraries(doctor_checks_test PRIVATE graced_checks graced_flags doctest::doctest)
add_test(NAME doctor_checks COMMAND doctor_checks_test)

add_executable(doctor_collect_test unit/doctor_collect_test.cc)
target_link_libraries(doctor_collect_test PRIVATE graced_doctor graced_cld graced_flags doctest::doctest)
add_test(NAME doctor_collect COMMAND doctor_collect_test)
