// SPDX-License-Identifier: GPL-2.0-or-later
// The control IPC's client: connecting with an end to the wait, and putting answers together.
#include "graced/adapters/control_client.hh"

#include "graced/adapters/control_wire.hh"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <poll.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace grace {

using control_wire::frame_header;
using control_wire::frame_kind;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t max_answer = 128U << 20;

std::string text_of(int code) {
    return std::generic_category().message(code);
}

error cannot_connect(const std::string& name, int code) {
    switch (code) {
    case ECONNREFUSED:
    case ENOENT:
    case ENOTCONN:
    case ECONNRESET:
    case EPIPE:
        return {"graced is not running on this node (no IPC server '" + name +
                    "'): systemctl start graced",
                ECONNREFUSED};
    case EACCES:
    case EPERM:
        return {"graced does not talk to this user: run this as root", EACCES};
    case EAGAIN:
        return {"graced has as many connections as it takes: end other gracectl commands (ps -C "
                "gracectl), then try again",
                EAGAIN};
    case ETIMEDOUT:
        return {"graced runs, but does not answer (IPC server '" + name +
                    "'): see its log, journalctl -u graced",
                ETIMEDOUT};
    default:
        return {"no connection to graced (IPC server '" + name + "'): " + text_of(code), code};
    }
}

int remaining(std::optional<steady_clock::time_point> end, milliseconds at_most) {
    if (!end) {
        return static_cast<int>(at_most.count());
    }
    const auto left = std::chrono::duration_cast<milliseconds>(*end - steady_clock::now());
    return static_cast<int>(std::clamp<milliseconds>(left, milliseconds(0), at_most).count());
}

} // namespace

struct control_client::impl {
    std::string name;
    qb_ipcc_connection_t* qb = nullptr;
    std::int32_t last_number = 0;
    std::vector<char> buffer = std::vector<char>(control_wire::buffer_size);

    ~impl() {
        if (qb != nullptr) {
            qb_ipcc_disconnect(qb);
        }
    }
};

control_client::control_client(std::unique_ptr<impl> i)
    : impl_(std::move(i)) {}
control_client::control_client(control_client&&) noexcept = default;
control_client& control_client::operator=(control_client&&) noexcept = default;
control_client::~control_client() = default;

result<control_client> control_client::connect(const std::string& name, milliseconds timeout) {
    auto self = std::make_unique<impl>();
    self->name = name;
    int fd = -1;
    // In two steps: a daemon that is stopped or hangs accepts nothing, and qb_ipcc_connect would
    // wait for it without end.
    qb_ipcc_connection_t* qb = qb_ipcc_connect_async(name.c_str(), control_wire::buffer_size, &fd);
    if (qb == nullptr) {
        return tl::unexpected(cannot_connect(name, errno));
    }
    pollfd waiting{fd, POLLIN, 0};
    int ready = 0;
    const auto end = steady_clock::now() + timeout;
    do {
        ready = ::poll(&waiting, 1, remaining(end, timeout));
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0) {
        const int code = ready == 0 ? ETIMEDOUT : errno;
        qb_ipcc_disconnect(qb); // of an unfinished connection it leaves the socket open
        ::close(fd);
        return tl::unexpected(cannot_connect(name, code));
    }
    const int rc = qb_ipcc_connect_continue(qb);
    if (rc != 0) {
        return tl::unexpected(cannot_connect(name, rc < -1 ? -rc : errno));
    }
    self->qb = qb;
    return control_client(std::move(self));
}

result<json> control_client::request(const json& request, std::optional<milliseconds> timeout,
                                     const progress& on_progress) {
    impl& self = *impl_;
    const std::string text = request.dump(-1, ' ', false, json::error_handler_t::replace);
    if (text.size() > control_wire::max_request) {
        return fail("the request has " + std::to_string(text.size()) +
                        " bytes; graced takes at most " + std::to_string(control_wire::max_request),
                    EMSGSIZE);
    }
    std::optional<steady_clock::time_point> end;
    if (timeout) {
        end = steady_clock::now() + *timeout;
    }
    const auto gone = [&] {
        return fail("graced went away before it answered: see its log, journalctl -u graced",
                    ENOTCONN);
    };
    const auto late = [&] {
        char seconds[32];
        std::snprintf(seconds, sizeof seconds, "%g",
                      std::chrono::duration<double>(*timeout).count());
        return fail(std::string("graced gave no answer within ") + seconds + " s", ETIMEDOUT);
    };

    qb_ipc_request_header header{};
    header.id = ++self.last_number;
    header.size = static_cast<std::int32_t>(sizeof header + text.size());
    std::vector<char> message(sizeof header + text.size());
    std::memcpy(message.data(), &header, sizeof header);
    std::memcpy(message.data() + sizeof header, text.data(), text.size());
    for (;;) {
        const ssize_t sent = qb_ipcc_send(self.qb, message.data(), message.size());
        if (sent >= 0) {
            break;
        }
        if (sent != -EAGAIN && sent != -ETIMEDOUT && sent != -ENOBUFS) {
            return gone();
        }
        if (end && steady_clock::now() >= *end) {
            return late();
        }
        ::poll(nullptr, 0, 5); // the ring is full: the daemon is behind
    }

    std::string answer;
    std::uint32_t next_part = 0;
    for (;;) {
        // In slices: the ring itself does not tell that its other end died; libqb looks at the
        // socket beside it when a slice has passed.
        const ssize_t n = qb_ipcc_recv(self.qb, self.buffer.data(), self.buffer.size(),
                                       remaining(end, milliseconds(200)));
        if (n == -EAGAIN || n == -ETIMEDOUT || n == -EINTR) {
            if (end && steady_clock::now() >= *end) {
                return late();
            }
            if (qb_ipcc_is_connected(self.qb) == 0) {
                return gone();
            }
            continue;
        }
        if (n < 0) {
            return gone();
        }
        frame_header frame{};
        if (static_cast<std::size_t>(n) < sizeof frame) {
            return fail(
                "graced sent a message that is no answer: are graced and gracectl of the same "
                "version?",
                EPROTO);
        }
        std::memcpy(&frame, self.buffer.data(), sizeof frame);
        const std::string payload(self.buffer.data() + sizeof frame,
                                  static_cast<std::size_t>(n) - sizeof frame);
        if (frame.qb.id != header.id) {
            continue; // of an earlier request that was given up
        }
        if (frame.kind == static_cast<std::uint32_t>(frame_kind::progress)) {
            if (on_progress) {
                on_progress(payload);
            }
            continue;
        }
        if (frame.kind != static_cast<std::uint32_t>(frame_kind::answer) ||
            frame.part != next_part || answer.size() + payload.size() > max_answer) {
            return fail("graced sent an answer that cannot be read: are graced and gracectl of the "
                        "same version?",
                        EPROTO);
        }
        answer += payload;
        if (++next_part < frame.parts) {
            continue;
        }
        json parsed = json::parse(answer, nullptr, /*allow_exceptions=*/false);
        if (!parsed.is_object()) {
            return fail("graced sent an answer that is not JSON", EPROTO);
        }
        return parsed;
    }
}

} // namespace grace
