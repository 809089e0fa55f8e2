// SPDX-License-Identifier: GPL-2.0-or-later
// The embedded lock table against the DLM's rules (fs/dlm/lock.c) and the keeper's.
#include "adapters/embedded_locks.hh"

#include <doctest/doctest.h>

#include <algorithm>

using namespace grace;
using what = lock_event::what;

namespace {

constexpr node_id n1{1}, n2{2}, n3{3};
constexpr auto nl = lock_mode::nl, pr = lock_mode::pr, cw = lock_mode::cw, ex = lock_mode::ex;

lvb_bytes value_of(std::uint8_t b) {
    lvb_bytes v;
    v.fill(b);
    return v;
}

// "2:CW" granted, "2:refused 16", "2:cancelled", "1:blocking CW"; with the resource if not grace.
std::string text(const std::vector<lock_event>& events) {
    std::string out;
    for (const auto& e : events) {
        out += out.empty() ? "" : " ";
        if (e.key != grace_lock)
            out += name_of(e.key) + "/";
        out += std::to_string(e.owner.value) + ":";
        switch (e.kind) {
        case what::granted:
            out += mode_name(e.mode);
            break;
        case what::refused:
            out += "refused " + std::to_string(e.code);
            break;
        case what::cancelled:
            out += "cancelled";
            break;
        case what::blocking:
            out += std::string("blocking ") + mode_name(e.mode);
            break;
        }
    }
    return out;
}

struct fixture {
    embedded_lock_table table;
    std::string convert(node_id n, lock_mode m, const lvb_bytes* v = nullptr) {
        table.convert(n, grace_lock, m, v);
        return news();
    }
    std::string news() { return text(table.take_events()); }
    lock_event one() {
        const auto all = table.take_events();
        REQUIRE(all.size() == 1);
        return all[0];
    }
};

} // namespace

TEST_CASE("modes: CW proves that no PR is left, EX that nobody has anything") {
    for (const auto a : {nl, pr, cw, ex})
        for (const auto b : {nl, pr, cw, ex}) {
            CAPTURE(mode_name(a));
            CAPTURE(mode_name(b));
            fixture f;
            f.convert(n1, a);
            const bool both = f.convert(n2, b) == std::string("2:") + mode_name(b);
            CHECK(both == compatible(a, b));
            CHECK(compatible(a, b) == compatible(b, a));
            CHECK(both == (a == nl || b == nl || (a == b && a != ex)));
        }
}

TEST_CASE_FIXTURE(fixture, "a holder in the way is told once, and its way down grants") {
    CHECK(convert(n1, pr) == "1:PR");
    CHECK(convert(n2, cw) == "1:blocking CW");
    CHECK(convert(n3, cw) == "");
    CHECK(convert(n1, nl) == "1:NL 2:CW 3:CW");
    CHECK(convert(n1, pr) == "2:blocking PR 3:blocking PR");
}

TEST_CASE_FIXTURE(fixture, "conversions come first, in order; one that is compatible overtakes") {
    convert(n1, cw);
    CHECK(convert(n2, ex) == "1:blocking EX");
    CHECK(convert(n3, cw) == "3:CW 3:blocking EX"); // overtakes: no DLM_LKF_QUECVT
    CHECK(convert(n3, nl) == "3:NL");
    CHECK(convert(n3, pr) == ""); // behind the EX
    CHECK(convert(n1, nl) == "1:NL 2:EX 2:blocking PR");
    CHECK(convert(n2, nl) == "2:NL 3:PR");
}

TEST_CASE_FIXTURE(fixture, "up from NL only, one request at a time") {
    convert(n1, pr);
    CHECK(convert(n1, cw) == "1:refused " + std::to_string(EINVAL));
    CHECK(convert(n1, ex) == "1:refused " + std::to_string(EINVAL));
    CHECK(convert(n1, pr) == "1:PR");
    convert(n2, cw);
    CHECK(convert(n2, nl) == "2:refused " + std::to_string(EBUSY));
    CHECK(table.locks_of(n2)[grace_lock] == lock_status{nl, cw}); // the first request goes on
    CHECK(convert(n1, nl) == "1:NL 2:CW");
    table.convert(n1, {lock_resource::alive, {}}, ex, nullptr);
    CHECK(one().code == EINVAL);
}

