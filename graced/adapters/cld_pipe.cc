// SPDX-License-Identifier: GPL-2.0-or-later
// nfsd's client tracking pipes: opening, reading, answering; see the header for the whys.
// Sources: net/sunrpc/rpc_pipe.c (the pipe), fs/nfsd/nfs4recover.c (both ends of the talk),
// utils/nfsdcld/nfsdcld.c in nfs-utils (the daemon whose place this takes).
#include "graced/adapters/cld_pipe.hh"

#include "grace/record_key.hh"
#include "graced/adapters/cld_message.hh"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <set>
#include <spdlog/spdlog.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace grace {
namespace {

constexpr std::uint64_t msec = 1'000'000;
constexpr std::uint64_t poll_missing = 100 * msec;  // nfsd gives up after 1 s
constexpr std::uint64_t poll_present = 1000 * msec; // in case that inotify missed something
constexpr int batch = 32; // messages taken in one turn, so that one busy server starves nobody
constexpr long rpc_pipefs_magic = 0x67596969; // RPCAUTH_GSSMAGIC, net/sunrpc/rpc_pipe.c
constexpr long fuse_magic = 0x65735546;       // FUSE_SUPER_MAGIC: a stand-in (tests/cld/pipefs.hh)

constexpr std::size_t slot_size = 1280; // more than any version's message
constexpr std::size_t no_slot = ~std::size_t{0};

// Which pipe it is: a pipe made anew at the same path is another one, and numbers its upcalls from
// 0 again. rpc_pipefs hands out inode numbers in sequence; file systems that use them again (where
// a stand-in's socket may lie) know a time of birth.
struct identity {
    std::uint64_t device = 0, inode = 0, born = 0;
    bool operator==(const identity&) const = default;
};

identity identity_of(const struct statx& s) {
    identity id;
    id.device = (std::uint64_t{s.stx_dev_major} << 32) | s.stx_dev_minor;
    id.inode = s.stx_ino;
    if (s.stx_mask & STATX_BTIME)
        id.born = std::uint64_t(s.stx_btime.tv_sec) * 1'000'000'000u + s.stx_btime.tv_nsec;
    return id;
}

std::string text_of(int code) {
    return std::strerror(code);
}

// The open upcalls of one server, as they were read, in memory that may outlive the process. A slot
// is in use if its first byte (the message's version) is not 0.
class upcall_slots {
public:
    upcall_slots() = default;
    upcall_slots(const upcall_slots&) = delete;
    upcall_slots& operator=(const upcall_slots&) = delete;
    ~upcall_slots() {
        if (head_)
            munmap(head_, bytes_in_all);
    }

