// SPDX-License-Identifier: GPL-2.0-or-later
#include "dlm_keeper/dlm_worker.hh"

#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace grace::keeper {

namespace {

constexpr auto busy_patience = std::chrono::seconds(10);
constexpr int retry_ms = 10;
constexpr int open_retry_ms = 2000;
constexpr std::size_t mailbox_limit = 4096;

// linux/dlmconstants.h; the order of grace::lock_mode is not theirs.
std::uint32_t kernel_mode(lock_mode m) {
    switch (m) {
    case lock_mode::nl:
        return LKM_NLMODE;
    case lock_mode::pr:
        return LKM_PRMODE;
    case lock_mode::cw:
        return LKM_CWMODE;
    case lock_mode::ex:
        return LKM_EXMODE;
    }
    return LKM_NLMODE;
}

} // namespace

template <typename T>
mailbox<T>::mailbox()
    : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
}
template <typename T>
mailbox<T>::~mailbox() {
    ::close(fd_);
}

template <typename T>
void mailbox<T>::post(T item) {
    const std::lock_guard hold(mutex_);
    if (items_.size() >= mailbox_limit)
        throw std::length_error("graced-dlm: a mailbox overflowed; the request rules are broken");
    items_.push_back(std::move(item));
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(fd_, &one, sizeof one);
}

template <typename T>
std::vector<T> mailbox<T>::take_all() {
    const std::lock_guard hold(mutex_);
    std::uint64_t count;
    [[maybe_unused]] const ssize_t n = ::read(fd_, &count, sizeof count);
    return std::exchange(items_, {});
}

template class mailbox<dlm_worker::order>;
template class mailbox<dlm_worker::news>;

dlm_worker::dlm_worker(std::string lockspace, std::string config)
    : lockspace_(std::move(lockspace))
    , addresses_(config + "/comms/")
    , members_(config + "/spaces/" + lockspace_ + "/nodes/") {}

