// SPDX-License-Identifier: GPL-2.0-or-later
// The embedded lock table as the keeper of several nodes: for machines without a DLM.
#pragma once

#include "adapters/embedded_locks.hh"
#include "dlm_keeper/backend.hh"

namespace grace::keeper {

class embedded_backend : public lock_backend {
public:
    void convert(node_id, lock_key, lock_mode, const lvb_bytes* value) override;
    void cancel(node_id, lock_key) override;
    lock_map locks_of(node_id) const override;
    bool ready() const override { return true; }
    bool embedded() const override { return true; }
    void release_all(bool leave) override;
    std::string dump() const override;
    result<std::string> play(std::uint32_t command, node_id) override;

private:
    void publish();

    embedded_lock_table table_;
};

} // namespace grace::keeper
