// Arguments of the kernels in sort.cu.
#pragma once

#include "config.h"

namespace ff {

constexpr uint32_t SORT_DIGIT = 8;  // bits
constexpr uint32_t SORT_DIGITS = 1 << SORT_DIGIT;
constexpr uint32_t SORT_THREADS = 256;
constexpr uint32_t SORT_ITEMS = 16;  // of a thread
constexpr uint32_t SORT_TILE = SORT_THREADS * SORT_ITEMS;

// One pass over a digit.
struct SortArgs {
  const uint32_t* keys;    // (n,)
  const uint32_t* values;  // (n,), or null: 0, 1, 2, ...
  uint32_t* keys_out;      // (n,)
  uint32_t* values_out;    // (n,)
  uint32_t* counts;        // (digits, tiles): of each digit in each tile, then before it
  uint64_t n, tiles, shift;
};

}  // namespace ff
