// SPDX-License-Identifier: GPL-2.0-or-later
// The client tracker against a stand-in for the kernel's end of the pipe.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/cld_pipe.hh"

#include "kernel_loop.hh"

#include <cerrno>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

using namespace grace;
using cld::command;
using testing::kernel_end;

namespace {

cld::message upcall(command c, std::uint32_t xid, std::string name = {}, unsigned version = 2) {
    cld::message m;
    m.version = version;
    m.cmd = c;
    m.xid = xid;
    m.name = std::move(name);
    return m;
}

struct tracking {
    testing::loop loop;
    testing::temporary_directory dir;
    std::vector<any_input> inputs;
    std::vector<std::string> ended; // servers whose nfsd has ended
    std::function<void()> on_input;
    std::unique_ptr<cld_tracker> tracker = make();

    std::unique_ptr<cld_tracker> make(std::string journal = {}) {
        return std::make_unique<cld_tracker>(
            loop.get(),
            [this](any_input i) {
                if (const auto* k = std::get_if<input::nfsd_ended>(&i)) {
                    ended.push_back(k->server);
                    return;
                }
                inputs.push_back(std::move(i));
                if (on_input)
                    on_input();
            },
            cld_tracker::options{std::move(journal)});
    }
    template <typename T>
    T next() {
        if (!loop.until([&] { return !inputs.empty(); }))
            throw std::runtime_error("no input came");
        T got = std::get<T>(inputs.front());
        inputs.erase(inputs.begin());
        return got;
    }
};

} // namespace

TEST_CASE_FIXTURE(tracking, "version 2: GetVersion, Create, Remove, GraceDone") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());

    kernel.send(upcall(command::get_version, 0, "", 1));
    auto bytes = kernel.receive_bytes().value();
    CHECK(bytes.size() == cld::size_v1);
    CHECK(cld::decode(bytes)->use_version == 2);
    CHECK(cld::decode(bytes)->status == 0);

    auto m = upcall(command::create, 1, "client a");
    m.princhash = std::string(32, 'h');
    kernel.send(m);
    const auto created = next<input::create>();
    CHECK(created.server == "vs1");
    CHECK(created.client == "client a");
    CHECK(created.princhash == m.princhash);
    tracker->answer(created.id, upcall_status::ok);
    bytes = kernel.receive_bytes().value();
    CHECK(bytes == cld::encode(m).value()); // status 0 and all else as it came

    kernel.send(upcall(command::remove, 2, "client a"));
    const auto removed = next<input::remove>();
    CHECK(removed.client == "client a");
    CHECK(removed.id != created.id);
    tracker->answer(removed.id, upcall_status::failed);
    CHECK(kernel.receive().status == -EREMOTEIO);

    kernel.send(upcall(command::grace_done, 3));
    tracker->answer(next<input::grace_done>().id, upcall_status::ok);
    CHECK(kernel.receive().xid == 3);
    CHECK(tracker->status().at(0).open_upcalls == 0);
}

TEST_CASE_FIXTURE(tracking, "GraceStart streams the list, then ends it with status 0") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::grace_start, 9));
    const auto asked = next<input::grace_start>();
    CHECK_FALSE(tracker->tracked("vs1"));
    tracker->answer_grace_start(asked.id, {{"a", ""}, {"b", "hash of b"}, {"hash:1", ""}});
    for (const std::string name : {"a", "b", "hash:1"}) {
        const auto bytes = kernel.receive_bytes().value();
        CHECK(bytes.size() == cld::size_v2);
        const auto m = cld::decode(bytes).value();
        CHECK(m.status == -EINPROGRESS);
        CHECK(m.xid == 9);
        CHECK(m.name == name);
        CHECK(m.princhash == (name == "b" ? "hash of b" : ""));
    }
    const auto last = kernel.receive();
    CHECK(last.status == 0);
    CHECK(last.cmd == command::grace_start);
    CHECK(tracker->tracked("vs1"));
}

