// The hash of the key index, on CPUs and GPUs.
#pragma once

#include "config.h"

namespace ff {

// A bijective 64-bit mixer ("moremur", Pelle Evensen 2019), unrelated to hash.h's: which rank or
// bucket of a table a key belongs to says nothing about its place here.
FF_HD uint64_t index_hash(uint64_t x) {
  x = (x ^ (x >> 27)) * 0x3c79ac492ba7b653ull;
  x = (x ^ (x >> 33)) * 0x1c69b3f74ac4ae35ull;
  return x ^ (x >> 27);
}

}  // namespace ff
