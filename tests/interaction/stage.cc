// SPDX-License-Identifier: GPL-2.0-or-later
#include "interaction/stage.hh"
#include "grace/wire.hh"
#include "sim/world.hh" // apply_batch; compatible

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace grace::interaction {
namespace {

std::string resource_name(lock_resource r, node_id n) {
    return r == lock_resource::grace ? "grace" : "alive." + std::to_string(n.value);
}

// What people who read a script want to see of an effect; the rest is noise.
bool worth_a_line(const any_effect& e) {
    if (std::holds_alternative<effect::extend_permit>(e))
        return false;
    if (const auto* p = std::get_if<effect::persist>(&e))
        return p->batch.size() > 1; // more than the meta row
    if (const auto* s = std::get_if<effect::send>(&e)) {
        auto env = wire::decode(s->message);
        return !env || !std::holds_alternative<msg::heartbeat>(env->body);
    }
    if (const auto* t = std::get_if<effect::tell>(&e))
        return t->level >= news_level::warning || t->text.starts_with("phase ") ||
               t->text.find(" is void: ") != std::string::npos;
    return true;
}

std::string in_words(const any_effect& e) {
    if (const auto* t = std::get_if<effect::tell>(&e))
        return t->text;
    if (const auto* p = std::get_if<effect::persist>(&e)) { // without the meta row
        std::string s = "commit " + std::to_string(p->at.value) + ": ";
        for (std::size_t i = 0; i + 1 < p->batch.size(); ++i)
            s += (i ? ", " : "") + describe(p->batch[i]);
        return s;
    }
    return describe(e);
}

} // namespace

stage::stage(unsigned n, parameters p)
    : defaults(std::move(p)) {
    std::set<node_id> all;
    for (unsigned i = 1; i <= n; ++i) {
        nodes[node_id{i}].id = node_id{i};
        all.insert(node_id{i});
    }
    parts_ = {all};
}

node& stage::at(unsigned id) {
    auto it = nodes.find(node_id{id});
    if (it == nodes.end())
        throw std::runtime_error("no node " + std::to_string(id));
    return it->second;
}

node& stage::daemon_at(unsigned id) {
    node& n = at(id);
    if (!n.daemon)
        throw std::runtime_error("no daemon runs on node " + std::to_string(id));
    return n;
}

ticket stage::ask(const std::string& what) {
    ticket t{++tickets_};
    asked_[t] = what;
    return t;
}

std::set<node_id> stage::partition_of(node_id id) const {
    std::set<node_id> out;
    for (const auto& p : parts_)
        if (p.contains(id))
            for (node_id n : p)
                if (nodes.at(n).powered)
                    out.insert(n);
    return out;
}

std::set<node_id> stage::group_of(node_id id) const {
    std::set<node_id> out = partition_of(id);
    std::erase_if(out, [&](node_id n) { return !nodes.at(n).daemon || nodes.at(n).left; });
    return out;
}

// --- membership ---

void stage::announce_quorum(const std::set<node_id>& partition, const std::set<node_id>& to,
                            const std::set<node_id>& left) {
    input::quorum q{partition.size() * 2 > nodes.size(), ring_, {}, unsigned(nodes.size()), left};
    for (node_id n : partition)
        q.votes[n] = 1;
    for (node_id id : to)
        if (node& n = nodes.at(id); n.daemon && !n.paused)
            (n.held.contains(queue::quorum) ? n.quorum_news : n.inbox).push_back(q);
}

// A confchg to every daemon of `members`; with a new ring, its number and the quorum follow.
void stage::reform(const std::set<node_id>& members, const std::set<node_id>& joined,
                   const std::vector<input::departed>& left, bool new_ring) {
    for (node_id n : members) {
        if (nodes.at(n).paused)
            continue;
        input::confchg c{{members.begin(), members.end()}, {joined.begin(), joined.end()}, left};
        nodes.at(n).inbox.push_back(c);
        if (new_ring)
            nodes.at(n).inbox.push_back(input::ring{ring_});
    }
}

void stage::start(node& n, bool with_kernel, bool with_keeper) {
    if (n.daemon)
        throw std::runtime_error("a daemon runs already");
    if (unfenced_.contains(n.id))
        fence(n.id); // it boots, so it does nothing any more of what it did before
    bool boots = !n.powered;
    if (boots)
        ++n.boots;
    n.powered = n.in_dlm = true;
    parameters p = defaults;
    p.self = n.id;
    p.name = "node" + std::to_string(n.id.value);
    p.life = incarnation{n.id.value * 1000 + ++n.lives};
    p.boot = n.boots;
    n.daemon = std::make_unique<fsm>(p, n.has_disk ? std::optional(n.disk) : std::nullopt);
    if (boots)
        ++ring_;
    const std::set<node_id> partition = partition_of(n.id), group = group_of(n.id);
    if (with_keeper)
        step(n, input::locks_known{locks["grace"].holders[n.id],
                                   locks[resource_name(lock_resource::alive, n.id)].holders[n.id] ==
                                       lock_mode::ex});
    if (with_kernel && defaults.kernel_expected)
        attach(n);
    for (const auto& [server, answered] : n.running)
        step(n, input::instance_known{server, true, false, true, answered});
    reform(group, {n.id}, {}, boots);
    if (!boots)
        n.inbox.push_back(input::ring{ring_});
    announce_quorum(partition, boots ? partition : std::set{n.id});
}

void stage::leave(node& n) {
    if (n.left)
        return;
    std::set<node_id> group = group_of(n.id);
    n.left = true;
    group.erase(n.id);
    reform(group, {}, {{n.id, input::left_reason::process}}, false);
    n.inbox.push_back(
        input::confchg{{group.begin(), group.end()}, {}, {{n.id, input::left_reason::process}}});
}

void stage::join_again(node& n) {
    if (!n.left)
        return;
    n.left = false;
    reform(group_of(n.id), {n.id}, {}, false);
}

void stage::kill(node& n) {
    const bool was_out = std::exchange(n.left, false);
    n.paused = false;
    n.daemon.reset();
    n.outbox.clear();
    n.inbox.clear();
    n.quorum_news.clear();
    n.orders.clear();
    n.commits.clear();
    n.asts.clear();
    n.held.clear();
    n.asked_dlm = false;
    n.kern.attached = false; // its socket closed
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    for (auto& [name, l] : locks)
        std::erase_if(l.waiting, [&](const lock::request& r) { return r.node == n.id; });
    if (n.powered && !was_out)
        reform(group_of(n.id), {}, {{n.id, input::left_reason::process}}, false);
}

void stage::crash(node& n) {
    bool had_daemon = n.daemon && !n.left;
    std::set<node_id> rest = partition_of(n.id);
    rest.erase(n.id);
    n.powered = n.in_dlm = false;
    kill(n);
    n.kern = {};
    n.running.clear();
    unfenced_.insert(n.id);
    frozen = true;
    ++ring_;
    std::set<node_id> group;
    for (node_id m : rest)
        if (nodes.at(m).daemon && !nodes.at(m).left)
            group.insert(m);
    for (node_id m : rest) // corosync tells its clients of a ring, in the group or not
        if (nodes.at(m).left)
            nodes.at(m).inbox.push_back(input::ring{ring_});
    if (had_daemon)
        reform(group, {}, {{n.id, input::left_reason::node}}, true);
    else
        for (node_id m : group)
            nodes.at(m).inbox.push_back(input::ring{ring_});
    announce_quorum(rest, rest);
}

// A node without daemon is down and up again before anybody has missed it.
void stage::reboot(node& n) {
    if (n.daemon)
        throw std::runtime_error("its daemon runs: crash it, or kill the daemon first");
    ++n.boots;
    n.kern = {};
    n.running.clear();
    fence(n.id);
    ++ring_;
    for (node_id m : group_of(n.id))
        nodes.at(m).inbox.push_back(input::ring{ring_});
    const std::set<node_id> all = partition_of(n.id);
    announce_quorum(all, all, {n.id});
}

void stage::fence(node_id id) {
    unfenced_.erase(id);
    for (auto& [name, l] : locks) {
        auto it = l.holders.find(id);
        if (it == l.holders.end())
            continue;
        if (it->second == lock_mode::ex && name == "grace")
            value_valid = false; // VALNOTVALID: whoever could have written it died
        l.holders.erase(it);
    }
    frozen = !unfenced_.empty();
}

void stage::split(const std::vector<std::set<node_id>>& parts) {
    std::map<node_id, std::set<node_id>> were;
    for (const auto& [id, n] : nodes)
        were[id] = group_of(id);
    parts_ = parts;
    for (const auto& p : parts) {
        const std::set<node_id> partition = partition_of(*p.begin());
        std::set<node_id> group = group_of(*p.begin());
        ++ring_;
        for (node_id n : group) { // each side sees others join and leave
            if (nodes.at(n).paused)
                continue;
            input::confchg c{{group.begin(), group.end()}, {}, {}};
            for (node_id m : group)
                if (!were[n].contains(m))
                    c.joined.push_back(m);
            for (node_id m : were[n])
                if (!group.contains(m))
                    c.left.push_back({m, input::left_reason::node});
            nodes.at(n).inbox.push_back(c);
            nodes.at(n).inbox.push_back(input::ring{ring_});
        }
        announce_quorum(partition, partition);
    }
}

void stage::pause(node& n) {
    n.paused = true;
    n.group_then = group_of(n.id);
    n.partition_then = partition_of(n.id);
}

// First it loses those of its old ring, then it sees who is in the new one.
void stage::wake(node& n) {
    n.paused = false;
    const std::set<node_id> group = group_of(n.id), partition = partition_of(n.id);
    ++ring_;
    input::confchg gone{{n.id}, {}, {}};
    for (node_id m : n.group_then)
        if (m != n.id)
            gone.left.push_back({m, input::left_reason::node});
    n.inbox.push_back(gone);
    std::set<node_id> others = group, left = n.partition_then;
    others.erase(n.id);
    left.erase(n.id);
    const std::vector<node_id> members(group.begin(), group.end());
    if (!others.empty())
        n.inbox.push_back(input::confchg{members, {others.begin(), others.end()}, {}});
    for (node_id m : others) {
        nodes.at(m).inbox.push_back(input::confchg{members, {n.id}, {}});
        nodes.at(m).inbox.push_back(input::ring{ring_});
    }
    n.inbox.push_back(input::ring{ring_});
    announce_quorum(partition, others);
    announce_quorum(partition, {n.id}, left);
}

// --- one step, and what it wants done ---

void stage::step(node& n, const any_input& in) {
    n.daemon->step(now, in);
    for (any_effect& e : n.daemon->take_output())
        perform(n, e);
    watch();
}

void stage::perform(node& n, any_effect& e) {
    const std::string who = std::to_string(n.id.value) + ": ";
    auto answered = [&](ticket t, const std::string& how) { line(who + asked_[t] + ": " + how); };
    if (const auto* a = std::get_if<effect::answer_upcall>(&e))
        return answered(a->id, to_string(a->status));
    if (const auto* a = std::get_if<effect::answer_request>(&e))
        return answered(a->id,
                        to_string(a->status) + (a->detail.empty() ? "" : " (" + a->detail + ")"));
    if (const auto* a = std::get_if<effect::answer_grace_start>(&e)) {
        std::string who_may;
        for (const auto& c : a->clients)
            who_may += (who_may.empty() ? "" : ", ") + printable(c.name);
        for (const auto& [name, i] : n.daemon->instances())
            if (asked_[a->id] == "GraceStart " + name)
                n.running[name] = i.answered;
        return answered(a->id, (who_may.empty() ? "nobody" : who_may) + " may reclaim");
    }
    if (worth_a_line(e))
        line(who + in_words(e));

    if (auto* s = std::get_if<effect::send>(&e)) {
        n.outbox.push_back(std::move(s->message));
        if (!n.held.contains(queue::sends))
            flush(n);
    } else if (auto* p = std::get_if<effect::persist>(&e)) {
        n.commits.push_back(std::move(*p));
    } else if (std::holds_alternative<effect::close_gate>(e) ||
               std::holds_alternative<effect::open_gate>(e) ||
               std::holds_alternative<effect::set_reclaim>(e)) {
        n.orders.push_back(std::move(e));
    } else if (const auto* x = std::get_if<effect::extend_permit>(&e)) {
        n.kern.permit = x->until;
    } else if (std::holds_alternative<effect::query_dlm_members>(e)) {
        n.asked_dlm = true;
    } else if (std::holds_alternative<effect::leave_group>(e)) {
        leave(n);
    } else if (std::holds_alternative<effect::join_group>(e)) {
        join_again(n);
    } else if (const auto* c = std::get_if<effect::convert>(&e)) {
        locks[resource_name(c->resource, c->node)].waiting.push_back(
            {n.id, c->mode, c->with_value ? std::optional(c->value) : std::nullopt});
    } else if (const auto* k = std::get_if<effect::cancel>(&e)) {
        auto& waiting = locks[resource_name(k->resource, k->node)].waiting;
        if (std::erase_if(waiting, [&](const lock::request& r) { return r.node == n.id; }))
            n.inbox.push_front(input::lock_cancelled{k->resource, k->node});
    }
}

void stage::flush(node& n) {
    for (; !n.outbox.empty(); n.outbox.pop_front())
        for (node_id m : group_of(n.id))
            nodes.at(m).inbox.push_back(input::deliver{n.id, n.outbox.front()});
}

// What nobody may ever see, taken from the kernels and not from the daemons' word.
void stage::watch() {
    bool open = false, reclaim = false;
    for (const auto& [id, n] : nodes) {
        open |= n.kern.gate == gate_state::open && now < n.kern.permit;
        reclaim |= !n.kern.reclaim.empty();
    }
    if (open && reclaim)
        throw std::logic_error("S1: a gate is open while a server accepts reclaims");
}

// --- what a script lets happen ---

bool stage::deliver(node& n) {
    if (!n.daemon || n.inbox.empty())
        return false;
    any_input in = std::move(n.inbox.front());
    n.inbox.pop_front();
    step(n, in);
    return true;
}

void stage::attach(node& n) {
    n.kern.attached = true;
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    step(n, input::kernel_attached{1, n.kern.at, n.kern.trips});
}

void stage::trip(node& n) {
    n.kern.gate = gate_state::closed;
    n.kern.reclaim.clear();
    ++n.kern.trips;
    if (n.daemon && n.kern.attached)
        step(n, input::kernel_tripped{n.kern.trips});
}

bool stage::acknowledge(node& n) {
    if (!n.daemon || n.orders.empty())
        return false;
    any_effect e = std::move(n.orders.front());
    n.orders.pop_front();
    std::uint64_t order = 0;
    if (const auto* c = std::get_if<effect::close_gate>(&e)) {
        order = c->order;
        n.kern.gate = gate_state::closed;
        n.kern.at = c->at;
        n.kern.reclaim.clear();
    } else if (const auto* o = std::get_if<effect::open_gate>(&e)) {
        order = o->order;
        if (o->trips != n.kern.trips || now >= n.kern.permit) {
            step(n, input::kernel_refused{order, -1, "it has tripped, or has no permit"});
            return true;
        }
        n.kern.gate = gate_state::open;
        n.kern.at = o->at;
    } else if (const auto* r = std::get_if<effect::set_reclaim>(&e)) {
        order = r->order;
        if (r->on)
            n.kern.reclaim.insert(r->server);
        else
            n.kern.reclaim.erase(r->server);
    }
    step(n, input::kernel_acked{order});
    return true;
}

bool stage::make_durable(node& n) {
    if (!n.daemon || n.commits.empty())
        return false;
    effect::persist p = std::move(n.commits.front());
    n.commits.pop_front();
    sim::apply_batch(n.disk, p.batch);
    n.has_disk = true;
    step(n, input::durable{p.at});
    return true;
}

bool stage::answer_dlm(node& n, std::optional<std::set<node_id>> members) {
    if (!n.daemon || !n.asked_dlm)
        return false;
    n.asked_dlm = false;
    if (!members) {
        members.emplace();
        for (node_id m : partition_of(n.id))
            if (nodes.at(m).in_dlm)
                members->insert(m);
    }
    step(n, input::dlm_members{true, *members});
    return true;
}

// As the DLM does it: compatible with what the others hold, whoever else waits.
bool stage::grantable(const lock& l, const lock::request& r) const {
    for (const auto& [id, m] : l.holders)
        if (id != r.node && !compatible(m, r.mode))
            return false;
    return true;
}

bool stage::grant(node& n) {
    if (!n.daemon || frozen)
        return false;
    for (auto& [name, l] : locks)
        for (std::size_t i = 0; i < l.waiting.size(); ++i) {
            if (l.waiting[i].node != n.id || !grantable(l, l.waiting[i]))
                continue;
            lock::request r = l.waiting[i];
            l.waiting.erase(l.waiting.begin() + long(i));
            l.holders[n.id] = r.mode;
            input::lock_granted g{lock_resource::grace, {}, r.mode, value_valid, value};
            if (name != "grace") {
                g.resource = lock_resource::alive;
                g.node = node_id{unsigned(std::stoul(name.substr(6)))};
                g.value_valid = false;
            }
            if (r.value) {
                value = *r.value;
                value_valid = true;
            }
            if (n.held.contains(queue::asts))
                n.asts.push_back(g);
            else
                step(n, g);
            return true;
        }
    return false;
}

void stage::tell_grants(node& n) {
    while (n.daemon && !n.asts.empty()) {
        any_input g = std::move(n.asts.front());
        n.asts.pop_front();
        step(n, g);
    }
}

std::string stage::why_not_granted(const node& n) const {
    std::string why;
    for (const auto& [name, l] : locks)
        for (const lock::request& r : l.waiting) {
            if (r.node != n.id)
                continue;
            why += (why.empty() ? "" : "; ") + name + " " + to_string(r.mode) + " waits";
            if (frozen)
                why += ", the DLM is frozen";
            for (const auto& [id, m] : l.holders)
                if (id != n.id && !compatible(m, r.mode))
                    why += ", node " + std::to_string(id.value) + " holds " + to_string(m);
        }
    return why.empty() ? "nothing is asked for" : why;
}

void stage::run_until_quiet() {
    bool moved = true;
    for (int i = 0; moved; ++i) {
        if (i > 10000)
            throw std::logic_error("it never gets quiet");
        moved = false;
        for (auto& [id, n] : nodes) {
            if (!n.held.contains(queue::inbox))
                moved |= deliver(n);
            if (!n.held.contains(queue::kernel))
                while (acknowledge(n))
                    moved = true;
            if (!n.held.contains(queue::disk))
                while (make_durable(n))
                    moved = true;
            if (!n.held.contains(queue::locks))
                moved |= grant(n);
            moved |= answer_dlm(n);
        }
    }
}

void stage::run_for(duration d, bool everything_moves) {
    const instant end = now + d;
    for (;;) {
        if (everything_moves)
            run_until_quiet();
        instant next = end;
        for (const auto& [id, n] : nodes) {
            if (n.daemon && n.daemon->deadline() > now)
                next = std::min(next, n.daemon->deadline());
            if (n.kern.gate == gate_state::open)
                next = std::min(next, n.kern.permit);
        }
        now = next;
        for (auto& [id, n] : nodes) {
            if (n.kern.gate == gate_state::open && now >= n.kern.permit) {
                n.kern.gate = gate_state::closed; // the kernel's own timer
                line(std::to_string(id.value) + ": the kernel closes its gate: no permit");
                if (n.daemon)
                    step(n, input::kernel_closed{});
            }
            if (n.daemon && n.daemon->deadline() != 0 && n.daemon->deadline() <= now)
                step(n, input::tick{});
        }
        if (now >= end)
            break;
    }
    if (everything_moves)
        run_until_quiet();
}

} // namespace grace::interaction
