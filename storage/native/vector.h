// Lanes: W floats as one value, and the loads and stores of the three element types.
//
// GCC vectors, so the same source becomes AVX-512, AVX2 or NEON. Two things have names of their own
// where GCC has no word for them: fp16 with AVX-512, which gives the bits of half.h but for the
// payload of a NaN; and fma, because no product is fused with a sum that does not say so
// (-ffp-contract=off), and GCC does not always see a vector in a loop over lanes.
#pragma once

#include <cstddef>
#include <type_traits>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

#include "half.h"

namespace ff {

#ifdef __AVX512F__
inline constexpr int REGISTER = 16;  // floats: sums of rows are kept in lanes of this many
#else
inline constexpr int REGISTER = 8;
#endif

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

template <>
struct LaneTypes<4> {
  typedef float F __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef uint16_t H __attribute__((vector_size(8)));
  static constexpr U NUMBERS = {0, 1, 2, 3};
};

template <>
struct LaneTypes<2> {
  typedef float F __attribute__((vector_size(8)));
  typedef uint32_t U __attribute__((vector_size(8)));
  typedef uint16_t H __attribute__((vector_size(4)));
  static constexpr U NUMBERS = {0, 1};
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

  // The same in every lane: x - 0, because x + 0 would lose the sign of a zero.
  static FF_HD F all(float x) { return x - F{}; }

  // a * b + c, rounded once.
  static FF_HD F fma(F a, F b, F c) {
#ifdef __AVX512F__
    if constexpr (W == 16) return _mm512_fmadd_ps(a, b, c);
#endif
#ifdef __FMA__
    if constexpr (W == 8) return _mm256_fmadd_ps(a, b, c);
    if constexpr (W == 4) return _mm_fmadd_ps(a, b, c);
#endif
    if constexpr (W == 16) {
      using L = Lanes<8>;
      return __builtin_shufflevector(L::fma(low_half(a), low_half(b), low_half(c)),
                                     L::fma(high_half(a), high_half(b), high_half(c)),  //
                                     0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    for (int i = 0; i < W; ++i) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
  }

  // In a tree, the halves first.
  static FF_HD float sum(F x) {
    if constexpr (W == 4) {
      x += __builtin_shufflevector(x, x, 2, 3, 0, 1);
      return x[0] + x[1];
    } else {
      return Lanes<W / 2>::sum(low_half(x) + high_half(x));
    }
  }

 private:
  static FF_HD auto low_half(F x) {
    if constexpr (W == 16)
      return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    else
      return __builtin_shufflevector(x, x, 0, 1, 2, 3);
  }
  static FF_HD auto high_half(F x) {
    if constexpr (W == 16)
      return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    else
      return __builtin_shufflevector(x, x, 4, 5, 6, 7);
  }

  template <class T>
  static FF_HD void narrow(T* p, U bits) {
    const H h = __builtin_convertvector(bits, H);
    memcpy(p, &h, sizeof h);
  }
};

// One lane: plain scalars.
template <>
struct Lanes<1> {
  using F = float;
  using U = uint32_t;
  static constexpr U NUMBERS = 0;

  template <class T>
  static FF_HD F load(const T* p) {
    return to_float(*p);
  }
  template <class T>
  static FF_HD void store(T* p, F x) {
    *p = nearest<T>(x);
  }
  template <class T>
  static FF_HD void store(T* p, F x, U random) {
    *p = stochastic<T>(x, random);
  }
  static FF_HD F all(float x) { return x; }
  static FF_HD F fma(F a, F b, F c) { return fmaf(a, b, c); }
  static FF_HD float sum(F x) { return x; }
};

// Calls f.operator()<W>(d) for all columns d, d + 1, ..., d + W - 1 of [0, dim): in steps of 16,
// and what is left in one of 8, one of 4 and single ones. With a constant dim nothing is decided
// later.
template <class F>
FF_HD void in_lanes(size_t dim, F&& f) {
  size_t d = 0;
#pragma GCC unroll 8
  for (; d + 16 <= dim; d += 16) f.template operator()<16>(d);
  if (dim - d >= 8) {
    f.template operator()<8>(d);
    d += 8;
  }
  if (dim - d >= 4) {
    f.template operator()<4>(d);
    d += 4;
  }
  for (int left = 3; left > 0 && d < dim; --left, ++d) f.template operator()<1>(d);
}

// Calls f with the width as a constant, 0 for widths that have no loops of their own.
template <class F>
inline auto with_dim(uint32_t dim, F&& f) {
  switch (dim) {
    case 8:
      return f(std::integral_constant<int, 8>{});
    case 16:
      return f(std::integral_constant<int, 16>{});
    case 32:
      return f(std::integral_constant<int, 32>{});
    case 64:
      return f(std::integral_constant<int, 64>{});
    case 128:
      return f(std::integral_constant<int, 128>{});
    case 256:
      return f(std::integral_constant<int, 256>{});
    default:
      return f(std::integral_constant<int, 0>{});
  }
}

// dst = src in another type, to nearest. No overlap.
template <class To, class From>
FF_HD void convert(const From* src, To* dst, size_t dim) {
  in_lanes(dim, [&]<int W>(size_t d) { Lanes<W>::store(dst + d, Lanes<W>::load(src + d)); });
}

// sum += by * row
template <class T>
FF_HD void add_scaled(float* sum, float by, const T* row, size_t dim) {
  in_lanes(dim, [&]<int W>(size_t d) {
    using L = Lanes<W>;
    L::store(sum + d, L::fma(L::all(by), L::load(row + d), L::load(sum + d)));
  });
}

// Mean of the squares of g: a sum in 16 lanes, and what is left over of the width.
FF_HD float mean_square(const float* g, size_t dim) {
  typename Lanes<16>::F whole = {};
  float rest = 0;
  in_lanes(dim, [&]<int W>(size_t d) {
    const auto x = Lanes<W>::load(g + d);
    if constexpr (W == 16)
      whole = Lanes<W>::fma(x, x, whole);
    else
      rest += Lanes<W>::sum(x * x);
  });
  return (Lanes<16>::sum(whole) + rest) / static_cast<float>(dim);
}

}  // namespace ff
