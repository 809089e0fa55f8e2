// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's DLM as backend: the loop's view of what the worker thread does (dlm_worker.hh). It
// never waits for the worker, so sockets are served while the lockspace is frozen.
#pragma once

#include "dlm_keeper/backend.hh"
#include "dlm_keeper/dlm_worker.hh"

#include <qb/qbloop.h>

namespace grace::keeper {

class dlm_backend : public lock_backend {
public:
    dlm_backend(qb_loop_t*, std::string lockspace);

    void start() override;
    void convert(node_id, lock_key, lock_mode, const lvb_bytes* value) override;
    void cancel(node_id, lock_key) override;
    lock_map locks_of(node_id) const override { return view_; }
    bool ready() const override { return ready_; }
    std::uint32_t blocked_ms() const override { return worker_->blocked_ms(); }
    void release_all(bool leave) override;
    std::string dump() const override;

private:
    void read_reports();
    void handle(const dlm_worker::news&);

    std::string lockspace_;
    dlm_worker* worker_; // never deleted: its thread may hang in the kernel
    lock_map view_;
    node_id owner_;
    bool ready_ = false;
};

} // namespace grace::keeper
