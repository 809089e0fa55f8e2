// SPDX-License-Identifier: GPL-2.0-or-later
// The keeper's DLM thread against a libdlm made of paper: it notes the calls, blocks or fails where
// a test says so, and delivers the ASTs that a test pushes.
#include "dlm_keeper/dlm_worker.hh"

#include <doctest/doctest.h>
#include <spdlog/spdlog.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <filesystem>

using namespace grace;
using grace::keeper::dlm_worker;

namespace {

constexpr auto nl = lock_mode::nl, pr = lock_mode::pr, cw = lock_mode::cw, ex = lock_mode::ex;

struct paper_lock {
    dlm_lksb* sb;
    void (*ast)(void*);
    void (*bast)(void*);
    void* arg;
};

struct paper_dlm {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> calls;
    std::map<std::string, paper_lock> locks; // by resource name
    std::map<std::uint32_t, std::string> names;
    std::vector<std::function<void()>> asts;
    int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int fail_calls = 0, fail_code = 0; // the next calls fail
    bool frozen = false;               // calls wait
    bool no_device = false;

    void note(std::string text) {
        calls.push_back(std::move(text));
        changed.notify_all();
    }
    // In the "kernel": waits while frozen; -1 with errno if it is to fail.
    int enter(std::unique_lock<std::mutex>& hold) {
        changed.wait(hold, [this] { return !frozen; });
        if (fail_calls > 0) {
            --fail_calls;
            errno = fail_code;
            return -1;
        }
        return 0;
    }
};
paper_dlm* dlm = nullptr;

std::string flags_text(std::uint32_t f) {
    std::string out;
    for (const auto& [bit, name] : std::map<std::uint32_t, std::string>{{LKF_CONVERT, "convert"},
                                                                        {LKF_VALBLK, "value"},
                                                                        {LKF_CANCEL, "cancel"},
                                                                        {LKF_EXPEDITE, "expedite"}})
        if (f & bit)
            out += " " + name;
    return out;
}

} // namespace

extern "C" {
dlm_lshandle_t dlm_open_lockspace(const char* name) {
    const std::lock_guard hold(dlm->mutex);
    dlm->note(std::string("open ") + name);
    errno = ENOENT;
    return nullptr;
}
dlm_lshandle_t dlm_create_lockspace(const char* name, mode_t mode) {
    const std::lock_guard hold(dlm->mutex);
    CHECK(mode == 0600);
    dlm->note(std::string("create ") + name);
    errno = ENOENT;
    return dlm->no_device ? nullptr : dlm;
}
int dlm_close_lockspace(dlm_lshandle_t) {
    const std::lock_guard hold(dlm->mutex);
    dlm->note("close");
    return 0;
}
int dlm_release_lockspace(const char* name, dlm_lshandle_t, int force) {
    const std::lock_guard hold(dlm->mutex);
    CHECK(force == 1);
    dlm->note(std::string("release ") + name);
    return 0;
}
int dlm_ls_get_fd(dlm_lshandle_t) {
    return dlm->fd;
}
int dlm_dispatch(int fd) {
    std::uint64_t n;
    (void)!::read(fd, &n, sizeof n);
    std::vector<std::function<void()>> due;
    {
        const std::lock_guard hold(dlm->mutex);
        due.swap(dlm->asts);
    }
    for (auto& f : due)
        f();
    return 0;
}
int dlm_ls_lock(dlm_lshandle_t, uint32_t mode, dlm_lksb* sb, uint32_t flags, const void* name,
                unsigned int length, uint32_t, void (*ast)(void*), void* arg, void (*bast)(void*),
                void*) {
    std::unique_lock hold(dlm->mutex);
    const std::string resource(static_cast<const char*>(name), length);
    static constexpr std::array mode_names{"NL", "CR", "CW", "PR", "PW", "EX"};
    std::string text = "lock " + resource + " " + mode_names.at(mode) + flags_text(flags);
    if (flags & LKF_VALBLK)
        text += std::string(" '") + std::string(sb->sb_lvbptr, ::strnlen(sb->sb_lvbptr, 32)) + "'";
    dlm->note(text);
    if (dlm->enter(hold) < 0)
        return -1;
    if (!(flags & LKF_CONVERT)) {
        sb->sb_lkid = static_cast<std::uint32_t>(dlm->names.size() + 1);
        dlm->names[sb->sb_lkid] = resource;
    }
    dlm->locks[resource] = {sb, ast, bast, arg};
    return 0;
}
int dlm_ls_unlock(dlm_lshandle_t, uint32_t lkid, uint32_t flags, dlm_lksb*, void*) {
    std::unique_lock hold(dlm->mutex);
    dlm->note("unlock " + dlm->names[lkid] + flags_text(flags));
    return dlm->enter(hold);
}
}