TEST_CASE_FIXTURE(fixture, "EX goes down to any mode in place") {
    convert(n1, ex);
    convert(n2, pr);
    CHECK(convert(n1, pr) == "1:PR 2:PR");
}

TEST_CASE_FIXTURE(fixture, "cancel: before the grant it answers, after it it is void") {
    convert(n1, pr);
    convert(n2, cw);
    table.cancel(n2, grace_lock);
    CHECK(news() == "2:cancelled");
    CHECK(table.locks_of(n2)[grace_lock] == lock_status{nl, {}}); // the lock stays, in NL
    convert(n2, cw);
    convert(n1, nl);
    table.cancel(n2, grace_lock);
    CHECK(news() == "");
    CHECK(table.holders(grace_lock).find(n2)->second == cw);
}

TEST_CASE_FIXTURE(fixture, "cancel of the first in the queue lets the next one in") {
    convert(n1, cw);
    convert(n2, ex);
    convert(n3, nl);
    table.convert(n3, grace_lock, ex, nullptr);
    table.cancel(n2, grace_lock);
    convert(n1, nl);
    CHECK(table.holders(grace_lock).find(n3)->second == ex);
}

TEST_CASE_FIXTURE(fixture, "alive: the probe waits for the fencing, and leaves nothing behind") {
    table.convert(n1, alive_lock(n1), ex, nullptr);
    table.convert(n2, alive_lock(n1), pr, nullptr);
    CHECK(news() == "alive.1/1:EX alive.1/1:blocking PR");
    table.freeze(n1);
    table.convert(n2, grace_lock, cw, nullptr);
    CHECK(news() == "");
    table.fenced(n1);
    CHECK(news() == "alive.1/2:PR 2:CW");
    table.convert(n2, alive_lock(n1), nl, nullptr);
    CHECK(news() == "alive.1/2:NL");
    CHECK(table.locks_of(n2).count(alive_lock(n1)) == 0);
    CHECK(table.holders(alive_lock(n1)).empty());
}

TEST_CASE_FIXTURE(fixture, "alive: the returned node waits behind an older probe") {
    // Problem scenario: node 1 dies and is back before node 2's probe is granted. If node 1's new
    // EX came first, node 2 would wait for a proof that it can never have.
    table.convert(n1, alive_lock(n1), ex, nullptr);
    table.convert(n2, alive_lock(n1), pr, nullptr);
    table.convert(n3, alive_lock(n1), pr, nullptr);
    news();
    table.freeze(n1);
    table.fenced(n1);
    table.convert(n1, alive_lock(n1), ex, nullptr);
    CHECK(news() == "alive.1/2:PR alive.1/3:PR alive.1/2:blocking EX alive.1/3:blocking EX");
    table.convert(n2, alive_lock(n1), nl, nullptr);
    table.convert(n3, alive_lock(n1), nl, nullptr);
    CHECK(news() == "alive.1/2:NL alive.1/3:NL alive.1/1:EX");
}

TEST_CASE_FIXTURE(fixture, "alive: a cancelled probe is no lock; a mode of nothing is NL at once") {
    table.convert(n1, alive_lock(n1), ex, nullptr);
    table.convert(n2, alive_lock(n1), pr, nullptr);
    table.cancel(n2, alive_lock(n1));
    CHECK(news() == "alive.1/1:EX alive.1/1:blocking PR alive.1/2:cancelled");
    CHECK(table.locks_of(n2).empty());
    table.convert(n2, alive_lock(n1), nl, nullptr);
    CHECK(news() == "alive.1/2:NL");
    CHECK(table.locks_of(n2).empty());
}

