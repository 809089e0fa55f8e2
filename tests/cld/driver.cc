// SPDX-License-Identifier: GPL-2.0-or-later
// cld-nfsd: plays nfsd for a client tracker, nfsdcld or graced, through the stand-in for
// rpc_pipefs.
//
//   cld-nfsd DIRECTORY     mounts the stand-in there; commands on stdin, one line of answer each
//
//   start [new|v1|v0]   nfsd starts: the pipe is made; nobody opens it within a second: untracked.
//                       new: as Linux 5.4 and later (GetVersion, GraceStart; version 0 on a pipe
//                       made anew if they are refused); v1: as 4.20 (GraceStart at once); v0: as
//                       before (neither). Answer: tracking VERSION COUNT | untracked WHY
//   stop                nfsd ends, the pipe goes
//   create NAME [HASH]  remove NAME   check NAME   gracedone   a status: ok | refused ERRNO
//   list                who may reclaim, with the hash of the principal if there is one
//   raw COMMAND         an upcall of that number
//   post create NAME    sends it and goes on; answers: the answers of all that were posted
//   fill COUNT THREADS  creates client-0 …, so many at a time: seconds that it took
//   checks COUNT THREADS, removes COUNT THREADS   the same with these upcalls
//   refused             answers that the stand-in refused so far: wrong ones (size, xid), repeated
//   ones quit
// NAME is taken as it is, or as hexadecimal digits after hex:. No answer within 5 s: `no answer`.
#include "graced/adapters/cld_message.hh"
#include "graced/hex.hh"
#include "pipefs.hh"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>

namespace {

using namespace cld_test;
using grace::cld::command;
using grace::cld::message;

// Seconds, against hanging only: no sequence is about how long an answer takes. GraceStart may wait for a grace to open.
constexpr double patience = 30, opening = 60;
// The kernel waits for a second, which is not always enough for a tracker on a busy machine.
constexpr double reader_patience = 5;

class nfsd {
public:
    explicit nfsd(const std::string& directory)
        : fs_(directory) {}

    std::string start(const std::string& kind) {
        listed_.clear();
        version_ = 1;
        fs_.answer_size = grace::cld::size_v1;
        fs_.make_pipe();
        if (!fs_.wait_reader(reader_patience)) {
            fs_.remove_pipe();
            return "untracked nobody opened the pipe";
        }
        message m;
        if (kind == "new") {
            m.cmd = command::get_version;
            if (const auto a = ask(m, patience); a && a->status == 0)
                version_ = a->use_version;
            if (version_ != 1 && version_ != 2)
                return "untracked version " + std::to_string(version_);
            fs_.answer_size = grace::cld::size_of(version_);
        }
        if (kind != "v0") {
            m = {};
            m.version = version_;
            m.cmd = command::grace_start;
            const auto a = ask(m, opening);
            if (!a)
                return "untracked no answer to GraceStart";
            if (a->status == 0)
                return "tracking " + std::to_string(version_) + " " +
                       std::to_string(listed_.size());
            if (a->status == -ETIMEDOUT || kind == "v1")
                return "untracked GraceStart: " + std::to_string(a->status);
            // nfsd4_client_tracking_init: the older method, on a pipe made anew.
            fs_.remove_pipe();
            fs_.make_pipe();
            if (!fs_.wait_reader(reader_patience))
                return "untracked nobody opened the second pipe";
        }
        version_ = 1;
        fs_.answer_size = grace::cld::size_v1;
        return "tracking 0 0";
    }

    std::string perform(const std::string& line) {
        std::istringstream words(line);
        std::string verb, name, more;
        words >> verb >> name >> more;
        if (verb == "start")
            return start(name.empty() ? "new" : name);
        if (verb == "stop") {
            fs_.remove_pipe();
            return "stopped";
        }
        if (verb == "create" || verb == "remove" || verb == "check" || verb == "gracedone")
            return outcome(ask(about(verb, name, more), patience));
        if (verb == "post") {
            std::string third;
            words >> third;
            posted_.push_back(post(about(name, more, third)));
            return "posted";
        }
        if (verb == "answers")
            return answers();
        if (verb == "list")
            return list();
        if (verb == "raw")
            return raw(static_cast<std::uint8_t>(std::stoul(name)));
        if (verb == "fill" || verb == "checks" || verb == "removes")
            return many(verb == "fill"     ? command::create
                        : verb == "checks" ? command::check
                                           : command::remove,
                        std::stoul(name), std::stoul(more));
        if (verb == "refused")
            return std::to_string(fs_.refused()) + " " + std::to_string(fs_.repeated());
        return "there is no command " + verb;
    }

private:
    static std::string name_of(const std::string& word) {
        if (word.starts_with("hex:"))
            return grace::from_hex(word.substr(4)).value_or("");
        return word;
    }