namespace {

struct fixture {
    paper_dlm paper;
    // Never deleted, as in the keeper: its thread ends by `release` only.
    dlm_worker* worker = nullptr;
    std::size_t seen = 0;

    fixture() {
        spdlog::set_level(spdlog::level::off);
        dlm = &paper;
        char name[] = "/tmp/graced-configfs.XXXXXX";
        config = ::mkdtemp(name);
        worker = new dlm_worker("graced", config);
    }
    std::filesystem::path config;
    void address(int node) { std::filesystem::create_directories(config / "comms" / id(node)); }
    void member(int node) { std::filesystem::create_directories(member_path(node)); }
    std::filesystem::path member_path(int node) const {
        return config / "spaces" / "graced" / "nodes" / id(node);
    }
    static std::string id(int node) { return std::to_string(node); }
    void open() {
        worker->start();
        CHECK(call() == "open graced");
        CHECK(call() == "create graced");
        CHECK(report() == "opened");
    }
    ~fixture() {
        {
            const std::lock_guard hold(paper.mutex);
            paper.frozen = false;
            paper.changed.notify_all();
            for (const char* name : {"grace", "alive.1", "alive.2"})
                settled[name] = paper.calls.size();
        }
        if (!ended)
            worker->orders.post(dlm_worker::do_release{});
        for (int i = 0; i < 1000 && !ended; ++i) { // grants what the release asks for
            const std::string next = report(20);
            if (next == "released")
                break;
            for (const char* name : {"grace", "alive.1", "alive.2"})
                settle_release(name);
        }
        delete worker; // `released` is the last that the thread does
        std::filesystem::remove_all(config);
        ::close(paper.fd);
    }
    bool ended = false;
    void settle_release(const std::string& name) {
        std::string action;
        {
            const std::lock_guard hold(paper.mutex);
            for (std::size_t& i = settled[name]; i < paper.calls.size(); ++i)
                if ((paper.calls[i] + " ").find(" " + name + " ") != std::string::npos)
                    action = paper.calls[i];
        }
        if (action.empty())
            return;
        ast(name, action.find("cancel") != std::string::npos   ? ECANCEL
                  : action.find("unlock") != std::string::npos ? EUNLOCK
                                                               : 0);
    }
    std::map<std::string, std::size_t> settled; // calls that were answered, at the end

    void convert(lock_key k, lock_mode m, std::optional<std::string> value = {}) {
        std::optional<lvb_bytes> v;
        if (value) {
            v.emplace();
            v->fill(0);
            std::copy(value->begin(), value->end(), v->begin());
        }
        worker->orders.post(dlm_worker::do_convert{k, m, v});
    }
    void cancel(lock_key k) { worker->orders.post(dlm_worker::do_cancel{k}); }