    // Empty path: in this process's memory only.
    void open(const std::string& path) {
        int fd = -1;
        if (!path.empty() && (fd = open_file(path)) < 0)
            spdlog::error(
                "cannot keep open upcalls in {}: {}. If this daemon dies while nfsd waits "
                "for an answer, that nfsd hangs. Make room there and restart graced",
                path, text_of(errno));
        void* memory = mmap(nullptr, bytes_in_all, PROT_READ | PROT_WRITE,
                            fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
        if (fd >= 0)
            close(fd);
        if (memory == MAP_FAILED)
            throw std::bad_alloc();
        head_ = static_cast<header*>(memory);
        std::memcpy(head_->magic, magic, sizeof magic);
    }

    const identity& whose() const { return head_->whose; }
    void start_anew(const identity& id) {
        for (std::size_t i = 0; i < count; i++)
            clear(i);
        head_->predecessor_refused = head_->refused;
        head_->started = head_->refused = 0;
        head_->whose = id;
    }

    std::size_t find_free() {
        for (std::size_t i = 0; i < count; i++)
            if (!in_use(i))
                return i;
        return no_slot;
    }
    std::uint8_t* at(std::size_t i) {
        return reinterpret_cast<std::uint8_t*>(head_) + page + i * slot_size;
    }
    bool in_use(std::size_t i) { return at(i)[0] != 0; }
    void clear(std::size_t i) { at(i)[0] = 0; }

    // GraceStart was answered with the list; it was refused (version 0).
    std::uint8_t& started() { return head_->started; }
    std::uint8_t& refused() { return head_->refused; }
    // The pipe before this one was refused: this is the one of the kernel's older method.
    bool predecessor_refused() const { return head_->predecessor_refused != 0; }

private:
    // A file of this layout with all its pages there: an mmap over a full tmpfs ends in SIGBUS.
    static int open_file(const std::string& path) {
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -1;
        struct stat s {};
        header h;
        if (fstat(fd, &s) != 0 || s.st_size != off_t(bytes_in_all) ||
            pread(fd, &h, sizeof h, 0) != ssize_t(sizeof h) ||
            std::memcmp(h.magic, magic, sizeof magic) != 0) {
            if (ftruncate(fd, 0) != 0 || ftruncate(fd, off_t(bytes_in_all)) != 0) {
                close(fd);
                return -1;
            }
        }
        if (const int code = posix_fallocate(fd, 0, off_t(bytes_in_all)); code != 0) {
            close(fd);
            errno = code;
            return -1;
        }
        return fd;
    }

    static constexpr std::size_t count = cld_tracker::max_open_upcalls;
    static constexpr std::size_t page = 4096;
    static constexpr std::size_t bytes_in_all = page + count * slot_size;
    static constexpr char magic[8] = {'g', 'r', 'c', 'l', 'd', '0', '0', '1'};
    struct header {
        char magic[8] = {};
        identity whose;
        std::uint8_t started = 0, refused = 0, predecessor_refused = 0;
    };
    header* head_ = nullptr;
};

} // namespace

struct cld_tracker::pipe : std::enable_shared_from_this<pipe> {
    cld_tracker* owner = nullptr;
    std::string server, path, directory, journal, nfsd_fs;
    int version = 2;
    int fd = -1;
    bool is_socket = false;
    int events = 0; // that the loop waits for now
    int directory_watch = -1;
    bool gone = false; // and told so
    std::uint64_t upcalls = 0;
    std::string trouble;

    upcall_slots slots;
    struct open {
        ticket id;
        std::size_t length = 0;
    };
    std::array<open, max_open_upcalls> open_upcalls;
    std::map<std::uint32_t, std::size_t> by_xid;
    std::multiset<std::string> expired; // whose Remove is to come, for we expired them

