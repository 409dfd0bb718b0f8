// Which keys the batches named that are planned and may still train: their rows must stay.
//
// A table of batch numbers without keys, as in a Bloom filter: a key has four places in one cache
// line, and all of them say when it was named last. So about one key in two hundred that is
// outside the window seems to be in it, never the other way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "hash.h"
#include "prefetch.h"

namespace ff {

class Window {
 public:
  // Batch `number` names `keys` keys; numbers go up, from 1. `batches` of such are in the window.
  void begin(uint32_t number, size_t keys, size_t batches) {
    number_ = number;
    keys_ = std::max(keys_, keys);
    while (lines_.size() * PLACES < PLACES_PER_KEY * keys_ * batches) double_size();
  }

  void enter(uint64_t key) {
    const Spot spot = spot_of(key);
    for (int i = 0; i < PROBES; ++i)
      spot.line->last[spot.place(i)] = static_cast<uint16_t>(number_);
  }
  // Whether a batch from `since` on, which is among the last 65,000, named the key.
  bool holds(uint64_t key, uint32_t since) const {
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

  std::vector<Line> lines_ = std::vector<Line>(64);
  uint32_t number_ = 0;
  size_t keys_ = 0;  // most of a batch
};

}  // namespace ff
