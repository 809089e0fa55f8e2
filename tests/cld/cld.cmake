# SPDX-License-Identifier: GPL-2.0-or-later
# The stand-in for rpc_pipefs, and nfsd's part on it: tests/cld/run. Without libfuse3 it is not built.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(fuse3 IMPORTED_TARGET fuse3)
if(fuse3_FOUND)
  add_executable(cld-nfsd ${CMAKE_CURRENT_LIST_DIR}/driver.cc ${CMAKE_CURRENT_LIST_DIR}/pipefs.cc)
  target_link_libraries(cld-nfsd PRIVATE graced_cld PkgConfig::fuse3 Threads::Threads graced_flags)
endif()