    struct outgoing {
        std::vector<std::uint8_t> bytes;
        std::size_t slot; // that is done with once this is written; no_slot: none
    };
    std::deque<outgoing> out;
};

cld_tracker::cld_tracker(qb_loop_t* loop, sink out, options opt)
    : loop_(loop)
    , sink_(std::move(out))
    , options_(std::move(opt))
    , expiry_(loop) {
    inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (inotify_ >= 0)
        qb_loop_poll_add(loop_, QB_LOOP_HIGH, inotify_, POLLIN, this, on_inotify);
    else
        spdlog::warn("no inotify ({}): nfsd's pipes are looked for every 100 ms", text_of(errno));
}

cld_tracker::~cld_tracker() {
    if (timer_)
        qb_loop_timer_del(loop_, timer_);
    if (inotify_ >= 0) {
        qb_loop_poll_del(loop_, inotify_);
        close(inotify_);
    }
    for (auto& [server, p] : pipes_) {
        if (p->fd >= 0) {
            qb_loop_poll_del(loop_, p->fd);
            close(p->fd);
        }
    }
}

void cld_tracker::watch(std::string server, std::string pipe_path, int version,
                        std::string nfsd_fs) {
    if (const auto it = pipes_.find(server); it != pipes_.end()) {
        it->second->nfsd_fs = nfsd_fs;
        if (it->second->path == pipe_path && it->second->version == version)
            return;
        unwatch(server);
    }
    auto p = std::make_shared<pipe>();
    p->owner = this;
    p->server = server;
    p->path = std::move(pipe_path);
    p->directory = std::filesystem::path(p->path).parent_path();
    p->version = version;
    p->nfsd_fs = std::move(nfsd_fs);
    if (!options_.journal_dir.empty() && server.find('/') == std::string::npos)
        p->journal = options_.journal_dir + "/" + server + ".upcalls";
    p->slots.open(p->journal);
    pipes_.emplace(std::move(server), std::move(p));
    // From the loop, not from here: it may find upcalls, and callers do not expect inputs yet.
    schedule(1);
}

void cld_tracker::unwatch(const std::string& server) {
    const auto it = pipes_.find(server);
    if (it == pipes_.end())
        return;
    const pipe_ptr p = it->second;
    pipes_.erase(it);
    std::vector<std::size_t> open;
    for (const auto& [xid, slot] : p->by_xid)
        open.push_back(slot);
    for (const std::size_t slot : open)
        reply(*p, slot, std::int16_t(upcall_status::failed));
    close_pipe(*p, "not watched any more");
    forget_upcalls(*p);
    if (!p->journal.empty())
        unlink(p->journal.c_str());
    // The directory's watch stays: another server may have its pipe there, and inotify gives both
    // the same number. An event without a pipe is harmless.
}

bool cld_tracker::tracked(const std::string& server) const {
    const auto it = pipes_.find(server);
    if (it == pipes_.end() || it->second->fd < 0)
        return false;
    pipe& p = *it->second;
    return p.version == 0 ? p.slots.predecessor_refused() && !p.slots.refused()
                          : p.slots.started() != 0;
}

std::vector<cld_tracker::pipe_status> cld_tracker::status() const {
    std::vector<pipe_status> all;
    for (const auto& [server, p] : pipes_) {
        pipe_status s;
        s.server = server;
        s.path = p->path;
        s.version = p->version;
        s.connected = p->fd >= 0;
        s.tracked = tracked(server);
        s.open_upcalls = p->by_xid.size();
        s.upcalls = p->upcalls;
        s.trouble = p->trouble;
        all.push_back(std::move(s));
    }
    return all;
}

// --- the pipe comes and goes ---

void cld_tracker::schedule(std::uint64_t nanoseconds) {
    if (timer_)
        qb_loop_timer_del(loop_, timer_);
    timer_ = 0;
    qb_loop_timer_add(loop_, QB_LOOP_HIGH, nanoseconds, this, on_timer, &timer_);
}

void cld_tracker::on_timer(void* data) {
    auto* self = static_cast<cld_tracker*>(data);
    self->timer_ = 0;
    self->look_after_all();
}

int32_t cld_tracker::on_inotify(int32_t fd, int32_t, void* data) {
    auto* self = static_cast<cld_tracker*>(data);
    alignas(inotify_event) char buffer[4096];
    bool any = false;
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        any = true;
        for (ssize_t at = 0; at < got;) {
            const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
            if (event->mask & IN_IGNORED) // unmounted or removed: watch what is there next
                for (auto& [server, p] : self->pipes_)
                    if (p->directory_watch == event->wd)
                        p->directory_watch = -1;
            at += ssize_t(sizeof(inotify_event) + event->len);
        }
    }
    if (any)
        self->look_after_all();
    return 0;
}

void cld_tracker::look_after_all() {
    const auto all = pipes_; // the sink may call watch() and unwatch()
    bool missing = false;
    for (const auto& [server, p] : all) {
        const auto it = pipes_.find(server);
        if (it == pipes_.end() || it->second != p)
            continue;
        look_after(p);
        missing = missing || p->fd < 0 || p->directory_watch < 0;
    }
    if (!pipes_.empty())
        schedule(missing ? poll_missing : poll_present);
}

void cld_tracker::look_after(const pipe_ptr& p) {
    // First the watch, then the look: what appears in between is seen by one of them. Each time
    // anew, because the file system may have been mounted over the directory since.
    watch_directory(*p);
    struct statx now {};
    const bool there = statx(AT_FDCWD, p->path.c_str(), AT_STATX_DONT_SYNC,
                             STATX_TYPE | STATX_INO | STATX_BTIME, &now) == 0;
    if (!there) {
        const int code = errno;
        if (code == ENOENT)
            tell_gone(*p);
        close_pipe(*p, code == ENOENT ? "nfsd does not run (there is no such pipe)"
                                      : "cannot look at it: " + text_of(code));
        return;
    }
    if (p->fd >= 0 && p->slots.whose() != identity_of(now)) {
        close_pipe(*p, "nfsd made it anew");
        tell_gone(*p);
    }
    if (p->fd < 0)
        open_pipe(p);
}

