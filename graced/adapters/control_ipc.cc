// SPDX-License-Identifier: GPL-2.0-or-later
// The control IPC's server: who may connect, what is a request, and answers that come later.
#include "graced/adapters/control_ipc.hh"

#include "graced/adapters/control_wire.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <qb/qbipcs.h>
#include <system_error>
#include <utility>

namespace grace {

using control_wire::frame_header;
using control_wire::frame_kind;
using nlohmann::json;

namespace {

// A request has no use for more; deeper nesting is an attempt at the parser.
constexpr int max_depth = 16;
// A reader that is behind is tried again after this. Nothing tells when a ring has room.
constexpr std::uint64_t retry_ns = 2'000'000;

// libqb's poll handlers have no argument for a loop. One server for each loop, one loop for each
// thread: so the loop is a property of the thread.
thread_local qb_loop_t* loop_of_thread = nullptr;

std::int32_t dispatch_add(qb_loop_priority p, std::int32_t fd, std::int32_t events, void* data,
                          qb_ipcs_dispatch_fn_t fn) {
    return qb_loop_poll_add(loop_of_thread, p, fd, events, data, fn);
}
std::int32_t dispatch_mod(qb_loop_priority p, std::int32_t fd, std::int32_t events, void* data,
                          qb_ipcs_dispatch_fn_t fn) {
    return qb_loop_poll_mod(loop_of_thread, p, fd, events, data, fn);
}
std::int32_t dispatch_del(std::int32_t fd) {
    return qb_loop_poll_del(loop_of_thread, fd);
}
std::int32_t job_add(qb_loop_priority p, void* data, qb_loop_job_dispatch_fn fn) {
    return qb_loop_job_add(loop_of_thread, p, data, fn);
}

json failure(const std::string& code, const std::string& error) {
    return {{"ok", false}, {"code", code}, {"error", error}};
}

} // namespace

tl::expected<json, std::string> parse_request(const std::string& text) {
    bool too_deep = false;
    const json::parser_callback_t limit = [&](int depth, json::parse_event_t, json&) {
        too_deep = too_deep || depth > max_depth;
        return !too_deep;
    };
    json request = json::parse(text, limit, /*allow_exceptions=*/false);
    if (too_deep) {
        return tl::unexpected("the request is nested deeper than " + std::to_string(max_depth) +
                              " levels");
    }
    if (request.is_discarded()) {
        return tl::unexpected(std::string("the request is not JSON"));
    }
    if (!request.is_object()) {
        return tl::unexpected(std::string("the request is not a JSON object"));
    }
    const auto verb = request.find("verb");
    if (verb == request.end() || !verb->is_string()) {
        return tl::unexpected(std::string("the request has no field \"verb\" with a word"));
    }
    return request;
}

const char* to_code(request_status s) {
    switch (s) {
    case request_status::done:
        return "done";
    case request_status::not_quorate:
        return "not_quorate";
    case request_status::hosted_elsewhere:
        return "hosted_elsewhere";
    case request_status::not_hosted:
        return "not_hosted";
    case request_status::no_such_server:
        return "no_such_server";
    case request_status::no_such_node:
        return "no_such_node";
    case request_status::void_now:
        return "void_now";
    case request_status::timeout:
        return "timeout";
    }
    return "failed";
}

json control_answer(request_status status, const std::string& detail) {
    if (status == request_status::done) {
        json answer = {{"ok", true}, {"code", to_code(status)}};
        if (!detail.empty()) {
            answer["detail"] = detail;
        }
        return answer;
    }
    return failure(to_code(status), detail.empty() ? to_code(status) : detail);
}

// One connected client. Owned by the server; requests point back weakly.
struct control_connection {
    control_server::impl* server = nullptr;
    qb_ipcs_connection_t* qb = nullptr;
    control_peer peer;
    std::map<std::uint64_t, std::shared_ptr<reply_handle::asked>> waiting; // by id
    std::deque<std::string> outgoing; // frames that the ring had no room for
    std::size_t outgoing_bytes = 0;
    bool doomed = false; // to be cut off at the next turn of the loop
};

struct reply_handle::asked {
    std::weak_ptr<control_connection> connection;
    std::int32_t number = 0; // the client's
    std::uint64_t id = 0;
};

struct control_server::impl {
    qb_loop_t* loop = nullptr;
    control_options options;
    handler handle;
    closed on_closed;
    qb_ipcs_service_t* service = nullptr;
    std::map<qb_ipcs_connection_t*, std::shared_ptr<control_connection>> connections;
    std::uint64_t last_connection = 0;
    std::uint64_t last_request = 0;
    bool ending = false;
    std::optional<qb_loop_timer_handle> timer;

    ~impl() {
        ending = true;
        if (timer) {
            qb_loop_timer_del(loop, *timer);
        }
        if (service != nullptr) {
            for (auto& [qb, connection] : connections) {
                flush(*connection); // the last answers, as far as there is room
            }
            qb_ipcs_destroy(service);
        }
        connections.clear();
    }

    // --- libqb's callbacks ---

