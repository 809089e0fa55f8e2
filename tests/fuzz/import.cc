// SPDX-License-Identifier: GPL-2.0-or-later
// What gracectl import reads: databases (from a page of bytes), rmtab, a file of statd's sm.
#include "fuzz.hh"
#include "grace/record_key.hh"
#include "grace/types.hh"
#include "graced/import/sources.hh"

using namespace grace;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const auto& m : import::parse_rmtab(text).mounts) {
        fuzz::must(is_host_name(m.host), "a host's name");
        fuzz::must(is_mount_path(m.path), "a path");
        fuzz::must(m.count != 0, "a mount that has ended is none");
    }
    import::monitor_list hosts;
    import::parse_monitor_file("file", text, hosts);
    for (const auto& h : hosts.hosts)
        fuzz::must(is_host_name(h.host), "a host's name");

    if (!text.starts_with("SQLite format 3"))
        return 0;
    const auto read = import::read_tracker_image({data, size});
    if (!read)
        return 0;
    fuzz::must(read->version >= 1 && read->version <= 4, "a version that is known");
    std::string last;
    for (const auto& c : read->clients) {
        fuzz::must(!c.name.empty() && c.name.size() <= max_client_name, "a client's name");
        fuzz::must(c.princhash.empty() || c.princhash.size() == max_princhash, "a whole hash");
        fuzz::must(last < c.name, "each client once");
        last = c.name;
    }
    return 0;
}
