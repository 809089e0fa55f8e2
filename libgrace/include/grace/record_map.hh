// SPDX-License-Identifier: LGPL-2.1-or-later
// The records of one server, by the client's opaque name: a sorted map for up to millions of them.
//
// A std::map would do for a thousand. With a million its nodes and strings take 250 MB, a copy of it
// (a snapshot for a joiner, a batch for the database) as much again and a second of the loop's time,
// in which no heartbeat goes out; and to free them takes 100 ms. So the records stand packed in
// blocks of about a hundred; a copy shares the blocks, and whoever changes a block that is shared
// copies that block first. A copy may be read and freed by another thread.
//
// Each block knows bounds of its records' epochs: START, purge and the count of those that have
// reclaimed look into few blocks only.
#pragma once

#include "grace/types.hh"

#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>

namespace grace {

class record_map {
public:
    using value_type = std::pair<std::string, record>;

    class const_iterator {
    public:
        using value_type = record_map::value_type;
        using difference_type = std::ptrdiff_t;
        const_iterator() = default;
        const value_type& operator*() const;
        const value_type* operator->() const { return &**this; }
        const_iterator& operator++();
        const_iterator operator++(int) {
            const_iterator old = *this;
            ++*this;
            return old;
        }
        bool operator==(const const_iterator& o) const {
            return block_ == o.block_ && offset_ == o.offset_;
        }

    private:
        friend class record_map;
        const record_map* map_ = nullptr;
        std::size_t block_ = 0, offset_ = 0;
        mutable value_type value_; // unpacked
        mutable bool unpacked_ = false;
    };
    using iterator = const_iterator;

    record_map() = default;
    record_map(std::initializer_list<value_type> all) {
        for (const auto& [client, rec] : all)
            put(client, rec);
    }

    [[nodiscard]] bool empty() const { return size_ == 0; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] const_iterator begin() const;
    [[nodiscard]] const_iterator end() const;
    [[nodiscard]] const_iterator find(std::string_view client) const;
    [[nodiscard]] const_iterator upper_bound(std::string_view client) const; // the first behind it
    [[nodiscard]] bool contains(std::string_view client) const { return find(client) != end(); }
    [[nodiscard]] record at(std::string_view client) const; // throws std::out_of_range
    // Bytes of memory, about; in no time.
    [[nodiscard]] std::size_t weight() const { return bytes_ + blocks_.size() * 128; }

    void put(std::string_view client, const record&);
    std::size_t erase(std::string_view client); // how many: 0 or 1
    struct slot {
        record_map& map;
        std::string client;
        slot& operator=(const record& r) {
            map.put(client, r);
            return *this;
        }
    };
    slot operator[](std::string_view client) { return {*this, std::string(client)}; }

    void lower(epoch limit);         // those later than `limit` get `limit`
    void renew(epoch at);            // all get `at`
    // Those later than `limit` get `later`, the others at most `others`.
    void part(epoch limit, epoch others, epoch later);
    std::size_t purge(epoch limit);  // removes those with epoch <= limit; how many
    [[nodiscard]] std::size_t later_than(epoch) const;

    bool operator==(const record_map&) const;

private:
    struct block {
        std::shared_ptr<std::string> packed;
        std::uint32_t count = 0;
        epoch low, high;                  // no record is before or after these
        mutable epoch counted_at;         // later_than() of this epoch was …
        mutable std::uint32_t counted = 0; // … this
        mutable bool counted_ok = false;
    };
    std::string& writable(block&);
    [[nodiscard]] std::size_t block_of(std::string_view client) const;
    std::vector<block> blocks_; // none is empty
    std::size_t size_ = 0, bytes_ = 0;
};

} // namespace grace