TEST_CASE_FIXTURE(tracking, "a list that does not fit into the socket at once") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld", 1);
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::get_version, 0, "", 1));
    CHECK(kernel.receive().use_version == 1);
    kernel.send(upcall(command::grace_start, 9, "", 1));
    const auto asked = next<input::grace_start>();
    std::vector<tracker_port::known_client> clients;
    for (int i = 0; i < 2000; i++)
        clients.push_back({"client " + std::to_string(i), ""});
    tracker->answer_grace_start(asked.id, clients);
    for (const auto& client : clients) {
        const auto m = kernel.receive();
        REQUIRE(m.version == 1);
        REQUIRE(m.name == client.name);
    }
    CHECK(kernel.receive().status == 0);
}

TEST_CASE_FIXTURE(tracking, "version 0: the kernel is sent to its method without a list") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld", 0);
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::get_version, 0, "", 1));
    CHECK(kernel.receive().status == -EOPNOTSUPP);
    kernel.send(upcall(command::grace_start, 1, "", 1));
    CHECK(kernel.receive().status == -EOPNOTSUPP);
    CHECK(inputs.empty());
    CHECK_FALSE(tracker->tracked("vs1"));
    kernel.remove();
    kernel.make();
    REQUIRE(kernel.has_tracker());
    CHECK(loop.until([&] { return tracker->tracked("vs1"); }));
    kernel.send(upcall(command::check, 0, "c", 1));
    const auto asked = next<input::check>();
    CHECK(asked.client == "c");
    tracker->answer(asked.id, upcall_status::refused);
    CHECK(kernel.receive().status == -EACCES);
}

// nfsd lets a client in that was refused once. So it is expired first, and only what comes after
// that is its own wish: the Remove that the expiry causes is not.
TEST_CASE_FIXTURE(tracking, "version 0: who is refused is expired first, and stays on record") {
    const std::string nfsd = dir / "nfsd", one = nfsd + "/clients/7", other = nfsd + "/clients/8";
    const auto inform = [](const std::string& client, const std::string& name, std::int64_t renewed) {
        std::filesystem::create_directories(client);
        std::ofstream(client + "/ctl", std::ios::app).flush();
        std::ofstream(client + "/info.new") << "clientid: 0x1\naddress: \"192.0.2.5:700\"\nstatus: confirmed\n"
                                               "seconds from last renew: " << renewed
                                            << "\nname: \"" << name << "\"\nminor version: 1\n";
        std::filesystem::rename(client + "/info.new", client + "/info");
    };
    const auto written = [](const std::string& client) {
        std::string line;
        std::getline(std::ifstream(client + "/ctl"), line);
        return line;
    };
    inform(one, "c\\x01", 0);
    inform(other, "d", 0);
    tracker = make(dir.path);
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld", 0, nfsd);
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::check, 1, "c\x01", 1));
    auto asked = next<input::check>();
    CHECK_FALSE(asked.again);
    tracker->answer(asked.id, upcall_status::refused);
    REQUIRE(loop.until([&] { return written(one) == "expire"; }));
    CHECK(written(other).empty());
    kernel.send(upcall(command::get_version, 2, "", 1));
    CHECK(kernel.receive().xid == 2); // the Check has no answer yet: it is not expired
    timespec up{};
    clock_gettime(CLOCK_BOOTTIME, &up);
    inform(one, "c\\x01", up.tv_sec);
    const auto refused = kernel.receive();
    CHECK(refused.xid == 1);
    CHECK(refused.status == -EACCES);

    kernel.send(upcall(command::create, 3, "c\x01", 1));
    tracker->answer(next<input::create>().id, upcall_status::ok);
    CHECK(kernel.receive().xid == 3);
    inputs.clear();
    kernel.send(upcall(command::remove, 4, "c\x01", 1)); // of the state that was expired
    CHECK(kernel.receive().status == 0);
    CHECK(inputs.empty());
    kernel.send(upcall(command::remove, 5, "c\x01", 1)); // its leave
    const auto left = next<input::remove>();
    CHECK(left.client == "c\x01");
    tracker->answer(left.id, upcall_status::ok);
    CHECK(kernel.receive().xid == 5);

    SUBCASE("the next daemon is told that it has asked before") {
        kernel.send(upcall(command::check, 6, "d", 1));
        CHECK_FALSE(next<input::check>().again);
        tracker.reset();
        kernel.hang_up();
        tracker = make(dir.path);
        tracker->watch("vs1", dir / "cld", 0, nfsd);
        REQUIRE(kernel.has_tracker());
        CHECK(next<input::check>().again);
    }
    SUBCASE("a client that is not there is refused all the same") {
        kernel.send(upcall(command::check, 6, "nobody", 1));
        tracker->answer(next<input::check>().id, upcall_status::refused);
        CHECK(kernel.receive().status == -EACCES);
    }
}

