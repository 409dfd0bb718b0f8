// Rows are born from their key: the first value of an element depends on (seed, table, id, column)
// and on nothing else, whatever the placement, the number of ranks or the order of arrival.
//
// The generator is splitmix64 used as a counter: a row's stream starts at a hash of (seed, table,
// id), and its element at (absolute) column c is output c of the stream. Uniform and normal values
// take 24 bits of it. Multiply-adds are written as fma, so that vector code, scalar code and the
// GPU round alike.
#pragma once

#include "hash.h"

namespace ff {

enum class InitKind : uint8_t { constant = 0, uniform = 1, normal = 2 };

struct Init {
  InitKind kind = InitKind::constant;
  float scale = 0;  // the value, half the width of the interval, or the standard deviation
};

FF_HD uint64_t table_key(uint64_t seed, uint64_t table) { return mix(mix(seed) + table); }

FF_HD uint64_t row_key(uint64_t table_key, uint64_t id) { return mix(table_key ^ id); }

// Uniform on the odd multiples of 2^-24 in (-1, 1): symmetric, and never 0 or 1.
FF_HD float symmetric(uint64_t row_key, uint32_t column) {
  const uint64_t bits = mix(row_key + column * 0x9e3779b97f4a7c15ull);
  const int32_t odd = static_cast<int32_t>((bits >> 39) | 1) - (1 << 24);
  return static_cast<float>(odd) * 0x1p-24f;
}

// Natural logarithm of a normal float > 0 (the polynomial of Cephes' logf, < 1 ulp off in (0, 1]).
FF_HD float log_of(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  // Shift the exponent's boundary from 1 to sqrt(1/2).
  const int32_t shifted = static_cast<int32_t>(bits) - 0x3f3504f3;
  const float e = static_cast<float>(shifted >> 23);
  const float m =
      bit_cast<float>(static_cast<uint32_t>((shifted & 0x007fffff) + 0x3f3504f3)) - 1.0f;
  float p = 7.0376836292e-2f;
  p = fmaf(p, m, -1.1514610310e-1f);
  p = fmaf(p, m, 1.1676998740e-1f);
  p = fmaf(p, m, -1.2420140846e-1f);
  p = fmaf(p, m, 1.4249322787e-1f);
  p = fmaf(p, m, -1.6668057665e-1f);
  p = fmaf(p, m, 2.0000714765e-1f);
  p = fmaf(p, m, -2.4999993993e-1f);
  p = fmaf(p, m, 3.3333331174e-1f);
  const float square = m * m;
  const float tail = fmaf(e, -2.12194440e-4f, square * (m * p));
  return fmaf(e, 0.693359375f, fmaf(square, -0.5f, m + tail));
}

// The standard normal deviate whose distribution function is (1 + x) / 2, x in (-1, 1): sqrt(2)
// times the inverse error function (M. Giles, "Approximating the erfinv function", 2010).
FF_HD float normal_of(float x) {
  const float w = -log_of(fmaf(-x, x, 1.0f));
  const float c = w - 2.5f;
  float p = 2.81022636e-08f;
  p = fmaf(p, c, 3.43273939e-07f);
  p = fmaf(p, c, -3.5233877e-06f);
  p = fmaf(p, c, -4.39150654e-06f);
  p = fmaf(p, c, 0.00021858087f);
  p = fmaf(p, c, -0.00125372503f);
  p = fmaf(p, c, -0.00417768164f);
  p = fmaf(p, c, 0.246640727f);
  p = fmaf(p, c, 1.50140941f);
  const float t = sqrtf(w < 5.0f ? 5.0f : w) - 3.0f;
  float q = -0.000200214257f;
  q = fmaf(q, t, 0.000100950558f);
  q = fmaf(q, t, 0.00134934322f);
  q = fmaf(q, t, -0.00367342844f);
  q = fmaf(q, t, 0.00573950773f);
  q = fmaf(q, t, -0.0076224613f);
  q = fmaf(q, t, 0.00943887047f);
  q = fmaf(q, t, 1.00167406f);
  q = fmaf(q, t, 2.83297682f);
  return (w < 5.0f ? p : q) * x * 1.41421356f;
}

template <InitKind kind>
FF_HD float born(float scale, uint64_t row_key, uint32_t column) {
  if constexpr (kind == InitKind::constant) return scale;
  const float x = symmetric(row_key, column);
  return scale * (kind == InitKind::uniform ? x : normal_of(x));
}

// Random bits for the stochastic rounding of an updated element. They depend on (seed, table, step,
// id, column) only, so a step repeats bit for bit on any placement and any number of threads.
FF_HD uint64_t noise_key(uint64_t seed, uint64_t table, uint64_t step) {
  return mix(table_key(seed, table) ^ mix(step));
}

// 16 bits for each of the columns column + number, in the low half. `row` = mix(noise_key ^ id).
// Two rounds of a 32-bit multiplicative hash; U is uint32_t or a vector of it.
template <class U>
FF_HD U rounding_bits(uint64_t row, uint32_t column, U number) {
  U x = number * 0x9e3779b9u + (static_cast<uint32_t>(row >> 32) + column * 0x9e3779b9u);
  x = (x ^ (x >> 15)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x >> 16;
}

}  // namespace ff
