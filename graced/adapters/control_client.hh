// SPDX-License-Identifier: GPL-2.0-or-later
// The control IPC's client: one connection to the graced of this node. Used by gracectl; blocking.
#pragma once

#include "graced/result.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace grace {

class control_client {
public:
    using progress = std::function<void(const std::string& line)>;

    // Codes: ECONNREFUSED (not running), EACCES (not root), EAGAIN (too many connections),
    // ETIMEDOUT (it runs, but does not answer).
    static result<control_client>
    connect(const std::string& name = "graced",
            std::chrono::milliseconds timeout = std::chrono::seconds(5));
    // Sends the request and waits for its answer; none: wait for ever. Codes: ETIMEDOUT, ENOTCONN
    // (the daemon went away), EMSGSIZE, EPROTO. An answer with "ok": false is a result, not an
    // error. After an error the connection is of no use any more.
    result<nlohmann::json> request(const nlohmann::json& request,
                                   std::optional<std::chrono::milliseconds> timeout,
                                   const progress& on_progress = {});

    control_client(control_client&&) noexcept;
    control_client& operator=(control_client&&) noexcept;
    ~control_client();

private:
    struct impl;
    explicit control_client(std::unique_ptr<impl>);
    std::unique_ptr<impl> impl_;
};

} // namespace grace
