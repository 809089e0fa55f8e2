// SPDX-License-Identifier: GPL-2.0-or-later
// record and replay: the daemon's last inputs as a file, and the file played through the core
// again.
#include "grace/describe.hh"
#include "grace/recording.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/hex.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

namespace grace::ctl {

namespace {

// With the rights of who asked, readable for nobody else from the first byte on.
bool write_private(const std::string& file, const std::string& all) {
    const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    bool good = fchmod(fd, 0600) == 0;
    for (std::size_t done = 0; good && done < all.size();) {
        const ssize_t n = write(fd, all.data() + done, all.size() - done);
        good = n > 0;
        done += good ? static_cast<std::size_t>(n) : 0;
    }
    return close(fd) == 0 && good;
}

void record(session& s, const std::string& file) {
    const auto answer = s.ask({{"verb", "record"}}, 30);
    if (!answer) {
        return;
    }
    const auto hex = answer->find("recording_hex");
    const auto all =
        hex != answer->end() && hex->is_string() ? from_hex(hex->get<std::string>()) : std::nullopt;
    if (!all) {
        s.failed(exit_failed, "failed", "graced's answer holds no recording");
        return;
    }
    if (file == "-") {
        s.around.out << *all << std::flush;
        return;
    }
    if (!write_private(file, *all)) {
        s.failed(exit_failed, "failed", file + " cannot be written: " + std::strerror(errno));
        return;
    }
    s.print({{"ok", true}, {"file", file}, {"bytes", all->size()}}, [&](const json&) {
        return file + ": " + std::to_string(all->size()) +
               " bytes. It names clients: keep it to yourself.\n";
    });
}

// Seconds before the recording was written: the clocks of nodes cannot be compared, this can.
std::string before(instant at, instant written) {
    std::ostringstream out;
    out.setf(std::ios::fixed);
    out.precision(3);
    out << static_cast<double>(at - written) / 1e9 << " s";
    return out.str();
}

void replay(session& s, const std::string& file) {
    std::ostringstream all;
    if (file == "-") {
        all << std::cin.rdbuf();
    } else {
        std::ifstream in(file, std::ios::binary);
        if (!in) {
            s.failed(exit_failed, "failed", file + " cannot be read: " + std::strerror(errno));
            return;
        }
        all << in.rdbuf();
    }
    const std::string text = all.str();
    auto decoded =
        decode_recording({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    if (!decoded.found) {
        s.failed(exit_failed, "bad_recording", file + ": " + decoded.fault);
        return;
    }
    recording& r = *decoded.found;
    json shown = {{"ok", true},
                  {"made_by", r.made_by},
                  {"why", r.why},
                  {"realtime", r.realtime / 1'000'000'000},
                  {"before", r.before},
                  {"replayed", r.start.has_value()},
                  {"steps", json::array()}};
    std::ostream& out = s.around.out;
    const bool words = !s.as_json;
    if (words) {
        out << "recorded by graced " << r.made_by << ": " << r.why << "\n";
        if (r.start) {
            out << "node " << r.start->params().name << " (id " << r.start->params().self.value
                << "), " << r.inputs.size() << " inputs after " << r.before << " earlier ones\n";
        } else {
            out << r.inputs.size() << " inputs, not played: the state was too large to be kept\n";
        }
    }
    std::string fault;
    for (std::size_t i = 0; i < r.inputs.size() && fault.empty(); ++i) {
        const recorded_input& step = r.inputs[i];
        json line = {{"at", step.at}, {"input", describe(step.in)}, {"outputs", json::array()}};
        if (words) {
            out << before(step.at, r.boottime) << "  " << describe(step.in) << "\n";
        }
        if (r.start) {
            output effects;
            try {
                r.start->step(step.at, step.in);
            } catch (const std::exception& e) {
                fault = e.what();
            }
            effects = r.start->take_output();
            for (const any_effect& e : effects) {
                line["outputs"].push_back(describe(e));
                if (words) {
                    out << "      -> " << describe(e) << "\n";
                }
            }
            if (fault.empty() && step.outputs && *step.outputs != digest(effects)) {
                fault = "here the outputs were others when it was recorded: this gracectl has "
                        "another core than graced " +
                        r.made_by + " had; use that version";
            }
        }
        shown["steps"].push_back(std::move(line));
    }
    if (!fault.empty()) {
        s.code = exit_failed;
        shown["ok"] = false;
        shown["code"] = "replay_stopped";
        shown["error"] = fault;
        if (words) {
            s.around.err << "gracectl: step " << shown["steps"].size() << ": " << fault << "\n";
        }
    }
    if (!words) {
        out << shown.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
    }
}

} // namespace

void add_record_verbs(CLI::App& app, session& s) {
    const auto add = [&](const char* verb, const char* help,
                         void (*run)(session&, const std::string&)) {
        auto file = std::make_shared<std::string>();
        CLI::App* sub = app.add_subcommand(verb, help);
        sub->add_option("file", *file, "the recording; -: standard input or output")->required();
        sub->callback([&s, file, run] { run(s, *file); });
    };
    add("record", "write what graced has gone through lately to a file (root)", record);
    add("replay", "play a recording through the protocol's core, step by step", replay);
}

} // namespace grace::ctl