TEST_CASE_FIXTURE(fixture, "frozen: nothing is granted, not even a way down; the order is kept") {
    convert(n1, pr);
    convert(n2, cw);
    table.freeze();
    CHECK(convert(n1, nl) == "");
    CHECK(table.locks_of(n1)[grace_lock] == lock_status{pr, nl});
    CHECK(convert(n1, nl) == "1:refused " + std::to_string(EBUSY));
    CHECK(convert(n3, pr) == "");
    table.cancel(n3, grace_lock);
    CHECK(news() == "");
    table.thaw();
    CHECK(news() == "1:NL 2:CW 2:blocking PR 3:cancelled");
}

TEST_CASE_FIXTURE(fixture, "two nodes die: grants go on when both are fenced") {
    convert(n1, pr);
    convert(n2, pr);
    convert(n3, cw);
    news();
    table.freeze(n1);
    table.freeze(n2);
    table.fenced(n1);
    CHECK(table.frozen());
    CHECK(news() == "");
    table.fenced(n2);
    CHECK(news() == "3:CW");
    CHECK_FALSE(table.frozen());
}

TEST_CASE_FIXTURE(fixture, "what a dead node had asked for while frozen is not done") {
    convert(n1, pr);
    table.freeze(n2);
    convert(n2, cw);
    table.fenced(n2);
    CHECK(convert(n1, nl) == "1:NL");
    CHECK(table.locks_of(n2).empty());
}

TEST_CASE_FIXTURE(fixture, "the value block: written on the way down from EX, read on the way up") {
    table.convert(n1, grace_lock, pr, nullptr);
    auto e = one();
    CHECK(e.value_valid); // nobody wrote one: empty without a flag
    CHECK(e.value == lvb_bytes{});
    convert(n1, nl);
    convert(n1, ex);
    const auto seven = value_of(7), nine = value_of(9);
    table.convert(n1, grace_lock, pr, &seven);
    CHECK_FALSE(one().value_valid); // a way down reads nothing
    table.convert(n2, grace_lock, pr, nullptr);
    CHECK(one().value == seven);
    table.convert(n2, grace_lock, nl, &nine); // only EX writes
    one();
    table.convert(n3, grace_lock, pr, nullptr);
    CHECK(one().value == seven);
}

TEST_CASE_FIXTURE(fixture,
                  "the value block is invalid when a holder of EX died, until the next writer") {
    const auto seven = value_of(7);
    convert(n1, ex);
    convert(n1, nl, &seven);
    convert(n2, ex);
    convert(n1, pr);
    SUBCASE("its node") {
        table.freeze(n2);
        table.fenced(n2);
    }
    SUBCASE("its keeper") {
        table.keeper_died(n2);
    }
    auto e = one();
    CHECK(e.mode == pr);
    CHECK_FALSE(e.value_valid);
    CHECK(e.value == lvb_bytes{});
    convert(n1, nl);
    convert(n1, ex);
    convert(n1, nl, &seven);
    table.convert(n3, grace_lock, pr, nullptr);
    CHECK(one().value == seven);
}

TEST_CASE_FIXTURE(fixture,
                  "a dead holder of less than EX leaves the value; unless it was the master") {
    const auto seven = value_of(7);
    convert(n1, ex);
    convert(n1, nl, &seven);
    convert(n2, pr);
    SUBCASE("") {
        table.fenced(n2);
        table.convert(n1, grace_lock, pr, nullptr);
        CHECK(one().value_valid);
    }
    SUBCASE("the master, nobody else above NL") {
        table.fenced(n2, true);
        table.convert(n1, grace_lock, pr, nullptr);
        CHECK_FALSE(one().value_valid);
    }
    SUBCASE("the master, somebody else above NL") {
        convert(n3, pr);
        table.fenced(n2, true);
        table.convert(n1, grace_lock, pr, nullptr);
        CHECK(one().value_valid);
    }
}

TEST_CASE_FIXTURE(fixture, "the value block goes with the last lock, without a flag") {
    const auto seven = value_of(7);
    convert(n1, ex);
    convert(n1, nl, &seven);
    table.keeper_died(n1);
    table.convert(n1, grace_lock, pr, nullptr);
    const auto e = one();
    CHECK(e.value_valid);
    CHECK(e.value == lvb_bytes{});
}

