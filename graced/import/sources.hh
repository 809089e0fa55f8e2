// SPDX-License-Identifier: GPL-2.0-or-later
// What was there before graced, as lists: the databases of nfsdcld and nfsdcltrack, nfsd's
// directory v4recovery, mountd's rmtab, statd's directory sm. Readers only: nothing of a source is
// changed, and what cannot be taken is listed with the reason.
//
// All of it is bytes from a disk that others wrote: nothing in them is believed, every list has a
// limit, and no symbolic link leads a reader elsewhere than into the file that was named.
#pragma once

#include "graced/result.hh"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace grace::import {

// A client that may reclaim, under the name that it gave itself (1 to 1024 bytes, opaque).
struct nfs4_client {
    std::string name;
    std::string princhash; // SHA-256 of its principal, or empty
    bool operator==(const nfs4_client&) const = default;
};

// What is left out. `what` may hold any bytes: whoever prints it makes it printable.
struct left_out {
    std::string what, why;
    bool operator==(const left_out&) const = default;
};

// --- nfsdcld and nfsdcltrack (utils/nfsdcld/sqlite.c, utils/nfsdcltrack/sqlite.c of nfs-utils) ---
//
// Versions 1 and 2: a table `clients`, of either program. 3: a table for each epoch; 4: with the
// hash of the principal. nfsdcltrack ended at version 2.
struct tracker_records {
    int version = 0;
    std::uint64_t current = 0,
                  recovery = 0; // epochs; recovery 0: no grace when it was written last
    // nfsdcld took over an older tracker's records and has not yet ended its first grace: those of
    // the older one are still where they were.
    bool first_time = false;
    std::vector<nfs4_client> clients;
    std::vector<left_out> without;
    std::vector<std::string> notes; // what a person should know before using it
};
// `path`: main.sqlite. Waits for a writer for some seconds.
result<tracker_records> read_tracker_database(const std::string& path);
// The same from a database's bytes.
result<tracker_records> read_tracker_image(std::span<const std::uint8_t> image);

// A new database of nfsdcld, version 4, outside of grace: who is in it may reclaim after nfsd's
// next start. Fails if there is one at `path`, or an unfinished transaction of one (its journal
// would be played into the new file). Durable when it returns.
result<void> write_tracker_database(const std::string& path, std::uint64_t epoch,
                                    std::span<const nfs4_client> clients);

// --- v4recovery (fs/nfsd/nfs4recover.c, the "legacy" tracker) ---
//
// One directory for each client; its name is the MD5 of the client's name in hexadecimal. The name
// itself is nowhere. nfsd takes such a record in the list that answers GraceStart as "hash:", the
// 32 digits and a NUL byte (cld_message.hh, is_legacy_name).
struct recovery_directory {
    std::vector<nfs4_client> clients;
    std::vector<left_out> without;
};
result<recovery_directory> read_recovery_directory(const std::string& path);

// --- rmtab (support/nfs/rmtab.c): who has what mounted, NFSv3 ---
struct mount_entry {
    std::string host, path;
    std::uint32_t count = 1;
    bool operator==(const mount_entry&) const = default;
};
struct mount_table {
    std::vector<mount_entry> mounts;
    std::vector<left_out> without;
};
mount_table parse_rmtab(std::string_view text);
result<mount_table> read_rmtab(const std::string& path);

// --- statd's sm/ (support/nsm/file.c): who holds NLM locks here and is told of a restart ---
struct monitored_host {
    std::string host;    // mon_name: who is told
    std::string my_name; // the name that it knows this server by
    bool operator==(const monitored_host&) const = default;
};
struct monitor_list {
    std::vector<monitored_host> hosts;
    std::vector<left_out> without;
};
// One file of the directory; its name is only used to say what was left out.
void parse_monitor_file(const std::string& file_name, std::string_view text, monitor_list&);
result<monitor_list> read_monitor_directory(const std::string& path);

// --- limits ---
constexpr std::size_t max_clients = 4'000'000;
constexpr std::size_t max_hosts = 100'000; // of sm/, and lines of rmtab
constexpr std::size_t max_file = 64U << 20; // bytes of rmtab
// Of what is left out: more are only counted, in a last entry.
constexpr std::size_t max_left_out = 1000;

// Notes it, within the limit.
void leave_out(std::vector<left_out>&, std::string what, std::string why);

// A regular file's bytes. Never waits (FIFO), never follows a symbolic link in the last component.
result<std::string> read_whole(const std::string& path, std::size_t max);

} // namespace grace::import
