// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/daemon.hh"

#include "graced/event_json.hh"
#include "graced/hex.hh"
#include "graced/metrics.hh"
#include "graced/status.hh"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace grace {
namespace {

instant boottime() {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return seconds(t.tv_sec) + t.tv_nsec;
}

std::uint64_t random_number() {
    std::random_device r;
    std::uint64_t n = (std::uint64_t{r()} << 32) | r();
    return n ? n : 1;
}

// Another number for each boot of this machine (Documentation/admin-guide/sysctl/kernel.rst).
result<std::uint64_t> boot_number() {
    const char* const path = "/proc/sys/kernel/random/boot_id";
    std::string id;
    std::getline(std::ifstream(path), id);
    std::erase(id, '-');
    std::uint64_t half = 0;
    const auto end = id.data() + std::min<std::size_t>(id.size(), 16);
    if (std::from_chars(id.data(), end, half, 16).ptr != end || half == 0)
        return fail(std::string(path) + " does not say which boot this is; is /proc mounted?");
    return half;
}

// gate = none: a node without GFS2. Nothing to close; nfsd alone is served.
class absent_kernel final : public kernel_port {
public:
    explicit absent_kernel(std::function<void(std::uint64_t)> acked)
        : acked_(std::move(acked)) {}
    void close_gate(epoch, std::uint64_t order) override { acked_(order); }
    void open_gate(epoch, std::uint64_t, std::uint64_t order) override { acked_(order); }
    void set_reclaim(const std::string&, epoch, bool, std::uint64_t order) override {
        acked_(order);
    }
    void extend_permit(instant) override {}
    void end_nfsd_grace(const std::string&) override {}

private:
    std::function<void(std::uint64_t)> acked_;
};

} // namespace

daemon::daemon(config c)
    : config_(std::move(c))
    , loop_(qb_loop_create()) {}

daemon::~daemon() {
    // Adapters go before the loop that they are registered with.
    engine_.reset();
    control_.reset();
    notify_.reset();
    nfs3_.reset();
    import_.reset();
    tracker_.reset();
    locks_.reset();
    shim_.reset();
    embedded_.reset();
    corosync_.reset();
    store_.reset();
    graces_.reset(); // its disk may stand still: after all that matters
    qb_loop_destroy(loop_);
}

std::optional<fatal> daemon::make_group(parameters& p) {
    if (config_.graced.state == daemon_state::single) {
        p.self = node_id{1};
        p.name = config_.graced.name.empty() ? "localhost" : config_.graced.name;
        local_ = std::make_unique<local_group>(loop_, p.self,
                                               [this](any_input i) { take(std::move(i)); });
        p.permit_ttl = seconds(2);
        p.heartbeat_interval = milliseconds(400);
        return {};
    }
    auto group = corosync_group::connect(loop_);
    if (!group)
        return fatal{exit_code::unavailable, group.error().message};
    corosync_ = std::move(*group);
    const corosync_facts& f = corosync_->facts();
    p.self = f.self;
    p.name = config_.graced.name.empty() ? f.name : config_.graced.name;
    for (const std::string& w : f.warnings)
        warnings_.push_back(w);

    // The permit must have run out before the others can have dropped this node: they do that no
    // earlier than the token timeout after they last heard of it.
    if (f.token_ms == 0)
        return fatal{exit_code::unavailable, "corosync does not say its running token timeout "
                                             "(cmap runtime.config.totem.token); graced needs "
                                             "corosync 3.0 or newer"};
    const auto token = std::chrono::milliseconds(f.token_ms);
    const auto ttl = config_.permit.ttl.value_or(token * 8 / 10);
    const auto beat = config_.permit.heartbeat.value_or(ttl / 6);
    if (ttl > token * 9 / 10)
        return fatal{exit_code::config,
                     "permit.ttl is " + std::to_string(ttl.count()) +
                         " ms, but corosync's running token timeout is " +
                         std::to_string(token.count()) +
                         " ms: a gate could still be open when the others have dropped this node. "
                         "Lower permit.ttl to 90 % of it at most (or leave it at auto), or raise "
                         "totem.token"};
    if (beat * 2 > ttl)
        return fatal{exit_code::config, "permit.heartbeat is " + std::to_string(beat.count()) +
                                            " ms, more than half of the permit's " +
                                            std::to_string(ttl.count()) +
                                            " ms: gates would close whenever a message is late"};
    spdlog::info("permit of {} ms, heartbeats every {} ms, under corosync's token timeout of {} ms",
                 ttl.count(), beat.count(), token.count());
    p.permit_ttl = milliseconds(ttl.count());
    p.heartbeat_interval = milliseconds(beat.count());
    return {};
}

