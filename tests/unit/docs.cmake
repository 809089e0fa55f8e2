# SPDX-License-Identifier: GPL-2.0-or-later
# The documents say what the programs do. 77: a tool is missing, skipped.
foreach(test IN ITEMS man_test.py text_test.py completion_test.sh monitoring_test.py)
  string(REGEX REPLACE "_test.*" "" name ${test})
  add_test(NAME docs_${name} COMMAND ${CMAKE_CURRENT_LIST_DIR}/docs_${test} ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(docs_${name} PROPERTIES LABELS unit TIMEOUT 900 SKIP_RETURN_CODE 77)
endforeach()
