// How the rows of a tile lie in a block.
//
//   block   | weights of row 0, 1, ...    | element state of row 0, ... | tail of row 0, ... |
//   tail    | row state (0 or 1 float) | time u16 | score u16 |
//
// Weights lie together, so a gather touches the lines of the weights and nothing else. A row
// is named by a 32-bit slot: number of the block in the tile << shift | row in the block. Rows per
// block are whatever fits, not a power of two, so that little is wasted.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "half.h"

namespace ff {

struct Meta {
  uint16_t time;
  uint16_t score;
};

// Distance between vectors of `bytes`: a power of two up to 16, then a multiple of 16, or whole
// cache lines where that costs at most an eighth.
constexpr size_t stride_of(size_t bytes) {
  if (bytes <= 16) return std::bit_ceil(bytes);
  const size_t lines = (bytes + 63) / 64 * 64;
  return lines - bytes <= bytes / 8 ? lines : (bytes + 15) / 16 * 16;
}

struct RowLayout {
  uint32_t dim = 0;
  Dtype dtype = Dtype::fp32;
  uint32_t element_states = 0, row_states = 0;
  uint32_t weight_stride = 0, state_stride = 0, tail_stride = 0;  // bytes
  size_t block_bytes = 0;
  uint32_t rows = 0;  // per block
  uint32_t shift = 0;
  size_t state_offset = 0, tail_offset = 0;  // in a block

  static RowLayout of(uint32_t dim, Dtype dtype, uint32_t element_states, uint32_t row_states) {
    RowLayout layout;
    layout.dim = dim;
    layout.dtype = dtype;
    layout.element_states = element_states;
    layout.row_states = row_states;
    layout.weight_stride = static_cast<uint32_t>(stride_of(size_t{dim} * bytes_of(dtype)));
    layout.state_stride = element_states == 0
                              ? 0
                              : static_cast<uint32_t>(stride_of(size_t{dim} * 4 * element_states));
    layout.tail_stride = 4 * row_states + static_cast<uint32_t>(sizeof(Meta));
    return layout;
  }

  size_t row_bytes() const { return size_t{weight_stride} + state_stride + tail_stride; }

  // Fixes the block size; false if not even one row fits.
  bool divide(size_t bytes) {
    block_bytes = bytes;
    rows = static_cast<uint32_t>(bytes / row_bytes());
    while (rows > 0 && end(rows) > bytes) --rows;
    state_offset = align(size_t{rows} * weight_stride);
    tail_offset = align(state_offset + size_t{rows} * state_stride);
    shift = rows <= 1 ? 0 : static_cast<uint32_t>(std::bit_width(rows - 1));
    return rows > 0;
  }

 private:
  static size_t align(size_t offset) { return (offset + 63) / 64 * 64; }
  size_t end(size_t n) const {
    return align(align(n * weight_stride) + n * state_stride) + n * tail_stride;
  }
};

// The rows of a tile, as the loops see them: plain numbers, copied into registers.
struct RowView {
  char* const* blocks;
  uint32_t shift, mask;
  uint32_t weight_stride, state_stride, tail_stride;
  size_t state_offset, tail_offset;

  char* weights(uint32_t slot) const {
    return blocks[slot >> shift] + size_t{slot & mask} * weight_stride;
  }
  char* state(uint32_t slot) const {
    return blocks[slot >> shift] + state_offset + size_t{slot & mask} * state_stride;
  }
  char* tail(uint32_t slot) const {
    return blocks[slot >> shift] + tail_offset + size_t{slot & mask} * tail_stride;
  }
};

}  // namespace ff
