# SPDX-License-Identifier: GPL-2.0-or-later
# What the daemon tells its operators of a grace: metrics, history.
add_executable(watch_metrics_test ${CMAKE_CURRENT_LIST_DIR}/watch_metrics_test.cc)
target_link_libraries(watch_metrics_test PRIVATE graced_watch grace_world graced_flags doctest::doctest)
add_test(NAME watch_metrics COMMAND watch_metrics_test)
add_executable(watch_history_test ${CMAKE_CURRENT_LIST_DIR}/watch_history_test.cc)
target_link_libraries(watch_history_test PRIVATE graced_watch gracectl_verbs graced_flags doctest::doctest)
add_test(NAME watch_history COMMAND watch_history_test)
