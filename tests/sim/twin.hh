// SPDX-License-Identifier: GPL-2.0-or-later
// The naive twin: what one machine that sees the whole world would say of the grace. It is told
// what happens to servers and clients, and once, by the first database that does it, that a purge
// has begun. From that alone it knows who NEEDs, when gates may open, and which records survive.
// It knows no message, no membership, no lock and no daemon.
//
// What nobody outside can know, it does not claim: a record that was asked for and never
// acknowledged may be there or not, and so may one whose purge was cut short by a crash.
#pragma once

#include "grace/types.hh"

#include <algorithm>

namespace grace::sim {

enum class on_record : std::uint8_t { no, maybe, yes };

class twin {
public:
    struct client {
        on_record rec = on_record::no;
        std::uint64_t lost = 0;    // with this loss of its server; 0: it has lost nothing
        bool reclaimed = false;    // since then
        bool may_have = false;     // it asked to, and was not answered
        bool unanswered = false;   // its Create was not; the daemon may say it whenever it can
        bool had = false;          // it did in this grace, and then its server was lost again
        bool being_purged = false; // not there any more once a gate is open
        bool owed() const { return lost && rec == on_record::yes && !reclaimed && !may_have; }
    };
    struct server {
        std::map<std::string, client> clients;
        bool need = false;
        bool by_hand = false;     // its nfsd went without a word: other nodes hear of it later
        start_count start_before; // … by a START with a later number than this
        std::uint64_t losses = 0;
        std::map<std::uint64_t, std::set<node_id>> dropped; // by loss: where it has been noticed
        instant lost_at = 0, opened = 0, opened_before = 0; // reclaim, since it was lost
        instant lifted_at = 0;   // an operator had enough, or its nfsd was told that nobody may
        instant going_since = 0; // its nfsd ends, and is kept from dropping its locks
        void notice(node_id n) {
            if (need)
                dropped[losses].insert(n);
        }
    };
    std::map<std::string, server> servers;

    // `since`: when its node fell silent, or its nfsd began to end. Who gives the clients of a
    // server up after that gives up what they lose when that node is fenced.
    void lost(const std::string& s, instant now, instant since) {
        server& v = servers[s];
        ++v.losses;
        if (v.going_since != 0)
            since = std::min(since, v.going_since);
        v.going_since = 0;
        if (!v.need) {
            v.dropped.clear();
            v.opened_before = 0;
            v.lost_at = now;
        }
        for (auto& [name, c] : v.clients) {
            if (c.rec == on_record::no)
                continue;
            c.had = v.need && (c.had || c.reclaimed || c.may_have);
            if (!c.owed())
                c.lost = v.losses;
            c.reclaimed = c.may_have = false;
        }
        v.need = std::ranges::any_of(v.clients, [](auto& e) { return e.second.lost != 0; });
        v.by_hand = false;
        if (v.lifted_at < since)
            v.lifted_at = 0;
        v.opened_before = std::max(v.opened_before, v.opened);
        v.opened = 0;
    }
    void asked(const std::string& s, const std::string& c, bool reclaim) {
        client& k = servers[s].clients[c];
        if (k.rec == on_record::no)
            k.rec = on_record::maybe;
        k.being_purged = false;
        k.may_have = k.may_have || reclaim;
        k.unanswered = k.unanswered || !reclaim;
        if (!reclaim)
            k.lost = 0; // an open gate let it in: it begins anew
    }
    // v0, of one that may be on record: it begins nothing anew. What waits for reclaim to open, and
    // is not answered then, may have been recorded or not.
    void checked(const std::string& s, const std::string& c, bool may_reclaim) {
        client& k = servers[s].clients[c];
        k.being_purged = false;
        k.may_have = k.may_have || may_reclaim;
        k.unanswered = true;
    }
    void acknowledged(const std::string& s, const std::string& c, bool reclaim) {
        client& k = servers[s].clients[c];
        k.rec = on_record::yes;
        k.unanswered = false;
        k.reclaimed = k.reclaimed || reclaim;
    }
    void asked_remove(const std::string& s, const std::string& c) {
        client& k = servers[s].clients[c];
        if (k.rec == on_record::yes)
            k.rec = on_record::maybe;
    }
    void removed(const std::string& s, const std::string& c) { servers[s].clients[c] = {}; }
    // An operator may give up what is about to be lost.
    static bool given_up(const server& v) {
        return v.going_since != 0 && v.lifted_at >= v.going_since;
    }
    void purged(const std::string& s) {
        server& v = servers[s];
        for (auto& [name, c] : v.clients) {
            if (c.rec == on_record::no || (!c.lost && !given_up(v)) || c.reclaimed)
                continue;
            // Lost again between PURGE and its START it stays, after that START it goes.
            c.rec = on_record::maybe;
            c.being_purged = !c.may_have && !c.had && !c.unanswered;
            c.had = false;
        }
    }
    // A purge that was said when a ring broke, and no other is quorate: the database that the group
    // is founded from has it, or has not.
    void purged_or_not(const std::string& s) {
        for (auto& [name, c] : servers[s].clients)
            if (c.rec == on_record::yes && c.lost && !c.reclaimed)
                c.rec = on_record::maybe;
    }
    // Somebody whose lock was lost has neither got it back nor been purged: no gate may be open
    // where that has been noticed (anywhere: node none).
    static const std::string* owed(const server& v, node_id where = {}) {
        if (!v.need)
            return nullptr;
        for (auto& [name, c] : v.clients)
            if (c.owed()) {
                auto d = v.dropped.find(c.lost);
                if (!where || (d != v.dropped.end() && d->second.contains(where)))
                    return &name;
            }
        return nullptr;
    }
    // A gate opened where the last loss had been noticed: that grace is over.
    static bool may_be_over(const server& v, node_id where) {
        auto d = v.dropped.find(v.losses);
        return v.need && d != v.dropped.end() && d->second.contains(where) && !owed(v);
    }
    void over(server& v) {
        v.need = v.by_hand = false;
        for (auto& [name, c] : v.clients) {
            if (c.being_purged)
                c.rec = on_record::no;
            c.lost = 0;
            c.being_purged = c.reclaimed = c.may_have = c.had = false;
        }
    }
};

} // namespace grace::sim
