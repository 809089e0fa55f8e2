# SPDX-License-Identifier: GPL-2.0-or-later
# The recovery database: real files, a killed writer, a full disk.
add_executable(store_sqlite_test unit/store_sqlite_test.cc)
target_link_libraries(store_sqlite_test PRIVATE graced_store graced_flags doctest::doctest)
target_compile_definitions(store_sqlite_test PRIVATE STORE_DATA="${CMAKE_CURRENT_LIST_DIR}/data/store")
target_include_directories(store_sqlite_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
add_test(NAME store_sqlite COMMAND store_sqlite_test)
add_executable(store_power_test unit/store_power_test.cc)
target_include_directories(store_power_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(store_power_test PRIVATE graced_store graced_flags doctest::doctest ${CMAKE_DL_LIBS})
add_test(NAME store_power COMMAND store_power_test)