// The kernel makes the pipe when an nfsd starts and removes it when that ends (nfs4recover.c).
void cld_tracker::tell_gone(pipe& p) {
    if (!std::exchange(p.gone, true))
        sink_(input::nfsd_ended{p.server});
}

void cld_tracker::watch_directory(pipe& p) {
    if (inotify_ < 0)
        return;
    p.directory_watch = inotify_add_watch(inotify_, p.directory.c_str(),
                                          IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_ONLYDIR);
}

void cld_tracker::open_pipe(const pipe_ptr& p) {
    const auto not_now = [&](std::string why) {
        if (p->trouble != why) // once, not ten times a second
            spdlog::warn("server {}: cannot use {}: {}", p->server, p->path, why);
        p->trouble = std::move(why);
    };

    struct stat there {};
    if (::stat(p->path.c_str(), &there) != 0)
        return not_now(text_of(errno));
    const bool is_socket = S_ISSOCK(there.st_mode);
    int fd = -1;
    if (is_socket) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (p->path.size() >= sizeof address.sun_path)
            return not_now("the path is too long for a socket");
        std::memcpy(address.sun_path, p->path.c_str(), p->path.size() + 1);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return not_now(text_of(errno));
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
            const int code = errno;
            close(fd);
            return not_now(text_of(code));
        }
    } else if (S_ISFIFO(there.st_mode) || S_ISREG(there.st_mode)) {
        struct statfs fs {};
        // A plain FIFO left behind by something would give us our own answers back as upcalls, a
        // plain file its end for ever.
        const bool fifo = S_ISFIFO(there.st_mode);
        if (statfs(p->path.c_str(), &fs) != 0 ||
            fs.f_type != (fifo ? rpc_pipefs_magic : fuse_magic))
            return not_now(fifo ? "it is a FIFO, but not of rpc_pipefs: mount -t rpc_pipefs in the "
                                  "server's network namespace"
                                : "it is a plain file");
        fd = open(p->path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) // ENXIO: the kernel is just making or removing it
            return not_now(text_of(errno));
    } else {
        return not_now("it is neither a pipe nor a socket");
    }

    // By the descriptor for a pipe (the path may lead to another one by now); a connected socket's
    // own inode says nothing about the path.
    struct statx opened {};
    if (statx(is_socket ? AT_FDCWD : fd, is_socket ? p->path.c_str() : "",
              (is_socket ? 0 : AT_EMPTY_PATH) | AT_STATX_DONT_SYNC,
              STATX_TYPE | STATX_INO | STATX_BTIME, &opened) != 0) {
        const int code = errno;
        close(fd);
        return not_now(text_of(code));
    }

    p->fd = fd;
    p->is_socket = is_socket;
    p->trouble.clear();
    p->events = 0;
    if (p->slots.whose() != identity_of(opened)) {
        forget_upcalls(*p);
        p->expired.clear();
        p->slots.start_anew(identity_of(opened));
    }
    p->gone = false;
    spdlog::info("server {}: tracking clients through {}", p->server, p->path);
    qb_loop_poll_add(loop_, QB_LOOP_MED, fd, POLLIN, p.get(), on_pipe);
    p->events = POLLIN;
    restore_upcalls(p);
}

void cld_tracker::close_pipe(pipe& p, const std::string& why) {
    p.trouble = why;
    if (p.fd < 0)
        return;
    qb_loop_poll_del(loop_, p.fd);
    close(p.fd);
    p.fd = -1;
    p.out.clear();
    spdlog::info("server {}: {} closed: {}", p.server, p.path, why);
    // Upcalls stay open: the same pipe may only have been closed by us. Whether it is the same is
    // seen when it is opened again.
}

void cld_tracker::forget_upcalls(pipe& p) {
    for (const auto& [xid, slot] : p.by_xid) {
        tickets_.erase(p.open_upcalls[slot].id);
        p.slots.clear(slot);
    }
    p.by_xid.clear();
}

