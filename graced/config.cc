// SPDX-License-Identifier: GPL-2.0-or-later
// Reading the configuration: tidy the text, let CLI11's parser take it apart, check each value
// against one table of keys, then what belongs together.
#include "graced/config.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <system_error>
#include <tuple>
#include <utility>

namespace grace {

const char* to_string(daemon_state v) {
    return v == daemon_state::cluster ? "cluster" : "single";
}
const char* to_string(lock_backend v) {
    return v == lock_backend::dlm ? "dlm" : "embedded";
}
const char* to_string(gate_backend v) {
    switch (v) {
    case gate_backend::module:
        return "module";
    case gate_backend::embedded:
        return "embedded";
    case gate_backend::none:
        break;
    }
    return "none";
}
const char* to_string(log_level v) {
    switch (v) {
    case log_level::error:
        return "error";
    case log_level::warning:
        return "warning";
    case log_level::info:
        return "info";
    case log_level::debug:
        break;
    }
    return "debug";
}

namespace {

using strings = std::vector<std::string>;

// --- 1. tidying ---
//
// CLI11 2.1 passes over what it does not understand, and each of these has made a configuration
// mean something else without a word: `#` inside quotes ends the value; an array that opens at the
// end of its line is taken for the value "["; a space before a comma makes an empty element; a key
// that is given twice becomes a list. So the text is brought into the one shape that it reads
// right: a line for each value, no comments. This is also where line numbers come from.

struct place {
    std::string section, key;
    bool operator<(const place& o) const {
        return std::tie(section, key) < std::tie(o.section, o.key);
    }
};

class tidier {
public:
    static constexpr const char* unreadable = "?"; // a section whose header is no header
    std::string out;
    std::map<place, int> lines;          // where each key stands
    std::map<std::string, int> sections; // where each section stands
    std::vector<std::pair<int, std::string>> errors;

    void run(std::string_view text) {
        std::istringstream in{std::string(text)};
        for (std::string line; next(in, line);) {
            take(in, line);
        }
    }

private:
    std::string section_; // empty: before the first
    int number_ = 0;

    bool next(std::istream& in, std::string& line) {
        if (!std::getline(in, line)) {
            return false;
        }
        ++number_;
        return true;
    }
    void wrong(int line, std::string what) { errors.emplace_back(line, std::move(what)); }

    void take(std::istream& in, std::string line) {
        for (char& c : line) {
            if (c == '\t' || c == '\r') {
                c = ' ';
            } else if (std::iscntrl(static_cast<unsigned char>(c)) != 0) {
                wrong(number_, "a control character: the file must be plain text");
                c = ' ';
            }
        }
        CLI::detail::trim(line);
        if (line.empty() || line.front() == '#' || line.front() == ';') {
            return;
        }
        if (line.front() == '[') {
            take_section(line);
            return;
        }
        const auto equals = line.find('=');
        const std::string key = CLI::detail::trim_copy(line.substr(0, equals));
        const bool plain_key =
            !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
                return std::isalnum(c) != 0 || c == '_' || c == '-';
            });
        if (equals == std::string::npos || !plain_key) {
            wrong(number_, "`" + line + "` is neither [section], nor key = value, nor a # comment");
            return;
        }
        const int first = number_;
        std::string value;
        if (!take_value(in, line.substr(equals + 1), value)) {
            return;
        }
        if (value.empty()) {
            wrong(first, at(key) + ": there is no value (for an empty one write \"\")");
            return;
        }
        if (section_.empty()) {
            wrong(first, "`" + key + "` stands before the first [section]");
            return;
        }
        const auto [before, is_new] = lines.emplace(place{section_, key}, first);
        if (!is_new) {
            wrong(first, at(key) + " is given a second time (first in line " +
                             std::to_string(before->second) +
                             "); several values go into one list: [\"a\", \"b\"]");
            return;
        }
        out += key + " = " + value + "\n";
    }

    [[nodiscard]] std::string at(const std::string& key) const {
        return (section_.empty() ? "" : "[" + section_ + "] ") + key;
    }

