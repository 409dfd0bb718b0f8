// Arguments of the kernels in wire.cu.
#pragma once

#include "config.h"

namespace ff {

constexpr uint32_t WIRE_THREADS = 256;
constexpr uint32_t WIRE_LANE = 8;  // elements that a thread takes at once: 16 bytes of 16-bit ones

struct WireArgs {
  const void* from;        // (n,)
  void* to;                // (n,)
  const uint32_t* random;  // (n,), of stochastic rounding
  uint64_t n;
  uint64_t whole;  // elements in whole lanes; the others one by one. 0 if an address is not aligned
};

}  // namespace ff
