# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what attaches graced to the system around it: graced-server, the agents of Pacemaker and
# DLM, units, the modules' sources for DKMS. Absolute paths where others look for files there only (systemd, DKMS,
# Pacemaker); a package sets DESTDIR.
set(hooks ${CMAKE_CURRENT_LIST_DIR})
set(units ${PROJECT_SOURCE_DIR}/systemd)

install(PROGRAMS ${hooks}/server/graced-server ${hooks}/fence/fence_graced DESTINATION /usr/sbin)
install(PROGRAMS ${hooks}/ocf/graced ${hooks}/ocf/server DESTINATION /usr/lib/ocf/resource.d/graced)
install(PROGRAMS ${hooks}/alert/alert_graced DESTINATION /usr/share/pacemaker/alerts)

install(FILES ${units}/graced.service ${units}/graced-dlm.service ${units}/graced-server@.service
  ${units}/graced-metrics.service ${units}/graced-metrics.timer DESTINATION /lib/systemd/system)
install(FILES ${units}/modules-load.d/graced.conf DESTINATION /usr/lib/modules-load.d)
install(FILES ${hooks}/modprobe.d/graced.conf DESTINATION /usr/lib/modprobe.d)
install(FILES ${units}/tmpfiles.d/graced.conf DESTINATION /usr/lib/tmpfiles.d)
# An example only: everything in it is commented out, and a file of the site's is never replaced.
install(FILES ${units}/graced.conf DESTINATION /usr/share/doc/graced/examples)
install(FILES ${units}/nfs-server.service.d/graced.conf
  DESTINATION /usr/share/doc/graced/examples/nfs-server.service.d)
install(FILES ${hooks}/alert/sudoers DESTINATION /usr/share/doc/graced/examples/sudoers.d RENAME graced)

# lockd-shim/dkms.conf is for both modules and for this layout; DKMS wants its name and version in the path.
file(STRINGS ${PROJECT_SOURCE_DIR}/lockd-shim/dkms.conf dkms REGEX "^PACKAGE_(NAME|VERSION)=")
string(REGEX REPLACE "PACKAGE_NAME=\"([^\"]*)\";PACKAGE_VERSION=\"([^\"]*)\"" "/usr/src/\\1-\\2" sources "${dkms}")
install(FILES ${PROJECT_SOURCE_DIR}/lockd-shim/dkms.conf DESTINATION ${sources})
foreach(module IN ITEMS lockd-shim gfs2-hooks/gate)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${module}/ DESTINATION ${sources}/${module}
    FILES_MATCHING
    PATTERN "*.c" PATTERN "*.h" PATTERN "*.yaml" PATTERN "Kbuild" PATTERN "Makefile"
    PATTERN "*.mod.c" EXCLUDE
    PATTERN "tools" EXCLUDE)
endforeach()
