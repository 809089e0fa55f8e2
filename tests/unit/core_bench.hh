// SPDX-License-Identifier: GPL-2.0-or-later
// One machine on a bench: its inputs are given by hand, one by one, and what it wants done is kept
// until it is looked at. Disk, kernel, locks and its own messages answer only when they are told
// to.
#pragma once

#include "grace/describe.hh"
#include "grace/fsm.hh"
#include "grace/wire.hh"

#include <deque>
#include <stdexcept>

namespace grace {

struct bench {
    bench()
        : bench(one()) {}
    explicit bench(parameters p, std::optional<stored_state> database = {})
        : machine(std::move(p), std::move(database)) {}

    static parameters one() { return numbered(1); }
    static parameters numbered(unsigned id) {
        parameters p;
        p.self = node_id{id};
        p.name = "node" + std::to_string(id);
        p.life = incarnation{id};
        return p;
    }

    fsm machine;
    instant now = seconds(1);
    std::uint64_t ring = 0;
    output done; // everything since the last forget()
    std::deque<bytes> said;
    std::deque<effect::persist> commits;
    std::deque<std::uint64_t> orders;
    std::deque<effect::convert> converts;

    void step(const any_input& i) {
        machine.step(now, i);
        for (any_effect& e : machine.take_output()) {
            if (const auto* s = std::get_if<effect::send>(&e))
                said.push_back(s->message);
            else if (const auto* p = std::get_if<effect::persist>(&e))
                commits.push_back(*p);
            else if (const auto* c = std::get_if<effect::close_gate>(&e))
                orders.push_back(c->order);
            else if (const auto* o = std::get_if<effect::open_gate>(&e))
                orders.push_back(o->order);
            else if (const auto* r = std::get_if<effect::set_reclaim>(&e))
                orders.push_back(r->order);
            else if (const auto* l = std::get_if<effect::convert>(&e))
                converts.push_back(*l);
            done.push_back(std::move(e));
        }
        // Rules compare what is with what should be: without news there is nothing more to do.
        machine.step(now, input::tick{});
        for (const any_effect& e : machine.take_output())
            restless.push_back("after " + describe(i) + ": " + describe(e));
    }
    std::vector<std::string> restless; // stays empty
    void forget() { done.clear(); }

    template <typename E>
    std::vector<E> all() const { // since the last forget()
        std::vector<E> found;
        for (const any_effect& e : done)
            if (const auto* x = std::get_if<E>(&e))
                found.push_back(*x);
        return found;
    }
    template <typename M>
    std::vector<M> sent() const {
        std::vector<M> found;
        for (const auto& s : all<effect::send>())
            if (auto env = wire::decode(s.message))
                if (const auto* m = std::get_if<M>(&env->body))
                    found.push_back(*m);
        return found;
    }
    bool told(const std::string& part) const {
        for (const auto& t : all<effect::tell>())
            if (t.text.find(part) != std::string::npos)
                return true;
        return false;
    }
    bool blocked_by(const std::string& part) const {
        for (const std::string& why : machine.blocked_by())
            if (why.find(part) != std::string::npos)
                return true;
        return false;
    }
    // The only answer to a request since the last forget().
    effect::answer_request answer() const {
        const auto a = all<effect::answer_request>();
        if (a.size() != 1)
            throw std::logic_error(std::to_string(a.size()) + " answers");
        return a.front();
    }

    // From a peer that has the state, under this machine's view.
    void from(unsigned peer, any_message m) {
        step(input::deliver{node_id{peer}, wire::encode({machine.replicated().view,
                                                         incarnation{peer}, std::move(m)})});
    }
    bool deliver() {
        if (said.empty())
            return false;
        bytes b = std::move(said.front());
        said.pop_front();
        step(input::deliver{machine.params().self, std::move(b)});
        return true;
    }
    bool durable() {
        if (commits.empty())
            return false;
        const position at = commits.front().at;
        commits.pop_front();
        step(input::durable{at});
        return true;
    }
    bool acknowledge() {
        if (orders.empty())
            return false;
        const std::uint64_t o = orders.front();
        orders.pop_front();
        step(input::kernel_acked{o});
        return true;
    }
    bool grant() {
        if (converts.empty())
            return false;
        const effect::convert c = converts.front();
        converts.pop_front();
        step(input::lock_granted{c.resource, c.node, c.mode, false, {}});
        return true;
    }
    // Everything answers until nothing is asked any more. A peer that is there says nothing.
    void settle() {
        for (int i = 0; deliver() || durable() || acknowledge() || grant(); ++i)
            if (i > 10000)
                throw std::logic_error("it never gets quiet");
    }

    void group(std::vector<node_id> members, std::vector<node_id> joined = {},
               std::vector<input::departed> left = {}) {
        step(input::confchg{std::move(members), std::move(joined), std::move(left)});
    }
    void quorum(const std::vector<unsigned>& nodes, unsigned expected, bool quorate = true) {
        input::quorum q{quorate, ring, {}, expected};
        for (unsigned n : nodes)
            q.votes[node_id{n}] = 1;
        step(q);
    }

    // A group of itself, with everything but what the caller answers.
    void boot() {
        const node_id self = machine.params().self;
        if (machine.params().kernel_expected)
            step(input::kernel_attached{1, epoch{1}, 0});
        step(input::locks_known{lock_mode::nl, false});
        group({self}, {self});
        step(input::ring{++ring});
        quorum({self.value}, 1);
    }
    // A group with these peers, founded; the peers have nothing but their names.
    void boot_with(const std::vector<unsigned>& peers) {
        const node_id self = machine.params().self;
        if (machine.params().kernel_expected)
            step(input::kernel_attached{1, epoch{1}, 0});
        step(input::locks_known{lock_mode::nl, false});
        std::vector<node_id> members{self};
        std::vector<unsigned> votes{self.value};
        for (unsigned p : peers) {
            members.push_back(node_id{p});
            votes.push_back(p);
        }
        group(members, members);
        step(input::ring{++ring});
        quorum(votes, unsigned(votes.size()));
        for (unsigned p : peers)
            hello(p);
        settle();
        for (unsigned p : peers)
            from(p, msg::view_stored{});
        settle();
    }
    void hello(unsigned peer, std::uint64_t number = 1) {
        msg::hello h;
        h.number = number;
        h.name = "node" + std::to_string(peer);
        h.attached = true;
        h.permit_ttl = seconds(2);
        step(input::deliver{node_id{peer}, wire::encode({{}, incarnation{peer}, h})});
    }
    // Heartbeats of a peer that has heard the last one of this machine.
    void echo(unsigned peer) { from(peer, msg::heartbeat{now, {{machine.params().self, now}}}); }
    void tick(duration later) {
        now += later;
        step(input::tick{});
    }
    // Boots, founds, opens its gate.
    void open() {
        boot();
        settle();
        tick(milliseconds(500)); // a heartbeat of its own comes back
        settle();
    }
    // The peers have on disk what this machine has.
    void durable_at_peers() {
        const auto nodes = machine.replicated().nodes;
        for (const auto& [id, n] : nodes)
            if (n.member && n.synced && id != machine.params().self)
                from(id.value, msg::durable{machine.replicated().applied});
        settle();
    }
    void host(const std::string& server, const std::vector<std::string>& clients) {
        step(input::serve{server, ticket{1000}});
        settle();
        durable_at_peers();
        step(input::grace_start{server, ticket{1001}});
        settle();
        for (const std::string& c : clients)
            step(input::create{server, c, "", ticket{1002}});
        settle();
    }
};

} // namespace grace
