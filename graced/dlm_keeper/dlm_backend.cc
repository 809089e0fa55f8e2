// SPDX-License-Identifier: GPL-2.0-or-later
#include "dlm_keeper/dlm_backend.hh"

#include <poll.h>

namespace grace::keeper {

dlm_backend::dlm_backend(qb_loop_t* loop, std::string lockspace)
    : lockspace_(lockspace)
    , worker_(new dlm_worker(std::move(lockspace))) {
    qb_loop_poll_add(loop, QB_LOOP_HIGH, worker_->reports.fd(), POLLIN, this,
                     [](int32_t, int32_t, void* data) {
                         static_cast<dlm_backend*>(data)->read_reports();
                         return int32_t{0};
                     });
}

void dlm_backend::start() {
    worker_->start();
}

void dlm_backend::convert(node_id owner, lock_key key, lock_mode mode, const lvb_bytes* value) {
    owner_ = owner;
    view_[key].requested = mode;
    worker_->orders.post(
        dlm_worker::do_convert{key, mode, value ? std::optional(*value) : std::nullopt});
}

void dlm_backend::cancel(node_id, lock_key key) {
    worker_->orders.post(dlm_worker::do_cancel{key});
}

void dlm_backend::release_all(bool leave) {
    worker_->orders.post(dlm_worker::do_release{leave});
}

void dlm_backend::read_reports() {
    for (const auto& n : worker_->reports.take_all())
        handle(n);
}

void dlm_backend::handle(const dlm_worker::news& n) {
    if (std::holds_alternative<dlm_worker::opened>(n)) {
        ready_ = true;
        on_ready();
    } else if (std::holds_alternative<dlm_worker::released>(n)) {
        on_released();
    } else if (const auto* t = std::get_if<dlm_worker::trouble>(&n)) {
        on_trouble(t->text);
    } else {
        lock_event e = std::get<lock_event>(n);
        e.owner = owner_;
        if (e.kind != lock_event::what::blocking) {
            lock_status& s = view_[e.key];
            s.requested.reset();
            // The worker says with every answer what is held now. `grace` keeps its lock in NL,
            // `alive` in NL is no lock.
            if (e.kind == lock_event::what::granted)
                s.held = e.mode;
            if (e.key.resource == lock_resource::alive && (!s.held || *s.held == lock_mode::nl))
                view_.erase(e.key);
            else if (!s.held)
                s.held = lock_mode::nl;
        }
        on_event(e);
    }
}

std::string dlm_backend::dump() const {
    std::string out = "DLM lockspace " + lockspace_ + (ready_ ? "" : ", not open yet") + "\n";
    if (const auto ms = blocked_ms())
        out += "the kernel has not returned from a call for " + std::to_string(ms) + " ms\n";
    for (const auto& [key, s] : view_) {
        out += name_of(key) + " " + (s.held ? mode_name(*s.held) : "-");
        if (s.requested)
            out += std::string(" wants ") + mode_name(*s.requested);
        out += "\n";
    }
    return out;
}

} // namespace grace::keeper
