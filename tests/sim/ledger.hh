// SPDX-License-Identifier: GPL-2.0-or-later
// Who holds which file lock: NFS clients through their servers, and programs on the nodes. Each
// node sees the locks of all nodes in its ring (dlm_controld's replicas); when a node departs, each
// of the others forgets its locks when its own dlm_controld hears of it.
#pragma once

#include "grace/types.hh"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace grace::sim {

class ledger {
public:
    static constexpr unsigned files = 5;
    struct holder {
        node_id node;                // where it is held
        std::string server, client;  // none: a program
        std::set<node_id> forgotten; // nodes that do not see it any more
        bool is(const std::string& s, const std::string& c) const {
            return server == s && client == c;
        }
    };

    // The DLM would give `file` to this owner on this node.
    bool free_for(node_id n, unsigned file, const std::string& s, const std::string& c) const {
        for (const holder& h : held_[file])
            if (!(h.is(s, c) && (!s.empty() || h.node == n)) && !h.forgotten.contains(n))
                return false;
        return true;
    }
    const std::vector<holder>& of(unsigned file) const { return held_[file]; }
    void take(unsigned file, holder h) {
        drop(file, h.node, h.server, h.client);
        held_[file].push_back(std::move(h));
    }
    void drop(unsigned file, node_id n, const std::string& s, const std::string& c) {
        std::erase_if(held_[file],
                      [&](const holder& h) { return h.is(s, c) && (!s.empty() || h.node == n); });
    }
    void drop_server(node_id n, const std::string& s) { // its nfsd unlocks all in order
        for (auto& f : held_)
            std::erase_if(f, [&](const holder& h) { return h.node == n && h.server == s; });
    }
    void drop_programs(node_id n) {
        for (auto& f : held_)
            std::erase_if(f, [&](const holder& h) { return h.node == n && h.server.empty(); });
    }
    void forget(node_id on, const std::set<node_id>& departed) {
        for (auto& f : held_)
            for (holder& h : f)
                if (departed.contains(h.node))
                    h.forgotten.insert(on);
    }
    // A node that boots gets the replica of those that are there.
    void join(node_id n, const std::set<node_id>& there) {
        drop_programs(n);
        for (auto& f : held_)
            for (holder& h : f) {
                const bool known = h.node != n && there.contains(h.node) &&
                                   std::ranges::none_of(there, [&](node_id m) {
                                       return m != n && h.forgotten.contains(m);
                                   });
                if (known)
                    h.forgotten.erase(n);
                else
                    h.forgotten.insert(n);
            }
    }
    std::set<unsigned> of_client(const std::string& s, const std::string& c) const {
        std::set<unsigned> out;
        for (unsigned i = 0; i < files; ++i)
            for (const holder& h : held_[i])
                if (h.is(s, c))
                    out.insert(i);
        return out;
    }

private:
    std::vector<holder> held_[files];
};

} // namespace grace::sim