std::optional<fatal> daemon::make_kernel() {
    auto sink = [this](any_input i) { take(std::move(i)); };
    switch (config_.gate.backend) {
    case gate_backend::module:
        shim_ = std::make_unique<shim_netlink>(loop_, sink);
        break;
    case gate_backend::embedded:
        embedded_ = std::make_unique<embedded_kernel>(loop_, sink, config_.gate.socket);
        warnings_.push_back("the gate is an embedded stand-in: it blocks NO program and NO NFS "
                            "client; for tests only (gate.backend)");
        break;
    case gate_backend::none:
        no_kernel_ = std::make_unique<absent_kernel>(
            [this](std::uint64_t order) { take(input::kernel_acked{order}); });
        warnings_.push_back("this node has no gate (gate.backend = none): it must not mount the "
                            "cluster's GFS2, and all nodes must name it in nodes_without_gfs2");
        break;
    }
    return {};
}

kernel_port& daemon::kernel() {
    return shim_       ? static_cast<kernel_port&>(*shim_)
           : embedded_ ? static_cast<kernel_port&>(*embedded_)
                       : *no_kernel_;
}

std::optional<fatal> daemon::start() {
    for (const std::string& w : config_.warnings)
        spdlog::warn("{}", w);

    auto registry = instance_registry::open(config_.graced.runtime_dir + "/servers");
    if (!registry)
        return fatal{exit_code::config, registry.error().message};
    instances_ = std::move(*registry);

    store_options so;
    so.path = config_.store.path;
    so.history = history_path();
    so.stall_timeout = config_.store.stall_timeout;
    // A single host has the only copy: what to do with a damaged one is for a person to decide.
    so.set_aside = config_.graced.state == daemon_state::cluster;
    auto opened = sqlite_store::open_and_load(so);
    if (!opened)
        return fatal{static_cast<exit_code>(sqlite_store::exit_code(opened.error())),
                     opened.error().message};
    store_ = std::move(opened->store);
    for (const std::string& w : opened->warnings)
        spdlog::warn("{}", w);

    parameters p;
    p.life = incarnation{random_number()};
    auto boot = boot_number();
    if (!boot)
        return fatal{exit_code::unavailable, boot.error().message};
    p.boot = *boot;
    p.grace_period = seconds(config_.grace.period.count());
    p.orphan_timeout = seconds(config_.grace.orphan_timeout.count());
    p.daemon_timeout = seconds(config_.grace.daemon_timeout.count());
    p.grace_start_hold = seconds(config_.grace.grace_start_hold.count());
    p.kernel_expected = config_.gate.backend != gate_backend::none;
    for (std::uint32_t n : config_.grace.nodes_without_gfs2)
        p.nodes_without_gfs2.insert(node_id{n});
    if (auto f = make_group(p))
        return f;

    tracker_ = std::make_unique<cld_tracker>(
        loop_, [this](any_input i) { take(std::move(i)); },
        cld_tracker::options{config_.graced.runtime_dir});
    import_ = std::make_unique<record_import>(
        *tracker_, [this](any_input i) { take(std::move(i)); },
        [this](const std::string& server) {
            // It was taken for its records only. Bad scenario: it stays as one that is about to
            // start here; a START opens reclaim for it, nobody comes, and at the deadline all that
            // was imported is purged. Without a host it has orphan_timeout instead.
            if (!instances_->all().contains(server))
                take(input::instance_gone{server});
        });
    if (config_.gate.backend != gate_backend::embedded)
        if (auto r = tracker_->check_no_other_tracker(); !r)
            return fatal{exit_code::config, r.error().message};

    if (config_.graced.state == daemon_state::cluster) {
        lock_client_config lc;
        lc.socket_path = config_.locks.socket;
        lc.node = p.self;
        lc.permit_ttl = p.permit_ttl;
        lc.keeper_command = config_.locks.keeper;
        if (config_.locks.backend == lock_backend::embedded)
            warnings_.push_back("the lock table is an embedded stand-in for the DLM: it protects "
                                "nothing beyond this machine; for tests only (locks.backend)");
        locks_ =
            std::make_unique<lock_client>(loop_, lc, [this](any_input i) { take(std::move(i)); });
    }
    if (auto f = make_kernel())
        return f;

    lock_port& locks = locks_ ? static_cast<lock_port&>(*locks_) : *local_;
    group_port& group = corosync_ ? static_cast<group_port&>(*corosync_) : *local_;
    std::optional<stored_state> database;
    if (!opened->created)
        database = std::move(opened->state);
    engine_ = std::make_unique<engine>(
        ports{group, locks, *store_, kernel(), *import_, *this, *this, *this}, boottime,
        [this](instant t) { arm(t); }, p, std::move(database));
    engine_->record();
    nfs3_ = std::make_unique<nfs3_tracker>(
        loop_, *import_, [this]() -> const fsm& { return engine_->machine(); }, boottime);
    if (config_.store.history != 0)
        graces_ =
            std::make_unique<grace_history>(config_.store.path + ".graces", config_.store.history);
    if (shim_)
        shim_->hosts_from([this](const std::string& server) {
            return reclaiming_hosts(engine_->machine().replicated(), server);
        });
    engine_->before_effects([this] { keep_instances(); });
    engine_->after_effects([this] { watch(); });

    control_options co;
    co.name = config_.graced.ipc_name;
    auto control = control_server::create(
        loop_, co,
        [this](const nlohmann::json& r, const control_peer& peer, reply_handle h) {
            on_request(r, peer, h);
        },
        [this](std::uint64_t id) {
            asked_.erase(id);
            progress_.erase(id);
            importing_.erase(id);
            take(input::forget{ticket{id}});
        });
    if (!control)
        return fatal{exit_code::busy, control.error().message};
    control_ = std::move(*control);

    for (const std::string& w : warnings_)
        spdlog::warn("{}", w);
    for (const auto& [name, i] : instances_->all())
        adopt(name, i);
    if (auto r = store_->start(loop_, [this](any_input i) { take(std::move(i)); }); !r)
        return fatal{exit_code::io, r.error().message};
    if (shim_)
        shim_->start();
    if (embedded_)
        if (auto r = embedded_->start(); !r)
            return fatal{exit_code::config, r.error().message};
    if (corosync_) {
        auto r = corosync_->join(
            config_.graced.group,
            config_.locks.backend == lock_backend::dlm ? config_.cluster.dlm_group : std::string(),
            [this](any_input i) { take(std::move(i)); },
            [this](std::string why) {
                die(exit_code::unavailable, why + "; the gate is closed. graced starts again when "
                                                  "corosync runs (systemctl start corosync)");
            });
        if (!r)
            return fatal{exit_code::unavailable, r.error().message};
    } else {
        local_->join();
    }
    notify_ = std::make_unique<notifier>(loop_);
    qb_loop_signal_handle h{};
    for (int s : {SIGTERM, SIGINT})
        qb_loop_signal_add(
            loop_, QB_LOOP_HIGH, s, this,
            [](std::int32_t, void* d) -> std::int32_t {
                static_cast<daemon*>(d)->die(exit_code::ok, "asked to stop");
                return 0;
            },
            &h);
    arm_second();
    spdlog::info("graced {} on node {} (id {}), state {}", GRACED_VERSION, p.name, p.self.value,
                 to_string(config_.graced.state));
    return {};
}

