// SPDX-License-Identifier: GPL-2.0-or-later
// Expires a client of nfsd before its Check is refused (upcalls of version 0).
//
// Bad scenario: a client that may not reclaim does so for two files. nfsd marks a client as known
// when Check is answered, whatever the answer is (fs/nfsd/nfs4recover.c nfsd4_cld_check): the first
// reclaim fails, the second passes without another upcall. An expired client (clients/N/ctl of
// nfsd's file system takes "expire") has to introduce itself anew, and is asked for again.
//
// The write waits until the client's compound has ended, which waits for our answer; so it waits
// apart, and the answer is given as soon as the client counts as expired: when it was not renewed
// since the machine came up (nfs4state.c force_expire_client sets cl_time to 0 first).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <qb/qbloop.h>
#include <string>

namespace grace {

class client_expiry {
public:
    explicit client_expiry(qb_loop_t*);
    ~client_expiry();
    client_expiry(const client_expiry&) = delete;
    client_expiry& operator=(const client_expiry&) = delete;

    // `client`: its own name, as bytes. `done` is called from the loop, with why it did not work
    // (empty: it did), within some seconds; not at all if this object has gone.
    using answered = std::function<void(const std::string& why)>;
    void expire(std::string nfsd_fs, std::string client, answered done);

private:
    struct shared;
    static int32_t on_event(int32_t fd, int32_t events, void* data);
    qb_loop_t* loop_;
    std::shared_ptr<shared> shared_; // with the threads
    std::map<std::uint64_t, answered> waiting_;
    std::uint64_t last_ = 0;
};

} // namespace grace
