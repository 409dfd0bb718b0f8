// Arguments of the kernels in distinct.cu.
#pragma once

#include "config.h"

namespace ff {

constexpr uint32_t DISTINCT_THREADS = 256;
constexpr uint32_t NO_POSITION = 0xffffffffu;

// An id is named by its position in the batch; positions that `taken` excludes are in no list.
struct DistinctArgs {
  const uint64_t* ids;    // (n,)
  const uint32_t* taken;  // (n,), or null: a position counts only where this is 2^32 - 1
  const uint64_t* first;  // (segments + 1,), or null: equal ids of two segments are two
  uint64_t n, segments;
  uint32_t* table;        // (mask + 1,): a position of an id, in the end its first one
  uint32_t* seen;         // (n,): entry of the table, then first position; 2^32 - 1: excluded
  uint32_t* number;       // (n,): 1 at first positions, then how many come before
  const uint32_t* total;  // (1,): distinct ids
  uint64_t mask;
  uint64_t* distinct;       // (n,) out
  uint32_t* inverse;        // (n,) out
  uint32_t* count;          // (n,) out, zeros before, or null
  uint32_t* segment_first;  // (segments + 1,) out, or null
};

}  // namespace ff
