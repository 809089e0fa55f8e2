// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/instances.hh"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace grace {
namespace fs = std::filesystem;

result<instance_registry> instance_registry::open(const std::string& directory) {
    instance_registry r;
    r.directory_ = directory;
    std::error_code ec;
    fs::create_directories(directory, ec);
    if (ec)
        return fail("the directory " + directory + " cannot be made: " + ec.message() +
                    "; set runtime_dir in graced.conf to a directory on tmpfs");
    for (const auto& entry : fs::directory_iterator(directory, ec)) {
        if (entry.path().extension() != ".json")
            continue;
        std::ifstream in(entry.path());
        nlohmann::json j = nlohmann::json::parse(in, nullptr, false);
        if (!j.is_object()) {
            spdlog::warn("{} is damaged and is ignored: start that server anew (graced-server)",
                         entry.path().string());
            continue;
        }
        server_instance i;
        i.netns = j.value("netns", "");
        i.nfsd_fs = j.value("nfsd_fs", "");
        i.pipe = j.value("pipe", "");
        i.cld_version = j.value("cld_version", 2);
        i.callout = j.value("callout", "");
        i.callout_user = j.value("callout_user", std::uint32_t{0});
        i.rmtab = j.value("rmtab", "");
        i.running = j.value("running", false);
        i.stopping = j.value("stopping", false);
        i.answered = start_count{j.value("answered", std::uint64_t{0})};
        r.known_[entry.path().stem().string()] = std::move(i);
    }
    return r;
}

result<void> instance_registry::put(const std::string& server, const server_instance& i) {
    if (auto it = known_.find(server); it != known_.end() && it->second == i)
        return {};
    const fs::path to = fs::path(directory_) / (server + ".json");
    const fs::path tmp = fs::path(directory_) / (server + ".new");
    {
        std::ofstream out(tmp, std::ios::trunc);
        out << nlohmann::json{{"netns", i.netns},
                              {"nfsd_fs", i.nfsd_fs},
                              {"pipe", i.pipe},
                              {"cld_version", i.cld_version},
                              {"callout", i.callout},
                              {"callout_user", i.callout_user},
                              {"rmtab", i.rmtab},
                              {"running", i.running},
                              {"stopping", i.stopping},
                              {"answered", i.answered.value}}
                   .dump()
            << '\n';
        if (!out.flush())
            return fail("cannot write " + tmp.string() + ": " + std::strerror(errno), errno);
    }
    std::error_code ec;
    fs::rename(tmp, to, ec);
    if (ec)
        return fail("cannot write " + to.string() + ": " + ec.message(), ec.value());
    known_[server] = i;
    return {};
}

void instance_registry::remove(const std::string& server) {
    known_.erase(server);
    std::error_code ec;
    fs::remove(fs::path(directory_) / (server + ".json"), ec);
}

} // namespace grace
