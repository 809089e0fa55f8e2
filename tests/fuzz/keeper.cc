// SPDX-License-Identifier: GPL-2.0-or-later
// Packets between graced and graced-dlm.
#include "dlm_keeper/protocol.hh"
#include "fuzz.hh"

using namespace grace;
using namespace grace::keeper;

namespace {

template <typename T>
void one(std::span<const std::uint8_t> in) {
    auto m = keeper::parse<T>(in);
    if (!m)
        return;
    fuzz::must(std::memcmp(&*m, in.data(), in.size()) == 0, "a packet is its struct");
    if constexpr (requires { m->key; })
        if (auto k = key_from(m->key))
            fuzz::must(key_from(to_wire(*k)) == k, "a key survives the way back");
    if constexpr (requires { m->mode; })
        if (auto mode = mode_from(m->mode))
            fuzz::must(to_wire(*mode) == m->mode, "a mode survives the way back");
    if constexpr (requires { m->text; })
        fuzz::must(get_text(m->text).size() <= m->text.size(), "text ends in its field");
}

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span in(data, size);
    (void)parse_header(in);
    one<keeper::hello>(in);
    one<keeper::convert>(in);
    one<keeper::cancel>(in);
    one<keeper::ping>(in);
    one<keeper::release>(in);
    one<keeper::admin>(in);
    one<keeper::state>(in);
    one<keeper::granted>(in);
    one<keeper::refused>(in);
    one<keeper::cancelled>(in);
    one<keeper::blocking>(in);
    one<keeper::pong>(in);
    one<keeper::notice>(in);
    one<keeper::report>(in);
    return 0;
}
