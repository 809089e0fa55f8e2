// SPDX-License-Identifier: LGPL-2.1-or-later
// Any value of the core as bytes and back, for recordings: the machine with all it knows, inputs,
// effects. Goes by a type's members, so that a member nobody thought of does not compile (the
// structured binding in `tie` has another length) instead of being lost in a recording.
//
// Not for messages: their layout is a promise to other versions (wire.cc); this one is not.
#pragma once

#include "codec.hh"
#include "grace/fsm.hh"

#include <utility>

namespace grace {

// How many members a struct has. A new struct without a line here does not compile.
template <typename T>
inline constexpr int members = -1;

template <>
inline constexpr int members<record> = 2;
template <>
inline constexpr int members<view_id> = 2;
template <>
inline constexpr int members<node_state> = 13;
template <>
inline constexpr int members<server_state> = 8;
template <>
inline constexpr int members<state> = 14;
template <>
inline constexpr int members<stored_server> = 6;
template <>
inline constexpr int members<stored_meta> = 11;
template <>
inline constexpr int members<parameters> = 13;
template <>
inline constexpr int members<gate_local> = 10;
template <>
inline constexpr int members<instance> = 16;
template <>
inline constexpr int members<lock_local> = 10;
template <>
inline constexpr int members<msg::record_change> = 4;
template <>
inline constexpr int members<msg::hello> = 13;
template <>
inline constexpr int members<tracker_port::known_client> = 2;

template <>
inline constexpr int members<store_op::put_record> = 3;
template <>
inline constexpr int members<store_op::remove_record> = 2;
template <>
inline constexpr int members<store_op::lower> = 2;
template <>
inline constexpr int members<store_op::renew> = 2;
template <>
inline constexpr int members<store_op::purge> = 2;
template <>
inline constexpr int members<store_op::replace_all> = 2;
template <>
inline constexpr int members<store_op::put_meta> = 1;

template <>
inline constexpr int members<wire::snapshot_writer> = 9;
template <>
inline constexpr int members<wire::difference> = 3;
template <>
inline constexpr int members<wire::snapshot_reader> = 6;
template <>
inline constexpr int members<input::deliver> = 2;
template <>
inline constexpr int members<input::departed> = 2;
template <>
inline constexpr int members<input::confchg> = 3;
template <>
inline constexpr int members<input::ring> = 1;
template <>
inline constexpr int members<input::quorum> = 5;
template <>
inline constexpr int members<input::dlm_members> = 2;
template <>
inline constexpr int members<input::locks_known> = 4;
template <>
inline constexpr int members<input::lock_granted> = 5;
template <>
inline constexpr int members<input::lock_refused> = 3;
template <>
inline constexpr int members<input::lock_cancelled> = 2;
template <>
inline constexpr int members<input::locks_lost> = 0;
template <>
inline constexpr int members<input::durable> = 1;
template <>
inline constexpr int members<input::store_failed> = 1;
template <>
inline constexpr int members<input::store_opened> = 1;
template <>
inline constexpr int members<input::kernel_attached> = 3;
template <>
inline constexpr int members<input::kernel_acked> = 1;
template <>
inline constexpr int members<input::kernel_refused> = 3;
template <>
inline constexpr int members<input::kernel_tripped> = 1;
template <>
inline constexpr int members<input::kernel_closed> = 0;
template <>
inline constexpr int members<input::kernel_lost> = 1;
template <>
inline constexpr int members<input::create> = 4;
template <>
inline constexpr int members<input::remove> = 3;
template <>
inline constexpr int members<input::check> = 4;
template <>
inline constexpr int members<input::grace_start> = 2;
template <>
inline constexpr int members<input::grace_done> = 2;
template <>
inline constexpr int members<input::instance_known> = 5;
template <>
inline constexpr int members<input::nfsd_ended> = 1;
template <>
inline constexpr int members<input::instance_gone> = 1;
template <>
inline constexpr int members<input::serve> = 2;
template <>
inline constexpr int members<input::stop> = 2;
template <>
inline constexpr int members<input::released> = 2;
template <>
inline constexpr int members<input::start> = 2;
template <>
inline constexpr int members<input::lift> = 2;
template <>
inline constexpr int members<input::extend> = 3;
template <>
inline constexpr int members<input::hold> = 2;
template <>
inline constexpr int members<input::fence_news> = 2;
template <>
inline constexpr int members<input::bypass> = 3;
template <>
inline constexpr int members<input::wait> = 2;
template <>
inline constexpr int members<input::forget> = 1;
template <>
inline constexpr int members<input::tick> = 0;

template <>
inline constexpr int members<effect::close_gate> = 2;
template <>
inline constexpr int members<effect::persist> = 2;
template <>
inline constexpr int members<effect::send> = 1;
template <>
inline constexpr int members<effect::query_dlm_members> = 0;
template <>
inline constexpr int members<effect::leave_group> = 0;
template <>
inline constexpr int members<effect::join_group> = 0;
template <>
inline constexpr int members<effect::convert> = 5;
template <>
inline constexpr int members<effect::cancel> = 2;
template <>
inline constexpr int members<effect::set_reclaim> = 4;
template <>
inline constexpr int members<effect::extend_permit> = 1;
template <>
inline constexpr int members<effect::open_gate> = 3;
template <>
inline constexpr int members<effect::end_nfsd_grace> = 1;
template <>
inline constexpr int members<effect::set_bypass> = 1;
template <>
inline constexpr int members<effect::answer_upcall> = 2;
template <>
inline constexpr int members<effect::answer_grace_start> = 2;
template <>
inline constexpr int members<effect::answer_request> = 3;
template <>
inline constexpr int members<effect::fence> = 2;
template <>
inline constexpr int members<effect::tell> = 2;

// The last value of each enum: a recording that names another one is damaged.
template <typename E>
inline constexpr E last_of = E::there_is_no_last_of_this_enum;
template <>
inline constexpr lock_mode last_of<lock_mode> = lock_mode::ex;
template <>
inline constexpr phase last_of<phase> = phase::lifting;
template <>
inline constexpr lock_resource last_of<lock_resource> = lock_resource::alive;
template <>
inline constexpr reclaim_state last_of<reclaim_state> = reclaim_state::closing;
template <>
inline constexpr msg::outcome last_of<msg::outcome> = msg::outcome::intact;
template <>
inline constexpr input::left_reason last_of<input::left_reason> = input::left_reason::node;

// A friend of what has private members.
struct archive {
    template <typename T>
    static auto tie(T& v) {
        using U = std::remove_const_t<T>;
        if constexpr (std::is_same_v<U, permit>) {
            auto& [a, b, c, d, e, f, g] = v;
            return std::tie(a, b, c, d, e, f, g);
        } else if constexpr (std::is_same_v<U, fsm>) {
            auto& [params, state, synced, synced_in, has_database, stored_view, stored_quorate_view, in_group,
                   members_, ring, decided, undecided, loss_unjudged, ring_pending, quorum,
                   hello_number, hello_sent, heard_at, hellos, buffering, buffer, buffered_bytes,
                   incoming, incoming_parts, incoming_from, outgoing, pasts, pasts_weight, wants_all, said, commits, committing,
                   durable_here, view_commit, quorate_commit, committed, store_failed, gate, lock, instances,
                   held, extensions, permit, permit_sent, dlm_lost, returned, gone, joined, barrier, barrier_trips,
                   barrier_round, daemonless_since, holds_up_since, orphan_since, fence_asked,
                   records, batch, grace_starts, checks, admitted, requests, phase, phase_since,
                   now, deadline, out] = v;
            (void)out; // taken before each step
            return std::tie(
                params, state, synced, synced_in, has_database, stored_view, stored_quorate_view, in_group,
                members_, ring, decided, undecided, loss_unjudged, ring_pending, quorum,
                hello_number, hello_sent, heard_at, hellos, buffering, buffer, buffered_bytes,
                incoming, incoming_parts, incoming_from, outgoing, pasts, pasts_weight, wants_all, said, commits, committing,
                durable_here, view_commit, quorate_commit, committed, store_failed, gate, lock, instances, held, extensions, permit,
                permit_sent, dlm_lost, returned, gone, joined, barrier, barrier_trips, barrier_round,
                daemonless_since, holds_up_since, orphan_since, fence_asked, records, batch,
                grace_starts, checks, admitted, requests, phase, phase_since, now, deadline);
        } else if constexpr (std::is_same_v<U, fsm::past>) {
            auto& [a, b, c] = v;
            return std::tie(a, b, c);
        } else if constexpr (std::is_same_v<U, fsm::pending_record>) {
            auto& [a, b, c, d] = v;
            return std::tie(a, b, c, d);
        } else if constexpr (std::is_same_v<U, fsm::request>) {
            auto& [a, b, c, d, e, f, g, h, i, j] = v;
            return std::tie(a, b, c, d, e, f, g, h, i, j);
        } else if constexpr (std::is_same_v<U, fsm::extension>) {
            auto& [a, b] = v;
            return std::tie(a, b);
        } else if constexpr (std::is_same_v<U, fsm::departure>) {
            auto& [a, b, c] = v;
            return std::tie(a, b, c);
        } else if constexpr (std::is_same_v<U, fsm::outgoing_snapshot>) {
            auto& [a, b, c, d] = v;
            return std::tie(a, b, c, d);
        } else if constexpr (std::is_same_v<U, fsm::held_check>) {
            auto& [a, b, c, d] = v;
            return std::tie(a, b, c, d);
        } else if constexpr (std::is_same_v<U, fsm::held_grace_start>) {
            auto& [a, b, c, d] = v;
            return std::tie(a, b, c, d);
        } else {
            constexpr int n = members<U>;
            static_assert(n >= 0 && n <= 16, "a struct that archive.hh does not know");
            if constexpr (n == 0) {
                static_assert(std::is_empty_v<U>);
                return std::tie();
            } else if constexpr (n == 1) {
                auto& [a] = v;
                return std::tie(a);
            } else if constexpr (n == 2) {
                auto& [a, b] = v;
                return std::tie(a, b);
            } else if constexpr (n == 3) {
                auto& [a, b, c] = v;
                return std::tie(a, b, c);
            } else if constexpr (n == 4) {
                auto& [a, b, c, d] = v;
                return std::tie(a, b, c, d);
            } else if constexpr (n == 5) {
                auto& [a, b, c, d, e] = v;
                return std::tie(a, b, c, d, e);
            } else if constexpr (n == 6) {
                auto& [a, b, c, d, e, f] = v;
                return std::tie(a, b, c, d, e, f);
            } else if constexpr (n == 7) {
                auto& [a, b, c, d, e, f, g] = v;
                return std::tie(a, b, c, d, e, f, g);
            } else if constexpr (n == 8) {
                auto& [a, b, c, d, e, f, g, h] = v;
                return std::tie(a, b, c, d, e, f, g, h);
            } else if constexpr (n == 9) {
                auto& [a, b, c, d, e, f, g, h, i] = v;
                return std::tie(a, b, c, d, e, f, g, h, i);
            } else if constexpr (n == 10) {
                auto& [a, b, c, d, e, f, g, h, i, j] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j);
            } else if constexpr (n == 11) {
                auto& [a, b, c, d, e, f, g, h, i, j, k] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k);
            } else if constexpr (n == 12) {
                auto& [a, b, c, d, e, f, g, h, i, j, k, l] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
            } else if constexpr (n == 14) {
                auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o);
            } else if constexpr (n == 15) {
                auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p);
            } else if constexpr (n == 16) {
                auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q);
            } else {
                static_assert(n == 13);
                auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = v;
                return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m);
            }
        }
    }

    template <typename E>
    static constexpr E last() {
        if constexpr (std::is_same_v<E, fsm::said>)
            return E::start_take;
        else if constexpr (std::is_same_v<E, fsm::request_kind>)
            return E::wait;
        else if constexpr (std::is_same_v<E, fsm::pending_record::where>)
            return E::applied;
        else
            return last_of<E>;
    }

    // --- out ---

    template <typename T>
    static void put(wire::writer& w, const T& v) {
        if constexpr (std::is_integral_v<T> || std::is_enum_v<T>)
            w.put(v);
        else
            put_members(w, tie(v));
    }
    template <typename Tag, typename Int>
    static void put(wire::writer& w, tagged<Tag, Int> v) {
        w.put(v);
    }
    static void put(wire::writer& w, const std::string& s) { w.put(s); }
    static void put(wire::writer& w, const bytes& b) { w.put(std::span(b)); }
    static void put(wire::writer& w, const lvb_bytes& b) {
        w.out.insert(w.out.end(), b.begin(), b.end());
    }
    static void put(wire::writer& w, const envelope& e) { put(w, wire_bytes(e)); }
    template <typename T>
    static void put(wire::writer& w, const std::vector<T>& c) {
        put_all(w, c);
    }
    template <typename T>
    static void put(wire::writer& w, const std::deque<T>& c) {
        put_all(w, c);
    }
    template <typename T>
    static void put(wire::writer& w, const std::set<T>& c) {
        put_all(w, c);
    }
    template <typename K, typename V>
    static void put(wire::writer& w, const std::map<K, V>& c) {
        put_all(w, c);
    }
    static void put(wire::writer& w, const record_map& c) { put_all(w, c); }
    template <typename T>
    static void put(wire::writer& w, const std::optional<T>& v) {
        w.put(v.has_value());
        if (v)
            put(w, *v);
    }
    template <typename A, typename B>
    static void put(wire::writer& w, const std::pair<A, B>& p) {
        put(w, p.first);
        put(w, p.second);
    }
    template <typename... T>
    static void put(wire::writer& w, const std::tuple<T...>& t) {
        put_members(w, t);
    }
    template <typename... T>
    static void put(wire::writer& w, const std::variant<T...>& v) {
        w.put(static_cast<std::uint16_t>(v.index()));
        std::visit([&](const auto& x) { put(w, x); }, v);
    }

    // --- in ---

    template <typename T>
    static void get(wire::reader& r, T& v) {
        if constexpr (std::is_same_v<T, std::int64_t>) {
            r.get(v); // an instant or a duration: sums of a few must not overflow
            constexpr std::int64_t limit = std::int64_t{1} << 60;
            if (v > limit || v < -limit)
                r.fail();
        } else if constexpr (std::is_integral_v<T>) {
            r.get(v);
        } else if constexpr (std::is_enum_v<T>) {
            r.get(v, last<T>());
        } else {
            get_members(r, tie(v));
        }
    }
    template <typename Tag, typename Int>
    static void get(wire::reader& r, tagged<Tag, Int>& v) {
        r.get(v);
    }
    static void get(wire::reader& r, std::string& s) { r.get(s, r.left()); }
    static void get(wire::reader& r, bytes& b) { r.get(b, r.left()); }
    static void get(wire::reader& r, lvb_bytes& b) {
        for (std::uint8_t& x : b)
            r.get(x);
    }
    static void get(wire::reader& r, envelope& e) {
        bytes b;
        get(r, b);
        if (!from_wire(b, e))
            r.fail();
    }
    template <typename T>
    static void get(wire::reader& r, std::vector<T>& c) {
        get_all<T>(r, [&](T&& x) { c.push_back(std::move(x)); });
    }
    template <typename T>
    static void get(wire::reader& r, std::deque<T>& c) {
        get_all<T>(r, [&](T&& x) { c.push_back(std::move(x)); });
    }
    template <typename T>
    static void get(wire::reader& r, std::set<T>& c) {
        get_all<T>(r, [&](T&& x) { c.insert(std::move(x)); });
    }
    template <typename K, typename V>
    static void get(wire::reader& r, std::map<K, V>& c) {
        get_all<std::pair<K, V>>(r, [&](std::pair<K, V>&& x) { c.insert(std::move(x)); });
    }
    static void get(wire::reader& r, record_map& c) {
        get_all<std::pair<std::string, record>>(r, [&](std::pair<std::string, record>&& x) {
            if (x.first.size() > max_record_key || x.second.princhash.size() > max_princhash)
                r.fail();
            else
                c.put(x.first, x.second);
        });
    }
    template <typename T>
    static void get(wire::reader& r, std::optional<T>& v) {
        bool there = false;
        r.get(there);
        if (there)
            get(r, v.emplace());
    }
    template <typename A, typename B>
    static void get(wire::reader& r, std::pair<A, B>& p) {
        get(r, p.first);
        get(r, p.second);
    }
    template <typename... T>
    static void get(wire::reader& r, std::tuple<T...>& t) {
        get_members(r, t);
    }
    template <typename... T>
    static void get(wire::reader& r, std::variant<T...>& v) {
        std::uint16_t tag = 0;
        r.get(tag);
        if (!wire::choose(v, tag)) {
            r.fail();
            return;
        }
        std::visit([&](auto& x) { get(r, x); }, v);
    }

    static bool fits(const fsm&, std::size_t limit);

private:
    static bytes wire_bytes(const envelope&);       // recording.cc
    static bool from_wire(const bytes&, envelope&); // recording.cc
    template <typename Tuple>
    static void put_members(wire::writer& w, const Tuple& t) {
        std::apply([&](const auto&... x) { (put(w, x), ...); }, t);
    }
    template <typename Tuple>
    static void get_members(wire::reader& r, Tuple&& t) {
        std::apply([&](auto&... x) { (get(r, x), ...); }, t);
    }
    template <typename C>
    static void put_all(wire::writer& w, const C& c) {
        w.each(c, [&](const auto& x) { put(w, x); });
    }
    // Each entry has at least one byte, so a count beyond what is left is a lie.
    template <typename T, typename F>
    static void get_all(wire::reader& r, F keep) {
        r.each(r.left(), [&] {
            T x{};
            get(r, x);
            if (r.ok())
                keep(std::move(x));
        });
    }
};

} // namespace grace
