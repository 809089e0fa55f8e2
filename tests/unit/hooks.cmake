# SPDX-License-Identifier: GPL-2.0-or-later
# gfs2-hooks and systemd without a cluster. 77: a tool is missing, skipped.
foreach(test IN ITEMS shell_test.sh units_test.sh modprobe_test.sh fence_test.py server_test.py ocf_test.py pacemaker_test.py)
  string(REGEX REPLACE "_test.*" "" name ${test})
  add_test(NAME hooks_${name} COMMAND ${CMAKE_CURRENT_LIST_DIR}/hooks_${test})
  # Among others: pcs starts some twenty programs of Pacemaker for each word of the recipe.
  set_tests_properties(hooks_${name} PROPERTIES LABELS unit TIMEOUT 900 SKIP_RETURN_CODE 77)
endforeach()
