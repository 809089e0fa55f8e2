// SPDX-License-Identifier: GPL-2.0-or-later
#include "adapters/corosync_group.hh"

#include <algorithm>
#include <corosync/cmap.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <corosync/votequorum.h>
#include <cstring>
#include <deque>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace grace {
namespace {
constexpr std::size_t max_queued_bytes = 64u << 20; // more than a snapshot's window ever needs
constexpr std::uint64_t retry_ns = 2'000'000;
constexpr std::uint64_t regroup_ns = 50'000'000;
constexpr int connect_tries = 50; // CS_ERR_TRY_AGAIN for five seconds: corosync is starting

// corosync's services answer TRY_AGAIN while they start.
template <typename F>
cs_error_t patiently(F call) {
    cs_error_t e = CS_OK;
    for (int i = 0; i < connect_tries; ++i) {
        e = call();
        if (e != CS_ERR_TRY_AGAIN)
            break;
        usleep(100'000);
    }
    return e;
}
} // namespace

struct corosync_group::impl {
    qb_loop_t* loop = nullptr;
    cpg_handle_t cpg = 0;
    quorum_handle_t quorum = 0;
    votequorum_handle_t votes = 0;
    int cpg_fd = -1, quorum_fd = -1;
    corosync_facts facts;
    cpg_name group{};
    cpg_name dlm_group{};
    sink out;
    lost on_lost;
    // What quorum's two notifications have said: it counts when both are about the same ring.
    std::uint64_t nodes_ring = 0;
    std::set<node_id> left;
    std::optional<input::quorum> undecided;
    std::deque<bytes> queue;
    std::size_t queue_bytes = 0;
    qb_loop_timer_handle retry = 0;
    bool retry_armed = false;
    bool wants_in = true,
         is_in = true; // the group; where they differ, settle_membership() is under way
    qb_loop_timer_handle regroup = 0;
    bool regroup_armed = false;

    ~impl() {
        if (retry_armed)
            qb_loop_timer_del(loop, retry);
        if (regroup_armed)
            qb_loop_timer_del(loop, regroup);
        disconnect();
        if (quorum_fd >= 0)
            qb_loop_poll_del(loop, quorum_fd);
        if (votes)
            votequorum_finalize(votes);
        if (quorum)
            quorum_finalize(quorum);
    }

    void lose(const char* what, cs_error_t e) {
        if (!on_lost)
            return;
        auto f = std::move(on_lost);
        on_lost = nullptr;
        f(std::string(what) + ": " + cs_strerror(e));
    }

    void settle_later() {
        regroup_armed = qb_loop_timer_add(
                            loop, QB_LOOP_HIGH, regroup_ns, this,
                            [](void* p) {
                                auto* self = static_cast<impl*>(p);
                                self->regroup_armed = false;
                                self->settle_membership();
                            },
                            &regroup) == 0;
    }

    void settle_membership() {
        if (wants_in == is_in)
            return;
        const cs_error_t e = wants_in ? join_anew() : cpg_leave(cpg, &group);
        if (e == CS_OK) {
            is_in = wants_in;
            return flush();
        }
        if (e == CS_ERR_TRY_AGAIN || e == CS_ERR_BUSY)
            return settle_later();
        lose(wants_in ? "cannot join the process group again" : "cannot leave the process group",
             e);
    }

    // corosync lets no connection join a group again that it has left: it stays in LEAVE_STARTED
    // for ever and gets CS_ERR_EXIST (exec/cpg.c, notify_lib_joinlist(), 3.1.7 and later). A new
    // one has to wait until corosync has done away with the old one (CS_ERR_EXIST too) and has told
    // the others of the leave (CS_ERR_TRY_AGAIN).
    cs_error_t join_anew() {
        disconnect();
        cs_error_t e = connect();
        if (e == CS_OK) {
            dispatch();
            e = cpg_join(cpg, &group);
        }
        return e == CS_ERR_EXIST ? CS_ERR_TRY_AGAIN : e;
    }

    cs_error_t connect();
    void dispatch();
    void disconnect() {
        if (cpg_fd >= 0)
            qb_loop_poll_del(loop, std::exchange(cpg_fd, -1));
        if (cpg)
            cpg_finalize(std::exchange(cpg, 0));
    }

