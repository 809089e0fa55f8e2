// SPDX-License-Identifier: LGPL-2.1-or-later
// Layout: docs/wire.md. Integers little-endian; strings and blobs are a u32 length and the bytes;
// maps are a u32 count and the entries in order. A decoder that meets the end, a length beyond its
// limit, an unknown tag or bytes left over yields nothing at all.
#include "grace/wire.hh"

#include "codec.hh"

#include <algorithm>

namespace grace::wire {
namespace {

constexpr std::uint32_t message_magic = 0x43524721;  // "!GRC"
constexpr std::uint32_t snapshot_magic = 0x53524721; // "!GRS"
constexpr std::uint32_t value_magic = 0x4c524721;    // "!GRL"

// --- one writer and one reader for each message; the tag is the variant's index ---

struct put_body {
    writer& w;
    void operator()(const msg::hello& m) {
        w.put(m.number);
        w.put(m.name);
        w.put(m.boot);
        w.put(m.attached);
        w.put(m.permit_ttl);
        w.put(m.has_database);
        w.put(m.view);
        w.put(m.quorate_view);
        w.put(m.current);
        w.put(m.applied);
        w.put(m.starts);
        w.put(m.history);
        w.each(m.running, [&](const auto& e) {
            w.put(e.first);
            w.put(e.second);
        });
    }
    void operator()(const msg::snapshot& m) {
        w.put(m.to);
        w.put(m.hello);
        w.put(m.part);
        w.put(m.parts);
        w.put(std::span(m.data));
    }
    void operator()(const msg::start& m) {
        w.put(m.server);
        w.put(m.why);
    }
    void operator()(const msg::released& m) { w.put(m.server); }
    void operator()(const msg::node_down& m) {
        w.put(m.node);
        w.put(m.deaths);
    }
    void operator()(const msg::attached&) {}
    void operator()(const msg::enforcing& m) { w.put(m.at); }
    void operator()(const msg::done& m) {
        w.put(m.server);
        w.put(m.start);
        w.put(m.how);
    }
    void operator()(const msg::purge& m) {
        w.put(m.recovery);
        w.put(m.starts);
    }
    void operator()(const msg::lift& m) {
        w.put(m.recovery);
        w.put(m.starts);
    }
    void operator()(const msg::lift_request& m) {
        w.put(m.server);
        w.put(m.start);
    }
    void operator()(const msg::extend_request& m) {
        w.put(m.server);
        w.put(m.start);
        w.put(m.by);
    }
    void operator()(const msg::records& m) {
        w.put(m.batch);
        w.each(m.changes, [&](const msg::record_change& c) {
            w.put(c.remove);
            w.put(c.server);
            w.put(c.client);
            w.put(c.princhash);
        });
    }
    void operator()(const msg::durable& m) { w.put(m.at); }
    void operator()(const msg::heartbeat& m) {
        w.put(m.sent);
        w.each(m.heard, [&](const auto& e) {
            w.put(e.first);
            w.put(e.second);
        });
    }
    void operator()(const msg::barrier& m) { w.put(m.number); }
    void operator()(const msg::detached&) {}
    void operator()(const msg::view_stored&) {}
    void operator()(const msg::bypass& m) {
        w.put(m.node);
        w.put(m.on);
    }
};

constexpr std::uint64_t count_limit = std::uint64_t{1} << 62; // counts are counted up from here

// Times are added to others: one near the end of the range would overflow and, with that, could
// make a permit of the past one of the far future.
void get_time(reader& r, std::int64_t& t) {
    r.get(t);
    if (t < 0 || t > std::int64_t{1} << 60)
        r.fail();
}

// What every state satisfies that apply() made. A snapshot that breaks it would end each daemon
// that adopts it (invariants.cc), after every restart anew.
bool consistent(const state& s) {
    for (const auto& [name, v] : s.servers) {
        const bool settled = v.settled == v.start;
        if (v.start > s.starts || v.lost > v.start || v.settled > v.start ||
            (v.need ? settled : !settled && (!v.needed || s.lifting)))
            return false;
    }
    return s.current && s.current.value < count_limit && s.applied.value < count_limit &&
           s.starts.value < count_limit && s.view.number < count_limit && s.recovery < s.current &&
           (in_grace(s) || !any_need(s)) && (!s.lifting || (in_grace(s) && !any_need(s)));
}

struct get_body {
    reader& r;
    void operator()(msg::hello& m) {
        r.get(m.number);
        r.get(m.name, max_node_name);
        r.get(m.boot);
        r.get(m.attached);
        get_time(r, m.permit_ttl);
        r.get(m.has_database);
        r.get(m.view);
        r.get(m.quorate_view);
        r.get(m.current);
        r.get(m.applied);
        r.get(m.starts);
        r.get(m.history);
        if (m.starts.value >= count_limit || m.view >= count_limit)
            r.fail();
        r.each(max_servers, [&] {
            std::string s;
            r.get_server(s);
            r.get(m.running[s]);
            if (m.running[s].value >= count_limit)
                r.fail();
        });
    }
    void operator()(msg::snapshot& m) {
        r.get(m.to);
        r.get(m.hello);
        r.get(m.part);
        r.get(m.parts);
        r.get(m.data, snapshot_part_size);
        if (m.parts == 0 || m.part >= m.parts)
            r.fail();
    }
    void operator()(msg::start& m) {
        r.get_server(m.server);
        r.get(m.why, msg::start_reason::dropped);
    }
    void operator()(msg::released& m) { r.get_server(m.server); }
    void operator()(msg::node_down& m) {
        r.get(m.node);
        r.get(m.deaths);
    }
    void operator()(msg::attached&) {}
    void operator()(msg::enforcing& m) { r.get(m.at); }
    void operator()(msg::done& m) {
        r.get_server(m.server);
        r.get(m.start);
        r.get(m.how, msg::outcome::intact);
    }
    void operator()(msg::purge& m) {
        r.get(m.recovery);
        r.get(m.starts);
    }
    void operator()(msg::lift& m) {
        r.get(m.recovery);
        r.get(m.starts);
    }
    void operator()(msg::lift_request& m) {
        r.get_server(m.server);
        r.get(m.start);
    }
    void operator()(msg::extend_request& m) {
        r.get_server(m.server);
        r.get(m.start);
        r.get(m.by);
        if (m.by <= 0 || m.by > msg::max_extension)
            r.fail();
    }
    void operator()(msg::records& m) {
        r.get(m.batch);
        r.each(max_changes, [&] {
            msg::record_change c;
            r.get(c.remove);
            r.get_server(c.server);
            r.get_client(c.client);
            r.get(c.princhash, max_princhash);
            m.changes.push_back(std::move(c));
        });
    }
    void operator()(msg::durable& m) { r.get(m.at); }
    void operator()(msg::heartbeat& m) {
        get_time(r, m.sent);
        r.each(max_nodes, [&] {
            node_id n;
            instant t = 0;
            r.get(n);
            get_time(r, t);
            m.heard[n] = t;
        });
    }
    void operator()(msg::barrier& m) { r.get(m.number); }
    void operator()(msg::detached&) {}
    void operator()(msg::view_stored&) {}
    void operator()(msg::bypass& m) {
        r.get(m.node);
        r.get(m.on);
    }
};

} // namespace

std::vector<std::uint8_t> encode(const envelope& e) {
    writer w;
    w.put(message_magic);
    w.put(version);
    w.put(static_cast<std::uint16_t>(e.body.index()));
    w.put(e.view.founding);
    w.put(e.view.number);
    w.put(e.life);
    std::visit(put_body{w}, e.body);
    return std::move(w.out);
}

std::optional<envelope> decode(std::span<const std::uint8_t> in) {
    reader r(in);
    std::uint32_t magic = 0;
    std::uint16_t v = 0, tag = 0;
    envelope e;
    r.get(magic);
    r.get(v);
    r.get(tag);
    if (!r.ok() || magic != message_magic || v != version || !choose(e.body, tag))
        return {};
    r.get(e.view.founding);
    r.get(e.view.number);
    r.get(e.life);
    std::visit(get_body{r}, e.body);
    if (!r.at_end())
        return {};
    return e;
}

// --- snapshots ---

std::uint64_t hash(std::span<const std::uint8_t> what, std::uint64_t before) {
    std::uint64_t h = before ^ 14695981039346656037u;
    for (std::uint8_t b : what)
        h = (h ^ b) * 1099511628211u;
    return h;
}

namespace {

constexpr std::size_t operations = 5; // of records come first in the variant

struct put_operation {
    writer& w;
    void operator()(const store_op::put_record& o) {
        w.put(o.server);
        w.put(o.client);
        w.put(o.rec);
    }
    void operator()(const store_op::remove_record& o) {
        w.put(o.server);
        w.put(o.client);
    }
    void range(const std::string& server, epoch at) {
        w.put(server);
        w.put(at);
    }
    void operator()(const store_op::lower& o) { range(o.server, o.limit); }
    void operator()(const store_op::renew& o) { range(o.server, o.at); }
    void operator()(const store_op::purge& o) { range(o.server, o.limit); }
    void operator()(const store_op::replace_all&) {}
    void operator()(const store_op::put_meta&) {}
};

struct get_operation {
    reader& r;
    const state& of;
    void server(std::string& name) {
        r.get_server(name);
        if (!of.servers.contains(name))
            r.fail();
    }
    void at(epoch& e) {
        r.get(e);
        if (e > of.current)
            r.fail();
    }
    void operator()(store_op::put_record& o) {
        server(o.server);
        r.get_client(o.client);
        r.get(o.rec);
        if (o.rec.at > of.current)
            r.fail();
    }
    void operator()(store_op::remove_record& o) {
        server(o.server);
        r.get_client(o.client);
    }
    void range(std::string& name, epoch& e) {
        server(name);
        at(e);
    }
    void operator()(store_op::lower& o) { range(o.server, o.limit); }
    void operator()(store_op::renew& o) { range(o.server, o.at); }
    void operator()(store_op::purge& o) { range(o.server, o.limit); }
    void operator()(store_op::replace_all&) { r.fail(); }
    void operator()(store_op::put_meta&) { r.fail(); }
};
static_assert(std::is_same_v<std::variant_alternative_t<operations, store_operation>, store_op::replace_all>);

void put_head(writer& w, const snapshot_writer& from) {
    const state& s = from.from;
    w.put(snapshot_magic);
    w.put(version);
    w.put(from.records);
    w.put(from.since.has_value());
    if (from.since) {
        w.put(from.since->applied);
        w.put(from.since->history);
        w.put(static_cast<std::uint64_t>(from.since->ops.size()));
    }
    w.put(s.view.founding);
    w.put(s.view.number);
    w.put(s.current);
    w.put(s.recovery);
    w.put(s.applied);
    w.put(s.history);
    w.put(s.epoch_at);
    w.put(s.wants_durable);
    w.put(s.starts);
    w.put(s.lifting);
    w.put(s.purge_at);
    w.put(s.purged);
    w.put(s.last_done);
    w.each(s.nodes, [&](const auto& e) {
        const node_state& n = e.second;
        w.put(e.first);
        w.put(n.name);
        w.put(n.member);
        w.put(n.synced);
        w.put(n.attached);
        w.put(n.down);
        w.put(n.life);
        w.put(n.boot);
        w.put(n.hello);
        w.put(n.deaths);
        w.put(n.enforcing);
        w.put(n.durable);
        w.put(n.view);
        w.put(n.permit_ttl);
    });
    w.each(s.servers, [&](const auto& e) {
        const server_state& v = e.second;
        w.put(e.first);
        w.put(v.host);
        w.put(v.need);
        w.put(v.needed);
        w.put(v.start);
        w.put(v.lost);
        w.put(v.settled);
    });
}

std::uint64_t count_records(const state& s) {
    std::uint64_t all = 0;
    for (const auto& [name, v] : s.servers)
        all += v.records.size() + v.mounts.size();
    return all;
}

void get_head(reader& r, snapshot_reader& to) {
    state& s = to.into;
    std::uint32_t magic = 0;
    std::uint16_t v = 0;
    r.get(magic);
    r.get(v);
    r.get(to.records);
    r.get(to.is_difference);
    to.missing = to.records;
    if (to.is_difference) {
        r.get(to.since.applied);
        r.get(to.since.history);
        r.get(to.missing);
    }
    if (magic != snapshot_magic || v != version)
        r.fail();
    r.get(s.view.founding);
    r.get(s.view.number);
    r.get(s.current);
    r.get(s.recovery);
    r.get(s.applied);
    r.get(s.history);
    r.get(s.epoch_at);
    r.get(s.wants_durable);
    r.get(s.starts);
    r.get(s.lifting);
    r.get(s.purge_at);
    r.get(s.purged);
    r.get(s.last_done);
    r.each(max_nodes, [&] {
        node_id id;
        node_state n;
        r.get(id);
        r.get(n.name, max_node_name);
        r.get(n.member);
        r.get(n.synced);
        r.get(n.attached);
        r.get(n.down);
        r.get(n.life);
        r.get(n.boot);
        r.get(n.hello);
        r.get(n.deaths);
        r.get(n.enforcing);
        r.get(n.durable);
        r.get(n.view);
        get_time(r, n.permit_ttl);
        s.nodes[id] = std::move(n);
    });
    r.each(max_servers, [&] {
        std::string name;
        server_state server;
        r.get_server(name);
        r.get(server.host);
        r.get(server.need);
        r.get(server.needed);
        r.get(server.start);
        r.get(server.lost);
        r.get(server.settled);
        s.servers[name] = std::move(server);
    });
}

void count_parts(snapshot_writer& w, std::uint64_t all) {
    if (all > w.in_part)
        w.parts = static_cast<std::uint32_t>((all + w.in_part - 1) / w.in_part);
}
} // namespace

snapshot_writer write_snapshot(state s, std::uint32_t in_part) {
    snapshot_writer w;
    w.records = count_records(s);
    w.from = std::move(s);
    w.in_part = in_part;
    count_parts(w, w.records);
    return w;
}

snapshot_writer write_difference(state s, difference since, std::uint32_t in_part) {
    snapshot_writer w;
    w.records = count_records(s);
    w.from = std::move(s);
    for (auto& [name, v] : w.from.servers)
        v.records = v.mounts = {};
    w.since = std::move(since);
    w.in_part = in_part;
    count_parts(w, w.since->ops.size());
    return w;
}

// After the head, runs of records: a server's name, their number, the records; 0 runs end a part
// that has none.
std::vector<std::uint8_t> next_part(snapshot_writer& from) {
    writer w;
    if (from.next == 0)
        put_head(w, from);
    ++from.next;
    std::uint32_t room = from.in_part;
    for (; from.since && from.op < from.since->ops.size() && room > 0; ++from.op, --room) {
        const store_operation& op = from.since->ops[from.op];
        w.put(static_cast<std::uint8_t>(op.index()));
        std::visit(put_operation{w}, op);
    }
    for (auto v = from.from.servers.lower_bound(from.server); v != from.from.servers.end() && room > 0;
         ++v) {
        if (v->first != from.server)
            from.client.clear();
        from.server = v->first;
        writer run;
        std::uint32_t n = 0;
        for (const record_map* map : {&v->second.records, &v->second.mounts}) {
            const bool mounts = map == &v->second.mounts;
            if (!mounts && kind_of(from.client) == record_kind::mount)
                continue; // they were all written
            auto i = from.client.empty() || mounts != (kind_of(from.client) == record_kind::mount)
                         ? map->begin()
                         : map->upper_bound(from.client);
            for (; i != map->end() && room > 0; ++i, --room, ++n) {
                run.put(i->first);
                run.put(i->second);
                from.client = i->first;
            }
        }
        if (n == 0)
            continue;
        w.put(v->first);
        w.put(n);
        w.out.insert(w.out.end(), run.out.begin(), run.out.end());
    }
    w.put(checksum(w.out));
    return std::move(w.out);
}

bool take_part(snapshot_reader& to, std::span<const std::uint8_t> in) {
    if (in.size() < 4)
        return false;
    reader tail(in.last(4));
    std::uint32_t sum = 0;
    tail.get(sum);
    if (sum != checksum(in.first(in.size() - 4)))
        return false;
    reader r(in.first(in.size() - 4));
    if (!to.begun)
        get_head(r, to);
    to.begun = true;
    while (to.is_difference && r.ok() && r.left() > 0) {
        std::uint8_t tag = 0;
        store_operation op;
        r.get(tag);
        if (to.missing-- == 0 || tag >= operations || !choose(op, tag))
            return false;
        std::visit(get_operation{r, to.into}, op);
        to.since.ops.push_back(std::move(op));
    }
    while (r.ok() && r.left() > 0) {
        std::string server;
        r.get_server(server);
        const auto v = to.into.servers.find(server);
        if (v == to.into.servers.end())
            return false;
        r.each(in.size(), [&] {
            std::string client;
            record rec;
            r.get_client(client);
            r.get(rec);
            record_map& map = map_of(v->second, client);
            if (to.missing == 0 || rec.at > to.into.current || map.contains(client))
                r.fail();
            if (!r.ok())
                return;
            --to.missing;
            map.put(client, rec);
        });
    }
    return r.ok();
}

std::optional<state> finish(snapshot_reader& from) {
    if (!from.begun || from.missing != 0 || !consistent(from.into))
        return {};
    return std::move(from.into);
}

std::vector<std::uint8_t> encode_state(const state& s) {
    snapshot_writer w = write_snapshot(s, ~std::uint32_t{0});
    return next_part(w);
}

std::optional<state> decode_state(std::span<const std::uint8_t> in) {
    snapshot_reader r;
    if (!take_part(r, in))
        return {};
    return finish(r);
}

lvb_bytes encode_lock_value(const lock_value& v) {
    writer w;
    w.put(value_magic);
    w.put(v.current);
    w.put(v.recovery);
    w.put(v.purged);
    w.put(checksum(w.out));
    lvb_bytes b{};
    std::copy(w.out.begin(), w.out.end(), b.begin());
    static_assert(sizeof(lvb_bytes) == 4 + 3 * 8 + 4);
    return b;
}

std::optional<lock_value> decode_lock_value(const lvb_bytes& b) {
    reader r(b);
    std::uint32_t magic = 0, sum = 0;
    lock_value v;
    r.get(magic);
    r.get(v.current);
    r.get(v.recovery);
    r.get(v.purged);
    r.get(sum);
    if (magic != value_magic || sum != checksum(std::span(b).first(28)))
        return {};
    return v;
}

} // namespace grace::wire
