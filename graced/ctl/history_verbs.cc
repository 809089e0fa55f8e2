// SPDX-License-Identifier: GPL-2.0-or-later
// history: the graces that this node has seen, from the files that its daemon keeps; also without
// one.
#include "graced/config.hh"
#include "graced/ctl/gracectl.hh"
#include "graced/ctl/history.hh"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <ostream>

namespace grace::ctl {

namespace {

constexpr std::size_t most_names = 1000;

struct history_options {
    std::uint64_t at = 0;
    std::size_t last = 20;
    std::string file, svg;
};

// As the daemon has configured it; where none answers, as the configuration file says.
std::string database(session& s) {
    const auto answer =
        s.around.ask(s.daemon_name(), {{"verb", "history"}}, std::chrono::seconds(3), {});
    if (answer && answer->is_object() && answer->contains("database") &&
        (*answer)["database"].is_string())
        return (*answer)["database"].get<std::string>();
    const auto configured = load_config(default_config_file, false);
    return configured ? configured->store.path : config{}.store.path;
}

void save(session& s, const std::string& file, const std::string& picture, const json& grace) {
    if (file == "-") {
        s.around.out << picture;
        return;
    }
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out << picture;
    out.close();
    if (!out)
        return s.failed(exit_failed, "failed",
                        file + " cannot be written: " + std::strerror(errno));
    s.print({{"ok", true}, {"epoch", grace["epoch"]}, {"file", file}, {"bytes", picture.size()}},
            [&](const json&) { return file + "\n"; });
}

void history(session& s, const history_options& o, bool one) {
    // The databases stand side by side under the name of the recovery database.
    const std::string beside = o.file.empty() ? database(s) : o.file;
    const auto stories =
        grace_history::read(beside + ".graces", one || !o.svg.empty() ? 1 : o.last, epoch{o.at});
    if (!stories)
        return s.failed(exit_failed, "failed", stories.error().message);
    if (!one && o.svg.empty()) {
        json all = {{"ok", true}, {"graces", json::array()}};
        for (const grace_story& g : *stories) {
            json short_one = grace_json(g);
            short_one.erase("events");
            short_one.erase("clients");
            all["graces"].push_back(std::move(short_one));
        }
        return s.print(all, [&s](const json& a) { return render_graces(a, s.around.now()); });
    }
    if (stories->empty())
        return s.failed(exit_unknown, "no_such_grace",
                        one ? "there is no grace of epoch " + std::to_string(o.at) +
                                  " in the history of this node (gracectl history lists them)"
                            : "this node has seen no grace yet");
    const grace_story& g = stories->front();
    // Without the names if they cannot be had: the rest is worth as much.
    const auto names = client_history::read_grace(beside + ".history", g.at, g.recovery,
                                                  g.began / 1000 - 1, most_names);
    const json grace = grace_json(g, names.value_or(std::vector<history_event>{}));
    if (!o.svg.empty())
        return save(s, o.svg, draw_grace(grace), grace);
    s.print({{"ok", true}, {"grace", grace}},
            [&s](const json& a) { return render_grace(a["grace"], s.around.now()); });
}

} // namespace

void add_history_verbs(CLI::App& app, session& s) {
    auto o = std::make_shared<history_options>();
    CLI::App* sub = app.add_subcommand(
        "history",
        "the graces that this node has seen: why, how long, who reclaimed or was purged");
    CLI::Option* at = sub->add_option("epoch", o->at, "one grace as a timeline, by its epoch (C)")
                          ->check(CLI::PositiveNumber);
    sub->add_option("--last", o->last, "so many, the newest first")
        ->capture_default_str()
        ->check(CLI::Range(1, 10'000));
    sub->add_option("--svg", o->svg,
                    "draw it to a file (-: standard output); without an epoch the last one");
    sub->add_option(
        "--file", o->file,
        "of this recovery database, such as a copy from another node; default: the daemon's");
    sub->callback([&s, o, at] { history(s, *o, at->count() > 0); });
}

} // namespace grace::ctl
