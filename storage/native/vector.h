// Lanes: W floats as one value, and the loads and stores of the three element types.
//
// GCC vectors, so the same source becomes AVX-512, AVX2 or NEON. fp16 uses the instructions of
// AVX-512 where there are any; they give the bits of half.h but for the payload of a NaN.
#pragma once

#include <cstddef>
#include <type_traits>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "half.h"

namespace ff {

template <int W>
struct LaneTypes;

template <>
struct LaneTypes<16> {
  typedef float F __attribute__((vector_size(64)));
  typedef uint32_t U __attribute__((vector_size(64)));
  typedef uint16_t H __attribute__((vector_size(32)));
  static constexpr U NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};

template <>
struct LaneTypes<8> {
  typedef float F __attribute__((vector_size(32)));
  typedef uint32_t U __attribute__((vector_size(32)));
  typedef uint16_t H __attribute__((vector_size(16)));
  static constexpr U NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7};
};

template <int W>
struct Lanes {
  using F = typename LaneTypes<W>::F;
  using U = typename LaneTypes<W>::U;
  using H = typename LaneTypes<W>::H;

  static constexpr U NUMBERS = LaneTypes<W>::NUMBERS;

  static FF_HD F load(const float* p) {
    F x;
    memcpy(&x, p, sizeof x);
    return x;
  }

  template <class T>
  static FF_HD F load(const T* p) {
    H h;
    memcpy(&h, p, sizeof h);
#ifdef __AVX512F__
    if constexpr (W == 16 && std::is_same_v<T, Fp16>)
      return reinterpret_cast<F>(_mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(h)));
#endif
    return Half<T>::template widen<F>(__builtin_convertvector(h, U));
  }

  // To nearest.
  static FF_HD void store(float* p, F x) { memcpy(p, &x, sizeof x); }

  template <class T>
  static FF_HD void store(T* p, F x) {
#ifdef __AVX512F__
    if constexpr (W == 16 && std::is_same_v<T, Fp16>) {
      const __m256i h =
          _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT);
      memcpy(p, &h, sizeof h);
      return;
    }
#endif
    narrow(p, Half<T>::template nearest<U>(x));
  }

  // Stochastically, with 16 uniform low bits of `random` per lane.
  static FF_HD void store(float* p, F x, U) { store(p, x); }

  template <class T>
  static FF_HD void store(T* p, F x, U random) {
    narrow(p, Half<T>::stochastic(x, random));
  }

  // In a tree, the halves first.
  static FF_HD float sum(F x) {
    if constexpr (W == 16) {
      typename LaneTypes<8>::F low, high;
      memcpy(&low, &x, sizeof low);
      memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof low, sizeof high);
      return Lanes<8>::sum(low + high);
    } else {
      x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
      x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5);
      return x[0] + x[1];
    }
  }

 private:
  template <class T>
  static FF_HD void narrow(T* p, U bits) {
    const H h = __builtin_convertvector(bits, H);
    memcpy(p, &h, sizeof h);
  }
};

// dst[i] = src[i] in another type, to nearest. No overlap.
template <class To, class From>
inline void convert(const From* __restrict src, To* __restrict dst, size_t n) {
  const size_t whole = n / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) Lanes<16>::store(dst + i, Lanes<16>::load(src + i));
  for (size_t i = whole; i < n; ++i) dst[i] = nearest<To>(to_float(src[i]));
}

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
