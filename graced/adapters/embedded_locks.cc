// SPDX-License-Identifier: GPL-2.0-or-later
// The embedded lock table; what it imitates is said in embedded_locks.hh.
#include "adapters/embedded_locks.hh"

#include <algorithm>
#include <utility>

namespace grace {

using what = lock_event::what;

void embedded_lock_table::convert(node_id owner, lock_key key, lock_mode mode,
                                  const lvb_bytes* value) {
    const keeper_id self = keeper_of(owner);
    const auto refuse = [&](int code) {
        lock_event e;
        e.kind = what::refused;
        e.key = key;
        e.code = code;
        emit(self, e);
    };
    if (!valid_key(key) || !owner)
        return refuse(EINVAL);
    const auto at = resources_.find(key);
    if (at != resources_.end())
        if (const auto mine = at->second.locks.find(self); mine != at->second.locks.end()) {
            const lock& l = mine->second;
            if (const int code = check_conversion({l.granted, l.wanted}, mode))
                return refuse(code);
        }

    lock& l = resources_[key].locks[self];
    l.wanted = mode;
    l.write = value ? std::optional(*value) : std::nullopt;
    l.started = false;
    perform(operation::start, self, key);
}

void embedded_lock_table::cancel(node_id owner, lock_key key) {
    // What comes too late for a request must not wait for the thaw and meet the next one: then the
    // way down of a probe was cancelled, and its PR kept a node from `alive` for ever.
    const lock_map mine = locks_of(owner);
    if (const auto at = mine.find(key); at == mine.end() || !at->second.requested)
        return;
    perform(operation::cancel, keeper_of(owner), key);
}

void embedded_lock_table::keeper_died(node_id owner) {
    // The exit of a holder waits for the thaw, too (dlm_clear_proc_locks).
    const keeper_id old = keeper_of(owner);
    ++lives_[owner];
    perform(operation::drop, old, {});
}

embedded_lock_table::keeper_id embedded_lock_table::keeper_of(node_id node) const {
    const auto at = lives_.find(node);
    return {node, at == lives_.end() ? 0 : at->second};
}

void embedded_lock_table::emit(keeper_id to, lock_event e) {
    if (to != keeper_of(to.node))
        return; // that keeper is dead: nobody is there to be told
    e.owner = to.node;
    events_.push_back(e);
}

void embedded_lock_table::perform(operation op, keeper_id owner, lock_key key) {
    if (frozen()) {
        deferred_.push_back({op, owner, key});
        return;
    }
    switch (op) {
    case operation::start:
        return start(owner, key);
    case operation::cancel:
        return revert(owner, key);
    case operation::drop:
        return drop_all(owner);
    }
}

bool embedded_lock_table::conflicts(const resource& r, keeper_id owner, lock_mode wanted) {
    // A converting lock still holds its granted mode, so one loop covers both of the DLM's queues.
    return std::any_of(r.locks.begin(), r.locks.end(), [&](const auto& entry) {
        const auto& [keeper, other] = entry;
        return keeper != owner && other.granted && !compatible(*other.granted, wanted);
    });
}

void embedded_lock_table::start(keeper_id owner, lock_key key) {
    const auto at = resources_.find(key);
    if (at == resources_.end())
        return;
    resource& r = at->second;
    const auto mine = r.locks.find(owner);
    if (mine == r.locks.end() || !mine->second.wanted || mine->second.started)
        return; // cancelled or dropped while the lockspace was frozen
    lock& l = mine->second;
    l.started = true;

    if (key.resource == lock_resource::alive && *l.wanted == lock_mode::nl) {
        remove_lock(owner, key);
        lock_event e;
        e.key = key;
        emit(owner, e);
        grant_pending(key);
        return;
    }
    // The keeper takes NL on `grace` first, past all queues (DLM_LKF_EXPEDITE).
    const bool fresh = !l.granted && key.resource == lock_resource::alive;
    if (fresh ? conflicts(r, owner, *l.wanted) || !r.converting.empty() || !r.waiting.empty()
              : conflicts(r, owner, *l.wanted)) {
        if (!fresh && !l.granted)
            l.granted = lock_mode::nl;
        (fresh ? r.waiting : r.converting).push_back(owner);
        tell_holders(key, r, owner);
        return;
    }
    grant(key, r, owner);
    if (!fresh)
        grant_pending(key); // a conversion down may have been what others waited for
}

void embedded_lock_table::grant(lock_key key, resource& r, keeper_id owner) {
    lock& l = r.locks.at(owner);
    lock_event e;
    e.key = key;
    e.mode = *l.wanted;
    if (key.resource == lock_resource::grace) {
        const lock_mode from = l.granted.value_or(lock_mode::nl);
        if (from == lock_mode::nl && (*l.wanted != lock_mode::nl || !l.granted)) {
            e.value_valid = r.value_valid;
            if (r.value_valid)
                e.value = r.value;
        } else if (from == lock_mode::ex && l.write) {
            r.value = *l.write;
            r.has_value = r.value_valid = true;
        }
    }
    l.granted = l.wanted;
    l.wanted.reset();
    l.write.reset();
    l.told = false;
    emit(owner, e);
}

void embedded_lock_table::grant_pending(lock_key key) {
    const auto at = resources_.find(key);
    if (at == resources_.end())
        return;
    resource& r = at->second;
    const auto drain = [&](std::list<keeper_id>& queue) {
        while (!queue.empty()) {
            const keeper_id first = queue.front();
            if (conflicts(r, first, *r.locks.at(first).wanted))
                return;
            queue.pop_front();
            grant(key, r, first);
        }
    };
    drain(r.converting);
    if (r.converting.empty())
        drain(r.waiting);
    for (const auto* queue : {&r.converting, &r.waiting})
        for (const keeper_id waiter : *queue)
            tell_holders(key, r, waiter);
}

void embedded_lock_table::tell_holders(lock_key key, resource& r, keeper_id waiter) {
    const lock_mode wanted = *r.locks.at(waiter).wanted;
    for (auto& [keeper, other] : r.locks) {
        if (keeper == waiter || !other.granted || other.told || compatible(*other.granted, wanted))
            continue;
        other.told = true;
        lock_event e;
        e.kind = what::blocking;
        e.key = key;
        e.mode = wanted;
        emit(keeper, e);
    }
}

void embedded_lock_table::revert(keeper_id owner, lock_key key) {
    const auto at = resources_.find(key);
    if (at == resources_.end())
        return;
    resource& r = at->second;
    const auto mine = r.locks.find(owner);
    if (mine == r.locks.end() || !mine->second.wanted)
        return; // the grant came first
    lock& l = mine->second;
    l.wanted.reset();
    l.write.reset();
    l.started = true;
    r.converting.remove(owner);
    r.waiting.remove(owner);
    if (!l.granted && key.resource == lock_resource::grace)
        l.granted = lock_mode::nl;
    if (!l.granted)
        remove_lock(owner, key);
    lock_event e;
    e.kind = what::cancelled;
    e.key = key;
    emit(owner, e);
    grant_pending(key);
}

void embedded_lock_table::remove_lock(keeper_id owner, lock_key key) {
    const auto at = resources_.find(key);
    if (at == resources_.end())
        return;
    resource& r = at->second;
    r.converting.remove(owner);
    r.waiting.remove(owner);
    r.locks.erase(owner);
    if (r.locks.empty())
        resources_.erase(at); // the value block goes with the last lock, without any flag
}

void embedded_lock_table::drop_all(keeper_id owner) {
    std::vector<lock_key> keys;
    for (auto& [key, r] : resources_) {
        const auto mine = r.locks.find(owner);
        if (mine == r.locks.end())
            continue;
        // A holder that is no more may have been about to write: nobody knows whether the value is
        // current. So for a process (unlock_proc_lock, DLM_LKF_IVVALBLK) and for a node
        // (RSB_RECOVER_LVB_INVAL). Where no value was ever written there is nothing to flag.
        if (mine->second.granted == lock_mode::ex && r.has_value)
            r.value_valid = false;
        keys.push_back(key);
    }
    for (const lock_key key : keys) {
        remove_lock(owner, key);
        if (!frozen())
            grant_pending(key);
    }
}

void embedded_lock_table::freeze(node_id dead) {
    frozen_for_.insert(dead);
}

void embedded_lock_table::thaw() {
    if (!frozen())
        return;
    frozen_for_.clear();
    resume();
}

void embedded_lock_table::fenced(node_id dead, bool lose_value) {
    std::erase_if(deferred_, [&](const deferred& d) { return d.owner.node == dead; });
    frozen_for_.insert(dead); // no grant before all of its locks are gone
    for (unsigned life = 0; life <= keeper_of(dead).life; ++life)
        drop_all({dead, life});
    ++lives_[dead];
    if (const auto at = resources_.find(grace_lock); lose_value && at != resources_.end()) {
        resource& r = at->second;
        const bool known = std::any_of(r.locks.begin(), r.locks.end(), [](const auto& entry) {
            return entry.second.granted.value_or(lock_mode::nl) != lock_mode::nl;
        });
        if (r.has_value && !known)
            r.value_valid = false;
    }
    frozen_for_.erase(dead);
    frozen_for_.erase(node_id{});
    if (!frozen())
        resume();
}

void embedded_lock_table::resume() {
    // First what recovery grants (dlm_recover_grant), then the callers that were blocked, in order.
    std::vector<lock_key> keys;
    for (const auto& [key, r] : resources_)
        keys.push_back(key);
    for (const lock_key key : keys)
        grant_pending(key);
    for (const deferred& d : std::exchange(deferred_, {}))
        perform(d.op, d.owner, d.key);
}

lock_map embedded_lock_table::locks_of(node_id owner) const {
    lock_map out;
    for (const auto& [key, r] : resources_)
        if (const auto mine = r.locks.find(keeper_of(owner)); mine != r.locks.end())
            out[key] = {mine->second.granted, mine->second.wanted};
    return out;
}

std::multimap<node_id, lock_mode> embedded_lock_table::holders(lock_key key) const {
    std::multimap<node_id, lock_mode> out;
    if (const auto at = resources_.find(key); at != resources_.end())
        for (const auto& [keeper, l] : at->second.locks)
            if (l.granted)
                out.emplace(keeper.node, *l.granted);
    return out;
}

std::string embedded_lock_table::dump() const {
    std::string out = "embedded lock table";
    if (frozen()) {
        out += ", frozen for";
        for (const node_id n : frozen_for_)
            out += n ? " node " + std::to_string(n.value) : " an unnamed node";
    }
    out += "\n";
    for (const auto& [key, r] : resources_) {
        if (key == grace_lock && r.has_value)
            out += r.value_valid ? "grace value valid\n" : "grace value invalid\n";
        for (const auto& [keeper, l] : r.locks) {
            out += name_of(key) + " node " + std::to_string(keeper.node.value) + " " +
                   (l.granted ? mode_name(*l.granted) : "-");
            if (l.wanted)
                out += std::string(" wants ") + mode_name(*l.wanted) +
                       (l.started ? "" : " (not started, frozen)");
            if (keeper != keeper_of(keeper.node))
                out += " (its keeper is dead)";
            out += "\n";
        }
    }
    return out;
}

std::vector<lock_event> embedded_lock_table::take_events() {
    return std::exchange(events_, {});
}

} // namespace grace
