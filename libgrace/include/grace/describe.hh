// SPDX-License-Identifier: LGPL-2.1-or-later
// Inputs and effects as people read them: one line each, for the interaction scripts, for a replay
// of what a daemon recorded, for a debugger. (Messages: message.hh.) Times are in ms of the node's
// own clock; a client's opaque name has its unprintable bytes escaped.
#pragma once

#include "grace/input.hh"
#include "grace/output.hh"

#include <string>

namespace grace {

std::string describe(const any_input&);       // "granted: grace PR"
std::string describe(const any_effect&);      // "close gate at C 2 (order 3)"
std::string describe(const store_operation&); // "put vs1/alice at 2"

const char* to_string(request_status);
const char* to_string(upcall_status);

// An opaque name with everything outside of printable ASCII, and the backslash, as \xNN.
std::string printable(const std::string&);

} // namespace grace
