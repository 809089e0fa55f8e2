// SPDX-License-Identifier: GPL-2.0-or-later
// The invariants of docs/design.md (S1 to S9), looked at after every step, from what kernels,
// disks, lock tables and clients of the world see. S1 and S9 of the gates alone: world::check().
#pragma once

#include "sim/ledger.hh"
#include "sim/twin.hh"
#include "sim/world.hh"

namespace grace::sim {

class checker : public watcher {
public:
    explicit checker(world& w)
        : w_(w) {}

    std::string bad;                              // the first thing that went wrong
    std::function<void(const std::string&)> tell; // the story, for people
    twin truth;
    ledger locks;

    // What clients, programs and administrators do. False: it was refused.
    void client_calls(node&, const std::string& server, const std::string& client);
    void program_calls(node&, unsigned file);
    void storm(node&, const std::string& server, unsigned calls);
    void nfsd_gone(node&, const std::string& server, bool by_hand);
    bool stray(const node&, const std::string& server) const; // its nfsd runs there, and holds nothing
    void nfsd_asked(node& n, const std::string& server) { asked_at_[{n.id, server}] = w_.now; }
    bool upcalls_wait() const { return !waiting_.empty(); }
    std::string upcalls() const;
    void compare(); // with the twin, when all is quiet

    void stepped() override;
    void sent(node&, const bytes&) override;
    void ordered(node_id, const bytes&, std::uint64_t) override;
    void group_changed(std::uint64_t) override;
    void merged(node&) override;
    void committing(node&, const store_batch&) override;
    void locks_dropped(node&, const std::set<node_id>&) override;
    void daemon_died(node&) override;
    void died(node&) override;
    void booted(node&) override;
    void gate_opened(node&) override;
    void reclaim_opened(node&, const std::string&) override;
    void upcall_answered(node&, ticket, upcall_status) override;
    void nfsd_listed(node&, const std::string&) override;

    instant jumped = 0; // when a clock went forward last: deadlines by the world's clock are void

private:
    struct upcall {
        enum what : std::uint8_t { create, reclaim, remove, check } kind;
        std::string server, client;
        std::uint64_t losses; // of the server, when it was sent
    };
    void note(const std::string& what) {
        if (tell)
            tell(what);
    }
    void lost(const std::string& server, instant since);
    void fail(const std::string& what) {
        if (bad.empty())
            bad = what;
    }
    static start_count last_start(const node&, const std::string& server);
    bool recorded(const node&, const std::string& server, const std::string& client) const;
    void may_reclaim(node&, const std::string& server, const std::string& client);
    void taken_between(const node&, unsigned file);
    void take_back(node&, const std::string& server, const std::string& client, unsigned file);
    bool busy(const std::string& server, const std::string& client) const;
    void ask(node&, upcall);
    void agree(node&);
    void look_at_open(node&);

    world& w_;
    std::map<std::pair<node_id, std::string>, std::set<std::string>> confirmed_; // by nfsd
    std::map<std::tuple<node_id, std::uint64_t, std::uint64_t>, upcall> waiting_;
    std::set<std::tuple<node_id, std::string, std::string>> unanswered_; // v0, by a daemon that died
    std::map<std::pair<node_id, std::string>, instant> asked_at_;                // GraceStart
    std::map<std::pair<std::string, std::string>, std::set<unsigned>> believed_; // held by clients
    // v0: the first reclaim is asked about, the others follow; which have not yet
    std::map<std::pair<std::string, std::string>, std::set<unsigned>> unfinished_;
    std::map<std::string, epoch> purged_;
    std::map<node_id, std::uint64_t> with_state_; // since when, as the agreed stream says
    std::map<node_id, std::uint64_t> hello_;
    std::set<std::pair<node_id, std::string>> behind_;    // run on behind a cut, given up by all
    std::set<std::pair<node_id, std::string>> strangers_; // run where they hold nothing
    std::map<std::string, node_id> homes_;                // where its nfsd ran last
    std::uint64_t lifted_ = 0;                            // place of the last LIFT
    epoch opened_, reclaimed_; // highest C that a gate, and a reclaim, was open at
    std::uint64_t seen_lock_changes_ = ~std::uint64_t{0};
    // S6: by membership and position, what the state is
    std::map<std::tuple<view_id, position, std::size_t>, std::size_t> agreed_;
    std::map<std::tuple<view_id, position, std::size_t>, std::string> in_words_; // for the story
    std::map<node_id, std::tuple<std::uint64_t, view_id, position>> looked_at_;
};

} // namespace grace::sim
