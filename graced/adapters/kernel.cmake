# SPDX-License-Identifier: GPL-2.0-or-later
# The adapters that talk to the kernel: nfsd's upcalls, the shim module, and its stand-in.
graced_adapter(graced_kernel_write SOURCES ${CMAKE_CURRENT_LIST_DIR}/kernel_write.cc)
graced_adapter(graced_nfsd_clients SOURCES nfsd_clients.cc LIBS graced_import)
graced_adapter(graced_cld SOURCES ${CMAKE_CURRENT_LIST_DIR}/cld_message.cc ${CMAKE_CURRENT_LIST_DIR}/cld_pipe.cc
  ${CMAKE_CURRENT_LIST_DIR}/client_expiry.cc LIBS graced_kernel_write graced_nfsd_clients Threads::Threads)
graced_adapter(graced_shim SOURCES ${CMAKE_CURRENT_LIST_DIR}/shim_message.cc ${CMAKE_CURRENT_LIST_DIR}/shim_netlink.cc
  LIBS graced_kernel_write PkgConfig::genl Threads::Threads)
graced_adapter(graced_embedded_kernel SOURCES ${CMAKE_CURRENT_LIST_DIR}/embedded_kernel.cc)
