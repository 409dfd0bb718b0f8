// Sums over the threads of a block.
#pragma once

#include "kernel.h"

namespace ff {

// The sum of `value` over the lanes before this one, and with it.
FF_DEVICE uint32_t warp_inclusive(uint32_t value) {
  const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
  for (uint32_t step = 1; step < WARP; step *= 2) {
    const uint32_t before = __shfl_up_sync(ALL_LANES, value, step);
    if (lane >= step) value += before;
  }
  return value;
}

// The sum of `value` over the threads before this one. All threads of the block, a multiple of 32,
// must come. sums: shared, one element more than the block has warps; the last one is the total,
// until this thread calls again: nobody writes it before all have.
template <uint32_t THREADS>
FF_DEVICE uint32_t block_exclusive(uint32_t value, uint32_t* sums) {
  constexpr uint32_t WARPS = THREADS / WARP;
  const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const uint32_t inclusive = warp_inclusive(value);
  __syncwarp(ALL_LANES);  // the warp's own sum may still be read; the others' are not
  if (lane == WARP - 1) sums[warp] = inclusive;
  __syncthreads();
  if (warp == 0) {
    const uint32_t sum = lane < WARPS ? sums[lane] : 0;
    const uint32_t until = warp_inclusive(sum);
    if (lane < WARPS) sums[lane] = until - sum;
    if (lane == WARPS - 1) sums[WARPS] = until;
  }
  __syncthreads();
  return sums[warp] + inclusive - value;
}

}  // namespace ff