    void take_section(std::string line) {
        const auto close = line.find(']');
        const std::string rest =
            close == std::string::npos ? "" : CLI::detail::trim_copy(line.substr(close + 1));
        section_ =
            close == std::string::npos ? "" : CLI::detail::trim_copy(line.substr(1, close - 1));
        if (section_.empty() || section_.front() == '[' || (!rest.empty() && rest.front() != '#')) {
            wrong(number_, "`" + line + "` is not a section: write [name] alone in its line");
            section_ = unreadable;
        }
        // `[server."vs1"]` is fine in TOML, and CLI11 takes the quotes off as well.
        section_.erase(std::remove(section_.begin(), section_.end(), '"'), section_.end());
        const auto [before, is_new] = sections.emplace(section_, number_);
        if (!is_new && section_ != unreadable) {
            wrong(number_, "[" + section_ + "] is opened a second time (first in line " +
                               std::to_string(before->second) + ")");
        }
        out += "[" + section_ + "]\n";
    }

    // The value after `=`, over as many lines as its list has, without comments and stray spaces.
    bool take_value(std::istream& in, std::string rest, std::string& value) {
        const int first = number_;
        bool list = false;
        bool closed = false;
        for (;;) {
            char quote = 0;
            bool after_quote = false;
            for (std::size_t i = 0; i < rest.size(); ++i) {
                const char c = rest[i];
                if (quote != 0) {
                    value += c;
                    if (c == quote) {
                        quote = 0;
                        after_quote = true;
                    } else if (c == '\\') {
                        wrong(number_,
                              "a backslash inside quotes has no meaning here: use the other "
                              "kind of quotes, or leave it out");
                        return false;
                    }
                    continue;
                }
                if (c == '#') {
                    break;
                }
                if (closed && c != ' ') {
                    wrong(number_, "text after the list's closing ]");
                    return false;
                }
                if (c == '[' && value.empty()) {
                    list = true;
                    value = "[";
                    continue;
                }
                if (c == ' ' || c == ',') {
                    // one separator, without the spaces around it
                    const char last = value.empty() ? '[' : value.back();
                    if (c == ',') {
                        while (!value.empty() && value.back() == ' ') {
                            value.pop_back();
                        }
                        if (value.empty() || value.back() == '[' || value.back() == ',') {
                            wrong(number_, "a comma with nothing before it");
                            return false;
                        }
                        value += ',';
                        after_quote = false;
                    } else if (last != '[' && last != ',' && last != ' ') {
                        value += ' ';
                    }
                    continue;
                }
                if (list && c == ']') {
                    while (value.back() == ' ' || value.back() == ',') {
                        value.pop_back();
                    }
                    value += ']';
                    closed = true;
                    continue;
                }
                if (after_quote) {
                    wrong(number_, "text after a closing quote: separate the values by commas");
                    return false;
                }
                if ((c == '"' || c == '\'') &&
                    (value.empty() || value.back() == '[' || value.back() == ',')) {
                    quote = c;
                } else if (c == '"' || c == '\'' || c == '`') {
                    wrong(number_, "a quote in the middle of a value: quote the whole value");
                    return false;
                }
                value += c;
            }
            if (quote != 0) {
                wrong(number_, "a quote is not closed");
                return false;
            }
            if (!list || closed) {
                break;
            }
            value += ' ';
            if (!next(in, rest)) {
                wrong(first, "the list that opens here is not closed by ]");
                return false;
            }
            std::replace_if(
                rest.begin(), rest.end(), [](char c) { return c == '\t' || c == '\r'; }, ' ');
            while (!value.empty() && value.back() == ' ' && value.size() > 1 &&
                   (value[value.size() - 2] == '[' || value[value.size() - 2] == ',')) {
                value.pop_back();
            }
        }
        CLI::detail::trim(value);
        if (!list && value.size() > 1 && value.back() == ',') {
            wrong(first, "the value ends with a comma");
            return false;
        }
        return true;
    }
};

// --- 2. kinds of values. Each says no by returning false; what is allowed stands in the table. ---

bool number(const std::string& s, std::uint64_t low, std::uint64_t high, std::uint64_t& v) {
    std::uint64_t n = 0;
    const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), n);
    if (code != std::errc{} || end != s.data() + s.size() || n < low || n > high) {
        return false;
    }
    v = n;
    return true;
}

bool number32(const std::string& s, std::uint32_t low, std::uint32_t high, std::uint32_t& v) {
    std::uint64_t n = 0;
    if (!number(s, low, high, n)) {
        return false;
    }
    v = static_cast<std::uint32_t>(n);
    return true;
}

