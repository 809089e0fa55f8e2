// SPDX-License-Identifier: GPL-2.0-or-later
#define FUSE_USE_VERSION 35
#include "pipefs.hh"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>

namespace cld_test {

namespace {

constexpr fuse_ino_t root = FUSE_ROOT_ID, directory = 2;

pipefs& of(fuse_req_t req) {
    return *static_cast<pipefs*>(fuse_req_userdata(req));
}

bool attributes(pipefs& fs, fuse_ino_t ino, struct stat& s) {
    s = {};
    s.st_ino = ino;
    s.st_nlink = 1;
    if (ino == root || ino == directory) {
        s.st_mode = S_IFDIR | 0755;
        return true;
    }
    s.st_mode = S_IFREG | 0600;
    const auto pipe = fs.current();
    return pipe && pipe->inode == ino;
}

// Nothing is kept by the kernel: the pipe that is asked for next may be another one.
void reply_entry(fuse_req_t req, fuse_ino_t ino) {
    fuse_entry_param e{};
    e.ino = ino;
    attributes(of(req), ino, e.attr);
    fuse_reply_entry(req, &e);
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
    if (parent == root && std::strcmp(name, "nfsd") == 0)
        return reply_entry(req, directory);
    const auto pipe = of(req).current();
    if (parent == directory && std::strcmp(name, "cld") == 0 && pipe)
        return reply_entry(req, pipe->inode);
    fuse_reply_err(req, ENOENT);
}

void getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
    struct stat s {};
    if (attributes(of(req), ino, s))
        fuse_reply_attr(req, &s, 0);
    else
        fuse_reply_err(req, ENOENT);
}

void readdir(fuse_req_t req, fuse_ino_t, std::size_t, off_t, fuse_file_info*) {
    fuse_reply_buf(req, nullptr, 0);
}

// The pipe comes and goes by this process's own mknod and unlink: the way through the kernel's file
// layer is what tells inotify.
bool ours(fuse_req_t req, fuse_ino_t parent, const char* name) {
    return fuse_req_ctx(req)->uid == 0 && parent == directory && std::strcmp(name, "cld") == 0;
}

void mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t, dev_t) {
    if (!ours(req, parent, name) || !of(req).create())
        fuse_reply_err(req, EPERM);
    else
        reply_entry(req, of(req).current()->inode);
}

void unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
    fuse_reply_err(req, ours(req, parent, name) && of(req).unlink() ? 0 : EPERM);
}

void open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    const auto pipe = of(req).current();
    pipefs::handle* h = nullptr;
    if (pipe && pipe->inode == ino)
        h = of(req).open((fi->flags & O_ACCMODE) != O_WRONLY);
    if (!h) {
        fuse_reply_err(req, ENXIO); // as rpc_pipe_open, while the pipe goes
        return;
    }
    fi->fh = reinterpret_cast<std::uint64_t>(h);
    fi->direct_io = 1;
    fi->nonseekable = 1;
    if (fuse_reply_open(req, fi) < 0)
        of(req).close(h);
}

pipefs::handle& handle_of(fuse_file_info* fi) {
    return *reinterpret_cast<pipefs::handle*>(fi->fh);
}

void release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
    of(req).close(&handle_of(fi));
    fuse_reply_err(req, 0);
}

void read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t, fuse_file_info* fi) {
    bytes out;
    if (const int code = of(req).read(handle_of(fi), size, out); code != 0)
        fuse_reply_err(req, -code);
    else
        fuse_reply_buf(req, reinterpret_cast<const char*>(out.data()), out.size());
}

void write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t,
           fuse_file_info* fi) {
    const int code =
        of(req).write(handle_of(fi), reinterpret_cast<const std::uint8_t*>(data), size);
    if (code != 0)
        fuse_reply_err(req, -code);
    else
        fuse_reply_write(req, size);
}

void poll(fuse_req_t req, fuse_ino_t, fuse_file_info* fi, fuse_pollhandle* ph) {
    fuse_reply_poll(req, of(req).poll(handle_of(fi), ph));
}

} // namespace

pipefs::pipefs(const std::string& where)
    : directory_(where) {
    fuse_lowlevel_ops ops{};
    ops.lookup = cld_test::lookup;
    ops.getattr = cld_test::getattr;
    ops.readdir = cld_test::readdir;
    ops.mknod = cld_test::mknod;
    ops.unlink = cld_test::unlink;
    ops.open = cld_test::open;
    ops.release = cld_test::release;
    ops.read = cld_test::read;
    ops.write = cld_test::write;
    ops.poll = cld_test::poll;
    char name[] = "cld-pipefs", option[] = "-o", value[] = "fsname=cld-pipefs,auto_unmount";
    char* argv[] = {name, option, value, nullptr};
    fuse_args args = FUSE_ARGS_INIT(3, argv);
    session_ = fuse_session_new(&args, &ops, sizeof ops, this);
    fuse_opt_free_args(&args);
    if (!session_)
        throw std::runtime_error("no FUSE session");
    if (fuse_session_mount(session_, directory_.c_str()) != 0) {
        fuse_session_destroy(session_);
        throw std::runtime_error("cannot mount FUSE on " + directory_ + " (/dev/fuse?)");
    }
    loop_ = std::thread([this] { fuse_session_loop(session_); });
}

