// Lanes: W floats as one value, and the loads and stores of the three element types.
//
// GCC vectors, so the same source becomes AVX-512, AVX2 or NEON; loops that have no reduction do
// not need this and are left to the auto-vectoriser.
#pragma once

#include "half.h"

namespace ff {

template <int W>
struct LaneTypes;

template <>
struct LaneTypes<16> {
  typedef float F __attribute__((vector_size(64)));
  typedef uint32_t U __attribute__((vector_size(64)));
  typedef uint16_t H __attribute__((vector_size(32)));
};

template <>
struct LaneTypes<8> {
  typedef float F __attribute__((vector_size(32)));
  typedef uint32_t U __attribute__((vector_size(32)));
  typedef uint16_t H __attribute__((vector_size(16)));
};

template <int W>
struct Lanes {
  using F = typename LaneTypes<W>::F;
  using U = typename LaneTypes<W>::U;
  using H = typename LaneTypes<W>::H;

  static FF_HD F load(const float* p) {
    F x;
    memcpy(&x, p, sizeof x);
    return x;
  }

  template <class T>
  static FF_HD F load(const T* p) {
    H h;
    memcpy(&h, p, sizeof h);
    return Half<T>::template widen<F>(__builtin_convertvector(h, U));
  }

  static FF_HD void store(float* p, F x) { memcpy(p, &x, sizeof x); }

  template <class T>
  static FF_HD void store(T* p, F x) {
    const H h = __builtin_convertvector(Half<T>::template nearest<U>(x), H);
    memcpy(p, &h, sizeof h);
  }

  // In a tree, the halves first.
  static FF_HD float sum(F x) {
    if constexpr (W == 16) {
      typename LaneTypes<8>::F low, high;
      memcpy(&low, &x, sizeof low);
      memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof low, sizeof high);
      return Lanes<8>::sum(low + high);
    } else {
      static_assert(W == 8);
      x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
      x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5);
      return x[0] + x[1];
    }
  }
};

// Mean of the squares of g, summed in 16 lanes whatever the width, so that the order is one.
inline float mean_square(const float* g, uint32_t dim) {
  using L = Lanes<16>;
  L::F sum = {};
  uint32_t d = 0;
  for (; d + 16 <= dim; d += 16) {
    const L::F x = L::load(g + d);
    sum += x * x;
  }
  if (d < dim) {
    L::F x = {};
    memcpy(&x, g + d, (dim - d) * sizeof(float));
    sum += x * x;
  }
  return L::sum(sum) / static_cast<float>(dim);
}

}  // namespace ff
