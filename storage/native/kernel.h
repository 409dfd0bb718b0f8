// What every .cu file begins with. A kernel takes one struct, by value:
//
//   FF_KERNEL(scale_rows, ScaleArgs, 256) { ... args.rows ... }
//
// declares the kernel "scale_rows" for blocks of 256 threads. The struct lies in a header that the
// C++ code which launches the kernel includes, too (device.h). Kernels are compiled by NVRTC, or
// nvcc; and, so that tests need no GPU, by the C++ compiler against a header that stands in for the
// words of CUDA (tests/gpu/cuda_on_cpu.h).
#pragma once

#include "config.h"

#ifdef __CUDACC__
#define FF_DEVICE __device__ __forceinline__
#define FF_KERNEL(name, Args, threads) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args args)
#else
#include "cuda_on_cpu.h"
#endif

namespace ff {

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;

#ifdef __CUDACC__
// Begins to copy BYTES = 4, 8 or 16, aligned to as many, from memory of the device to shared
// memory, where this thread finds them after finish_copies().
template <int BYTES>
FF_DEVICE void begin_copy(void* shared, const void* from) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint64_t at = __cvta_generic_to_global(from);
  if constexpr (BYTES == 16)  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(at) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(at), "n"(BYTES)
                 : "memory");
}
FF_DEVICE void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

}  // namespace ff
