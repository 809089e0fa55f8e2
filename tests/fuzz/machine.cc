// SPDX-License-Identifier: GPL-2.0-or-later
// The machine of node 1 of three, with two peers that say anything: any message that decodes, under
// the view and incarnation that count. The world around it (disk, kernel, locks) answers as the
// real one does, late and in any order of kinds. No invariant may break: check_invariants() throws
// after a step that breaks one, and nothing catches that here.
#include "fuzz.hh"
#include "grace/fsm.hh"
#include "grace/wire.hh"

#include <algorithm>
#include <deque>

using namespace grace;

namespace {

parameters first() {
    parameters p;
    p.self = node_id{1};
    p.name = "one";
    p.life = incarnation{11};
    p.boot = 1;
    return p;
}

struct node_one {
    explicit node_one(fuzz::source from)
        : in(from) {}
    fuzz::source in;
    fsm machine{first(), std::nullopt};
    instant now = seconds(1);
    std::deque<bytes> said;
    std::deque<std::uint64_t> commits, orders;
    std::deque<effect::convert> converts;
    std::uint64_t ring = 1, hello[4] = {}, tickets = 0, trips = 0;
    std::vector<node_id> members{node_id{1}};
    lvb_bytes value{};

    void step(const any_input& i) {
        machine.step(now, i);
        for (any_effect& e : machine.take_output()) {
            if (auto* s = std::get_if<effect::send>(&e))
                said.push_back(std::move(s->message));
            else if (auto* p = std::get_if<effect::persist>(&e))
                commits.push_back(p->at.value);
            else if (auto* c = std::get_if<effect::close_gate>(&e))
                orders.push_back(c->order);
            else if (auto* r = std::get_if<effect::set_reclaim>(&e))
                orders.push_back(r->order);
            else if (auto* o = std::get_if<effect::open_gate>(&e))
                orders.push_back(o->order);
            else if (auto* l = std::get_if<effect::convert>(&e))
                converts.push_back(*l);
            else if (auto* x = std::get_if<effect::cancel>(&e))
                step_cancelled(*x);
        }
    }
    // A cancel: the request goes away and the answer says so, now or never (the grant won).
    std::deque<effect::cancel> cancels;
    void step_cancelled(const effect::cancel& c) { cancels.push_back(c); }

    std::string server() { return in.chance() ? "a" : "b"; }
    node_id any_node() { return node_id{static_cast<std::uint32_t>(1 + in.number(4))}; }

    any_message message() {
        const state& s = machine.replicated();
        const auto near = [&](std::uint64_t n) { return n + in.number(3) - 1; };
        switch (in.number(16)) {
        case 0: {
            msg::hello h;
            h.number = ++hello[2];
            h.name = "peer";
            h.attached = in.chance();
            h.permit_ttl = seconds(2);
            h.has_database = in.chance();
            h.view = in.number(4);
            h.quorate_view = in.number(4);
            h.current = epoch{1 + in.number(4)};
            if (in.chance())
                h.running[server()] = start_count{in.number(4)};
            h.boot = in.number(2);
            h.starts = start_count{in.number(4)};
            return h;
        }
        case 1: {
            msg::snapshot p;
            p.to = in.chance() ? node_id{1} : any_node();
            p.hello = near(1 + in.number(3));
            state other = s;
            if (in.chance()) { // a state that it made up
                other.current = epoch{in.number(5)};
                other.recovery = epoch{in.number(5)};
                other.lifting = in.chance();
                server_state& v = other.servers[server()];
                v.host = any_node();
                v.need = in.chance();
                other.starts = start_count{4};
                v.start = start_count{in.number(4)};
                v.settled = v.need ? start_count{in.number(4)} : v.start;
                v.lost = start_count{in.number(4)};
                v.records["c"] = {epoch{in.number(4)}, ""};
            }
            for (std::uint32_t n : {1u, 2u, 3u}) {
                other.nodes[node_id{n}].member = other.nodes[node_id{n}].synced = true;
                other.nodes[node_id{n}].life = incarnation{10 + n};
            }
            other.nodes[node_id{1}].synced = false;
            other.nodes[node_id{1}].hello = p.hello;
            p.data = wire::encode_state(other);
            return p;
        }
        case 2:
            return msg::start{server(), msg::start_reason(in.number(3))};
        case 3:
            return msg::released{server()};
        case 4:
            return msg::node_down{any_node(), in.number(3)};
        case 5:
            return msg::attached{};
        case 6:
            return msg::enforcing{epoch{near(s.current.value)}};
        case 7:
            return msg::done{server(), start_count{near(s.starts.value)},
                             static_cast<msg::outcome>(in.number(5))};
        case 8:
            return msg::purge{epoch{near(s.recovery.value)}, start_count{s.starts.value}};
        case 9:
            return msg::lift{epoch{near(s.recovery.value)}, start_count{s.starts.value}};
        case 10:
            return msg::lift_request{server(), start_count{near(s.starts.value)}};
        case 11:
            return msg::records{in.number(3), {{in.chance(), server(), "c", ""}}};
        case 12:
            return msg::durable{position{near(s.applied.value)}};
        case 13:
            return msg::view_stored{};
        case 14:
            return msg::extend_request{server(), start_count{near(s.starts.value)}, seconds(1)};
        default: {
            msg::heartbeat b;
            b.sent = now;
            b.heard[node_id{1}] = in.chance() ? now : std::int64_t{1} << 60;
            return b;
        }
        }
    }