pipefs::~pipefs() {
    fuse_session_exit(session_);
    fuse_session_unmount(session_); // wakes the loop
    loop_.join();
    fuse_session_destroy(session_);
}

std::shared_ptr<pipefs::pipe> pipefs::current() const {
    const std::lock_guard lock(mutex_);
    return pipe_;
}

std::size_t pipefs::refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
}

std::size_t pipefs::repeated() const {
    const std::lock_guard lock(mutex_);
    return repeated_;
}

void pipefs::make_pipe() {
    if (::mknod((directory_ + "/nfsd/cld").c_str(), S_IFREG | 0600, 0) != 0)
        throw std::runtime_error(std::string("the pipe cannot be made: ") + std::strerror(errno));
}

void pipefs::remove_pipe() {
    if (::unlink((directory_ + "/nfsd/cld").c_str()) != 0)
        throw std::runtime_error(std::string("the pipe cannot be removed: ") +
                                 std::strerror(errno));
}

bool pipefs::create() {
    const std::lock_guard lock(mutex_);
    if (pipe_)
        return false;
    pipe_ = std::make_shared<pipe>();
    pipe_->inode = ++last_inode_;
    return true;
}

bool pipefs::unlink() {
    const std::lock_guard lock(mutex_);
    if (!pipe_)
        return false;
    pipe_->removed = true;
    for (auto& [xid, call] : pipe_->waiting)
        call->lost = true;
    pipe_->waiting.clear();
    pipe_->queue.clear();
    wake(*pipe_);
    pipe_.reset();
    changed_.notify_all();
    return true;
}

bool pipefs::wait_reader(double seconds) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                             [&] { return pipe_ && pipe_->readers > 0; });
}

void pipefs::send(const upcall_ptr& call) {
    const std::lock_guard lock(mutex_);
    if (!pipe_) {
        call->lost = true;
        return;
    }
    pipe_->waiting[call->xid] = call;
    pipe_->queue.push_back(call);
    wake(*pipe_);
}

bool pipefs::wait(const upcall_ptr& call, double seconds) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                      [&] { return call->done || call->lost; });
    return call->done;
}

pipefs::handle* pipefs::open(bool reads) {
    const std::lock_guard lock(mutex_);
    if (!pipe_)
        return nullptr;
    pipe_->readers += reads ? 1 : 0;
    changed_.notify_all();
    return new handle{pipe_, nullptr, reads};
}

// A message that was not read to its end is told to its nfsd thread as -EAGAIN, which queues it
// again.
void pipefs::close(handle* h) {
    const std::lock_guard lock(mutex_);
    if (h->reading && !h->of->removed) {
        h->reading->copied = 0;
        h->of->queue.push_front(h->reading);
        wake(*h->of);
    }
    h->of->readers -= h->reads ? 1 : 0;
    delete h;
}

int pipefs::read(handle& h, std::size_t size, bytes& out) {
    const std::lock_guard lock(mutex_);
    if (h.of->removed)
        return -EPIPE;
    if (!h.reading && !h.of->queue.empty()) {
        h.reading = h.of->queue.front();
        h.of->queue.pop_front();
    }
    if (!h.reading)
        return 0;
    upcall& call = *h.reading;
    const std::size_t n = std::min(size, call.message.size() - call.copied);
    const auto begin = call.message.begin() + static_cast<std::ptrdiff_t>(call.copied);
    out.assign(begin, begin + static_cast<std::ptrdiff_t>(n));
    call.copied += n;
    if (call.copied == call.message.size())
        h.reading.reset();
    return 0;
}

int pipefs::write(handle& h, const std::uint8_t* data, std::size_t size) {
    const std::lock_guard lock(mutex_);
    if (h.of->removed)
        return -EPIPE;
    std::uint32_t xid = 0;
    std::int16_t status = 0;
    if (size >= 8) {
        std::memcpy(&status, data + 2, sizeof status);
        std::memcpy(&xid, data + 4, sizeof xid);
    }
    const auto it = h.of->waiting.find(xid);
    if (size != answer_size || it == h.of->waiting.end()) {
        ++(size == answer_size && h.of->answered.contains(xid) ? repeated_ : refused_);
        return -EINVAL;
    }
    const upcall_ptr call = it->second;
    if (status == -EINPROGRESS) {
        call->listed.emplace_back(data, data + size);
        return 0;
    }
    call->answer.assign(data, data + size);
    call->done = true;
    h.of->waiting.erase(it);
    h.of->answered.insert(xid);
    changed_.notify_all();
    return 0;
}

unsigned pipefs::poll(handle& h, fuse_pollhandle* ph) {
    const std::lock_guard lock(mutex_);
    if (ph)
        h.of->pollers.push_back(ph);
    unsigned events = POLLOUT | POLLWRNORM;
    if (h.of->removed)
        events |= POLLERR | POLLHUP;
    if (h.reading || !h.of->queue.empty())
        events |= POLLIN | POLLRDNORM;
    return events;
}

void pipefs::wake(pipe& p) {
    for (fuse_pollhandle* ph : p.pollers) {
        fuse_lowlevel_notify_poll(ph);
        fuse_pollhandle_destroy(ph);
    }
    p.pollers.clear();
}

} // namespace cld_test