    // The next libdlm call that was made.
    std::string call() {
        std::unique_lock hold(paper.mutex);
        if (!paper.changed.wait_for(hold, std::chrono::seconds(60),
                                    [&] { return paper.calls.size() > seen; }))
            return "nothing";
        return paper.calls[seen++];
    }
    bool quiet() {
        std::unique_lock hold(paper.mutex);
        return !paper.changed.wait_for(hold, std::chrono::milliseconds(50),
                                       [&] { return paper.calls.size() > seen; });
    }
    // Completes the outstanding operation of a resource.
    void ast(const std::string& name, int status, const char* value = nullptr, int flags = 0) {
        push([this, name, status, value, flags] {
            const paper_lock l = at(name);
            l.sb->sb_status = status;
            l.sb->sb_flags = static_cast<char>(flags);
            if (value)
                ::strncpy(l.sb->sb_lvbptr, value, 32);
            l.ast(l.arg);
        });
    }
    void bast(const std::string& name) {
        push([this, name] {
            const paper_lock l = at(name);
            l.sb->sb_status = 0; // as libdlm does: it copies the whole lksb
            l.bast(l.arg);
        });
    }
    paper_lock at(const std::string& name) {
        const std::lock_guard hold(paper.mutex);
        return paper.locks.at(name);
    }
    void push(std::function<void()> f) {
        const std::lock_guard hold(paper.mutex);
        paper.asts.push_back(std::move(f));
        const std::uint64_t one = 1;
        (void)!::write(paper.fd, &one, sizeof one);
    }
    std::deque<dlm_worker::news> pending;
    std::string report(int ms = 60000) {
        pollfd p{worker->reports.fd(), POLLIN, 0};
        if (pending.empty() && ::poll(&p, 1, ms) == 1)
            for (auto& n : worker->reports.take_all())
                pending.push_back(n);
        if (pending.empty())
            return "nothing";
        const auto n = pending.front();
        pending.pop_front();
        if (std::holds_alternative<dlm_worker::opened>(n))
            return "opened";
        if (std::holds_alternative<dlm_worker::released>(n))
            return "released";
        if (std::holds_alternative<dlm_worker::trouble>(n))
            return "trouble";
        const auto& e = std::get<lock_event>(n);
        switch (e.kind) {
        case lock_event::what::granted: {
            const auto* text = reinterpret_cast<const char*>(e.value.data());
            return name_of(e.key) + " " + mode_name(e.mode) +
                   (e.value_valid ? " '" + std::string(text, ::strnlen(text, 32)) + "'" : "");
        }
        case lock_event::what::refused:
            return name_of(e.key) + " refused " + std::to_string(e.code);
        case lock_event::what::cancelled:
            return name_of(e.key) + " cancelled";
        case lock_event::what::blocking:
            return name_of(e.key) + " blocking";
        }
        return "?";
    }
    void hold_grace(lock_mode m) {
        convert(grace_lock, m);
        CHECK(call() == "lock grace NL value expedite ''");
        ast("grace", 0);
        if (m != nl) {
            CHECK(call() == std::string("lock grace ") + mode_name(m) + " convert value ''");
            ast("grace", 0);
        }
        CHECK(report() == std::string("grace ") + mode_name(m) + " ''");
    }
};

} // namespace

TEST_CASE_FIXTURE(fixture,
                  "grace is taken in NL first, then converted; the value is read on the way up") {
    open();
    convert(grace_lock, pr);
    CHECK(call() == "lock grace NL value expedite ''");
    ast("grace", 0, "hello");
    CHECK(call() == "lock grace PR convert value ''"); // the buffer is emptied before
    ast("grace", 0, "hello");
    CHECK(report() == "grace PR 'hello'");
    convert(grace_lock, nl);
    CHECK(call() == "lock grace NL convert value 'hello'"); // what a new master would go by
    ast("grace", 0, "left over");
    CHECK(report() == "grace NL");
    convert(grace_lock, cw);
    CHECK(call() == "lock grace CW convert value ''");
    bast("grace"); // must not be taken for the grant
    CHECK(report() == "grace blocking");
    ast("grace", 0, "lost", DLM_SBF_VALNOTVALID);
    CHECK(report() == "grace CW");
}

TEST_CASE_FIXTURE(fixture,
                  "the value is written on the way down from EX, if there is one to write") {
    open();
    hold_grace(ex);
    convert(grace_lock, nl, "new");
    CHECK(call() == "lock grace NL convert value 'new'");
    ast("grace", 0);
    CHECK(report() == "grace NL");
    convert(grace_lock, ex);
    CHECK(call() == "lock grace EX convert value ''");
    ast("grace", 0, "new");
    CHECK(report() == "grace EX 'new'");
    convert(grace_lock, pr); // without: the old one stays as it is
    CHECK(call() == "lock grace PR convert");
    ast("grace", 0);
    CHECK(report() == "grace PR");
}