// What a daemon before us (or we, on an earlier opening of the same pipe) read and did not answer.
void cld_tracker::restore_upcalls(const pipe_ptr& p) {
    for (std::size_t slot = 0; slot < max_open_upcalls && p->fd >= 0; slot++) {
        if (!p->slots.in_use(slot))
            continue;
        std::uint32_t xid;
        std::memcpy(&xid, p->slots.at(slot) + 4, sizeof xid);
        const auto known = p->by_xid.find(xid);
        if (known != p->by_xid.end() && known->second == slot) {
            // The answer may have been lost with the connection; while it is still to come,
            // there is nothing to do.
            if (p->open_upcalls[slot].id)
                continue;
            p->by_xid.erase(known);
        }
        const std::size_t length = cld::size_of(p->slots.at(slot)[0]);
        spdlog::info("server {}: upcall {} was left open, answering it now", p->server, xid);
        handle(p, slot, length, true);
    }
}

// --- upcalls ---

int32_t cld_tracker::on_pipe(int32_t fd, int32_t events, void* data) {
    const pipe_ptr p = static_cast<pipe*>(data)->shared_from_this();
    cld_tracker* self = p->owner;
    if (p->fd != fd)
        return 0;
    if (events & POLLIN)
        self->read_upcalls(p);
    if (p->fd == fd && (events & POLLOUT))
        self->flush(*p);
    // rpc_pipe_poll says POLLERR | POLLHUP when the kernel removed the pipe.
    if (p->fd == fd && (events & (POLLERR | POLLHUP | POLLNVAL))) {
        self->close_pipe(*p, "nfsd closed it");
        self->schedule(poll_missing);
    }
    return 0;
}

void cld_tracker::read_upcalls(const pipe_ptr& p) {
    for (int n = 0; n < batch && p->fd >= 0; n++) {
        const std::size_t slot = p->slots.find_free();
        if (slot == no_slot) {
            update_events(*p);
            return;
        }
        std::uint8_t* into = p->slots.at(slot);
        const ssize_t got =
            p->is_socket ? recv(p->fd, into, slot_size, MSG_TRUNC) : read(p->fd, into, slot_size);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            // rpc_pipe_read returns 0 when there was nothing after all, EPIPE when the pipe is
            // gone.
            if (got == 0 && !p->is_socket)
                return;
            close_pipe(*p, got == 0 ? "the other side closed it" : text_of(errno));
            schedule(poll_missing);
            return;
        }
        p->upcalls++;
        handle(p, slot, std::size_t(got), false);
    }
}

void cld_tracker::handle(const pipe_ptr& p, std::size_t slot, std::size_t length, bool again) {
    std::uint8_t* const raw = p->slots.at(slot);
    p->open_upcalls[slot] = {ticket{}, length};
    const auto m = cld::decode({raw, std::min(length, slot_size)});
    if (!m) {
        spdlog::warn("server {}: upcall refused: {}", p->server, m.error().message);
        if (length >= cld::header_size && length <= slot_size) {
            bytes back(raw, raw + length);
            cld::set_status(back, std::int16_t(-m.error().code));
            send(*p, std::move(back), no_slot);
        }
        p->slots.clear(slot);
        return;
    }
    if (!p->by_xid.emplace(m->xid, slot).second) {
        // Only a stand-in does this: after its tracker died it cannot know whether it was read.
        p->slots.clear(slot);
        return;
    }
    spdlog::debug("server {}: upcall {} {}, version {}", p->server, m->xid, cld::to_string(m->cmd),
                  m->version);
    if (m->cmd == cld::command::get_version) {
        if (p->version == 0) {
            reply(*p, slot, -EOPNOTSUPP);
            return;
        }
        cld::set_use_version({raw, length}, std::uint8_t(p->version));
        reply(*p, slot, 0);
        return;
    }
    if (m->cmd == cld::command::grace_start && p->version == 0) {
        // The kernel now removes this pipe and makes another, for its method without a list.
        p->slots.refused() = 1;
        reply(*p, slot, -EOPNOTSUPP);
        return;
    }
    if (m->cmd == cld::command::remove) {
        // Bad scenario: the client that we expired is on record by now as the one that came after;
        // this Remove is not its leave, and without a record it loses all at the next failover.
        if (const auto it = p->expired.find(m->name); it != p->expired.end()) {
            p->expired.erase(it);
            reply(*p, slot, 0);
            return;
        }
    }
    const ticket id{++last_ticket_};
    p->open_upcalls[slot].id = id;
    tickets_.emplace(id, open_upcall{p, slot});
    switch (m->cmd) {
    case cld::command::create:
        sink_(input::create{p->server, nfs4_key(m->name), m->princhash, id});
        break;
    case cld::command::remove:
        sink_(input::remove{p->server, nfs4_key(m->name), id});
        break;
    case cld::command::check:
        sink_(input::check{p->server, nfs4_key(m->name), id, again});
        break;
    case cld::command::grace_start:
        sink_(input::grace_start{p->server, id});
        break;
    case cld::command::grace_done:
        sink_(input::grace_done{p->server, id});
        break;
    case cld::command::get_version:
        break;
    }
}

