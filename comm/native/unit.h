// The job of a warp.
#pragma once

#include "kernel.h"

namespace ff {

// The unit of this warp, and the job that it is a unit of. All lanes of the warp call it.
struct Unit {
  uint32_t lane, job, number;  // number: within the job

  // False for a warp beyond the last unit.
  FF_DEVICE bool find(const uint32_t* first_unit, uint32_t jobs, uint32_t units) {
    lane = threadIdx.x % WARP;
    const uint32_t unit = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (unit >= units) return false;
    job = 0;
    for (uint32_t j = 1; j < jobs; j += WARP) {
      const uint32_t begun =
          __ballot_sync(ALL_LANES, j + lane < jobs && first_unit[j + lane] <= unit);
      job += __popc(begun);
      if (begun != ALL_LANES) break;
    }
    number = unit - first_unit[job];
    return true;
  }
};

}  // namespace ff