TEST_CASE_FIXTURE(fixture, "cancel: the kernel decides which came first") {
    open();
    hold_grace(nl);
    convert(grace_lock, cw);
    CHECK(call() == "lock grace CW convert value ''");
    cancel(grace_lock);
    CHECK(call() == "unlock grace cancel");
    SUBCASE("the cancel") {
        ast("grace", ECANCEL);
        CHECK(report() == "grace cancelled");
        convert(grace_lock, pr);
        CHECK(call() == "lock grace PR convert value ''");
    }
    SUBCASE("the grant") {
        ast("grace", 0);
        CHECK(report() == "grace CW ''");
        cancel(grace_lock); // and one more that is too late
        CHECK(quiet());
        convert(grace_lock, nl);
        CHECK(call() == "lock grace NL convert value ''");
    }
    SUBCASE("it is asked twice, and sent once") {
        cancel(grace_lock);
        CHECK(quiet());
        ast("grace", ECANCEL);
        CHECK(report() == "grace cancelled");
        return;
    }
    ast("grace", 0);
    report();
}

TEST_CASE_FIXTURE(fixture, "cancel while the first NL is under way: that lock stays, in NL") {
    open();
    convert(grace_lock, cw);
    CHECK(call() == "lock grace NL value expedite ''");
    cancel(grace_lock);
    CHECK(quiet());
    ast("grace", 0);
    CHECK(report() == "grace cancelled");
    convert(grace_lock, cw);
    CHECK(call() == "lock grace CW convert value ''");
    ast("grace", 0);
    report();
}

TEST_CASE_FIXTURE(fixture, "alive is taken directly, and given back wholly") {
    open();
    convert(alive_lock(node_id{2}), pr);
    CHECK(call() == "lock alive.2 PR");
    SUBCASE("granted, then given back") {
        ast("alive.2", 0);
        CHECK(report() == "alive.2 PR");
        convert(alive_lock(node_id{2}), nl);
        CHECK(call() == "unlock alive.2");
        ast("alive.2", EUNLOCK);
        CHECK(report() == "alive.2 NL");
        convert(alive_lock(node_id{2}), nl); // nothing there
        CHECK(report() == "alive.2 NL");
        CHECK(quiet());
    }
    SUBCASE("cancelled: a new one is a new lock") {
        cancel(alive_lock(node_id{2}));
        CHECK(call() == "unlock alive.2 cancel");
        ast("alive.2", ECANCEL);
        CHECK(report() == "alive.2 cancelled");
        convert(alive_lock(node_id{2}), pr);
        CHECK(call() == "lock alive.2 PR");
        ast("alive.2", 0);
        CHECK(report() == "alive.2 PR");
    }
    SUBCASE("refused") {
        ast("alive.2", EAGAIN);
        CHECK(report() == "alive.2 refused " + std::to_string(EAGAIN));
    }
}

TEST_CASE_FIXTURE(fixture,
                  "EBUSY is tried again: the kernel still waits for the answer to a cancel") {
    open();
    hold_grace(nl);
    {
        const std::lock_guard hold(paper.mutex);
        paper.fail_calls = 3;
        paper.fail_code = EBUSY;
    }
    convert(grace_lock, pr);
    for (int i = 0; i < 4; ++i)
        CHECK(call() == "lock grace PR convert value ''");
    ast("grace", 0);
    CHECK(report() == "grace PR ''");
    {
        const std::lock_guard hold(paper.mutex);
        paper.fail_calls = 1;
        paper.fail_code = EINVAL;
    }
    convert(grace_lock, nl);
    CHECK(call() == "lock grace NL convert value ''");
    CHECK(report() == "grace refused " + std::to_string(EINVAL));
}

