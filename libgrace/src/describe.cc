// SPDX-License-Identifier: LGPL-2.1-or-later
// One line for each input and each effect. Nothing here decides anything.
#include "grace/describe.hh"
#include "grace/message.hh"
#include "grace/wire.hh"

#include <string_view>

namespace grace {

const char* to_string(request_status s) {
    switch (s) {
    case request_status::done:
        return "done";
    case request_status::not_quorate:
        return "not quorate";
    case request_status::hosted_elsewhere:
        return "hosted elsewhere";
    case request_status::not_hosted:
        return "not hosted here";
    case request_status::no_such_server:
        return "no such server";
    case request_status::no_such_node:
        return "no such node";
    case request_status::void_now:
        return "void";
    case request_status::timeout:
        return "timeout";
    }
    return "?";
}

const char* to_string(upcall_status s) {
    switch (s) {
    case upcall_status::ok:
        return "ok";
    case upcall_status::refused:
        return "refused";
    case upcall_status::failed:
        return "failed";
    case upcall_status::unsupported:
        return "unsupported";
    }
    return "?";
}

std::string printable(const std::string& name) {
    static constexpr std::string_view hex = "0123456789abcdef";
    std::string out;
    for (char c : name) {
        const auto b = static_cast<std::uint8_t>(c);
        if (b > 0x20 && b < 0x7f && c != '\\')
            out += c;
        else
            out += {'\\', 'x', hex[b >> 4], hex[b & 15]};
    }
    return out;
}

namespace {

std::string number(std::uint64_t n) {
    return std::to_string(n);
}
std::string node(node_id n) {
    return "node " + number(n.value);
}
std::string at(epoch e) {
    return "C " + number(e.value);
}
std::string client_of(const std::string& server, const std::string& client) {
    switch (kind_of(client)) {
    case record_kind::nlm:
        return server + "/nlm:" + printable(std::string(client_in(client)));
    case record_kind::mount:
        return server + "/mount:" + printable(std::string(client_in(client))) + ":" +
               printable(std::string(path_in(client)));
    case record_kind::nfs4:
        break;
    }
    return server + "/" + printable(std::string(client_in(client)));
}
std::string mode(lock_mode m) {
    return to_string(m);
}
std::string resource(lock_resource r, node_id n) {
    return r == lock_resource::grace ? "grace" : "alive." + number(n.value);
}
std::string value(const lvb_bytes& b) {
    auto v = wire::decode_lock_value(b);
    if (!v)
        return "no value";
    return "value " + at(v->current) + ", R " + number(v->recovery.value) + ", purged " +
           number(v->purged.value);
}
template <typename C, typename F>
std::string list(const C& c, F each) {
    std::string out;
    for (const auto& e : c)
        out += (out.empty() ? "" : ", ") + each(e);
    return out.empty() ? "none" : out;
}
std::string nodes(const auto& c) {
    return list(c, [](node_id n) { return number(n.value); });
}
std::string message(const bytes& b) {
    auto e = wire::decode(b);
    return e ? describe(e->body) : "a message of another version, " + number(b.size()) + " bytes";
}
std::string asked(const std::string& what, const std::string& server, ticket t) {
    return what + " " + (server.empty() ? "all" : server) + " (ticket " +
           number(t.value) + ")";
}

struct input_describer {
    std::string operator()(const input::deliver& i) const {
        return "deliver: " + message(i.message) + " from " + node(i.sender);
    }
    std::string operator()(const input::confchg& i) const {
        std::string s = "confchg: members " + nodes(i.members);
        if (!i.joined.empty())
            s += "; joined " + nodes(i.joined);
        if (!i.left.empty())
            s += "; left " + list(i.left, [](const input::departed& d) {
                     return number(d.node.value) +
                            (d.reason == input::left_reason::node ? " (node)" : " (process)");
                 });
        return s;
    }
    std::string operator()(const input::ring& i) const { return "ring " + number(i.seq); }
    std::string operator()(const input::quorum& i) const {
        return std::string(i.quorate ? "quorate" : "not quorate") + " on ring " +
               number(i.ring_seq) + ": nodes " +
               list(i.votes, [](const auto& v) { return number(v.first.value); }) + "; " +
               number(i.expected) + " votes expected" +
               (i.left.empty() ? "" : "; left: " + nodes(i.left));
    }
    std::string operator()(const input::dlm_members& i) const {
        return i.known ? "members of the DLM: " + nodes(i.members)
                       : std::string("members of the DLM: it has no group");
    }
    std::string operator()(const input::locks_known& i) const {
        return "locks known: grace " + mode(i.grace) + ", alive " +
               (i.alive ? "held" : "not held") +
               (i.requested ? "; outstanding: grace " + mode(*i.requested) : "");
    }
    std::string operator()(const input::lock_granted& i) const {
        std::string s = "granted: " + resource(i.resource, i.node) + " " + mode(i.mode);
        return i.value_valid ? s + ", " + value(i.value) : s;
    }
    std::string operator()(const input::lock_refused& i) const {
        return "refused: " + resource(i.resource, i.node) + " (" + std::to_string(i.code) + ")";
    }
    std::string operator()(const input::lock_cancelled& i) const {
        return "cancelled: " + resource(i.resource, i.node);
    }
    std::string operator()(const input::locks_lost&) const { return "the keeper is gone"; }
    std::string operator()(const input::durable& i) const {
        return "commit " + number(i.at.value) + " is durable";
    }
    std::string operator()(const input::store_failed& i) const {
        return "the store failed: " + i.why;
    }
    std::string operator()(const input::store_opened&) const { return "the store is well again"; }
    std::string operator()(const input::kernel_attached& i) const {
        return "kernel attached at " + at(i.at) + ", " + number(i.trips) + " trips";
    }
    std::string operator()(const input::kernel_acked& i) const {
        return "kernel did order " + number(i.order);
    }
    std::string operator()(const input::kernel_refused& i) const {
        return "kernel refused order " + number(i.order) + ": " + i.why;
    }
    std::string operator()(const input::kernel_tripped& i) const {
        return "kernel tripped, " + number(i.trips) + " trips";
    }
    std::string operator()(const input::kernel_closed&) const {
        return "kernel closed by itself: the permit ran out";
    }
    std::string operator()(const input::kernel_lost& i) const { return "kernel lost: " + i.why; }
    std::string operator()(const input::create& i) const {
        return asked("create", client_of(i.server, i.client), i.id);
    }
    std::string operator()(const input::remove& i) const {
        return asked("remove", client_of(i.server, i.client), i.id);
    }
    std::string operator()(const input::check& i) const {
        return asked("check", client_of(i.server, i.client), i.id);
    }
    std::string operator()(const input::grace_start& i) const {
        return asked("GraceStart", i.server, i.id);
    }
    std::string operator()(const input::grace_done& i) const {
        return asked("GraceDone", i.server, i.id);
    }
    std::string operator()(const input::instance_known& i) const {
        return "instance " + i.server +
               (i.running ? " runs, answered START " + number(i.answered.value)
                          : " is about to start") +
               (i.stopping ? ", is to stop" : "");
    }
    std::string operator()(const input::nfsd_ended& i) const {
        return "nfsd of " + i.server + " ended";
    }
    std::string operator()(const input::instance_gone& i) const {
        return "instance " + i.server + " is gone";
    }
    std::string operator()(const input::serve& i) const { return asked("serve", i.server, i.id); }
    std::string operator()(const input::stop& i) const { return asked("stop", i.server, i.id); }
    std::string operator()(const input::released& i) const {
        return asked("released", i.server, i.id);
    }
    std::string operator()(const input::start& i) const { return asked("start", i.server, i.id); }
    std::string operator()(const input::lift& i) const { return asked("lift", i.server, i.id); }
    std::string operator()(const input::extend& i) const {
        return asked("extend by " + std::to_string(i.by / seconds(1)) + " s", i.server, i.id);
    }
    std::string operator()(const input::hold& i) const {
        return asked(i.on ? "enforce," : "enforce no longer,", "this node", i.id);
    }
    std::string operator()(const input::fence_news& i) const {
        return asked("fence news about", node(i.node), i.id);
    }
    std::string operator()(const input::bypass& i) const {
        return asked(i.on ? "bypass on," : "bypass off,", i.node ? node(i.node) : "", i.id);
    }
    std::string operator()(const input::wait& i) const {
        return asked("wait for", to_string(i.until), i.id);
    }
    std::string operator()(const input::forget& i) const {
        return "forget ticket " + number(i.id.value);
    }
    std::string operator()(const input::tick&) const { return "tick"; }
};

struct operation_describer {
    std::string operator()(const store_op::put_record& o) const {
        return "put " + client_of(o.server, o.client) + " at " + number(o.rec.at.value);
    }
    std::string operator()(const store_op::remove_record& o) const {
        return "remove " + client_of(o.server, o.client);
    }
    std::string operator()(const store_op::lower& o) const {
        return "lower " + o.server + " to " + number(o.limit.value);
    }
    std::string operator()(const store_op::renew& o) const {
        return "renew " + o.server + " at " + number(o.at.value);
    }
    std::string operator()(const store_op::purge& o) const {
        return "purge " + o.server + " up to " + number(o.limit.value);
    }
    std::string operator()(const store_op::replace_all& o) const {
        std::size_t n = 0;
        for (const auto& [server, records] : o.records)
            n += records.size();
        for (const auto& [server, mounts] : o.mounts)
            n += mounts.size();
        return "replace all by " + number(n) + " records of " + number(o.records.size()) +
               " servers";
    }
    std::string operator()(const store_op::put_meta& o) const {
        return at(o.meta.current) + ", R " + number(o.meta.recovery.value) + ", position " +
               number(o.meta.applied.value);
    }
};

struct effect_describer {
    std::string operator()(const effect::close_gate& e) const {
        return "close gate at " + at(e.at) + " (order " + number(e.order) + ")";
    }
    std::string operator()(const effect::persist& e) const {
        return "commit " + number(e.at.value) + ": " +
               list(e.batch, [](const store_operation& o) { return describe(o); });
    }
    std::string operator()(const effect::send& e) const { return "mcast " + message(e.message); }
    std::string operator()(const effect::query_dlm_members&) const {
        return "ask for the members of the DLM";
    }
    std::string operator()(const effect::leave_group&) const { return "leave the group"; }
    std::string operator()(const effect::join_group&) const { return "join the group"; }
    std::string operator()(const effect::convert& e) const {
        std::string s = "lock " + resource(e.resource, e.node) + " to " + mode(e.mode);
        return e.with_value ? s + ", " + value(e.value) : s;
    }
    std::string operator()(const effect::cancel& e) const {
        return "cancel " + resource(e.resource, e.node);
    }
    std::string operator()(const effect::set_reclaim& e) const {
        return std::string("reclaim ") + (e.on ? "on" : "off") + " for " + e.server + " at " +
               at(e.at) + " (order " + number(e.order) + ")";
    }
    std::string operator()(const effect::open_gate& e) const {
        return "open gate at " + at(e.at) + ", " + number(e.trips) +
               " trips accounted for (order " + number(e.order) + ")";
    }
    std::string operator()(const effect::extend_permit& e) const {
        return "permit until " + std::to_string(e.until / milliseconds(1)) + " ms";
    }
    std::string operator()(const effect::end_nfsd_grace& e) const {
        return "end nfsd's grace of " + e.server;
    }
    std::string operator()(const effect::set_bypass& e) const {
        return std::string("bypass ") + (e.on ? "on" : "off");
    }
    std::string operator()(const effect::answer_upcall& e) const {
        return "answer upcall " + number(e.id.value) + ": " + to_string(e.status);
    }
    std::string operator()(const effect::answer_grace_start& e) const {
        return "answer GraceStart " + number(e.id.value) + ": " +
               list(e.clients,
                    [](const tracker_port::known_client& c) { return printable(c.name); });
    }
    std::string operator()(const effect::answer_request& e) const {
        return "answer request " + number(e.id.value) + ": " + to_string(e.status) +
               (e.detail.empty() ? "" : " (" + e.detail + ")");
    }
    std::string operator()(const effect::fence& e) const {
        return "fence " + node(e.node) + ": " + e.why;
    }
    std::string operator()(const effect::tell& e) const { return "tell: " + e.text; }
};

} // namespace

std::string describe(const any_input& i) {
    return std::visit(input_describer{}, i);
}
std::string describe(const any_effect& e) {
    return std::visit(effect_describer{}, e);
}
std::string describe(const store_operation& o) {
    return std::visit(operation_describer{}, o);
}

} // namespace grace
