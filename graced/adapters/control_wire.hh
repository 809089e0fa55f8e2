// SPDX-License-Identifier: GPL-2.0-or-later
// How requests and answers travel in libqb's messages; shared by the control IPC's two ends.
//
// Request: qb_ipc_request_header (id: the client's own number of the request, from 1), then JSON.
// Back come frames with the same id: any number of progress lines (one frame each), then the answer
// in parts 0 … parts-1, in order. Both ends are of one build, so there is no version here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <qb/qbipcc.h>

namespace grace::control_wire {

constexpr std::size_t max_request = 64U << 10; // bytes of JSON
constexpr std::size_t max_payload = 32U << 10; // bytes in one frame
// What libqb's shared rings are made for: the largest message either way, with its header, and room
// for the next one.
constexpr std::size_t buffer_size = 128U << 10;

enum class frame_kind : std::uint32_t { progress = 1, answer = 2 };

struct frame_header {
    qb_ipc_response_header qb; // id: the request's; size: header and payload
    std::uint32_t kind;
    std::uint32_t part;
    std::uint32_t parts;
    std::uint32_t total; // bytes of the whole answer
};

} // namespace grace::control_wire
