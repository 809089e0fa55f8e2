// SPDX-License-Identifier: GPL-2.0-or-later
// main() of the lock tests. `-tc='name*'` runs one, `-s` shows all assertions.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
