// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/engine.hh"

namespace grace {

void engine::take(any_input in) {
    waiting_.push_back(std::move(in));
    if (busy_)
        return;
    busy_ = true;
    while (!waiting_.empty()) {
        any_input next = std::move(waiting_.front());
        waiting_.pop_front();
        const instant now = now_();
        if (recorder_)
            recorder_->before_step(now, next, machine_);
        machine_.step(now, next);
        output effects = machine_.take_output();
        if (recorder_)
            recorder_->after_step(effects);
        if (before_effects_)
            before_effects_();
        for (any_effect& e : effects)
            perform(e);
        if (after_effects_)
            after_effects_();
    }
    busy_ = false;
    arm_(machine_.deadline());
}

namespace {
struct performer {
    ports& p;
    void operator()(effect::close_gate& e) { p.kernel.close_gate(e.at, e.order); }
    void operator()(effect::persist& e) { p.store.commit(std::move(e.batch), e.at); }
    void operator()(effect::send& e) { p.group.mcast(std::move(e.message)); }
    void operator()(effect::query_dlm_members&) { p.group.query_dlm_members(); }
    void operator()(effect::leave_group&) { p.group.leave(); }
    void operator()(effect::join_group&) { p.group.join_again(); }
    void operator()(effect::convert& e) {
        p.locks.convert(e.resource, e.node, e.mode, e.with_value ? &e.value : nullptr);
    }
    void operator()(effect::cancel& e) { p.locks.cancel(e.resource, e.node); }
    void operator()(effect::set_reclaim& e) { p.kernel.set_reclaim(e.server, e.at, e.on, e.order); }
    void operator()(effect::extend_permit& e) { p.kernel.extend_permit(e.until); }
    void operator()(effect::open_gate& e) { p.kernel.open_gate(e.at, e.trips, e.order); }
    void operator()(effect::end_nfsd_grace& e) { p.kernel.end_nfsd_grace(e.server); }
    void operator()(effect::set_bypass& e) { p.kernel.set_bypass(e.on); }
    void operator()(effect::answer_upcall& e) { p.tracker.answer(e.id, e.status); }
    void operator()(effect::answer_grace_start& e) {
        p.tracker.answer_grace_start(e.id, e.clients);
    }
    void operator()(effect::answer_request& e) { p.control.answer(e.id, e.status, e.detail); }
    void operator()(effect::fence& e) { p.fence.fence(e.node, e.why); }
    void operator()(effect::tell& e) { p.news.tell(e.level, e.text); }
};
} // namespace

void engine::perform(any_effect& e) {
    std::visit(performer{ports_}, e);
}

} // namespace grace
