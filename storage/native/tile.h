// The rows of one held tile: where they lie, who is born, and how rows are born.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "admission.h"
#include "errors.h"
#include "hash.h"
#include "init.h"
#include "key.h"
#include "mapping.h"
#include "optimizer_step.h"
#include "pool.h"
#include "prefetch.h"
#include "rows.h"
#include "shelf.h"

namespace ff {

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::sgd;
  float eps = 0, beta1 = 0, beta2 = 0, beta = 0, l1 = 0, l2 = 0;
  float initial = 0;  // first value of every accumulator

  int element_states() const;
  int row_states() const;
  // `step` counts from 1.
  OptimizerStep at(float lr, uint64_t step) const;
};

struct TileSpec {
  std::string name;
  uint32_t table = 0;
  uint32_t dim = 0;
  uint32_t column = 0;  // first column of the table that lies here
  int64_t rows = -1;    // ids of the table; -1 = dynamic
  uint32_t bucket = 0, buckets = 1;
  Dtype dtype = Dtype::fp32;
  OptimizerSpec optimizer;
  Init init;
  uint64_t seed = 0;

  // Who gets a row, and who may lose it (population.h).
  AdmissionSpec admission;
  uint64_t time_to_live = 0;   // training batches; 0: for ever
  bool high_priority = false;  // never lost for its score
  bool absent_zeros = false;   // an id without a row reads as zeros, else as it would be born

  bool dynamic() const { return rows < 0; }
  std::string label() const;  // "table 'user' (bucket 1 of 4, columns 0:64)"
};

// Tiles of one table (other columns, other bucket) share its keys, so each has an index of its own:
// the first of every table in plane 0, the second in plane 1.
inline uint32_t plane_of(const std::vector<TileSpec>& specs, size_t tile) {
  uint32_t plane = 0;
  for (size_t other = 0; other < tile; ++other) plane += specs[other].table == specs[tile].table;
  return plane;
}

class Tile {
 public:
  static constexpr uint32_t NONE = Shelf::NONE;

  // A static tile: rows lie where their position says, on a shelf of the tile's own, in blocks of
  // at most `block_limit` bytes unless a few rows need more.
  Tile(TileSpec spec, Pool& pool, size_t block_limit);
  // Rows lie anywhere on a shelf that tiles of the same layout share.
  Tile(TileSpec spec, Pool& pool, Shelf& shelf);
  ~Tile();
  Tile(const Tile&) = delete;
  Tile& operator=(const Tile&) = delete;

  static RowLayout layout_of(const TileSpec& spec);
  // Rows that a tile holds if every id of its static table lives: its positions are [0, that).
  static uint64_t positions_of(const TileSpec& spec);

  const TileSpec& spec() const { return spec_; }
  const RowLayout& layout() const { return shelf_->layout(); }
  uint64_t positions() const { return positions_; }  // of a static tile
  size_t rows() const { return rows_; }              // born
  // Of its shelf; where tiles share one, what its rows take there.
  size_t bytes() const { return own_ ? own_->bytes() : rows_ * layout().row_bytes(); }
  Shelf& shelf() const { return *shelf_; }
  RowView view() const { return shelf_->view(); }

  // Whether rows are found through an index, not by their position.
  bool indexed() const { return indexed_; }

  // The id at a position (static) or the id itself (dynamic).
  uint64_t id_of(uint64_t position) const {
    return spec_.dynamic() ? position : ff::id_of(position, spec_.bucket, spec_.buckets, salt_);
  }

  // Whether an id of the table lives here.
  bool owns(uint64_t id) const {
    if (spec_.dynamic()) return bucket_of_dynamic(id, spec_.buckets, salt_) == spec_.bucket;
    return id < static_cast<uint64_t>(spec_.rows) &&
           bucket_of_static(id, spec_.buckets, salt_) == spec_.bucket;
  }

  // Without an index: the slot of a position, whether born or not.
  uint32_t slot_of(uint64_t position) const {
    const uint64_t block = per_block_.quotient(position);
    return static_cast<uint32_t>(block << layout().shift | (position - block * layout().rows));
  }
  bool born(uint64_t position) const { return born_bits()[position >> 6] >> (position & 63) & 1; }
  FF_INLINE void ask_born(uint64_t position) const {
    __builtin_prefetch(born_bits() + (position >> 6));
  }
  bool complete() const { return rows_ == positions_; }

  // Without an index: memory for the row at `slot`, counted as born. The caller writes it with
  // bear() before anyone reads it. Throws BudgetError. drop() takes it back.
  void claim(uint64_t position, uint32_t slot);
  void drop(uint64_t position);
  // With an index the shelf gives memory, and the caller says how many rows there are.
  void count(int64_t more) { rows_ += more; }

  // Writes first weights, state and metadata of the row, whose weights lie at `weights`.
  void bear(uint64_t id, char* weights, uint32_t slot, uint16_t time = 0) const;
  // First weights of a row, (dim,) of the tile's dtype.
  void bear_weights(uint64_t id, void* weights) const;
  // The whole row without gaps, as Pad::read gives it.
  void bear_record(uint64_t id, char* record) const;

 private:
  uint64_t* born_bits() const { return static_cast<uint64_t*>(born_.data()); }
  void bear_state(char* state, char* row_state) const;
  RowLayout divided(size_t block_limit) const;
  uint64_t blocks_needed(const RowLayout& layout) const;

  TileSpec spec_;
  Pool& pool_;
  uint64_t salt_, table_key_;
  uint64_t positions_;
  bool indexed_;
  std::unique_ptr<Shelf> own_;
  Shelf* shelf_;
  Divisor per_block_;  // rows per block
  Mapping born_;       // without an index: a bit per position
  size_t rows_ = 0, charged_ = 0;
};

}  // namespace ff