exit_code daemon::run() {
    if (!exit_)
        qb_loop_run(loop_);
    if (notify_)
        notify_->stopping("stopping");
    return exit_.value_or(exit_code::ok);
}

// The end closes the netlink socket, and with it the gate; the keeper goes on with CW and alive.
void daemon::die(exit_code code, const std::string& why) {
    if (exit_)
        return;
    exit_ = code;
    if (code == exit_code::ok)
        spdlog::info("{}: the gate closes now", why);
    else
        spdlog::critical("{}", why);
    qb_loop_stop(loop_);
}

void daemon::take(any_input in) {
    if (!engine_ || exit_)
        return;
    // A gate that is there and holds nothing back (a bypass, a hook that is missing) is told about
    // in status; a daemon that ended for it could not.
    if (std::holds_alternative<input::kernel_attached>(in) || (shim_ && shim_->status().attached))
        kernel_seen_ = true;
    if (auto* k = std::get_if<input::kernel_lost>(&in); k && !kernel_seen_)
        return die(exit_code::unavailable, k->why);
    try {
        engine_->take(std::move(in));
        const fsm& f = engine_->machine();
        if (shim_)
            shim_->set_enforced(f.replicated().current, f.gate().trips, f.may_drop());
    } catch (const std::exception& e) {
        keep_crash(e.what());
        // Nothing that this process believes can be trusted any more. Its end closes the gate.
        die(exit_code::software,
            std::string(e.what()) + "; this is a bug in graced. The gate closes");
        return;
    }
    after_inputs();
}