TEST_CASE_FIXTURE(fixture, "a call that blocks while frozen shows, and orders wait for it") {
    open();
    hold_grace(pr);
    CHECK(worker->blocked_ms() == 0);
    {
        const std::lock_guard hold(paper.mutex);
        paper.frozen = true;
    }
    convert(grace_lock, nl);
    CHECK(call() == "lock grace NL convert value ''");
    convert(alive_lock(node_id{2}), pr);
    CHECK(quiet());
    CHECK(worker->blocked_ms() > 0);
    {
        const std::lock_guard hold(paper.mutex);
        paper.frozen = false;
        paper.changed.notify_all();
    }
    CHECK(call() == "lock alive.2 PR");
    ast("grace", 0);
    ast("alive.2", 0);
    CHECK(report() == "grace NL");
    CHECK(report() == "alive.2 PR");
}

TEST_CASE_FIXTURE(
    fixture, "release: EX goes down first, what waits is cancelled, then the lockspace is left") {
    open();
    hold_grace(ex);
    convert(alive_lock(node_id{1}), ex);
    CHECK(call() == "lock alive.1 EX");
    ast("alive.1", 0);
    CHECK(report() == "alive.1 EX");
    convert(alive_lock(node_id{2}), pr);
    CHECK(call() == "lock alive.2 PR");
    worker->orders.post(dlm_worker::do_release{});
    CHECK(call() == "lock grace NL convert"); // no value: what the resource has stays
    CHECK(call() == "lock alive.1 NL convert");
    CHECK(call() == "unlock alive.2 cancel");
    ast("grace", 0);
    CHECK(call() == "unlock grace");
    ast("alive.1", 0);
    CHECK(call() == "unlock alive.1");
    ast("alive.2", ECANCEL);
    ast("grace", EUNLOCK);
    CHECK(quiet());
    ast("alive.1", EUNLOCK);
    CHECK(call() == "release graced");
    CHECK(report() == "released");
    ended = true;
}

TEST_CASE_FIXTURE(fixture, "release beside another keeper: its lockspace stays") {
    open();
    worker->orders.post(dlm_worker::do_release{false});
    CHECK(call() == "close");
    CHECK(report() == "released");
    ended = true;
}

TEST_CASE_FIXTURE(fixture, "no device: said once, tried on, and an end is possible") {
    paper.no_device = true;
    worker->start();
    CHECK(report() == "trouble");
    CHECK(call() == "open graced");
}

TEST_CASE_FIXTURE(fixture, "the probe of a dead node waits until the lockspace is without it") {
    for (int node : {1, 2}) {
        address(node);
        member(node);
    }
    open();
    std::filesystem::remove(config / "comms/1"); // quorum's news: dlm_controld forgets its address
    convert({lock_resource::alive, node_id{1}}, pr);
    CHECK(quiet());
    CHECK(worker->blocked_ms() > 0);
    cancel({lock_resource::alive, node_id{1}}); // by a new daemon; the DLM hears nothing of it
    CHECK(report() == "alive.1 cancelled");
    convert({lock_resource::alive, node_id{1}}, pr);
    address(1); // it is back in corosync, but not fenced
    CHECK(quiet());
    std::filesystem::remove(config / "comms/1");
    std::filesystem::remove(member_path(1));
    CHECK(call() == "lock alive.1 PR");
    ast("alive.1", 0);
    CHECK(report() == "alive.1 PR"); // the worker has come back from the call by now
    CHECK(worker->blocked_ms() == 0);
}

TEST_CASE_FIXTURE(fixture, "nothing is asked for, or cancelled, between a death and the stop") {
    for (int node : {1, 2}) {
        address(node);
        member(node);
    }
    open();
    hold_grace(pr);
    convert(grace_lock, nl);
    CHECK(call() == "lock grace NL convert value ''");
    ast("grace", 0);
    CHECK(report() == "grace NL");
    convert(grace_lock, ex);
    CHECK(call() == "lock grace EX convert value ''");
    std::filesystem::remove(config / "comms/2");
    cancel(grace_lock);
    convert({lock_resource::alive, node_id{1}}, ex);
    CHECK(quiet());
    std::filesystem::remove(member_path(2));
    CHECK(call() == "unlock grace cancel");
    CHECK(call() == "lock alive.1 EX");
    ast("grace", ECANCEL);
    CHECK(report() == "grace cancelled");
}
