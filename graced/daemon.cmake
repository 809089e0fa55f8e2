# SPDX-License-Identifier: GPL-2.0-or-later
# The engine knows libgrace only: the simulator links it without any adapter.
add_library(graced_engine STATIC ${CMAKE_CURRENT_SOURCE_DIR}/engine.cc ${CMAKE_CURRENT_SOURCE_DIR}/recorder.cc)
target_include_directories(graced_engine PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/graced)
target_link_libraries(graced_engine PUBLIC grace PRIVATE graced_flags)

# The machine as people and their monitoring see it.
add_library(graced_watch STATIC ${CMAKE_CURRENT_SOURCE_DIR}/grace_watch.cc ${CMAKE_CURRENT_SOURCE_DIR}/metrics.cc)
target_compile_definitions(graced_watch PRIVATE GRACED_VERSION="${PROJECT_VERSION}")
target_include_directories(graced_watch PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(graced_watch PUBLIC grace PRIVATE graced_flags)

add_executable(graced main.cc daemon.cc instances.cc record_import.cc nfs3_tracker.cc status.cc)
target_compile_definitions(graced PRIVATE GRACED_VERSION="${PROJECT_VERSION}")
target_link_libraries(graced PRIVATE graced_engine graced_watch graced_config graced_group graced_locks graced_grace_history graced_store
  graced_control graced_notify graced_callout graced_import graced_cld graced_shim graced_embedded_kernel CLI11::CLI11 graced_flags)
install(TARGETS graced DESTINATION ${CMAKE_INSTALL_SBINDIR})

# What rpc.statd runs. Not beside the programs that people call.
add_executable(graced-callout callout/main.cc)
target_include_directories(graced-callout PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/libgrace/include)
target_link_libraries(graced-callout PRIVATE graced_flags)
install(TARGETS graced-callout DESTINATION ${CMAKE_INSTALL_SBINDIR})