// --- answers ---

void cld_tracker::answer(ticket id, upcall_status status) {
    const auto it = tickets_.find(id);
    if (it == tickets_.end()) {
        spdlog::debug("an answer came for upcall ticket {}, whose pipe is gone", id.value);
        return;
    }
    const open_upcall upcall = it->second;
    if (const auto p = upcall.from.lock()) {
        const auto cmd = cld::command(p->slots.at(upcall.slot)[1]);
        if (cmd == cld::command::grace_start && status == upcall_status::ok)
            p->slots.started() = 1;
        if (cmd == cld::command::check && status == upcall_status::refused && !p->nfsd_fs.empty())
            return refuse_check(p, upcall.slot);
        reply(*p, upcall.slot, std::int16_t(status));
    } else {
        tickets_.erase(it);
    }
}

// Once refused, nfsd would let the same client in at its second try: client_expiry.hh.
void cld_tracker::refuse_check(const pipe_ptr& p, std::size_t slot) {
    const auto m = cld::decode({p->slots.at(slot), p->open_upcalls[slot].length});
    const ticket id = p->open_upcalls[slot].id;
    const std::string client = m ? m->name : std::string();
    expiry_.expire(p->nfsd_fs, client, [this, id, client](const std::string& why) {
        const auto it = tickets_.find(id);
        const auto from = it == tickets_.end() ? nullptr : it->second.from.lock();
        if (!from)
            return;
        if (why.empty()) {
            spdlog::info("server {}: a client was expired, for it may not reclaim", from->server);
            from->expired.insert(client);
        } else {
            spdlog::error("server {}: a client that may not reclaim could not be expired: {}; nfsd "
                          "will let it reclaim at its second try",
                          from->server, why);
        }
        reply(*from, it->second.slot, std::int16_t(upcall_status::refused));
    });
}

void cld_tracker::answer_grace_start(ticket id, const std::vector<known_client>& clients) {
    const auto it = tickets_.find(id);
    const auto p = it == tickets_.end() ? nullptr : it->second.from.lock();
    if (!p) {
        spdlog::debug("a list came for upcall ticket {}, whose pipe is gone", id.value);
        return;
    }
    const std::uint8_t* upcall = p->slots.at(it->second.slot);
    cld::message m;
    m.version = upcall[0];
    m.cmd = cld::command::grace_start;
    m.status = -EINPROGRESS;
    std::memcpy(&m.xid, upcall + 4, sizeof m.xid);
    for (const known_client& client : clients) {
        m.name = client.name;
        m.princhash = client.princhash;
        auto entry = cld::encode(m);
        if (!entry) // cannot come from nfsd; a record imported by hand perhaps
            spdlog::error("server {}: a client cannot be told to nfsd and will not reclaim: {}",
                          p->server, entry.error().message);
        else if (p->fd >= 0)
            send(*p, std::move(*entry), no_slot);
    }
    answer(id, upcall_status::ok);
}