    void group(std::vector<node_id> next_members, input::left_reason why) {
        input::confchg c;
        c.members = next_members;
        for (node_id n : next_members)
            if (std::find(members.begin(), members.end(), n) == members.end())
                c.joined.push_back(n);
        for (node_id n : members)
            if (std::find(next_members.begin(), next_members.end(), n) == next_members.end())
                c.left.push_back({n, why});
        members = std::move(next_members);
        said.clear();
        step(c);
    }
    void quorum(bool quorate, std::uint32_t expected = 3) {
        input::quorum q{quorate, ring, {}, expected};
        for (node_id n : members)
            q.votes[n] = 1;
        step(q);
    }

    void once() {
        now += milliseconds(static_cast<std::int64_t>(in.number(64)) * 20);
        switch (in.number(20)) {
        case 0:
        case 1:
        case 2: // own message comes back
            if (!said.empty()) {
                bytes b = std::move(said.front());
                said.pop_front();
                step(input::deliver{node_id{1}, std::move(b)});
            }
            break;
        case 3:
        case 4:
        case 5: { // a peer lies
            const auto n = static_cast<std::uint32_t>(2 + in.number(2));
            const view_id view = in.byte() < 250 ? machine.replicated().view : view_id{};
            const any_message m = message();
            step(input::deliver{node_id{n}, wire::encode({view, incarnation{10 + n}, m})});
            break;
        }
        case 6:
            if (!commits.empty()) {
                const std::uint64_t c = commits.front();
                commits.pop_front();
                step(input::durable{position{c}});
            }
            break;
        case 7:
        case 8:
            if (!orders.empty()) {
                const std::uint64_t o = orders.front();
                orders.pop_front();
                if (in.byte() < 240)
                    step(input::kernel_acked{o});
                else
                    step(input::kernel_refused{o, 11, "busy"});
            }
            break;
        case 9:
        case 10:
            if (!converts.empty()) {
                const effect::convert c = converts.front();
                converts.pop_front();
                const auto how = in.byte();
                if (how < 220)
                    step(input::lock_granted{c.resource, c.node, c.mode, how < 110, value});
                else
                    step(input::lock_refused{c.resource, c.node, 11});
            }
            break;
        case 11: {
            std::vector<node_id> next_members{node_id{1}};
            if (in.chance())
                next_members.push_back(node_id{2});
            if (in.chance())
                next_members.push_back(node_id{3});
            group(std::move(next_members),
                  in.chance() ? input::left_reason::node : input::left_reason::process);
            break;
        }
        case 12:
            step(input::ring{in.chance() ? ++ring : ring});
            break;
        case 13:
            quorum(in.byte() < 200);
            break;
        case 14:
            orders.clear();
            step(input::kernel_attached{1, machine.gate().at, trips});
            break;
        case 15:
            switch (in.number(5)) {
            case 0:
                step(input::kernel_tripped{++trips});
                break;
            case 1:
                step(input::kernel_closed{});
                break;
            case 2:
                orders.clear();
                step(input::kernel_lost{"gone"});
                break;
            case 3:
                converts.clear();
                step(input::locks_lost{});
                break;
            default:
                converts.clear();
                step(input::locks_known{lock_mode::nl, in.chance()});
            }
            break;
        case 16:
            step(input::dlm_members{in.chance(), {node_id{1}, node_id{2}}});
            break;
        case 17:
            switch (in.number(4)) {
            case 0:
                step(input::create{server(), "c", "", ticket{++tickets}});
                break;
            case 1:
                step(input::remove{server(), "c", ticket{++tickets}});
                break;
            case 2:
                step(input::grace_start{server(), ticket{++tickets}});
                break;
            default:
                step(input::grace_done{server(), ticket{++tickets}});
            }
            break;
        case 18:
            switch (in.number(7)) {
            case 0:
                step(input::serve{server(), ticket{++tickets}});
                break;
            case 1:
                step(input::stop{server(), ticket{++tickets}});
                break;
            case 2:
                step(input::released{server(), ticket{++tickets}});
                break;
            case 3:
                step(input::start{server(), ticket{++tickets}});
                break;
            case 4:
                step(input::extend{server(), seconds(1), ticket{++tickets}});
                break;
            case 5:
                step(input::hold{in.chance(), ticket{++tickets}});
                break;
            default:
                step(input::lift{server(), ticket{++tickets}});
            }
            break;
        default:
            step(input::tick{});
        }
    }
};

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    node_one n(fuzz::source({data, size}));
    // Up to here nothing is drawn: a node that founded its group.
    n.step(input::kernel_attached{1, epoch{1}, 0});
    n.step(input::locks_known{lock_mode::nl, false});
    n.group({node_id{1}}, input::left_reason::process);
    n.step(input::ring{1});
    n.quorum(true, 1);
    for (int i = 0; i < 8 && !n.said.empty(); ++i) {
        bytes b = std::move(n.said.front());
        n.said.pop_front();
        n.step(input::deliver{node_id{1}, std::move(b)});
    }
    fuzz::must(n.machine.synced() && n.machine.quorate(), "node 1 has founded its group");
    for (int i = 0; i < 300 && !n.in.empty(); ++i)
        n.once();
    return 0;
}
