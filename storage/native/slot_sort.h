// Sorting some lookups by slot, in cache: stable, with a radix sort on those bits in which the
// slots differ.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "array.h"
#include "prefetch.h"

namespace ff {

// Where a few rows have most of the lookups, the next counter is often the last one again, and each
// increment waits for the one before. So four quarters take turns, each with counters of its own.
constexpr size_t QUARTERS = 4;

// visit(i, quarter) for all of [begin, end).
template <class Visit>
FF_INLINE void in_quarters(size_t begin, size_t end, Visit&& visit) {
  const size_t quarter = (end - begin) / QUARTERS;
  for (size_t i = begin; i < begin + quarter; ++i)
    for (size_t q = 0; q < QUARTERS; ++q) visit(i + q * quarter, q);
  for (size_t i = begin + QUARTERS * quarter; i < end; ++i) visit(i, QUARTERS - 1);
}

// A lookup has a `slot`.
template <class Lookup>
class SlotSort {
 public:
  // The same lookups in order, where they were or in memory of this sorter.
  const Lookup* operator()(Lookup* lookups, size_t n) {
    uint32_t differ = 0;
    for (size_t i = 0; i < n; ++i) differ |= lookups[i].slot ^ lookups[0].slot;
    if (differ == 0) return lookups;
    if (n < WORTH_DIGITS) return insert(lookups, n);
    if (other_.size() < n) other_.resize(std::bit_ceil(n));
    const int low = std::countr_zero(differ), bits = static_cast<int>(std::bit_width(differ)) - low;
    const int most = std::clamp(static_cast<int>(std::bit_width(n)) - 3, 4, MOST_BITS);
    const int passes = (bits + most - 1) / most, digit = (bits + passes - 1) / passes;
    Lookup *from = lookups, *to = other_.data();
    for (int pass = 0; pass < passes; ++pass) {
      scatter(from, to, n, low + pass * digit, digit);
      std::swap(from, to);
    }
    return from;
  }

 private:
  static constexpr size_t WORTH_DIGITS = 32;
  static constexpr int MOST_BITS = 9;

  static const Lookup* insert(Lookup* lookups, size_t n) {
    for (size_t i = 1; i < n; ++i) {
      const Lookup lookup = lookups[i];
      size_t at = i;
      for (; at > 0 && lookups[at - 1].slot > lookup.slot; --at) lookups[at] = lookups[at - 1];
      lookups[at] = lookup;
    }
    return lookups;
  }

  void scatter(const Lookup* from, Lookup* to, size_t n, int shift, int bits) {
    const uint32_t last = (uint32_t{1} << bits) - 1;
    uint32_t* const start = start_;
    std::fill_n(start, QUARTERS * (last + 1), 0);
    auto counter = [=](const Lookup& lookup, size_t q) -> uint32_t& {
      return start[(lookup.slot >> shift & last) * QUARTERS + q];
    };
    in_quarters(0, n, [=](size_t i, size_t q) { ++counter(from[i], q); });
    uint32_t sum = 0;
    for (uint32_t c = 0; c < QUARTERS * (last + 1); ++c) sum += std::exchange(start[c], sum);
    in_quarters(0, n, [=](size_t i, size_t q) {
      const Lookup lookup = from[i];
      to[counter(lookup, q)++] = lookup;
    });
  }

  Array<Lookup> other_;
  uint32_t start_[QUARTERS << MOST_BITS];  // by digit and quarter
};

}  // namespace ff
