// A tier below the pad: rows by key, as records without gaps.
//
// A record is what Pad::read gives: weights, element state, row state, time and score, of
// record_bytes(tile). A row is named by its tile and its key (key.h), because tiles of one table
// (other columns, other bucket) share the table's range of keys. The key of a static tile's row is
// made of its position in the tile, that of a dynamic tile's of its id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "key.h"
#include "tile.h"

namespace ff {

// A row, and where its record is (write) or goes (read).
struct RowRef {
  uint32_t tile;
  uint64_t key;
  char* record;
};

class Tier {
 public:
  virtual ~Tier() = default;

  // Fills the records of the rows that are here and says which; leaves the others alone.
  virtual void read(const RowRef* rows, size_t n, bool* found) = 0;
  // Holds the records from now on; rows that are here already are replaced. Rows are distinct.
  virtual void write(const RowRef* rows, size_t n) = 0;
  // Forgets rows; those that are not here are passed over. Returns how many were.
  virtual size_t erase(const RowRef* rows, size_t n) = 0;
  virtual bool contains(uint32_t tile, uint64_t key) const = 0;
  // Keys of all rows of a tile, in the order in which they lie.
  virtual std::vector<uint64_t> keys(size_t tile) const = 0;

  virtual size_t rows(size_t tile) const = 0;
  virtual size_t bytes() const = 0;  // that count against the budget
  // Of a tier that is not memory itself: rows of the tile that fit its budget if there are no
  // others,
  virtual size_t most_rows(size_t) const { return 0; }
  // and host memory that it may take at once as it gets more rows.
  virtual size_t growth() const { return 0; }
};

}  // namespace ff