TEST_CASE_FIXTURE(fixture, "a keeper that dies frees at once; its successor's locks are its own") {
    convert(n1, pr);
    convert(n2, cw);
    news();
    SUBCASE("not frozen") {
        table.keeper_died(n1);
        CHECK(news() == "2:CW");
        CHECK(table.locks_of(n1).empty());
    }
    SUBCASE("frozen: the old locks are still there, in the way of the new ones") {
        table.freeze(n3);
        table.keeper_died(n1);
        CHECK(table.locks_of(n1).empty());
        CHECK(table.holders(grace_lock).count(n1) == 1);
        CHECK(convert(n1, ex) == "");
        table.fenced(n3);
        CHECK(news() == "2:CW 2:blocking EX");
    }
    SUBCASE("frozen, and then its node dies, too") {
        table.freeze(n3);
        table.keeper_died(n1);
        table.freeze(n1);
        table.fenced(n1);
        CHECK(news() == "");
        table.fenced(n3);
        CHECK(news() == "2:CW");
    }
}

TEST_CASE(
    "whatever happens, what is held together is compatible, and each request is answered once") {
    // A small random walk; the simulator does the big ones. The seed is the loop's variable.
    for (unsigned seed = 1; seed <= 300; ++seed) {
        CAPTURE(seed);
        std::uint32_t x = seed * 2654435761u;
        const auto draw = [&](std::uint32_t n) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            return x % n;
        };
        embedded_lock_table t;
        std::map<std::pair<node_id, lock_key>, int> open;
        const auto settle = [&] {
            for (const auto& e : t.take_events()) {
                if (e.kind == what::blocking || (e.kind == what::refused))
                    continue;
                auto& count = open[{e.owner, e.key}];
                CHECK(count == 1);
                count = 0;
            }
        };
        for (int i = 0; i < 400; ++i) {
            const node_id n{1 + draw(4)};
            const lock_key k = draw(3) ? grace_lock : alive_lock(node_id{1 + draw(4)});
            switch (draw(12)) {
            case 0:
                t.cancel(n, k);
                break;
            case 1:
                t.freeze(draw(2) ? n : node_id{});
                break;
            case 2:
                t.thaw();
                break;
            case 3:
            case 4:
                draw(2) ? t.fenced(n, draw(2)) : t.keeper_died(n);
                for (auto& [who, count] : open)
                    if (who.first == n)
                        count = 0;
                break;
            default: {
                const auto m = static_cast<lock_mode>(draw(4));
                const auto now = t.locks_of(n);
                const auto at = now.find(k);
                const bool allowed =
                    check_conversion(at == now.end() ? lock_status{} : at->second, m) == 0;
                if (allowed)
                    open[{n, k}] = 1;
                const auto v = value_of(static_cast<std::uint8_t>(i));
                t.convert(n, k, m, draw(2) ? &v : nullptr);
            }
            }
            settle();
            for (const lock_key key :
                 {grace_lock, alive_lock(n1), alive_lock(n2), alive_lock(n3)}) {
                const auto held = t.holders(key);
                for (auto a = held.begin(); a != held.end(); ++a)
                    for (auto b = std::next(a); b != held.end(); ++b)
                        CHECK(compatible(a->second, b->second));
            }
        }
        // Everything goes on once nothing is frozen and everybody lets go.
        t.thaw();
        settle();
        for (int round = 0; round < 8; ++round)
            for (std::uint32_t n = 1; n <= 4; ++n)
                for (const auto& [key, s] : t.locks_of(node_id{n})) {
                    if (s.requested)
                        continue;
                    if (s.held.value_or(nl) != nl) {
                        open[{node_id{n}, key}] = 1;
                        t.convert(node_id{n}, key, nl, nullptr);
                    }
                    settle();
                }
        for (const auto& [who, count] : open)
            CHECK(count == 0);
    }
}
