// SPDX-License-Identifier: GPL-2.0-or-later
// fake-nfsd, driven as tests and the demo drive it, against the tracker and the stand-in gate.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/cld_pipe.hh"
#include "graced/adapters/embedded_kernel.hh"

#include "kernel_loop.hh"

#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <set>
#include <sys/wait.h>

using namespace grace;

namespace {

class program {
public:
    explicit program(std::vector<std::string> arguments) {
        int in[2], out[2];
        if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
            throw std::runtime_error("pipe");
        pid_ = fork();
        if (pid_ == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            std::vector<char*> argv;
            for (auto& a : arguments)
                argv.push_back(a.data());
            argv.push_back(nullptr);
            execv(argv[0], argv.data());
            _exit(127);
        }
        close(in[0]);
        close(out[1]);
        in_ = in[1];
        out_ = out[0];
        fcntl(out_, F_SETFL, O_NONBLOCK);
    }
    ~program() {
        close(in_);
        close(out_);
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    void say(const std::string& line) {
        if (write(in_, (line + "\n").data(), line.size() + 1) < 0)
            throw std::runtime_error("write");
    }
    std::string line(testing::loop& loop) {
        loop.until([&] {
            char c;
            while (text_.find('\n') == std::string::npos && read(out_, &c, 1) == 1)
                text_ += c;
            return text_.find('\n') != std::string::npos;
        });
        const auto end = text_.find('\n');
        if (end == std::string::npos)
            return "nothing";
        const auto got = text_.substr(0, end);
        text_.erase(0, end + 1);
        return got;
    }

private:
    pid_t pid_;
    int in_, out_;
    std::string text_;
};

// The least that the daemon would do with the inputs.
struct daemon {
    testing::loop loop;
    testing::temporary_directory dir;
    std::set<std::string> records;
    bool silent = false;
    std::unique_ptr<cld_tracker> tracker = make();
    embedded_kernel kernel{loop.get(), [](any_input) {}, dir / "gate"};

    std::unique_ptr<cld_tracker> make() {
        return std::make_unique<cld_tracker>(
            loop.get(), [this](any_input i) { perform(i); }, cld_tracker::options{dir.path});
    }
    void perform(const any_input& i) {
        if (silent)
            return;
        if (const auto* c = std::get_if<input::create>(&i)) {
            records.insert(c->client);
            tracker->answer(c->id, upcall_status::ok);
        } else if (const auto* r = std::get_if<input::remove>(&i)) {
            records.erase(r->client);
            tracker->answer(r->id, upcall_status::ok);
        } else if (const auto* k = std::get_if<input::check>(&i)) {
            tracker->answer(k->id, records.contains(k->client) ? upcall_status::ok
                                                               : upcall_status::refused);
        } else if (const auto* g = std::get_if<input::grace_start>(&i)) {
            std::vector<tracker_port::known_client> list;
            for (const auto& name : records)
                list.push_back({name, ""});
            tracker->answer_grace_start(g->id, list);
        } else if (const auto* d = std::get_if<input::grace_done>(&i)) {
            tracker->answer(d->id, upcall_status::ok);
        }
    }
    std::vector<std::string> nfsd_arguments() {
        return {FAKE_NFSD, "--server", "vs1", "--socket", dir / "cld", "--gate", dir / "gate"};
    }
};

} // namespace

TEST_CASE_FIXTURE(daemon, "a server restarts, and its clients reclaim") {
    REQUIRE(kernel.start());
    tracker->watch("vs1", dir / "cld");
    records = {"a", "b"};
    kernel.close_gate(epoch{1}, 1);
    program nfsd(nfsd_arguments());
    const auto answer = [&](const std::string& command) {
        nfsd.say(command);
        return nfsd.line(loop);
    };
    CHECK(nfsd.line(loop) == "tracking 2 2");
    CHECK(tracker->tracked("vs1"));
    CHECK(answer("list") == "list a b");
    CHECK(answer("reclaim a") == "grace");
    CHECK(answer("lock") == "grace");
    kernel.set_reclaim("vs1", epoch{1}, true, 2);
    CHECK(answer("reclaim a") == "ok");
    CHECK(answer("reclaim stranger") == "refused");
    CHECK(answer("create c") == "ok");
    CHECK(answer("remove b") == "ok");
    CHECK(records == std::set<std::string>{"a", "c"});
    CHECK(answer("gracedone") == "ok");
    CHECK(answer("reclaim a") == "refused");
    CHECK(answer("") == "unknown ");

    // The daemon dies while an upcall is open. The kernel waits; the next daemon answers.
    silent = true;
    nfsd.say("create d");
    REQUIRE(loop.until([&] { return tracker->status().at(0).open_upcalls == 1; }));
    tracker.reset();
    silent = false;
    tracker = make();
    tracker->watch("vs1", dir / "cld");
    CHECK(nfsd.line(loop) == "ok");
    CHECK(records.contains("d"));
}

TEST_CASE_FIXTURE(daemon, "version 0: each reclaim is checked") {
    REQUIRE(kernel.start());
    tracker->watch("vs1", dir / "cld", 0);
    records = {"a"};
    kernel.close_gate(epoch{1}, 1);
    kernel.set_reclaim("vs1", epoch{1}, true, 2);
    program nfsd(nfsd_arguments());
    CHECK(nfsd.line(loop) == "tracking 0 0");
    CHECK(loop.until([&] { return tracker->tracked("vs1"); }));
    nfsd.say("reclaim a");
    CHECK(nfsd.line(loop) == "ok");
    nfsd.say("reclaim b");
    CHECK(nfsd.line(loop) == "refused -13");
}

TEST_CASE_FIXTURE(daemon, "nobody tracks") {
    auto arguments = nfsd_arguments();
    arguments.insert(arguments.end(), {"--wait", "0.1"});
    program nfsd(arguments);
    CHECK(nfsd.line(loop) == "untracked nobody opened the pipe");
}