    message about(const std::string& verb, const std::string& name, const std::string& hash) {
        message m;
        m.version = version_;
        m.cmd = verb == "create"   ? command::create
                : verb == "remove" ? command::remove
                : verb == "check"  ? command::check
                                   : command::grace_done;
        m.name = name_of(name);
        if (!hash.empty())
            m.princhash = name_of(hash);
        // Cld_GraceDone carries when grace began.
        m.grace_time = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
        return m;
    }

    upcall_ptr post(message m) {
        auto call = std::make_shared<upcall>();
        call->xid = m.xid = next_xid_++;
        // A name that the layout has no room for, or none, cannot be encoded: its bytes are set
        // here.
        const bool empty = m.name.empty();
        if (empty)
            m.name = "?";
        const auto encoded = grace::cld::encode(m);
        if (!encoded)
            throw std::runtime_error(encoded.error().message);
        call->message = *encoded;
        if (empty && m.cmd != command::get_version && m.cmd != command::grace_done &&
            m.cmd != command::grace_start)
            call->message[8] = call->message[9] = call->message[10] = 0;
        fs_.send(call);
        return call;
    }

    std::optional<message> ask(const message& m, double seconds) {
        const auto call = post(m);
        if (!fs_.wait(call, seconds))
            return {};
        for (const bytes& b : call->listed)
            if (const auto known = grace::cld::decode(b))
                listed_[known->name] = known->princhash;
        const auto answer = grace::cld::decode(call->answer);
        if (answer)
            return *answer;
        // The header is what counts: an answer to an unknown command is none that can be decoded.
        message bare;
        std::int16_t status = 0;
        std::memcpy(&status, call->answer.data() + 2, sizeof status);
        bare.status = status;
        return bare;
    }

    std::string raw(std::uint8_t number) {
        auto call = std::make_shared<upcall>();
        call->xid = next_xid_++;
        message m;
        m.version = version_;
        m.cmd = command::grace_start;
        m.xid = call->xid;
        call->message = *grace::cld::encode(m);
        call->message[1] = number;
        fs_.send(call);
        if (!fs_.wait(call, patience))
            return "no answer";
        std::int16_t status = 0;
        std::memcpy(&status, call->answer.data() + 2, sizeof status);
        return "refused " + std::to_string(status);
    }

    static std::string outcome(const std::optional<message>& answer) {
        if (!answer)
            return "no answer";
        return answer->status == 0 ? "ok" : "refused " + std::to_string(answer->status);
    }

    std::string answers() {
        std::string all;
        for (const auto& call : posted_) {
            std::int16_t status = 0;
            const bool done = fs_.wait(call, patience);
            if (done)
                std::memcpy(&status, call->answer.data() + 2, sizeof status);
            all += std::string(all.empty() ? "" : " ") + (!done         ? "none"
                                                          : status == 0 ? "ok"
                                                                        : std::to_string(status));
        }
        posted_.clear();
        return all;
    }

    std::string list() const {
        std::string all = "list";
        for (const auto& [name, hash] : listed_) {
            bool plain = true;
            for (const char c : name)
                plain = plain && c > 0x20 && c < 0x7f;
            all += " " + (!plain ? "hex:" + grace::to_hex(name) : name);
            if (!hash.empty())
                all += "/" + grace::to_hex(hash);
        }
        return all;
    }

    std::string many(command c, std::size_t count, std::size_t threads) {
        std::atomic<std::size_t> next = 0, wrong = 0;
        const auto begin = std::chrono::steady_clock::now();
        std::vector<std::thread> workers;
        for (std::size_t t = 0; t < threads; ++t)
            workers.emplace_back([&] {
                for (std::size_t i; (i = next++) < count;) {
                    message m;
                    m.version = version_;
                    m.cmd = c;
                    m.name = "client-" + std::to_string(i);
                    const auto call = post(m);
                    std::int16_t status = -1;
                    if (fs_.wait(call, 60))
                        std::memcpy(&status, call->answer.data() + 2, sizeof status);
                    wrong += status == 0 ? 0 : 1;
                }
            });
        for (std::thread& w : workers)
            w.join();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        if (wrong != 0)
            return std::to_string(wrong) + " were refused or not answered";
        return std::to_string(took.count());
    }

    pipefs fs_;
    unsigned version_ = 1;
    std::atomic<std::uint32_t> next_xid_ = 1;
    std::map<std::string, std::string> listed_;
    std::vector<upcall_ptr> posted_;
};

} // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: cld-nfsd DIRECTORY (commands on stdin: see the head of its source)\n";
        return 2;
    }
    try {
        nfsd n(argv[1]);
        std::cout << "mounted" << std::endl;
        for (std::string line; std::getline(std::cin, line) && line != "quit";) {
            std::string answer;
            try {
                answer = n.perform(line);
            } catch (const std::exception& e) {
                answer = std::string("error ") + e.what();
            }
            std::cout << answer << std::endl;
        }
    } catch (const std::exception& e) {
        std::cerr << "cld-nfsd: " << e.what() << "\n";
        return 1;
    }
    return 0;
}
