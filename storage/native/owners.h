// Whose a key is. Tiles of one table share its keys, and are told apart by their plane (tile.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "key.h"

namespace ff {

class Owners {
 public:
  // Key range and plane of each tile.
  Owners(const std::vector<KeyRange>& keys, const std::vector<uint32_t>& planes) {
    for (uint32_t t = 0; t < keys.size(); ++t) {
      if (planes[t] >= by_plane_.size()) by_plane_.resize(planes[t] + 1);
      by_plane_[planes[t]].push_back({keys[t].base, t});
    }
    for (auto& owners : by_plane_)
      std::sort(owners.begin(), owners.end(),
                [](const Owner& a, const Owner& b) { return a.base < b.base; });
  }

  // Of a key that belongs to a tile of the plane.
  uint32_t tile_of(size_t plane, uint64_t key) const {
    const auto& owners = by_plane_[plane];
    return std::prev(std::upper_bound(owners.begin(), owners.end(), key,
                                      [](uint64_t k, const Owner& o) { return k < o.base; }))
        ->tile;
  }

 private:
  struct Owner {
    uint64_t base;
    uint32_t tile;
  };
  std::vector<std::vector<Owner>> by_plane_;
};

}  // namespace ff
