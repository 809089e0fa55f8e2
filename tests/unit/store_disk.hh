// SPDX-License-Identifier: GPL-2.0-or-later
// A disk that remembers: SQLite's own VFS, with a log of everything that was written, synced,
// created, renamed and removed below one directory. What a power cut may leave at any place of that
// log can be made into files again; a sync can be made to fail or to stand still.
//
// The model of the disk. What was written to a file and not synced since may be there, or not, or
// be there by single sectors of 512 bytes; in any combination. What was done to the directory is
// there up to some place since its last sync. A sync that failed has dropped what it was to write:
// the page cache still shows it, the disk never gets it (that is Linux).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sqlite3.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace disk {

struct op {
    enum kind_t { create, write, truncate, sync, failed_sync, remove, rename, sync_dir, told } kind;
    std::string name, to; // of the file; below the directory
    std::int64_t at = 0;  // write: offset; truncate: size; told: what the store said is durable
    std::string data;
};

struct recorder {
    std::mutex mutex;
    std::string directory; // empty: nothing is recorded
    std::vector<op> log;
    std::atomic<int> fail_syncs{0};     // so many syncs from now on fail with EIO
    std::atomic<int> stall_ms{0};       // each sync takes so long
    // Writes take slow_write_us each until they have taken slow_for_us together: so long a commit takes
    // at least, however many writes SQLite makes of it, and not much longer.
    static constexpr int slow_write_us = 700;
    std::atomic<int> slow_for_us{0};
    std::atomic<bool> fail_writes{false}; // ENOSPC

    void start(const std::string& dir) {
        const std::lock_guard guard(mutex);
        directory = dir + "/";
        log.clear();
    }
    std::vector<op> stop() {
        const std::lock_guard guard(mutex);
        directory.clear();
        return std::move(log);
    }
    void note(op o) {
        const std::lock_guard guard(mutex);
        if (directory.empty()) {
            return;
        }
        for (std::string* name : {&o.name, &o.to}) {
            if (name->empty()) {
                continue;
            }
            if (!name->starts_with(directory)) {
                return;
            }
            name->erase(0, directory.size());
        }
        log.push_back(std::move(o));
    }
    bool has(const std::string& path) {
        const std::lock_guard guard(mutex);
        return !directory.empty() && path.starts_with(directory);
    }
};
inline recorder& the_disk() {
    static recorder r;
    return r;
}

// --- SQLite's files ---