bytes daemon::recording(const std::string& why) const {
    return engine_->recorded()->dump(GRACED_VERSION, why, seconds(time(nullptr)), boottime());
}

// Beside the database, which only root may read: a recording names clients. A bug that comes back
// each second after the restart must not fill the disk, and its first recording tells most.
void daemon::keep_crash(const std::string& why) const {
    const auto dir = std::filesystem::path(config_.store.path).parent_path();
    for (int n = 1; n <= 8; ++n) {
        const std::string file = dir / ("crash-" + std::to_string(n) + ".rec");
        const int fd =
            open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
            continue;
        const bytes all = fd < 0 ? bytes{} : recording(why);
        std::size_t done = 0;
        ssize_t put = fd < 0 ? -1 : 1;
        while (put > 0 && done < all.size()) {
            put = write(fd, all.data() + done, all.size() - done);
            done += put > 0 ? static_cast<std::size_t>(put) : 0;
        }
        const bool kept = put > 0 && fsync(fd) == 0;
        if (fd >= 0)
            close(fd);
        if (kept)
            spdlog::critical("the last inputs are in {}: gracectl replay shows them", file);
        else
            spdlog::critical("the last inputs could not be written to {}", file);
        return;
    }
    spdlog::critical("the last inputs are not kept: there are eight crash-N.rec in {} already",
                     dir.string());
}

// What a successor has to know to adopt the servers. Before nfsd hears of it: a START that it was
// told and nobody remembers would look like one that it has not lost anything by.
void daemon::keep_instances() {
    for (const auto& [name, i] : engine_->machine().instances()) {
        auto it = instances_->all().find(name);
        if (it == instances_->all().end())
            continue;
        server_instance s = it->second;
        s.running = i.running;
        s.stopping = i.stopping;
        s.answered = i.answered;
        if (auto r = instances_->put(name, s); !r)
            spdlog::error("{}", r.error().message);
    }
}

// For people only: whatever goes wrong in here is none of the protocol's business.
void daemon::watch() {
    try {
        timespec t{};
        clock_gettime(CLOCK_REALTIME, &t);
        auto events =
            watch_.look(engine_->machine(), boottime(), t.tv_sec * 1000 + t.tv_nsec / 1'000'000);
        if (news_number_ == 0)
            news_number_ = static_cast<std::uint64_t>(boottime() / 1'000'000);
        for (const grace_event& e : events) {
            news_.push_back(e);
            ++news_number_;
        }
        while (news_.size() > max_news)
            news_.pop_front();
        // Graces are kept, not what happens between them.
        std::erase_if(events, [](const grace_event& e) { return !e.at; });
        if (graces_)
            graces_->put(std::move(events));
    } catch (const std::exception& e) {
        spdlog::error("what happens in this grace is not kept: {}", e.what());
    }
}

nlohmann::json daemon::news_after(std::uint64_t number) const {
    nlohmann::json all = nlohmann::json::array();
    for (std::size_t i = 0; i < news_.size(); ++i) {
        const std::uint64_t its = news_number_ - (news_.size() - 1 - i);
        if (its <= number)
            continue;
        all.push_back(event_json(news_[i]));
        all.back()["epoch"] = news_[i].at.value;
        all.back()["number"] = its;
    }
    return all;
}

void daemon::after_inputs() {
    go_on_importing();
    if (!ready_ && notify_ && (kernel_seen_ || no_kernel_)) {
        ready_ = true;
        notify_->ready(bypassed() ? "THE GATE IS BYPASSED" : "gate attached and closed");
    }
}

void daemon::arm(instant t) {
    if (t == armed_)
        return;
    if (armed_ != 0)
        qb_loop_timer_del(loop_, timer_);
    armed_ = t;
    if (t == 0)
        return;
    const instant now = boottime();
    const auto wait = static_cast<std::uint64_t>(t > now ? t - now : 0);
    qb_loop_timer_add(
        loop_, QB_LOOP_HIGH, wait, this,
        [](void* d) {
            auto* self = static_cast<daemon*>(d);
            self->armed_ = 0;
            self->take(input::tick{});
        },
        &timer_);
}

void daemon::arm_second() {
    qb_loop_timer_add(
        loop_, QB_LOOP_LOW, 1'000'000'000, this,
        [](void* d) {
            auto* self = static_cast<daemon*>(d);
            self->every_second();
            self->arm_second();
        },
        &second_);
}

