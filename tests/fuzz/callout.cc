// SPDX-License-Identifier: GPL-2.0-or-later
// What comes from statd's callout: any bytes. What is taken can stand in a line and name a file.
#include "fuzz.hh"
#include "grace/record_key.hh"
#include "graced/adapters/callout_socket.hh"

using namespace grace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto r = parse_callout({reinterpret_cast<const char*>(data), size});
    if (r) {
        fuzz::must(is_host_name(r->client), "a client's name");
        fuzz::must(r->client.find_first_of("/\n ") == std::string::npos, "a name for a file");
    }
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (size != 0 && size <= max_client_name) {
        const std::string key = nfs4_key(bytes);
        fuzz::must(kind_of(key) == record_kind::nfs4 && client_in(key) == bytes, "an NFSv4 owner");
    }
    (void)path_in(bytes);
    (void)client_in(bytes);
    return 0;
}
