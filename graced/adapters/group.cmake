# SPDX-License-Identifier: GPL-2.0-or-later
graced_adapter(graced_group SOURCES ${CMAKE_CURRENT_LIST_DIR}/corosync_group.cc LIBS PkgConfig::corosync)