void daemon::every_second() {
    std::erase_if(children_, [](int pid) {
        int how = 0;
        if (waitpid(pid, &how, WNOHANG) != pid)
            return false;
        if (how != 0)
            spdlog::error("fence_command ended with status {}", how);
        return true;
    });
    look_for_untracked();
    nfs3_->every_second();
    const fsm& f = engine_->machine();
    std::string line = std::string(bypassed() ? "GATE BYPASSED, " : "") + "phase " +
                       (f.synced() ? to_string(f.current_phase()) : "unsynced") + ", C " +
                       std::to_string(f.replicated().current.value);
    if (notify_)
        notify_->status(line);
    if (asked_.empty())
        return;
    std::string why;
    for (const std::string& b : f.blocked_by())
        why += (why.empty() ? "" : "; ") + b;
    if (!why.empty())
        line += ": " + why;
    for (auto& [id, handle] : asked_) {
        if (progress_[id] == line)
            continue;
        progress_[id] = line;
        handle.progress(line);
    }
}

// Bad scenario: nfsd is started again by hand while this daemon is away for more than a second. The
// kernel says nothing but a line in its log, takes the pipe away, and keeps no records.
void daemon::look_for_untracked() {
    if (!shim_)
        return;
    const auto pipes = tracker_->status();
    for (const auto& p : pipes) {
        int& seconds = untracked_[p.server];
        seconds = shim_->nfsd_runs(p.server) && !p.connected ? seconds + 1 : 0;
        if (seconds == untracked_patience)
            spdlog::error("{}", untracked_text(p.server));
    }
    std::erase_if(untracked_, [&](const auto& u) {
        return std::ranges::none_of(pipes, [&](const auto& p) { return p.server == u.first; });
    });
}

std::string daemon::untracked_text(const std::string& server) {
    return "server " + server +
           ": its nfsd runs UNTRACKED: its clients are not on record and lose "
           "their locks when it restarts or moves. Stop it and start it again (graced-server)";
}

// --- what the engine says to people ---

void daemon::answer(ticket id, request_status status, const std::string& detail) {
    auto it = asked_.find(id.value);
    if (it == asked_.end())
        return;
    if (status == request_status::done && importing_.contains(id.value))
        return; // hosted here: go_on_importing() has the rest
    it->second.finish(control_answer(status, detail));
    asked_.erase(it);
    progress_.erase(id.value);
    importing_.erase(id.value);
}

void daemon::tell(news_level level, const std::string& text) {
    switch (level) {
    case news_level::debug:
        spdlog::debug("{}", text);
        break;
    case news_level::info:
        spdlog::info("{}", text);
        break;
    case news_level::warning:
        spdlog::warn("{}", text);
        break;
    case news_level::error:
        spdlog::error("{}", text);
        break;
    }
}

void daemon::fence(node_id node, const std::string& why) {
    spdlog::error("{}", why);
    if (config_.cluster.fence_command.empty()) {
        spdlog::error("node {} should be fenced, but [cluster] fence_command is empty: fence it by "
                      "hand (stonith_admin --fence)",
                      node.value);
        return;
    }
    const std::string command = config_.cluster.fence_command + " \"$1\"";
    const auto& nodes = engine_->machine().replicated().nodes;
    auto n = nodes.find(node);
    const std::string name =
        n != nodes.end() && !n->second.name.empty() ? n->second.name : std::to_string(node.value);
    const char* argv[] = {"/bin/sh", "-c", command.c_str(), "graced-fence", name.c_str(), nullptr};
    pid_t pid = 0;
    if (posix_spawn(&pid, argv[0], nullptr, nullptr, const_cast<char**>(argv), environ) == 0)
        children_.insert(pid);
    else
        spdlog::error("fence_command cannot be started: {}", command);
}

// --- control requests ---

void daemon::adopt(const std::string& server, const server_instance& i) {
    if (shim_)
        shim_->set_namespace(server, i.netns, i.nfsd_fs);
    if (i.running)
        spdlog::info("server {} runs on this node: adopted", server);
    take(input::instance_known{server, i.running, i.stopping, i.cld_version != 0, i.answered});
    tracker_->watch(server, i.pipe, i.cld_version,
                    i.nfsd_fs); // tells at once if its nfsd has gone since
    nfs3_->watch(server, {i.callout, i.callout_user, i.rmtab});
}

