// SPDX-License-Identifier: LGPL-2.1-or-later
// Messages as people read them, in the log, in traces and in the interaction scripts.
#include "grace/message.hh"

namespace grace {

const char* to_string(msg::outcome o) {
    switch (o) {
    case msg::outcome::reclaimed:
        return "all reclaimed";
    case msg::outcome::deadline:
        return "deadline";
    case msg::outcome::lifted:
        return "lifted by an operator";
    case msg::outcome::orphan:
        return "nobody hosts it";
    case msg::outcome::intact:
        return "its state is intact";
    }
    return "?";
}

const char* to_string(msg::start_reason r) {
    switch (r) {
    case msg::start_reason::asked:
        return "asked for";
    case msg::start_reason::takes:
        return "to host";
    case msg::start_reason::stops:
        return "to stop";
    case msg::start_reason::dropped:
        return "locks dropped";
    }
    return "?";
}

namespace {
std::string number(std::uint64_t n) {
    return std::to_string(n);
}

struct describer {
    std::string operator()(const msg::hello& m) const {
        return "HELLO(" + m.name + ", C " + number(m.current.value) + ")";
    }
    std::string operator()(const msg::snapshot& m) const {
        return "SNAPSHOT(" + (m.to ? "node " + number(m.to.value) : std::string("founding")) +
               ", part " + number(m.part + 1) + "/" + number(m.parts) + ")";
    }
    std::string operator()(const msg::start& m) const {
        return "START(" + m.server + ", " + to_string(m.why) + ")";
    }
    std::string operator()(const msg::released& m) const { return "RELEASED(" + m.server + ")"; }
    std::string operator()(const msg::node_down& m) const {
        return "NODEDOWN(" + number(m.node.value) + ")";
    }
    std::string operator()(const msg::attached&) const { return "ATTACHED"; }
    std::string operator()(const msg::enforcing& m) const {
        return "ENFORCING(C " + number(m.at.value) + ")";
    }
    std::string operator()(const msg::done& m) const {
        return "DONE(" + m.server + ", start " + number(m.start.value) + ", " + to_string(m.how) +
               ")";
    }
    std::string operator()(const msg::purge& m) const {
        return "PURGE(R " + number(m.recovery.value) + ")";
    }
    std::string operator()(const msg::lift& m) const {
        return "LIFT(R " + number(m.recovery.value) + ")";
    }
    std::string operator()(const msg::lift_request& m) const {
        return "LIFT-REQUEST(" + m.server + ")";
    }
    std::string operator()(const msg::extend_request& m) const {
        return "EXTEND-REQUEST(" + m.server + ", " + std::to_string(m.by / seconds(1)) + " s)";
    }
    std::string operator()(const msg::records& m) const {
        return "RECORDS(" + number(m.changes.size()) + ")";
    }
    std::string operator()(const msg::durable& m) const {
        return "DURABLE(" + number(m.at.value) + ")";
    }
    std::string operator()(const msg::heartbeat&) const { return "HEARTBEAT"; }
    std::string operator()(const msg::barrier& m) const {
        return "BARRIER(" + number(m.number) + ")";
    }
    std::string operator()(const msg::view_stored&) const { return "VIEW-STORED"; }
    std::string operator()(const msg::detached&) const { return "DETACHED"; }
    std::string operator()(const msg::bypass& m) const {
        return "BYPASS(" + (m.node ? "node " + number(m.node.value) : std::string("all")) + ", " +
               (m.on ? "on)" : "off)");
    }
};
} // namespace

std::string describe(const any_message& m) {
    return std::visit(describer{}, m);
}

} // namespace grace
