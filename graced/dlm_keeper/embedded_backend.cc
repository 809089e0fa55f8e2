// SPDX-License-Identifier: GPL-2.0-or-later
#include "dlm_keeper/embedded_backend.hh"

#include "dlm_keeper/protocol.hh"

namespace grace::keeper {

void embedded_backend::publish() {
    for (const lock_event& e : table_.take_events())
        on_event(e);
}

void embedded_backend::convert(node_id owner, lock_key key, lock_mode mode,
                               const lvb_bytes* value) {
    table_.convert(owner, key, mode, value);
    publish();
}

void embedded_backend::cancel(node_id owner, lock_key key) {
    table_.cancel(owner, key);
    publish();
}

lock_map embedded_backend::locks_of(node_id owner) const {
    return table_.locks_of(owner);
}

void embedded_backend::release_all(bool) {
    on_released();
}

std::string embedded_backend::dump() const {
    return table_.dump();
}

result<std::string> embedded_backend::play(std::uint32_t command, node_id node) {
    const std::string whom = node ? " node " + std::to_string(node.value) : "";
    std::string done;
    switch (static_cast<admin_command>(command)) {
    case admin_command::dump:
        return dump();
    case admin_command::freeze:
        table_.freeze(node);
        done = "frozen" + (node ? " for" + whom : std::string()) + "\n";
        break;
    case admin_command::thaw:
        table_.thaw();
        done = "thawed\n";
        break;
    case admin_command::fenced:
    case admin_command::keeper_died:
        if (!node)
            return fail("name a node: which one is it?");
        // Its daemon first: it must not read a grant that was made in its absence as its own.
        on_gone(node);
        if (static_cast<admin_command>(command) == admin_command::fenced)
            table_.fenced(node);
        else
            table_.keeper_died(node);
        done = "the locks of" + whom +
               (table_.frozen() ? " are or will be dropped; the lockspace is still frozen\n"
                                : " are dropped\n");
        break;
    default:
        return fail("unknown command " + std::to_string(command));
    }
    publish();
    return done;
}

} // namespace grace::keeper
