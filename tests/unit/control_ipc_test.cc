// SPDX-License-Identifier: GPL-2.0-or-later
// The control IPC, both ends: the server on a loop in a thread of its own, clients here; answers at
// once and later, progress, large answers, malformed input, who may connect, and limits.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/adapters/control_client.hh"
#include "graced/adapters/control_ipc.hh"
#include "graced/adapters/control_wire.hh"
#include "graced/adapters/notify.hh"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <mutex>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace grace;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

std::string unique_name() {
    static int n = 0;
    return "graced-test-" + std::to_string(::getpid()) + "-" + std::to_string(++n);
}

// A daemon with a few verbs, on a loop in a thread of its own.
class daemon_side {
public:
    explicit daemon_side(control_options o = {})
        : options_(std::move(o)) {
        options_.name = unique_name();
        thread_ = std::thread([this] { run(); });
        std::unique_lock guard(mutex_);
        changed_.wait(guard, [&] { return up_; });
    }
    ~daemon_side() {
        end_ = true;
        thread_.join();
    }
    daemon_side(const daemon_side&) = delete;
    daemon_side& operator=(const daemon_side&) = delete;

    [[nodiscard]] const std::string& name() const { return options_.name; }
    [[nodiscard]] control_client connect() const {
        auto c = control_client::connect(name());
        REQUIRE_MESSAGE(c.has_value(), (c ? "" : c.error().message));
        return std::move(*c);
    }
    // Waits for the number of requests whose connection closed before the answer.
    bool wait_closed(std::size_t n) {
        std::unique_lock guard(mutex_);
        return changed_.wait_for(guard, 60s, [&] { return closed_.size() >= n; });
    }
    std::atomic<std::size_t> connections = 0;

private:
    void run() {
        loop_ = qb_loop_create();
        auto server = control_server::create(
            loop_, options_,
            [this](const json& r, const control_peer& p, reply_handle h) { on(r, p, h); },
            [this](std::uint64_t id) {
                const std::lock_guard guard(mutex_);
                closed_.push_back(id);
                later_.erase(id);
                changed_.notify_all();
            });
        if (!server) {
            MESSAGE(server.error().message);
            std::abort();
        }
        server_ = server->get();
        {
            const std::lock_guard guard(mutex_);
            up_ = true;
            changed_.notify_all();
        }
        look();
        qb_loop_run(loop_);
        later_.clear();
        server->reset();
        qb_loop_destroy(loop_);
    }
    void look() {
        connections = server_->connections();
        if (end_) {
            qb_loop_stop(loop_);
            return;
        }
        qb_loop_timer_handle handle = 0;
        qb_loop_timer_add(
            loop_, QB_LOOP_LOW, 5'000'000, this,
            [](void* data) { static_cast<daemon_side*>(data)->look(); }, &handle);
    }
    void on(const json& request, const control_peer& peer, const reply_handle& reply) {
        const std::string verb = request["verb"];
        if (verb == "echo") {
            reply.finish({{"said", request.at("text")}, {"uid", peer.uid}, {"pid", peer.pid}});
            reply.finish({{"said", "the second answer does not count"}});
        } else if (verb == "large") {
            reply.finish({{"data", std::string(request.at("size").get<std::size_t>(), 'x')}});
        } else if (verb == "bytes") {
            reply.finish({{"data", std::string("\xff\xfe ok")}});
        } else if (verb == "steps") {
            for (int i = 0; i < request.at("count").get<int>(); ++i) {
                reply.progress("step " + std::to_string(i));
            }
            reply.finish({});
        } else if (verb == "later") {
            reply.progress("waiting");
            later_[reply.id()] = reply;
        } else if (verb == "release") {
            for (auto& [id, waiting] : later_) {
                waiting.finish({{"released", true}});
            }
            later_.clear();
            reply.finish({});
        } else if (verb == "status") {
            reply.finish(control_answer(request_status::not_quorate, "2 of 5 votes"));
        } else {
            reply.fail("bad_request", "unknown verb " + verb);
        }
    }

    control_options options_;
    qb_loop_t* loop_ = nullptr;
    control_server* server_ = nullptr;
    std::map<std::uint64_t, reply_handle> later_;
    std::thread thread_;
    std::atomic<bool> end_ = false;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool up_ = false;
    std::vector<std::uint64_t> closed_;
};

bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 6000 && !condition(); ++i) {
        std::this_thread::sleep_for(10ms);
    }
    return condition();
}

json ask(control_client& c, const json& request) {
    auto answer = c.request(request, 60s);
    REQUIRE_MESSAGE(answer.has_value(), (answer ? "" : answer.error().message));
    return *answer;
}

