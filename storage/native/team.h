// For kernels on rows: a team of lanes that works on one row, and what its lanes load and store.
#pragma once

#include "half.h"
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

  // In a tree; all lanes get it.
  FF_DEVICE float sum(float x) const {
    const uint32_t members = mask();
    for (uint32_t step = lanes() / 2; step > 0; step /= 2) x += __shfl_xor_sync(members, x, step);
    return x;
  }

  // What its first lane has.
  FF_DEVICE float first(float x) const { return __shfl_sync(mask(), x, 0, lanes()); }

 private:
  FF_DEVICE uint32_t mask() const {
    const uint32_t first = threadIdx.x & (WARP - 1) & ~(lanes() - 1);
    return (ALL_LANES >> (WARP - lanes())) << first;
  }
};

// V columns as they lie in memory: 4 or 1. A lane asks for TOGETHER before it uses the first.
template <class T, int V>
struct Columns {
  static constexpr uint32_t TOGETHER = 8;
  T value;

  FF_DEVICE static Columns load(const T* p) { return {*p}; }
  FF_DEVICE void widen(float (&x)[V]) const { x[0] = to_float(value); }
};

template <>
struct Columns<float, 4> {
  static constexpr uint32_t TOGETHER = 4;
  float4 value;

  FF_DEVICE static Columns load(const float* p) { return {*reinterpret_cast<const float4*>(p)}; }
  FF_DEVICE void widen(float (&x)[4]) const {
    x[0] = value.x;
    x[1] = value.y;
    x[2] = value.z;
    x[3] = value.w;
  }
};

template <class T>
struct Columns<T, 4> {
  static constexpr uint32_t TOGETHER = 8;
  uint2 value;

  FF_DEVICE static Columns load(const T* p) { return {*reinterpret_cast<const uint2*>(p)}; }
  FF_DEVICE void widen(float (&x)[4]) const {
    x[0] = to_float(T{static_cast<uint16_t>(value.x)});
    x[1] = to_float(T{static_cast<uint16_t>(value.x >> 16)});
    x[2] = to_float(T{static_cast<uint16_t>(value.y)});
    x[3] = to_float(T{static_cast<uint16_t>(value.y >> 16)});
  }
};

template <class T, int V>
FF_DEVICE void load(const T* p, float (&x)[V]) {
  Columns<T, V>::load(p).widen(x);
}

template <int V>
FF_DEVICE void write(float* p, const float (&x)[V]) {
  if constexpr (V == 4)
    *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
  else
    *p = x[0];
}

template <class T, int V>
FF_DEVICE void write(T* p, const T (&x)[V]) {
  if constexpr (V == 4)
    *reinterpret_cast<uint2*>(p) = make_uint2(x[0].bits | static_cast<uint32_t>(x[1].bits) << 16,
                                              x[2].bits | static_cast<uint32_t>(x[3].bits) << 16);
  else
    *p = x[0];
}

// To nearest.
template <class T, int V>
FF_DEVICE void write_nearest(T* p, const float (&x)[V]) {
  T rounded[V];
#pragma unroll
  for (int k = 0; k < V; ++k) rounded[k] = nearest<T>(x[k]);
  write(p, rounded);
}

}  // namespace ff
