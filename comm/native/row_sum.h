// Sums of rows in registers, and the widths that rows are cut into for that.
#pragma once

#include <cstdint>

#include "vector.h"

namespace ff {

// C columns of a sum of rows, in fp32, C a power of two.
template <int C>
class RowSum {
 public:
  template <class T>
  FF_HD void load(const T* from) {
    for (int i = 0; i < kParts; ++i) part_[i] = L::load(from + i * kWide);
  }

  template <class T>
  FF_HD void add(const T* from) {
    for (int i = 0; i < kParts; ++i) part_[i] += L::load(from + i * kWide);
  }

  template <class T>
  FF_HD void add(const T* from, float weight) {
    const auto by = L::all(weight);
    for (int i = 0; i < kParts; ++i) part_[i] = L::fma(by, L::load(from + i * kWide), part_[i]);
  }

  FF_HD void scale(float by) {
    for (int i = 0; i < kParts; ++i) part_[i] *= by;
  }

  template <class T>
  FF_HD void store(T* to) const {
    for (int i = 0; i < kParts; ++i) L::store(to + i * kWide, part_[i]);
  }

 private:
  static constexpr int kWide = C < REGISTER ? C : REGISTER, kParts = C / kWide;
  using L = Lanes<kWide>;

  typename L::F part_[kParts] = {};
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