std::optional<node_id> daemon::find_node(const std::string& name_or_id) const {
    for (const auto& [id, n] : engine_->machine().replicated().nodes)
        if (n.name == name_or_id || std::to_string(id.value) == name_or_id)
            return id;
    return {};
}

nlohmann::json daemon::status() const {
    status_context c;
    c.now = boottime();
    c.realtime_s = time(nullptr);
    c.state = to_string(config_.graced.state);
    c.lock_backend = locks_ ? (locks_->embedded() ? "embedded" : "dlm") : "none";
    c.gate_backend = to_string(config_.gate.backend);
    c.warnings = warnings_;
    if (shim_) {
        c.waiters = static_cast<std::int64_t>(shim_->status().last.waiters);
        c.exempts = shim_->status().last.exempts;
        if (const std::string why = shim_->status().attached ? shim_->unfit() : ""; !why.empty())
            c.warnings.push_back(why);
    }
    c.bypass = bypassed();
    if (embedded_ && c.bypass)
        c.warnings.push_back("THE (stand-in) GATE OF THIS NODE IS BYPASSED by an operator");
    if (locks_ && locks_->frozen_for() > seconds(1))
        c.warnings.push_back("the DLM lockspace has been frozen for " +
                             std::to_string(locks_->frozen_for() / seconds(1)) +
                             " s (a node died; fencing or recovery is under way)");
    if (const auto s = store_->stats(); s.failed)
        c.warnings.push_back(s.why);
    for (const auto& p : tracker_->status())
        if (!p.trouble.empty() && p.connected != p.tracked)
            c.warnings.push_back("server " + p.server + ": " + p.trouble);
    for (const auto& [server, seconds] : untracked_)
        if (seconds >= untracked_patience)
            c.warnings.push_back(untracked_text(server));
    return status_json(engine_->machine(), c);
}

std::string daemon::metrics(const std::string& format) const {
    metrics_context c;
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    c.now = boottime();
    c.realtime = static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
    const nlohmann::json s = status();
    c.state = s["state"];
    c.lock_backend = s["lock"]["backend"];
    c.gate_backend = s["kernel"]["backend"];
    c.bypass = s["kernel"]["bypass"];
    c.warnings = s["warnings"].size();
    if (shim_) {
        c.permit_until = shim_->permit_until();
        const auto& k = shim_->status().last;
        c.module = {k.waiters, k.undone, k.exempts};
    } else if (embedded_) {
        c.permit_until = embedded_->permit_until();
    }
    if (locks_)
        c.frozen_for = locks_->frozen_for();
    c.graces = watch_.counts();
    for (const auto& p : tracker_->status())
        c.trackers[p.server] = {p.tracked, p.upcalls};
    const auto db = store_->stats();
    c.store = {db.failed,         db.batches, db.queued,        db.failures,
               db.commit_seconds, {},         db.commits.back()};
    for (std::size_t i = 0; i < db.limits.size(); ++i)
        c.store.commits.emplace_back(db.limits[i], db.commits[i]);
    return metrics_text(engine_->machine(), c,
                        format == "prometheus" ? metrics_format::prometheus
                                               : metrics_format::openmetrics);
}

