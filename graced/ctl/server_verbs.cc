// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs of graced-server and the resource agents, not shown in --help: how an NFS server comes up
// and goes. Order of a start: server-start (answered when reclaim is open), nfsd is started,
// server-running, addresses. Of a stop: server-stop (answered when all enforce), nfsd is stopped,
// server-released.
#include "grace/record_key.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"
#include "graced/hex.hh"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <memory>

namespace grace::ctl {

namespace {

struct arguments {
    std::string server, netns, nfsd_fs, pipe, callout, rmtab;
    unsigned cld_version = 2, callout_user = 0;
    wait_limit limit = 0;
};

const CLI::Validator absolute_path(
    [](std::string& path) -> std::string {
        return path.empty() || path.front() != '/' ? "must be an absolute path" : "";
    },
    "PATH");

void add(CLI::App& app, session& s, const char* verb, const char* help, const char* done,
         wait_limit limit, bool describes) {
    auto a = std::make_shared<arguments>();
    a->limit = limit;
    CLI::App* sub = app.add_subcommand(verb, help)->group("");
    sub->add_option("server", a->server, "the server's name")->required();
    sub->add_option("--timeout", a->limit, "seconds to wait for the answer; 0: no limit")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    if (describes) {
        sub->add_option("--netns", a->netns,
                        "its network namespace (/run/netns/NAME); default: the daemon's own")
            ->check(absolute_path);
        sub->add_option("--nfsd-fs", a->nfsd_fs, "where its nfsd filesystem is mounted")
            ->required()
            ->check(absolute_path);
        sub->add_option("--pipe", a->pipe, "its rpc_pipefs' nfsd/cld pipe")
            ->required()
            ->check(absolute_path);
        sub->add_option("--cld-version", a->cld_version, "of the upcalls")
            ->check(CLI::Range(0U, 2U))
            ->capture_default_str();
        sub->add_option("--callout", a->callout, "NFSv3: the socket to make for its statd's callout")
            ->check(absolute_path);
        sub->add_option("--callout-user", a->callout_user, "the user id of its statd");
        sub->add_option("--rmtab", a->rmtab, "NFSv3: its mountd's rmtab")->check(absolute_path);
    }
    sub->callback([&s, a, verb, done, describes] {
        json request = {{"verb", verb}, {"server", a->server}};
        if (describes) {
            request["netns"] = a->netns;
            request["nfsd_fs"] = a->nfsd_fs;
            request["pipe"] = a->pipe;
            request["cld_version"] = a->cld_version;
            if (!a->callout.empty()) { // with NFSv3
                request["callout"] = a->callout;
                request["callout_user"] = a->callout_user;
                request["rmtab"] = a->rmtab;
            }
        }
        if (a->limit > 0) {
            request["timeout"] = a->limit;
        }
        s.show(request, a->limit, [&](const json& r) { return render_done(r, a->server + done); });
    });
}

// statd's state on disk (support/nsm/file.c of nfs-utils): a file sm/CLIENT for each client, and the
// state number, four bytes of this machine's order. A client takes a notice for news only if the
// number is another one than the last; by the protocol it rises with each restart, and is odd while
// the server is up. The number of the START does both, whichever node hosts the server.
void write_notices(session& s, const std::string& server, const std::string& directory) {
    namespace fs = std::filesystem;
    const auto status = s.ask({{"verb", "status"}}, 10);
    if (!status)
        return;
    const json* about = nullptr;
    for (const json& v : (*status)["servers"])
        if (v.value("name", "") == server)
            about = &v;
    if (!about)
        return s.failed(exit_unknown, "no_such_server", "no server " + server + " is known");
    const auto all = all_clients(s, server);
    if (!all)
        return;
    std::vector<std::string> hosts;
    for (const json& c : (*all)["clients"])
        if (c.value("protocol", "") == "NFSv3")
            if (const auto host = from_hex(c.value("name_hex", "")); host && is_host_name(*host))
                hosts.push_back(*host);

    const auto write = [](const fs::path& file, const std::string& text) {
        std::ofstream out(file, std::ios::binary | std::ios::trunc);
        out << text;
        return out.flush().good();
    };
    std::error_code code;
    bool good = fs::create_directories(fs::path(directory) / "sm", code) ||
                fs::is_directory(fs::path(directory) / "sm", code);
    fs::create_directories(fs::path(directory) / "sm.bak", code);
    const auto start = about->value("start", std::uint64_t{0});
    const auto number = static_cast<std::uint32_t>(start << 1 | 1) & 0x7fffffff;
    good = good && write(fs::path(directory) / "state",
                         std::string(reinterpret_cast<const char*>(&number), sizeof number));
    // 127.0.0.1, lockd, its version 3, procedure 16, no cookie: of use only to statd itself.
    for (const std::string& host : hosts)
        good = good && write(fs::path(directory) / "sm" / host,
                             "0100007f 000186b5 00000003 00000010 " + std::string(32, '0') + " " +
                                 host + " " + server + "\n");
    if (!good)
        return s.failed(exit_failed, "failed", directory + " cannot be written");
    s.print({{"ok", true}, {"clients", hosts.size()}, {"state", number}},
            [](const json& a) { return a["clients"].dump() + "\n"; });
}

} // namespace

void add_server_verbs(CLI::App& app, session& s) {
    add(app, s, "server-start", "host a server here; returns when its clients may reclaim",
        ": reclaim is open here, start nfsd.", 0, true);
    add(app, s, "server-running", "its nfsd runs: make sure that its clients are tracked",
        ": runs, and its clients are tracked.", 30, false);
    add(app, s, "server-stop", "it is about to stop; returns when all nodes enforce",
        ": all nodes enforce, stop nfsd.", 0, false);
    add(app, s, "server-released", "its nfsd has stopped: another node may host it",
        ": another node may host it.", 30, false);
    auto server = std::make_shared<std::string>();
    auto directory = std::make_shared<std::string>();
    CLI::App* sub = app.add_subcommand("server-notices", "write what sm-notify needs to tell its "
                                                         "NFSv3 clients to reclaim")
                        ->group("");
    sub->add_option("server", *server, "the server's name")->required();
    sub->add_option("directory", *directory, "a new one; sm-notify's option -P")
        ->required()
        ->check(absolute_path);
    sub->callback([&s, server, directory] { write_notices(s, *server, *directory); });
}

} // namespace grace::ctl
