// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim/checker.hh"

#include "grace/wire.hh"

#include <algorithm>

namespace grace::sim {
namespace {
enum tag : unsigned { hello = 0, snapshot = 1, purge = 8, lift = 9 };
unsigned tag_of(const bytes& m) { // see wire.cc
    return m.size() < 8 ? ~0U : unsigned(m[6]) | unsigned(m[7]) << 8;
}
const char* str(unsigned kind) {
    static const char* const names[] = {"Create", "reclaim, Create", "Remove", "Check"};
    return names[kind];
}
std::string name(node_id n) {
    return "node " + std::to_string(n.value);
}
std::string in_words(const state& s) {
    auto word = [](const char* what, std::uint64_t n) { return what + std::to_string(n); };
    std::string out = word(" view ", s.view.founding.value) + word(".", s.view.number) +
                      word(" C ", s.current.value) + word(" R ", s.recovery.value) +
                      word(" at ", s.applied.value) + word(" epoch at ", s.epoch_at.value) +
                      word(" wants ", s.wants_durable.value) + word(" starts ", s.starts.value) +
                      word(" lifting ", s.lifting) + word(" purge at ", s.purge_at.value) +
                      word(" purged ", s.purged.value) + word(" done by ", s.last_done.value);
    for (auto& [id, m] : s.nodes)
        out += "; " + name(id) + (m.member ? " member" : "") + (m.synced ? " synced" : "") +
               (m.attached ? " attached" : "") + (m.down ? " down" : "") +
               word(" life ", m.life.value) + word(" hello ", m.hello) +
               word(" deaths ", m.deaths) + word(" enforcing ", m.enforcing.value);
    for (auto& [server, v] : s.servers) {
        out += "; " + server + word(" host ", v.host.value) + word(" need ", v.need) +
               word(" needed ", v.needed) + word(" start ", v.start.value);
        for (auto& [client, r] : v.records)
            out += " " + client + word(":", r.at.value);
    }
    return out;
}
} // namespace

bool checker::recorded(const node& n, const std::string& s, const std::string& c) const {
    auto r = n.disk.records.find(s);
    return r != n.disk.records.end() && r->second.contains(c);
}

start_count checker::last_start(const node& n, const std::string& server) {
    const auto& servers = n.machine().replicated().servers;
    auto v = servers.find(server);
    return v == servers.end() ? start_count{} : v->second.start;
}

// --- after every step ---

void checker::stepped() {
    if (!w_.violations.empty())
        fail(w_.violations.front());
    bool owed = false;
    for (auto& [s, v] : truth.servers) {
        if (!v.need)
            continue;
        owed = true;
        if (v.by_hand) // other nodes count from when they have closed for it
            for (auto& [id, n] : w_.nodes)
                if (n->powered && !n->open() && n->daemon && last_start(*n, s) > v.start_before)
                    v.notice(id);
    }
    const bool lock_news = seen_lock_changes_ != w_.lock_changes;
    seen_lock_changes_ = w_.lock_changes;
    for (auto& [id, n] : w_.nodes) {
        if (n->daemon)
            agree(*n);
        if (!n->open())
            continue;
        if (!n->trip_pending && !w_.quorate(id))
            fail("S7: the gate of " + name(id) + " is open without quorum");
        if (w_.now >= n->echoed + w_.defaults.permit_ttl)
            fail("S7: the gate of " + name(id) + " is open, and nobody has heard of it for a TTL");
        if (lock_news)
            look_at_open(*n);
        if (owed)
            for (auto& [s, v] : truth.servers)
                if (const std::string* c = twin::owed(v, id))
                    fail("S8: the gate of " + name(id) + " is open, " + s +
                         " has lost its locks, and " + *c +
                         " has neither reclaimed nor been purged");
    }
}

void checker::look_at_open(node& n) {
    if (n.locks_in_doubt)
        return;
    for (auto& [owner, mode] : w_.locks.holders(grace_lock))
        if (owner == n.id && mode == lock_mode::pr)
            return;
    fail("S7: the gate of " + name(n.id) + " is open without PR");
}

// S6: whoever passes a position of the agreed stream has the same state there.
void checker::agree(node& n) {
    const fsm& f = n.machine();
    const state& s = f.replicated();
    if (!f.synced() || !w_.quorate(n.id) || w_.unfenced.contains(n.id))
        return; // what a minority delivers last is thrown away
    std::tuple now(n.life, s.view, s.applied);
    if (auto [it, fresh] = looked_at_.insert({n.id, now}); !fresh) {
        if (it->second == now)
            return;
        it->second = now;
    }
    state copy = s;
    std::size_t members = 0;
    for (auto& [id, m] : copy.nodes) {
        m.durable = {}; // neither DURABLE nor VIEW-STORED moves the position
        m.view = 0;
        if (m.member)
            members = members * 31 + id.value;
    }
    const auto all = wire::encode_state(copy);
    const std::size_t digest =
        std::hash<std::string_view>{}({reinterpret_cast<const char*>(all.data()), all.size()});
    const std::tuple here{s.view, s.applied, members};
    auto [it, fresh] = agreed_.insert({here, digest});
    if (tell && fresh)
        in_words_[here] = name(n.id) + ":" + in_words(copy);
    if (fresh || it->second == digest)
        return;
    if (tell) {
        tell(in_words_[here]);
        tell(name(n.id) + ":" + in_words(copy));
    }
    fail("S6: " + name(n.id) + " has another state at the same position");
}

// --- the stream ---

void checker::sent(node& n, const bytes& m) {
    const unsigned t = tag_of(m);
    if ((t != purge && t != lift) || n.keeper == 0 || n.locks_in_doubt)
        return;
    for (auto& [owner, mode] : w_.locks.holders(grace_lock))
        if (owner == n.id && mode == lock_mode::ex)
            return;
    fail("S4: " + name(n.id) + " purges or lifts without EX");
}

void checker::ordered(node_id from, const bytes& m, std::uint64_t c) {
    const unsigned t = tag_of(m);
    if (t != hello && t != snapshot && t != lift)
        return;
    const auto env = wire::decode(m);
    if (!env)
        return;
    if (const auto* h = std::get_if<msg::hello>(&env->body)) {
        hello_[from] = h->number;
        with_state_.erase(from);
    } else if (const auto* s = std::get_if<msg::snapshot>(&env->body)) {
        if (s->part + 1 != s->parts)
            return;
        if (!s->to) {
            for (node_id id : w_.group_of(c))
                with_state_[id] = w_.orders;
        } else if (hello_[s->to] == s->hello &&
                   (!hello_.contains(from) || with_state_.contains(from))) {
            // Void on every member if its sender's own HELLO was ordered before: it had no state.
            with_state_[s->to] = w_.orders;
        }
    } else {
        for (auto& [owner, mode] : w_.locks.holders(grace_lock))
            if (owner == from && mode == lock_mode::ex && w_.quorate(from))
                lifted_ = w_.orders;
    }
}

void checker::group_changed(std::uint64_t) {
    std::erase_if(with_state_, [&](const auto& e) {
        const std::uint64_t c = w_.component(e.first);
        return c == 0 || !w_.quorate(e.first) || !w_.group_of(c).contains(e.first);
    });
    // Whoever has no state says HELLO anew.
    std::erase_if(hello_, [&](const auto& e) { return !with_state_.contains(e.first); });
}

// It cannot know which side went on, and gives up its state (docs/design.md, founding).
void checker::merged(node& n) {
    with_state_.erase(n.id);
    hello_.erase(n.id);
}

// The first database that is told to purge tells the twin that a purge has begun.
void checker::committing(node& n, const store_batch& batch) {
    for (const store_operation& op : batch) {
        const auto* p = std::get_if<store_op::purge>(&op);
        if (!p || purged_[p->server] >= p->limit)
            continue;
        if (!w_.quorate(n.id) || w_.unfenced.contains(n.id)) {
            const bool others_go_on =
                std::ranges::any_of(w_.nodes, [&](auto& e) { return w_.quorate(e.first); });
            if (!others_go_on)
                truth.purged_or_not(p->server);
            continue;
        }
        purged_[p->server] = p->limit;
        twin::server& v = truth.servers[p->server];
        for (auto& [id, other] : w_.nodes)
            if (other->powered && other->kern.reclaim.contains(p->server))
                fail("S4: " + p->server + " is purged while it may reclaim");
        auto passed = [&](instant from, duration d) {
            return from != 0 && w_.now + milliseconds(1) >= from + d;
        };
        const bool may = v.lifted_at != 0 || jumped >= v.lost_at ||
                         passed(v.opened, w_.defaults.grace_period) ||
                         passed(v.opened_before, w_.defaults.grace_period) ||
                         passed(v.lost_at, w_.defaults.orphan_timeout);
        for (auto& [client, k] : v.clients) {
            if (k.rec == on_record::yes && !v.need && !twin::given_up(v) && !k.had && !k.reclaimed)
                fail("S5: " + p->server + " is purged, and has not lost a lock");
            else if (k.owed() && !may && !k.had)
                fail("S5: " + client + " of " + p->server + " is purged before its time");
        }
        for (auto& [who, files] : unfinished_)
            if (who.first == p->server && !files.empty() && !may)
                fail("S5: the grace of " + p->server + " ends before its time, " + who.second +
                     " was in the midst of its reclaim");
        truth.purged(p->server);
        note(p->server + " is purged, R " + std::to_string(p->limit.value));
    }
}

void checker::lost(const std::string& server, instant since) {
    truth.lost(server, w_.now, since);
    std::erase_if(unfinished_, [&](auto& e) { return e.first.first == server; });
    note(server + " has lost its locks");
}

// --- kernels ---

void checker::gate_opened(node& n) {
    seen_lock_changes_ = ~std::uint64_t{0};
    const epoch c = n.machine().replicated().current;
    if (c < opened_ || c < reclaimed_)
        fail("S6: C goes back, a gate opens at " + std::to_string(c.value));
    opened_ = std::max(opened_, c);
    std::erase_if(behind_, [&](auto& e) { return e.first == n.id; }); // they lock anew
    // Too late for what was not reclaimed yet. That a client of NFSv4.0 hears of that before its
    // server is lost again, no server can know (there is no RECLAIM_COMPLETE).
    for (auto& [who, files] : unfinished_)
        if (homes_[who.first] == n.id)
            for (unsigned file : std::exchange(files, {}))
                believed_[who].erase(file);
    // Who had the state before LIFT has purged by now; who joined later brings what it has.
    for (node_id id : w_.group_of(w_.component(n.id)))
        for (auto& [server, v] : truth.servers)
            for (auto& [client, k] : v.clients)
                if (auto since = with_state_.find(id); since != with_state_.end() &&
                                                       since->second < lifted_ &&
                                                       (k.rec == on_record::no || k.being_purged) &&
                                                       recorded(*w_.nodes.at(id), server, client))
                    fail("S4: a gate opens, and " + client + " of " + server +
                         " is still on the disk of " + name(id));
    for (auto& [s, v] : truth.servers)
        if (twin::may_be_over(v, n.id)) {
            truth.over(v);
            note("a gate opens on " + name(n.id) + ": the grace of " + s + " is over");
        }
}

void checker::reclaim_opened(node& n, const std::string& server) {
    const epoch c = n.machine().replicated().current;
    if (c <= opened_ || c < reclaimed_)
        fail("S6: C goes back, reclaim opens at " + std::to_string(c.value));
    reclaimed_ = std::max(reclaimed_, c);
    behind_.erase({n.id, server});
    strangers_.erase({n.id, server});
    twin::server& v = truth.servers[server];
    if (v.opened == 0)
        v.opened = w_.now;
    for (node_id dead : w_.unfenced)
        if (w_[dead.value].acted && w_.now > n.told_at &&
            !w_.ring_of(n.id).contains(dead)) // it was told
            fail("S2: reclaim opens, and " + name(dead) + " is not fenced");
    if (!w_.quorate(n.id) && w_.now > n.told_at)
        fail("S2: reclaim opens without quorum");
}

// --- nodes ---

void checker::locks_dropped(node& n, const std::set<node_id>& departed) {
    locks.forget(n.id, departed);
    if (w_.unfenced.contains(n.id) || !w_.quorate(n.id))
        return; // what it thinks of the others does not count: it will be fenced, or is a minority
    for (node_id id : departed) {
        node& d = *w_.nodes.at(id);
        for (auto& server : d.running) // it runs on behind the cut
            if (!strangers_.contains({id, server}) && behind_.insert({id, server}).second)
                lost(server, d.unfenced_since);
        for (auto& [server, v] : truth.servers)
            if (homes_[server] == id)
                v.notice(n.id);
    }
    // Whoever waited for such a lock gets it now, if anybody does.
    if (!departed.empty())
        for (unsigned f = 0; f < ledger::files; ++f)
            program_calls(n, f);
}

// Whoever waits for an answer asks the next daemon again, which finds that the last one had it.
void checker::daemon_died(node& n) {
    with_state_.erase(n.id);
    for (auto& [key, u] : waiting_)
        if (std::get<0>(key) == n.id && u.kind == upcall::check)
            unanswered_.insert({n.id, u.server, u.client});
    std::erase_if(waiting_, [&](auto& e) { return std::get<0>(e.first) == n.id; });
}

void checker::died(node& n) {
    with_state_.erase(n.id);
    for (auto& server : n.running)
        if (!behind_.contains({n.id, server}) && !strangers_.contains({n.id, server}))
            lost(server, w_.unfenced.contains(n.id) ? n.unfenced_since : w_.now);
    std::erase_if(strangers_, [&](auto& e) { return e.first == n.id; });
    std::erase_if(behind_, [&](auto& e) { return e.first == n.id; });
    std::erase_if(confirmed_, [&](auto& e) { return e.first.first == n.id; });
    std::erase_if(unanswered_, [&](auto& e) { return std::get<0>(e) == n.id; });
    std::erase_if(waiting_, [&](auto& e) { return std::get<0>(e.first) == n.id; });
}

void checker::booted(node& n) {
    // Whoever must be fenced gives nobody its replica, and its own locks go with it; so with one
    // that is paused while the others go on. If they are too few, their DLM waits for it.
    std::set<node_id> there, paused;
    for (auto& [id, m] : w_.nodes)
        if (m->powered && m->corosync && m->side == 0 && !w_.unfenced.contains(id))
            (m->paused ? paused : there).insert(id);
    if (there.size() * 2 <= w_.nodes.size())
        there.merge(paused);
    locks.join(n.id, there);
    // Of an nfsd that ended by hand it hears as the others do, by START. Bad scenario: the daemon
    // of that node is out of the group, with its disk full, and can tell nobody.
    for (auto& [server, v] : truth.servers)
        if (!v.by_hand)
            v.notice(n.id);
}

bool checker::stray(const node& n, const std::string& server) const {
    return strangers_.contains({n.id, server});
}

void checker::nfsd_gone(node& n, const std::string& server, bool by_hand) {
    std::erase_if(waiting_, [&](auto& e) {
        return std::get<0>(e.first) == n.id && e.second.server == server;
    });
    std::erase_if(unanswered_,
                  [&](auto& e) { return std::get<0>(e) == n.id && std::get<1>(e) == server; });
    if (strangers_.erase({n.id, server}))
        return;
    lost(server, w_.now);
    twin::server& v = truth.servers[server];
    v.by_hand = by_hand;
    v.start_before = {};
    for (auto& [id, m] : w_.nodes)
        if (m->daemon)
            v.start_before = std::max(v.start_before, last_start(*m, server));
    locks.drop_server(n.id, server);
    confirmed_.erase({n.id, server});
    if (by_hand && !n.open())
        v.notice(n.id);
    if (!by_hand)
        for (node_id id : w_.ring_of(n.id)) // all of them had closed before
            v.notice(id);
}

// --- clients ---

// S2, S3: at the moment at which a kernel lets a reclaim pass.
void checker::may_reclaim(node& n, const std::string& server, const std::string& client) {
    for (auto& [id, m] : w_.nodes)
        if (m->open())
            fail("S2: a reclaim is accepted while the gate of " + name(id) + " is open");
    auto r = n.disk.records.find(server);
    const bool there = r != n.disk.records.end() && r->second.contains(client);
    if (truth.servers[server].clients[client].rec == on_record::no)
        fail("S3: " + client + " of " + server + " was purged, and reclaims");
    else if (!there)
        fail("S2: " + client + " of " + server + " reclaims and is not on record");
}

// An nfsd that goes by hand drops its locks before any other node can know: who gets one there and
// then keeps it, and who had it has lost it for good.
void checker::taken_between(const node& n, unsigned file) {
    for (auto& [s, v] : truth.servers)
        if (v.need && v.by_hand && !v.dropped[v.losses].contains(n.id))
            for (auto& [key, files] : believed_)
                if (key.first == s)
                    files.erase(file);
}

void checker::take_back(node& n, const std::string& server, const std::string& client,
                        unsigned file) {
    for (const ledger::holder& h : locks.of(file))
        if (!h.is(server, client) && !h.forgotten.contains(n.id))
            fail("S8: " + client + " of " + server + " reclaims file " + std::to_string(file) +
                 ", which was given to " +
                 (h.server.empty() ? "a program" : h.client + " of " + h.server) + " on " +
                 name(h.node));
    locks.take(file, {n.id, server, client, {}});
}

void checker::ask(node& n, upcall u) {
    ticket t = n.new_ticket();
    u.losses = truth.servers[u.server].losses;
    const std::string server = u.server, client = u.client;
    const auto kind = u.kind;
    if (kind == upcall::remove)
        truth.asked_remove(server, client);
    else if (kind != upcall::check)
        truth.asked(server, client, kind == upcall::reclaim);
    else if (truth.servers[server].clients[client].rec != on_record::no)
        truth.checked(server, client, n.kern.reclaim.contains(server));
    waiting_[{n.id, n.life, t.value}] = std::move(u);
    switch (kind) {
    case upcall::create:
    case upcall::reclaim:
        return n.take(input::create{server, client, {}, t});
    case upcall::remove:
        return n.take(input::remove{server, client, t});
    case upcall::check:
        return n.take(
            input::check{server, client, t, unanswered_.erase({n.id, server, client}) > 0});
    }
}

void checker::client_calls(node& n, const std::string& server, const std::string& client) {
    for (auto& [key, u] : waiting_)
        if (u.server == server && u.client == client)
            return; // one thing at a time
    auto& mine = believed_[{server, client}];
    const auto& list = n.nfsd_lists[server];
    const bool known = confirmed_[{n.id, server}].contains(client);
    if (auto u = unfinished_.find({server, client}); u != unfinished_.end()) {
        if (n.open()) { // it was too late for these
            for (unsigned file : u->second)
                mine.erase(file);
            u->second.clear();
        } else if (n.kern.reclaim.contains(server) && !u->second.empty()) {
            may_reclaim(n, server, client);
            take_back(n, server, client, *u->second.begin());
            u->second.erase(u->second.begin());
        }
        if (u->second.empty())
            unfinished_.erase(u);
        return;
    }
    if (!known && n.kern.reclaim.contains(server)) {
        if (w_.v0)
            return ask(n, {upcall::check, server, client, 0});
        if (std::ranges::find(list, client) == list.end())
            return;
        may_reclaim(n, server, client);
        for (unsigned file : mine)
            take_back(n, server, client, file);
        return ask(n, {upcall::reclaim, server, client, 0}); // RECLAIM_COMPLETE
    }
    if (!n.open())
        return;
    if (!known) {
        mine.clear(); // it was told that its locks are lost
        for (unsigned f : locks.of_client(server, client))
            locks.drop(f, {}, server, client);
        return ask(n, {upcall::create, server, client, 0});
    }
    const auto file = static_cast<unsigned>(w_.draw(ledger::files));
    if (w_.draw(12) == 0) { // a clean unmount
        for (unsigned f : mine)
            locks.drop(f, {}, server, client);
        mine.clear();
        confirmed_[{n.id, server}].erase(client);
        return ask(n, {upcall::remove, server, client, 0});
    }
    if (mine.contains(file)) {
        mine.erase(file);
        locks.drop(file, {}, server, client);
    } else if (!w_.unfenced.contains(n.id) && locks.free_for(n.id, file, server, client)) {
        taken_between(n, file);
        mine.insert(file);
        note(client + " of " + server + " takes file " + std::to_string(file) + " on " +
             name(n.id));
        locks.take(file, {n.id, server, client, {}});
    }
}

void checker::program_calls(node& n, unsigned file) {
    if (!n.open() || w_.unfenced.contains(n.id) || !locks.free_for(n.id, file, {}, {}))
        return; // who must be fenced has a lockspace that stands still
    for (const ledger::holder& h : locks.of(file))
        if (!h.server.empty() && truth.servers[h.server].need &&
            truth.servers[h.server].clients[h.client].owed() &&
            believed_[{h.server, h.client}].contains(file))
            fail("S8: a program on " + name(n.id) + " is given file " + std::to_string(file) +
                 ", which " + h.client + " of " + h.server + " may still reclaim");
    if (w_.draw(2) == 0) {
        taken_between(n, file);
        note("a program on " + name(n.id) + " takes file " + std::to_string(file));
        locks.take(file, {n.id, {}, {}, {}});
    } else {
        locks.drop(file, n.id, {}, {});
    }
}

// It asks whether it may reclaim. nfsd expires nobody meanwhile: the call holds the client
// (cl_rpc_users).
bool checker::busy(const std::string& server, const std::string& client) const {
    return std::ranges::any_of(waiting_, [&](const auto& e) {
        const upcall& u = e.second;
        return u.kind == upcall::check && u.server == server && u.client == client;
    });
}

void checker::storm(node& n, const std::string& server, unsigned calls) {
    for (unsigned i = 0; i < calls; ++i) {
        const std::string client = "storm" + std::to_string(w_.draw(20));
        const bool known = confirmed_[{n.id, server}].contains(client);
        if (n.open() && !known)
            ask(n, {upcall::create, server, client, 0});
        else if (known && !busy(server, client) && w_.draw(3) == 0) {
            confirmed_[{n.id, server}].erase(client);
            for (unsigned f : locks.of_client(server, client))
                locks.drop(f, {}, server, client);
            believed_[{server, client}].clear();
            ask(n, {upcall::remove, server, client, 0});
        } else if (w_.v0 && w_.draw(4) == 0)
            ask(n, {upcall::check, server, client, 0});
        if (!n.daemon)
            return;
    }
}

void checker::upcall_answered(node& n, ticket t, upcall_status status) {
    auto it = waiting_.find({n.id, n.life, t.value});
    if (it == waiting_.end())
        return;
    upcall u = it->second;
    waiting_.erase(it);
    twin::server& v = truth.servers[u.server];
    note(name(n.id) + " answers " + str(u.kind) + " of " + u.client + " of " + u.server + ": " +
         std::to_string(static_cast<int>(status)));
    if (status != upcall_status::ok || u.losses != v.losses || !n.running.contains(u.server))
        return;
    if (strangers_.erase({n.id, u.server})) // it is its server's, after all
        homes_[u.server] = n.id;
    if (u.kind == upcall::remove) {
        // Expired, and back before that was told: its record is there when it asks, or not.
        if (!busy(u.server, u.client))
            truth.removed(u.server, u.client);
        return;
    }
    if (u.kind == upcall::check) {
        if (n.kern.reclaim.contains(u.server)) {
            may_reclaim(n, u.server, u.client);
            unfinished_[{u.server, u.client}] = believed_[{u.server, u.client}];
        } else
            believed_[{u.server, u.client}].clear();
    }
    truth.acknowledged(u.server, u.client, u.kind != upcall::create);
    auto& known = confirmed_[{n.id, u.server}];
    known.insert(u.client);
    auto& list = n.nfsd_lists[u.server];
    if (u.kind == upcall::reclaim && !list.empty() &&
        std::ranges::includes(known, std::set(list.begin(), list.end()))) {
        list.clear(); // nfsd's own grace is over
        n.take(input::grace_done{u.server, n.new_ticket()});
    }
    // A Remove that was asked later may have gone with it in one message.
    if (std::ranges::any_of(waiting_, [&](const auto& e) {
            const upcall& later = e.second;
            return later.kind == upcall::remove && later.server == u.server &&
                   later.client == u.client;
        }))
        return;
    // S5: on the disk of everyone that counts, and of more than half of all.
    std::size_t copies = 0;
    for (auto& [id, m] : w_.nodes)
        copies += recorded(*m, u.server, u.client);
    for (node_id id : w_.group_of(w_.component(n.id)))
        if (auto since = with_state_.find(id); since != with_state_.end() &&
                                               since->second <= n.heard &&
                                               !recorded(*w_.nodes.at(id), u.server, u.client))
            fail("S5: " + u.client + " of " + u.server +
                 " is acknowledged and not on the disk of " + name(id));
    if (copies * 2 <= w_.nodes.size())
        fail("S5: acknowledged, and on " + std::to_string(copies) + " disks of " +
             std::to_string(w_.nodes.size()));
}

std::string checker::upcalls() const {
    std::string out;
    for (auto& [key, u] : waiting_)
        out += std::string(" (") + str(u.kind) + " of " + u.client + " of " + u.server + " at " +
               name(std::get<0>(key)) + ")";
    return out;
}

void checker::nfsd_listed(node& n, const std::string& server) {
    confirmed_[{n.id, server}].clear();
    const auto& list = n.nfsd_lists[server];
    twin::server& v = truth.servers[server];
    for (const std::string& client : list)
        if (v.clients[client].rec == on_record::no)
            fail("S3: " + client + " of " + server + " was purged, and may reclaim");
    // An nfsd that was started by hand and waited too long is told that nobody may: bounded.
    const bool waited =
        w_.now + milliseconds(1) >= asked_at_[{n.id, server}] + w_.defaults.grace_start_hold ||
        jumped >= asked_at_[{n.id, server}];
    // It was not told in time, either, if the kernel has opened and its answer is on its way.
    const bool late = waited && (!n.kern.reclaim.contains(server) ||
                                 n.machine().instances().at(server).reclaim != reclaim_state::on);
    if (late)
        v.lifted_at = w_.now;
    // Where the DLM waits for a fencing an nfsd can lock nothing; one that waited too long may be
    // up where its server is not, and admits nobody then. Neither has anything to lose.
    if (w_.unfenced.contains(n.id) || late) {
        strangers_.insert({n.id, server});
    } else {
        strangers_.erase({n.id, server});
        homes_[server] = n.id;
    }
    if (list.empty() && !w_.v0)
        n.take(input::grace_done{server, n.new_ticket()});
    if (w_.v0 || late)
        return;
    for (auto& [client, k] : v.clients)
        if (k.owed() && std::ranges::find(list, client) == list.end())
            fail("S5: " + client + " of " + server + " was acknowledged, and may not reclaim");
}

// --- the twin ---

void checker::compare() {
    for (auto& [id, n] : w_.nodes) {
        if (!n->daemon || !n->machine().synced())
            continue;
        const state& s = n->machine().replicated();
        for (auto& [server, v] : truth.servers) {
            auto it = s.servers.find(server);
            const bool need = it != s.servers.end() && it->second.need;
            if (const std::string* c = twin::owed(v); c && !need)
                fail("twin: " + *c + " of " + server + " may reclaim, " + name(id) +
                     " says that it NEEDs not");
            if (need && !v.need)
                fail("twin: " + server + " has lost nothing, " + name(id) + " says NEED");
            for (auto& [client, k] : v.clients) {
                const bool there = it != s.servers.end() && it->second.records.contains(client);
                if (there && k.rec == on_record::no)
                    fail("twin: " + client + " of " + server + " is on record at " + name(id));
                if (!there && k.rec == on_record::yes)
                    fail("twin: " + client + " of " + server + " is not on record at " + name(id));
                if (there != recorded(*n, server, client))
                    fail("twin: disk and memory of " + name(id) + " differ about " + client +
                         " of " + server);
            }
        }
        if (in_grace(s) && n->open())
            fail("twin: a gate is open in grace");
    }
}

} // namespace grace::sim
