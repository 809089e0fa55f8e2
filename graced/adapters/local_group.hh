// SPDX-License-Identifier: GPL-2.0-or-later
// `state = single`: a group of one. Messages come back from the loop, in order; always quorate.
// And a lock port that grants everything: nobody else is there.
#pragma once

#include "grace/input.hh"

#include <deque>
#include <functional>
#include <qb/qbloop.h>

namespace grace {

class local_group : public group_port, public lock_port {
public:
    using sink = std::function<void(any_input)>;
    local_group(qb_loop_t* loop, node_id self, sink out)
        : loop_(loop)
        , self_(self)
        , out_(std::move(out)) {}

    void join() {
        later(input::locks_known{lock_mode::nl, false});
        later(input::confchg{{self_}, {self_}, {}});
        later(input::ring{1});
        later(input::quorum{true, 1, {{self_, 1}}, 1});
    }
    void mcast(bytes m) override { later(input::deliver{self_, std::move(m)}); }
    void leave() override {
        later(input::confchg{{}, {}, {{self_, input::left_reason::process}}});
    }
    void join_again() override { later(input::confchg{{self_}, {self_}, {}}); }
    void query_dlm_members() override { later(input::dlm_members{false, {}}); }
    void convert(lock_resource r, node_id n, lock_mode m, const lvb_bytes*) override {
        later(input::lock_granted{r, n, m, false, {}});
    }
    void cancel(lock_resource, node_id) override {} // it was granted already

private:
    void later(any_input in) {
        waiting_.push_back(std::move(in));
        if (waiting_.size() > 1)
            return;
        qb_loop_job_add(loop_, QB_LOOP_HIGH, this, [](void* p) {
            auto* self = static_cast<local_group*>(p);
            std::deque<any_input> now;
            now.swap(self->waiting_);
            for (any_input& i : now)
                self->out_(std::move(i));
        });
    }
    qb_loop_t* loop_;
    node_id self_;
    sink out_;
    std::deque<any_input> waiting_;
};

} // namespace grace
