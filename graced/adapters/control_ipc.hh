// SPDX-License-Identifier: GPL-2.0-or-later
// The control IPC's server: requests of gracectl and agents, in JSON over libqb's IPC.
//
// A request is one message: qb header, then a JSON object {"verb": "...", ...} of at most 64 KiB.
// The answer is JSON too, {"ok": bool, "error": text, "code": word, ...}, cut in numbered parts
// (control_client puts them together). Before the answer any
// number of progress lines may come. An answer may be given at once or hours later (`wait`).
//
// Transport: QB_IPC_SHM, as corosync uses it. The sockets of libqb are abstract ones: each network
// namespace has its own, so gracectl has to run in the namespace of the daemon.
//
// Only root may connect. libqb hands over the credentials that the kernel vouches for
// (SCM_CREDENTIALS), and `allowed_uid` is compared before any byte of a request is looked at.
#pragma once

#include "grace/ports.hh"
#include "graced/result.hh"

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <qb/qbloop.h>
#include <string>
#include <sys/types.h>

namespace grace {

struct control_peer {
    std::uint64_t connection = 0; // never used twice in one life of the daemon
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;
};

struct control_connection;

// A request that waits for its answer. Copies mean the same request. It may outlive connection and
// server: then its methods do nothing.
class reply_handle {
public:
    reply_handle() = default;
    // Unique in one life of the daemon, never 0: serves as the engine's ticket.
    [[nodiscard]] std::uint64_t id() const { return id_; }
    // Somebody still waits for the answer.
    [[nodiscard]] bool open() const;
    // A line for the person who waits.
    void progress(const std::string& text) const;
    // The answer; the first one counts. `ok` is added (true) if it is missing.
    void finish(nlohmann::json answer) const;
    void fail(const std::string& code, const std::string& error) const;

private:
    friend class control_server;
    friend struct control_connection;
    struct asked; // what is known of the request
    std::weak_ptr<asked> state_;
    std::uint64_t id_ = 0;
};

// {"ok":…,"code":…,"error":…} for what the engine says; `detail` is the text for the person.
nlohmann::json control_answer(request_status, const std::string& detail);
const char* to_code(request_status);

// The request as the handler gets it, or what is wrong with it. Any bytes in.
tl::expected<nlohmann::json, std::string> parse_request(const std::string& text);

struct control_options {
    std::string name = "graced";
    uid_t allowed_uid = 0;            // root may always
    std::size_t max_connections = 64; // more are refused with EAGAIN
    std::size_t max_outstanding = 16; // requests of one connection that wait for their answers
    std::size_t max_reply =
        16U << 20; // bytes of one answer: the loop stands still while it is written
    std::size_t max_backlog =
        128U << 20; // bytes that a slow reader may leave queued: then it is cut off
};

class control_server {
public:
    // May throw: a nlohmann::json exception (a field of the wrong type) becomes the answer
    // "bad_request", so that handlers can just say request.at("server").get<std::string>().
    using handler =
        std::function<void(const nlohmann::json& request, const control_peer&, reply_handle)>;
    // A request's connection closed before its answer: once for each such request.
    using closed = std::function<void(std::uint64_t request)>;

    // One server for each loop's thread (libqb's poll handlers carry no context).
    static result<std::unique_ptr<control_server>> create(qb_loop_t*, control_options, handler,
                                                          closed);
    ~control_server();
    control_server(const control_server&) = delete;
    control_server& operator=(const control_server&) = delete;

    [[nodiscard]] std::size_t connections() const;

private:
    friend class reply_handle;
    friend struct control_connection;
    struct impl;
    explicit control_server(std::unique_ptr<impl>);
    std::unique_ptr<impl> impl_;
};

} // namespace grace
