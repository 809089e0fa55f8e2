// SPDX-License-Identifier: LGPL-2.1-or-later
// A packed record: length of the name u16, length of the principal hash u8, epoch u64, name, hash.
#include "grace/record_map.hh"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace grace {
namespace {

constexpr std::uint32_t max_count = 128; // records in a block
constexpr std::size_t head = 11;

struct view { // of a packed record
    const char* p;
    [[nodiscard]] std::size_t name_size() const {
        return static_cast<unsigned char>(p[0]) | std::size_t{static_cast<unsigned char>(p[1])} << 8;
    }
    [[nodiscard]] std::size_t hash_size() const { return static_cast<unsigned char>(p[2]); }
    [[nodiscard]] std::size_t size() const { return head + name_size() + hash_size(); }
    [[nodiscard]] std::string_view name() const { return {p + head, name_size()}; }
    [[nodiscard]] std::string_view hash() const { return {p + head + name_size(), hash_size()}; }
    [[nodiscard]] epoch at() const {
        std::uint64_t v = 0;
        std::memcpy(&v, p + 3, sizeof v);
        return epoch{v};
    }
};
void set_epoch(char* p, epoch at) {
    std::memcpy(p + 3, &at.value, sizeof at.value);
}

std::string pack(std::string_view client, const record& r) {
    if (client.size() > 0xffff || r.princhash.size() > 0xff)
        throw std::length_error("a record's name or principal hash is beyond all limits");
    std::string s(head, '\0');
    s[0] = static_cast<char>(client.size() & 0xff);
    s[1] = static_cast<char>(client.size() >> 8);
    s[2] = static_cast<char>(r.princhash.size());
    set_epoch(s.data(), r.at);
    s += client;
    s += r.princhash;
    return s;
}

// The first at or behind `client`, and whether it is that one.
std::pair<std::size_t, bool> seek(const std::string& packed, std::string_view client) {
    std::size_t at = 0;
    while (at < packed.size()) {
        const view v{packed.data() + at};
        if (const int order = v.name().compare(client); order >= 0)
            return {at, order == 0};
        at += v.size();
    }
    return {at, false};
}

} // namespace

const record_map::value_type& record_map::const_iterator::operator*() const {
    if (!unpacked_) {
        const view v{map_->blocks_[block_].packed->data() + offset_};
        value_.first = v.name();
        value_.second.at = v.at();
        value_.second.princhash = v.hash();
        unpacked_ = true;
    }
    return value_;
}

record_map::const_iterator& record_map::const_iterator::operator++() {
    const std::string& packed = *map_->blocks_[block_].packed;
    offset_ += view{packed.data() + offset_}.size();
    if (offset_ == packed.size()) {
        ++block_;
        offset_ = 0;
    }
    unpacked_ = false;
    return *this;
}

record_map::const_iterator record_map::begin() const {
    const_iterator i;
    i.map_ = this;
    return i;
}

record_map::const_iterator record_map::end() const {
    const_iterator i = begin();
    i.block_ = blocks_.size();
    return i;
}

// The last block that begins at or before `client`; the first one if none does.
std::size_t record_map::block_of(std::string_view client) const {
    const auto behind = std::upper_bound(
        blocks_.begin(), blocks_.end(), client,
        [](std::string_view c, const block& b) { return c < view{b.packed->data()}.name(); });
    return behind == blocks_.begin() ? 0 : static_cast<std::size_t>(behind - blocks_.begin()) - 1;
}

record_map::const_iterator record_map::find(std::string_view client) const {
    const_iterator i = end();
    if (blocks_.empty())
        return i;
    const std::size_t b = block_of(client);
    if (const auto [at, there] = seek(*blocks_[b].packed, client); there) {
        i.block_ = b;
        i.offset_ = at;
    }
    return i;
}

record_map::const_iterator record_map::upper_bound(std::string_view client) const {
    const_iterator i = begin();
    if (blocks_.empty())
        return i;
    i.block_ = block_of(client);
    const std::string& packed = *blocks_[i.block_].packed;
    const auto [at, there] = seek(packed, client);
    i.offset_ = there ? at + view{packed.data() + at}.size() : at;
    if (i.offset_ == packed.size()) {
        ++i.block_;
        i.offset_ = 0;
    }
    return i;
}

record record_map::at(std::string_view client) const {
    const auto i = find(client);
    if (i == end())
        throw std::out_of_range("no record of this client");
    return i->second;
}

std::string& record_map::writable(block& b) {
    b.counted_ok = false;
    if (b.packed.use_count() != 1)
        b.packed = std::make_shared<std::string>(*b.packed);
    else // use_count() orders nothing; giving one up comes after what the last sharer has read
        std::shared_ptr<std::string>(b.packed).reset();
    return *b.packed;
}