bool take_seconds(const std::string& s, std::uint64_t low, std::uint64_t high,
                  std::chrono::seconds& v) {
    std::uint64_t n = 0;
    if (!number(s, low, high, n)) {
        return false;
    }
    v = std::chrono::seconds(n);
    return true;
}

bool milliseconds_or_auto(const std::string& s, std::uint64_t low, std::uint64_t high,
                          std::optional<std::chrono::milliseconds>& v) {
    if (s == "auto") {
        v.reset();
        return true;
    }
    std::uint64_t n = 0;
    if (!number(s, low, high, n)) {
        return false;
    }
    v = std::chrono::milliseconds(n);
    return true;
}

template <typename Enum, std::size_t N>
bool one_of(const std::string& s, const std::array<Enum, N>& all, Enum& v) {
    for (const Enum e : all) {
        if (s == to_string(e)) {
            v = e;
            return true;
        }
    }
    return false;
}

bool word(const std::string& s, std::size_t longest, std::string_view extra, std::string& v) {
    if (s.empty() || s.size() > longest || !std::all_of(s.begin(), s.end(), [&](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                   extra.find(c) != std::string_view::npos;
        })) {
        return false;
    }
    v = s;
    return true;
}

bool absolute(const std::string& s, std::size_t longest, std::string& v) {
    if (s.size() < 2 || s.size() > longest || s.front() != '/') {
        return false;
    }
    v = s;
    return true;
}
constexpr std::size_t longest_path = 4000;
constexpr std::size_t longest_socket = 107; // sun_path

bool dns_label(const std::string& s) {
    return !s.empty() && s.size() <= 64 && s.front() != '-' && s.back() != '-' &&
           std::all_of(s.begin(), s.end(),
                       [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; });
}

bool cidr(const std::string& s) {
    const auto slash = s.find('/');
    if (slash == std::string::npos) {
        return false;
    }
    const std::string address = s.substr(0, slash);
    std::array<unsigned char, sizeof(in6_addr)> raw{};
    std::uint32_t prefix = 0;
    if (::inet_pton(AF_INET, address.c_str(), raw.data()) == 1) {
        return number32(s.substr(slash + 1), 1, 32, prefix);
    }
    return ::inet_pton(AF_INET6, address.c_str(), raw.data()) == 1 &&
           number32(s.substr(slash + 1), 1, 128, prefix);
}

// `/path host(options)` as in exports(5). The options themselves are exportfs's business.
bool export_line(const std::string& s) {
    const auto space = s.find(' ');
    if (s.empty() || s.front() != '/' || space == std::string::npos || space + 1 >= s.size()) {
        return false;
    }
    return std::count(s.begin(), s.end(), '(') == std::count(s.begin(), s.end(), ')');
}

// --- 3. the table of keys ---

template <typename Target>
struct key_rule {
    const char* name;
    const char* allowed; // completes "must be …"
    bool list;
    // Takes all the values; false: not allowed.
    std::function<bool(Target&, const strings&)> set;
};

template <typename Target>
using rules = std::vector<key_rule<Target>>;

template <typename Target>
key_rule<Target> one(const char* name, const char* allowed,
                     std::function<bool(Target&, const std::string&)> set) {
    return {name, allowed, false,
            [set = std::move(set)](Target& t, const strings& v) { return set(t, v.front()); }};
}

using text = const std::string&;

