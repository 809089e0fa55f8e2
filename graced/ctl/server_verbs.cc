// SPDX-License-Identifier: GPL-2.0-or-later
// Verbs of graced-server and the resource agents, not shown in --help: how an NFS server comes up
// and goes. Order of a start: server-start (answered when reclaim is open), nfsd is started,
// server-running, addresses. Of a stop: server-stop (answered when all enforce), nfsd is stopped,
// server-released.
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/render.hh"

#include <CLI/CLI.hpp>
#include <memory>

namespace grace::ctl {

namespace {

struct arguments {
    std::string server, netns, nfsd_fs, pipe;
    unsigned cld_version = 2;
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
    }
    sub->callback([&s, a, verb, done, describes] {
        json request = {{"verb", verb}, {"server", a->server}};
        if (describes) {
            request["netns"] = a->netns;
            request["nfsd_fs"] = a->nfsd_fs;
            request["pipe"] = a->pipe;
            request["cld_version"] = a->cld_version;
        }
        if (a->limit > 0) {
            request["timeout"] = a->limit;
        }
        s.show(request, a->limit, [&](const json& r) { return render_done(r, a->server + done); });
    });
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
    // What statd has on record; its clients reclaim over NLM, without upcalls.
    auto hosts = std::make_shared<std::vector<std::string>>();
    auto server = std::make_shared<std::string>();
    CLI::App* sub = app.add_subcommand("server-hosts", "the NFSv3 clients that may reclaim its locks")
                        ->group("");
    sub->add_option("server", *server, "the server's name")->required();
    sub->add_option("host", *hosts, "name or address, as lockd knows the client");
    sub->callback([&s, server, hosts] {
        s.show({{"verb", "server-hosts"}, {"server", *server}, {"hosts", *hosts}}, 30,
               [&](const json& r) { return render_done(r, *server + ": on record."); });
    });
}

} // namespace grace::ctl
