// SPDX-License-Identifier: GPL-2.0-or-later
// metrics: what the daemon knows, for Prometheus.
#include "graced/ctl/gracectl.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <ostream>
#include <sys/stat.h>
#include <unistd.h>

namespace grace::ctl {

namespace {

// node_exporter reads the directory at any moment: the file is there with all of it, or as before.
// It looks at names that end in .prom only. 0: good, else errno.
int replace_file(const std::string& file, const std::string& text) {
    const std::string fresh = file + ".new";
    // One that an earlier run left is replaced; a link that somebody put there is not followed.
    unlink(fresh.c_str());
    const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return errno;
    }
    bool good = fchmod(fd, 0644) == 0; // node_exporter has a user of its own
    for (std::size_t done = 0; good && done < text.size();) {
        const ssize_t n = write(fd, text.data() + done, text.size() - done);
        good = n > 0;
        done += good ? static_cast<std::size_t>(n) : 0;
    }
    int code = good ? 0 : errno;
    if (close(fd) != 0 && code == 0) {
        code = errno;
    }
    if (code == 0 && rename(fresh.c_str(), file.c_str()) != 0) {
        code = errno;
    }
    if (code != 0) {
        unlink(fresh.c_str());
    }
    return code;
}

void metrics(session& s, const std::string& file) {
    const char* const format = file.empty() ? "openmetrics" : "prometheus";
    const auto answer = s.ask({{"verb", "metrics"}, {"format", format}}, 10);
    if (!answer) {
        return;
    }
    const auto text = answer->find("text");
    if (text == answer->end() || !text->is_string()) {
        return s.failed(exit_failed, "failed", "graced's answer holds no metrics");
    }
    if (file.empty()) {
        return s.print(*answer, [](const json& a) { return a["text"].get<std::string>(); });
    }
    const std::string all = text->get<std::string>();
    if (const int code = replace_file(file, all); code != 0) {
        return s.failed(exit_failed, "failed", file + " cannot be written: " + std::strerror(code));
    }
    s.print({{"ok", true}, {"file", file}, {"bytes", all.size()}},
            [](const json&) { return std::string(); });
}

} // namespace

void add_metrics_verbs(CLI::App& app, session& s) {
    auto file = std::make_shared<std::string>();
    CLI::App* sub = app.add_subcommand("metrics", "what graced of this node knows, as OpenMetrics");
    sub->add_option(
        "--textfile", *file,
        "write it to a file for node_exporter's textfile collector, all at once, in the format "
        "that it reads");
    sub->callback([&s, file] { metrics(s, *file); });
}

} // namespace grace::ctl
