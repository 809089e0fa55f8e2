// SPDX-License-Identifier: GPL-2.0-or-later
// record_map against std::map: drawn operations, copies that share, and what a million costs.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "grace/record_map.hh"

#include <algorithm>
#include <doctest/doctest.h>
#include <random>
#include <thread>

using namespace grace;

namespace {

using naive = std::map<std::string, record>;

void check_same(const record_map& m, const naive& n) {
    REQUIRE(m.size() == n.size());
    REQUIRE(m.empty() == n.empty());
    auto want = n.begin();
    for (const auto& [client, rec] : m) {
        REQUIRE(client == want->first);
        REQUIRE(rec == want->second);
        ++want;
    }
}

struct drawn {
    std::mt19937_64 random;
    std::uint64_t upto(std::uint64_t n) { return random() % n; }
    std::string client() {
        // Few enough to meet again, of every length, opaque bytes among them.
        const auto n = upto(600);
        return std::string(n % 7 == 0 ? 1000 : n % 11, static_cast<char>(n % 256)) +
               std::to_string(n);
    }
    record rec() { return {epoch{1 + upto(9)}, std::string(upto(3) == 0 ? 32 : 0, '\0')}; }
};

} // namespace

TEST_CASE("whatever is done to it, it has what a std::map would have, and so do its copies") {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        CAPTURE(seed);
        drawn d{std::mt19937_64(seed)};
        record_map m;
        naive n;
        std::vector<std::pair<record_map, naive>> copies;
        for (int step = 0; step < 3000; ++step) {
            const std::string c = d.client();
            switch (d.upto(200)) {
            case 0: {
                const epoch limit{d.upto(10)};
                m.lower(limit);
                for (auto& [client, rec] : n)
                    rec.at = std::min(rec.at, limit);
                break;
            }
            case 1: {
                const epoch at{1 + d.upto(9)};
                m.renew(at);
                for (auto& [client, rec] : n)
                    rec.at = at;
                break;
            }
            case 9: {
                const epoch limit{d.upto(10)}, others{1 + d.upto(9)}, later{1 + d.upto(9)};
                m.part(limit, others, later);
                for (auto& [client, rec] : n)
                    rec.at = rec.at > limit ? later : std::min(rec.at, others);
                break;
            }
            case 2:
            case 3: {
                const epoch limit{d.upto(4)};
                const std::size_t gone =
                    std::erase_if(n, [&](const auto& e) { return e.second.at <= limit; });
                CHECK(m.purge(limit) == gone);
                break;
            }
            case 4:
            case 5:
                copies.emplace_back(m, n);
                if (copies.size() > 5)
                    copies.erase(copies.begin());
                break;
            case 6:
            case 7:
            case 8: {
                const epoch limit{d.upto(10)};
                CHECK(m.later_than(limit) ==
                      static_cast<std::size_t>(std::ranges::count_if(
                          n, [&](const auto& e) { return e.second.at > limit; })));
                break;
            }
            default:
                if (d.upto(4) == 0) {
                    CHECK(m.erase(c) == n.erase(c));
                } else {
                    const record r = d.rec();
                    m[c] = r;
                    n[c] = r;
                }
            }
            CHECK(m.contains(c) == n.contains(c));
            if (n.contains(c))
                CHECK(m.at(c) == n.at(c));
            const auto behind = m.upper_bound(c);
            const auto want = n.upper_bound(c);
            REQUIRE((behind == m.end()) == (want == n.end()));
            if (want != n.end())
                CHECK(behind->first == want->first);
        }
        check_same(m, n);
        for (const auto& [copy, was] : copies)
            check_same(copy, was);
        if (!copies.empty()) {
            record_map anew; // equal means equal content, however it is packed
            for (const auto& [client, rec] : copies.back().second)
                anew.put(client, rec);
            CHECK(anew == copies.back().first);
            anew.put("one more", {});
            CHECK_FALSE(anew == copies.back().first);
        }
    }
}

TEST_CASE("a copy may be read and freed by another thread while this one goes on") {
    record_map m;
    for (int i = 0; i < 5000; ++i)
        m.put(std::to_string(i), {epoch{1}, ""});
    for (int round = 0; round < 20; ++round) {
        std::size_t seen = 0;
        std::thread reader([copy = m, &seen]() mutable {
            for (const auto& [client, rec] : copy)
                seen += client.size() + rec.at.value;
            copy = {};
        });
        for (int i = 0; i < 5000; i += 3)
            m.put(std::to_string(i), {epoch{2 + static_cast<std::uint64_t>(round)}, "h"});
        reader.join();
        CHECK(seen > 0);
    }
    CHECK(m.size() == 5000);
}

TEST_CASE("what is beyond the packing's numbers is refused, not cut off") {
    record_map m;
    CHECK_THROWS(m.put(std::string(70'000, 'x'), {}));
    CHECK_THROWS(m.put("x", {epoch{1}, std::string(300, 'h')}));
    CHECK(m.empty());
    CHECK_THROWS_AS((void)m.at("x"), std::out_of_range);
}