TEST_CASE_FIXTURE(tracking, "short, oversized and nonsensical messages") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(std::vector<std::uint8_t>{2});
    kernel.send(std::vector<std::uint8_t>(7, 0xff));
    kernel.send(std::vector<std::uint8_t>(100000, 0x01));
    kernel.send(std::vector<std::uint8_t>(1280, 0x02));
    CHECK(kernel.receive_bytes().value().size() == 1280); // refused at its own length
    auto bytes = cld::encode(upcall(command::create, 5, "a")).value();
    SUBCASE("unknown command") {
        bytes[1] = 77;
        kernel.send(bytes);
        const auto back = kernel.receive_bytes().value();
        CHECK(back.size() == cld::size_v2);
        CHECK(std::int8_t(back[2]) == -EOPNOTSUPP);
    }
    SUBCASE("empty name") {
        bytes[8] = 0;
        kernel.send(bytes);
        const auto back = kernel.receive_bytes().value();
        CHECK(std::int8_t(back[2]) == -EREMOTEIO);
    }
    SUBCASE("version of the future") {
        bytes[0] = 3;
        kernel.send(bytes);
        CHECK(std::int8_t(kernel.receive_bytes().value()[2]) == -EOPNOTSUPP);
    }
    // And it still works.
    CHECK(inputs.empty());
    kernel.send(upcall(command::create, 6, "a"));
    tracker->answer(next<input::create>().id, upcall_status::ok);
    CHECK(kernel.receive().xid == 6);
    CHECK(tracker->status().at(0).open_upcalls == 0);
}

TEST_CASE_FIXTURE(tracking, "the pipe disappears and comes back as another one") {
    tracker->watch("vs1", dir / "cld");
    loop.run_for(150);
    CHECK_FALSE(tracker->status().at(0).connected);
    CHECK(ended == std::vector<std::string>{"vs1"}); // once, not at every look
    kernel_end kernel(loop, dir / "cld");            // appears after watch()
    REQUIRE(kernel.has_tracker());
    CHECK(ended.size() == 1);
    kernel.send(upcall(command::create, 0, "old"));
    const auto old = next<input::create>();
    kernel.remove();
    REQUIRE(loop.until([&] { return !tracker->status().at(0).connected; }));
    kernel.make();
    REQUIRE(kernel.has_tracker());
    // nfsd starts its numbers anew: the old answer must not pass for this upcall's.
    kernel.send(upcall(command::create, 0, "new"));
    const auto now = next<input::create>();
    CHECK(now.client == "new");
    tracker->answer(old.id, upcall_status::failed);
    CHECK_FALSE(kernel.receive_bytes(100));
    tracker->answer(now.id, upcall_status::ok);
    const auto m = kernel.receive();
    CHECK(m.name == "new");
    CHECK(m.status == 0);
    tracker->answer(now.id, upcall_status::failed); // twice is once
    tracker->answer(ticket{4711}, upcall_status::ok);
    CHECK_FALSE(kernel.receive_bytes(50));
}

