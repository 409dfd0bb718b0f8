// The gradient of a row: the sum of its gradient rows, in the order of the plan.
#pragma once

#include <algorithm>
#include <type_traits>

#include "prefetch.h"
#include "request.h"
#include "vector.h"

namespace ff {

// Gradient rows of one run, in the type of the wire.
struct Gradients {
  const uint64_t* addresses;  // by segment
  uint32_t dim;
  const Entry* entries;   // null: a distinct run; gradient row i of its segment belongs to group i
  const float* weights;   // of the entries, or null
  const uint32_t* first;  // entry of each group
  size_t known;           // entries up to here belong to this run
  uint64_t start;         // distinct run: where the row of group 0 would be
};

template <class Wire>
FF_INLINE const Wire* gradient_row(const Gradients& g, size_t entry) {
  const Entry e = g.entries[entry];
  return reinterpret_cast<const Wire*>(g.addresses[e.segment]) + size_t{e.row} * g.dim;
}

// Groups follow each other, and so do their entries: gradient rows to come are asked for by entry.
// Those of a distinct run even lie one after the other, but among the random rows of an update the
// hardware does not see it.
constexpr size_t ENTRIES_AHEAD = 16;

template <class Wire>
FF_INLINE void ask_ahead(const Wire* row, size_t dim) {
  prefetch<false>(reinterpret_cast<const char*>(row + ENTRIES_AHEAD * dim), dim * sizeof(Wire));
}

template <class Wire, int D>
FF_INLINE void ask_gradient(const Gradients& g, size_t entry) {
  if (entry >= g.known) return;
  const size_t dim = D > 0 ? D : g.dim;
  prefetch<false>(reinterpret_cast<const char*>(gradient_row<Wire>(g, entry)), dim * sizeof(Wire));
}

// Sum of a group's gradient rows, in order, to `out`.
template <class Wire, int D>
void sum_group(const Gradients& g, size_t group, float* out) {
  const size_t begin = g.first[group], end = g.first[group + 1];
  auto weight = [&](size_t e) { return g.weights != nullptr ? g.weights[e] : 1.0f; };
  if constexpr (D > 0) {
    constexpr int W = D % REGISTER == 0 ? REGISTER : 8;
    using L = Lanes<W>;
    typename L::F lanes[D / W] = {};
    for (size_t e = begin; e < end; ++e) {
      ask_gradient<Wire, D>(g, e + ENTRIES_AHEAD);
      const Wire* const row = gradient_row<Wire>(g, e);
      const auto by = L::all(weight(e));
#pragma GCC unroll 32
      for (int k = 0; k < D / W; ++k) lanes[k] = L::fma(by, L::load(row + W * k), lanes[k]);
    }
#pragma GCC unroll 32
    for (int k = 0; k < D / W; ++k) L::store(out + W * k, lanes[k]);
  } else {
    std::fill_n(out, g.dim, 0.0f);
    for (size_t e = begin; e < end; ++e) {
      ask_gradient<Wire, D>(g, e + ENTRIES_AHEAD);
      const Wire* const row = gradient_row<Wire>(g, e);
      add_scaled(out, weight(e), row, g.dim);
    }
  }
}

// The gradient of a group as floats: where it lies if nothing has to be computed, else in `space`.
template <class Wire, int D>
const float* gradient_of(const Gradients& g, size_t group, float* space) {
  if (g.entries == nullptr) {
    const size_t dim = D > 0 ? D : g.dim;
    const Wire* const row = reinterpret_cast<const Wire*>(g.start) + group * dim;
    ask_ahead(row, dim);
    if constexpr (std::is_same_v<Wire, float>) return row;
    convert(row, space, dim);
    return space;
  }
  if constexpr (std::is_same_v<Wire, float>) {
    const size_t begin = g.first[group];
    if (g.weights == nullptr && g.first[group + 1] == begin + 1) {
      ask_gradient<float, D>(g, begin + ENTRIES_AHEAD);
      return gradient_row<float>(g, begin);
    }
  }
  sum_group<Wire, D>(g, group, space);
  return space;
}

using GradientOf = const float* (*)(const Gradients&, size_t, float*);

inline GradientOf choose_gradient(Dtype wire, uint32_t dim) {
  return with_dtype(wire, [&](auto sent) {
    return with_dim(dim, [&](auto width) -> GradientOf {
      return gradient_of<decltype(sent), decltype(width)::value>;
    });
  });
}

}  // namespace ff
