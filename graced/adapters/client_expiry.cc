// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/adapters/client_expiry.hh"

#include "graced/adapters/kernel_write.hh"
#include "graced/nfsd_clients.hh"

#include <chrono>
#include <ctime>
#include <mutex>
#include <poll.h>
#include <stdexcept>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace grace {
namespace {

constexpr auto look_again = std::chrono::milliseconds(5);
constexpr auto patience = std::chrono::seconds(5);

// As the file `info` tells it; also of a client that is gone.
bool is_expired(const std::string& directory) {
    const auto c = read_nfsd_client(directory);
    timespec up{};
    clock_gettime(CLOCK_BOOTTIME, &up);
    return !c || (c->last_renew && *c->last_renew + 2 >= up.tv_sec);
}

std::string expire_and_wait(const std::string& nfsd_fs, const std::string& client) {
    const auto mine = find_nfsd_client(nfsd_fs, client);
    if (mine.empty())
        return "it is not among the clients of " + nfsd_fs;
    for (const std::string& directory : mine)
        std::thread([directory] { write_apart(directory + "/ctl", "expire\n"); }).detach();
    const auto end = std::chrono::steady_clock::now() + patience;
    for (const std::string& directory : mine)
        while (!is_expired(directory)) {
            if (std::chrono::steady_clock::now() >= end)
                return directory + "/ctl has no effect";
            std::this_thread::sleep_for(look_again);
        }
    return {};
}

} // namespace

struct client_expiry::shared {
    std::mutex lock;
    int event = -1;
    std::vector<std::pair<std::uint64_t, std::string>> done;
    ~shared() { close(event); }

    void finish(std::uint64_t id, std::string why) {
        const std::lock_guard held(lock);
        done.emplace_back(id, std::move(why));
        eventfd_write(event, 1);
    }
};

client_expiry::client_expiry(qb_loop_t* loop)
    : loop_(loop)
    , shared_(std::make_shared<shared>()) {
    shared_->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (shared_->event < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
    qb_loop_poll_add(loop_, QB_LOOP_MED, shared_->event, POLLIN, this, on_event);
}

client_expiry::~client_expiry() {
    qb_loop_poll_del(loop_, shared_->event);
}

void client_expiry::expire(std::string nfsd_fs, std::string client, answered done) {
    const std::uint64_t id = ++last_;
    waiting_.emplace(id, std::move(done));
    try {
        std::thread([shared = shared_, id, nfsd_fs = std::move(nfsd_fs),
                     client = std::move(client)] {
            std::string why;
            try {
                why = expire_and_wait(nfsd_fs, client);
            } catch (const std::exception& e) {
                why = e.what();
            }
            shared->finish(id, std::move(why));
        }).detach();
    } catch (const std::system_error& e) {
        shared_->finish(id, std::string("no thread: ") + e.what());
    }
}

int32_t client_expiry::on_event(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<client_expiry*>(data);
    eventfd_t ignored;
    eventfd_read(fd, &ignored);
    std::vector<std::pair<std::uint64_t, std::string>> done;
    {
        const std::lock_guard held(self->shared_->lock);
        done.swap(self->shared_->done);
    }
    for (const auto& [id, why] : done)
        if (auto it = self->waiting_.extract(id); !it.empty())
            it.mapped()(why);
    return 0;
}

} // namespace grace