TEST_CASE_FIXTURE(tracking, "an answer after the pipe went, and nobody made another") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::grace_start, 0));
    const auto asked = next<input::grace_start>();
    kernel.remove();
    tracker->answer_grace_start(asked.id, {{"a", ""}}); // before it was noticed
    REQUIRE(loop.until([&] { return !tracker->status().at(0).connected; }));
    tracker->answer(asked.id, upcall_status::ok); // and after
    loop.run_for(50);
    kernel.make();
}

TEST_CASE_FIXTURE(tracking, "the connection is lost, not the pipe: what is open is asked again") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::create, 3, "a"));
    const auto first = next<input::create>();
    kernel.hang_up();
    tracker->answer(first.id, upcall_status::ok); // goes nowhere
    REQUIRE(kernel.has_tracker());
    const auto second = next<input::create>();
    CHECK(second.client == "a");
    tracker->answer(second.id, upcall_status::ok);
    CHECK(kernel.receive().xid == 3);
}

TEST_CASE_FIXTURE(tracking, "two servers at once") {
    kernel_end one(loop, dir / "one"), two(loop, dir / "two");
    tracker->watch("vs1", dir / "one");
    tracker->watch("vs2", dir / "two", 1);
    REQUIRE(one.has_tracker());
    REQUIRE(two.has_tracker());
    one.send(upcall(command::create, 0, "a"));
    const auto first = next<input::create>();
    two.send(upcall(command::create, 0, "b", 1));
    const auto second = next<input::create>();
    CHECK(first.server == "vs1");
    CHECK(second.server == "vs2");
    tracker->answer(second.id, upcall_status::refused);
    tracker->answer(first.id, upcall_status::ok);
    CHECK(one.receive().status == 0);
    CHECK(two.receive().status == -EACCES);

    one.remove(); // does not touch the other
    two.send(upcall(command::remove, 1, "b", 1));
    tracker->answer(next<input::remove>().id, upcall_status::ok);
    CHECK(two.receive().status == 0);
    one.make();
}

TEST_CASE_FIXTURE(tracking, "a daemon dies with an upcall open; the next one answers it") {
    kernel_end kernel(loop, dir / "cld");
    std::filesystem::create_directory(dir / "journal");
    tracker = make(dir / "journal");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::grace_start, 40));
    tracker->answer_grace_start(next<input::grace_start>().id, {});
    CHECK(kernel.receive().status == 0);
    kernel.send(upcall(command::create, 41, "a"));
    kernel.send(upcall(command::create, 42, "b"));
    tracker->answer(next<input::create>().id, upcall_status::ok);
    CHECK(kernel.receive().xid == 41);
    next<input::create>();

    tracker.reset();
    kernel.hang_up();
    inputs.clear();
    tracker = make(dir / "journal");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    const auto again = next<input::create>();
    CHECK(again.client == "b");
    CHECK(inputs.empty());
    CHECK(tracker->tracked("vs1")); // nfsd did not start anew
    tracker->answer(again.id, upcall_status::ok);
    CHECK(kernel.receive().xid == 42);

    SUBCASE("but not if nfsd was started anew in between") {
        kernel.send(upcall(command::create, 43, "c"));
        next<input::create>();
        tracker.reset();
        kernel.remove();
        kernel.make();
        tracker = make(dir / "journal");
        tracker->watch("vs1", dir / "cld");
        REQUIRE(kernel.has_tracker());
        loop.run_for(50);
        CHECK(inputs.empty());
        CHECK_FALSE(tracker->tracked("vs1"));
    }
}

TEST_CASE_FIXTURE(tracking, "a journal of something else is not believed") {
    kernel_end kernel(loop, dir / "cld");
    FILE* f = fopen((dir / "vs1.upcalls").c_str(), "w");
    for (int i = 0; i < 200000; i++)
        fputc('\x02', f);
    fclose(f);
    tracker = make(dir.path);
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    loop.run_for(50);
    CHECK(inputs.empty());
    CHECK(tracker->status().at(0).open_upcalls == 0);
}

