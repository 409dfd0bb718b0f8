// The score of a row in 16 bits, and what time and credit do to it. Integers, so that every
// processor and every GPU get the same bits.
//
// A score is a float without sign: 5 bits of exponent e, 11 of mantissa m, of value
//   e = 0:  m * 2^-6        e >= 1:  (2048 + m) * 2^(e - 1) * 2^-6
// so 0 to 6.9e10 in steps of 1/64 at first and of 2^-11 of the value later; the order of the values
// is the order of the bits. Between reading and writing one, values are integers in sixty-fourths.
//
// What it counts: Kraken (Xie et al., SC'20, sec. III) gives a row that earned credit c in an
// interval S' = (1 - beta) S + beta c. Stored is V = S / beta, for which V' = (1 - beta) V + c: a
// credit adds itself, whenever it comes in its interval, and an interval gone by multiplies.
// So a row is brought up to date only when it is touched. With beta = 0 V is a plain count.
#pragma once

#include "config.h"

namespace ff {

constexpr uint32_t SCORE_BINS = 64;
constexpr uint64_t SCORE_ONE = 64;       // the value 1
constexpr float GRADIENT_ONE = 0x1p20f;  // credit of a gradient of norm 1: most are far smaller

// Position of the highest bit of x > 0.
FF_HD uint32_t highest_bit(uint64_t x) {
#ifdef __CUDA_ARCH__
  return 63u - static_cast<uint32_t>(__clzll(static_cast<long long>(x)));
#else
  return 63u - static_cast<uint32_t>(__builtin_clzll(x));
#endif
}

// In sixty-fourths.
FF_HD uint64_t score_value(uint16_t score) {
  const uint32_t exponent = score >> 11;
  if (exponent == 0) return score;
  return static_cast<uint64_t>(2048u + (score & 2047u)) << (exponent - 1);
}

// The nearest score, ties to even; what is too large becomes the largest.
FF_HD uint16_t score_of(uint64_t value) {
  if (value < 4096) return static_cast<uint16_t>(value);
  const uint32_t shift = highest_bit(value) - 11;
  const uint64_t half = (1ull << (shift - 1)) - 1 + ((value >> shift) & 1);
  const uint64_t bits = (static_cast<uint64_t>(shift) << 11) + ((value + half) >> shift);
  return static_cast<uint16_t>(bits < 0xffff ? bits : 0xffff);  // a carry enters the exponent
}

// Scores in 64 classes of similar value: two per power of two from 1/4 on, below it one. The last
// has all from 2^29 on.
FF_HD uint32_t score_bin(uint16_t score) {
  if (score < 16) return 0;
  const uint32_t high = score < 2048 ? highest_bit(score) : 10u + (score >> 11);
  const uint32_t next = score < 2048 ? score >> (high - 1) & 1u : score >> 10 & 1u;
  const uint32_t bin = 2 * (high - 4) + 1 + next;
  return bin < SCORE_BINS ? bin : SCORE_BINS - 1;
}

// The lowest value of a bin, in sixty-fourths.
FF_HD uint64_t bin_value(uint32_t bin) {
  return bin == 0 ? 0 : static_cast<uint64_t>(2 + ((bin - 1) & 1)) << (3 + (bin - 1) / 2);
}

// What some intervals without credit leave of a value.
struct Decay {
  static constexpr uint32_t POWERS = 17;

  uint32_t power[POWERS] = {};  // (1 - beta)^(2^k) in units of 2^-32
  bool on = false;              // off: beta = 0, nothing decays

  // Rounded down; one product per bit that is set in `intervals`. From 2^17 intervals on 0.
  FF_HD uint64_t apply(uint64_t value, uint32_t intervals) const {
    if (!on) return value;
    if (intervals >> POWERS != 0) return 0;
    for (uint32_t k = 0; intervals >> k != 0; ++k)
      if (intervals >> k & 1u) value = multiply_high(value, static_cast<uint64_t>(power[k]) << 32);
    return value;
  }

#ifndef __CUDACC_RTC__
  // Of 0 <= beta <= 1, the share that an interval takes.
  static Decay of(double beta) {
    Decay decay;
    decay.on = beta > 0;
    double share = 1 - beta;  // multiplications alone: the same bits with any library
    for (uint32_t k = 0; k < POWERS; ++k, share *= share) {
      const double scaled = share * 0x1p32 + 0.5;
      decay.power[k] = scaled < 0x1p32 ? static_cast<uint32_t>(scaled) : 0xffffffffu;
    }
    return decay;
  }
#endif
};

// In sixty-fourths, to nearest. Negative ones and NaN are 0; huge ones fill any score.
FF_HD uint64_t credit_value(float credit) {
  const float scaled = credit * static_cast<float>(SCORE_ONE);
  if (!(scaled > 0.0f)) return 0;
  if (scaled >= 0x1p43f) return 1ull << 43;
  const uint64_t whole = static_cast<uint64_t>(scaled);
  return whole + (scaled - static_cast<float>(whole) >= 0.5f ? 1 : 0);
}

// The score of a row that gets a credit `intervals` after it was last brought up to date.
FF_HD uint16_t credited(uint16_t score, uint32_t intervals, float credit, const Decay& decay) {
  return score_of(decay.apply(score_value(score), intervals) + credit_value(credit));
}

}  // namespace ff
