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

}  // namespace ff