TEST_CASE_FIXTURE(tracking, "more upcalls than may be open: the rest waits in the kernel") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    const std::size_t limit = cld_tracker::max_open_upcalls;
    for (std::size_t i = 0; i < limit; i++)
        kernel.send(upcall(command::create, std::uint32_t(i), "c"));
    REQUIRE(loop.until([&] { return inputs.size() == limit; }));
    for (std::size_t i = limit; i < limit + 5; i++)
        kernel.send(upcall(command::create, std::uint32_t(i), "c"));
    loop.run_for(50);
    CHECK(inputs.size() == limit);
    CHECK(tracker->status().at(0).open_upcalls == limit);
    const auto all = inputs;
    for (const auto& i : all)
        tracker->answer(std::get<input::create>(i).id, upcall_status::ok);
    CHECK(loop.until([&] { return inputs.size() == limit + 5; }));
}

TEST_CASE_FIXTURE(tracking, "unwatch answers what is open") {
    kernel_end kernel(loop, dir / "cld");
    tracker = make(dir.path);
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    kernel.send(upcall(command::create, 1, "a"));
    SUBCASE("from outside") {
        const auto asked = next<input::create>();
        tracker->unwatch("vs1");
        tracker->answer(asked.id, upcall_status::ok);
    }
    SUBCASE("from within the input") {
        on_input = [&] { tracker->unwatch("vs1"); };
        next<input::create>();
    }
    CHECK(kernel.receive().status == -EREMOTEIO);
    CHECK_FALSE(kernel.receive_bytes(50));
    CHECK(tracker->status().empty());
    CHECK_FALSE(std::filesystem::exists(dir / "vs1.upcalls"));
}

TEST_CASE_FIXTURE(tracking, "answers from within the input") {
    kernel_end kernel(loop, dir / "cld");
    tracker->watch("vs1", dir / "cld");
    REQUIRE(kernel.has_tracker());
    on_input = [&] {
        if (const auto* c = std::get_if<input::create>(&inputs.back()))
            tracker->answer(c->id, upcall_status::ok);
    };
    for (std::uint32_t i = 0; i < 300; i++) {
        kernel.send(upcall(command::create, i, "c"));
        REQUIRE(kernel.receive().xid == i);
    }
}

TEST_CASE_FIXTURE(tracking, "a FIFO that is not nfsd's is not read") {
    REQUIRE(mkfifo((dir / "cld").c_str(), 0600) == 0);
    tracker->watch("vs1", dir / "cld");
    REQUIRE(loop.until([&] { return !tracker->status().at(0).trouble.empty(); }));
    CHECK_FALSE(tracker->status().at(0).connected);
    CHECK(tracker->status().at(0).trouble.find("rpc_pipefs") != std::string::npos);
}

TEST_CASE_FIXTURE(tracking, "another tracker is found") {
    testing::temporary_directory other;
    REQUIRE(mkfifo((dir / "cld").c_str(), 0600) == 0);
    tracker->watch("vs1", dir / "cld");
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    const auto child = [&](const char* name, const char* open_path) {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_NAME, name);
            if (open_path) [[maybe_unused]]
                const int fd = open(open_path, O_RDWR);
            [[maybe_unused]] const auto n = write(ready[1], "x", 1);
            pause();
            _exit(0);
        }
        char c;
        CHECK(read(ready[0], &c, 1) == 1);
        return pid;
    };
    std::string expected;
    pid_t pid = -1;
    SUBCASE("by its name") {
        pid = child("nfsdcld", nullptr);
        expected = "systemctl mask --now nfsdcld";
    }
    SUBCASE("by the pipe that it reads") {
        pid = child("mytracker", (dir / "cld").c_str());
        expected = "mytracker";
    }
    const auto got = tracker->check_no_other_tracker();
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    REQUIRE_FALSE(got);
    CHECK(got.error().message.find(expected) != std::string::npos);
    CHECK(got.error().message.find(std::to_string(pid)) != std::string::npos);
}
