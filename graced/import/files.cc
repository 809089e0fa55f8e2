// SPDX-License-Identifier: GPL-2.0-or-later
// The sources that are plain files and directories: v4recovery, rmtab, sm.
#include "graced/import/sources.hh"

#include "grace/record_key.hh"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>

namespace grace::import {

namespace {

std::string text_of(int code) {
    return std::strerror(code);
}

struct close_dir {
    void operator()(DIR* d) const { closedir(d); }
};
using directory = std::unique_ptr<DIR, close_dir>;

// `.` and `..` are not told; the error is errno's.
template <typename F>
result<void> each_entry(const std::string& path, F&& f) {
    const directory d(opendir(path.c_str()));
    if (!d)
        return fail(path + ": " + text_of(errno), errno);
    for (;;) {
        errno = 0;
        const dirent* e = readdir(d.get());
        if (!e)
            break;
        const std::string name = e->d_name;
        if (name != "." && name != "..")
            f(dirfd(d.get()), name);
    }
    if (errno)
        return fail(path + " cannot be read to its end: " + text_of(errno), errno);
    return {};
}

result<std::string> read_at(int dir, const std::string& name, std::size_t max) {
    // NONBLOCK: an open of a FIFO would wait for its writer.
    const int fd = openat(dir, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return fail(text_of(errno), errno);
    struct stat s {};
    std::string all;
    int code = 0;
    if (fstat(fd, &s) != 0) {
        code = errno;
    } else if (!S_ISREG(s.st_mode)) {
        close(fd);
        return fail("not a regular file", EINVAL);
    }
    char chunk[65536];
    while (code == 0 && all.size() <= max) {
        const ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = errno;
        if (got <= 0)
            break;
        all.append(chunk, static_cast<std::size_t>(got));
    }
    close(fd);
    if (code)
        return fail(text_of(code), code);
    if (all.size() > max)
        return fail("larger than " + std::to_string(max) + " bytes", EFBIG);
    return all;
}

bool hex_digits(std::string_view s) {
    return std::ranges::all_of(
        s, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// Up to the next `end`, which is taken away too.
std::string_view take_until(std::string_view& rest, char end) {
    const std::size_t at = rest.find(end);
    const std::string_view piece = rest.substr(0, at);
    rest = at == std::string_view::npos ? std::string_view{} : rest.substr(at + 1);
    return piece;
}

bool has_blank(std::string_view s) {
    return std::ranges::any_of(s, [](char c) {
        const auto u = static_cast<unsigned char>(c);
        return u <= 0x20 || u == 0x7f;
    });
}

} // namespace

void leave_out(std::vector<left_out>& all, std::string what, std::string why) {
    if (all.size() < max_left_out)
        all.push_back({std::move(what), std::move(why)});
    else if (all.size() == max_left_out)
        all.push_back({"(more)", "there are too many to name each"});
}

result<std::string> read_whole(const std::string& path, std::size_t max) {
    auto all = read_at(AT_FDCWD, path, max);
    if (!all)
        return fail(path + ": " + all.error().message, all.error().code);
    return all;
}

// --- v4recovery ---

result<recovery_directory> read_recovery_directory(const std::string& path) {
    recovery_directory r;
    auto read = each_entry(path, [&](int dir, const std::string& name) {
        struct stat s {};
        if (fstatat(dir, name.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(s.st_mode))
            return leave_out(r.without, name, "not a directory: nfsd makes one for each client");
        // HEXDIR_LEN: 32 digits and a NUL, fs/nfsd/nfs4recover.c nfs4_make_rec_clidname.
        if (name.size() != 32 || !hex_digits(name))
            return leave_out(r.without, name,
                             "not the name of a client's directory (32 hexadecimal digits)");
        if (r.clients.size() == max_clients)
            return leave_out(r.without, name, "there are too many");
        r.clients.push_back({"hash:" + name + std::string(1, '\0'), {}});
    });
    if (!read)
        return tl::unexpected(read.error());
    std::ranges::sort(r.clients, {}, &nfs4_client::name);
    return r;
}

// --- rmtab ---

// host:path:0xCOUNT, the count and its colon may be missing. mountd writes the colons of an IPv6
// address as semicolons. A path may hold colons, which mountd itself does not survive; here the
// count is what stands behind the last colon, if that is a number.
mount_table parse_rmtab(std::string_view text) {
    mount_table t;
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (line.empty())
            continue;
        const std::string whole(line.substr(0, 200));
        if (t.mounts.size() >= max_hosts) {
            leave_out(t.without, whole, "there are too many lines");
            continue;
        }
        if (line.find(':') == std::string_view::npos) {
            leave_out(t.without, whole, "not of the form HOST:PATH:COUNT");
            continue;
        }
        std::string host(take_until(line, ':'));
        std::ranges::replace(host, ';', ':');
        std::uint32_t count = 1;
        if (const std::size_t last = line.rfind(':'); last != std::string_view::npos) {
            std::string_view digits = line.substr(last + 1);
            const bool hex = digits.starts_with("0x");
            if (hex)
                digits.remove_prefix(2);
            std::uint32_t n = 0;
            const auto [end, code] =
                std::from_chars(digits.data(), digits.data() + digits.size(), n, hex ? 16 : 10);
            if (!digits.empty() && code == std::errc{} && end == digits.data() + digits.size()) {
                count = n;
                line = line.substr(0, last);
            }
        }
        if (!is_host_name(host))
            leave_out(t.without, whole, "no name or address of a host");
        else if (!is_mount_path(line))
            leave_out(t.without, whole, "no absolute path of 1024 characters at most");
        else if (count != 0) // 0: mountd's mark for a mount that has ended
            t.mounts.push_back({std::move(host), std::string(line), count});
    }
    return t;
}

result<mount_table> read_rmtab(const std::string& path) {
    const auto text = read_whole(path, max_file);
    if (!text)
        return tl::unexpected(text.error());
    return parse_rmtab(*text);
}

// --- sm ---

// "%08x %08x %08x %08x " address, program, version, procedure of who wants to know; 32 digits of
// its cookie; the host that is watched; the name that it knows this one by.
void parse_monitor_file(const std::string& file_name, std::string_view text, monitor_list& all) {
    bool any = false;
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (line.empty())
            continue;
        any = true;
        bool good = true;
        for (int field = 0; field < 5; ++field) {
            const std::string_view word = take_until(line, ' ');
            good = good && word.size() == (field == 4 ? 32U : 8U) && hex_digits(word);
        }
        const std::string_view host = take_until(line, ' ');
        while (line.starts_with(' '))
            line.remove_prefix(1);
        const std::string_view my_name = line;
        good = good && is_host_name(host) &&
               my_name.size() <= max_host_name && !has_blank(my_name);
        if (!good)
            leave_out(all.without, file_name, "a line in it is not one of statd's");
        else if (all.hosts.size() == max_hosts)
            leave_out(all.without, file_name, "there are too many");
        else
            all.hosts.push_back({std::string(host), std::string(my_name)});
    }
    if (!any)
        leave_out(all.without, file_name, "it is empty");
}

result<monitor_list> read_monitor_directory(const std::string& path) {
    monitor_list all;
    std::size_t files = 0;
    auto read = each_entry(path, [&](int dir, const std::string& name) {
        if (name.front() == '.') // statd does not look at those either
            return;
        if (++files > max_hosts)
            return leave_out(all.without, name, "there are too many");
        const auto text = read_at(dir, name, 1U << 20);
        if (!text)
            return leave_out(all.without, name, text.error().message);
        parse_monitor_file(name, *text, all);
    });
    if (!read)
        return tl::unexpected(read.error());
    std::ranges::sort(all.hosts, [](const monitored_host& a, const monitored_host& b) {
        return std::tie(a.host, a.my_name) < std::tie(b.host, b.my_name);
    });
    // clang 14 does not take std::ranges::unique of this library.
    all.hosts.erase(std::unique(all.hosts.begin(), all.hosts.end()), all.hosts.end());
    return all;
}

} // namespace grace::import
