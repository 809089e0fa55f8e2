# SPDX-License-Identifier: GPL-2.0-or-later
# The simulated cluster around the production engine, and the program that draws faults for it.
add_library(grace_world STATIC ${CMAKE_CURRENT_LIST_DIR}/world.cc ${CMAKE_CURRENT_LIST_DIR}/transitions.cc)
target_include_directories(grace_world PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/graced ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(grace_world PUBLIC graced_engine graced_embedded_locks PRIVATE graced_flags)

add_executable(grace-sim ${CMAKE_CURRENT_LIST_DIR}/main.cc)
target_link_libraries(grace-sim PRIVATE grace_world CLI11::CLI11 graced_flags)

# The simulator's successor, see next/README.md: built, so that it does not rot; not run by CI.
add_executable(grace-sim-next
    ${CMAKE_CURRENT_LIST_DIR}/next/main.cc ${CMAKE_CURRENT_LIST_DIR}/next/run.cc ${CMAKE_CURRENT_LIST_DIR}/next/checker.cc
    ${CMAKE_CURRENT_LIST_DIR}/next/world.cc ${CMAKE_CURRENT_LIST_DIR}/next/ring.cc)
target_include_directories(grace-sim-next PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/graced ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(grace-sim-next PRIVATE graced_engine graced_embedded_locks CLI11::CLI11 graced_flags)