void daemon::on_request(const nlohmann::json& r, const control_peer& peer, const reply_handle& h) {
    const std::string verb = r.at("verb").get<std::string>();
    auto server = [&] { return r.value("server", std::string()); };
    auto ask = [&](any_input in) {
        asked_[h.id()] = h;
        take(std::move(in));
    };
    const ticket id{h.id()};

    if (verb == "status") {
        nlohmann::json now = status();
        if (r.contains("events_after"))
            now["events"] = news_after(r["events_after"].get<std::uint64_t>());
        return h.finish(std::move(now));
    }
    if (verb == "metrics") {
        const std::string format = r.value("format", "openmetrics");
        return h.finish({{"format", format}, {"text", metrics(format)}});
    }
    if (verb == "history")
        return h.finish({{"database", config_.store.path}});
    if (verb == "clients") {
        nlohmann::json answer =
            clients_json(engine_->machine(), server(), r.value("after_server", ""),
                         r.value("after_hex", ""), 10000);
        // Where gracectl may look by itself: thousands of files, which this loop must not read.
        answer["history"] = history_path();
        for (const auto& [name, i] : instances_->all())
            if (i.running && !i.nfsd_fs.empty())
                answer["nfsd_fs"][name] = i.nfsd_fs;
        return h.finish(answer);
    }
    if (verb == "mounts")
        return h.finish(mounts_json(engine_->machine(), server(), r.value("after_server", ""),
                                    r.value("after_hex", ""), 10000));
    if (verb == "record") {
        // Handed over, not written: this process writes no file that somebody else names.
        if (peer.uid != 0)
            return h.fail("permission", "only root may have a recording: it names clients");
        return h.finish({{"recording_hex", to_hex(recording("gracectl record"))}});
    }
    if (verb == "start") {
        if (r.value("join", false) && !in_grace(engine_->machine().replicated()))
            return h.fail("no_grace", "there is no grace to join (gracectl start begins one)");
        return ask(input::start{server(), id});
    }
    if (verb == "lift") {
        // Not a moment before: what it would end then are reclaims that have just begun.
        const auto& servers = engine_->machine().replicated().servers;
        const auto v = servers.find(server());
        if (r.value("only_unhosted", false) && v != servers.end() && v->second.host)
            return h.fail(to_code(request_status::hosted_elsewhere),
                          "server " + server() + " is hosted by node " +
                              std::to_string(v->second.host.value));
        return ask(input::lift{server(), id});
    }
    if (verb == "extend") {
        const std::int64_t by = r.at("seconds").get<std::int64_t>();
        if (by < 1 || seconds(by) > msg::max_extension)
            return h.fail("bad_request", "a grace is extended by 1 to 3600 seconds");
        return ask(input::extend{server(), seconds(by), id});
    }
    if (verb == "hold") {
        const bool on = r.at("on").get<bool>();
        if (on && !engine_->machine().params().kernel_expected)
            return h.fail("failed", "this node has no gate (gate.backend = none)");
        return ask(input::hold{on, id});
    }
    if (verb == "wait") {
        const std::string name = r.at("phase").get<std::string>();
        for (phase p : {phase::normal, phase::entering, phase::reclaiming, phase::lifting})
            if (name == to_string(p))
                return ask(input::wait{p, id});
        return h.fail("bad_request",
                      "there is no phase '" + name + "': normal, entering, reclaiming or lifting");
    }
    if (verb == "fence-notify") {
        const std::string name = r.at("node").get<std::string>();
        auto node = find_node(name);
        if (!node)
            return h.fail(to_code(request_status::no_such_node),
                          "no node '" + name + "' is known to graced");
        return ask(input::fence_news{*node, id});
    }
    if (verb == "bypass")
        return on_bypass(r, h);
    if (verb == "exempt") {
        if (!shim_)
            return h.fail("failed", "only gate.backend = module knows exemptions");
        return shim_->set_exempt(r.at("pid").get<std::uint32_t>(), r.at("on").get<bool>(),
                                 [h](result<void> done) {
                                     if (done)
                                         h.finish(nlohmann::json::object());
                                     else
                                         h.fail("failed", done.error().message);
                                 });
    }
    if (verb == "import")
        return on_import(r, peer, h);
    if (verb == "server-start")
        return on_server_start(r, h);
    if (verb == "server-running")
        return on_server_running(r, h);
    if (verb == "server-stop")
        return ask(input::stop{server(), id});
    if (verb == "server-released") {
        tracker_->unwatch(server());
        nfs3_->unwatch(server());
        if (shim_)
            shim_->forget(server());
        instances_->remove(server());
        return ask(input::released{server(), id});
    }
    h.fail("bad_request", "there is no request '" + verb + "' (is gracectl newer than graced?)");
}

bool daemon::bypassed() const {
    return shim_ ? shim_->status().last.bypass : embedded_ && embedded_->bypass();
}

// This node: at once, whatever the group does; the others hear from the protocol that its gate is
// none. Other nodes: through the group.
void daemon::on_bypass(const nlohmann::json& r, const reply_handle& h) {
    const bool on = r.at("on").get<bool>();
    if (r.contains("node")) {
        node_id node; // none: all
        if (const auto name = r.at("node").get<std::string>(); !name.empty()) {
            const auto found = find_node(name);
            if (!found)
                return h.fail(to_code(request_status::no_such_node),
                              "no node '" + name + "' is known to graced");
            node = *found;
        }
        asked_[h.id()] = h;
        return take(input::bypass{node, on, ticket{h.id()}});
    }
    spdlog::error("the bypass of this node's gate is switched {} by an operator",
                  on ? "ON" : "off");
    if (shim_)
        return shim_->set_bypass(on, [h](result<void> done) {
            if (done)
                h.finish(nlohmann::json::object());
            else
                h.fail("failed", done.error().message);
        });
    if (!embedded_)
        return h.fail("failed", "this node has no gate (gate.backend = none)");
    embedded_->set_bypass(on);
    h.finish(nlohmann::json::object());
}