    static impl* of(qb_ipcs_connection_t* c) {
        return static_cast<impl*>(qb_ipcs_connection_service_context_get(c));
    }

    static std::int32_t accept(qb_ipcs_connection_t* c, uid_t uid, gid_t gid) {
        impl* self = of(c);
        if (uid != 0 && uid != self->options.allowed_uid) {
            return -EACCES;
        }
        if (self->connections.size() >= self->options.max_connections) {
            return -EAGAIN;
        }
        auto connection = std::make_shared<control_connection>();
        connection->server = self;
        connection->qb = c;
        connection->peer = {++self->last_connection, uid, gid, 0};
        self->connections[c] = std::move(connection);
        return 0;
    }

    static void created(qb_ipcs_connection_t* c) {
        impl* self = of(c);
        const auto found = self->connections.find(c);
        qb_ipcs_connection_stats stats{};
        if (found != self->connections.end() && qb_ipcs_connection_stats_get(c, &stats, 0) == 0) {
            found->second->peer.pid = stats.client_pid;
        }
    }

    static std::int32_t closed_by_peer(qb_ipcs_connection_t* c) {
        of(c)->drop(c);
        return 0;
    }

    // Also comes alone: a connection that was accepted, but never came to be.
    static void destroyed(qb_ipcs_connection_t* c) { of(c)->drop(c); }

    static std::int32_t message(qb_ipcs_connection_t* c, void* data, std::size_t size) {
        impl* self = of(c);
        const auto found = self->connections.find(c);
        if (found != self->connections.end() && !found->second->doomed) {
            const std::shared_ptr<control_connection> connection = found->second;
            self->take(connection, data, size);
        }
        return 0; // anything else is flow control to libqb
    }

    // --- requests ---

    void take(const std::shared_ptr<control_connection>& connection, const void* data,
              std::size_t size) {
        qb_ipc_request_header header{};
        if (size < sizeof header) {
            cut_off(*connection); // no number to answer to
            return;
        }
        std::memcpy(&header, data, sizeof header);
        auto state = std::make_shared<reply_handle::asked>();
        state->connection = connection;
        state->number = header.id;
        state->id = ++last_request;
        reply_handle reply;
        reply.state_ = state;
        reply.id_ = state->id;

        if (connection->waiting.size() >= options.max_outstanding) {
            send(*connection, header.id,
                 failure("too_many", std::to_string(options.max_outstanding) +
                                         " requests of this connection wait for their answers"));
            return;
        }
        connection->waiting[state->id] = state;
        const std::size_t length = size - sizeof header;
        if (header.size < 0 || static_cast<std::size_t>(header.size) != size) {
            reply.fail("bad_request", "the message's header and its size do not agree");
            return;
        }
        if (length > control_wire::max_request) {
            reply.fail("bad_request",
                       "the request has " + std::to_string(length) + " bytes; at most " +
                           std::to_string(control_wire::max_request) + " are allowed");
            return;
        }
        // Copied: the ring is shared with the client, which could change it under the parser.
        const std::string text(static_cast<const char*>(data) + sizeof header, length);
        const auto request = parse_request(text);
        if (!request) {
            reply.fail("bad_request", request.error());
            return;
        }
        try {
            handle(*request, connection->peer, reply);
        } catch (const json::exception& e) {
            reply.fail("bad_request", std::string("a field of the request is missing or of the "
                                                  "wrong type: ") +
                                          e.what());
        }
    }

    // --- answers ---

    void send(control_connection& c, std::int32_t number, const json& answer) {
        // `replace`: client names are opaque bytes; one that is not UTF-8 must not cost the answer.
        std::string text = answer.dump(-1, ' ', false, json::error_handler_t::replace);
        if (text.size() > options.max_reply) {
            text = failure("too_large",
                           "the answer has " + std::to_string(text.size()) + " bytes; ask for less")
                       .dump();
        }
        push(c, number, frame_kind::answer, text);
    }

    void push(control_connection& c, std::int32_t number, frame_kind kind,
              const std::string& text) {
        const std::size_t parts = std::max<std::size_t>(
            1, (text.size() + control_wire::max_payload - 1) / control_wire::max_payload);
        for (std::size_t part = 0; part < parts; ++part) {
            const std::string payload =
                text.substr(part * control_wire::max_payload, control_wire::max_payload);
            frame_header header{};
            header.qb.id = number;
            header.qb.size = static_cast<std::int32_t>(sizeof header + payload.size());
            header.kind = static_cast<std::uint32_t>(kind);
            header.part = static_cast<std::uint32_t>(part);
            header.parts = static_cast<std::uint32_t>(parts);
            header.total = static_cast<std::uint32_t>(text.size());
            std::string frame(sizeof header, '\0');
            std::memcpy(frame.data(), &header, sizeof header);
            frame += payload;
            c.outgoing_bytes += frame.size();
            c.outgoing.push_back(std::move(frame));
        }
        flush(c);
        if (c.outgoing_bytes > options.max_backlog) {
            cut_off(c);
        }
        schedule(c);
    }