// A client below control_client: any bytes.
class raw_client {
public:
    explicit raw_client(const std::string& name)
        : qb_(qb_ipcc_connect(name.c_str(), control_wire::buffer_size)) {
        REQUIRE(qb_ != nullptr);
    }
    ~raw_client() { qb_ipcc_disconnect(qb_); }
    raw_client(const raw_client&) = delete;
    raw_client& operator=(const raw_client&) = delete;

    void send(std::int32_t id, const std::string& body, std::int32_t lie = 0) {
        qb_ipc_request_header h{};
        h.id = id;
        h.size = static_cast<std::int32_t>(sizeof h + body.size()) + lie;
        std::string all(sizeof h, '\0');
        std::memcpy(all.data(), &h, sizeof h);
        all += body;
        REQUIRE(qb_ipcc_send(qb_, all.data(), all.size()) == static_cast<ssize_t>(all.size()));
    }
    json receive() {
        std::string buffer(control_wire::buffer_size, '\0');
        const ssize_t n = qb_ipcc_recv(qb_, buffer.data(), buffer.size(), 5000);
        REQUIRE(n >= static_cast<ssize_t>(sizeof(control_wire::frame_header)));
        return json::parse(
            buffer.substr(sizeof(control_wire::frame_header),
                          static_cast<std::size_t>(n) - sizeof(control_wire::frame_header)));
    }

private:
    qb_ipcc_connection_t* qb_;
};

} // namespace

TEST_CASE("a question and its answer") {
    const daemon_side daemon;
    control_client c = daemon.connect();
    const json answer = ask(c, {{"verb", "echo"}, {"text", "h\xc3\xa9llo"}});
    CHECK(answer["ok"] == true);
    CHECK(answer["said"] == "h\xc3\xa9llo");
    CHECK(answer["uid"] == 0);
    CHECK(answer["pid"] == ::getpid());
    CHECK(ask(c, {{"verb", "echo"}, {"text", 2}})["said"] == 2);
    const json refused = ask(c, {{"verb", "status"}});
    CHECK(refused == json{{"ok", false}, {"code", "not_quorate"}, {"error", "2 of 5 votes"}});
    CHECK(ask(c, {{"verb", "nothing"}})["code"] == "bad_request");
    CHECK(ask(c, {{"verb", "echo"}})["code"] == "bad_request"); // its handler threw
    CHECK(ask(c, {{"verb", "bytes"}})["data"] == "\xef\xbf\xbd\xef\xbf\xbd ok");
}

TEST_CASE("answers of any size up to the limit") {
    const daemon_side daemon;
    control_client c = daemon.connect();
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{32} << 10, (std::size_t{32} << 10) - 11, std::size_t{1} << 20,
          std::size_t{8} << 20}) {
        CHECK(ask(c, {{"verb", "large"}, {"size", size}})["data"].get<std::string>().size() ==
              size);
    }
    control_options options;
    options.max_reply = 1U << 20;
    const daemon_side small(options);
    control_client d = small.connect();
    CHECK(ask(d, {{"verb", "large"}, {"size", 1U << 20}})["code"] == "too_large");
}

TEST_CASE("progress before the answer, in order, more than the ring holds") {
    const daemon_side daemon;
    control_client c = daemon.connect();
    std::vector<std::string> lines;
    auto answer = c.request({{"verb", "steps"}, {"count", 5000}}, 10s,
                            [&](const std::string& line) { lines.push_back(line); });
    REQUIRE(answer);
    REQUIRE(lines.size() == 5000);
    CHECK(lines.front() == "step 0");
    CHECK(lines.back() == "step 4999");
}

TEST_CASE("an answer that comes later, and one that comes too late") {
    daemon_side daemon;
    control_client waits = daemon.connect();
    control_client releases = daemon.connect();
    std::atomic<bool> waiting = false;
    std::thread other([&] {
        while (!waiting) {
            std::this_thread::sleep_for(1ms);
        }
        auto r = releases.request({{"verb", "release"}}, 60s);
        CHECK(r.has_value());
    });
    auto answer = waits.request({{"verb", "later"}}, std::nullopt,
                                [&](const std::string&) { waiting = true; });
    other.join();
    REQUIRE(answer);
    CHECK((*answer)["released"] == true);

    const auto start = std::chrono::steady_clock::now();
    auto late = waits.request({{"verb", "later"}}, 300ms);
    REQUIRE(!late);
    CHECK(late.error().code == ETIMEDOUT);
    CHECK(std::chrono::steady_clock::now() - start < 30s);
}