    void flush() {
        while (!queue.empty() && is_in) {
            iovec v{queue.front().data(), queue.front().size()};
            cs_error_t e = cpg_mcast_joined(cpg, CPG_TYPE_AGREED, &v, 1);
            if (e == CS_ERR_TRY_AGAIN) {
                if (!retry_armed)
                    retry_armed = qb_loop_timer_add(
                                      loop, QB_LOOP_HIGH, retry_ns, this,
                                      [](void* p) {
                                          auto* self = static_cast<impl*>(p);
                                          self->retry_armed = false;
                                          self->flush();
                                      },
                                      &retry) == 0;
                return;
            }
            if (e != CS_OK)
                return lose("corosync does not take messages any more", e);
            queue_bytes -= queue.front().size();
            queue.pop_front();
        }
    }

    // Bad scenario: the quorum of a ring is known and who has left for it is not; a gate opens, and
    // a node that is in the ring had rebooted meanwhile.
    void on_nodes(std::uint64_t ring, std::span<const std::uint32_t> gone) {
        nodes_ring = ring;
        for (std::uint32_t id : gone)
            left.insert(node_id{id});
        tell_quorum();
    }

    void tell_quorum() {
        if (!undecided || undecided->ring_seq != nodes_ring)
            return;
        undecided->left = std::exchange(left, {});
        out(*std::exchange(undecided, std::nullopt));
    }