struct file {
    sqlite3_file base;
    const char* name; // null: not recorded (shared memory, temporary)
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
inline file* of(sqlite3_file* f) {
    return reinterpret_cast<file*>(f);
}
inline sqlite3_vfs* real_vfs() {
    static sqlite3_vfs* v = sqlite3_vfs_find("unix");
    return v;
}

inline int do_write(sqlite3_file* f, const void* data, int n, sqlite3_int64 at) {
    file* me = of(f);
    if (me->name != nullptr && the_disk().fail_writes) {
        return SQLITE_FULL;
    }
    if (me->name != nullptr && the_disk().slow_for_us > 0) {
        the_disk().slow_for_us -= recorder::slow_write_us;
        ::usleep(recorder::slow_write_us);
    }
    const int rc = me->real()->pMethods->xWrite(me->real(), data, n, at);
    if (rc == SQLITE_OK && me->name != nullptr) {
        the_disk().note({op::write, me->name, "", at,
                         std::string(static_cast<const char*>(data), static_cast<std::size_t>(n))});
    }
    return rc;
}
inline int do_truncate(sqlite3_file* f, sqlite3_int64 size) {
    file* me = of(f);
    const int rc = me->real()->pMethods->xTruncate(me->real(), size);
    if (rc == SQLITE_OK && me->name != nullptr) {
        the_disk().note({op::truncate, me->name, "", size, ""});
    }
    return rc;
}
inline int do_sync(sqlite3_file* f, int flags) {
    file* me = of(f);
    if (me->name == nullptr) {
        return me->real()->pMethods->xSync(me->real(), flags);
    }
    if (const int ms = the_disk().stall_ms; ms > 0) {
        ::usleep(static_cast<useconds_t>(ms) * 1000);
    }
    if (the_disk().fail_syncs > 0) {
        --the_disk().fail_syncs;
        the_disk().note({op::failed_sync, me->name, "", 0, ""});
        return SQLITE_IOERR_FSYNC;
    }
    // With the first sync of a log comes the directory's (unixSync()): fsync() tells of that.
    const int rc = me->real()->pMethods->xSync(me->real(), flags);
    if (rc == SQLITE_OK) {
        the_disk().note({op::sync, me->name, "", 0, ""});
    }
    return rc;
}

inline const sqlite3_io_methods& methods() {
    static const sqlite3_io_methods m = [] {
        sqlite3_io_methods t{};
        t.iVersion = 2;
        t.xClose = [](sqlite3_file* f) {
            const int rc = of(f)->real()->pMethods->xClose(of(f)->real());
            delete[] of(f)->name;
            return rc;
        };
        t.xRead = [](sqlite3_file* f, void* p, int n, sqlite3_int64 at) {
            return of(f)->real()->pMethods->xRead(of(f)->real(), p, n, at);
        };
        t.xWrite = do_write;
        t.xTruncate = do_truncate;
        t.xSync = do_sync;
        t.xFileSize = [](sqlite3_file* f, sqlite3_int64* n) {
            return of(f)->real()->pMethods->xFileSize(of(f)->real(), n);
        };
        t.xLock = [](sqlite3_file* f, int l) {
            return of(f)->real()->pMethods->xLock(of(f)->real(), l);
        };
        t.xUnlock = [](sqlite3_file* f, int l) {
            return of(f)->real()->pMethods->xUnlock(of(f)->real(), l);
        };
        t.xCheckReservedLock = [](sqlite3_file* f, int* out) {
            return of(f)->real()->pMethods->xCheckReservedLock(of(f)->real(), out);
        };
        t.xFileControl = [](sqlite3_file* f, int what, void* p) {
            return of(f)->real()->pMethods->xFileControl(of(f)->real(), what, p);
        };
        t.xSectorSize = [](sqlite3_file* f) {
            return of(f)->real()->pMethods->xSectorSize(of(f)->real());
        };
        t.xDeviceCharacteristics = [](sqlite3_file* f) {
            return of(f)->real()->pMethods->xDeviceCharacteristics(of(f)->real());
        };
        t.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** p) {
            return of(f)->real()->pMethods->xShmMap(of(f)->real(), page, size, extend, p);
        };
        t.xShmLock = [](sqlite3_file* f, int at, int n, int flags) {
            return of(f)->real()->pMethods->xShmLock(of(f)->real(), at, n, flags);
        };
        t.xShmBarrier = [](sqlite3_file* f) {
            of(f)->real()->pMethods->xShmBarrier(of(f)->real());
        };
        t.xShmUnmap = [](sqlite3_file* f, int remove) {
            return of(f)->real()->pMethods->xShmUnmap(of(f)->real(), remove);
        };
        return t;
    }();
    return m;
}

// Makes it what every database of this process is on.
inline void use() {
    static sqlite3_vfs v = [] {
        sqlite3_vfs t = *real_vfs();
        t.zName = "disk";
        t.pNext = nullptr;
        t.szOsFile = static_cast<int>(sizeof(file)) + real_vfs()->szOsFile;
        t.xOpen = [](sqlite3_vfs*, const char* name, sqlite3_file* f, int flags, int* out) {
            file* me = of(f);
            std::memset(me, 0, sizeof *me);
            const bool there = name != nullptr && ::access(name, F_OK) == 0;
            const int rc = real_vfs()->xOpen(real_vfs(), name, me->real(), flags, out);
            if (rc != SQLITE_OK) {
                return rc;
            }
            me->base.pMethods = &methods();
            if (name != nullptr && the_disk().has(name)) {
                char* copy = new char[std::strlen(name) + 1];
                std::strcpy(copy, name);
                me->name = copy;
                if (!there) {
                    the_disk().note({op::create, name, "", 0, ""});
                }
            }
            return rc;
        };
        t.xDelete = [](sqlite3_vfs*, const char* name, int sync) {
            // The note first: a directory's sync inside comes behind it in the log.
            const bool there = ::access(name, F_OK) == 0;
            if (there) {
                the_disk().note({op::remove, name, "", 0, ""});
            }
            return real_vfs()->xDelete(real_vfs(), name, sync);
        };
        return t;
    }();
    sqlite3_vfs_register(&v, 1);
}

