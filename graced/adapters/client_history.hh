// SPDX-License-Identifier: GPL-2.0-or-later
// What became of each client, for people: when it came on record, reclaimed, left, was purged.
//
// A database beside the recovery database. Each node writes down what it hears, by its own clock; a
// node that was away has a gap, and says so. Nothing depends on it: it is never synced, its size is
// bounded, and after an error it ends with a line in the log.
#pragma once

#include "grace/types.hh"
#include "graced/result.hh"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

struct sqlite3;

namespace grace {

struct history_event {
    // Words of `gracectl clients --history`:
    //   recorded   new on record
    //   returned   it was on record, and came again out of grace
    //   reclaimed  in a grace of its server
    //   left       it said so
    //   purged     it did not reclaim; without a client: others that are not named
    //   joined     this node took the state from another member: what came before is not known here
    std::string what;
    std::string server, client;
    epoch at;
    std::int64_t time = 0; // seconds since 1970
    bool operator==(const history_event&) const = default;
};

class client_history {
public:
    static constexpr std::int64_t max_events = 200'000;
    static constexpr std::size_t max_named = 10'000; // of one purge

    client_history() = default;
    ~client_history();
    client_history(const client_history&) = delete;
    client_history& operator=(const client_history&) = delete;

    void open(const std::string& path);
    void write(const std::vector<history_event>&); // from one thread at a time

    // For gracectl. The last ones, oldest first; of one client, if it is named.
    static result<std::vector<history_event>> read(const std::string& path,
                                                   const std::string& server,
                                                   const std::string& client, std::size_t limit);
    // Who reclaimed at epoch `at` and who was purged of `recovery`, in a grace that began then.
    static result<std::vector<history_event>> read_grace(const std::string& path, epoch at,
                                                         epoch recovery, std::int64_t began,
                                                         std::size_t limit);
    // When each client came on record, as far as it is known here.
    struct since {
        std::int64_t time = 0;
        epoch at; // of its record, when it was written down last
        bool gap =
            false; // this node joined since: if its record is of a later epoch, it is not known
    };
    using client_key = std::pair<std::string, std::string>; // server, client
    static result<std::map<client_key, since>> read_since(const std::string& path);

private:
    void end(const std::string& doing);
    sqlite3* db_ = nullptr;
    std::string path_;
    std::int64_t written_ = 0;
};

} // namespace grace
