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
