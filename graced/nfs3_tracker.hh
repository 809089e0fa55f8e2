// SPDX-License-Identifier: GPL-2.0-or-later
// Who uses the NFS servers of this node over NFSv3, for the records: the lock clients that statd
// watches (through its callout), and who has mounted what (mountd's rmtab).
//
// A lock client is recorded before statd answers lockd, and lockd gives no lock before: so whoever
// has a lock is on record on every live node. It is taken off the record when lockd has given it
// up for good. Bad scenario: lockd gives up all clients while it is being shut down, too, and at a
// planned move nobody could reclaim on the other node. So that news is heard only some seconds
// later, and only if the server then still runs and nothing is about to stop it.
//
// The mounts are read from rmtab, and not heard through mountd's own callout: that one is silent
// about UMNTALL, which a client sends when it boots; it has mountd wait, which answers nfsd's
// questions about exports meanwhile; and what it says while graced is away is lost. graced-server
// writes rmtab from the records before nfsd starts, so from then on the file is right.
#pragma once

#include "graced/adapters/callout_socket.hh"
#include "graced/record_import.hh"

#include <map>
#include <memory>
#include <string>

namespace grace {

class nfs3_tracker {
public:
    nfs3_tracker(qb_loop_t*, record_import&, std::function<const fsm&()>,
                 std::function<instant()> now);

    struct paths {
        std::string callout; // the socket for statd's callout; empty: none
        uid_t user = 0;      // who may speak there, besides root
        std::string rmtab;   // mountd's; empty: none
        bool operator==(const paths&) const = default;
    };
    void watch(const std::string& server, const paths&);
    void unwatch(const std::string& server);

    // What has a time: records that are to go, and rmtab.
    void every_second();

private:
    struct watched {
        paths where;
        std::map<std::string, instant> going; // clients that lockd has given up, and when they go
        // rmtab as it was read last; all zero: never.
        std::uint64_t inode = 0, size = 0;
        std::int64_t changed = 0;
        std::size_t open = 0; // changes of mounts that are under way
        bool told = false;    // that rmtab cannot be read
    };
    void on_callout(const std::string& server, const callout_request&, callout_server::reply);
    [[nodiscard]] bool runs_here(const std::string& server) const;
    void read_rmtab(const std::string& server, watched&);

    record_import& records_;
    std::function<const fsm&()> machine_;
    std::function<instant()> now_;
    callout_server callouts_;
    std::map<std::string, std::shared_ptr<watched>> watched_;
};

// The NFSv3 clients that may reclaim the server's locks: those that were on record before this
// grace, whether they have begun to reclaim or not.
std::vector<std::string> reclaiming_hosts(const state&, const std::string& server);

} // namespace grace