const std::map<std::string, rules<config>>& sections() {
    static const std::map<std::string, rules<config>> table = {
        {"graced",
         {one<config>("state", "cluster or single",
                      [](config& c, text s) {
                          return one_of(s, std::array{daemon_state::cluster, daemon_state::single},
                                        c.graced.state);
                      }),
          one<config>("group", "a word of up to 100 letters, digits and . _ : -",
                      [](config& c, text s) { return word(s, 100, "._:-", c.graced.group); }),
          one<config>("name", "a node name of up to 255 letters, digits and . _ -",
                      [](config& c, text s) { return word(s, 255, "._-", c.graced.name); }),
          one<config>("runtime_dir", "an absolute path of up to 80 characters",
                      [](config& c, text s) { return absolute(s, 80, c.graced.runtime_dir); }),
          one<config>("ipc_name", "a word of up to 48 letters, digits and . _ -",
                      [](config& c, text s) { return word(s, 48, "._-", c.graced.ipc_name); }),
          one<config>("log_level", "error, warning, info or debug",
                      [](config& c, text s) {
                          return one_of(s,
                                        std::array{log_level::error, log_level::warning,
                                                   log_level::info, log_level::debug},
                                        c.graced.level);
                      }),
          one<config>("log", "stderr, journal or the absolute path of a file",
                      [](config& c, text s) {
                          if (s == "stderr" || s == "journal") {
                              c.graced.log = s;
                              return true;
                          }
                          return absolute(s, longest_path, c.graced.log);
                      })}},
        {"grace",
         {one<config>("period", "a whole number of seconds from 10 to 3600",
                      [](config& c, text s) { return take_seconds(s, 10, 3600, c.grace.period); }),
          one<config>(
              "orphan_timeout", "a whole number of seconds from 10 to 86400",
              [](config& c, text s) { return take_seconds(s, 10, 86400, c.grace.orphan_timeout); }),
          one<config>(
              "daemon_timeout", "a whole number of seconds from 10 to 86400",
              [](config& c, text s) { return take_seconds(s, 10, 86400, c.grace.daemon_timeout); }),
          // The upper end: an unanswered GraceStart hangs nfsd's administration in every namespace.
          one<config>(
              "grace_start_hold", "a whole number of seconds from 0 to 60",
              [](config& c, text s) { return take_seconds(s, 0, 60, c.grace.grace_start_hold); }),
          {"nodes_without_gfs2", "a list of corosync node ids, such as \"3,4\"", true,
           [](config& c, const strings& values) {
               for (const std::string& value : values) {
                   for (std::string id : CLI::detail::split(value, ',')) {
                       std::uint32_t n = 0;
                       CLI::detail::trim(id);
                       if (id.empty() && value.empty()) {
                           continue;
                       }
                       if (!number32(id, 1, std::numeric_limits<std::uint32_t>::max(), n)) {
                           return false;
                       }
                       c.grace.nodes_without_gfs2.insert(n);
                   }
               }
               return true;
           }}}},
        {"permit",
         {one<config>(
              "ttl", "auto or a whole number of milliseconds from 100 to 60000",
              [](config& c, text s) { return milliseconds_or_auto(s, 100, 60'000, c.permit.ttl); }),
          one<config>("heartbeat", "auto or a whole number of milliseconds from 20 to 20000",
                      [](config& c, text s) {
                          return milliseconds_or_auto(s, 20, 20'000, c.permit.heartbeat);
                      })}},
        {"store",
         {one<config>("path", "the absolute path of a file on a local disk",
                      [](config& c, text s) {
                          return s.back() != '/' && absolute(s, longest_path, c.store.path);
                      }),
          one<config>(
              "stall_timeout", "a whole number of seconds from 1 to 300",
              [](config& c, text s) { return take_seconds(s, 1, 300, c.store.stall_timeout); }),
          one<config>("history", "a whole number of graces from 0 to 10000",
                      [](config& c, text s) { return number32(s, 0, 10'000, c.store.history); })}},
        {"locks",
         {one<config>("backend", "dlm or embedded",
                      [](config& c, text s) {
                          return one_of(s, std::array{lock_backend::dlm, lock_backend::embedded},
                                        c.locks.backend);
                      }),
          one<config>(
              "socket", "an absolute path of up to 107 characters",
              [](config& c, text s) { return absolute(s, longest_socket, c.locks.socket); }),
          {"keeper", "a program's absolute path, or a list of it and its arguments", true,
           [](config& c, const strings& values) {
               if (values.empty() || values.front().empty() || values.front().front() != '/') {
                   return false;
               }
               c.locks.keeper = values;
               return true;
           }}}},
        {"gate",
         {one<config>("backend", "module, embedded or none",
                      [](config& c, text s) {
                          return one_of(s,
                                        std::array{gate_backend::module, gate_backend::embedded,
                                                   gate_backend::none},
                                        c.gate.backend);
                      }),
          one<config>(
              "socket", "an absolute path of up to 107 characters",
              [](config& c, text s) { return absolute(s, longest_socket, c.gate.socket); })}},
        {"cluster",
         {one<config>("dlm_group", "\"\" or a group name of up to 127 letters, digits and . _ : -",
                      [](config& c, text s) {
                          if (s.empty()) {
                              c.cluster.dlm_group.clear();
                              return true;
                          }
                          return word(s, 127, "._:-", c.cluster.dlm_group);
                      }),
          one<config>("fence_command", "\"\" or a command in one pair of quotes",
                      [](config& c, text s) {
                          c.cluster.fence_command = s;
                          return s.size() <= longest_path;
                      })}},
    };
    return table;
}

const rules<server_config>& server_keys() {
    using server = server_config;
    static const rules<server> table = {
        {"addresses", "a list of addresses with their prefix lengths, such as [\"192.0.2.10/24\"]",
         true,
         [](server& s, const strings& values) {
             s.addresses = values;
             return std::all_of(values.begin(), values.end(), cidr) && values.size() <= 64;
         }},
        one<server>("interface", "a network interface's name of up to 15 characters",
                    [](server& s, text v) { return word(v, 15, "._-@", s.interface); }),
        {"exports",
         "a list of lines of exports(5), each in quotes, such as [\"/srv/data *(rw,fsid=0)\"]",
         true,
         [](server& s, const strings& values) {
             s.exports = values;
             return std::all_of(values.begin(), values.end(), export_line) && values.size() <= 1024;
         }},
        one<server>("threads", "a whole number from 1 to 1024",
                    [](server& s, text v) { return number32(v, 1, 1024, s.threads); }),
        one<server>("cld_version", "0, 1 or 2",
                    [](server& s, text v) { return number32(v, 0, 2, s.cld_version); }),
        {"nfs_versions", "a list of 3, 4.0, 4.1, 4.2, such as [\"4.1\", \"4.2\"]", true,
         [](server& s, const strings& values) {
             s.nfs_versions = values;
             return !values.empty() && std::all_of(values.begin(), values.end(), [](text v) {
                 return v == "3" || v == "4.0" || v == "4.1" || v == "4.2";
             });
         }},
        one<server>("grace_time", "auto or a whole number of seconds from 10 to 3600",
                    [](server& s, text v) {
                        s.grace_time = 0;
                        return v == "auto" || number32(v, 10, 3600, s.grace_time);
                    }),
        one<server>("lease_time", "auto or a whole number of seconds from 10 to 3600",
                    [](server& s, text v) {
                        s.lease_time = 0;
                        return v == "auto" || number32(v, 10, 3600, s.lease_time);
                    }),
    };
    return table;
}

// --- 4. errors ---

std::size_t distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) {
        row[j] = j;
    }
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
        }
    }
    return row.back();
}

std::string nearest(const std::string& wrong, const strings& known) {
    std::string best;
    std::size_t least = std::max<std::size_t>(2, wrong.size() / 3) + 1;
    for (const std::string& k : known) {
        if (const std::size_t d = distance(wrong, k); d < least) {
            least = d;
            best = k;
        }
    }
    return best;
}

std::string joined(const strings& parts, const char* between) {
    std::string all;
    for (const std::string& p : parts) {
        all += (all.empty() ? "" : between) + p;
    }
    return all;
}

std::string suggestion(const std::string& wrong, const strings& known) {
    const std::string best = nearest(wrong, known);
    return best.empty() ? "; known are " + joined(known, ", ") : "; did you mean `" + best + "`?";
}

class reader {
public:
    reader(std::string file, std::string_view content)
        : file_(std::move(file)) {
        tidy_.run(content);
        for (auto& [line, what] : tidy_.errors) {
            wrong(line, what);
        }
        config_.file = file_;
    }

    tl::expected<config, config_errors> run() {
        check_sections();
        std::istringstream in(tidy_.out);
        CLI::ConfigTOML parser;
        parser.comment('\x01'); // comments are gone already; `#` in a quoted value is text
        try {
            for (const CLI::ConfigItem& item : parser.from_config(in)) {
                take(item);
            }
        } catch (const CLI::Error& e) {
            wrong(0, e.what());
        }
        if (errors_.empty()) {
            check_together();
        }
        if (!errors_.empty()) {
            std::stable_sort(errors_.begin(), errors_.end(),
                             [](const auto& a, const auto& b) { return a.first < b.first; });
            config_errors all{file_, {}};
            for (auto& [line, what] : errors_) {
                all.messages.push_back(file_ + (line > 0 ? ":" + std::to_string(line) : "") + ": " +
                                       what);
            }
            return tl::unexpected(std::move(all));
        }
        return std::move(config_);
    }

private:
    std::string file_;
    tidier tidy_;
    config config_;
    std::vector<std::pair<int, std::string>> errors_;
    bool backend_given_ = false;
    bool dlm_group_given_ = false;
    bool gate_given_ = false;

    void wrong(int line, std::string what) { errors_.emplace_back(line, std::move(what)); }

    [[nodiscard]] int line_of(const std::string& section, const std::string& key) const {
        const auto found = tidy_.lines.find({section, key});
        return found == tidy_.lines.end() ? 0 : found->second;
    }

    static bool is_server(const std::string& section) { return section.rfind("server.", 0) == 0; }

    void check_sections() {
        strings known;
        for (const auto& [name, keys] : sections()) {
            known.push_back(name);
        }
        known.emplace_back("server.NAME");
        std::map<std::string, std::string> folded; // DNS does not tell Vs1 from vs1
        for (const auto& [section, line] : tidy_.sections) {
            if (is_server(section)) {
                const std::string name = section.substr(7);
                if (!dns_label(name)) {
                    wrong(line,
                          "[" + section + "]: `" + name +
                              "` is no server name; it must be a DNS label: letters, digits and "
                              "-, at most 64, not starting or ending with -");
                    continue;
                }
                const auto [other, is_new] = folded.emplace(CLI::detail::to_lower(name), name);
                if (!is_new) {
                    wrong(line, "[" + section + "]: the same name as [server." + other->second +
                                    "] but for upper and lower case");
                }
                config_.servers[name].name = name;
            } else if (!sections().contains(section) && section != tidier::unreadable) {
                // [servers.vs1], [server]: the name is the user's own, so compare what is before
                // it.
                const std::string kind = section.substr(0, section.find('.'));
                wrong(line,
                      "[" + section + "] is not a known section" +
                          (nearest(kind, {"server"}).empty() ? suggestion(section, known)
                                                             : "; did you mean `server.NAME`?"));
            }
        }
        if (config_.servers.size() > 1024) {
            wrong(0, std::to_string(config_.servers.size()) + " servers; at most 1024 are allowed");
        }
    }

    void take(const CLI::ConfigItem& item) {
        if (item.name == "++" || item.name == "--" || item.parents.empty()) {
            return; // a section's begin and end
        }
        const std::string section = joined(item.parents, ".");
        if (is_server(section)) {
            const auto server = config_.servers.find(section.substr(7));
            if (server != config_.servers.end()) {
                apply(server_keys(), server->second, section, item);
            }
        } else if (const auto keys = sections().find(section); keys != sections().end()) {
            backend_given_ |= section == "locks" && item.name == "backend";
            dlm_group_given_ |= section == "cluster" && item.name == "dlm_group";
            gate_given_ |= section == "gate" && item.name == "socket";
            apply(keys->second, config_, section, item);
        }
    }

    template <typename Target>
    void apply(const rules<Target>& table, Target& target, const std::string& section,
               const CLI::ConfigItem& item) {
        const int line = line_of(section, item.name);
        const auto rule = std::find_if(table.begin(), table.end(),
                                       [&](const auto& r) { return item.name == r.name; });
        if (rule == table.end()) {
            strings known;
            for (const auto& r : table) {
                known.emplace_back(r.name);
            }
            wrong(line, "[" + section + "] has no key `" + item.name + "`" +
                            suggestion(item.name, known));
            return;
        }
        const std::string shown =
            "[" + section + "] " + item.name + " = " + joined(item.inputs, ", ");
        if (!rule->list && item.inputs.size() != 1) {
            wrong(line, shown + ": must be " + rule->allowed +
                            (item.inputs.empty() ? ""
                                                 : " (" + std::to_string(item.inputs.size()) +
                                                       " values are given; quote a value that "
                                                       "holds spaces or commas)"));
            return;
        }
        if (!rule->set(target, item.inputs)) {
            wrong(line, shown + ": must be " + rule->allowed);
        }
    }

    // What one key alone cannot tell.
    void check_together() {
        config& c = config_;
        if (c.graced.state == daemon_state::single) {
            if (backend_given_ && c.locks.backend == lock_backend::dlm) {
                wrong(line_of("locks", "backend"), "[locks] backend = dlm does not go with "
                                                   "[graced] state = single, which knows no "
                                                   "cluster: leave it out");
            }
            c.locks.backend = lock_backend::embedded;
            if (dlm_group_given_ && !c.cluster.dlm_group.empty()) {
                wrong(line_of("cluster", "dlm_group"),
                      "[cluster] dlm_group = " + c.cluster.dlm_group +
                          " does not go with [graced] state = single: leave it out");
            }
            c.cluster.dlm_group.clear();
        }
        if (c.gate.backend == gate_backend::embedded && c.gate.socket.empty()) {
            wrong(line_of("gate", "backend"),
                  "[gate] backend = embedded needs a key `socket` too: where the stand-in for the "
                  "kernel listens");
        }
        if (c.gate.backend != gate_backend::embedded && gate_given_) {
            wrong(line_of("gate", "socket"),
                  "[gate] socket goes with backend = embedded only: leave it out");
        }
        if (c.permit.ttl && c.permit.heartbeat && *c.permit.heartbeat * 3 > *c.permit.ttl) {
            wrong(line_of("permit", "heartbeat"),
                  "[permit] heartbeat = " + std::to_string(c.permit.heartbeat->count()) +
                      ": must be at most a third of ttl (" + std::to_string(c.permit.ttl->count()) +
                      " ms), so that one lost heartbeat does not close the gate");
        }
        if (c.gate.backend == gate_backend::none) {
            c.warnings.emplace_back(
                "[gate] backend = none: nothing holds back local programs nor other "
                "NFS servers during grace");
        }
        if (c.graced.state == daemon_state::cluster && c.locks.backend == lock_backend::embedded) {
            c.warnings.emplace_back("[locks] backend = embedded: for tests only, no fencing stands "
                                    "behind its locks");
        }
        std::map<std::string, std::string> owners;
        for (const auto& [name, server] : c.servers) {
            check_server(name, server, owners);
        }
    }

    void check_server(const std::string& name, const server_config& server,
                      std::map<std::string, std::string>& owners) {
        const std::string section = "server." + name;
        const std::string shown = "[" + section + "]";
        for (const std::string& address : server.addresses) {
            const std::string bare = canonical(address);
            const auto [other, is_new] = owners.emplace(bare, name);
            if (!is_new) {
                wrong(line_of(section, "addresses"),
                      shown + " addresses: " + bare +
                          (other->second == name
                               ? " is given twice"
                               : " belongs to [server." + other->second +
                                     "] already; a server has its own addresses"));
            }
        }
        if (!server.addresses.empty() && server.interface.empty()) {
            wrong(line_of(section, "addresses"),
                  shown +
                      " has addresses but no `interface`: which interface of the node they are to "
                      "stand on");
        }
        for (const std::string& line : server.exports) {
            if (line.find("fsid=") == std::string::npos) {
                config_.warnings.push_back(shown + " exports: `" + line +
                                           "` has no fsid=: file handles may become stale when the "
                                           "server moves to another "
                                           "node");
            }
        }
        const std::uint32_t time = nfsd_grace_time(config_, server);
        const auto longest = 2 * config_.grace.period.count();
        if (time <= longest) {
            config_.warnings.push_back(
                shown + " grace_time: nfsd's own grace (" + std::to_string(time) +
                " s) may end before graced's longest one (twice the [grace] period: " +
                std::to_string(longest) + " s); clients that come later lose their locks");
        }
    }

    static std::string canonical(const std::string& address) {
        const std::string bare = address.substr(0, address.find('/'));
        std::array<unsigned char, sizeof(in6_addr)> raw{};
        std::array<char, INET6_ADDRSTRLEN> out{};
        if (::inet_pton(AF_INET6, bare.c_str(), raw.data()) == 1 &&
            ::inet_ntop(AF_INET6, raw.data(), out.data(), out.size()) != nullptr) {
            return out.data();
        }
        return bare;
    }
};

std::string shell_quoted(const std::string& s) {
    std::string out = "'";
    for (const char c : s) {
        if (c == '\'') {
            out += "'\\''";
        } else {
            out += c;
        }
    }
    return out + "'";
}

} // namespace

std::string config_errors::text() const {
    std::string all;
    for (const std::string& m : messages) {
        all += m + "\n";
    }
    return all;
}

tl::expected<config, config_errors> parse_config(std::string_view content,
                                                 const std::string& file) {
    return reader(file, content).run();
}

tl::expected<config, config_errors> load_config(const std::string& path, bool required) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        const int code = errno;
        if (code == ENOENT && !required) {
            config defaults;
            defaults.warnings.push_back(path + " does not exist: every value is the default");
            return defaults;
        }
        return tl::unexpected(config_errors{
            path,
            {path + ": cannot be read: " + std::generic_category().message(code) +
             (code == ENOENT ? "; copy graced.conf from the examples, or name the file" : "")}});
    }
    // Bounded: the name may be a device by mistake.
    constexpr std::size_t largest = 4U << 20;
    std::string content(largest + 1, '\0');
    in.read(content.data(), static_cast<std::streamsize>(content.size()));
    content.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
    if (in.bad() || content.size() > largest) {
        return tl::unexpected(config_errors{
            path,
            {path + (in.bad() ? ": cannot be read (is it a directory?)" : ": larger than 4 MiB")}});
    }
    return parse_config(content, path);
}

std::uint32_t nfsd_grace_time(const config& c, const server_config& s) {
    if (s.grace_time != 0) {
        return s.grace_time;
    }
    // 60 s more: nfsd starts some time before graced's count begins, and after a slow start of
    // rpc.nfsd.
    return static_cast<std::uint32_t>(
        std::min<std::int64_t>(3600, 2 * c.grace.period.count() + 60));
}

nlohmann::json to_json(const config& c, const server_config& s) {
    return {{"name", s.name},
            {"addresses", s.addresses},
            {"interface", s.interface},
            {"exports", s.exports},
            {"threads", s.threads},
            {"cld_version", s.cld_version},
            {"nfs_versions", s.nfs_versions},
            {"grace_time", nfsd_grace_time(c, s)},
            {"lease_time", s.lease_time == 0 ? nlohmann::json() : nlohmann::json(s.lease_time)}};
}

nlohmann::json to_json(const config& c) {
    const auto milliseconds = [](const std::optional<std::chrono::milliseconds>& v) {
        return v ? nlohmann::json(v->count()) : nlohmann::json("auto");
    };
    nlohmann::json servers = nlohmann::json::object();
    for (const auto& [name, server] : c.servers) {
        servers[name] = to_json(c, server);
    }
    return {
        {"graced",
         {{"state", to_string(c.graced.state)},
          {"group", c.graced.group},
          {"name", c.graced.name.empty() ? nlohmann::json() : nlohmann::json(c.graced.name)},
          {"runtime_dir", c.graced.runtime_dir},
          {"ipc_name", c.graced.ipc_name},
          {"log_level", to_string(c.graced.level)},
          {"log", c.graced.log}}},
        {"grace",
         {{"period", c.grace.period.count()},
          {"orphan_timeout", c.grace.orphan_timeout.count()},
          {"daemon_timeout", c.grace.daemon_timeout.count()},
          {"grace_start_hold", c.grace.grace_start_hold.count()},
          {"nodes_without_gfs2", c.grace.nodes_without_gfs2}}},
        {"permit",
         {{"ttl", milliseconds(c.permit.ttl)}, {"heartbeat", milliseconds(c.permit.heartbeat)}}},
        {"store",
         {{"path", c.store.path},
          {"stall_timeout", c.store.stall_timeout.count()},
          {"history", c.store.history}}},
        {"locks",
         {{"backend", to_string(c.locks.backend)},
          {"socket", c.locks.socket},
          {"keeper", c.locks.keeper}}},
        {"gate", {{"backend", to_string(c.gate.backend)}, {"socket", c.gate.socket}}},
        {"cluster",
         {{"dlm_group", c.cluster.dlm_group}, {"fence_command", c.cluster.fence_command}}},
        {"server", servers},
        {"file", c.file},
        {"warnings", c.warnings}};
}

std::string to_shell(const config& c, const server_config& s) {
    std::string out;
    const auto set = [&](const char* name, const std::string& value) {
        out += std::string("GRACED_") + name + "=" + shell_quoted(value) + "\n";
    };
    set("SERVER", s.name);
    set("ADDRESSES", joined(s.addresses, "\n"));
    set("INTERFACE", s.interface);
    set("EXPORTS", joined(s.exports, "\n"));
    set("THREADS", std::to_string(s.threads));
    set("CLD_VERSION", std::to_string(s.cld_version));
    set("NFS_VERSIONS", joined(s.nfs_versions, "\n"));
    set("GRACE_TIME", std::to_string(nfsd_grace_time(c, s)));
    set("LEASE_TIME", s.lease_time == 0 ? "" : std::to_string(s.lease_time));
    set("RUNTIME_DIR", c.graced.runtime_dir);
    set("IPC_NAME", c.graced.ipc_name);
    return out;
}

} // namespace grace
