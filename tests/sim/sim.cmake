# SPDX-License-Identifier: GPL-2.0-or-later
# The simulated cluster around the production engine, and the program that draws faults for it.
add_library(grace_world STATIC
    ${CMAKE_CURRENT_LIST_DIR}/world.cc ${CMAKE_CURRENT_LIST_DIR}/ring.cc ${CMAKE_CURRENT_LIST_DIR}/transitions.cc)
target_include_directories(grace_world PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/graced ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(grace_world PUBLIC graced_engine graced_embedded_locks PRIVATE graced_flags)

add_executable(grace-sim
    ${CMAKE_CURRENT_LIST_DIR}/main.cc ${CMAKE_CURRENT_LIST_DIR}/run.cc ${CMAKE_CURRENT_LIST_DIR}/checker.cc)
target_link_libraries(grace-sim PRIVATE grace_world CLI11::CLI11 graced_flags)
