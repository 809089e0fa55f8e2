// SPDX-License-Identifier: GPL-2.0-or-later
// lockd_shim's messages as bytes. Attributes are taken apart by libnl under a policy that checks
// their lengths; the frames around them by hand, because libnl does it on its sockets only.
#include "graced/adapters/shim_message.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <linux/genetlink.h>
#include <memory>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <new>
#include <optional>

namespace grace::shim {
namespace {

using attributes = nlattr * [LOCKD_SHIM_A_MAX + 1];

struct policy {
    nla_policy of[LOCKD_SHIM_A_MAX + 1] = {};
    policy() {
        const auto set = [&](std::uint16_t type, std::initializer_list<int> which) {
            for (const int a : which)
                of[a].type = type;
        };
        set(NLA_U8,
            {LOCKD_SHIM_A_ATTACHED, LOCKD_SHIM_A_NETNS_UP, LOCKD_SHIM_A_HELD, LOCKD_SHIM_A_IN_GRACE,
             LOCKD_SHIM_A_OPENS_BLOCKED, LOCKD_SHIM_A_NFSD_UP, LOCKD_SHIM_A_BYPASS});
        set(NLA_U32, {LOCKD_SHIM_A_VERSION, LOCKD_SHIM_A_STATE, LOCKD_SHIM_A_HOOKS,
                      LOCKD_SHIM_A_HOOKS_WANTED, LOCKD_SHIM_A_WAITERS, LOCKD_SHIM_A_REASON,
                      LOCKD_SHIM_A_CAUSE, LOCKD_SHIM_A_NETNS_FD, LOCKD_SHIM_A_NETNS_INO,
                      LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT, LOCKD_SHIM_A_HOSTS, LOCKD_SHIM_A_EXEMPTS});
        set(NLA_U64, {LOCKD_SHIM_A_EPOCH, LOCKD_SHIM_A_TRIPS, LOCKD_SHIM_A_PERMIT_UNTIL,
                      LOCKD_SHIM_A_INSTANCE, LOCKD_SHIM_A_NETNS_COOKIE, LOCKD_SHIM_A_UNDONE,
                      LOCKD_SHIM_A_DEFERRED, LOCKD_SHIM_A_STOPS});
        // NUL or not: text() does not rely on it.
        set(NLA_UNSPEC, {LOCKD_SHIM_A_HOOK_ERROR, LOCKD_SHIM_A_MODULE_VERSION});
    }
};

std::uint8_t u8(const attributes& a, int which) {
    return a[which] ? nla_get_u8(a[which]) : 0;
}
std::uint32_t u32(const attributes& a, int which) {
    return a[which] ? nla_get_u32(a[which]) : 0;
}
std::uint64_t u64(const attributes& a, int which) {
    return a[which] ? nla_get_u64(a[which]) : 0;
}

std::string text_of(const nlattr* a) {
    if (!a)
        return {};
    const auto* from = static_cast<const char*>(nla_data(a));
    return {from, strnlen(from, std::size_t(nla_len(a)))};
}

status status_of(const attributes& a) {
    status s;
    s.version = u32(a, LOCKD_SHIM_A_VERSION);
    s.module_version = text_of(a[LOCKD_SHIM_A_MODULE_VERSION]);
    s.instance = u64(a, LOCKD_SHIM_A_INSTANCE);
    s.state = u32(a, LOCKD_SHIM_A_STATE);
    s.reason = u32(a, LOCKD_SHIM_A_REASON);
    s.epoch = u64(a, LOCKD_SHIM_A_EPOCH);
    s.trips = u64(a, LOCKD_SHIM_A_TRIPS);
    s.permit_until = u64(a, LOCKD_SHIM_A_PERMIT_UNTIL);
    s.attached = u8(a, LOCKD_SHIM_A_ATTACHED) != 0;
    s.hooks = u32(a, LOCKD_SHIM_A_HOOKS);
    s.hooks_wanted = u32(a, LOCKD_SHIM_A_HOOKS_WANTED);
    s.hook_error = text_of(a[LOCKD_SHIM_A_HOOK_ERROR]);
    s.waiters = u32(a, LOCKD_SHIM_A_WAITERS);
    s.undone = u64(a, LOCKD_SHIM_A_UNDONE);
    s.deferred = u64(a, LOCKD_SHIM_A_DEFERRED);
    s.exempts = u32(a, LOCKD_SHIM_A_EXEMPTS);
    s.bypass = u8(a, LOCKD_SHIM_A_BYPASS) != 0;
    return s;
}

network_namespace namespace_of(const attributes& a) {
    network_namespace n;
    n.inode = u32(a, LOCKD_SHIM_A_NETNS_INO);
    n.cookie = u64(a, LOCKD_SHIM_A_NETNS_COOKIE);
    n.state = u32(a, LOCKD_SHIM_A_STATE);
    n.reclaims_in_flight = u32(a, LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT);
    n.held = u8(a, LOCKD_SHIM_A_HELD) != 0;
    n.in_grace = u8(a, LOCKD_SHIM_A_IN_GRACE) != 0;
    n.opens_blocked = u8(a, LOCKD_SHIM_A_OPENS_BLOCKED) != 0;
    n.nfsd_up = u8(a, LOCKD_SHIM_A_NFSD_UP) != 0;
    n.stops = u64(a, LOCKD_SHIM_A_STOPS);
    n.hosts = u32(a, LOCKD_SHIM_A_HOSTS);
    return n;
}

// NLMSG_ERROR: the code, then the request's header, its payload unless the flag CAPPED (or success)
// left it out, then with the flag ACK_TLVS attributes
// (Documentation/userspace-api/netlink/intro.rst).
std::optional<ack> error_of(std::uint8_t* payload, std::size_t length, const nlmsghdr& header) {
    nlmsgerr e;
    if (length < sizeof e)
        return std::nullopt;
    std::memcpy(&e, payload, sizeof e);
    ack a{header.nlmsg_seq, e.error, {}};
    if (!(header.nlmsg_flags & NLM_F_ACK_TLVS))
        return a;
    std::size_t at = sizeof e;
    if (e.error != 0 && !(header.nlmsg_flags & NLM_F_CAPPED)) {
        if (e.msg.nlmsg_len < sizeof(nlmsghdr) || e.msg.nlmsg_len > length)
            return a;
        at += NLMSG_ALIGN(e.msg.nlmsg_len - sizeof(nlmsghdr));
    }
    if (at >= length)
        return a;
    nlattr* attrs[NLMSGERR_ATTR_MAX + 1] = {};
    if (nla_parse(attrs, NLMSGERR_ATTR_MAX, reinterpret_cast<nlattr*>(payload + at),
                  int(length - at), nullptr) == 0)
        a.text = text_of(attrs[NLMSGERR_ATTR_MSG]);
    return a;
}

std::optional<item> family_item(std::uint8_t* payload, std::size_t length, std::uint32_t seq) {
    static const policy rules;
    if (length < GENL_HDRLEN)
        return std::nullopt;
    const std::uint8_t cmd = payload[0];
    attributes a = {};
    if (nla_parse(a, LOCKD_SHIM_A_MAX, reinterpret_cast<nlattr*>(payload + GENL_HDRLEN),
                  int(length - GENL_HDRLEN), const_cast<nla_policy*>(rules.of)) != 0)
        return std::nullopt;
    switch (cmd) {
    case LOCKD_SHIM_CMD_ATTACH:
        return attach_reply{seq, status_of(a)};
    case LOCKD_SHIM_CMD_STATUS_GET:
        return status_reply{seq, status_of(a)};
    case LOCKD_SHIM_CMD_NS_GET:
        return namespace_reply{seq, namespace_of(a)};
    case LOCKD_SHIM_CMD_TRIP_NTF:
        return trip_event{u64(a, LOCKD_SHIM_A_TRIPS), u32(a, LOCKD_SHIM_A_CAUSE)};
    case LOCKD_SHIM_CMD_GATE_NTF:
        return gate_event{u32(a, LOCKD_SHIM_A_STATE), u32(a, LOCKD_SHIM_A_REASON),
                          u64(a, LOCKD_SHIM_A_EPOCH), u64(a, LOCKD_SHIM_A_TRIPS)};
    case LOCKD_SHIM_CMD_NS_NTF:
        return namespace_event{namespace_of(a), u8(a, LOCKD_SHIM_A_NETNS_UP) != 0};
    case LOCKD_SHIM_CMD_HOOKS_NTF:
        return hooks_event{u32(a, LOCKD_SHIM_A_HOOKS), u32(a, LOCKD_SHIM_A_HOOKS_WANTED),
                           text_of(a[LOCKD_SHIM_A_HOOK_ERROR])};
    default:
        return std::nullopt;
    }
}

// A request under construction; libnl aborts nothing, so neither do its callers: the fixed few
// attributes always fit.
class request {
public:
    request(std::uint16_t family, std::uint32_t seq, std::uint8_t cmd, int flags)
        : message_(nlmsg_alloc()) {
        if (!message_ || !genlmsg_put(message_.get(), NL_AUTO_PORT, seq, family, 0,
                                      NLM_F_REQUEST | flags, cmd, LOCKD_SHIM_FAMILY_VERSION))
            throw std::bad_alloc();
    }
    request& u32(int attribute, std::uint32_t value) {
        nla_put_u32(message_.get(), attribute, value);
        return *this;
    }
    request& u64(int attribute, std::uint64_t value) {
        nla_put_u64(message_.get(), attribute, value);
        return *this;
    }
    request& u8(int attribute, std::uint8_t value) {
        nla_put_u8(message_.get(), attribute, value);
        return *this;
    }
    request& text(int attribute, const std::string& value) {
        nla_put_string(message_.get(), attribute, value.c_str());
        return *this;
    }
    std::vector<std::uint8_t> bytes() const {
        const auto* header = nlmsg_hdr(message_.get());
        const auto* from = reinterpret_cast<const std::uint8_t*>(header);
        return {from, from + header->nlmsg_len};
    }

private:
    struct release {
        void operator()(nl_msg* m) const { nlmsg_free(m); }
    };
    std::unique_ptr<nl_msg, release> message_;
};

} // namespace

std::vector<item> decode(std::span<const std::uint8_t> datagram, std::uint16_t family) {
    std::vector<item> items;
    constexpr std::size_t largest = 1 << 20; // the kernel's own are 32 KiB at most
    if (datagram.empty() || datagram.size() > largest)
        return items;
    // Aligned, whatever the caller's buffer is: libnl reads attributes in place.
    std::vector<std::uint64_t> aligned((datagram.size() + 7) / 8);
    std::memcpy(aligned.data(), datagram.data(), datagram.size());
    auto* const all = reinterpret_cast<std::uint8_t*>(aligned.data());
    std::size_t at = 0;
    while (datagram.size() - at >= sizeof(nlmsghdr)) {
        nlmsghdr header;
        std::memcpy(&header, all + at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > datagram.size() - at)
            break;
        std::uint8_t* payload = all + at + NLMSG_HDRLEN;
        const std::size_t length = header.nlmsg_len - NLMSG_HDRLEN;
        if (header.nlmsg_type == NLMSG_ERROR) {
            if (auto a = error_of(payload, length, header))
                items.emplace_back(std::move(*a));
        } else if (header.nlmsg_type == NLMSG_DONE) {
            items.emplace_back(
                dump_done{header.nlmsg_seq, (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0});
        } else if (header.nlmsg_type == family) {
            if (auto i = family_item(payload, length, header.nlmsg_seq))
                items.emplace_back(std::move(*i));
        }
        const std::size_t step = NLMSG_ALIGN(header.nlmsg_len);
        if (step > datagram.size() - at)
            break;
        at += step;
    }
    return items;
}

std::vector<std::uint8_t> attach(std::uint16_t family, std::uint32_t seq, std::uint32_t version) {
    return request(family, seq, LOCKD_SHIM_CMD_ATTACH, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_VERSION, version)
        .bytes();
}

std::vector<std::uint8_t> gate_closed(std::uint16_t family, std::uint32_t seq,
                                      std::uint64_t epoch) {
    return request(family, seq, LOCKD_SHIM_CMD_GATE_SET, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_CLOSED)
        .u64(LOCKD_SHIM_A_EPOCH, epoch)
        .bytes();
}

std::vector<std::uint8_t> gate_open(std::uint16_t family, std::uint32_t seq, std::uint64_t epoch,
                                    std::uint64_t trips) {
    return request(family, seq, LOCKD_SHIM_CMD_GATE_SET, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_STATE, LOCKD_SHIM_STATE_OPEN)
        .u64(LOCKD_SHIM_A_EPOCH, epoch)
        .u64(LOCKD_SHIM_A_TRIPS, trips)
        .bytes();
}

std::vector<std::uint8_t> reclaim_set(std::uint16_t family, std::uint32_t seq, int netns_fd,
                                      std::uint64_t epoch, bool on) {
    return request(family, seq, LOCKD_SHIM_CMD_RECLAIM_SET, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_NETNS_FD, std::uint32_t(netns_fd))
        .u32(LOCKD_SHIM_A_STATE, on ? LOCKD_SHIM_STATE_RECLAIM : LOCKD_SHIM_STATE_CLOSED)
        .u64(LOCKD_SHIM_A_EPOCH, epoch)
        .bytes();
}

std::vector<std::uint8_t> permit_set(std::uint16_t family, std::uint32_t seq, std::uint64_t until) {
    return request(family, seq, LOCKD_SHIM_CMD_PERMIT_SET, NLM_F_ACK)
        .u64(LOCKD_SHIM_A_PERMIT_UNTIL, until)
        .bytes();
}

std::vector<std::uint8_t> host_add(std::uint16_t family, std::uint32_t seq, int netns_fd,
                                   std::uint64_t epoch, const std::string& host) {
    return request(family, seq, LOCKD_SHIM_CMD_HOST_ADD, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_NETNS_FD, std::uint32_t(netns_fd))
        .text(LOCKD_SHIM_A_HOST, host)
        .u64(LOCKD_SHIM_A_EPOCH, epoch)
        .bytes();
}

std::vector<std::uint8_t> exempt_set(std::uint16_t family, std::uint32_t seq, std::uint32_t pid,
                                     bool on) {
    return request(family, seq, LOCKD_SHIM_CMD_EXEMPT_SET, NLM_F_ACK)
        .u32(LOCKD_SHIM_A_PID, pid)
        .u8(LOCKD_SHIM_A_EXEMPT, on ? 1 : 0)
        .bytes();
}

std::vector<std::uint8_t> bypass_set(std::uint16_t family, std::uint32_t seq, bool on) {
    return request(family, seq, LOCKD_SHIM_CMD_BYPASS_SET, NLM_F_ACK)
        .u8(LOCKD_SHIM_A_BYPASS, on ? 1 : 0)
        .bytes();
}

std::vector<std::uint8_t> enforced_set(std::uint16_t family, std::uint32_t seq, std::uint64_t epoch,
                                       std::uint64_t trips, bool on) {
    return request(family, seq, LOCKD_SHIM_CMD_ENFORCED_SET, NLM_F_ACK)
        .u64(LOCKD_SHIM_A_EPOCH, epoch)
        .u64(LOCKD_SHIM_A_TRIPS, trips)
        .u8(LOCKD_SHIM_A_ENFORCED, on ? 1 : 0)
        .bytes();
}

std::vector<std::uint8_t> status_get(std::uint16_t family, std::uint32_t seq) {
    return request(family, seq, LOCKD_SHIM_CMD_STATUS_GET, NLM_F_ACK).bytes();
}

std::vector<std::uint8_t> namespaces_dump(std::uint16_t family, std::uint32_t seq) {
    return request(family, seq, LOCKD_SHIM_CMD_NS_GET, NLM_F_DUMP).bytes();
}

const char* state_name(std::uint32_t state) {
    switch (state) {
    case LOCKD_SHIM_STATE_CLOSED:
        return "closed";
    case LOCKD_SHIM_STATE_RECLAIM:
        return "reclaim";
    case LOCKD_SHIM_STATE_OPEN:
        return "open";
    default:
        return "unknown";
    }
}

const char* reason_name(std::uint32_t reason) {
    switch (reason) {
    case LOCKD_SHIM_REASON_LOAD:
        return "the module was loaded";
    case LOCKD_SHIM_REASON_ORDER:
        return "an order";
    case LOCKD_SHIM_REASON_ATTACH:
        return "a daemon attached";
    case LOCKD_SHIM_REASON_SOCKET:
        return "the daemon's socket was closed";
    case LOCKD_SHIM_REASON_PERMIT:
        return "the permit ran out";
    case LOCKD_SHIM_REASON_TRIP:
        return "the tripwire";
    case LOCKD_SHIM_REASON_HOOKS:
        return "a hook is not in place";
    case LOCKD_SHIM_REASON_BYPASS:
        return "the bypass, by an operator";
    default:
        return "an unknown reason";
    }
}

const char* cause_name(std::uint32_t cause) {
    switch (cause) {
    case LOCKD_SHIM_CAUSE_DLM_LS_STOP:
        return "a lockspace was stopped";
    case LOCKD_SHIM_CAUSE_NFSD_STOP:
        return "an nfsd is being stopped";
    case LOCKD_SHIM_CAUSE_LOCKD_STOP:
        return "a lockd drops its locks";
    default:
        return "an unknown cause";
    }
}

std::string hook_names(std::uint32_t hooks) {
    std::string names;
    const auto add = [&](std::uint32_t bit, const char* name) {
        if (hooks & bit)
            names += (names.empty() ? "" : " ") + std::string(name);
    };
    add(LOCKD_SHIM_HOOK_GFS2_LOCK, "gfs2_lock");
    add(LOCKD_SHIM_HOOK_GFS2_FLOCK, "gfs2_flock");
    add(LOCKD_SHIM_HOOK_DLM_LS_STOP, "dlm_ls_stop");
    add(LOCKD_SHIM_HOOK_NFSD_START, "nfs4_state_start_net");
    add(LOCKD_SHIM_HOOK_NFSD_STOP, "nfs4_state_shutdown_net");
    add(LOCKD_SHIM_HOOK_LOCKD_LOCK, "nlmsvc_lock");
    add(LOCKD_SHIM_HOOK_LOCKD_STOP, "nlmsvc_invalidate_all");
    add(LOCKD_SHIM_HOOK_UNLOCK_IP, "nlmsvc_unlock_all_by_ip");
    add(LOCKD_SHIM_HOOK_UNLOCK_FS, "nlmsvc_unlock_all_by_sb");
    return names.empty() ? "none" : names;
}

int fuzz_one(const std::uint8_t* data, std::size_t size) {
    if (size < 2)
        return 0;
    std::uint16_t family;
    std::memcpy(&family, data, 2);
    decode({data + 2, size - 2}, family);
    return 0;
}

} // namespace grace::shim
