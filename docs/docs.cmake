# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what people read: man pages, and the documents that they refer to.
file(GLOB pages CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/man/*.[578])
foreach(page IN LISTS pages)
  string(REGEX REPLACE ".*\\." "" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
file(GLOB documents CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.md)
install(FILES ${documents} DESTINATION /usr/share/doc/graced)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/monitoring/graced-dashboard.json ${CMAKE_CURRENT_LIST_DIR}/monitoring/graced-alerts.yml
  DESTINATION /usr/share/doc/graced/monitoring)
