// SPDX-License-Identifier: GPL-2.0-or-later
// The daemon: builds the adapters that the configuration names, wires them to the engine, and turns
// control requests into inputs. One thread, one libqb loop.
#pragma once

#include "adapters/cld_pipe.hh"
#include "adapters/control_ipc.hh"
#include "adapters/corosync_group.hh"
#include "adapters/embedded_kernel.hh"
#include "adapters/grace_history.hh"
#include "adapters/local_group.hh"
#include "adapters/lock_client.hh"
#include "adapters/notify.hh"
#include "adapters/shim_netlink.hh"
#include "adapters/sqlite_store.hh"
#include "graced/config.hh"
#include "graced/engine.hh"
#include "graced/grace_watch.hh"
#include "graced/instances.hh"
#include "graced/nfs3_tracker.hh"
#include "graced/record_import.hh"

#include <deque>
#include <memory>
#include <optional>

namespace grace {

// Exit codes (sysexits.h); graced(8) lists them.
enum class exit_code : int {
    ok = 0,
    data = 65,        // the database is damaged, or of another version
    unavailable = 69, // corosync, or the kernel module
    software = 70,    // an invariant broke
    io = 74,
    busy = 75, // another graced
    config = 78
};
struct fatal {
    exit_code code;
    std::string message;
};

class daemon final : control_port, news_port, fence_port {
public:
    explicit daemon(config);
    ~daemon() override;

    // Everything that can fail at start, in an order that touches nothing before it is sure.
    std::optional<fatal> start();
    // Until a signal or a fatal error.
    exit_code run();

private:
    void answer(ticket, request_status, const std::string&) override;
    void tell(news_level, const std::string&) override;
    void fence(node_id, const std::string&) override;

    void take(any_input);
    void after_inputs();
    void die(exit_code, const std::string&);
    [[nodiscard]] bytes recording(const std::string& why) const;
    void keep_crash(const std::string& why) const;
    std::optional<fatal> make_group(parameters&);
    std::optional<fatal> make_kernel();
    kernel_port& kernel();
    void arm(instant);
    void keep_instances();
    void adopt(const std::string& server, const server_instance&);
    void every_second();
    void arm_second();
    void look_for_untracked();
    static std::string untracked_text(const std::string& server);

    void on_request(const nlohmann::json&, const control_peer&, const reply_handle&);
    [[nodiscard]] bool bypassed() const;
    void on_bypass(const nlohmann::json&, const reply_handle&);
    void on_server_start(const nlohmann::json&, const reply_handle&);
    void on_server_running(const nlohmann::json&, const reply_handle&);
    void go_on_importing();
    void on_import(const nlohmann::json&, const control_peer&, const reply_handle&);
    [[nodiscard]] std::string history_path() const { return config_.store.path + ".history"; }
    nlohmann::json status() const;
    [[nodiscard]] std::string metrics(const std::string& format) const;
    void watch();
    [[nodiscard]] nlohmann::json news_after(std::uint64_t number) const;
    std::optional<node_id> find_node(const std::string& name_or_id) const;

    config config_;
    qb_loop_t* loop_;
    std::optional<exit_code> exit_;
    bool kernel_seen_ = false;
    bool ready_ = false;
    std::vector<std::string> warnings_;

    std::unique_ptr<grace_history> graces_;
    std::unique_ptr<sqlite_store> store_;
    std::unique_ptr<corosync_group> corosync_;
    std::unique_ptr<local_group> local_;
    std::unique_ptr<lock_client> locks_;
    std::unique_ptr<shim_netlink> shim_;
    std::unique_ptr<embedded_kernel> embedded_;
    std::unique_ptr<kernel_port> no_kernel_;
    std::unique_ptr<cld_tracker> tracker_;
    std::unique_ptr<record_import> import_;
    std::unique_ptr<nfs3_tracker> nfs3_;
    std::unique_ptr<control_server> control_;
    std::unique_ptr<notifier> notify_;
    std::optional<instance_registry> instances_;
    std::unique_ptr<engine> engine_;
    grace_watch watch_;
    // The last events, for `gracectl watch`. Their numbers begin at the time since boot in ms: so
    // they go on rising in the next daemon's life.
    static constexpr std::size_t max_news = 200;
    std::deque<grace_event> news_;
    std::uint64_t news_number_ = 0; // of the last one

    std::map<std::uint64_t, reply_handle> asked_;
    std::map<std::uint64_t, nlohmann::json> importing_; // imports that wait for their server
    std::map<std::uint64_t, std::string> progress_;     // last line told to those who wait
    qb_loop_timer_handle timer_ = 0, second_ = 0;
    instant armed_ = 0;
    std::set<int> children_;
    // Seconds for which a server's nfsd has run without its pipe. The module's word of it is up to
    // 2 s old, and between a pipe and the next one of version 0 there is none for a moment.
    static constexpr int untracked_patience = 5;
    std::map<std::string, int> untracked_;
};

} // namespace grace
