# SPDX-License-Identifier: GPL-2.0-or-later
# Locks: the table without a DLM (pure, for the simulator, too), the client, the keeper graced-dlm.
add_library(graced_embedded_locks STATIC ${CMAKE_CURRENT_LIST_DIR}/embedded_locks.cc)
target_include_directories(graced_embedded_locks PUBLIC ${PROJECT_SOURCE_DIR}/graced
  ${PROJECT_SOURCE_DIR}/libgrace/include)
target_link_libraries(graced_embedded_locks PRIVATE graced_flags)

graced_adapter(graced_locks SOURCES ${CMAKE_CURRENT_LIST_DIR}/lock_client.cc)
target_include_directories(graced_locks PUBLIC ${PROJECT_SOURCE_DIR}/libgrace/include)

set(keeper ${PROJECT_SOURCE_DIR}/graced/dlm_keeper)
add_executable(graced-dlm ${keeper}/main.cc ${keeper}/server.cc ${keeper}/ctl.cc
  ${keeper}/embedded_backend.cc ${keeper}/dlm_backend.cc ${keeper}/dlm_worker.cc)
target_include_directories(graced-dlm PRIVATE ${PROJECT_SOURCE_DIR}/graced)
target_link_libraries(graced-dlm PRIVATE graced_embedded_locks PkgConfig::dlm PkgConfig::qb
  spdlog::spdlog CLI11::CLI11 Threads::Threads graced_flags)
install(TARGETS graced-dlm DESTINATION ${CMAKE_INSTALL_SBINDIR})
