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
constexpr std::uint16_t recording_version = 5;
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
    std::size_t all = f.buffered_bytes_ + (f.records_.size() + f.checks_.size()) * max_record_key;
    for (const auto& [server, admitted] : f.admitted_)
        all += admitted.second.size() * max_record_key;
    const auto add = [&](const state& s) {
        for (const auto& [name, v] : s.servers)
            all += v.records.weight() + v.mounts.weight();
    };
    add(f.state_);
    add(f.incoming_.into);
    for (const fsm::outgoing_snapshot& o : f.outgoing_)
        add(o.writer.from);
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
    r.get(rec.realtime); // ns since 1970 are more than an instant may be
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

} // namespace grace
