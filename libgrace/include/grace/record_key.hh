// SPDX-License-Identifier: LGPL-2.1-or-later
// What a record is about, as part of its key: the records of all protocols take the same way through
// the agreed stream and into the database.
//
//   an NFSv4 client   its owner name (nfs_client_id4.id): any 1 to 1024 bytes. One that begins with
//                     NUL gets another NUL before it
//   an NFSv3 client   NUL, 'l', the name that lockd and statd know it by
//   a mount           NUL, 'm', the client, NUL, the path; mountd's rmtab
//
// So no name that a client chooses for itself can pass for a record of another protocol.
#pragma once

#include "grace/types.hh"

#include <string>
#include <string_view>

namespace grace {

enum class record_kind : std::uint8_t { nfs4, nlm, mount };

constexpr std::size_t max_host_name = 255;   // of an NFSv3 client: a DNS name or an address
constexpr std::size_t max_mount_path = 1024; // MNTPATHLEN (RFC 1813, 5.1.4)
// A mount's.
constexpr std::size_t max_record_key = 2 + max_host_name + 1 + max_mount_path;
static_assert(max_record_key > max_client_name + 1);
// A peer can mount as many paths as an export has directories.
constexpr std::size_t max_mounts = 65536; // of one server

std::string nfs4_key(std::string_view owner);
std::string nlm_key(std::string_view host);
std::string mount_key(std::string_view client, std::string_view path);

record_kind kind_of(std::string_view key);
// The owner, the host, or the mount's client.
std::string_view client_in(std::string_view key);
std::string_view path_in(std::string_view mount_key);

// A name that can stand in a line of a file, and as the name of a file: statd, sm-notify and rmtab
// have one line, or one file, for each client.
bool is_host_name(std::string_view);
// An absolute path that can stand in a line of a file.
bool is_mount_path(std::string_view);

const char* to_string(record_kind); // "nfs4", "nlm", "mount"

// A record of an NFSv3 client has the epoch in which it was recorded first in place of a principal's
// hash: its `at` rises with each lock that it reclaims, also if it may not.
std::string encode_since(epoch);
epoch since_of(const record&);

// A record of a mount has how often in that place (rmtab's third column).
std::string encode_mount_count(std::uint32_t);
std::uint32_t mount_count(const record&);

} // namespace grace
