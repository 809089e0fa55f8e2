// SPDX-License-Identifier: GPL-2.0-or-later
// The one thread that calls libdlm and reads its ASTs.
//
// A thread of its own, because nearly every libdlm call blocks uninterruptibly while the lockspace
// is stopped (dlm_lock_recovery in fs/dlm/lock.c), which is whenever a node has just died. Calls
// and ASTs in the same thread, because libdlm writes the caller's dlm_lksb from both. An AST that
// waits behind a blocked call is late, never lost; and while the lockspace is stopped nothing is
// granted.
//
// Traps of the interface that this file works around (kernel 6.1, libdlm 4.2):
//   - dlm_ls_unlock() sends uninitialised memory as value block, and the kernel writes that to the
//     resource if EX is held and the last conversion had DLM_LKF_VALBLK: EX is always converted
//     down before it is unlocked.
//   - After a cancel that lost the race the kernel may still wait for the master's answer to it; a
//     conversion meanwhile fails with EBUSY: tried again for some seconds.
//   - A blocking AST overwrites sb_status of the lksb: only the completion AST itself looks at it.
//   - A new NL lock queues behind conversions like any other, unless DLM_LKF_EXPEDITE.
//   - When a resource's master is gone, its value is taken from the locks that had DLM_LKF_VALBLK
//   in
//     their last conversion; without any it is silently empty (recover_lvb in fs/dlm/recover.c). So
//     `grace` has the flag always, its buffer keeps what was read last, and the worst that happens
//     is DLM_SBF_VALNOTVALID. Except on the way down from EX without a value: that would write one.
//   - Leaving the lockspace fails with EBUSY, unless forced, as long as this node is master of a
//     resource that another node has a lock on. Forced it is an orderly leave all the same.
//   - When a node goes, dlm_controld first takes its address away (at quorum's news) and only then
//     stops the lockspaces (at their confchg). A request that needs that node in between is lost
//     for good if it was the lookup of a new lock (set_master() ignores the error of
//     send_lookup()), even a cancel does not end it, and the kernel warns with a stack trace; see
//     may_ask().
//   - dlm_create_lockspace() counts, and a killed process's count is never taken back: open first.
#pragma once

#include "adapters/lock_words.hh"

extern "C" { // libdlm.h does not say so itself
#include <libdlm.h>
}

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <variant>
#include <vector>

namespace grace::keeper {

// A bounded queue between two threads, with a descriptor that is readable while something is in it.
template <typename T>
class mailbox {
public:
    mailbox();
    ~mailbox();
    mailbox(const mailbox&) = delete;
    mailbox& operator=(const mailbox&) = delete;
    int fd() const { return fd_; }
    void post(T);
    std::vector<T> take_all();

private:
    std::mutex mutex_;
    std::vector<T> items_;
    int fd_;
};

class dlm_worker {
public:
    struct do_convert {
        lock_key key;
        lock_mode mode;
        std::optional<lvb_bytes> value;
    };
    struct do_cancel {
        lock_key key;
    };
    struct do_release {
        bool leave = true;
    };
    using order = std::variant<do_convert, do_cancel, do_release>;

    struct opened {};
    struct released {};
    struct trouble {
        std::string text;
    };
    using news = std::variant<opened, released, trouble, lock_event>;

    // `config` is the DLM's directory in configfs, where dlm_controld keeps the members' addresses
    // and each lockspace's members.
    explicit dlm_worker(std::string lockspace,
                        std::string config = "/sys/kernel/config/dlm/cluster");
    void start();

    // At most one convert and one cancel of each lock are under way, so the boxes stay small.
    mailbox<order> orders;
    mailbox<news> reports;

    // For how long a call has not returned from the kernel, or was not made because the lockspace
    // is about to stop; 0 if neither.
    std::uint32_t blocked_ms() const;

private:
    using clock = std::chrono::steady_clock;
    enum class step : std::uint8_t { idle, taking_nl, converting, requesting, unlocking };
    struct lock {
        dlm_worker* worker = nullptr;
        lock_key key;
        std::string name;
        dlm_lksb sb{};
        std::array<char, DLM_LVB_LEN> value{};
        std::optional<lock_mode> held;
        std::optional<lock_mode> target;
        std::optional<lvb_bytes> write;
        step at = step::idle;
        enum class cancelling : std::uint8_t { no, due, sent } cancel = cancelling::no;
        bool held_back = false;                      // may_ask() said no
        std::optional<clock::time_point> busy_since; // the last try gave EBUSY
    };

    void run();
    bool open_lockspace();
    void perform(const order&);
    void convert(const do_convert&);
    void cancel(lock_key);
    bool may_ask(const lock&) const;
    void proceed(lock&);
    int call(lock&);
    void completed(lock&);
    void finish(lock&, lock_event);
    void send_cancel(lock&);
    void retry();
    void release_step();
    template <typename F>
    int in_kernel(F&&);

    std::string lockspace_;
    std::string addresses_, members_; // directories in configfs, one entry for each node
    dlm_lshandle_t handle_ = nullptr;
    std::map<lock_key, lock> locks_; // never erased: the kernel knows their addresses
    bool releasing_ = false;
    bool leave_ = true;
    bool done_ = false;
    std::atomic<std::int64_t> call_since_{0}, held_back_since_{0};
};

} // namespace grace::keeper
