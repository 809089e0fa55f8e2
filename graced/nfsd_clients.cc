// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/nfsd_clients.hh"

#include "graced/hex.hh"
#include "graced/import/sources.hh"

#include <charconv>
#include <filesystem>

namespace grace {

namespace {

// seq_quote_mem: in quotes; a quote, a backslash and what is not printable as \xHH.
std::optional<std::string> unquoted(std::string_view s) {
    if (s.size() < 2 || s.front() != '"' || s.back() != '"')
        return {};
    s = s.substr(1, s.size() - 2);
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] != '\\') {
            out += s[i];
            continue;
        }
        const auto byte = s.substr(i).size() >= 4 && s[i + 1] == 'x' ? from_hex(s.substr(i + 2, 2))
                                                                     : std::nullopt;
        if (!byte)
            return {};
        out += *byte;
        i += 3;
    }
    return out;
}

template <typename T>
std::optional<T> number(std::string_view s) {
    T n{};
    const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), n);
    if (code != std::errc{} || end != s.data() + s.size())
        return {};
    return n;
}

} // namespace

std::optional<nfsd_client> parse_client_info(std::string_view text) {
    nfsd_client c;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        const std::size_t colon = line.find(": ");
        if (colon == std::string_view::npos)
            continue;
        const std::string_view key = line.substr(0, colon), value = line.substr(colon + 2);
        if (key == "name")
            c.name = unquoted(value).value_or("");
        else if (key == "address")
            c.address = unquoted(value).value_or("");
        else if (key == "status")
            c.status = value.substr(0, 32);
        else if (key == "minor version")
            c.minor_version = number<unsigned>(value);
        else if (key == "seconds from last renew")
            c.last_renew = number<std::int64_t>(value);
    }
    if (c.name.empty())
        return {};
    return c;
}

namespace {

template <typename F>
void each_client(const std::string& nfsd_fs, F look) {
    std::error_code code;
    for (std::filesystem::directory_iterator i(nfsd_fs + "/clients", code), end; !code && i != end;
         i.increment(code))
        if (auto c = read_nfsd_client(i->path().string())) // else it has just gone
            look(i->path().string(), std::move(*c));
}

} // namespace

std::optional<nfsd_client> read_nfsd_client(const std::string& directory) {
    const auto text = import::read_whole(directory + "/info", 65536);
    return text ? parse_client_info(*text) : std::nullopt;
}

std::vector<std::string> find_nfsd_client(const std::string& nfsd_fs, std::string_view name) {
    std::vector<std::string> found;
    each_client(nfsd_fs, [&](std::string directory, const nfsd_client& c) {
        if (c.name == name)
            found.push_back(std::move(directory));
    });
    return found;
}

std::map<std::string, nfsd_client> read_nfsd_clients(const std::string& nfsd_fs) {
    std::map<std::string, nfsd_client> all;
    each_client(nfsd_fs, [&](const std::string&, nfsd_client c) {
        auto [there, fresh] = all.try_emplace(c.name, c);
        if (!fresh && c.status == "confirmed")
            there->second = std::move(c);
    });
    return all;
}

} // namespace grace
