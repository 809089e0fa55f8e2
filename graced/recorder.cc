// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/recorder.hh"

namespace grace {

recorder::recorder()
    : recorder(limits{}) {}

void recorder::before_step(instant at, const any_input& in, const fsm& machine) {
    if (open_) // the step before did not return
        put_digest(kept_[1].steps, {});
    if (seen_ == 0 || kept_[1].steps.size() >= limits_.segment_bytes) {
        kept_[0] = std::move(kept_[1]);
        kept_[1] = {};
        if (checkpoint_fits(machine, limits_.max_checkpoint))
            kept_[1].start = encode_checkpoint(machine);
    }
    const bytes step = encode_step(at, in);
    segment& s = kept_[1];
    s.steps.insert(s.steps.end(), step.begin(), step.end());
    ++s.count;
    ++seen_;
    open_ = true;
}

void recorder::after_step(const output& o) {
    put_digest(kept_[1].steps, digest(o));
    open_ = false;
}

bytes recorder::dump(const std::string& made_by, const std::string& why, std::int64_t realtime,
                     instant boottime) const {
    recording_parts p{made_by, why, realtime, boottime, 0, {}, 0, {}};
    // From the older start that there is; if there is none, all inputs without one.
    const bool skip_older = !kept_[0].start && kept_[1].start;
    for (const segment& s : kept_) {
        if (&s == &kept_[0] && skip_older)
            continue;
        if (p.count == 0)
            p.checkpoint = s.start;
        p.count += s.count;
        p.steps.emplace_back(s.steps);
    }
    bytes last;
    if (open_) {
        put_digest(last, {});
        p.steps.emplace_back(last);
    }
    p.before = seen_ - p.count;
    return encode_recording(p);
}

} // namespace grace