void dlm_worker::start() {
    // Signals are the other thread's; a thread inherits the mask that it was started with.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    // Detached: it may hang in the kernel, and the process must be able to end all the same.
    std::thread([this] { run(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

std::uint32_t dlm_worker::blocked_ms() const {
    const std::int64_t call = call_since_, held_back = held_back_since_;
    const std::int64_t since =
        call == 0 || held_back == 0 ? std::max(call, held_back) : std::min(call, held_back);
    if (since == 0)
        return 0;
    const auto now = clock::now().time_since_epoch();
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(
        now - std::chrono::nanoseconds(since));
    return static_cast<std::uint32_t>(std::max<std::int64_t>(ms.count(), 1));
}

namespace {

std::int64_t clock_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

} // namespace

// Notes that the kernel has the thread, and keeps errno.
template <typename F>
int dlm_worker::in_kernel(F&& f) {
    call_since_ = clock_ns();
    const int rv = f();
    const int code = errno;
    call_since_ = 0;
    errno = code;
    return rv;
}

bool dlm_worker::open_lockspace() {
    int last_code = 0;
    for (;;) {
        in_kernel([&] {
            errno = 0;
            handle_ = dlm_open_lockspace(lockspace_.c_str());
            if (!handle_)
                handle_ = dlm_create_lockspace(lockspace_.c_str(), 0600);
            return 0;
        });
        if (handle_)
            return true;
        const int code = errno ? errno : ENODEV;
        if (code != last_code) {
            const std::string text = "cannot open or create DLM lockspace '" + lockspace_ +
                                     "': " + std::strerror(code) +
                                     "; is dlm_controld running (dlm.service), and are there "
                                     "/dev/misc/dlm-control and dlm_" +
                                     lockspace_ + " (made by udev)? Trying on";
            spdlog::error("{}", text);
            reports.post(trouble{text});
            last_code = code;
        }
        pollfd p{orders.fd(), POLLIN, 0};
        ::poll(&p, 1, open_retry_ms);
        for (const order& o : orders.take_all())
            if (std::holds_alternative<do_release>(o))
                return false;
    }
}

void dlm_worker::run() {
    if (!open_lockspace()) {
        reports.post(released{});
        return;
    }
    spdlog::info("lockspace '{}' is open", lockspace_);
    reports.post(opened{});
    const int fd = dlm_ls_get_fd(handle_);
    while (!done_) {
        const bool again = std::ranges::any_of(locks_, [](const auto& l) {
            return l.second.busy_since || l.second.held_back ||
                   l.second.cancel == lock::cancelling::due;
        });
        std::array<pollfd, 2> p{{{fd, POLLIN, 0}, {orders.fd(), POLLIN, 0}}};
        ::poll(p.data(), p.size(), again ? retry_ms : -1);
        if (p[0].revents)
            dlm_dispatch(fd);
        if (p[1].revents)
            for (const order& o : orders.take_all())
                perform(o);
        retry();
        if (releasing_)
            release_step();
    }
    in_kernel([&] {
        return leave_ ? dlm_release_lockspace(lockspace_.c_str(), handle_, 1)
                      : dlm_close_lockspace(handle_);
    });
    reports.post(released{});
}

void dlm_worker::perform(const order& o) {
    if (const auto* c = std::get_if<do_convert>(&o))
        convert(*c);
    else if (const auto* k = std::get_if<do_cancel>(&o))
        cancel(k->key);
    else {
        releasing_ = true;
        leave_ = std::get<do_release>(o).leave;
    }
}

void dlm_worker::convert(const do_convert& c) {
    lock& l = locks_[c.key];
    if (!l.worker) {
        l.worker = this;
        l.key = c.key;
        l.name = name_of(c.key);
        l.sb.sb_lvbptr = l.value.data();
    }
    l.target = c.mode;
    l.write = c.value;
    l.cancel = lock::cancelling::no;
    proceed(l);
}

// May the kernel be asked for this lock now? Not while a member of the lockspace has no address:
// dlm_controld is about to stop the lockspace. And not for `alive` of a node that the lockspace
// still has as a member: that node is not fenced yet, or is there. dlm_controld takes it out of
// the members just before it starts the stopped lockspace again.
bool dlm_worker::may_ask(const lock& l) const {
    // No such directory, or one that goes while it is read: no dlm_controld, nothing to wait for.
    // The loop that `for (:)` makes would throw at the second, and the locks go with the keeper.
    std::error_code none;
    for (auto entry = std::filesystem::directory_iterator(members_, none);
         entry != std::filesystem::directory_iterator(); entry.increment(none)) {
        const std::string node = entry->path().filename();
        if (!std::filesystem::exists(addresses_ + node, none))
            return false;
        if (l.key.resource == lock_resource::alive && l.target == lock_mode::pr &&
            node == std::to_string(l.key.node.value))
            return false;
    }
    return true;
}

// Starts the next step towards the target.
void dlm_worker::proceed(lock& l) {
    l.held_back = !may_ask(l);
    if (l.held_back)
        return;
    if (call(l) == 0) {
        l.busy_since.reset();
        return;
    }
    const int code = errno;
    if (code == EBUSY) {
        if (!l.busy_since)
            l.busy_since = clock::now();
        if (clock::now() - *l.busy_since < busy_patience)
            return;
    }
    spdlog::error("the DLM refuses {} on {}: {}", mode_name(*l.target), l.name,
                  std::strerror(code));
    lock_event e;
    e.kind = lock_event::what::refused;
    e.code = code;
    finish(l, e);
}

int dlm_worker::call(lock& l) {
    static constexpr auto ast = [](void* p) {
        auto* self = static_cast<lock*>(p);
        self->worker->completed(*self);
    };
    static constexpr auto bast = [](void* p) {
        auto* self = static_cast<lock*>(p);
        lock_event e;
        e.kind = lock_event::what::blocking;
        e.key = self->key;
        self->worker->reports.post(e);
    };
    const auto lock_call = [&](lock_mode mode, std::uint32_t flags) {
        return in_kernel([&] {
            return dlm_ls_lock(handle_, kernel_mode(mode), &l.sb, flags, l.name.data(),
                               static_cast<unsigned>(l.name.size()), 0, ast, &l, bast, nullptr);
        });
    };
    const bool is_grace = l.key.resource == lock_resource::grace;
    if (l.sb.sb_lkid == 0) {
        if (!is_grace && *l.target == lock_mode::nl) {
            finish(l, {}); // nothing is held, nothing was asked for
            return 0;
        }
        l.value.fill(0); // what the kernel leaves alone must not look like a value
        l.at = is_grace ? step::taking_nl : step::requesting;
        return is_grace ? lock_call(lock_mode::nl, LKF_EXPEDITE | LKF_VALBLK)
                        : lock_call(*l.target, 0);
    }
    if (!is_grace && *l.target == lock_mode::nl && l.held != lock_mode::ex) {
        l.at = step::unlocking;
        return in_kernel([&] { return dlm_ls_unlock(handle_, l.sb.sb_lkid, 0, &l.sb, &l); });
    }
    std::uint32_t flags = LKF_CONVERT;
    if (is_grace && l.held == lock_mode::ex) {
        if (l.write) {
            flags |= LKF_VALBLK;
            std::copy(l.write->begin(), l.write->end(), l.value.begin());
        } // else the resource's value and its flag stay what they are
    } else if (is_grace) {
        flags |= LKF_VALBLK;
        if (l.held == lock_mode::nl)
            l.value.fill(0);
    }
    l.at = step::converting;
    return lock_call(*l.target, flags);
}

// The completion AST: what libdlm says of the step that was under way.
void dlm_worker::completed(lock& l) {
    const int status = l.sb.sb_status;
    const step at = std::exchange(l.at, step::idle);
    if (at == step::idle || !l.target) {
        spdlog::warn("a completion for {} (status {:#x}) that nobody waits for", l.name, status);
        return;
    }
    lock_event e;
    if (at == step::unlocking) {
        if (status == EUNLOCK) {
            l.sb.sb_lkid = 0;
            return finish(l, e);
        }
    } else if (status == 0) {
        // The kernel hands out the value on the way up from nothing or NL.
        const bool value_read =
            l.key.resource == lock_resource::grace &&
            (at == step::taking_nl || (l.held == lock_mode::nl && *l.target != lock_mode::nl));
        l.held = at == step::taking_nl ? lock_mode::nl : *l.target;
        if (at == step::taking_nl && l.cancel != lock::cancelling::no) {
            e.kind = lock_event::what::cancelled;
            return finish(l, e);
        }
        if (l.held != *l.target ||
            (l.key.resource == lock_resource::alive && *l.target == lock_mode::nl))
            return proceed(l); // NL was the first step only, or goes altogether
        if (value_read) {
            e.value_valid = !(l.sb.sb_flags & DLM_SBF_VALNOTVALID);
            if (e.value_valid)
                std::transform(l.value.begin(), l.value.end(), e.value.begin(),
                               [](char c) { return static_cast<std::uint8_t>(c); });
        }
        return finish(l, e);
    }
    if (at == step::requesting || at == step::taking_nl)
        l.sb.sb_lkid = 0; // the kernel has let go of a new lock that was not granted
    if (status == ECANCEL) {
        e.kind = lock_event::what::cancelled;
    } else {
        spdlog::warn("the DLM did not grant {} on {}: status {:#x}", mode_name(*l.target), l.name,
                     status);
        e.kind = lock_event::what::refused;
        e.code = status;
    }
    finish(l, e);
}

void dlm_worker::finish(lock& l, lock_event e) {
    e.key = l.key;
    if (l.sb.sb_lkid == 0)
        l.held.reset();
    e.mode = l.held.value_or(lock_mode::nl);
    l.target.reset();
    l.write.reset();
    l.at = step::idle;
    l.cancel = lock::cancelling::no;
    l.held_back = false;
    l.busy_since.reset();
    if (!releasing_)
        reports.post(e);
}

void dlm_worker::cancel(lock_key key) {
    const auto at = locks_.find(key);
    if (at == locks_.end() || !at->second.target)
        return; // the grant came first and is on its way to the daemon
    lock& l = at->second;
    // A way down is granted at once, or when the lockspace thaws: there is nothing to cancel.
    if (l.cancel != lock::cancelling::no || l.at == step::unlocking || *l.target == lock_mode::nl)
        return;
    if (l.busy_since || l.held_back) {
        lock_event e;
        e.kind = lock_event::what::cancelled;
        return finish(l, e);
    }
    l.cancel = lock::cancelling::due;
    send_cancel(l);
}

void dlm_worker::send_cancel(lock& l) {
    if (l.at != step::taking_nl) { // that one is granted soon, see completed()
        if (!may_ask(l))
            return;
        if (in_kernel([&] { return dlm_ls_unlock(handle_, l.sb.sb_lkid, LKF_CANCEL, &l.sb, &l); }) <
            0)
            spdlog::debug("cancel on {}: {}", l.name, std::strerror(errno));
    }
    l.cancel = lock::cancelling::sent;
}

// What was put off.
void dlm_worker::retry() {
    bool held_back = false;
    for (auto& [key, l] : locks_) {
        if (l.busy_since || l.held_back)
            proceed(l);
        else if (l.cancel == lock::cancelling::due)
            send_cancel(l);
        held_back |= l.held_back;
    }
    if (!held_back)
        held_back_since_ = 0;
    else if (held_back_since_ == 0)
        held_back_since_ = clock_ns();
}

// Towards no lock at all; called again after everything that happens.
void dlm_worker::release_step() {
    done_ = true;
    for (auto& [key, l] : locks_) {
        if (l.sb.sb_lkid == 0 && !l.target)
            continue;
        done_ = false;
        if (l.target) {
            cancel(key);
            continue;
        }
        if (l.held == lock_mode::ex) { // never unlock EX, see dlm_worker.hh
            l.target = lock_mode::nl;
            proceed(l);
            continue;
        }
        l.target = lock_mode::nl;
        l.at = step::unlocking;
        if (in_kernel([&] { return dlm_ls_unlock(handle_, l.sb.sb_lkid, 0, &l.sb, &l); }) < 0) {
            spdlog::warn("cannot unlock {}: {}", l.name, std::strerror(errno));
            l.sb.sb_lkid = 0; // its end comes with the process
            l.target.reset();
        }
    }
}

} // namespace grace::keeper
