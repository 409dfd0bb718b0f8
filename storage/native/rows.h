// How the rows of a tile lie in a block.
//
//   | weights of row 0, 1, ... | element state of row 0, 1, ... | row state ... | metadata ... |
//
// Each kind lies together, so that a gather touches the lines of weights and nothing else, and an
// update the lines of weights and state: many row states (one float) share a line. A row
// is named by a 32-bit slot: number of the block in the tile << shift | row in the block. Rows per
// block are whatever fits, not a power of two, so that little is wasted.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "half.h"
#include "row_view.h"

namespace ff {

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
  uint32_t weight_stride = 0, state_stride = 0, row_state_stride = 0;  // bytes
  size_t block_bytes = 0;
  uint32_t rows = 0;  // per block
  uint32_t shift = 0;
  size_t state_offset = 0, row_state_offset = 0, meta_offset = 0;  // in a block

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
    layout.row_state_stride = 4 * row_states;
    return layout;
  }

  // Whether rows are the same, however they are divided into blocks.
  bool same_rows(const RowLayout& other) const {
    return dim == other.dim && dtype == other.dtype && element_states == other.element_states &&
           row_states == other.row_states;
  }

  size_t row_bytes() const {
    return size_t{weight_stride} + state_stride + row_state_stride + sizeof(Meta);
  }

  // A row without gaps: weights, element state, row state, metadata.
  size_t record_bytes() const {
    return size_t{dim} * (bytes_of(dtype) + 4 * element_states) + row_state_stride + sizeof(Meta);
  }

  // Bytes of the pages that metadata of a block lies on where it is not in the block.
  size_t meta_pages() const {
    constexpr size_t PAGE = 4096;
    return (rows * sizeof(Meta) + PAGE - 1) / PAGE * PAGE;
  }

  // Fixes the block size; false if not even one row fits.
  bool divide(size_t bytes) {
    block_bytes = bytes;
    rows = static_cast<uint32_t>(bytes / row_bytes());
    while (rows > 0 && place(rows) > bytes) --rows;
    place(rows);
    shift = rows <= 1 ? 0 : static_cast<uint32_t>(std::bit_width(rows - 1));
    return rows > 0;
  }

 private:
  static size_t align(size_t offset) { return (offset + 63) / 64 * 64; }

  // Lays out n rows; returns where they end.
  size_t place(size_t n) {
    state_offset = align(n * weight_stride);
    row_state_offset = align(state_offset + n * state_stride);
    meta_offset = align(row_state_offset + n * row_state_stride);
    return meta_offset + n * sizeof(Meta);
  }
};

}  // namespace ff
