// Ids of a batch by bucket, and positions of a batch by slot, in the memory of a GPU.
#pragma once

#include <utility>

#include "device_sort.h"
#include "hash.h"

namespace ff {

// ids[i] = what stands for raw[i] in a table of `limit` ids that hashes them.
void hash_ids(const Stream& stream,
              const uint64_t* raw,  // (n,)
              uint64_t* ids,        // (n,) out; may be `raw`
              size_t n, uint64_t limit);

// Not thread-safe, and its calls are on one stream or wait for each other: memory is kept.
class DeviceBuckets {
 public:
  // Deals ids to the buckets of placer.place.by.divisor, as comm's router does: within a bucket
  // they keep their order.
  void deal(const Stream& stream, const Placer& placer,
            const int64_t* ids,       // (n,), of the table: nobody checks that here
            size_t n,                 // below 2^32
            uint32_t* bucket,         // (n,) out: of each id
            uint32_t* place,          // (n,) out: where it is in `position`
            uint64_t* position,       // (n,) out: position in its bucket, or id, bucket by bucket
            uint32_t* bucket_first);  // (buckets + 1,) out: where each bucket begins there

  size_t bytes() const {
    return sorted_.bytes() + order_.bytes() + positions_.bytes() + sort_.bytes();
  }

 private:
  DeviceSort sort_;
  DeviceMemory sorted_, order_, positions_;
};

// Not thread-safe, and its calls are on one stream or wait for each other: memory is kept.
class DeviceGroups {
 public:
  // Groups positions by slot, slots rising, positions of a group rising; where the slot is 2^32 - 1
  // a position is in no group.
  void group(
      const Stream& stream,
      const uint32_t* slots,   // (n,): below `limit`, or 2^32 - 1
      size_t n,                // below 2^32
      uint32_t limit,          // fewer bits, fewer passes of the sort
      uint32_t* entry,         // (n,) out: positions, group by group, then those in none
      uint32_t* group_slot,    // (n,) out
      uint32_t* group_first);  // (n + 1,) out: where each group begins in `entry`, and the end

  // Groups and entries of the last batch; waits for the stream.
  std::pair<size_t, size_t> read_totals(const Stream& stream) const;

  size_t bytes() const {
    return sorted_.bytes() + number_.bytes() + totals_.bytes() + scan_.bytes() + sort_.bytes();
  }

 private:
  DeviceScan scan_;
  DeviceSort sort_;
  DeviceMemory sorted_, number_, totals_;
};

}  // namespace ff