TEST_CASE("a connection that closes before its answer is told, once for each request") {
    daemon_side daemon;
    {
        control_client c = daemon.connect();
        CHECK(!c.request({{"verb", "later"}}, 50ms));
        CHECK(!c.request({{"verb", "later"}}, 50ms));
    }
    CHECK(daemon.wait_closed(2));
    // kill -9 of a client
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        auto c = control_client::connect(daemon.name());
        if (c) {
            (void)c->request({{"verb", "later"}}, std::nullopt,
                             [](const std::string&) { ::kill(::getpid(), SIGKILL); });
        }
        ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(daemon.wait_closed(3));
    control_client c = daemon.connect();
    CHECK(ask(c, {{"verb", "release"}})["ok"] == true); // handles of the dead do nothing
}

TEST_CASE("malformed requests get an error, and the daemon lives") {
    const daemon_side daemon;
    raw_client raw(daemon.name());
    const std::string deep = "{\"verb\":" + std::string(30000, '[') + std::string(30000, ']') + "}";
    const std::string deep_object = [] {
        std::string s;
        for (int i = 0; i < 8000; ++i) {
            s += "{\"a\":";
        }
        return s;
    }();
    for (const std::string& body :
         {std::string(), std::string("{"), std::string("null"), std::string("[1]"),
          std::string("\"verb\""), std::string("{}"), std::string("{\"verb\":1}"),
          std::string("{\"verb\":\"\xff\"}"), std::string("{\"verb\":\"echo\"} trailing"),
          std::string(40000, '['), std::string(1000, '\0'), deep, deep_object,
          std::string(control_wire::max_request + 1, ' ')}) {
        raw.send(7, body);
        CHECK(raw.receive()["code"] == "bad_request");
    }
    raw.send(7, "{\"verb\":\"echo\",\"text\":1}");
    CHECK(raw.receive()["said"] == 1);
    control_client c = daemon.connect();
    CHECK(ask(c, {{"verb", "echo"}, {"text", 3}})["said"] == 3);
    const auto too_large = c.request({{"verb", "echo"}, {"text", std::string(70000, 'x')}}, 1s);
    REQUIRE(!too_large);
    CHECK(too_large.error().code == EMSGSIZE);
}

TEST_CASE("a message shorter or longer than its header says") {
    const daemon_side daemon;
    for (const std::int32_t lie : {-16, -8, 8, 1000}) {
        CAPTURE(lie);
        raw_client raw(daemon.name());
        raw.send(7, "{\"verb\":\"echo\",\"text\":1}", lie);
        control_client c = daemon.connect(); // whatever became of that one
        CHECK(ask(c, {{"verb", "echo"}, {"text", 3}})["said"] == 3);
    }
}

TEST_CASE("limits: connections, and requests that wait") {
    control_options options;
    options.max_connections = 3;
    options.max_outstanding = 2;
    daemon_side daemon(options);
    {
        control_client a = daemon.connect();
        CHECK(!a.request({{"verb", "later"}}, 50ms));
        CHECK(!a.request({{"verb", "later"}}, 50ms));
        CHECK(ask(a, {{"verb", "later"}})["code"] == "too_many");
        control_client b = daemon.connect();
        control_client c = daemon.connect();
        const auto d = control_client::connect(daemon.name());
        REQUIRE(!d);
        CHECK(d.error().code == EAGAIN);
        MESSAGE(d.error().message);
    }
    REQUIRE(daemon.wait_closed(2));
    control_client again = daemon.connect();
    CHECK(ask(again, {{"verb", "echo"}, {"text", 1}})["ok"] == true);
    CHECK(daemon.connections <= 3);
}

TEST_CASE("a reader that does not read is cut off; the others go on") {
    control_options options;
    options.max_backlog = 1U << 20;
    daemon_side daemon(options);
    raw_client lazy(daemon.name());
    lazy.send(1, json{{"verb", "large"}, {"size", 4 << 20}}.dump());
    control_client c = daemon.connect();
    CHECK(ask(c, {{"verb", "echo"}, {"text", 1}})["ok"] == true);
    CHECK(eventually([&] { return daemon.connections == 1; }));
    CHECK(ask(c, {{"verb", "echo"}, {"text", 1}})["ok"] == true);
}

TEST_CASE("only root may connect") {
    if (::geteuid() != 0) {
        MESSAGE("skipped: not root");
        return;
    }
    const daemon_side daemon;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (::setgid(65534) != 0 || ::setuid(65534) != 0) {
            ::_exit(10);
        }
        const auto c = control_client::connect(daemon.name());
        ::_exit(c ? 11 : c.error().code == EACCES ? 0 : c.error().code);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    control_client c = daemon.connect();
    CHECK(ask(c, {{"verb", "echo"}, {"text", 1}})["ok"] == true);
    CHECK(eventually([&] { return daemon.connections == 1; }));
}

