// SPDX-License-Identifier: LGPL-2.1-or-later
#include "grace/record_key.hh"

#include <algorithm>

namespace grace {
namespace {

constexpr char prefix = '\0', nlm_mark = 'l', mount_mark = 'm';

template <typename Int>
std::string encode(Int n) {
    std::string out;
    for (std::size_t i = 0; i < sizeof n; ++i)
        out += static_cast<char>(n >> (8 * i));
    return out;
}

template <typename Int>
Int decode(std::string_view in) {
    Int n = 0;
    if (in.size() == sizeof n)
        for (std::size_t i = 0; i < sizeof n; ++i)
            n |= static_cast<Int>(Int{static_cast<unsigned char>(in[i])} << (8 * i));
    return n;
}

bool is_control(unsigned char c) {
    return c < 0x20 || c == 0x7f;
}

} // namespace

std::string nfs4_key(std::string_view owner) {
    std::string key(owner);
    if (!key.empty() && key.front() == prefix)
        key.insert(key.begin(), prefix);
    return key;
}

std::string nlm_key(std::string_view host) {
    return std::string{prefix, nlm_mark}.append(host);
}

std::string mount_key(std::string_view client, std::string_view path) {
    return std::string{prefix, mount_mark}.append(client).append(1, '\0').append(path);
}

record_kind kind_of(std::string_view key) {
    if (key.size() < 2 || key[0] != prefix)
        return record_kind::nfs4;
    return key[1] == nlm_mark     ? record_kind::nlm
           : key[1] == mount_mark ? record_kind::mount
                                  : record_kind::nfs4;
}

std::string_view client_in(std::string_view key) {
    switch (kind_of(key)) {
    case record_kind::nlm:
        return key.substr(2);
    case record_kind::mount:
        return key.substr(2, key.find('\0', 2) - 2);
    case record_kind::nfs4:
        break;
    }
    return key.size() >= 2 && key[0] == prefix && key[1] == prefix ? key.substr(1) : key;
}

std::string_view path_in(std::string_view key) {
    const auto end = key.find('\0', 2);
    return kind_of(key) != record_kind::mount || end == key.npos ? std::string_view()
                                                                 : key.substr(end + 1);
}

bool is_host_name(std::string_view s) {
    // As statd: no '/' and no '.' in front, for it becomes the name of a file (CERT CA-96.09).
    return !s.empty() && s.size() <= max_host_name && s.front() != '.' && s.front() != '-' &&
           std::ranges::none_of(s, [](unsigned char c) {
               return is_control(c) || c == ' ' || c == '/' || c >= 0x80;
           });
}

bool is_mount_path(std::string_view s) {
    return s.starts_with('/') && s.size() <= max_mount_path &&
           std::ranges::none_of(s, is_control);
}

const char* to_string(record_kind k) {
    switch (k) {
    case record_kind::nfs4:
        return "nfs4";
    case record_kind::nlm:
        return "nlm";
    case record_kind::mount:
        return "mount";
    }
    return "?";
}

std::string encode_since(epoch e) {
    return encode(e.value);
}

epoch since_of(const record& r) {
    const epoch since{decode<std::uint64_t>(r.princhash)};
    return since ? since : r.at;
}

std::string encode_mount_count(std::uint32_t n) {
    return encode(n);
}

std::uint32_t mount_count(const record& r) {
    return decode<std::uint32_t>(r.princhash);
}

} // namespace grace
