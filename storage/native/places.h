// Where the rows of one tile are in the file: key -> place.
//
// Static tiles have an array with a place for every position, which counts from the start and takes
// memory as its pages are touched, unless an index of all rows that fit is smaller; dynamic ones an
// index, as do static ones beyond 2^32 positions
// or address space. Not thread-safe: the tier holds its mutex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "index.h"
#include "key.h"
#include "mapping.h"

namespace ff {

class Places {
 public:
  static constexpr uint32_t NONE = Index::NONE;
  static constexpr size_t BATCH = 1024;  // most keys of one call

  // Called with bytes before they are taken; refuses by throwing.
  using Charge = std::function<void(size_t)>;

  // `positions` of a static tile, -1 for a dynamic one. There will be `most` rows or fewer.
  Places(KeyRange keys, int64_t positions, uint64_t most, Charge charge);

  size_t rows() const { return rows_; }
  // Bytes that may be taken at once as rows come: an index grows by a quarter.
  size_t growth() const { return index_ ? index_->bytes() / 3 + 2 * Mapping::PAGE : 0; }
  // Whether a row of the tile may have the key.
  bool holds(uint64_t key) const { return keys_.owns(key) && keys_.id(key) < positions_; }

  // places[i] = place of keys[i], or NONE.
  void find(const uint64_t* keys, uint32_t* places, size_t n) const;
  // Puts rows at places; was[i] = where the row was, or NONE. Changes nothing if it throws.
  void set(const uint64_t* keys, const uint32_t* places, uint32_t* was, size_t n);
  // Puts rows that are at `from` to places; moved[i] = whether the row was still there.
  void move(const uint64_t* keys, const uint32_t* from, const uint32_t* places, bool* moved,
            size_t n);
  // was[i] = where the row was, or NONE. Returns how many there were.
  size_t erase(const uint64_t* keys, uint32_t* was, size_t n);

  // f(key, place) for every row.
  template <class F>
  void for_each(F&& f) const {
    if (index_) return index_->for_each(f);
    constexpr size_t per_page = Mapping::PAGE / sizeof(uint32_t);
    for (uint64_t position = 0; position < positions_; ++position) {
      if (position % per_page == 0 && !touched_[position / per_page])
        position += per_page - 1;
      else if (flat()[position] != 0)
        f(keys_.key(position), flat()[position] - 1);
    }
  }

 private:
  // Zero stands for no row, so that untouched memory says so.
  uint32_t* flat() const { return static_cast<uint32_t*>(flat_.data()); }
  bool take_flat(uint64_t positions);
  void set_dynamic(const uint64_t* keys, const uint32_t* places, uint32_t* was, size_t n);

  KeyRange keys_;
  uint64_t positions_ = ~uint64_t{0};  // keys beyond belong to nobody
  Charge charge_;
  Mapping flat_{false};
  std::vector<bool> touched_;  // pages of flat_
  std::unique_ptr<Index> index_;
  size_t rows_ = 0;
};

}  // namespace ff
