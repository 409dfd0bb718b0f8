#include "kernel.h"
#include "kernels.h"

namespace ff {
namespace {

FF_DEVICE uint32_t thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
FF_DEVICE uint32_t threads() { return gridDim.x * blockDim.x; }

}  // namespace

// out[block] = the sum of what its threads have read.
FF_KERNEL(test_sum, TestArgs, 256) {
  __shared__ uint32_t of_warp[8];
  uint32_t sum = 0;
  for (uint32_t i = thread(); i < args.count; i += threads()) sum += args.in[i];
  for (uint32_t delta = WARP / 2; delta > 0; delta /= 2)
    sum += __shfl_down_sync(ALL_LANES, sum, delta);
  if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x >= WARP) return;
  sum = threadIdx.x < blockDim.x / WARP ? of_warp[threadIdx.x] : 0;
  for (uint32_t flip = 4; flip > 0; flip /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, flip);
  if (threadIdx.x == 0) args.out[blockIdx.x] = sum;
}

// One block: out[0] = how many elements are odd, out[1 ...] = they, in their order.
FF_KERNEL(test_compact, TestArgs, 256) {
  __shared__ uint32_t of_warp[8];
  const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  uint32_t done = 0;
  for (uint32_t begin = 0; begin < args.count; begin += blockDim.x) {
    const uint32_t i = begin + threadIdx.x;
    const uint32_t value = i < args.count ? args.in[i] : 0;
    const uint32_t odd = __ballot_sync(ALL_LANES, value & 1);
    if (lane == 0) of_warp[warp] = __popc(odd);
    __syncthreads();
    uint32_t before = done + __popc(odd & ((1u << lane) - 1));
    for (uint32_t w = 0; w < blockDim.x / WARP; ++w) {
      if (w < warp) before += of_warp[w];
      done += of_warp[w];
    }
    if (value & 1) args.out[1 + before] = value;
    if (args.mode == 0) __syncthreads();  // else: a race that the order of warps decides
  }
  if (threadIdx.x == 0) args.out[0] = done;
}

// out[value] += 1 for values below 64.
FF_KERNEL(test_histogram, TestArgs, 256) {
  __shared__ uint32_t count[64];
  for (uint32_t v = threadIdx.x; v < 64; v += blockDim.x) count[v] = 0;
  __syncthreads();
  for (uint32_t i = thread(); i < args.count; i += threads()) atomicAdd(&count[args.in[i]], 1u);
  __syncthreads();
  for (uint32_t v = threadIdx.x; v < 64; v += blockDim.x)
    if (count[v] > 0) atomicAdd(&args.out[v], count[v]);
}

// out = in, by way of shared memory; mode 0 does not wait for what it copies there.
FF_KERNEL(test_copies, TestArgs, 256) {
  __shared__ uint4 ahead[256];
  if (4 * thread() + 4 > args.count) return;
  begin_copy<16>(ahead + threadIdx.x, args.in + 4 * thread());
  if (args.mode != 0) finish_copies();
  reinterpret_cast<uint4*>(args.out)[thread()] = ahead[threadIdx.x];
}

// A set of `mode` places, a power of two, in out; 0xffffffff is empty.
FF_KERNEL(test_insert, TestArgs, 256) {
  for (uint32_t i = thread(); i < args.count; i += threads()) {
    uint32_t at = (args.in[i] * 0x9e3779b1u) & (args.mode - 1);
    for (;;) {
      const uint32_t there = atomicCAS(&args.out[at], 0xffffffffu, args.in[i]);
      if (there == 0xffffffffu || there == args.in[i]) break;
      at = (at + 1) & (args.mode - 1);
    }
  }
}

// One warp, lanes part by the remainder of 3: out[lane] = the sum of their elements.
FF_KERNEL(test_parted, TestArgs, 32) {
  const uint32_t lane = threadIdx.x, part = lane % 3;
  const uint32_t mask = __match_any_sync(ALL_LANES, part);
  uint32_t sum = 0;
  if (part == 0) {
    for (uint32_t l = 0; l < WARP; l += 3) sum += __shfl_sync(mask, args.in[lane], l);
  } else if (part == 1) {
    for (uint32_t l = 1; l < WARP; l += 3) sum += __shfl_sync(mask, args.in[lane], l);
  } else {
    for (uint32_t l = 2; l < WARP; l += 3) sum += __shfl_sync(mask, args.in[lane], l);
  }
  __syncwarp(ALL_LANES);
  args.out[lane] = sum;
}

// One warp counts up under a lock, lane by lane.
FF_KERNEL(test_lock, TestArgs, 256) {
  uint32_t* const lock = args.out;
  bool done = false;
  while (!done) {
    if (atomicCAS(lock, 0u, 1u) == 0) {
      const uint32_t old = atomicAdd(&args.out[1], 0u);
      atomicExch(&args.out[1], old + 1);
      __threadfence();
      atomicExch(lock, 0u);
      done = true;
    }
  }
}

// out[t] = in[t - 1], by way of shared memory; without a barrier (`mode` 1) right if threads happen
// to go in order.
FF_KERNEL(test_shift, TestArgs, 256) {
  __shared__ uint32_t shared[256];
  const uint32_t t = threadIdx.x;
  shared[t] = args.in[t];
  if (args.mode == 0) __syncthreads();
  args.out[t] = t == 0 ? 0 : shared[t - 1];
}

// One thread waits until somebody writes to in[0].
FF_KERNEL(test_hold, TestArgs, 1) {
  while (*static_cast<const volatile uint32_t*>(args.in) == 0) {
  }
}

// What kernels must not do; `mode` says which.
FF_KERNEL(test_wrong, TestArgs, 64) {
  __shared__ uint32_t shared[64];
  const uint32_t t = threadIdx.x, far = args.count;
  shared[t] = t;
  if (args.mode == 0 && t == 3) return;                       // the barrier waits for it
  if (args.mode == 1 && t < 8) __shfl_sync(ALL_LANES, t, 0);  // eight lanes of all
  if (args.mode == 2 && t % 2) __syncwarp(0x55555555u);       // not in the mask
  if (args.mode == 3 && t == 5) args.out[far] = 1;
  if (args.mode == 4 && t == 6) args.out[0] = args.in[far];
  if (args.mode == 5 && t == 7) args.out[0] = shared[far];
  if (args.mode == 6 && t == 8)
    args.out[0] = *reinterpret_cast<const uint32_t*>(reinterpret_cast<const char*>(args.in) + 2);
  if (args.mode == 7 && t == 9) __trap();
  if (args.mode == 9) {  // the same meeting, at two places
    if (t < 16) __shfl_sync(ALL_LANES, t, 0);
    if (t >= 16) __shfl_sync(ALL_LANES, t, 0);
  }
  if (args.mode == 10 && t < 3) __shfl_sync(t == 0 ? 3u : 7u, t, 0);  // two masks
  if (args.mode == 8 && t < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

}  // namespace ff
