// Rows in registers: N floats as one vector, loaded from and stored to any element type.
//
// GCC's vector extensions, so the same source becomes AVX-512, AVX2, NEON or plain code.
// Conversions are those of half.h, bit for bit; a test compares them over all 16-bit values.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"

namespace ff {

#ifdef __AVX512F__
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif

// GCC 12 cannot convert vectors of a dependent type, so each width is spelled out.
template <int N>
struct Vectors;

#define FF_VECTORS(N)                                                    \
  template <>                                                            \
  struct Vectors<N> {                                                    \
    typedef float F __attribute__((vector_size(N * 4)));                 \
    typedef uint32_t U __attribute__((vector_size(N * 4)));              \
    typedef uint16_t H __attribute__((vector_size(N * 2)));              \
    static FF_HD U widen(H h) { return __builtin_convertvector(h, U); }  \
    static FF_HD H narrow(U u) { return __builtin_convertvector(u, H); } \
  };
FF_VECTORS(1)
FF_VECTORS(2)
FF_VECTORS(4)
FF_VECTORS(8)
FF_VECTORS(16)
#undef FF_VECTORS

template <int N>
struct Lanes : Vectors<N> {
  using typename Vectors<N>::F, typename Vectors<N>::U, typename Vectors<N>::H;

  static FF_HD F load(const float* from) {
    F x;
    memcpy(&x, from, sizeof x);
    return x;
  }

  template <class T>
  static FF_HD F load(const T* from) {
    H h;
    memcpy(&h, from, sizeof h);
    return Half<T>::template widen<F>(Vectors<N>::widen(h));
  }

  static FF_HD void store(float* to, F x) { memcpy(to, &x, sizeof x); }

  template <class T>
  static FF_HD void store(T* to, F x) {
    const H h = Vectors<N>::narrow(Half<T>::template nearest<U>(x));
    memcpy(to, &h, sizeof h);
  }
};

// C columns of a row as fp32 accumulators, C a power of two.
template <int C>
struct Columns {
  static constexpr int kWide = C < kLanes ? C : kLanes;
  using L = Lanes<kWide>;
  typename L::F part[C / kWide] = {};

  template <class T>
  FF_HD void load(const T* from) {
    for (int i = 0; i < C / kWide; ++i) part[i] = L::load(from + i * kWide);
  }

  template <class T>
  FF_HD void add(const T* from) {
    for (int i = 0; i < C / kWide; ++i) part[i] += L::load(from + i * kWide);
  }

  template <class T>
  FF_HD void add(const T* from, float weight) {
    for (int i = 0; i < C / kWide; ++i) part[i] += L::load(from + i * kWide) * weight;
  }

  FF_HD void scale(float by) {
    for (int i = 0; i < C / kWide; ++i) part[i] *= by;
  }

  template <class T>
  FF_HD void store(T* to) const {
    for (int i = 0; i < C / kWide; ++i) L::store(to + i * kWide, part[i]);
  }
};

// Calls f<C>(column) over [0, width) in the fewest powers of two up to 128.
template <int C = 128, class F>
FF_HD void for_columns(uint32_t width, F&& f, uint32_t column = 0) {
  for (; width - column >= C; column += C) f.template operator()<C>(column);
  if constexpr (C > 1) {
    if (column < width) for_columns<C / 2>(width, f, column);
  }
}

}  // namespace ff
