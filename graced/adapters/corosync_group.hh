// SPDX-License-Identifier: GPL-2.0-or-later
// The group over corosync: cpg for messages and confchgs, quorum and votequorum for who is live,
// cmap for names and the token timeout.
//
// What corosync gives and what it does not (corosync 3.1, exec/cpg.c, exec/vsf_quorum.c): the
// confchg carries no ring id; cpg_totem_confchg_fn names the ring a moment later on the same
// descriptor; quorum's notification comes on another descriptor, in no order with the two. The
// machine compares ring numbers, so here they are only passed on.
#pragma once

#include "grace/input.hh"
#include "graced/result.hh"

#include <functional>
#include <memory>
#include <qb/qbloop.h>
#include <string>

namespace grace {

struct corosync_facts {
    node_id self;
    std::string name;                  // nodelist.node.N.name, else the host name
    std::uint32_t token_ms = 0;        // the running token timeout, not the configured one
    std::vector<std::string> warnings; // settings of votequorum that are unsafe here
};

class corosync_group : public group_port {
public:
    using sink = std::function<void(any_input)>;
    // Called once when corosync is gone: this process has to end.
    using lost = std::function<void(std::string)>;

    // Connects to all services; the error says what to start. Does not join yet.
    static result<std::unique_ptr<corosync_group>> connect(qb_loop_t*);
    ~corosync_group() override;
    corosync_group(const corosync_group&) = delete;
    corosync_group& operator=(const corosync_group&) = delete;

    const corosync_facts& facts() const;
    // `dlm_group`: the group of dlm_controld to compare with, empty for none.
    result<void> join(const std::string& group, const std::string& dlm_group, sink, lost);
    // Bytes that wait because corosync is busy.
    std::size_t queued() const;

    void mcast(bytes) override;
    void query_dlm_members() override;
    void leave() override;
    void join_again() override;

private:
    struct impl;
    explicit corosync_group(std::unique_ptr<impl>);
    std::unique_ptr<impl> impl_;
};

} // namespace grace
