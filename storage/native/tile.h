// The rows of one held tile: blocks from the pool, who is born, and how rows are born.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "errors.h"
#include "hash.h"
#include "init.h"
#include "key.h"
#include "mapping.h"
#include "optimizer.h"
#include "pool.h"
#include "rows.h"

namespace ff {

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::sgd;
  float eps = 0, beta1 = 0, beta2 = 0, beta = 0, l1 = 0, l2 = 0;
  float initial = 0;  // first value of every accumulator

  int element_states() const;
  int row_states() const;
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

  bool dynamic() const { return rows < 0; }
  std::string label() const;  // "table 'user' (bucket 1 of 4, columns 0:64)"
};

class Tile {
 public:
  static constexpr uint32_t NONE = 0xffffffffu;

  // Blocks have at most `block_limit` bytes, unless a few rows need more.
  Tile(TileSpec spec, Pool& pool, size_t block_limit);
  ~Tile();
  Tile(const Tile&) = delete;
  Tile& operator=(const Tile&) = delete;

  const TileSpec& spec() const { return spec_; }
  const RowLayout& layout() const { return layout_; }
  uint64_t positions() const { return positions_; }  // of a static tile
  size_t rows() const { return rows_; }              // born
  size_t bytes() const { return blocks_ * layout_.block_bytes; }
  RowView view() const;

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

  // Static tiles: the slot of a position whether born or not, and the position of a slot.
  uint32_t slot_of(uint64_t position) const {
    const uint64_t block = per_block_.quotient(position);
    return static_cast<uint32_t>(block << layout_.shift | (position - block * layout_.rows));
  }
  uint64_t position_of(uint32_t slot) const {
    return uint64_t{slot >> layout_.shift} * layout_.rows + (slot & mask());
  }
  bool born(uint64_t position) const { return born_bits()[position >> 6] >> (position & 63) & 1; }
  bool complete() const { return rows_ == positions_; }

  // Memory for the row at `slot` of a static tile, or for a new row of a dynamic tile, counted as
  // born. The caller writes it with bear() before anyone reads it. Throws BudgetError.
  void claim(uint64_t position, uint32_t slot);
  uint32_t append();
  // Takes rows back: their memory serves other rows, or goes back to the pool with its block.
  void drop_static(uint64_t position);
  void drop_dynamic(uint32_t slot);

  // Writes first weights, state and metadata of the row.
  void bear(uint64_t id, uint32_t slot) const;
  // First weights of a row, (dim,) of the tile's dtype.
  void bear_weights(uint64_t id, void* weights) const;
  // The whole row without gaps, as Pad::read gives it.
  void bear_record(uint64_t id, char* record) const;

 private:
  uint32_t mask() const { return (1u << layout_.shift) - 1; }
  char** directory() const { return static_cast<char**>(directory_.data()); }
  uint64_t* born_bits() const { return static_cast<uint64_t*>(born_.data()); }
  void take_block(uint32_t block);
  void leave_block(uint32_t block);
  void start_block();
  void bear_state(char* state, char* row_state) const;
  size_t choose_block(size_t block_limit) const;

  TileSpec spec_;
  Pool& pool_;
  RowLayout layout_;
  uint64_t salt_, table_key_;
  uint64_t positions_ = 0;
  Divisor per_block_;  // rows per block
  Mapping directory_;  // address of every block; address space for all, so it never moves
  Mapping born_;       // static: a bit per position
  uint64_t max_blocks_ = 0;
  size_t rows_ = 0, blocks_ = 0, charged_ = 0;
  std::vector<uint32_t> live_;  // born rows in each block

  // Dynamic: where new rows go.
  std::vector<uint32_t>
      chain_;  // first free row of each block, linked through the metadata, or NONE
  std::vector<uint32_t> open_;   // every block with a chain (and perhaps some without)
  std::vector<uint32_t> empty_;  // block numbers without memory
  uint32_t filling_ = NONE;      // the block that has never-used rows
  uint32_t filled_ = 0;          // rows handed out there
};

}  // namespace ff
