# SPDX-License-Identifier: GPL-2.0-or-later
# The engine knows libgrace only: the simulator links it without any adapter.
add_library(graced_engine STATIC ${CMAKE_CURRENT_SOURCE_DIR}/engine.cc)
target_include_directories(graced_engine PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/graced)
target_link_libraries(graced_engine PUBLIC grace PRIVATE graced_flags)
