// The one place that knows which compiler reads the shared headers: the C++ compiler, nvcc or
// NVRTC. Headers that include only this file (hash.h, half.h, init.h, optimizer.h, key.h,
// row_view.h) hold arithmetic: no allocation, no exceptions, no containers, no loops over the
// batch.
#pragma once

#ifdef __CUDACC_RTC__  // NVRTC has no <cstdint>
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef signed long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <math.h>
#include <stdint.h>
#include <string.h>
#endif

#ifdef __CUDACC__  // nvcc and NVRTC both define it
#define FF_HD __host__ __device__ __forceinline__
#else
#define FF_HD inline __attribute__((always_inline))
#endif

namespace ff {

// The same bits as another type of the same size, scalar or vector. memcpy is what every compiler
// here turns into nothing.
template <class To, class From>
FF_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// High 64 bits of a 128-bit product.
FF_HD uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

}  // namespace ff
