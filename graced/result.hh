// SPDX-License-Identifier: LGPL-2.1-or-later
// Recoverable errors are return values: what happened, to what, and what to do.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace grace {

struct error {
    std::string message; // a full sentence for a person
    int code = 0;        // errno where the cause has one, else 0
};

template <typename T>
using result = tl::expected<T, error>;

inline tl::unexpected<error> fail(std::string message, int code = 0) {
    return tl::unexpected<error>(error{std::move(message), code});
}

} // namespace grace
