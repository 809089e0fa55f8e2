// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/record_import.hh"

#include "graced/hex.hh"

namespace grace {

void record_import::begin(const nlohmann::json& r, const fsm& machine, const reply_handle& h) {
    const auto server = r.at("server").get<std::string>();
    const auto v = machine.replicated().servers.find(server);
    if (!machine.synced() || !machine.quorate())
        return h.fail(
            to_code(request_status::not_quorate),
            "this node has no quorum, or has not joined the group yet: no record is kept");
    if (v == machine.replicated().servers.end() || v->second.host != machine.params().self)
        return h.fail(to_code(request_status::not_hosted),
                      "server " + server + " is not hosted on this node");
    const auto i = machine.instances().find(server);
    // Bad scenario: a client was purged yesterday and its lock given to another; a file of last
    // week puts it on record again, and at the next failover it reclaims what is not its own.
    if (i != machine.instances().end() && i->second.running && !r.value("force", false))
        return h.fail("void_now",
                      "server " + server +
                          " runs under graced, and its records are newer than any file: "
                          "nothing was imported. --force imports all the same");

    struct wanted {
        std::string name, princhash;
        bool remove;
    };
    std::vector<wanted> changes;
    for (const auto& c : r.value("records", nlohmann::json::array())) {
        const auto name = from_hex(c.at("name_hex").get<std::string>());
        const auto hash = from_hex(c.value("princhash_hex", ""));
        if (!name || name->empty() || name->size() > max_client_name || !hash ||
            hash->size() > max_princhash)
            return h.fail("bad_request",
                          "a record has a name of 1 to 1024 bytes and a hash of 32 at most");
        changes.push_back({*name, *hash, false});
    }
    for (const auto& c : r.value("remove", nlohmann::json::array())) {
        const auto name = from_hex(c.get<std::string>());
        if (!name || name->empty() || name->size() > max_client_name)
            return h.fail("bad_request", "a name has 1 to 1024 bytes");
        changes.push_back({*name, {}, true});
    }

    std::size_t added = 0, changed = 0, known = 0, removed = 0;
    std::vector<any_input> inputs;
    auto work = std::make_shared<job>();
    work->reply = h;
    work->server = r.value("last", false) ? server : "";
    for (const wanted& w : changes) {
        const auto has = v->second.records.find(w.name);
        const bool there = has != v->second.records.end();
        if (w.remove ? !there : there && has->second.princhash == w.princhash) {
            // Not recorded anew: in a grace that would count as reclaimed.
            known += w.remove ? 0 : 1;
            continue;
        }
        const ticket id{++last_};
        open_[id] = work;
        ++work->open;
        (w.remove ? removed : there ? changed : added) += 1;
        if (w.remove)
            inputs.emplace_back(input::remove{server, w.name, id});
        else
            inputs.emplace_back(input::create{server, w.name, w.princhash, id});
    }
    work->counts = {{"added", added}, {"changed", changed}, {"known", known}, {"removed", removed}};
    if (work->open == 0)
        return finish(*work);
    for (any_input& in : inputs)
        take_(std::move(in));
}

void record_import::finish(job& work) {
    work.counts["refused"] = work.refused;
    if (!work.server.empty())
        ended_(work.server);
    work.reply.finish(work.counts);
}

void record_import::answer(ticket id, upcall_status status) {
    const auto it = open_.find(id);
    if (it == open_.end()) {
        if ((id.value & own) == 0)
            nfsd_.answer(id, status);
        return;
    }
    const auto work = it->second;
    open_.erase(it);
    work->refused += status == upcall_status::ok ? 0 : 1;
    if (--work->open == 0)
        finish(*work);
}

void record_import::answer_grace_start(ticket id, const std::vector<known_client>& clients) {
    nfsd_.answer_grace_start(id, clients);
}

} // namespace grace
