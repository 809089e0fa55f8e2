# SPDX-License-Identifier: GPL-2.0-or-later
# The protocol as scripts: tests/interaction/run.
add_executable(grace-interaction ${CMAKE_CURRENT_LIST_DIR}/main.cc ${CMAKE_CURRENT_LIST_DIR}/stage.cc)
target_link_libraries(grace-interaction PRIVATE grace_world graced_flags)
