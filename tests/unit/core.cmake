# SPDX-License-Identifier: GPL-2.0-or-later
foreach(name IN ITEMS record_map record_key wire protocol rules recording machine invariants)
  add_executable(core_${name}_test ${CMAKE_CURRENT_LIST_DIR}/core_${name}_test.cc)
  target_link_libraries(core_${name}_test PRIVATE grace_world doctest::doctest graced_flags)
  add_test(NAME core_${name} COMMAND core_${name}_test)
endforeach()
target_compile_definitions(core_recording_test PRIVATE RECORDINGS="${CMAKE_CURRENT_LIST_DIR}/data")
# Brings a check_invariants() of its own, which the linker takes instead of the archive's; gracectl's code with it.
add_executable(recorder_crash_test ${CMAKE_CURRENT_LIST_DIR}/recorder_crash_test.cc)
target_link_libraries(recorder_crash_test PRIVATE grace_world gracectl_verbs doctest::doctest graced_flags)
add_test(NAME recorder_crash COMMAND recorder_crash_test)