// The server must be hosted here before anything can be recorded for it: one that no node hosts is
// taken by this one, as if it were to be started here next.
void daemon::on_import(const nlohmann::json& r, const control_peer& peer, const reply_handle& h) {
    if (peer.uid != 0)
        return h.fail("permission", "only root may import: it decides who may reclaim");
    const std::string name = r.at("server").get<std::string>();
    if (name.empty() || name.size() > max_server_name)
        return h.fail("bad_request", "a server's name has 1 to 64 characters");
    const auto& servers = engine_->machine().replicated().servers;
    const auto v = servers.find(name);
    if (v != servers.end() && v->second.host == engine_->machine().params().self)
        return import_->begin(r, engine_->machine(), h);
    asked_[h.id()] = h;
    importing_[h.id()] = r;
    take(input::serve{name, ticket{h.id()}});
}

// As soon as the server is hosted here: a start of it would wait for reclaim to open.
void daemon::go_on_importing() {
    if (importing_.empty())
        return;
    const auto& servers = engine_->machine().replicated().servers;
    std::vector<std::uint64_t> ready;
    for (const auto& [id, request] : importing_) {
        const auto v = servers.find(request["server"].get<std::string>());
        if (v != servers.end() && v->second.host == engine_->machine().params().self)
            ready.push_back(id);
    }
    for (const std::uint64_t id : ready) {
        auto request = importing_.extract(id);
        auto reply = asked_.extract(id);
        if (request.empty() || reply.empty())
            continue;
        progress_.erase(id);
        take(input::forget{ticket{id}});
        try {
            import_->begin(request.mapped(), engine_->machine(), reply.mapped());
        } catch (const nlohmann::json::exception& e) { // as control_server does
            reply.mapped().fail("bad_request", e.what());
        }
    }
}

void daemon::on_server_start(const nlohmann::json& r, const reply_handle& h) {
    const std::string name = r.at("server").get<std::string>();
    if (name.empty() || name.size() > max_server_name)
        return h.fail("bad_request", "a server's name has 1 to 64 characters");
    server_instance i;
    i.netns = r.value("netns", "");
    if (i.netns.empty()) // the node's own
        i.netns = "/proc/self/ns/net";
    i.nfsd_fs = r.value("nfsd_fs", "");
    i.pipe = r.value("pipe", "");
    i.cld_version = r.value("cld_version", 2);
    i.callout = r.value("callout", "");
    i.callout_user = r.value("callout_user", std::uint32_t{0});
    i.rmtab = r.value("rmtab", "");
    if (i.pipe.empty())
        return h.fail("bad_request", "server-start needs the path of the server's cld pipe");
    if (auto it = instances_->all().find(name);
        it != instances_->all().end() && it->second.running) {
        // Started twice: what runs stays as it is.
        i.running = true;
        i.stopping = it->second.stopping;
        i.answered = it->second.answered;
    }
    if (auto put = instances_->put(name, i); !put)
        return h.fail("failed", put.error().message);
    adopt(name, i);
    asked_[h.id()] = h;
    take(input::serve{name, ticket{h.id()}});
}

// nfsd runs untracked, without an error, if nobody polled its pipe in time: its clients would not
// be on record and would lose their locks at the next failover.
void daemon::on_server_running(const nlohmann::json& r, const reply_handle& h) {
    const std::string name = r.at("server").get<std::string>();
    if (!instances_->all().contains(name))
        return h.fail(to_code(request_status::no_such_server),
                      "server " + name + " was not announced with server-start");
    if (!tracker_->tracked(name))
        return h.fail("failed", "nfsd of server " + name +
                                    " does not use graced as its client tracker: its clients would "
                                    "lose their locks at the next failover. Stop it and start it "
                                    "again with graced-server; see dmesg");
    // Bad scenario: with upcalls v0 nfsd begins a grace of its own, as long as nfsv4gracetime says,
    // although no client is on record; nobody NEEDs, so no DONE ends it, and for minutes no client
    // gets a lock. Likewise an nfsd that was starting while its grace was lifted.
    const fsm& f = engine_->machine();
    const auto& servers = f.replicated().servers;
    if (auto it = servers.find(name); f.synced() && it != servers.end() && !it->second.need)
        kernel().end_nfsd_grace(name);
    h.finish(nlohmann::json::object());
}

} // namespace grace