void record_map::put(std::string_view client, const record& r) {
    const std::string packed = pack(client, r);
    const bool first = blocks_.empty();
    if (first)
        blocks_.push_back({std::make_shared<std::string>(), 0, r.at, r.at, {}, 0, false});
    std::size_t n = first ? 0 : block_of(client); // there is no record to compare with yet
    auto [at, there] = seek(*blocks_[n].packed, client);
    // Most come in order (a snapshot, the database): a full last block stays full.
    if (!there && n + 1 == blocks_.size() && at == blocks_[n].packed->size() &&
        blocks_[n].count == max_count) {
        blocks_.push_back({std::make_shared<std::string>(), 0, r.at, r.at, {}, 0, false});
        ++n;
        at = 0;
    }
    block& b = blocks_[n];
    std::string& s = writable(b);
    const std::size_t old = there ? view{s.data() + at}.size() : 0;
    s.replace(at, old, packed);
    bytes_ += packed.size();
    bytes_ -= old;
    b.low = std::min(b.low, r.at);
    b.high = std::max(b.high, r.at);
    if (there)
        return;
    ++size_;
    if (++b.count <= max_count)
        return;
    std::size_t middle = 0;
    for (std::uint32_t i = 0; i < b.count / 2; ++i)
        middle += view{s.data() + middle}.size();
    block right{std::make_shared<std::string>(s, middle), b.count - b.count / 2, b.low, b.high, {}, 0,
                false};
    b.count /= 2;
    // Not resize(): it would keep the memory.
    b.packed = std::make_shared<std::string>(s, 0, middle);
    blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(n) + 1, std::move(right));
}

std::size_t record_map::erase(std::string_view client) {
    if (blocks_.empty())
        return 0;
    const std::size_t n = block_of(client);
    block& b = blocks_[n];
    const auto [at, there] = seek(*b.packed, client);
    if (!there)
        return 0;
    const std::size_t old = view{b.packed->data() + at}.size();
    --size_;
    bytes_ -= old;
    if (--b.count == 0)
        blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(n));
    else
        writable(b).erase(at, old);
    return 1;
}

void record_map::lower(epoch limit) {
    for (block& b : blocks_) {
        if (b.high <= limit)
            continue;
        std::string& s = writable(b);
        for (std::size_t at = 0; at < s.size(); at += view{s.data() + at}.size())
            if (view{s.data() + at}.at() > limit)
                set_epoch(s.data() + at, limit);
        b.low = std::min(b.low, limit);
        b.high = limit;
    }
}

void record_map::renew(epoch to) {
    for (block& b : blocks_) {
        if (b.low == to && b.high == to)
            continue;
        std::string& s = writable(b);
        for (std::size_t at = 0; at < s.size(); at += view{s.data() + at}.size())
            set_epoch(s.data() + at, to);
        b.low = b.high = to;
    }
}

void record_map::part(epoch limit, epoch others, epoch later) {
    for (block& b : blocks_) {
        std::string& s = writable(b);
        b.low = epoch{~std::uint64_t{0}};
        b.high = {};
        for (std::size_t at = 0; at < s.size(); at += view{s.data() + at}.size()) {
            const epoch was = view{s.data() + at}.at();
            const epoch now = was > limit ? later : std::min(was, others);
            set_epoch(s.data() + at, now);
            b.low = std::min(b.low, now);
            b.high = std::max(b.high, now);
        }
    }
}

std::size_t record_map::purge(epoch limit) {
    const std::size_t before = size_;
    std::erase_if(blocks_, [&](block& b) {
        if (b.low > limit)
            return false;
        if (b.high <= limit) {
            size_ -= b.count;
            bytes_ -= b.packed->size();
            return true;
        }
        std::string kept;
        std::uint32_t count = 0;
        for (std::size_t at = 0; at < b.packed->size();) {
            const view v{b.packed->data() + at};
            if (v.at() > limit) {
                kept.append(v.p, v.size());
                ++count;
            }
            at += v.size();
        }
        size_ -= b.count - count;
        bytes_ -= b.packed->size() - kept.size();
        b.count = count;
        b.low = std::max(b.low, epoch{limit.value + 1});
        b.packed = std::make_shared<std::string>(std::move(kept));
        b.counted_ok = false;
        return count == 0;
    });
    return before - size_;
}

std::size_t record_map::later_than(epoch limit) const {
    std::size_t all = 0;
    for (const block& b : blocks_) {
        if (b.low > limit) {
            all += b.count;
        } else if (b.high > limit) {
            if (!b.counted_ok || b.counted_at != limit) {
                b.counted = 0;
                for (std::size_t at = 0; at < b.packed->size();) {
                    const view v{b.packed->data() + at};
                    b.counted += v.at() > limit;
                    at += v.size();
                }
                b.counted_at = limit;
                b.counted_ok = true;
            }
            all += b.counted;
        }
    }
    return all;
}

bool record_map::operator==(const record_map& o) const {
    return size_ == o.size_ && std::equal(begin(), end(), o.begin());
}

} // namespace grace