void cld_tracker::reply(pipe& p, std::size_t slot, std::int16_t status) {
    // The ticket ends here, the slot only when the answer is written: if that fails with the
    // connection, the upcall is still there to be restored.
    if (p.open_upcalls[slot].id) {
        tickets_.erase(p.open_upcalls[slot].id);
        p.open_upcalls[slot].id = ticket{};
    }
    if (p.fd < 0)
        return;
    const std::uint8_t* raw = p.slots.at(slot);
    bytes back(raw, raw + p.open_upcalls[slot].length);
    cld::set_status(back, status);
    send(p, std::move(back), slot);
}

void cld_tracker::send(pipe& p, bytes message, std::size_t slot) {
    p.out.push_back({std::move(message), slot});
    if (p.out.size() == 1)
        flush(p);
}

void cld_tracker::flush(pipe& p) {
    // The kernel's pipe takes a message within write() and never says EAGAIN; a stand-in may.
    while (p.fd >= 0 && !p.out.empty()) {
        const auto& next = p.out.front();
        const ssize_t put = p.is_socket
                                ? ::send(p.fd, next.bytes.data(), next.bytes.size(), MSG_NOSIGNAL)
                                : write(p.fd, next.bytes.data(), next.bytes.size());
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EAGAIN)
            break;
        if (put < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)) {
            close_pipe(p, text_of(errno));
            schedule(poll_missing);
            return;
        }
        if (put < 0) // EINVAL: the kernel does not know this xid (any more)
            spdlog::warn("server {}: nfsd did not take {}: {}", p.server,
                         next.slot == no_slot ? "a client of the list" : "an answer",
                         text_of(errno));
        if (next.slot != no_slot) {
            const std::uint8_t* upcall = p.slots.at(next.slot);
            std::uint32_t xid;
            std::memcpy(&xid, upcall + 4, sizeof xid);
            if (const auto it = p.by_xid.find(xid); it != p.by_xid.end() && it->second == next.slot)
                p.by_xid.erase(it);
            p.slots.clear(next.slot);
        }
        p.out.pop_front();
    }
    update_events(p);
}

void cld_tracker::update_events(pipe& p) {
    if (p.fd < 0)
        return;
    const int wanted =
        (p.slots.find_free() == no_slot ? 0 : POLLIN) | (p.out.empty() ? 0 : POLLOUT);
    if (wanted == p.events)
        return;
    p.events = wanted;
    qb_loop_poll_mod(loop_, QB_LOOP_MED, p.fd, wanted, &p, on_pipe);
}

// --- other readers ---

result<void> cld_tracker::check_no_other_tracker() const {
    std::map<std::pair<dev_t, ino_t>, const pipe*> pipes;
    for (const auto& [server, p] : pipes_) {
        struct stat s {};
        if (::stat(p->path.c_str(), &s) == 0 && S_ISFIFO(s.st_mode))
            pipes[{s.st_dev, s.st_ino}] = p.get();
    }
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        const std::string name = entry.path().filename();
        pid_t pid = 0;
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
        if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() || pid == getpid())
            continue;
        std::string comm;
        std::getline(std::ifstream(entry.path() / "comm"), comm);
        if (comm == "nfsdcld")
            return fail(
                fmt::format("nfsdcld runs (process {}): it and graced would each see half of "
                            "nfsd's upcalls. Stop it for good: systemctl mask --now nfsdcld",
                            pid),
                EBUSY);
        if (pipes.empty())
            continue;
        DIR* fds = opendir((entry.path() / "fd").c_str());
        if (!fds)
            continue; // ended, or not ours to look at
        const auto close_dir = std::unique_ptr<DIR, int (*)(DIR*)>(fds, closedir);
        while (const dirent* d = readdir(fds)) {
            struct stat s {};
            if (fstatat(dirfd(fds), d->d_name, &s, 0) != 0)
                continue;
            if (const auto it = pipes.find({s.st_dev, s.st_ino}); it != pipes.end())
                return fail(fmt::format("process {} ({}) has {} of server {} open: it and graced "
                                        "would each see half of nfsd's upcalls. Stop it",
                                        pid, comm, it->second->path, it->second->server),
                            EBUSY);
        }
    }
    return {};
}

} // namespace grace
