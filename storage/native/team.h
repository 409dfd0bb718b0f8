// For kernels on rows: a team of lanes that works on one row.
#pragma once

#include "kernel.h"

// Threads of a block; and blocks that a multiprocessor shall hold, which is half of the threads
// that it can have and leaves each 64 registers.
#ifdef __CUDACC__
#define FF_ROW_BOUNDS ROW_THREADS, 8
#else
#define FF_ROW_BOUNDS ROW_THREADS
#endif

namespace ff {

// 1, 2, 4, ... or 32 lanes of a warp. What it is asked for is worked out anew, to save registers.
struct Team {
  uint32_t log;  // of the number of lanes

  // As many lanes as `parts` of a row need.
  FF_DEVICE explicit Team(uint32_t parts) : log(0) {
    while (log < 5 && (1u << log) < parts) ++log;
  }

  FF_DEVICE uint32_t lanes() const { return 1u << log; }
  FF_DEVICE uint32_t lane() const { return threadIdx.x & (lanes() - 1); }
  // Which team of the block this is, and how many there are.
  FF_DEVICE uint32_t number() const { return threadIdx.x >> log; }
  FF_DEVICE uint32_t count() const { return blockDim.x >> log; }

  // In a tree; all lanes get it. All lanes of the warp come to both, with whatever team: before a
  // shuffle among lanes that the compiler does not know it asks whether they are there.
  FF_DEVICE float sum(float x) const {
    for (uint32_t step = lanes() / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
  }

  // What its first lane has.
  FF_DEVICE float first(float x) const { return __shfl_sync(ALL_LANES, x, 0, lanes()); }
};

}  // namespace ff
