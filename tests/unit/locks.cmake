# SPDX-License-Identifier: GPL-2.0-or-later
# Unit tests of the lock table, and of keeper and client together over a real socket.
find_package(spdlog REQUIRED)
find_package(Threads REQUIRED)
if(NOT TARGET doctest_main_locks)
  add_library(doctest_main_locks STATIC ${CMAKE_CURRENT_LIST_DIR}/locks_main_test.cc)
  target_link_libraries(doctest_main_locks PUBLIC doctest::doctest)
endif()

add_executable(locks_table_test ${CMAKE_CURRENT_LIST_DIR}/locks_table_test.cc)
target_link_libraries(locks_table_test PRIVATE graced_embedded_locks doctest_main_locks graced_flags)
add_test(NAME locks_table COMMAND locks_table_test)

add_executable(locks_keeper_test ${CMAKE_CURRENT_LIST_DIR}/locks_keeper_test.cc)
target_link_libraries(locks_keeper_test PRIVATE graced_locks doctest_main_locks Threads::Threads
  graced_flags)
target_compile_definitions(locks_keeper_test PRIVATE KEEPER="$<TARGET_FILE:graced-dlm>")
add_dependencies(locks_keeper_test graced-dlm)
add_test(NAME locks_keeper COMMAND locks_keeper_test)
# The keeper's thread with a libdlm of the test's own: no DLM, no kernel.
add_executable(locks_worker_test ${CMAKE_CURRENT_LIST_DIR}/locks_worker_test.cc
  ${PROJECT_SOURCE_DIR}/graced/dlm_keeper/dlm_worker.cc)
target_include_directories(locks_worker_test PRIVATE ${PROJECT_SOURCE_DIR}/graced
  ${PROJECT_SOURCE_DIR}/libgrace/include)
target_link_libraries(locks_worker_test PRIVATE doctest_main_locks spdlog::spdlog Threads::Threads
  graced_flags)
add_test(NAME locks_worker COMMAND locks_worker_test)
set_tests_properties(locks_table locks_keeper locks_worker PROPERTIES LABELS unit TIMEOUT 600)
