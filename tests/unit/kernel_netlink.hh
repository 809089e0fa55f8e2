// SPDX-License-Identifier: GPL-2.0-or-later
// For the tests of the shim's adapter: the module's side of the messages, byte by byte.
#pragma once

#include "lockd-shim/uapi/lockd_shim.h"

#include <cstdint>
#include <cstring>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <map>
#include <string>
#include <vector>

namespace testing {

using octets = std::vector<std::uint8_t>;

class netlink_writer {
public:
    netlink_writer(std::uint16_t type, std::uint32_t seq, std::uint16_t flags = 0) {
        nlmsghdr h{};
        h.nlmsg_type = type;
        h.nlmsg_seq = seq;
        h.nlmsg_flags = flags;
        raw(&h, sizeof h);
    }
    netlink_writer& raw(const void* data, std::size_t size) {
        const auto* from = static_cast<const std::uint8_t*>(data);
        out_.insert(out_.end(), from, from + size);
        while (out_.size() % 4)
            out_.push_back(0);
        return *this;
    }
    netlink_writer& genl(std::uint8_t cmd) {
        const genlmsghdr g{cmd, 1, 0};
        return raw(&g, sizeof g);
    }
    netlink_writer& attribute(int type, const void* data, std::size_t size) {
        nlattr a{};
        a.nla_type = std::uint16_t(type);
        a.nla_len = std::uint16_t(sizeof a + size);
        raw(&a, sizeof a);
        return raw(data, size);
    }
    netlink_writer& u8(int type, std::uint8_t v) { return attribute(type, &v, 1); }
    netlink_writer& u32(int type, std::uint32_t v) { return attribute(type, &v, 4); }
    netlink_writer& u64(int type, std::uint64_t v) { return attribute(type, &v, 8); }
    netlink_writer& text(int type, const std::string& v) {
        return attribute(type, v.c_str(), v.size() + 1);
    }
    octets done() const {
        octets all = out_;
        const auto length = std::uint32_t(all.size());
        std::memcpy(all.data(), &length, 4);
        return all;
    }

private:
    octets out_;
};

inline octets error_message(std::uint32_t seq, int code, const std::string& text = {},
                            bool capped = true, const octets& request = {}) {
    std::uint16_t flags = capped ? NLM_F_CAPPED : 0;
    if (!text.empty())
        flags |= NLM_F_ACK_TLVS;
    netlink_writer w(NLMSG_ERROR, seq, flags);
    w.raw(&code, 4);
    if (!capped) {
        w.raw(request.data(), request.size());
    } else {
        nlmsghdr h{};
        h.nlmsg_seq = seq;
        h.nlmsg_len = 4711; // the kernel leaves the length of the request as it was
        w.raw(&h, sizeof h);
    }
    if (!text.empty())
        w.text(NLMSGERR_ATTR_MSG, text);
    return w.done();
}

// A request as the module would see it.
struct request_seen {
    std::uint32_t seq = 0;
    std::uint8_t cmd = 0;
    std::uint16_t flags = 0;
    std::map<int, std::uint64_t> numbers; // by attribute
};

inline request_seen parse_request(const octets& bytes) {
    request_seen r;
    nlmsghdr h;
    std::memcpy(&h, bytes.data(), sizeof h);
    r.seq = h.nlmsg_seq;
    r.flags = h.nlmsg_flags;
    r.cmd = bytes[sizeof h];
    for (std::size_t at = sizeof h + GENL_HDRLEN; at + 4 <= h.nlmsg_len;) {
        nlattr a;
        std::memcpy(&a, &bytes[at], sizeof a);
        std::uint64_t v = 0;
        std::memcpy(&v, &bytes[at + 4], a.nla_len - 4u);
        r.numbers[a.nla_type] = v;
        at += (a.nla_len + 3u) & ~3u;
    }
    return r;
}

} // namespace testing
