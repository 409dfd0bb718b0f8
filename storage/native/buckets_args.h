// Arguments of the kernels in buckets.cu and group.cu.
#pragma once

#include "hash.h"

namespace ff {

constexpr uint32_t PLACE_THREADS = 256;

struct HashArgs {
  const uint64_t* raw;  // (n,)
  uint64_t* ids;        // (n,) out; may be `raw`
  uint64_t n, limit;
};

struct BucketsArgs {
  Placer placer;
  const int64_t* ids;  // (n,)
  uint64_t n, buckets;
  uint32_t* bucket;        // (n,) out
  uint64_t* unsorted;      // (n,): position of each id
  const uint32_t* sorted;  // (n,): buckets, rising
  const uint32_t* order;   // (n,): whose they are
  uint64_t* position;      // (n,) out, by bucket
  uint32_t* place;         // (n,) out
  uint32_t* bucket_first;  // (buckets + 1,) out
};

struct GroupArgs {
  const uint32_t* sorted;  // (n,): slots, rising, those without a row last
  uint64_t n;
  uint32_t* number;        // (n,): 1 where a group begins, then how many begin before
  const uint32_t* groups;  // (1,)
  uint32_t* group_slot;    // (n,) out
  uint32_t* group_first;   // (n + 1,) out
  uint32_t* entries;       // (1,) out
};

}  // namespace ff
