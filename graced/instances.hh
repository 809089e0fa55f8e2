// SPDX-License-Identifier: GPL-2.0-or-later
// The NFS servers of this node as graced-server reported them, kept under the runtime directory so
// that a restarted daemon adopts them. The directory is on tmpfs: a rebooted node has none.
#pragma once

#include "grace/types.hh"
#include "graced/result.hh"

#include <map>
#include <string>

namespace grace {

struct server_instance {
    std::string netns;   // /run/netns/NAME
    std::string nfsd_fs; // where its nfsd file system is mounted
    std::string pipe;    // its cld pipe
    int cld_version = 2;
    // NFSv3 (nfs3_tracker.hh): the socket for statd's callout, who may speak there, mountd's rmtab.
    std::string callout;
    std::uint32_t callout_user = 0;
    std::string rmtab;
    bool running = false;  // its nfsd has state
    bool stopping = false; // … and somebody is about to end it
    start_count answered;  // START whose records its nfsd was given
    bool operator==(const server_instance&) const = default;
};

class instance_registry {
public:
    // Reads what is there; files that are no longer understood are reported and skipped.
    static result<instance_registry> open(const std::string& directory);

    const std::map<std::string, server_instance>& all() const { return known_; }
    result<void> put(const std::string& server, const server_instance&); // atomic, replaces
    void remove(const std::string& server);

private:
    std::string directory_;
    std::map<std::string, server_instance> known_;
};

} // namespace grace
