// SPDX-License-Identifier: GPL-2.0-or-later
// grace-sim: random clusters and faults against the production engine.
//
// One seed draws everything (run.hh), prints it and replays it exactly. Several are dealt to
// processes, and what they say is put in the order of the seeds again: the output does not depend
// on how many there are.
#include "sim/run.hh"

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

using grace::sim::fault_count;

struct report {
    std::string setting, bad;
    grace::sim::fault_counts injected{};
    std::uint64_t steps = 0;
};

// With `first`, what is drawn is printed before anything happens.
report simulate(std::uint64_t seed, bool trace, bool first, unsigned size,
                std::ostream* transitions) {
    grace::sim::run r(seed, trace, size);
    report out;
    out.setting = r.setting();
    std::optional<grace::sim::transitions> told;
    if (transitions) {
        *transitions << "seed " << seed << ": " << out.setting << '\n';
        r.tell(told.emplace(*transitions));
    }
    if (first) {
        std::printf("seed %llu draws %s\n", static_cast<unsigned long long>(seed),
                    out.setting.c_str());
        std::fflush(stdout);
    }
    out.bad = r.go();
    out.injected = r.injected();
    out.steps = r.steps();
    return out;
}

// A report is a line: what is wrong, the setting, numbers; no tab is in any of them.
void write_report(FILE* to, const report& r) {
    std::fprintf(to, "%s\t%s\t%llu", r.bad.c_str(), r.setting.c_str(),
                 static_cast<unsigned long long>(r.steps));
    for (auto n : r.injected)
        std::fprintf(to, " %llu", static_cast<unsigned long long>(n));
    std::fputc('\n', to);
    std::fflush(to);
}

bool read_report(FILE* from, report& r) {
    char* line = nullptr;
    std::size_t room = 0;
    const ssize_t got = getline(&line, &room, from);
    std::istringstream in(got > 0 ? std::string(line, static_cast<std::size_t>(got)) : "");
    std::free(line);
    std::getline(in, r.bad, '\t');
    std::getline(in, r.setting, '\t');
    in >> r.steps;
    for (auto& n : r.injected)
        in >> n;
    return bool(in);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"grace-sim: the protocol under random faults"};
    std::uint64_t seed = 1, seeds = 1;
    unsigned jobs = std::max(1U, std::thread::hardware_concurrency()), size = 0;
    bool trace = false, stop_at_first = false;
    app.add_option("--seed", seed, "first seed")->capture_default_str();
    app.add_option("--seeds", seeds, "how many")->capture_default_str();
    app.add_option("--jobs", jobs, "processes")->capture_default_str()->check(CLI::Range(1, 256));
    app.add_option("--nodes", size, "so many nodes instead of a drawn number")
        ->check(CLI::Range(0, 9));
    app.add_flag("--trace", trace, "tell the story");
    app.add_flag("--stop-at-first", stop_at_first, "no more seeds after one that failed");
    std::string transitions;
    app.add_option("--transitions", transitions,
                   "write what happened, for tests/model/replay (the last seed's)");
    CLI11_PARSE(app, argc, argv);
    if (seeds <= 1 || trace || !transitions.empty())
        jobs = 1;

    std::vector<FILE*> from;
    std::vector<pid_t> children;
    for (unsigned j = 0; j < jobs && jobs > 1; ++j) {
        int ends[2];
        if (pipe(ends) != 0)
            return 2;
        const pid_t child = fork();
        if (child < 0)
            return 2;
        if (child == 0) {
            close(ends[0]);
            FILE* to = fdopen(ends[1], "w");
            for (std::uint64_t s = seed + j; s < seed + seeds; s += jobs)
                write_report(to, simulate(s, false, false, size, nullptr));
            std::_Exit(0);
        }
        close(ends[1]);
        from.push_back(fdopen(ends[0], "r"));
        children.push_back(child);
    }

    const auto began = std::chrono::steady_clock::now();
    std::uint64_t failed = 0, done = 0, steps = 0;
    grace::sim::fault_counts injected{};
    for (std::uint64_t s = seed; s < seed + seeds; ++s) {
        report r;
        std::ofstream file;
        if (!transitions.empty())
            file.open(transitions);
        if (jobs == 1)
            r = simulate(s, trace, trace || seeds == 1, size,
                         transitions.empty() ? nullptr : &file);
        else if (!read_report(from[(s - seed) % jobs], r))
            r.bad = "the simulator itself died of this seed";
        ++done;
        steps += r.steps;
        for (std::size_t f = 0; f < fault_count; ++f)
            injected[f] += r.injected[f];
        if (!r.bad.empty()) {
            ++failed;
            std::printf("seed %llu fails: %s; it draws %s\n", static_cast<unsigned long long>(s),
                        r.bad.c_str(), r.setting.c_str());
            std::fflush(stdout);
        }
        if (!r.bad.empty() && (stop_at_first || r.setting.empty()))
            break;
    }
    for (pid_t child : children) {
        kill(child, SIGKILL); // all that is wanted has been read
        waitpid(child, nullptr, 0);
    }
    const double t =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    if (seeds > 1)
        for (std::size_t f = 0; f < fault_count; ++f)
            std::printf("%10llu  %s\n", static_cast<unsigned long long>(injected[f]),
                        grace::sim::fault_names[f]);
    std::printf("%llu seeds, %llu failed, %.1f seeds a second, %.0f events a second\n",
                static_cast<unsigned long long>(done), static_cast<unsigned long long>(failed),
                static_cast<double>(done) / t, static_cast<double>(steps) / t);
    return failed ? 1 : 0;
}