    void flush(control_connection& c) {
        while (!c.doomed && !c.outgoing.empty()) {
            const std::string& frame = c.outgoing.front();
            const ssize_t sent = qb_ipcs_response_send(c.qb, frame.data(), frame.size());
            if (sent == -EAGAIN || sent == -ETIMEDOUT || sent == -ENOBUFS) {
                return;
            }
            if (sent < 0) {
                cut_off(c);
                return;
            }
            c.outgoing_bytes -= frame.size();
            c.outgoing.pop_front();
        }
    }

    void cut_off(control_connection& c) {
        c.doomed = true;
        c.outgoing.clear();
        c.outgoing_bytes = 0;
        schedule(c);
    }

    void schedule(const control_connection& c) {
        if (ending || timer || (!c.doomed && c.outgoing.empty())) {
            return;
        }
        qb_loop_timer_handle handle_out = 0;
        if (qb_loop_timer_add(
                loop, QB_LOOP_LOW, retry_ns, this,
                [](void* data) { static_cast<impl*>(data)->retry(); }, &handle_out) == 0) {
            timer = handle_out;
        }
    }

    void retry() {
        timer.reset();
        std::vector<std::shared_ptr<control_connection>> all;
        for (auto& [qb, connection] : connections) {
            all.push_back(connection);
        }
        for (const auto& connection : all) {
            flush(*connection);
            if (connection->doomed) {
                // Here and not where it was found out: that may be deep inside libqb's dispatch of
                // this very connection.
                qb_ipcs_disconnect(connection->qb);
            } else {
                schedule(*connection);
            }
        }
    }

    void drop(qb_ipcs_connection_t* c) {
        const auto found = connections.find(c);
        if (found == connections.end()) {
            return;
        }
        const std::shared_ptr<control_connection> connection = std::move(found->second);
        connections.erase(found);
        connection->doomed = true;
        connection->outgoing.clear();
        const auto waiting = std::move(connection->waiting);
        connection->waiting.clear();
        if (!ending && on_closed) {
            for (const auto& [id, state] : waiting) {
                on_closed(id);
            }
        }
    }
};

bool reply_handle::open() const {
    const auto state = state_.lock();
    const auto connection = state ? state->connection.lock() : nullptr;
    return connection && !connection->doomed && connection->waiting.contains(id_);
}

void reply_handle::progress(const std::string& text) const {
    if (!open()) {
        return;
    }
    const auto state = state_.lock();
    const auto connection = state->connection.lock();
    connection->server->push(*connection, state->number, frame_kind::progress,
                             text.substr(0, control_wire::max_payload));
}

void reply_handle::finish(json answer) const {
    if (!open()) {
        return;
    }
    const auto state = state_.lock();
    const auto connection = state->connection.lock();
    connection->waiting.erase(id_);
    if (!answer.is_object()) {
        answer = json{{"result", std::move(answer)}};
    }
    answer.emplace("ok", true);
    connection->server->send(*connection, state->number, answer);
}

void reply_handle::fail(const std::string& code, const std::string& error) const {
    finish(failure(code, error));
}

control_server::control_server(std::unique_ptr<impl> i)
    : impl_(std::move(i)) {}
control_server::~control_server() = default;

result<std::unique_ptr<control_server>>
control_server::create(qb_loop_t* loop, control_options options, handler handle, closed on_closed) {
    auto self = std::make_unique<impl>();
    self->loop = loop;
    self->options = std::move(options);
    self->handle = std::move(handle);
    self->on_closed = std::move(on_closed);
    loop_of_thread = loop;

    qb_ipcs_service_handlers handlers{};
    handlers.connection_accept = impl::accept;
    handlers.connection_created = impl::created;
    handlers.msg_process = impl::message;
    handlers.connection_closed = impl::closed_by_peer;
    handlers.connection_destroyed = impl::destroyed;
    const std::string& name = self->options.name;
    self->service = qb_ipcs_create(name.c_str(), 0, QB_IPC_SHM, &handlers);
    if (self->service == nullptr) {
        const int code = errno;
        return grace::fail("the control IPC '" + name +
                               "' cannot be made: " + std::generic_category().message(code),
                           code);
    }
    qb_ipcs_service_context_set(self->service, self.get());
    qb_ipcs_enforce_buffer_size(self->service, control_wire::buffer_size);
    qb_ipcs_poll_handlers polls{job_add, dispatch_add, dispatch_mod, dispatch_del};
    qb_ipcs_poll_handlers_set(self->service, &polls);
    const std::int32_t rc = qb_ipcs_run(self->service);
    if (rc != 0) {
        self->service = nullptr; // qb_ipcs_run has destroyed it
        return grace::fail(rc == -EADDRINUSE
                               ? "the control IPC '" + name +
                                     "' is in use: another graced runs on this node; stop it, or "
                                     "set another [graced] ipc_name"
                               : "the control IPC '" + name +
                                     "' cannot be opened: " + std::generic_category().message(-rc),
                           -rc);
    }
    return std::unique_ptr<control_server>(new control_server(std::move(self)));
}

std::size_t control_server::connections() const {
    return impl_->connections.size();
}

} // namespace grace
