// Exclusive sums of an array in the memory of a GPU.
#pragma once

#include "device.h"

namespace ff {

// Not thread-safe, and its calls are on one stream or wait for each other: memory is kept.
class DeviceScan {
 public:
  // data[i] = the sum of data[0, i), modulo 2^32; total[0] = the sum of all.
  void exclusive(const Stream& stream,
                 uint32_t* data,  // (n,), aligned to 16 bytes
                 size_t n,
                 uint32_t* total);  // (1,) out

  size_t bytes() const { return sums_.bytes(); }

 private:
  DeviceMemory sums_;
};

}  // namespace ff
