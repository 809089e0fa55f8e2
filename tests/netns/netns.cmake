# SPDX-License-Identifier: GPL-2.0-or-later
# The daemon's own objects, with another check_invariants() in front of the core's.
add_executable(graced-broken ${CMAKE_CURRENT_LIST_DIR}/broken_invariant.cc $<TARGET_OBJECTS:graced>)
target_link_libraries(graced-broken PRIVATE $<TARGET_PROPERTY:graced,LINK_LIBRARIES>)
