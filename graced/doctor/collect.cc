// SPDX-License-Identifier: GPL-2.0-or-later
// The facts of this node. Reads only; nothing here waits for a lockspace, an nfsd or the network:
// no GFS2 is touched, and no file of nfsd's whose reader would wait for one that starts.
#include "graced/doctor/doctor.hh"
#include "graced/node_view.hh"

#include <array>
#include <chrono>
#include <corosync/cmap.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sched.h>
#include <set>
#include <sstream>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

namespace grace::doctor {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> text_of(const std::string& file) {
    std::ifstream in(file);
    if (!in)
        return std::nullopt;
    std::ostringstream all;
    all << in.rdbuf();
    return all.str();
}

std::string first_line(const std::string& file) {
    std::string line;
    std::getline(std::ifstream(file), line);
    return line;
}

template <typename Read>
json read_file(const std::string& file, Read read) {
    const auto text = text_of(file);
    return text ? json(read(*text)) : json(nullptr);
}

// What runs, not what the file says; without corosync the file.
json corosync_facts(const std::string& root) {
    json facts = read_file(root + "/etc/corosync/corosync.conf", read_corosync_conf);
    if (facts.is_object())
        facts["running"] = false;
    cmap_handle_t c = 0;
    if (!root.empty() || cmap_initialize(&c) != CS_OK)
        return facts;
    if (facts.is_null())
        facts = {{"nodes", json::array()}};
    facts["running"] = true;
    std::uint32_t token = 0;
    if (cmap_get_uint32(c, "runtime.config.totem.token", &token) == CS_OK)
        facts["token"] = token;
    const auto flag = [&](const char* key, bool otherwise) {
        std::uint8_t v = 0;
        return cmap_get_uint8(c, key, &v) == CS_OK ? v != 0 : otherwise;
    };
    facts["two_node"] = flag("quorum.two_node", false);
    facts["wait_for_all"] = flag("quorum.wait_for_all", facts["two_node"].get<bool>());
    facts["last_man_standing"] = flag("quorum.last_man_standing", false);
    cmap_finalize(c);
    return facts;
}

json module_facts(const std::string& root, const std::string& name) {
    const std::string dir = root + "/sys/module/" + name;
    std::error_code ignored;
    // A directory alone may be that of a built-in one's parameters: initstate is a loaded module's.
    return {{"loaded", fs::exists(dir + "/initstate", ignored)},
            {"version", first_line(dir + "/version")},
            {"srcversion", first_line(dir + "/srcversion")}};
}

bool runs(const std::string& root, const std::string& program) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(root + "/proc", ignored))
        if (first_line(entry.path() / "comm") == program)
            return true;
    return false;
}

bool unit_masked(const std::string& root, const std::string& unit) {
    std::error_code ignored;
    for (const char* dir : {"/etc/systemd/system/", "/run/systemd/system/"})
        if (fs::read_symlink(root + dir + unit, ignored) == "/dev/null")
            return true;
    return false;
}

bool unit_there(const std::string& root, const std::string& unit) {
    std::error_code ignored;
    for (const char* dir :
         {"/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/"})
        if (fs::exists(root + dir + unit, ignored))
            return true;
    return false;
}

// The host name in a UTS namespace, as nfsd took it for its scope: in a child, for a process cannot
// be sure to come back.
std::string host_name_in(const std::string& namespace_file) {
    const int there = ::open(namespace_file.c_str(), O_RDONLY | O_CLOEXEC);
    std::array<int, 2> ends{};
    if (there < 0 || ::pipe2(ends.data(), O_CLOEXEC) != 0) {
        if (there >= 0)
            ::close(there);
        return {};
    }
    const pid_t child = ::fork();
    if (child == 0) {
        utsname u{};
        if (::setns(there, CLONE_NEWUTS) == 0 && ::uname(&u) == 0) {
            const std::string name = u.nodename;
            (void)!::write(ends[1], name.data(), name.size());
        }
        ::_exit(0);
    }
    ::close(ends[1]);
    ::close(there);
    std::array<char, 256> name{};
    const ssize_t n = child > 0 ? ::read(ends[0], name.data(), name.size()) : 0;
    ::close(ends[0]);
    if (child > 0)
        ::waitpid(child, nullptr, 0);
    return std::string(name.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
}

// What graced-server has here, whether it runs or is half gone.
json servers_here(const std::string& dir) {
    json all = json::array();
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(dir, ignored)) {
        if (!fs::exists(entry.path() / "definition", ignored))
            continue;
        const std::string scope = host_name_in(entry.path() / "ns/uts");
        all.push_back({{"name", entry.path().filename()},
                       {"scope", scope.empty() ? json(nullptr) : json(scope)}});
    }
    return all;
}

