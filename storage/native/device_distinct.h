// Distinct ids of a batch in the memory of a GPU.
#pragma once

#include "device_scan.h"

namespace ff {

// What a batch is asked for; addresses are of the device.
struct DistinctBatch {
  const uint64_t* ids = nullptr;    // (n,): any 64-bit values
  size_t n = 0;                     // below 2^30
  const uint64_t* first = nullptr;  // (segments + 1,), from 0 to n, or null: one segment
  size_t segments = 0;
  const uint32_t* taken = nullptr;  // (n,), or null: only ids where this is 2^32 - 1 count

  uint64_t* distinct = nullptr;  // (n,) out: segment by segment, in order of first occurrence
  uint32_t* inverse = nullptr;   // (n,) out: where each id is in `distinct`, or 2^32 - 1
  uint32_t* count = nullptr;     // (n,) out, or null: how often each of `distinct` occurs
  uint32_t* segment_first =
      nullptr;  // (segments + 1,) out, or null: where each begins in `distinct`
};

// Not thread-safe, and its calls are on one stream or wait for each other: memory is kept, 16 to 24
// bytes per id of the largest batch.
class DeviceDistinct {
 public:
  // Throws std::invalid_argument if a batch of n ids is too large.
  static void check(size_t n);

  // The same on every run, and as comm's distinct.h has it.
  void find(const Stream& stream, const DistinctBatch& batch);

  // Of the last batch: number of distinct ids, (1,) in the memory of the device, and of the host;
  // the latter waits for the stream.
  const uint32_t* total() const { return total_.as<uint32_t>(); }
  size_t read_total(const Stream& stream) const;
  // (n,): the first position of the id at each position; 2^32 - 1 where it did not count.
  const uint32_t* first_positions() const { return seen_.as<uint32_t>(); }

  size_t bytes() const {
    return table_.bytes() + seen_.bytes() + number_.bytes() + total_.bytes() + scan_.bytes();
  }

 private:
  DeviceScan scan_;
  DeviceMemory table_, seen_, number_, total_;
};

}  // namespace ff
