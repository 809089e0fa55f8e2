// SPDX-License-Identifier: GPL-2.0-or-later
// The one place where effects are performed, in order: inputs from the adapters go through the
// protocol machine, its outputs to the ports. Knows no file descriptor: the daemon gives it real
// adapters, the simulator a drawn world.
#pragma once

#include "grace/fsm.hh"
#include "grace/ports.hh"
#include "graced/recorder.hh"

#include <deque>
#include <functional>

namespace grace {

struct ports {
    group_port& group;
    lock_port& locks;
    store_port& store;
    kernel_port& kernel;
    tracker_port& tracker;
    control_port& control;
    news_port& news;
    fence_port& fence;
};

class engine {
public:
    using clock = std::function<instant()>;         // CLOCK_BOOTTIME, ns
    using arm_timer = std::function<void(instant)>; // call tick() then; 0: never

    engine(ports p, clock now, arm_timer arm, parameters params,
           std::optional<stored_state> database)
        : ports_(p)
        , now_(std::move(now))
        , arm_(std::move(arm))
        , machine_(std::move(params), std::move(database)) {}

    // An input may come from within an effect (a port that answers at once): it waits its turn.
    void take(any_input in);
    void tick() { take(input::tick{}); }

    // Called after each step, before any of its effects is performed: for what a successor has to
    // know of them, whenever this process is killed.
    void before_effects(std::function<void()> f) { before_effects_ = std::move(f); }

    // Called when they are all performed: for who looks on. Nothing waits for it.
    void after_effects(std::function<void()> f) { after_effects_ = std::move(f); }

    // Keeps the last inputs from here on.
    void record() { recorder_.emplace(); }
    const recorder* recorded() const { return recorder_ ? &*recorder_ : nullptr; }

    const fsm& machine() const { return machine_; }

private:
    void perform(any_effect&);

    ports ports_;
    clock now_;
    arm_timer arm_;
    fsm machine_;
    std::optional<recorder> recorder_;
    std::function<void()> before_effects_, after_effects_;
    std::deque<any_input> waiting_;
    bool busy_ = false;
};

} // namespace grace