    void on_quorum(bool quorate, std::uint64_t ring, std::span<const std::uint32_t> list) {
        input::quorum q{quorate, ring, {}, 0, {}};
        for (std::uint32_t id : list) {
            votequorum_info info{};
            // Votes are 1 where votequorum cannot say: another quorum provider.
            std::uint32_t n = 1;
            if (votequorum_getinfo(votes, id, &info) == CS_OK) {
                n = info.node_votes;
                q.expected = std::max(q.expected, info.highest_expected);
            }
            q.votes[node_id{id}] = n;
        }
        if (q.expected == 0)
            q.expected = static_cast<std::uint32_t>(q.votes.size());
        undecided = std::move(q);
        tell_quorum();
    }
};

namespace {
corosync_group::sink* sink_of(cpg_handle_t h);

void on_deliver(cpg_handle_t h, const cpg_name*, std::uint32_t node, std::uint32_t, void* data,
                std::size_t size) {
    const auto* p = static_cast<const std::uint8_t*>(data);
    (*sink_of(h))(input::deliver{node_id{node}, bytes(p, p + size)});
}

void on_confchg(cpg_handle_t h, const cpg_name*, const cpg_address* members, std::size_t n_members,
                const cpg_address* left, std::size_t n_left, const cpg_address* joined,
                std::size_t n_joined) {
    input::confchg c;
    for (const cpg_address& a : std::span(members, n_members))
        c.members.push_back(node_id{a.nodeid});
    for (const cpg_address& a : std::span(joined, n_joined))
        c.joined.push_back(node_id{a.nodeid});
    for (const cpg_address& a : std::span(left, n_left))
        c.left.push_back({node_id{a.nodeid}, a.reason == CPG_REASON_NODEDOWN
                                                 ? input::left_reason::node
                                                 : input::left_reason::process});
    // A daemon that came back before its predecessor's end was known is on the list twice.
    std::ranges::sort(c.members);
    c.members.erase(std::ranges::unique(c.members).begin(), c.members.end());
    (*sink_of(h))(std::move(c));
}

void on_totem(cpg_handle_t h, cpg_ring_id ring, std::uint32_t, const std::uint32_t*) {
    (*sink_of(h))(input::ring{ring.seq});
}

void* context_of(cpg_handle_t h) {
    void* p = nullptr;
    cpg_context_get(h, &p);
    return p;
}
corosync_group::sink* sink_of(cpg_handle_t h) {
    return static_cast<corosync_group::sink*>(context_of(h));
}

// The callbacks carry no context of their own; the handle does.
template <typename T>
T* context_of(quorum_handle_t h) {
    const void* p = nullptr;
    quorum_context_get(h, &p);
    return static_cast<T*>(const_cast<void*>(p));
}

std::string cmap_string(cmap_handle_t c, const std::string& key) {
    char* v = nullptr;
    if (cmap_get_string(c, key.c_str(), &v) != CS_OK)
        return {};
    std::string s(v);
    free(v);
    return s;
}

bool cmap_flag(cmap_handle_t c, const char* key, bool otherwise = false) {
    std::uint8_t v = 0;
    return cmap_get_uint8(c, key, &v) == CS_OK ? v != 0 : otherwise;
}

result<corosync_facts> read_facts(std::uint32_t self) {
    corosync_facts f;
    f.self = node_id{self};
    cmap_handle_t c = 0;
    if (cs_error_t e = patiently([&] { return cmap_initialize(&c); }); e != CS_OK)
        return fail(std::string("corosync's configuration (cmap) cannot be read: ") +
                    cs_strerror(e) + "; check `corosync-cmapctl`");
    for (int i = 0; i < 128; ++i) {
        const std::string node = "nodelist.node." + std::to_string(i) + ".";
        std::uint32_t id = 0;
        if (cmap_get_uint32(c, (node + "nodeid").c_str(), &id) == CS_OK && id == self)
            f.name = cmap_string(c, node + "name");
    }
    if (f.name.empty()) {
        char host[256] = {};
        gethostname(host, sizeof host - 1);
        f.name = host;
    }
    if (cmap_get_uint32(c, "runtime.config.totem.token", &f.token_ms) != CS_OK)
        f.token_ms = 0;
    // two_node alone switches wait_for_all on (votequorum(5)).
    if (cmap_flag(c, "quorum.two_node") && !cmap_flag(c, "quorum.wait_for_all", true))
        f.warnings.push_back(
            "corosync.conf has two_node without wait_for_all: a node that comes up "
            "alone is quorate and may found the group from an old database");
    if (cmap_flag(c, "quorum.last_man_standing"))
        f.warnings.push_back("corosync.conf has last_man_standing: a minority that shrank step by "
                             "step stays quorate; make sure that fencing is on");
    cmap_finalize(c);
    return f;
}
} // namespace

cs_error_t corosync_group::impl::connect() {
    cpg_model_v1_data_t model{};
    model.model = CPG_MODEL_V1;
    model.cpg_deliver_fn = on_deliver;
    model.cpg_confchg_fn = on_confchg;
    model.cpg_totem_confchg_fn = on_totem;
    model.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF;
    return cpg_model_initialize(&cpg, CPG_MODEL_V1, reinterpret_cast<cpg_model_data_t*>(&model),
                                nullptr);
}

void corosync_group::impl::dispatch() {
    cpg_context_set(cpg, &out);
    cpg_fd_get(cpg, &cpg_fd);
    qb_loop_poll_add(loop, QB_LOOP_HIGH, cpg_fd, POLLIN, this,
                     [](std::int32_t, std::int32_t, void* p) -> std::int32_t {
                         auto* self = static_cast<impl*>(p);
                         cs_error_t e = cpg_dispatch(self->cpg, CS_DISPATCH_ALL);
                         if (e == CS_OK || e == CS_ERR_TRY_AGAIN)
                             return 0;
                         self->lose("corosync (cpg) is gone", e);
                         return -1;
                     });
}

result<std::unique_ptr<corosync_group>> corosync_group::connect(qb_loop_t* loop) {
    auto i = std::make_unique<impl>();
    i->loop = loop;
    auto missing = [](const char* service, cs_error_t e) {
        return fail(std::string("corosync does not answer (") + service + ": " + cs_strerror(e) +
                        "): start it (systemctl start corosync), or set state = single in "
                        "graced.conf if this host is no cluster node",
                    e);
    };
    if (cs_error_t e = patiently([&] { return i->connect(); }); e != CS_OK)
        return missing("cpg", e);
    quorum_model_v1_data_t q{};
    q.model = QUORUM_MODEL_V1;
    q.quorum_notify_fn = [](quorum_handle_t h, std::uint32_t quorate, quorum_ring_id ring,
                            std::uint32_t n, const std::uint32_t* list) {
        context_of<impl>(h)->on_quorum(quorate != 0, ring.seq, {list, n});
    };
    q.nodelist_notify_fn = [](quorum_handle_t h, quorum_ring_id ring, std::uint32_t,
                              const std::uint32_t*, std::uint32_t, const std::uint32_t*,
                              std::uint32_t n, const std::uint32_t* gone) {
        context_of<impl>(h)->on_nodes(ring.seq, {gone, n});
    };
    std::uint32_t type = 0;
    if (cs_error_t e = patiently([&] {
            return quorum_model_initialize(&i->quorum, QUORUM_MODEL_V1,
                                           reinterpret_cast<quorum_model_data_t*>(&q), &type,
                                           i.get());
        });
        e != CS_OK)
        return missing("quorum", e);
    if (type != QUORUM_SET)
        return fail(
            "corosync has no quorum provider: set `quorum { provider: corosync_votequorum }` "
            "in corosync.conf; without quorum two halves of a cluster would both go on");
    if (cs_error_t e = patiently([&] { return votequorum_initialize(&i->votes, nullptr); });
        e != CS_OK)
        return missing("votequorum", e);
    std::uint32_t self = 0;
    if (cs_error_t e = patiently([&] { return cpg_local_get(i->cpg, &self); }); e != CS_OK)
        return missing("cpg", e);
    result<corosync_facts> facts = read_facts(self);
    if (!facts)
        return tl::unexpected(facts.error());
    i->facts = *facts;
    return std::unique_ptr<corosync_group>(new corosync_group(std::move(i)));
}

corosync_group::corosync_group(std::unique_ptr<impl> i)
    : impl_(std::move(i)) {}
corosync_group::~corosync_group() = default;
const corosync_facts& corosync_group::facts() const {
    return impl_->facts;
}
std::size_t corosync_group::queued() const {
    return impl_->queue_bytes;
}

result<void> corosync_group::join(const std::string& group, const std::string& dlm_group, sink out,
                                  lost on_lost) {
    impl& i = *impl_;
    auto name = [](cpg_name& to, const std::string& from) {
        to.length = static_cast<std::uint32_t>(std::min(from.size(), sizeof to.value - 1));
        std::memcpy(to.value, from.data(), to.length);
    };
    name(i.group, group);
    name(i.dlm_group, dlm_group);
    // dlm_controld counts the terminating zero as part of its group's name (dlm, daemon_cpg.c);
    // without it this is another group, an empty one, and every node would pass for lost.
    if (!dlm_group.empty())
        i.dlm_group.length += 1;
    i.out = std::move(out);
    i.on_lost = std::move(on_lost);
    i.dispatch();

    quorum_fd_get(i.quorum, &i.quorum_fd);
    qb_loop_poll_add(i.loop, QB_LOOP_HIGH, i.quorum_fd, POLLIN, &i,
                     [](std::int32_t, std::int32_t, void* p) -> std::int32_t {
                         auto* self = static_cast<impl*>(p);
                         cs_error_t e = quorum_dispatch(self->quorum, CS_DISPATCH_ALL);
                         if (e == CS_OK || e == CS_ERR_TRY_AGAIN)
                             return 0;
                         self->lose("corosync (quorum) is gone", e);
                         return -1;
                     });
    if (cs_error_t e = patiently([&] { return cpg_join(i.cpg, &i.group); }); e != CS_OK)
        return fail("cannot join the process group '" + group + "': " + cs_strerror(e));
    if (cs_error_t e = patiently(
            [&] { return quorum_trackstart(i.quorum, CS_TRACK_CHANGES | CS_TRACK_CURRENT); });
        e != CS_OK)
        return fail(std::string("cannot follow corosync's quorum: ") + cs_strerror(e));
    return {};
}

void corosync_group::mcast(bytes m) {
    impl& i = *impl_;
    i.queue_bytes += m.size();
    if (i.queue_bytes > max_queued_bytes)
        return i.lose("corosync has taken no message for long", CS_ERR_TIMEOUT);
    i.queue.push_back(std::move(m));
    if (!i.retry_armed)
        i.flush();
}

// What was not taken yet was said as a member that has the state; it counts no more.
void corosync_group::leave() {
    impl& i = *impl_;
    i.queue.clear();
    i.queue_bytes = 0;
    i.wants_in = false;
    if (!i.regroup_armed)
        i.settle_membership();
}

// Later, and not from within cpg_dispatch() of the connection that is closed.
void corosync_group::join_again() {
    impl_->wants_in = true;
    if (!impl_->regroup_armed)
        impl_->settle_later();
}

void corosync_group::query_dlm_members() {
    impl& i = *impl_;
    input::dlm_members d{false, {}};
    if (i.dlm_group.length != 0) {
        cpg_address list[CPG_MEMBERS_MAX];
        int n = 0;
        cs_error_t e = cpg_membership_get(i.cpg, &i.dlm_group, list, &n);
        if (e == CS_ERR_TRY_AGAIN) { // ask again from the loop: never wait here
            qb_loop_timer_handle t = 0;
            qb_loop_timer_add(
                i.loop, QB_LOOP_HIGH, retry_ns, this,
                [](void* p) { static_cast<corosync_group*>(p)->query_dlm_members(); }, &t);
            return;
        }
        if (e == CS_OK) {
            d.known = true;
            for (int k = 0; k < n; ++k)
                d.members.insert(node_id{list[k].nodeid});
        }
    }
    i.out(std::move(d));
}

} // namespace grace
