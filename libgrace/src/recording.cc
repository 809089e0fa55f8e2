// SPDX-License-Identifier: LGPL-2.1-or-later
// Layout of a recording: magic, version, made_by, why, realtime, boottime, before; has_checkpoint
// and the checkpoint as a blob; a count, then that many steps: instant, input, has_digest, digest.
// The checksum of everything before it is the end.
#include "grace/recording.hh"

#include "archive.hh"
#include "grace/wire.hh"

namespace grace {

template <>
inline constexpr int members<recorded_input> = 3;

namespace {
constexpr std::uint32_t recording_magic = 0x58524721; // "!GRX"
constexpr std::uint16_t recording_version = 1;
} // namespace

bytes archive::wire_bytes(const envelope& e) {
    return wire::encode(e);
}
bool archive::from_wire(const bytes& b, envelope& e) {
    auto found = wire::decode(b);
    if (found)
        e = std::move(*found);
    return found.has_value();
}

bytes encode_step(instant at, const any_input& in) {
    wire::writer w;
    archive::put(w, at);
    archive::put(w, in);
    return std::move(w.out);
}

bytes encode_checkpoint(const fsm& f) {
    wire::writer w;
    archive::put(w, f);
    return std::move(w.out);
}

bool archive::fits(const fsm& f, std::size_t limit) {
    // Besides the records everything has small limits, but for what waits for a snapshot.
    std::size_t all = f.assembly_.size() + f.buffered_bytes_ + f.records_.size() * max_client_name;
    for (const auto& [name, v] : f.state_.servers)
        all += v.records.size() * 64;
    if (all > limit)
        return false;
    for (const auto& [name, v] : f.state_.servers)
        for (const auto& [client, rec] : v.records)
            all += client.size();
    return all <= limit;
}
bool checkpoint_fits(const fsm& f, std::size_t limit) {
    return archive::fits(f, limit);
}

std::optional<fsm> decode_checkpoint(std::span<const std::uint8_t> in) {
    wire::reader r(in);
    fsm f(parameters{}, std::nullopt);
    archive::get(r, f);
    if (!r.at_end())
        return {};
    return f;
}

std::uint32_t digest(const output& o) {
    wire::writer w;
    for (const any_effect& e : o)
        if (!std::holds_alternative<effect::tell>(e))
            archive::put(w, e);
    return wire::checksum(w.out);
}

void put_digest(bytes& steps, std::optional<std::uint32_t> d) {
    wire::writer w;
    archive::put(w, d);
    steps.insert(steps.end(), w.out.begin(), w.out.end());
}

bytes encode_recording(const recording_parts& p) {
    wire::writer w;
    w.put(recording_magic);
    w.put(recording_version);
    w.put(p.made_by);
    w.put(p.why);
    w.put(p.realtime);
    w.put(p.boottime);
    w.put(p.before);
    archive::put(w, p.checkpoint);
    w.put(p.count);
    for (const auto& s : p.steps)
        w.out.insert(w.out.end(), s.begin(), s.end());
    w.put(wire::checksum(w.out));
    return std::move(w.out);
}

bytes encode_recording(const recording& r) {
    recording_parts p{r.made_by, r.why, r.realtime, r.boottime, r.before, {}, 0, {}};
    if (r.start)
        p.checkpoint = encode_checkpoint(*r.start);
    bytes steps;
    for (const recorded_input& i : r.inputs) {
        bytes s = encode_step(i.at, i.in);
        steps.insert(steps.end(), s.begin(), s.end());
        put_digest(steps, i.outputs);
    }
    p.count = static_cast<std::uint32_t>(r.inputs.size());
    p.steps = {steps};
    return encode_recording(p);
}

decoded_recording decode_recording(std::span<const std::uint8_t> in) {
    if (in.size() > max_recording)
        return {{}, "longer than any recording"};
    wire::reader r(in.first(in.size() < 4 ? 0 : in.size() - 4));
    std::uint32_t magic = 0, sum = 0;
    std::uint16_t version = 0;
    r.get(magic);
    r.get(version);
    if (!r.ok() || magic != recording_magic)
        return {{}, "not a recording of graced"};
    if (version != recording_version)
        return {{}, "made by a version of graced with another format of recordings"};
    wire::reader tail(in.last(4));
    tail.get(sum);
    if (sum != wire::checksum(in.first(in.size() - 4)))
        return {{}, "damaged: its checksum is wrong"};
    recording rec;
    std::optional<bytes> checkpoint;
    archive::get(r, rec.made_by);
    archive::get(r, rec.why);
    archive::get(r, rec.realtime);
    archive::get(r, rec.boottime);
    archive::get(r, rec.before);
    archive::get(r, checkpoint);
    archive::get(r, rec.inputs);
    if (!r.at_end())
        return {{}, "its inputs cannot be read: it was made by another version of graced"};
    if (checkpoint) {
        rec.start = decode_checkpoint(*checkpoint);
        if (!rec.start)
            return {{}, "its start cannot be read: it was made by another version of graced"};
    }
    return {std::move(rec), ""};
}

// --- for people ---

namespace {

std::string number(std::uint64_t n) {
    return std::to_string(n);
}
std::string node(node_id n) {
    return "node " + number(n.value);
}
std::string resource(lock_resource r, node_id n) {
    return r == lock_resource::grace ? "grace" : "alive." + number(n.value);
}
// A client's name is any bytes.
std::string quoted(const std::string& s) {
    std::string out = "\"";
    const char* digits = "0123456789abcdef";
    for (char c : s) {
        auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u >= 0x7f || c == '"' || c == '\\')
            out += std::string("\\x") + digits[u >> 4] + digits[u & 15];
        else
            out += c;
    }
    return out + "\"";
}
template <typename C>
std::string list(const C& c) {
    std::string out;
    for (const node_id& n : c)
        out += (out.empty() ? "" : " ") + number(n.value);
    return "{" + out + "}";
}
std::string message(const bytes& b) {
    auto e = wire::decode(b);
    return e ? describe(e->body) : number(b.size()) + " bytes that are no message";
}
std::string asked(ticket t) {
    return " [" + number(t.value) + "]";
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
const char* to_string(request_status s) {
    switch (s) {
    case request_status::done:
        return "done";
    case request_status::not_quorate:
        return "not quorate";
    case request_status::hosted_elsewhere:
        return "hosted elsewhere";
    case request_status::not_hosted:
        return "not hosted";
    case request_status::no_such_server:
        return "no such server";
    case request_status::no_such_node:
        return "no such node";
    case request_status::void_now:
        return "void now";
    case request_status::timeout:
        return "timeout";
    }
    return "?";
}

struct input_describer {
    std::string operator()(const input::deliver& i) const {
        return "delivered from " + node(i.sender) + ": " + message(i.message);
    }
    std::string operator()(const input::confchg& i) const {
        std::string out = "group is " + list(i.members);
        if (!i.joined.empty())
            out += ", joined " + list(i.joined);
        for (const input::departed& d : i.left)
            out += ", " + node(d.node) +
                   (d.reason == input::left_reason::node ? " died" : " left as a process");
        return out;
    }
    std::string operator()(const input::ring& i) const { return "ring is " + number(i.seq); }
    std::string operator()(const input::quorum& i) const {
        std::vector<node_id> nodes;
        for (const auto& [n, votes] : i.votes)
            nodes.push_back(n);
        return std::string(i.quorate ? "quorate: " : "NOT quorate: ") + list(nodes) + " of " +
               number(i.expected) + " votes, ring " + number(i.ring_seq);
    }
    std::string operator()(const input::dlm_members& i) const {
        return i.known ? "dlm_controld's group is " + list(i.members)
                       : std::string("there is no dlm_controld");
    }
    std::string operator()(const input::locks_known& i) const {
        return std::string("locks are known: grace ") + grace::to_string(i.grace) +
               (i.alive ? ", alive held" : ", alive not held");
    }
    std::string operator()(const input::lock_granted& i) const {
        std::string out =
            "lock " + resource(i.resource, i.node) + " granted: " + grace::to_string(i.mode);
        if (i.resource == lock_resource::grace && !i.value_valid)
            out += ", value not valid";
        return out;
    }
    std::string operator()(const input::lock_refused& i) const {
        return "lock " + resource(i.resource, i.node) + " refused, error " + std::to_string(i.code);
    }
    std::string operator()(const input::lock_cancelled& i) const {
        return "lock " + resource(i.resource, i.node) + ": request cancelled";
    }
    std::string operator()(const input::locks_lost&) const { return "the locks' keeper is gone"; }
    std::string operator()(const input::durable& i) const {
        return "commit " + number(i.at.value) + " is durable";
    }
    std::string operator()(const input::store_failed& i) const {
        return "the database failed: " + quoted(i.why);
    }
    std::string operator()(const input::kernel_attached& i) const {
        return "kernel attached, closed at " + number(i.at.value) + ", trips " + number(i.trips);
    }
    std::string operator()(const input::kernel_acked& i) const {
        return "kernel acknowledged order " + number(i.order);
    }
    std::string operator()(const input::kernel_refused& i) const {
        return "kernel refused order " + number(i.order) + ": " + quoted(i.why);
    }
    std::string operator()(const input::kernel_tripped& i) const {
        return "tripwire: the kernel closed its gate, trips " + number(i.trips);
    }
    std::string operator()(const input::kernel_closed&) const {
        return "the kernel closed its gate: the permit ran out";
    }
    std::string operator()(const input::kernel_lost& i) const {
        return "kernel lost: " + quoted(i.why);
    }
    std::string operator()(const input::create& i) const {
        return "nfsd: create " + quoted(i.client) + " of " + i.server + asked(i.id);
    }
    std::string operator()(const input::remove& i) const {
        return "nfsd: remove " + quoted(i.client) + " of " + i.server + asked(i.id);
    }
    std::string operator()(const input::check& i) const {
        return "nfsd: check " + quoted(i.client) + " of " + i.server + asked(i.id);
    }
    std::string operator()(const input::grace_start& i) const {
        return "nfsd: " + i.server + " starts, who may reclaim?" + asked(i.id);
    }
    std::string operator()(const input::grace_done& i) const {
        return "nfsd: " + i.server + " ended its grace" + asked(i.id);
    }
    std::string operator()(const input::instance_known& i) const {
        return "server " + i.server + " is known here" + (i.running ? ", runs" : "") +
               ", answered start " + number(i.answered.value);
    }
    std::string operator()(const input::instance_gone& i) const {
        return "server " + i.server + " is gone";
    }
    std::string operator()(const input::serve& i) const {
        return "asked to host " + i.server + asked(i.id);
    }
    std::string operator()(const input::stop& i) const {
        return "asked to stop " + i.server + asked(i.id);
    }
    std::string operator()(const input::released& i) const {
        return "told that " + i.server + " is closed here" + asked(i.id);
    }
    std::string operator()(const input::start& i) const {
        return "asked to start grace" + (i.server.empty() ? "" : " for " + i.server) + asked(i.id);
    }
    std::string operator()(const input::lift& i) const {
        return "asked to lift" + (i.server.empty() ? "" : " " + i.server) + asked(i.id);
    }
    std::string operator()(const input::fence_news& i) const {
        return "told that " + node(i.node) + " is about to be fenced" + asked(i.id);
    }
    std::string operator()(const input::wait& i) const {
        return std::string("asked to wait for ") + grace::to_string(i.until) + asked(i.id);
    }
    std::string operator()(const input::forget& i) const {
        return "whoever asked" + asked(i.id) + " went away";
    }
    std::string operator()(const input::tick&) const { return "timer"; }
};

struct operation_describer {
    std::string operator()(const store_op::put_record& o) const {
        return "record " + quoted(o.client) + " of " + o.server;
    }
    std::string operator()(const store_op::remove_record& o) const {
        return "remove " + quoted(o.client) + " of " + o.server;
    }
    std::string operator()(const store_op::lower& o) const {
        return "records of " + o.server + " reclaimable, at most " + number(o.limit.value);
    }
    std::string operator()(const store_op::renew& o) const {
        return "records of " + o.server + " renewed at " + number(o.at.value);
    }
    std::string operator()(const store_op::purge& o) const {
        return "purge " + o.server + " up to " + number(o.limit.value);
    }
    std::string operator()(const store_op::replace_all& o) const {
        std::size_t n = 0;
        for (const auto& [server, records] : o.records)
            n += records.size();
        return "replace everything: " + number(o.records.size()) + " servers, " + number(n) +
               " records";
    }
    std::string operator()(const store_op::put_meta& o) const {
        return "C " + number(o.meta.current.value) + ", R " + number(o.meta.recovery.value) +
               ", position " + number(o.meta.applied.value);
    }
};

struct effect_describer {
    std::string operator()(const effect::close_gate& e) const {
        return "close the gate at " + number(e.at.value) + ", order " + number(e.order);
    }
    std::string operator()(const effect::persist& e) const {
        std::string out;
        for (const store_operation& o : e.batch)
            out += (out.empty() ? "" : "; ") + describe(o);
        return "commit " + number(e.at.value) + ": " + out;
    }
    std::string operator()(const effect::send& e) const { return "say " + message(e.message); }
    std::string operator()(const effect::query_dlm_members&) const {
        return "ask for dlm_controld's group";
    }
    std::string operator()(const effect::convert& e) const {
        return "lock " + resource(e.resource, e.node) + " to " + grace::to_string(e.mode) +
               (e.with_value ? ", with the value" : "");
    }
    std::string operator()(const effect::cancel& e) const {
        return "cancel the request for lock " + resource(e.resource, e.node);
    }
    std::string operator()(const effect::set_reclaim& e) const {
        return std::string(e.on ? "open" : "close") + " reclaim of " + e.server + " at " +
               number(e.at.value) + ", order " + number(e.order);
    }
    std::string operator()(const effect::extend_permit& e) const {
        return "permit until " + std::to_string(e.until / 1'000'000) + " ms";
    }
    std::string operator()(const effect::open_gate& e) const {
        return "open the gate at " + number(e.at.value) + ", trips " + number(e.trips) +
               ", order " + number(e.order);
    }
    std::string operator()(const effect::end_nfsd_grace& e) const {
        return "end nfsd's grace of " + e.server;
    }
    std::string operator()(const effect::answer_upcall& e) const {
        return "answer nfsd" + asked(e.id) + ": " + to_string(e.status);
    }
    std::string operator()(const effect::answer_grace_start& e) const {
        return "answer nfsd" + asked(e.id) + ": " + number(e.clients.size()) +
               " clients may reclaim";
    }
    std::string operator()(const effect::answer_request& e) const {
        return "answer" + asked(e.id) + ": " + to_string(e.status) +
               (e.detail.empty() ? "" : ", " + e.detail);
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
