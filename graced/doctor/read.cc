// SPDX-License-Identifier: GPL-2.0-or-later
// Texts of files to facts. None of them is a full parser: what is not understood is passed over,
// for whoever reads the file in earnest says what is wrong with it.
#include "graced/doctor/doctor.hh"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>
#include <sstream>

namespace grace::doctor {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        line.erase(line.find_last_not_of(" \t\r") + 1);
        line.erase(0, line.find_first_not_of(" \t"));
        if (!line.empty() && line.front() != '#')
            all.push_back(line);
    }
    return all;
}

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream in(line);
    std::vector<std::string> all;
    for (std::string word; in >> word;)
        all.push_back(word);
    return all;
}

std::string last_part(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

json number(const std::string& s) {
    if (s.empty() || s.size() > 9 || s.find_first_not_of("0123456789") != std::string::npos)
        return nullptr;
    return std::stoul(s);
}

} // namespace

json read_corosync_conf(const std::string& text) {
    json facts = {{"token", nullptr},
                  {"two_node", false},
                  {"wait_for_all", nullptr},
                  {"last_man_standing", false},
                  {"nodes", json::array()}};
    std::vector<std::string> sections;
    json node;
    for (const std::string& line : lines_of(text)) {
        if (line.back() == '{') {
            sections.push_back(words_of(line).front());
            node = json::object();
            continue;
        }
        if (line == "}") {
            if (!sections.empty() && sections.back() == "node" && node.contains("id"))
                facts["nodes"].push_back(node);
            if (!sections.empty())
                sections.pop_back();
            continue;
        }
        const auto colon = line.find(':');
        if (colon == std::string::npos || sections.empty())
            continue;
        const std::string key = words_of(line.substr(0, colon) + " ?").front();
        const auto values = words_of(line.substr(colon + 1));
        const std::string value = values.empty() ? "" : values.front();
        if (sections.back() == "totem" && key == "token")
            facts["token"] = number(value);
        if (sections.back() == "quorum" &&
            (key == "two_node" || key == "wait_for_all" || key == "last_man_standing"))
            facts[key] = value == "1" || value == "yes";
        if (sections.back() == "node" && key == "nodeid")
            node["id"] = number(value);
        if (sections.back() == "node" && key == "name")
            node["name"] = value;
    }
    // votequorum(5): two_node alone switches wait_for_all on.
    if (facts["wait_for_all"].is_null())
        facts["wait_for_all"] = facts["two_node"];
    return facts;
}

json read_dlm_conf(const std::string& text) {
    json facts = {
        {"fencing", true}, {"plocks", true}, {"all", json::array()}, {"nodes", json::object()}};
    std::map<std::string, std::string>
        agents; // of each device, `power:1` and `power:2` are one each
    for (std::string line : lines_of(text)) {
        auto words = words_of(line);
        if (words.front().rfind("enable_", 0) == 0) { // enable_plock=1, also with spaces
            line.erase(std::remove_if(line.begin(), line.end(),
                                      [](unsigned char c) { return std::isspace(c) != 0; }),
                       line.end());
            if (line == "enable_fencing=0")
                facts["fencing"] = false;
            if (line == "enable_plock=0")
                facts["plocks"] = false;
        } else if (words.front() == "fence_all" && words.size() > 1) {
            facts["all"].push_back(last_part(words[1]));
        } else if (words.front() == "device" && words.size() > 2) {
            agents[words[1]] = last_part(words[2]);
        } else if (words.front() == "connect" && words.size() > 1) {
            for (const std::string& word : words)
                if (word.rfind("node=", 0) == 0 && agents.contains(words[1]))
                    facts["nodes"][word.substr(5)].push_back(agents[words[1]]);
        }
    }
    return facts;
}

json read_cib(const std::string& text) {
    json facts = {{"stonith", true}, {"agents", json::object()}, {"levels", json::array()}};
    const auto attribute = [](const std::string& element, const char* name) {
        std::smatch found;
        const std::regex wanted(std::string("\\s") + name + "=\"([^\"]*)\"");
        return std::regex_search(element, found, wanted) ? found[1].str() : std::string();
    };
    static const std::regex element("<(nvpair|primitive|fencing-level)(\\s[^>]*)>");
    for (auto i = std::sregex_iterator(text.begin(), text.end(), element);
         i != std::sregex_iterator(); ++i) {
        const std::string kind = (*i)[1], about = (*i)[2];
        if (kind == "nvpair" && attribute(about, "name") == "stonith-enabled") {
            const std::string value = attribute(about, "value");
            facts["stonith"] = value != "false" && value != "0" && value != "no" && value != "off";
        } else if (kind == "primitive" && attribute(about, "class") == "stonith") {
            facts["agents"][attribute(about, "id")] = attribute(about, "type");
        } else if (kind == "fencing-level") {
            json devices = json::array();
            std::istringstream in(attribute(about, "devices"));
            for (std::string device; std::getline(in, device, ',');)
                devices.push_back(device);
            facts["levels"].push_back(devices);
        }
    }
    return facts;
}

json read_fstab(const std::string& text) {
    json all = json::array();
    for (const std::string& line : lines_of(text)) {
        const auto words = words_of(line);
        if (words.size() >= 3 && words[2] == "gfs2")
            all.push_back({{"path", words[1]}, {"options", words.size() > 3 ? words[3] : ""}});
    }
    return all;
}

std::string filesystem_of(const std::string& path, const std::string& mountinfo) {
    std::string type;
    std::size_t longest = 0;
    for (const std::string& line : lines_of(mountinfo)) {
        // id parent MAJOR:MINOR root PATH options [fields] - TYPE source SUPER-OPTIONS
        const auto words = words_of(line);
        const auto dash = std::find(words.begin(), words.end(), "-");
        if (words.size() < 6 || dash == words.end() || dash + 1 == words.end())
            continue;
        const std::string& at = words[4];
        const bool below = at == "/" || (path.rfind(at, 0) == 0 &&
                                         (path.size() == at.size() || path[at.size()] == '/'));
        if (below && at.size() >= longest) { // a later mount on the same path hides the earlier
            longest = at.size();
            type = *(dash + 1);
        }
    }
    return type;
}

bool loads_gate_first(const std::string& modprobe_conf) {
    for (const std::string& line : lines_of(modprobe_conf)) {
        const auto words = words_of(line);
        if (words.size() > 2 && words[0] == "install" && words[1] == "gfs2" &&
            line.find("gfs2_gate") != std::string::npos)
            return true;
    }
    return false;
}

json grace_time_of_dropin(const std::string& text) {
    std::smatch found;
    static const std::regex wanted(
        "(?:^|\n)\\s*ExecStartPre=[^\n]*echo (\\d{1,9}) *>\\s*/proc/fs/nfsd/nfsv4gracetime");
    return std::regex_search(text, found, wanted) ? number(found[1]) : json(nullptr);
}

} // namespace grace::doctor
