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
        std::string key, payload;
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
        changes.push_back({nfs4_key(*name), *hash, false});
    }
    for (const auto& c : r.value("remove", nlohmann::json::array())) {
        const auto name = from_hex(c.get<std::string>());
        if (!name || name->empty() || name->size() > max_client_name)
            return h.fail("bad_request", "a name has 1 to 1024 bytes");
        changes.push_back({nfs4_key(*name), {}, true});
    }
    for (const auto& c : r.value("hosts", nlohmann::json::array())) {
        const auto host = c.get<std::string>();
        if (!is_host_name(host))
            return h.fail("bad_request", "an NFSv3 client has a name or an address");
        changes.push_back({nlm_key(host), {}, false});
    }
    for (const auto& c : r.value("mounts", nlohmann::json::array())) {
        const auto client = c.at("client").get<std::string>();
        const auto path = from_hex(c.at("path_hex").get<std::string>());
        if (!is_host_name(client) || !path || !is_mount_path(*path))
            return h.fail("bad_request", "a mount has a client and an absolute path");
        changes.push_back({mount_key(client, *path),
                           encode_mount_count(c.value("count", std::uint32_t{1})), false});
    }

    std::size_t added = 0, changed = 0, known = 0, removed = 0;
    std::vector<wanted> missing;
    auto work = std::make_shared<job>();
    work->reply = h;
    work->server = r.value("last", false) ? server : "";
    for (const wanted& w : changes) {
        const record_map& all =
            kind_of(w.key) == record_kind::mount ? v->second.mounts : v->second.records;
        const auto has = all.find(w.key);
        const bool there = has != all.end();
        if (w.remove ? !there
                     : there && (kind_of(w.key) == record_kind::nlm ||
                                 has->second.princhash == w.payload)) {
            // Not recorded anew: in a grace that would count as reclaimed.
            known += w.remove ? 0 : 1;
            continue;
        }
        (w.remove ? removed : there ? changed : added) += 1;
        missing.push_back(w);
    }
    work->open = missing.size();
    work->counts = {{"added", added}, {"changed", changed}, {"known", known}, {"removed", removed}};
    if (work->open == 0)
        return finish(*work);
    for (const wanted& w : missing)
        change(server, w.key, w.payload, w.remove, [this, work](upcall_status status) {
            work->refused += status == upcall_status::ok ? 0 : 1;
            if (--work->open == 0)
                finish(*work);
        });
}

void record_import::change(const std::string& server, const std::string& key,
                           const std::string& payload, bool remove,
                           std::function<void(upcall_status)> done) {
    const ticket id{++last_};
    open_[id] = std::move(done);
    if (remove)
        take_(input::remove{server, key, id});
    else
        take_(input::create{server, key, payload, id});
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
    const auto done = std::move(it->second);
    open_.erase(it);
    done(status);
}

void record_import::answer_grace_start(ticket id, const std::vector<known_client>& clients) {
    nfsd_.answer_grace_start(id, clients);
}

} // namespace grace
