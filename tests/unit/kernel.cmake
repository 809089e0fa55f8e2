# SPDX-License-Identifier: GPL-2.0-or-later
# Unit tests of the adapters to the kernel, and the program that plays nfsd for them.
find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)

add_executable(fake-nfsd ${PROJECT_SOURCE_DIR}/tests/tools/fake_nfsd.cc)
target_link_libraries(fake-nfsd PRIVATE graced_cld CLI11::CLI11 graced_flags)

function(graced_kernel_test name)
  add_executable(${name}_test ${PROJECT_SOURCE_DIR}/tests/unit/${name}_test.cc)
  target_link_libraries(${name}_test PRIVATE ${ARGN} doctest::doctest graced_flags)
  add_test(NAME ${name} COMMAND ${name}_test)
endfunction()

graced_kernel_test(cld_message graced_cld)
graced_kernel_test(cld_pipe graced_cld)
graced_kernel_test(cld_fake_nfsd graced_cld graced_embedded_kernel)
target_compile_definitions(cld_fake_nfsd_test PRIVATE FAKE_NFSD="$<TARGET_FILE:fake-nfsd>")
add_dependencies(cld_fake_nfsd_test fake-nfsd)
graced_kernel_test(shim_embedded graced_embedded_kernel)
graced_kernel_test(shim_message graced_shim)
graced_kernel_test(shim_netlink graced_shim)

# What needs no kernel to be run. 77: a tool is missing, skipped.
foreach(test IN ITEMS spec style)
  add_test(NAME kernel_${test} COMMAND ${CMAKE_CURRENT_LIST_DIR}/kernel_${test}_test.sh)
  set_tests_properties(kernel_${test} PROPERTIES LABELS unit TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()
