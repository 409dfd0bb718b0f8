// fp32 <-> bf16 and fp16: to nearest even, and stochastic from given random bits.
//
// The arithmetic is integer operations and selects, no branches, written once for any pair (U, F)
// of an unsigned integer and a float of the same shape: uint32_t and float, or GCC vectors of them
// (vector.h). So a lane of a vector, a scalar and a GPU thread give the same bits.
#pragma once

#include "config.h"

namespace ff {

enum class Dtype : uint8_t { fp32 = 0, bf16 = 1, fp16 = 2 };

FF_HD uint32_t bytes_of(Dtype dtype) { return dtype == Dtype::fp32 ? 4 : 2; }

// Element types: float, and the two 16-bit formats as distinct types of the same size.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

template <class T>
struct Half;  // the arithmetic of a 16-bit format

template <>
struct Half<Bf16> {
  template <class F, class U>
  static FF_HD F widen(U h) {
    return bit_cast<F>(h << 16);
  }

  // To nearest, ties to even. NaN stays NaN.
  template <class U, class F>
  static FF_HD U nearest(F x) {
    const U b = bit_cast<U>(x);
    const U rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
    return (b & 0x7fffffffu) > 0x7f800000u ? (b >> 16) | 0x40u : rounded;
  }

  // Up or down with the probability that makes the expectation exact, from 16 uniform low bits.
  // Infinities stay, and every NaN that arithmetic gives (a quiet one).
  template <class U, class F>
  static FF_HD U stochastic(F x, U random) {
    const U b = bit_cast<U>(x);
    const U noise = random & 0xffffu;
    return (b + ((b & 0x7f800000u) == 0x7f800000u ? b & 0u : noise)) >> 16;
  }
};

template <>
struct Half<Fp16> {
  template <class F, class U>
  static FF_HD F widen(U h) {
    // Put exponent and mantissa in place and correct the bias. Subnormals get exponent one more and
    // lose the hidden bit by a subtraction; nothing here is subnormal in fp32, so FTZ is harmless.
    const U magnitude = (h & 0x7fffu) << 13;
    const U normal = magnitude + (112u << 23);
    const U subnormal = bit_cast<U>(bit_cast<F>(magnitude + (113u << 23)) - 0x1p-14f);
    const U finite = magnitude < 0x00800000u ? subnormal : normal;
    const U bits = magnitude >= 0x0f800000u ? normal + (112u << 23) : finite;
    return bit_cast<F>(bits | ((h & 0x8000u) << 16));
  }

  // To nearest, ties to even. What is too large becomes infinity (IEEE 754).
  template <class U, class F>
  static FF_HD U nearest(F x) {
    const U b = bit_cast<U>(x);
    const U a = b & 0x7fffffffu;
    // Below 2^-14 adding 0.5 moves the unit 2^-24 to the last mantissa bit, and the FPU rounds.
    const U subnormal = bit_cast<U>(bit_cast<F>(a) + 0.5f) - 0x3f000000u;
    return pack(a, b, (a - (112u << 23) + 0xfffu + ((a >> 13) & 1u)) >> 13, subnormal);
  }

  // Stochastic, from 13 uniform low bits. Below 2^-14 the value is first cut to a multiple of
  // 2^-37, 1/8192 of the format's smallest step.
  template <class U, class F>
  static FF_HD U stochastic(F x, U random) {
    const U b = bit_cast<U>(x);
    const U a = b & 0x7fffffffu;
    const U noise = random & 0x1fffu;
    // |x| * 2^37 as an integer, by adding 2^23 units below the last place: truncated to nearest.
    const U small = a < 0x38800000u ? a : a & 0u;
    const U fixed = bit_cast<U>(bit_cast<F>(small) * 0x1p37f + 0x1p23f) - 0x4b000000u;
    return pack(a, b, (a - (112u << 23) + noise) >> 13, (fixed + noise) >> 13);
  }

 private:
  template <class U>
  static FF_HD U pack(U a, U b, U normal, U subnormal) {
    const U infinity = (a & 0u) + 0x7c00u;
    const U bounded = normal < 0x7c00u ? normal : infinity;
    const U finite = a < 0x38800000u ? subnormal : bounded;
    return (a > 0x7f800000u ? infinity + 0x200u : finite) | ((b >> 16) & 0x8000u);
  }
};

FF_HD float to_float(float x) { return x; }

template <class T>
FF_HD float to_float(T x) {
  return Half<T>::template widen<float>(static_cast<uint32_t>(x.bits));
}

template <class T>
FF_HD T nearest(float x) {
  return {static_cast<uint16_t>(Half<T>::template nearest<uint32_t>(x))};
}

template <>
FF_HD float nearest<float>(float x) {
  return x;
}

// `random` gives at least 16 uniform low bits.
template <class T>
FF_HD T stochastic(float x, uint32_t random) {
  return {static_cast<uint16_t>(Half<T>::stochastic(x, random))};
}

template <>
FF_HD float stochastic<float>(float x, uint32_t) {
  return x;
}

#ifndef __CUDACC_RTC__
// Calls f with a value of the element type that `dtype` names.
template <class F>
FF_HD auto with_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::bf16:
      return f(Bf16{});
    case Dtype::fp16:
      return f(Fp16{});
    default:
      return f(float{});
  }
}
#endif

}  // namespace ff
