// Which keys the batches named that are planned and may still train: their rows must stay.
//
// First a table of batch numbers without keys, as in a Bloom filter: a key has four places in one
// cache line, and all of them say when it was named last. So about one key in two hundred that is
// outside the window seems to be in it, never the other way; and for those few who need to know,
// the keys themselves, sorted when somebody first asks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "array.h"
#include "hash.h"
#include "prefetch.h"

namespace ff {

class Window {
 public:
  // Batch `number` names `keys` keys; numbers go up, from 1. `batches` of such are in the window,
  // and those from `since` on.
  void begin(uint32_t number, size_t keys, size_t batches, uint32_t since) {
    number_ = number;
    while (!named_.empty() && named_.front().number < since) named_.pop_front();
    named_.push_back({number, false, {}});
    keys_ = std::max(keys_, keys);
    while (lines_.size() * PLACES < PLACES_PER_KEY * keys_ * batches) double_size();
  }

  // The batch names these keys.
  void enter(const Array<uint64_t>& keys) {
    for (const uint64_t key : keys) note(key);
    Named& named = named_.back();
    named.keys.insert(named.keys.end(), keys.begin(), keys.end());
    named.sorted = false;
  }
  // The same of a key about which seems_to_hold() alone will be asked.
  void note(uint64_t key) {
    const Spot spot = spot_of(key);
    for (int i = 0; i < PROBES; ++i)
      spot.line->last[spot.place(i)] = static_cast<uint16_t>(number_);
  }
  // Whether a batch from `since` on, which is among the last 65,000, named the key.
  bool holds(uint64_t key, uint32_t since) const {
    if (!seems_to_hold(key, since)) return false;
    return std::any_of(named_.begin(), named_.end(), [&](Named& named) {
      if (!named.sorted) std::sort(named.keys.begin(), named.keys.end());
      named.sorted = true;
      return named.number >= since && std::binary_search(named.keys.begin(), named.keys.end(), key);
    });
  }
  // The same, for those who can put up with a key that is not in the window.
  bool seems_to_hold(uint64_t key, uint32_t since) const {
    const Spot spot = spot_of(key);
    bool all = true;
    for (int i = 0; i < PROBES; ++i) {
      const auto age = static_cast<uint16_t>(number_ - spot.line->last[spot.place(i)]);
      all &= age <= number_ - since;
    }
    return all;
  }
  FF_INLINE void ask(uint64_t key) const { __builtin_prefetch(spot_of(key).line, 1); }

 private:
  static constexpr size_t PLACES = 32, PLACES_PER_KEY = 16;
  static constexpr int PROBES = 4;

  struct alignas(64) Line {
    uint16_t last[PLACES];
  };
  struct Spot {
    Line* line;
    uint64_t hash;
    size_t place(int i) const { return hash >> (44 + 5 * i) & (PLACES - 1); }
  };

  Spot spot_of(uint64_t key) const {
    const uint64_t hash = mix(key);
    return {const_cast<Line*>(&lines_[hash & (lines_.size() - 1)]), hash};
  }
  // A key's line in the doubled table is its old one or that plus the old size.
  void double_size() {
    const size_t n = lines_.size();
    lines_.resize(2 * n);
    std::copy_n(lines_.begin(), n, lines_.begin() + static_cast<ptrdiff_t>(n));
  }

  struct Named {
    uint32_t number;
    bool sorted;
    std::vector<uint64_t> keys;
  };

  mutable std::deque<Named> named_{{0, false, {}}};  // batches in the window, and what they named
  std::vector<Line> lines_ = std::vector<Line>(64);
  uint32_t number_ = 0;
  size_t keys_ = 0;  // most of a batch
};

}  // namespace ff
