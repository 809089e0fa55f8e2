// SPDX-License-Identifier: GPL-2.0-or-later
// lock_client and graced-dlm together: a real keeper process with the embedded table, on a socket
// in a temporary folder, and the clients of two nodes on one libqb loop.
#include "adapters/lock_client.hh"
#include "dlm_keeper/protocol.hh"

#include <doctest/doctest.h>
#include <spdlog/spdlog.h>

#include <fcntl.h>
#include <fstream>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <random>

extern char** environ;

using namespace grace;
namespace wire = grace::keeper;

namespace {

constexpr node_id n1{1}, n2{2}, n3{3};
constexpr auto nl = lock_mode::nl, pr = lock_mode::pr, cw = lock_mode::cw, ex = lock_mode::ex;

pid_t spawn(std::vector<std::string> words) {
    std::vector<char*> argv;
    for (auto& w : words)
        argv.push_back(w.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    REQUIRE(::posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ) == 0);
    return pid;
}

int wait_for(pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

struct world {
    std::filesystem::path dir;
    std::string path;
    qb_loop_t* loop = qb_loop_create();
    pid_t keeper = 0;

    world() {
        spdlog::set_level(spdlog::level::off);
        std::string pattern = (std::filesystem::temp_directory_path() / "locksXXXXXX").string();
        dir = ::mkdtemp(pattern.data());
        path = dir / "dlm.sock";
    }
    ~world() {
        if (keeper) {
            ::kill(keeper, SIGKILL);
            wait_for(keeper);
        }
        // A client whose keeper was slow has started another one: that waits for the path, and
        // would stay.
        for (const auto& process : std::filesystem::directory_iterator("/proc")) {
            std::string words;
            std::getline(std::ifstream(process.path() / "cmdline"), words);
            if (words.find(path) != std::string::npos)
                ::kill(std::stoi(process.path().filename()), SIGKILL);
        }
        qb_loop_destroy(loop);
        std::filesystem::remove_all(dir);
    }
    std::vector<std::string> command() const {
        return {KEEPER, "--embedded", "--listen", path, "--log-level", "off"};
    }
    void start() {
        keeper = spawn(command());
        until([&] { return std::filesystem::exists(path); });
    }
    int ctl(std::vector<std::string> words) {
        words.insert(words.begin(), {KEEPER, "--ctl", path});
        std::fflush(stdout);
        return wait_for(spawn(std::move(words)));
    }
    // Runs the loop until the condition holds; fails the test after some seconds.
    void until(const std::function<bool()>& condition, int seconds_at_most = 60) {
        struct state {
            qb_loop_t* loop;
            const std::function<bool()>* condition;
            int left;
            bool held = false;
        } s{loop, &condition, seconds_at_most * 1000};
        struct tick {
            static void run(void* p) {
                auto* st = static_cast<state*>(p);
                st->held = (*st->condition)();
                if (st->held || --st->left <= 0)
                    return qb_loop_stop(st->loop);
                qb_loop_timer_handle h;
                qb_loop_timer_add(st->loop, QB_LOOP_MED, 1'000'000, p, run, &h);
            }
        };
        qb_loop_timer_handle h;
        qb_loop_timer_add(loop, QB_LOOP_MED, 1, &s, tick::run, &h);
        qb_loop_run(loop);
        REQUIRE(s.held);
    }
    void pause(int ms) {
        int n = 0;
        until([&] { return ++n > ms; });
    }
};

// One daemon: its client, and what it heard, as words.
struct daemon {
    world& w;
    std::vector<std::string> heard;
    std::vector<any_input> inputs;
    int blocked = 0;
    std::unique_ptr<lock_client> client;

    daemon(world& in, node_id node, bool spawns = false)
        : w(in) {
        lock_client_config c;
        c.socket_path = w.path;
        c.node = node;
        c.reconnect_every = milliseconds(10);
        c.spawn_after = milliseconds(100);
        c.ping_every = milliseconds(50);
        c.lost_after_pings = 60; // a keeper that waits for the CPU is not one that hangs
        if (spawns)
            c.keeper_command = w.command();
        client = std::make_unique<lock_client>(w.loop, c, [this](any_input i) { hear(i); });
        client->on_blocking = [this](lock_key) { ++blocked; };
    }
    void hear(const any_input& i) {
        inputs.push_back(i);
        std::string text = "?";
        if (const auto* k = std::get_if<input::locks_known>(&i))
            text = std::string("known ") + mode_name(k->grace) + (k->alive ? " alive" : "");
        if (const auto* g = std::get_if<input::lock_granted>(&i))
            text = std::string(mode_name(g->mode)) +
                   (g->node ? " " + std::to_string(g->node.value) : "");
        if (const auto* r = std::get_if<input::lock_refused>(&i))
            text = "refused " + std::to_string(r->code);
        if (std::holds_alternative<input::lock_cancelled>(i))
            text = "cancelled";
        if (std::holds_alternative<input::locks_lost>(i))
            text = "lost";
        heard.push_back(text);
    }
    // Waits for the next thing heard, and gives it.
    std::string next() {
        w.until([this] { return !heard.empty(); });
        std::string first = heard.front();
        heard.erase(heard.begin());
        return first;
    }
    void convert(lock_mode m, const lvb_bytes* v = nullptr) {
        client->convert(lock_resource::grace, {}, m, v);
    }
    std::string ask(lock_mode m, const lvb_bytes* v = nullptr) {
        convert(m, v);
        return next();
    }
    void alive(node_id of, lock_mode m) { client->convert(lock_resource::alive, of, m, nullptr); }
    void cancel() { client->cancel(lock_resource::grace, {}); }
};

// A connection that says what it likes.
struct raw_connection {
    int fd;
    explicit raw_connection(const std::string& path)
        : fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        path.copy(at.sun_path, sizeof at.sun_path - 1);
        REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
        const timeval limit{10, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    ~raw_connection() { ::close(fd); }
    raw_connection(const raw_connection&) = delete;
    raw_connection& operator=(const raw_connection&) = delete;
    template <typename T>
    void say(const T& m) {
        (void)!::send(fd, &m, sizeof m, MSG_NOSIGNAL);
    }
    bool is_closed() { // what else comes is skipped
        std::array<char, 8192> buffer;
        ssize_t n;
        while ((n = ::recv(fd, buffer.data(), buffer.size(), 0)) > 0)
            ;
        return n == 0 || errno == ECONNRESET;
    }
};

} // namespace

TEST_CASE_FIXTURE(world, "two nodes: grant, conflict, blocking news, way down") {
    start();
    daemon a(*this, n1), b(*this, n2);
    CHECK(a.next() == "known NL");
    CHECK(b.next() == "known NL");
    CHECK(a.client->embedded());
    CHECK(a.ask(pr) == "PR");
    CHECK(b.ask(pr) == "PR");
    CHECK(b.ask(cw) == "refused " + std::to_string(EINVAL)); // up from NL only
    CHECK(b.ask(nl) == "NL");
    b.convert(cw);
    until([&] { return a.blocked == 1; });
    CHECK(b.heard.empty());
    CHECK(a.ask(nl) == "NL");
    CHECK(b.next() == "CW");
}

TEST_CASE_FIXTURE(world, "the value block arrives at the other node") {
    start();
    daemon a(*this, n1), b(*this, n2);
    a.next();
    b.next();
    CHECK(a.ask(ex) == "EX");
    lvb_bytes value;
    value.fill(0x5a);
    CHECK(a.ask(nl, &value) == "NL");
    CHECK(b.ask(pr) == "PR");
    const auto& g = std::get<input::lock_granted>(b.inputs.back());
    CHECK(g.value_valid);
    CHECK(g.value == value);
}

TEST_CASE_FIXTURE(world,
                  "a cancel that races with the grant: one answer, and both sides agree on it") {
    start();
    daemon a(*this, n1), b(*this, n2);
    a.next();
    b.next();
    int granted = 0, cancelled = 0;
    for (int i = 0; i < 300; ++i) {
        REQUIRE(a.ask(pr) == "PR");
        b.convert(cw);
        if (i % 3 == 0) // else both are in the socket when the keeper looks
            pause(1);
        if (i % 2)
            a.convert(nl);
        b.cancel();
        if (i % 2 == 0)
            a.convert(nl);
        const std::string answer = b.next();
        REQUIRE(a.next() == "NL");
        if (answer == "CW") {
            ++granted;
            REQUIRE(b.ask(nl) == "NL");
        } else {
            REQUIRE(answer == "cancelled");
            ++cancelled;
        }
    }
    CHECK(granted + cancelled == 300);
    CHECK(cancelled > 0);
    CHECK(b.heard.empty());
    b.cancel(); // nothing is outstanding: void
    CHECK(b.ask(cw) == "CW");
}

TEST_CASE_FIXTURE(world, "a daemon that comes back finds its locks and its outstanding request") {
    start();
    daemon a(*this, n1);
    a.next();
    a.alive(n1, ex);
    CHECK(a.next() == "EX 1");
    CHECK(a.ask(cw) == "CW");
    {
        daemon b(*this, n2);
        b.next();
        b.convert(pr);
        until([&] { return a.blocked == 1; });
    }
    {
        daemon again(*this, n2);
        CHECK(again.next() == "known NL");
        CHECK(again.client->inherited() == std::map<lock_key, lock_mode>{{grace_lock, pr}});
        CHECK(again.client->inherited().at(grace_lock) == pr);
        SUBCASE("its answer is delivered when it comes") {
            CHECK(a.ask(nl) == "NL");
            CHECK(again.next() == "PR");
        }
        SUBCASE("the same request takes it over") {
            again.convert(pr);
            pause(20);
            CHECK(again.heard.empty());
            CHECK(again.client->inherited().empty());
            CHECK(a.ask(nl) == "NL");
            CHECK(again.next() == "PR");
        }
        SUBCASE("another request replaces it") {
            CHECK(again.ask(cw) == "CW");
            CHECK(a.ask(nl) == "NL");
        }
        SUBCASE("it can be cancelled") {
            again.cancel();
            CHECK(again.next() == "cancelled");
        }
        SUBCASE("the grant wins the race against the replacement") {
            a.convert(nl);
            again.convert(cw);
            const std::string answer = again.next();
            CHECK((answer == "CW" || answer == "PR"));
        }
    }
    a.client.reset();
    daemon back(*this, n1);
    const std::string found = back.next();
    CHECK((found == "known CW alive" || found == "known NL alive"));
}

TEST_CASE_FIXTURE(world, "probes of a former life are given back") {
    start();
    daemon a(*this, n1);
    a.next();
    {
        daemon b(*this, n2);
        b.next();
        b.alive(n3, pr); // granted
        CHECK(b.next() == "PR 3");
        a.alive(n1, ex);
        CHECK(a.next() == "EX 1");
        b.alive(n1, pr); // outstanding
        until([&] { return a.blocked == 1; });
    }
    daemon c(*this, n3);
    c.next();
    c.alive(n3, ex); // waits for the forgotten probe
    pause(20);
    CHECK(c.heard.empty());
    daemon again(*this, n2);
    CHECK(again.next() == "known NL");
    CHECK(c.next() == "EX 3");
    again.alive(n1, pr); // a new probe meanwhile is a request like any other
    pause(20);
    a.alive(n1, nl);
    CHECK(a.next() == "NL 1");
    CHECK(again.next() == "PR 1");
    again.alive(n1, nl);
    CHECK(again.next() == "NL 1");
    CHECK(again.heard.empty());
}

TEST_CASE_FIXTURE(world, "a node dies: frozen until it is fenced, then its locks are free") {
    start();
    daemon a(*this, n1), b(*this, n2);
    a.next();
    b.next();
    a.alive(n1, ex);
    CHECK(a.next() == "EX 1");
    CHECK(a.ask(pr) == "PR");
    b.alive(n1, pr);
    b.convert(cw);
    CHECK(ctl({"freeze", "1"}) == 0);
    pause(20);
    CHECK(b.heard.empty());
    a.client.reset();
    pause(20);
    CHECK(b.heard.empty()); // a daemon that is gone frees nothing
    CHECK(ctl({"fenced"}) == 1);
    CHECK(ctl({"fenced", "1"}) == 0);
    const std::set<std::string> got{b.next(), b.next()};
    CHECK(got == std::set<std::string>{"PR 1", "CW"});
    CHECK(ctl({"dump"}) == 0);
}

TEST_CASE_FIXTURE(world,
                  "the locks of a living node dropped: its daemon hears that they are lost") {
    start();
    daemon a(*this, n1);
    a.next();
    CHECK(a.ask(pr) == "PR");
    CHECK(ctl({"keeper-died", "1"}) == 0);
    CHECK(a.next() == "lost");
    CHECK(a.next() == "known NL");
}

TEST_CASE_FIXTURE(world, "a bad message closes that connection only") {
    start();
    daemon a(*this, n1);
    a.next();
    CHECK(a.ask(pr) == "PR");
    const auto head = [](wire::message_type t) {
        auto m = wire::make<wire::convert>();
        m.head.type = static_cast<std::uint16_t>(t);
        return m;
    };
    SUBCASE("too short") {
        raw_connection c(path);
        c.say('x');
        CHECK(c.is_closed());
    }
    SUBCASE("too long") {
        raw_connection c(path);
        c.say(std::array<char, 60000>{});
        CHECK(c.is_closed());
    }
    SUBCASE("another version") {
        raw_connection c(path);
        auto m = wire::make<wire::hello>();
        m.head.version = 99;
        c.say(m);
        CHECK(c.is_closed());
    }
    SUBCASE("unknown type") {
        raw_connection c(path);
        c.say(head(wire::message_type{999}));
        CHECK(c.is_closed());
    }
    SUBCASE("one of the keeper's own") {
        raw_connection c(path);
        c.say(wire::make<wire::state>());
        CHECK(c.is_closed());
    }
    SUBCASE("a request before hello") {
        raw_connection c(path);
        auto m = wire::make<wire::convert>();
        m.id = 1;
        c.say(m);
        CHECK(c.is_closed());
    }
    SUBCASE("no node") {
        raw_connection c(path);
        c.say(wire::make<wire::hello>());
        CHECK(c.is_closed());
    }
    SUBCASE("hello twice, bad mode, bad key, no id") {
        for (int kind = 0; kind < 4; ++kind) {
            CAPTURE(kind);
            raw_connection c(path);
            auto h = wire::make<wire::hello>();
            h.node = 7;
            c.say(h);
            auto m = wire::make<wire::convert>();
            m.id = kind == 3 ? 0 : 1;
            if (kind == 1)
                m.mode = 9;
            if (kind == 2)
                m.key.node = 5; // `grace` has no node
            kind == 0 ? c.say(h) : c.say(m);
            CHECK(c.is_closed());
        }
    }
    SUBCASE("noise") {
        std::mt19937 draw(42);
        for (int i = 0; i < 300; ++i) {
            raw_connection c(path);
            auto h = wire::make<wire::hello>();
            h.node = 1000 + static_cast<std::uint32_t>(i);
            c.say(h);
            static constexpr std::array sizes{sizeof(wire::hello),   sizeof(wire::convert),
                                              sizeof(wire::cancel),  sizeof(wire::ping),
                                              sizeof(wire::release), sizeof(wire::admin)};
            std::array<std::uint8_t, 256> noise;
            for (auto& byte : noise)
                byte = static_cast<std::uint8_t>(draw());
            const auto type = draw() % sizes.size();
            const wire::header good{wire::magic, wire::version,
                                    static_cast<std::uint16_t>(type + 1)};
            std::memcpy(noise.data(), &good, sizeof good);
            (void)!::send(c.fd, noise.data(), sizes[type], MSG_NOSIGNAL);
        }
    }
    CHECK(a.ask(nl) == "NL");
    CHECK(std::count(a.heard.begin(), a.heard.end(), "lost") == 0);
}

TEST_CASE_FIXTURE(world,
                  "a daemon that does not read loses its connection, not the keeper's patience") {
    start();
    daemon a(*this, n1);
    a.next();
    raw_connection deaf(path);
    auto h = wire::make<wire::hello>();
    h.node = 2;
    deaf.say(h);
    for (int i = 0; i < 20000; ++i) {
        auto m = wire::make<wire::ping>();
        if (::send(deaf.fd, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            if (errno == EPIPE)
                break;
            pause(1);
        }
    }
    CHECK(deaf.is_closed());
    CHECK(a.ask(pr) == "PR");
}

TEST_CASE_FIXTURE(world, "one daemon for each node; the second gets in when the first is gone") {
    start();
    daemon first(*this, n1);
    first.next();
    daemon second(*this, n1);
    pause(100);
    CHECK(second.heard.empty());
    CHECK(first.ask(pr) == "PR");
    first.client.reset();
    CHECK(second.next() == "known PR");
}

TEST_CASE_FIXTURE(world, "one keeper for each path; a dead one's socket is replaced") {
    start();
    CHECK(wait_for(spawn(command())) == 3);
    ::kill(keeper, SIGKILL);
    wait_for(keeper);
    CHECK(std::filesystem::exists(path));
    keeper = spawn(command());
    daemon a(*this, n1);
    CHECK(a.next() == "known NL");
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
    ::kill(keeper, SIGTERM);
    CHECK(wait_for(std::exchange(keeper, 0)) == 0);
    CHECK(a.next() == "lost");
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE_FIXTURE(world, "a keeper does not look for others while another one starts") {
    const int other = ::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(::flock(other, LOCK_EX) == 0);
    keeper = spawn(command());
    ::usleep(1'000'000); // it would wait for 5 s
    CHECK_FALSE(std::filesystem::exists(path));
    ::close(other);
    daemon a(*this, n1);
    CHECK(a.next() == "known NL");
}

TEST_CASE_FIXTURE(world, "of many that are started at once one keeps the path") {
    std::vector<pid_t> keepers;
    for (int i = 0; i < 8; ++i)
        keepers.push_back(spawn(command()));
    int refused = 0;
    until([&] {
        for (pid_t& pid : keepers)
            if (int status = 0; pid && ::waitpid(pid, &status, WNOHANG) == pid) {
                CHECK(WEXITSTATUS(status) == 3);
                pid = 0;
                ++refused;
            }
        return refused == 7;
    });
    pause(200);
    for (const pid_t pid : keepers)
        if (pid)
            keeper = pid;
    CHECK(::waitpid(keeper, nullptr, WNOHANG) == 0);
    daemon a(*this, n1);
    CHECK(a.next() == "known NL");
}

TEST_CASE_FIXTURE(world, "the client starts a keeper when there is none, and again when it dies") {
    daemon a(*this, n1, true);
    CHECK(a.next() == "known NL");
    CHECK(a.ask(pr) == "PR");
    raw_connection who(path);
    ucred peer{};
    socklen_t length = sizeof peer;
    REQUIRE(::getsockopt(who.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    CHECK(::getsid(peer.pid) == peer.pid);
    ::kill(peer.pid, SIGKILL);
    CHECK(a.next() == "lost");
    CHECK(a.next() == "known NL");
    CHECK(a.ask(cw) == "CW");
    raw_connection second(path);
    REQUIRE(::getsockopt(second.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    a.client.reset();
    ::kill(peer.pid, SIGTERM);
    wait_for(peer.pid);
}

TEST_CASE_FIXTURE(world, "a keeper that hangs is given up; it drops its locks when it is back") {
    start();
    daemon a(*this, n1, true);
    CHECK(a.next() == "known NL");
    CHECK(a.ask(pr) == "PR");
    ::kill(keeper, SIGSTOP);
    CHECK(a.next() == "lost");
    CHECK(a.next() == "known NL"); // the new one's table is empty
    ::kill(keeper, SIGCONT);
    CHECK(wait_for(std::exchange(keeper, 0)) == 0);
    CHECK(a.ask(cw) == "CW");
    raw_connection who(path);
    ucred peer{};
    socklen_t length = sizeof peer;
    REQUIRE(::getsockopt(who.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    a.client.reset();
    ::kill(peer.pid, SIGTERM);
    wait_for(peer.pid);
}

TEST_CASE_FIXTURE(world,
                  "a socket that is open and that nobody serves: another keeper takes the path") {
    // Seen on a real DLM: a keeper that is killed while the lockspace is frozen hangs in its exit
    // with its sockets open, and the kernel goes on accepting connections to it.
    const int hung = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof at.sun_path - 1);
    REQUIRE(::bind(hung, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
    REQUIRE(::listen(hung, 16) == 0);
    daemon a(*this, n1, true);
    CHECK(a.next() == "known NL");
    CHECK(a.ask(pr) == "PR");
    raw_connection who(path);
    ucred peer{};
    socklen_t length = sizeof peer;
    REQUIRE(::getsockopt(who.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    a.client.reset();
    ::close(hung);
    ::kill(peer.pid, SIGTERM);
    wait_for(peer.pid);
}

TEST_CASE_FIXTURE(world, "nothing said while nothing is known, or to nobody, is remembered") {
    daemon a(*this, n1);
    a.convert(pr);
    a.cancel();
    start();
    CHECK(a.next() == "known NL");
    pause(20);
    CHECK(a.heard.empty());
    // A second request beside an outstanding one is refused, the first goes on.
    daemon b(*this, n2);
    b.next();
    CHECK(b.ask(cw) == "CW");
    a.convert(pr);
    a.convert(ex);
    CHECK(a.next() == "refused " + std::to_string(EBUSY));
    CHECK(b.ask(nl) == "NL");
    CHECK(a.next() == "PR");
}