json database_facts(const std::string& root, const std::string& path) {
    const fs::path file(path);
    json beside = json::array();
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(root + file.parent_path().string(), ignored)) {
        const std::string name = entry.path().filename();
        const std::string own = file.filename().string();
        if (name.rfind(own + ".damaged-", 0) == 0 || name.rfind(own + ".schema-", 0) == 0 ||
            (name.rfind("crash-", 0) == 0 && entry.path().extension() == ".rec"))
            beside.push_back(name);
    }
    std::sort(beside.begin(), beside.end());
    const auto mounts = text_of(root + "/proc/self/mountinfo");
    return {{"path", path},
            {"filesystem", mounts ? filesystem_of(path, *mounts) : ""},
            {"beside", beside}};
}

bool gate_before_gfs2(const std::string& root) {
    std::error_code ignored;
    std::set<std::string> seen;
    // The first directory that has a file of that name hides it in the others (modprobe.d(5)).
    for (const char* dir : {"/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d",
                            "/usr/lib/modprobe.d", "/lib/modprobe.d"})
        for (const auto& entry : fs::directory_iterator(root + dir, ignored))
            if (seen.insert(entry.path().filename()).second &&
                loads_gate_first(text_of(entry.path()).value_or("")))
                return true;
    return false;
}

json clock_synchronized() {
    timex t{};
    const int state = ::adjtimex(&t);
    return state < 0 ? json(nullptr) : json((t.status & STA_UNSYNC) == 0);
}

} // namespace

json collect(const std::string& runtime_dir, const std::string& database, const std::string& root) {
    utsname u{};
    ::uname(&u);
    json mounts = json::array();
    for (const gfs2_mount& m : gfs2_mounts(root))
        mounts.push_back({{"path", m.path}, {"gate", m.gate}});
    json modules;
    for (const char* name : {"lockd_shim", "gfs2_gate", "gfs2"})
        modules[name] = module_facts(root, name);
    std::error_code ignored;
    return {
        {"format", facts_format},
        {"version", GRACED_VERSION},
        {"host", u.nodename},
        {"kernel", u.release},
        {"time", std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
                     .count()},
        {"clock_synchronized", clock_synchronized()},
        {"corosync", corosync_facts(root)},
        {"dlm", read_file(root + "/etc/dlm/dlm.conf", read_dlm_conf)},
        {"cib", read_file(root + "/var/lib/pacemaker/cib/cib.xml", read_cib)},
        {"mounts", mounts},
        {"fstab", read_file(root + "/etc/fstab", read_fstab)},
        {"modules", modules},
        {"gate_before_gfs2", gate_before_gfs2(root)},
        {"nfsdcld",
         {{"runs", runs(root, "nfsdcld")},
          {"there", unit_there(root, "nfsdcld.service")},
          {"masked", unit_masked(root, "nfsdcld.service")}}},
        {"enabled",
         fs::is_symlink(root + "/etc/systemd/system/multi-user.target.wants/graced.service",
                        ignored)},
        {"dropin_grace_time",
         read_file(root + "/etc/systemd/system/nfs-server.service.d/graced.conf",
                   grace_time_of_dropin)},
        {"servers_here", servers_here(root + runtime_dir + "/servers")},
        {"database", database_facts(root, database)}};
}

} // namespace grace::doctor
