// The distinct ids among many, numbered by first appearance.
//
// One scratch serves all tables of a thread, one after the other: entries carry the epoch of the
// table that wrote them, so nothing is cleared in between. A small table is looked up directly by
// id; any other one by open addressing with linear probing at a load below one half. Homes are
// computed and prefetched a block ahead of the probes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "array.h"

namespace ff {

class Distinct {
 public:
  static constexpr size_t kAhead = 32;

  // Forgets all ids. At most n ids below `limit` may be added until the next call.
  void begin(uint64_t limit, size_t n) {
    if (++epoch_ == 0) clear();
    found_ = 0;
    direct_ = limit <= std::max<uint64_t>(2048, 8 * n);
    const size_t slots = direct_ ? static_cast<size_t>(limit) : std::bit_ceil(2 * n + kAhead);
    shift_ = direct_ ? 0 : 64 - static_cast<uint32_t>(std::countr_zero(slots));
    mask_ = slots - 1;
    if (direct_ && slots > direct_table_.size()) direct_table_.assign(slots, {});
    if (!direct_ && slots > table_.size()) table_.assign(slots, {});
  }

  // Calls found(i, number, fresh) for i in [0, n), in order: the ordinal of id_at(i) among the
  // distinct ids, and whether it has not been added before.
  template <class IdAt, class Found>
  void add(size_t n, IdAt&& id_at, Found&& found) {
    if (direct_)
      add_direct(n, id_at, found);
    else
      add_hashed(n, id_at, found);
  }

  uint32_t size() const { return found_; }

 private:
  struct Entry {
    uint64_t key = 0;
    uint32_t epoch = 0, number = 0;
  };
  struct Direct {
    uint32_t epoch = 0, number = 0;
  };

  void clear() {
    table_.assign(table_.size(), {});
    direct_table_.assign(direct_table_.size(), {});
    epoch_ = 1;
  }

  template <class IdAt, class Found>
  void add_direct(size_t n, IdAt&& id_at, Found&& found) {
    Direct* const table = direct_table_.data();
    for (size_t i = 0; i < n; ++i) {
      if (i + kAhead < n) __builtin_prefetch(&table[id_at(i + kAhead)], 1);
      Direct& entry = table[id_at(i)];
      const bool fresh = entry.epoch != epoch_;
      if (fresh) entry = {epoch_, found_++};
      found(i, entry.number, fresh);
    }
  }

  template <class IdAt, class Found>
  void add_hashed(size_t n, IdAt&& id_at, Found&& found) {
    Entry* const table = table_.data();
    uint64_t key[kAhead];
    size_t home[kAhead];
    for (size_t first = 0; first < n; first += kAhead) {
      const size_t block = std::min(kAhead, n - first);
      for (size_t i = 0; i < block; ++i) {
        key[i] = id_at(first + i);
        home[i] = static_cast<size_t>((key[i] * 0x9e3779b97f4a7c15ull) >> shift_);
        __builtin_prefetch(&table[home[i]], 1);
      }
      for (size_t i = 0; i < block; ++i) {
        size_t slot = home[i];
        while (table[slot].epoch == epoch_ && table[slot].key != key[i]) slot = (slot + 1) & mask_;
        Entry& entry = table[slot];
        const bool fresh = entry.epoch != epoch_;
        if (fresh) entry = {key[i], epoch_, found_++};
        found(first + i, entry.number, fresh);
      }
    }
  }

  Array<Entry> table_;
  Array<Direct> direct_table_;
  uint32_t epoch_ = 0, found_ = 0, shift_ = 0;
  size_t mask_ = 0;
  bool direct_ = false;
};

}  // namespace ff
