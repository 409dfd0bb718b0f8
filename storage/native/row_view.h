// Where the parts of a row lie, for loops and kernels: the tile's numbers, and the row's slot or
// the address of its weights. Rows of a GPU have their blocks in its memory, but neither the
// directory of these nor their metadata, which lies in memory of the host, a fixed way off from the
// start of the block: at one place whatever the rows, so that blocks which change hands take no
// more pages than those of the smallest rows.
#pragma once

#include "half.h"

namespace ff {

// Read and written as a whole where another thread may do so too.
struct alignas(4) Meta {
  uint16_t time;
  uint16_t score;

#ifndef __CUDACC__
  Meta load() const {
    Meta copy;
    __atomic_load(this, &copy, __ATOMIC_RELAXED);
    return copy;
  }
  void store(Meta value) { __atomic_store(this, &value, __ATOMIC_RELAXED); }
#endif
};
static_assert(sizeof(Meta) == 4);

// The rows of a tile, as the loops see them: plain numbers, copied into registers.
struct RowView {
  char* const* blocks;
  uint32_t shift, mask;
  uint64_t block_bytes;  // blocks are aligned to it
  uint32_t weight_stride, state_stride, row_state_stride;
  uint64_t state_offset, row_state_offset, meta_offset;  // the last may lead far out of the block

  FF_HD char* weights(uint32_t slot) const {
    return blocks[slot >> shift] + uint64_t{slot & mask} * weight_stride;
  }
  FF_HD char* state(uint32_t slot) const {
    return blocks[slot >> shift] + state_offset + uint64_t{slot & mask} * state_stride;
  }
  FF_HD char* row_state(uint32_t slot) const {
    return blocks[slot >> shift] + row_state_offset + uint64_t{slot & mask} * row_state_stride;
  }
  // The same from the address of the weights, without a look into the directory.
  FF_HD char* state(char* weights, uint32_t slot) const {
    return block_of(weights) + state_offset + uint64_t{slot & mask} * state_stride;
  }
  template <int row_states>
  FF_HD float* row_state(char* weights, uint32_t slot) const {
    char* const first = block_of(weights) + row_state_offset;
    return reinterpret_cast<float*>(first) + uint64_t{slot & mask} * row_states;
  }
  FF_HD char* row_state(char* weights, uint32_t slot) const {
    return block_of(weights) + row_state_offset + uint64_t{slot & mask} * row_state_stride;
  }
  FF_HD Meta* meta(char* weights, uint32_t slot) const {
    const uint64_t first = reinterpret_cast<uint64_t>(block_of(weights)) + meta_offset;
    return reinterpret_cast<Meta*>(first) + (slot & mask);
  }
  FF_HD Meta* meta(uint32_t slot) const { return meta(blocks[slot >> shift], slot); }

 private:
  FF_HD char* block_of(char* weights) const {
    return reinterpret_cast<char*>(reinterpret_cast<uint64_t>(weights) & ~(block_bytes - 1));
  }
};

}  // namespace ff
