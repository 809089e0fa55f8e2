// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/node_view.hh"

#include <algorithm>
#include <cerrno>
#include <corosync/cpg.h>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace grace {
namespace {

std::string first_line(const std::filesystem::path& file) {
    std::string line;
    std::getline(std::ifstream(file), line);
    return line;
}

// proc(5): a space, tab, newline or backslash is three octal digits behind a backslash.
std::string unescaped(const std::string& s) {
    std::string out;
    const auto digit = [&](std::size_t at) { return s[at] >= '0' && s[at] <= '7'; };
    for (std::size_t i = 0; i < s.size(); ++i)
        if (s[i] == '\\' && i + 3 < s.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            out += static_cast<char>((s[i + 1] - '0') * 64 + (s[i + 2] - '0') * 8 + s[i + 3] - '0');
            i += 3;
        } else {
            out += s[i];
        }
    return out;
}

std::string lower(std::string s) {
    std::ranges::transform(s, s.begin(), [](unsigned char c) { return std::tolower(c); });
    return s;
}

std::set<std::string> words(const std::string& list) {
    std::set<std::string> found;
    std::string word;
    std::istringstream in(list);
    while (std::getline(in, word, ','))
        found.insert(lower(word));
    return found;
}

} // namespace

std::vector<gfs2_mount> gfs2_mounts(const std::string& root) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::path parameters = root + "/sys/module/gfs2_gate/parameters";
    const bool loaded = fs::exists(parameters, ignored);
    const std::set<std::string> ungated = words(first_line(parameters / "ungated"));
    std::map<std::string, std::string> uuids; // by device
    for (const auto& space : fs::directory_iterator(root + "/sys/fs/gfs2", ignored))
        uuids[first_line(space.path() / "id")] = lower(first_line(space.path() / "uuid"));

    std::vector<gfs2_mount> mounts;
    std::ifstream in(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(in, line);) {
        // id parent MAJOR:MINOR root PATH options [fields] - TYPE source SUPER-OPTIONS
        std::istringstream fields(line);
        gfs2_mount m;
        std::string skip, type, options;
        fields >> skip >> skip >> m.device >> skip >> m.path;
        while (fields >> skip && skip != "-") {
        }
        fields >> type >> skip >> options;
        if (type != "gfs2")
            continue;
        m.path = unescaped(m.path);
        m.uuid = uuids[m.device];
        const std::set<std::string> set = words(options);
        m.gate = set.contains("localflocks") || set.contains("lockproto=lock_nolock") ? "private"
                 : !loaded                                                            ? "open"
                 : !m.uuid.empty() && ungated.contains(m.uuid)                        ? "ungated"
                                                                                      : "gated";
        mounts.push_back(std::move(m));
    }
    return mounts;
}

result<std::vector<std::uint32_t>> graced_elsewhere(const std::string& group) {
    cpg_name name{};
    if (group.empty() || group.size() > CPG_MAX_NAME_LENGTH)
        return fail("the name of graced's group is wrong", EINVAL);
    name.length = static_cast<std::uint32_t>(group.size());
    std::memcpy(name.value, group.data(), group.size());
    cpg_handle_t cpg = 0;
    cpg_callbacks_t none{};
    if (cpg_initialize(&cpg, &none) != CS_OK)
        return fail("corosync does not answer on this node", ECONNREFUSED);
    unsigned self = 0;
    cpg_address list[CPG_MEMBERS_MAX];
    int n = 0;
    const bool told = cpg_local_get(cpg, &self) == CS_OK &&
                      cpg_membership_get(cpg, &name, list, &n) == CS_OK;
    cpg_finalize(cpg);
    if (!told)
        return fail("corosync does not say who is in graced's group", EIO);
    std::vector<std::uint32_t> others;
    for (int i = 0; i < n; ++i)
        if (list[i].nodeid != self)
            others.push_back(list[i].nodeid);
    return others;
}

} // namespace grace
