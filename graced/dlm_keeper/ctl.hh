// SPDX-License-Identifier: GPL-2.0-or-later
// `graced-dlm --ctl PATH COMMAND [NODE]`: asks a running keeper, or plays the cluster for an
// embedded one.
#pragma once

#include "result.hh"

#include <cstdint>
#include <string>

namespace grace::keeper {

// Prints the keeper's answer to stdout.
result<void> run_ctl(const std::string& path, const std::string& command, std::uint32_t node);

} // namespace grace::keeper
