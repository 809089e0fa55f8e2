// SPDX-License-Identifier: GPL-2.0-or-later
// What nfsd itself knows of its clients: the files clients/N/info of its file system
// (fs/nfsd/nfs4state.c client_info_show, Linux 5.3 and later): address, minor version, whether it
// still renews.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace grace {

struct nfsd_client {
    std::string name;    // its own, as bytes
    std::string address; // 192.0.2.5:1017 or [2001:db8::5]:1017
    std::string status;  // confirmed, unconfirmed, courtesy, expirable; empty: an older kernel
    std::optional<unsigned> minor_version;
    std::optional<std::int64_t> last_renew; // seconds ago
    bool operator==(const nfsd_client&) const = default;
};

// Nothing for a text without a name.
std::optional<nfsd_client> parse_client_info(std::string_view text);

// clients/N of an nfsd's file system; nothing if it has gone.
std::optional<nfsd_client> read_nfsd_client(const std::string& directory);

// The directories of the client of that name, one for each time that it has introduced itself.
std::vector<std::string> find_nfsd_client(const std::string& nfsd_fs, std::string_view name);

// Of the nfsd whose file system is mounted there; empty if it cannot be read. By name; where a
// client is there twice (it came again, and its former state is not gone yet), the one that is
// confirmed.
std::map<std::string, nfsd_client> read_nfsd_clients(const std::string& nfsd_fs);

} // namespace grace