TEST_CASE("no daemon; a second one; one that dies; one that hangs") {
    const auto none = control_client::connect("graced-test-nobody");
    REQUIRE(!none);
    CHECK(none.error().code == ECONNREFUSED);
    CHECK(none.error().message == "graced is not running on this node (no IPC server "
                                  "'graced-test-nobody'): systemctl start graced");
    {
        // In a process of its own: libqb's loops share state, a second one stops the first.
        const daemon_side first;
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            control_options options;
            options.name = first.name();
            const auto second = control_server::create(qb_loop_create(), options, {}, {});
            ::_exit(second ? 0 : second.error().code);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(WEXITSTATUS(status) == EADDRINUSE);
    }
    // A daemon in a process of its own, so that it can be stopped and killed.
    int up[2];
    REQUIRE(::pipe(up) == 0);
    const std::string name = unique_name();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        qb_loop_t* loop = qb_loop_create();
        control_options options;
        options.name = name;
        reply_handle kept;
        auto server =
            control_server::create(loop, options,
                                   [&](const json&, const control_peer&, const reply_handle& r) {
                                       kept = r;
                                       r.progress("here");
                                   },
                                   {});
        if (!server || ::write(up[1], "x", 1) != 1) {
            ::_exit(1);
        }
        qb_loop_run(loop);
        ::_exit(0);
    }
    char ready = 0;
    REQUIRE(::read(up[0], &ready, 1) == 1);
    auto c = control_client::connect(name);
    REQUIRE(c);
    ::kill(child, SIGSTOP);
    const auto hung = control_client::connect(name, 300ms);
    REQUIRE(!hung);
    CHECK(hung.error().code == ETIMEDOUT);
    ::kill(child, SIGCONT);
    const auto start = std::chrono::steady_clock::now();
    const auto answer =
        c->request({{"verb", "x"}}, 60s, [&](const std::string&) { ::kill(child, SIGKILL); });
    REQUIRE(!answer);
    CHECK(answer.error().code == ENOTCONN);
    CHECK(std::chrono::steady_clock::now() - start < 50s);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    ::close(up[0]);
    ::close(up[1]);
    c = tl::unexpected(error{}); // closes it: libqb removes the rings, but not their directories
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
        if (entry.path().filename().string().rfind("qb-" + std::to_string(child) + "-", 0) == 0) {
            std::filesystem::remove_all(entry.path());
        }
    }
}

TEST_CASE("systemd is told; the watchdog's sign comes from the loop while it is healthy") {
    const std::string path = "/tmp/" + unique_name() + ".notify";
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
    ::setenv("WATCHDOG_USEC", "100000", 1);
    ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
    const auto received = [&] {
        std::vector<std::string> all;
        char buffer[512];
        for (ssize_t n = 0; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) {
            all.emplace_back(buffer, static_cast<std::size_t>(n));
        }
        return all;
    };
    qb_loop_t* loop = qb_loop_create();
    const auto run_for = [&](std::uint64_t ms) {
        qb_loop_timer_handle h = 0;
        qb_loop_timer_add(
            loop, QB_LOOP_LOW, ms * 1'000'000, loop,
            [](void* l) { qb_loop_stop(static_cast<qb_loop_t*>(l)); }, &h);
        qb_loop_run(loop);
    };
    {
        bool healthy = true;
        notifier n(loop, [&] { return healthy; });
        n.ready("normal\nC 5");
        n.status("normal C 5"); // the same: not sent again
        n.status("entering");
        CHECK(received() == std::vector<std::string>{"WATCHDOG=1", "READY=1\nSTATUS=normal C 5",
                                                     "STATUS=entering"});
        // Half of what systemd waits for; on a busy machine the loop comes to it later.
        const auto begin = std::chrono::steady_clock::now();
        std::size_t beats = 0;
        for (int turns = 0; turns < 600 && beats < 4; ++turns) {
            run_for(50);
            beats += received().size();
        }
        CHECK(beats >= 4);
        CHECK(beats <= 1 + static_cast<std::size_t>((std::chrono::steady_clock::now() - begin) / 45ms));
        healthy = false;
        run_for(120);
        CHECK(received().empty());
        n.stopping("bye");
        CHECK(received() == std::vector<std::string>{"STOPPING=1\nSTATUS=bye"});
    }
    qb_loop_destroy(loop);
    ::unsetenv("NOTIFY_SOCKET");
    ::unsetenv("WATCHDOG_USEC");
    ::unsetenv("WATCHDOG_PID");
    ::close(fd);
    ::unlink(path.c_str());
}
