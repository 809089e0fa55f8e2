// SPDX-License-Identifier: GPL-2.0-or-later
// Records that come from elsewhere than from nfsd: from a person (gracectl import), from statd and
// mountd (nfs3_tracker.hh). They take the same way through the agreed stream, and are answered when
// they are durable on every live member.
//
// It stands between the engine and nfsd's tracker: what answers one of its own tickets stays here.
#pragma once

#include "adapters/control_ipc.hh"
#include "grace/fsm.hh"

#include <functional>
#include <map>
#include <memory>

namespace grace {

class record_import final : public tracker_port {
public:
    // `ended`: an import for this server is over, before its last answer is given.
    record_import(tracker_port& nfsd, std::function<void(any_input)> take,
                  std::function<void(const std::string&)> ended)
        : nfsd_(nfsd)
        , take_(std::move(take))
        , ended_(std::move(ended)) {}

    // One record, by its key (record_key.hh). `done` may be called from within, and must not change
    // another one.
    void change(const std::string& server, const std::string& key, const std::string& payload,
                bool remove, std::function<void(upcall_status)> done);

    // {"server", "records": [{"name_hex", "princhash_hex"}], "remove": [name_hex], "hosts":
    // [name], "mounts": [{"client", "path_hex", "count"}], "force", "last"}. Answers with how many were added, changed, known already, removed, and refused. The
    // server must be hosted here and not running under graced: its nfsd's own records are newer
    // than any file. `force` takes them all the same. `last`: no other request of this import
    // follows.
    void begin(const nlohmann::json& request, const fsm&, const reply_handle&);

    void answer(ticket, upcall_status) override;
    void answer_grace_start(ticket, const std::vector<known_client>&) override;

private:
    struct job {
        reply_handle reply;
        std::size_t open = 0, refused = 0;
        nlohmann::json counts;
        std::string server; // with `last`
    };
    void finish(job&);

    // nfsd's tickets count up from 1; these are told by this bit.
    static constexpr std::uint64_t own = std::uint64_t{1} << 63;

    tracker_port& nfsd_;
    std::function<void(any_input)> take_;
    std::function<void(const std::string&)> ended_;
    std::uint64_t last_ = own;
    std::map<ticket, std::function<void(upcall_status)>> open_;
};

} // namespace grace
