// SPDX-License-Identifier: LGPL-2.1-or-later
// What the recovery database is told, and what it tells at start. The ops of one batch are one
// transaction; a batch is durable or it never happened.
#pragma once

#include "grace/record_map.hh"
#include "grace/types.hh"

#include <optional>
#include <variant>

namespace grace {

// The small part of the state, written with every batch.
struct stored_server {
    bool need = false;
    bool needed = false;              // it NEEDed in this grace: the purge concerns it
    start_count start, lost, settled; // state.hh
    node_id host;
    bool operator==(const stored_server&) const = default;
};
struct stored_meta {
    std::uint64_t view = 0;         // the highest number of a quorate view that this node was in
    std::uint64_t quorate_view = 0; // … of the last one that more than half had stored so
    std::uint64_t history = 0;      // state.hh
    epoch current{1};
    epoch recovery;
    position applied;
    start_count starts;
    bool lifting = false;
    epoch purged;                         // last epoch whose purge was committed here
    std::map<node_id, std::string> nodes; // every node ever seen, and its name
    std::map<std::string, stored_server> servers;
    bool operator==(const stored_meta&) const = default;
};

// put_record and remove_record are about clients and mounts alike (record_key.hh); lower, renew and
// purge are not about mounts.
namespace store_op {
struct put_record {
    std::string server, client;
    record rec;
};
struct remove_record {
    std::string server, client;
};
// All records of `server` later than `limit` get epoch `limit` (START: they become reclaimable).
struct lower {
    std::string server;
    epoch limit;
};
// All records of `server` get epoch `at` (its nfsd never stopped: they all stay).
struct renew {
    std::string server;
    epoch at;
};
// Removes the records of `server` with epoch <= limit.
struct purge {
    std::string server;
    epoch limit;
};
// Replaces everything (a snapshot from another member).
struct replace_all {
    std::map<std::string, record_map> records = {}, mounts = {};
};
struct put_meta {
    stored_meta meta;
};
} // namespace store_op

using store_operation =
    std::variant<store_op::put_record, store_op::remove_record, store_op::lower, store_op::renew,
                 store_op::purge, store_op::replace_all, store_op::put_meta>;
using store_batch = std::vector<store_operation>;

struct stored_state {
    stored_meta meta;
    std::map<std::string, record_map> records, mounts; // by server
};

} // namespace grace
