// SPDX-License-Identifier: GPL-2.0-or-later
// The socket for statd's callout: what is understood, who may speak, answers that come late; and the
// program graced-callout against it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/callout_socket.hh"

#include <cerrno>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <poll.h>
#include <qb/qbutil.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace grace;

namespace {

std::string packet(std::initializer_list<std::string> words) {
    std::string all;
    for (const std::string& w : words)
        all += w + '\0';
    return all;
}

std::string fault(const std::string& bytes) {
    const auto r = parse_callout(bytes);
    return r ? "" : r.error();
}

struct fixture {
    qb_loop_t* loop = qb_loop_create();
    std::string dir;
    std::vector<std::pair<std::string, callout_request>> heard;
    std::vector<callout_server::reply> replies;
    std::unique_ptr<callout_server> server;

    fixture() {
        char name[] = "/tmp/callout-XXXXXX";
        dir = mkdtemp(name);
        server = std::make_unique<callout_server>(
            loop, [this](const std::string& s, const callout_request& r, callout_server::reply reply) {
                heard.emplace_back(s, r);
                replies.push_back(std::move(reply));
            });
        listen("vs1", getuid());
    }
    ~fixture() {
        server.reset();
        qb_loop_destroy(loop);
        std::filesystem::remove_all(dir);
    }
    std::string path(const std::string& s) const { return dir + "/" + s; }
    void listen(const std::string& s, uid_t user) {
        const auto r = server->listen(s, path(s), user);
        REQUIRE_MESSAGE(r.has_value(), (r ? "" : r.error().message));
    }
    // Runs the loop until the condition holds; for so many turns of a millisecond or more at most.
    bool until(std::function<bool()> condition, int ms = 60'000) {
        struct state {
            qb_loop_t* loop;
            std::function<bool()> condition;
            int left;
            bool held = false;
            static void look(void* p) {
                auto* s = static_cast<state*>(p);
                s->held = s->condition();
                if (s->held || --s->left < 0)
                    return qb_loop_stop(s->loop);
                qb_loop_timer_handle h = 0;
                qb_loop_timer_add(s->loop, QB_LOOP_LOW, 1'000'000, p, look, &h);
            }
        } s{loop, std::move(condition), ms};
        qb_loop_timer_handle h = 0;
        qb_loop_timer_add(loop, QB_LOOP_LOW, 1, &s, state::look, &h);
        qb_loop_run(loop);
        return s.held;
    }
    // Runs the loop for a while.
    void turn(int ms = 50) {
        until([] { return false; }, ms);
    }
    int connect_to(const std::string& s) const {
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        std::strcpy(a.sun_path, path(s).c_str());
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 ? fd : -1;
    }
};

void say(int fd, const std::string& bytes) {
    REQUIRE(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
}
// "" if there is none, "closed".
std::string answer(int fd) {
    char buffer[2048];
    const ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : n == 0 ? "closed" : "";
}

} // namespace

TEST_CASE("what statd says") {
    const auto r = parse_callout(packet({"add-client", "192.0.2.7", "vs1"}));
    REQUIRE(r);
    CHECK(r->what == callout_request::event::add_client);
    CHECK(r->client == "192.0.2.7");
    CHECK(parse_callout(packet({"del-client", "fe80::1%eth0", "vs1"}))->what ==
          callout_request::event::del_client);
    CHECK(parse_callout(packet({"sm-notify", "a.example.org", "192.0.2.7", "11"}))->what ==
          callout_request::event::sm_notify);
    CHECK(fault("") == "a callout has an event and a client at least");
    CHECK(fault(packet({"add-client"})) == "a callout has an event and a client at least");
    CHECK(fault(std::string("add-client\0host", 15)) == "the last word has no end");
    CHECK(fault(packet({"add", "host"})) == "there is no such event");
    for (const char* client : {"", "a b", "a\nb", "a/b", "../x", "-x"})
        CHECK(fault(packet({"add-client", client, "vs1"})).starts_with("the client has no usable name"));
    CHECK(fault(packet({"add-client", "h", std::string(max_callout, 'x')})) ==
          "the callout's words are too long");
}

TEST_CASE_FIXTURE(fixture, "the answer may come later, or to nobody") {
    listen("vs2", getuid());
    const int one = connect_to("vs1"), two = connect_to("vs2");
    REQUIRE(one >= 0);
    REQUIRE(two >= 0);
    say(one, packet({"add-client", "192.0.2.7", "x"}));
    say(two, packet({"del-client", "192.0.2.8", "x"}));
    turn();
    REQUIRE(heard.size() == 2);
    CHECK(answer(one).empty());
    for (std::size_t i : {0, 1})
        replies[i](heard[i].first == "vs1" ? callout_answer::done : callout_answer::again, "text");
    CHECK(answer(one) == "0text");
    CHECK(answer(two) == "1text");
    // Who asked is gone, and another one has its descriptor.
    say(one, packet({"add-client", "192.0.2.9", "x"}));
    turn();
    REQUIRE(heard.size() == 3);
    close(one);
    turn();
    const int other = connect_to("vs1");
    turn();
    replies[2](callout_answer::done, "");
    CHECK(answer(other).empty());
    say(other, "nonsense");
    turn();
    CHECK(answer(other).starts_with("2"));
    CHECK(heard.size() == 3);
    server->close("vs1");
    turn();
    CHECK(answer(other) == "closed");
    CHECK(connect_to("vs1") < 0);
    close(two);
    close(other);
}

TEST_CASE_FIXTURE(fixture, "a socket that is in the way is replaced, anything else is not") {
    server->close("vs1");
    {
        const int left = socket(AF_UNIX, SOCK_SEQPACKET, 0); // as a killed daemon leaves it
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        std::strcpy(a.sun_path, path("vs1").c_str());
        REQUIRE(bind(left, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
        close(left);
    }
    listen("vs1", getuid());
    CHECK(connect_to("vs1") >= 0);
    std::filesystem::create_directory(path("vs2"));
    CHECK_FALSE(server->listen("vs2", path("vs2"), 0).has_value());
    CHECK_FALSE(server->listen("vs3", dir + "/" + std::string(200, 'x'), 0).has_value());
}

TEST_CASE_FIXTURE(fixture, "only root and statd's user may speak") {
    if (getuid() != 0) {
        MESSAGE("not root: skipped");
        return;
    }
    std::filesystem::permissions(dir, std::filesystem::perms::all);
    listen("vs2", 65533);
    for (const auto& [socket_of, user, taken] :
         {std::tuple{"vs1", 65533u, false}, std::tuple{"vs2", 65533u, true}, std::tuple{"vs2", 65532u, false}}) {
        heard.clear();
        const pid_t child = fork();
        if (child == 0) {
            if (setuid(user) != 0)
                _exit(1);
            const int fd = connect_to(socket_of);
            const std::string said = packet({"add-client", "192.0.2.7", "x"});
            if (fd >= 0)
                send(fd, said.data(), said.size(), MSG_NOSIGNAL);
            usleep(200'000);
            _exit(0);
        }
        int how = 0;
        CHECK(until([&] { return waitpid(child, &how, WNOHANG) == child; }));
        turn();
        CHECK(heard.size() == (taken ? 1 : 0));
    }
}

// The program; its exit code, when the loop has run so long.
TEST_CASE_FIXTURE(fixture, "graced-callout waits until the client is on record") {
    const auto start = [&](std::initializer_list<const char*> words) {
        const pid_t child = fork();
        if (child == 0) {
            setenv("GRACED_CALLOUT", path("vs1").c_str(), 1);
            std::vector<char*> argv = {const_cast<char*>("graced-callout")};
            for (const char* w : words)
                argv.push_back(const_cast<char*>(w));
            argv.push_back(nullptr);
            execv(GRACED_CALLOUT_PROGRAM, argv.data());
            _exit(99);
        }
        return child;
    };
    const auto ended = [](pid_t child, bool wait) {
        int how = 0;
        return waitpid(child, &how, wait ? 0 : WNOHANG) == child ? WEXITSTATUS(how) : -1;
    };
    CHECK(ended(start({}), true) == 2);
    CHECK(ended(start({"add-client"}), true) == 2);

    pid_t child = start({"add-client", "192.0.2.7", "vs1"});
    const auto heard_so_many = [&](std::size_t n) { return until([&] { return heard.size() >= n; }); };
    REQUIRE(heard_so_many(1));
    CHECK(heard[0].second.client == "192.0.2.7");
    CHECK(ended(child, false) == -1);
    replies[0](callout_answer::again, "not hosted here"); // asked again
    REQUIRE(heard_so_many(2));
    CHECK(ended(child, false) == -1);
    // The daemon goes, and comes back.
    server->close("vs1");
    turn(1500);
    CHECK(ended(child, false) == -1);
    listen("vs1", getuid());
    REQUIRE(heard_so_many(3));
    replies[2](callout_answer::done, "");
    CHECK(ended(child, true) == 0);

    // What can never be recorded, and what nobody has to wait for.
    child = start({"add-client", "a/b", "vs1"});
    int how = 0;
    REQUIRE(until([&] { return waitpid(child, &how, WNOHANG) == child; }));
    CHECK(WEXITSTATUS(how) == 1);
    server->close("vs1");
    CHECK(ended(start({"del-client", "192.0.2.7", "vs1"}), true) == 1);
}
