// Stable sort of pairs of 32-bit keys and values in the memory of a GPU.
#pragma once

#include "device_scan.h"

namespace ff {

// Not thread-safe, and its calls are on one stream or wait for each other: memory is kept.
class DeviceSort {
 public:
  // Sorts by at least the lowest `bits` of the keys, 8 per pass; equal ones keep their order. A
  // pass reads and writes 8 bytes per pair and reads the keys once more.
  void sort(const Stream& stream,
            const uint32_t* keys,    // (n,), n < 2^32
            const uint32_t* values,  // (n,), or null: 0, 1, 2, ...
            size_t n, uint32_t bits,
            uint32_t* sorted_keys,     // (n,) out
            uint32_t* sorted_values);  // (n,) out

  size_t bytes() const { return keys_.bytes() + values_.bytes() + counts_.bytes() + scan_.bytes(); }

 private:
  DeviceScan scan_;
  DeviceMemory keys_, values_, counts_;
};

}  // namespace ff
