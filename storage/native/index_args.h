// The key index of a GPU as its kernels see it (index.cu), and their arguments. Words of 64 bits,
// so that no byte of what a kernel is given is left open.
#pragma once

#include "index_hash.h"

namespace ff {

constexpr uint32_t INDEX_THREADS = 256;

// Half a cache line, found at one place in memory.
struct alignas(64) IndexBucket {
  static constexpr uint32_t WAYS = 5;
  static constexpr uint32_t FULL = (1u << WAYS) - 1;
  static constexpr uint32_t PASSED = 1u << WAYS;   // one key more that has passed
  static constexpr uint32_t SLOT_WORD = 2 * WAYS;  // the first slot, in words of 32 bits

  uint64_t key[WAYS];
  uint32_t slot[WAYS];
  uint32_t state;  // a bit per way in use, and above them how many keys have passed: the overflow
};
static_assert(sizeof(IndexBucket) == 64);

// The buckets in which a key may be, in the order in which it tries them: all of them in the end,
// because their number is prime.
struct IndexPath {
  uint32_t at, step;
};

struct IndexArray {
  static constexpr uint32_t NONE = 0xffffffffu;  // no slot

  IndexBucket* buckets;
  uint64_t count;  // prime, below 2^32

  FF_HD IndexPath path(uint64_t key) const {
    const uint64_t hash = index_hash(key);
    const uint64_t low = hash & 0xffffffffu;  // the home depends on the high bits
    return {static_cast<uint32_t>(multiply_high(hash, count)),
            static_cast<uint32_t>(low * (count - 1) >> 32) + 1};
  }
  FF_HD void advance(IndexPath& path) const {
    const uint32_t left = static_cast<uint32_t>(count) - path.at;
    path.at = path.step < left ? path.at + path.step : path.step - left;
  }
};

struct FindArgs {
  IndexArray index;
  const uint64_t* keys;  // (n,)
  uint32_t* slots;       // (n,) out
  uint64_t n;
};

// Keys that are absent, and distinct.
struct InsertArgs {
  IndexArray index;
  const uint64_t* keys;        // (n,)
  const uint32_t* free_slots;  // (n,) slots of the keys, or null: first_slot, and so on
  uint64_t n;
  uint64_t first_slot;
};

// The slots of new keys for all positions that name them.
struct AnswerArgs {
  const uint32_t* number;      // (n,): of the new key at each position, or 2^32 - 1
  const uint32_t* free_slots;  // as above
  uint32_t* slots;             // (n,): filled in where there is a number
  uint64_t n;
  uint64_t first_slot;
};

// Keys that are distinct.
struct EraseArgs {
  IndexArray index;
  const uint64_t* keys;    // (distinct,)
  const uint32_t* total;   // (1,): how many
  uint32_t* found;         // (n,) out: the slot that a key had, or 2^32 - 1
  uint32_t* erased;        // (1,): rises by those that were there
  uint64_t n;              // at least *total
  const uint32_t* first;   // (n,): first position of the key at each position
  const uint32_t* number;  // (n,): which of the distinct keys it is
  uint32_t* slots;         // (n,) out
};

struct RehashArgs {
  IndexArray from, to;
};

struct ItemsArgs {
  IndexArray index;
  uint32_t* before;       // (buckets,): keys in each bucket, then before it
  uint64_t* keys;         // (size,) out
  uint32_t* slots;        // (size,) out
  const uint64_t* found;  // (size,): keys as they lie
  const uint32_t* order;  // (size,): by slot
  uint64_t n;
};

}  // namespace ff
