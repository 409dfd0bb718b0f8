// Rows of one layout, in blocks of the pool.
//
// A row is named by a slot: block number << shift | row in the block. Blocks never move and their
// directory is reserved at full size, so that rows may come on one thread while others are read
// and written on another. A block goes back to the pool with its last row.
//
// Rows lie where there is room (take, give), or at slots of the caller's choice (occupy, vacate);
// a shelf is used in one of the two ways. The memory of rows is never touched here.
#pragma once

#include <string>
#include <vector>

#include "mapping.h"
#include "pool.h"
#include "rows.h"

namespace ff {

class Shelf {
 public:
  static constexpr uint32_t NONE = 0xffffffffu;

  // `layout` is divided into blocks. Beside its rows a shelf can keep `side_bytes` per slot, zeroed
  // at first; set_aside() charges them. Metadata that lies elsewhere (row_view.h) is charged there,
  // too, or with the blocks of a shelf that keeps nothing else, and then given back with them.
  Shelf(const RowLayout& layout, Pool& pool, std::string owner, uint64_t max_blocks,
        size_t side_bytes = 0);
  ~Shelf();
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  const RowLayout& layout() const { return layout_; }
  RowView view() const {
    const RowLayout& l = layout_;
    const uint64_t elsewhere = pool_.meta_shift();
    return {directory(),         l.shift,
            (1u << l.shift) - 1, l.block_bytes,
            l.weight_stride,     l.state_stride,
            l.row_state_stride,  l.state_offset,
            l.row_state_offset,  elsewhere == 0 ? l.meta_offset : elsewhere};
  }
  size_t rows() const { return rows_; }
  size_t bytes() const { return blocks_ * layout_.block_bytes; }
  // Most blocks that slots of this layout can name; the last slot is NONE, so its block is unused.
  static uint64_t nameable(const RowLayout& layout) {
    return (uint64_t{1} << (32 - layout.shift)) - 1;
  }
  // The size of blocks for such rows, a power of two: small beside the budget, and so few that what
  // is known of each stays in cache.
  static size_t block_for(size_t row_bytes, size_t budget);
  // Charges, before any block is taken, what may lie beside the rows of shelves with such layouts:
  // `side_bytes` per slot, `bytes_per_row` elsewhere, and metadata that is not in the block. Then
  // any shelf can have any block. Returns the share of the budget that is left for blocks.
  static double set_aside(Pool& pool, const std::vector<RowLayout>& layouts, size_t side_bytes,
                          size_t bytes_per_row, const std::string& owner);

  // A slot for a new row, NONE when memory is out.
  uint32_t take() { return take(nullptr); }
  // The same; BudgetError when memory is out, which names the `owner` of the row.
  uint32_t take_for(const std::string& owner) { return take(&owner); }
  // Whether take() needs no new block.
  bool has_room() const { return !free_.empty() || (filling_ != NONE && filled_ < layout_.rows); }
  // How many times take() needs no new block.
  size_t vacant() const { return open_blocks_ * layout_.rows - open_rows_; }
  // Takes a row back. The slot that was given last is taken first: what lies beside it is in cache.
  void give(uint32_t slot);

  // Takes no more rows into the blocks with the fewest rows, until `bytes` would be free if theirs
  // left: blocks that are being emptied already count. Gives the new ones.
  std::vector<uint32_t> empty_out(size_t bytes);
  bool leaving(uint32_t slot) const { return leaving_[slot >> layout_.shift]; }

  // Memory at a slot of the caller's choice. Throws BudgetError.
  void occupy(uint32_t slot);
  void vacate(uint32_t slot);

  // What is kept beside slots, by slot: an array of T, which comes after others whose elements
  // have `before` bytes together.
  template <class T>
  T* side(size_t before = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(side_.data()) +
                                (max_blocks_ << layout_.shift) * before);
  }
  // The slot that take() gives after `n` others if nothing is given back, or NONE: a guess.
  uint32_t next(size_t n) const {
    return n < free_.size() ? free_[free_.size() - 1 - n].slot : NONE;
  }
  // Every slot ever handed out lies below; blocks with rows are held().
  uint64_t extent() const { return uint64_t{live_.size()} << layout_.shift; }
  bool held(uint32_t block) const { return directory()[block] != nullptr; }
  uint32_t live(uint32_t block) const { return live_[block]; }

 private:
  static size_t beside_block(const RowLayout& layout, const Pool& pool) {
    return pool.meta_shift() == 0 ? 0 : layout.meta_pages();
  }
  char** directory() const { return static_cast<char**>(directory_.data()); }
  struct Free {
    uint32_t slot, times_left;
  };

  uint32_t take(const std::string* owner);
  bool start_block(const std::string* owner);
  bool take_block(uint32_t block, const std::string* owner);
  void leave_block(uint32_t block);
  void forget_left();

  RowLayout layout_;
  Pool& pool_;
  std::string owner_;
  uint64_t max_blocks_;
  size_t beside_block_;  // charged with each
  Mapping directory_;    // address of every block; address space for all, so it never moves
  Mapping side_;
  size_t rows_ = 0, blocks_ = 0;
  std::vector<uint32_t> live_;              // rows in each block
  std::vector<bool> leaving_;               // blocks that are being emptied
  size_t open_blocks_ = 0, open_rows_ = 0;  // the other blocks

  // Where new rows go.
  std::vector<Free> free_;            // slots given back, and some whose block has left since
  std::vector<uint32_t> times_left_;  // how often each block went back to the pool
  std::vector<uint32_t> empty_;       // block numbers without memory
  uint32_t filling_ = NONE;           // the block that has never-used rows
  uint32_t filled_ = 0;               // rows handed out there
};

}  // namespace ff