// --- what a power cut leaves ---

using image = std::map<std::string, std::string>; // file, content

class surface {
public:
    void apply(const op& o) {
        switch (o.kind) {
        case op::create:
            names_[o.name] = next_++;
            directory_.push_back({o.name, names_[o.name], ""});
            break;
        case op::write:
        case op::truncate:
            pending_[inode(o.name)].push_back(o);
            break;
        case op::sync: {
            const int n = inode(o.name);
            for (const op& p : pending_[n]) {
                perform(durable_[n], p, 0, p.data.size());
            }
            pending_[n].clear();
            break;
        }
        case op::failed_sync:
            pending_[inode(o.name)].clear();
            break;
        case op::remove:
            names_.erase(o.name);
            directory_.push_back({o.name, -1, ""});
            break;
        case op::rename:
            directory_.push_back({o.name, inode(o.name), o.to});
            names_[o.to] = inode(o.name);
            names_.erase(o.name);
            break;
        case op::sync_dir:
            for (const change& c : directory_) {
                perform(entries_, c);
            }
            directory_.clear();
            break;
        case op::told:
            break;
        }
    }
    // One of the many that are possible.
    image draw(std::mt19937_64& random) const {
        auto entries = entries_;
        for (std::size_t n = random() % (directory_.size() + 1), i = 0; i < n; ++i) {
            perform(entries, directory_[i]);
        }
        image out;
        const auto mood = random() % 4; // nothing, everything, whole writes, torn ones
        for (const auto& [name, n] : entries) {
            std::string content;
            if (auto d = durable_.find(n); d != durable_.end()) {
                content = d->second;
            }
            if (auto p = pending_.find(n); p != pending_.end()) {
                for (const op& o : p->second) {
                    if (mood == 0 || (mood >= 2 && random() % 2 == 0)) {
                        continue;
                    }
                    if (mood == 3 && o.kind == op::write && random() % 2 == 0) {
                        for (std::size_t at = 0; at < o.data.size(); at += 512) {
                            if (random() % 2 == 0) {
                                perform(content, o, at,
                                        std::min<std::size_t>(512, o.data.size() - at));
                            }
                        }
                        continue;
                    }
                    perform(content, o, 0, o.data.size());
                }
            }
            out[name] = std::move(content);
        }
        return out;
    }

private:
    struct change {
        std::string name;
        int inode; // -1: removed
        std::string to; // renamed
    };
    int inode(const std::string& name) {
        auto it = names_.find(name);
        if (it == names_.end()) { // was there before the recording began
            it = names_.emplace(name, next_++).first;
            entries_[name] = it->second;
        }
        return it->second;
    }
    static void perform(std::map<std::string, int>& entries, const change& c) {
        if (c.inode < 0) {
            entries.erase(c.name);
        } else if (c.to.empty()) {
            entries[c.name] = c.inode;
        } else {
            entries.erase(c.name);
            entries[c.to] = c.inode;
        }
    }
    static void perform(std::string& content, const op& o, std::size_t from, std::size_t n) {
        const auto at = static_cast<std::size_t>(o.at);
        if (o.kind == op::truncate) {
            content.resize(at);
            return;
        }
        if (content.size() < at + from + n) {
            content.resize(at + from + n);
        }
        content.replace(at + from, n, o.data, from, n);
    }
    std::map<std::string, int> names_, entries_; // as programs see it; as it is on the disk
    std::vector<change> directory_;
    std::map<int, std::string> durable_;
    std::map<int, std::vector<op>> pending_;
    int next_ = 1;

public:
    void load(const image& files) {
        for (const auto& [name, content] : files) {
            durable_[inode(name)] = content;
        }
    }
};

inline void write_files(const std::string& directory, const image& files) {
    std::filesystem::remove_all(directory);
    std::filesystem::create_directory(directory);
    for (const auto& [name, content] : files) {
        std::ofstream(directory + "/" + name, std::ios::binary) << content;
    }
}

} // namespace disk
