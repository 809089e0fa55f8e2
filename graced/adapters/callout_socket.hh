// SPDX-License-Identifier: GPL-2.0-or-later
// What statd tells through its callout (rpc.statd -H), one listening socket for each NFS server.
//
// Not the control IPC: libqb's sockets are abstract ones, which a program in the server's network
// namespace does not see, and statd runs as an unprivileged user that must not have more to say
// than this: which clients of its own server it watches. The socket is a file (SOCK_SEQPACKET), which
// works across network namespaces; the path says which server is meant.
//
// One packet: the words of the callout, each ended by NUL. The answer is one packet, too: a byte
// ('0': done and durable, '1': try again, '2': this will never work) and a text for people.
#pragma once

#include "graced/result.hh"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <qb/qbloop.h>
#include <span>
#include <string>
#include <sys/types.h>

namespace grace {

// utils/statd of nfs-utils: ha_callout() in monitor.c and svc_run.c/callback.c.
struct callout_request {
    enum class event : std::uint8_t {
        add_client, // the server's lockd is about to give the client its first lock
        del_client, // it has given up the client
        sm_notify   // the client has restarted
    };
    event what = event::add_client;
    std::string client; // as lockd and statd know it: a name or an address
};
constexpr std::size_t max_callout = 2048; // bytes of a packet

// Any bytes. What is returned can stand in a line and as the name of a file (is_host_name()).
tl::expected<callout_request, std::string> parse_callout(std::span<const char>);

enum class callout_answer : char { done = '0', again = '1', never = '2' };

class callout_server {
public:
    // Whoever asked may be gone when it is answered.
    using reply = std::function<void(callout_answer, const std::string&)>;
    using handler = std::function<void(const std::string& server, const callout_request&, reply)>;

    callout_server(qb_loop_t*, handler);
    ~callout_server();
    callout_server(const callout_server&) = delete;
    callout_server& operator=(const callout_server&) = delete;

    // Only root and `user` may speak. A socket that a predecessor left at `path` is replaced.
    result<void> listen(const std::string& server, const std::string& path, uid_t user);
    void close(const std::string& server);

private:
    struct listener {
        std::string path;
        int fd = -1;
        uid_t user = 0;
    };
    struct connection {
        std::string server;
        std::uint64_t number = 0;
    };
    static std::int32_t on_connect(std::int32_t fd, std::int32_t events, void* self);
    static std::int32_t on_packet(std::int32_t fd, std::int32_t events, void* self);
    void answer(int fd, std::uint64_t number, callout_answer, const std::string&);
    void drop(int fd);

    qb_loop_t* loop_;
    handler handle_;
    std::map<std::string, listener> listeners_;
    std::map<int, connection> connections_;
    std::uint64_t last_ = 0;
};

} // namespace grace
