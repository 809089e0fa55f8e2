// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/nfs3_tracker.hh"

#include "graced/import/sources.hh"

#include <ctime>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

namespace grace {
namespace {
// Longer than it takes to notice that a server's nfsd is ending.
constexpr duration going_for = seconds(10);
// Bytes. To read more of it would keep the loop from its heartbeats.
constexpr std::size_t max_rmtab = 8U << 20;

std::int64_t realtime() {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec;
}
} // namespace

std::vector<std::string> reclaiming_hosts(const state& s, const std::string& server) {
    std::vector<std::string> hosts;
    const auto v = s.servers.find(server);
    if (v == s.servers.end())
        return hosts;
    const record_map& all = v->second.records;
    for (auto i = all.upper_bound(nlm_key(""));
         i != all.end() && kind_of(i->first) == record_kind::nlm; ++i)
        // Not by `at`: a client that comes in this grace for the first time is recorded, too, for
        // the next one. Bad scenario: it was purged, its lock is another's, and after a restart of
        // this daemon in the midst of reclaim it would pass.
        if (since_of(i->second) <= s.recovery)
            hosts.emplace_back(client_in(i->first));
    return hosts;
}

nfs3_tracker::nfs3_tracker(qb_loop_t* loop, record_import& records,
                           std::function<const fsm&()> machine, std::function<instant()> now)
    : records_(records)
    , machine_(std::move(machine))
    , now_(std::move(now))
    , callouts_(loop,
                [this](const std::string& server, const callout_request& r,
                       callout_server::reply reply) { on_callout(server, r, std::move(reply)); }) {}

void nfs3_tracker::watch(const std::string& server, const paths& where) {
    auto& w = watched_[server];
    if (!w || !(w->where == where)) {
        w = std::make_shared<watched>();
        w->where = where;
    }
    if (where.callout.empty())
        callouts_.close(server);
    else if (auto listening = callouts_.listen(server, where.callout, where.user); !listening)
        spdlog::error("server {}: no NFSv3 client will get a lock: {}", server,
                      listening.error().message);
}

void nfs3_tracker::unwatch(const std::string& server) {
    callouts_.close(server);
    watched_.erase(server);
}

bool nfs3_tracker::runs_here(const std::string& server) const {
    const fsm& f = machine_();
    const auto v = f.replicated().servers.find(server);
    const auto i = f.instances().find(server);
    return f.synced() && f.quorate() && v != f.replicated().servers.end() &&
           v->second.host == f.params().self && i != f.instances().end() && i->second.running &&
           !i->second.stopping;
}

void nfs3_tracker::on_callout(const std::string& server, const callout_request& r,
                              callout_server::reply reply) {
    const auto w = watched_.find(server);
    if (w == watched_.end())
        return reply(callout_answer::again, "server " + server + " is not known here");
    switch (r.what) {
    case callout_request::event::sm_notify:
        // It has restarted: lockd drops its locks, and gives it up if it does not come back.
        return reply(callout_answer::done, "");
    case callout_request::event::del_client:
        w->second->going[r.client] = now_() + going_for;
        return reply(callout_answer::done, "");
    case callout_request::event::add_client:
        break;
    }
    w->second->going.erase(r.client);
    records_.change(server, nlm_key(r.client), {}, false,
                    [server, client = r.client, reply = std::move(reply)](upcall_status s) {
                        if (s == upcall_status::ok)
                            return reply(callout_answer::done, "");
                        reply(callout_answer::again,
                              "server " + server + " is not hosted on this node");
                    });
}

void nfs3_tracker::every_second() {
    for (const auto& [server, w] : watched_) {
        if (!runs_here(server)) {
            w->going.clear();
            w->inode = 0; // another node may have changed what is on record
            continue;
        }
        const server_state& v = machine_().replicated().servers.at(server);
        if (v.need)
            w->going.clear();
        std::vector<std::string> gone;
        std::erase_if(w->going, [&](const auto& g) {
            if (g.second > now_())
                return false;
            if (const std::string key = nlm_key(g.first); v.records.contains(key))
                gone.push_back(key);
            return true;
        });
        if (!w->where.rmtab.empty() && w->open == 0)
            read_rmtab(server, *w);
        for (const std::string& key : gone)
            records_.change(server, key, {}, true, [](upcall_status) {});
    }
}

// What it says is compared with what is on record, and the difference recorded: it may be read as
// often as one likes.
void nfs3_tracker::read_rmtab(const std::string& server, watched& w) {
    struct stat s {};
    if (stat(w.where.rmtab.c_str(), &s) != 0)
        return;
    const std::int64_t changed = seconds(s.st_mtim.tv_sec) + s.st_mtim.tv_nsec;
    if (s.st_ino == w.inode && static_cast<std::uint64_t>(s.st_size) == w.size &&
        changed == w.changed)
        return;
    const auto text = import::read_whole(w.where.rmtab, max_rmtab);
    if (!text) {
        if (!w.told)
            spdlog::error("server {}: what is mounted from now on is not recorded: {}", server,
                          text.error().message);
        w.told = true;
        return;
    }
    w.told = false;
    const import::mount_table table = import::parse_rmtab(*text);
    // mountd writes in place: what is a second old is whole.
    w.inode = changed + seconds(1) < realtime() ? s.st_ino : 0;
    w.size = static_cast<std::uint64_t>(s.st_size);
    w.changed = changed;

    std::map<std::string, std::uint32_t> wanted; // by key
    for (const import::mount_entry& m : table.mounts)
        if (is_host_name(m.host) && is_mount_path(m.path) && wanted.size() < max_mounts)
            wanted[mount_key(m.host, m.path)] = m.count;
    struct change {
        std::string key, payload;
        bool remove;
    };
    std::vector<change> changes;
    const record_map& known = machine_().replicated().servers.at(server).mounts;
    for (const auto& [key, rec] : known)
        if (!wanted.contains(key))
            changes.push_back({key, {}, true});
    for (const auto& [key, count] : wanted)
        if (const auto k = known.find(key); k == known.end() || mount_count(k->second) != count)
            changes.push_back({key, encode_mount_count(count), false});
    w.open = changes.size();
    if (w.open != 0)
        spdlog::debug("server {}: {} mounts in its rmtab, {} changes to be recorded", server,
                      wanted.size(), w.open);
    for (change& c : changes)
        records_.change(server, c.key, c.payload, c.remove,
                        [server, kept = watched_.at(server)](upcall_status status) {
                            if (status != upcall_status::ok)
                                kept->inode = 0; // read again
                            if (--kept->open == 0)
                                spdlog::debug("server {}: what its rmtab says is on record",
                                              server);
                        });
}

} // namespace grace
