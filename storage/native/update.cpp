// Gradients into the pad: per distinct row the sum of its gradient rows, then the optimizer, in
// place, in one pass over the rows.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "gradient.h"
#include "host_rows.h"
#include "parallel.h"
#include "prefetch.h"
#include "vector.h"

namespace ff {
namespace {

// A share of a run's groups, ready for a loop.
struct Writing {
  RowView rows;
  uint32_t dim, column;
  uint64_t noise;         // key of this table and step for stochastic rounding
  char* const* at;        // weights of the groups' rows
  const uint32_t* slots;  // of the groups
  const uint64_t* ids;    // of the groups; null for fp32 rows
  size_t begin, end;      // groups
  size_t known;           // slots up to here belong to this tile
  const Gradients* gradients;
  GradientOf gradient_of;
  const float*
      direct;    // gradient rows as they lie, by group, if nothing has to be computed; or null
  float* norms;  // of the gradients go here, or null
};

template <class Optimizer, class T, int D>
struct Update {
  static constexpr int STATES = Optimizer::ELEMENT_STATES, ROW_STATES = Optimizer::ROW_STATES;
  static constexpr size_t TOGETHER = 4;

  static FF_INLINE void ask(const Writing& u, size_t group) {
    if (group >= u.known) return;
    char* const weights = u.at[group];
    const uint32_t slot = u.slots[group];
    const size_t dim = D > 0 ? D : u.dim;
    prefetch<true>(weights, dim * sizeof(T));
    if constexpr (STATES > 0) prefetch<true>(u.rows.state(weights, slot), dim * 4 * STATES);
    if constexpr (ROW_STATES > 0)
      __builtin_prefetch(u.rows.row_state<ROW_STATES>(weights, slot), 1, 3);
  }

  // One step of the elements d to d + W of a row.
  template <int W>
  static FF_INLINE void lanes(const Optimizer& optimizer, T* weights, const float* gradient,
                              float* state, size_t d, size_t dim, float scale, uint64_t noise,
                              uint32_t column) {
    using L = Lanes<W>;
    float* const s0 = STATES > 0 ? state + d : nullptr;
    float* const s1 = STATES > 1 ? state + dim + d : nullptr;
    float w[W], a[W], b[W];
    L::store(w, L::load(weights + d));
    if constexpr (STATES > 0) L::store(a, L::load(s0));
    if constexpr (STATES > 1) L::store(b, L::load(s1));
#pragma GCC unroll 1  // GCC makes vectors of a loop, but not always of what it has unrolled
    for (int i = 0; i < W; ++i) optimizer.element(w[i], gradient[d + i], a[i], b[i], scale);
    if constexpr (STATES > 0) L::store(s0, L::load(a));
    if constexpr (STATES > 1) L::store(s1, L::load(b));
    typename L::U random = {};
    if constexpr (!std::is_same_v<T, float>)
      random = rounding_bits(noise, column + static_cast<uint32_t>(d), L::NUMBERS);
    L::store(weights + d, L::load(w), random);
  }

  // The row's part of the step, before its elements'.
  static FF_INLINE float scale_of(const Writing& u, const Optimizer& optimizer, size_t group,
                                  const float* gradient) {
    if constexpr (ROW_STATES == 0) return optimizer.row(nullptr, 0.0f);
    float* const state = u.rows.row_state<ROW_STATES>(u.at[group], u.slots[group]);
    return optimizer.row(state, mean_square(gradient, D > 0 ? D : u.dim));
  }

  static FF_INLINE void row(const Writing& u, const Optimizer& optimizer, size_t group,
                            const float* gradient, float scale) {
    const uint32_t dim = D > 0 ? D : u.dim;
    T* const weights = reinterpret_cast<T*>(u.at[group]);
    float* state = nullptr;
    if constexpr (STATES > 0)
      state = reinterpret_cast<float*>(u.rows.state(u.at[group], u.slots[group]));
    const uint64_t noise = std::is_same_v<T, float> ? 0 : mix(u.noise ^ u.ids[group]);
    in_lanes(dim, [&]<int W>(size_t d) {
      lanes<W>(optimizer, weights, gradient, state, d, dim, scale, noise, u.column);
    });
  }

  // Some rows at a time: gradients first, then scales, whose square roots and divisions overlap,
  // then elements.
  static void run(const Writing& writing, const void* parameters) {
    const Writing u = writing;  // a copy of its own can stay in registers
    const Optimizer optimizer = *static_cast<const Optimizer*>(parameters);
    const size_t dim = D > 0 ? D : u.dim;
    const size_t ahead = rows_ahead(dim * (sizeof(T) + 4 * STATES), WRITE_AHEAD);
    const size_t together = dim <= 256 ? TOGETHER : 1;
    std::vector<float> space(together * dim);
    const float* gradients[TOGETHER];
    float scales[TOGETHER];
    for (size_t group = u.begin; group < u.begin + ahead; ++group) ask(u, group);
    for (size_t first = u.begin; first < u.end; first += together) {
      const size_t n = std::min(together, u.end - first);
      for (size_t i = 0; i < n; ++i)
        gradients[i] = u.direct != nullptr
                           ? u.direct + (first + i) * dim
                           : u.gradient_of(*u.gradients, first + i, space.data() + i * dim);
      for (size_t i = 0; i < n; ++i) scales[i] = scale_of(u, optimizer, first + i, gradients[i]);
      for (size_t i = 0; i < n && u.norms != nullptr; ++i)
        u.norms[first - u.begin + i] =
            GRADIENT_ONE * std::sqrt(mean_square(gradients[i], dim) * dim);
      for (size_t i = 0; i < n; ++i) {
        ask(u, first + i + ahead);
        if (u.direct != nullptr) ask_ahead(gradients[i], dim);
        row(u, optimizer, first + i, gradients[i], scales[i]);
      }
    }
  }
};

using Loop = void (*)(const Writing&, const void*);

template <class Optimizer>
Loop choose(Dtype dtype, uint32_t dim) {
  return with_dtype(dtype, [&](auto element) {
    return with_dim(dim, [&](auto width) -> Loop {
      return Update<Optimizer, decltype(element), decltype(width)::value>::run;
    });
  });
}

// The optimizer of a tile for one step, with its loop.
struct Stepper {
  OptimizerStep optimizer;
  Loop loop;

  Stepper(const TileSpec& spec, float lr, uint64_t step)
      : optimizer(spec.optimizer.at(lr, step)), loop(optimizer.with([&](const auto& arithmetic) {
          return choose<std::decay_t<decltype(arithmetic)>>(spec.dtype, spec.dim);
        })) {}

  void run(const Writing& writing) const {
    optimizer.with([&](const auto& arithmetic) { loop(writing, &arithmetic); });
  }
};

}  // namespace

void HostRows::update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr,
                      uint64_t step, uint64_t) {
  std::vector<Stepper> steppers;
  for (const Run& run : ticket.runs) steppers.emplace_back(tiles_[run.tile]->spec(), lr, step);
  ticket.touches.resize(population_ ? ticket.updates.size() : 0);
  parallel_for(threads_, ticket.updates.size(), 1, [&](size_t first, size_t last, int) {
    std::vector<float> norms;
    for (size_t share = first; share < last; ++share) {
      for (const Share& piece : ticket.updates[share]) {
        const Run& run = ticket.runs[piece.part];
        const bool touched = population_ && population_->reclaims(run.tile);
        const bool measured = touched && population_->by_gradient();
        if (measured) norms.resize(piece.end - piece.begin);
        const Tile& tile = *tiles_[run.tile];
        const TileSpec& spec = tile.spec();
        const Gradients gradients{
            addresses,
            spec.dim,
            run.distinct ? nullptr : ticket.entries.data(),
            ticket.entry_weight.empty() ? nullptr : ticket.entry_weight.data(),
            ticket.group_first.data(),
            run.distinct ? 0 : ticket.group_first[run.group_end],
            addresses[run.segment_begin] - run.group_begin * size_t{spec.dim} * bytes_of(wire)};
        const bool half = spec.dtype != Dtype::fp32;
        const bool direct = run.distinct && wire == Dtype::fp32;
        const Writing writing{tile.view(),
                              spec.dim,
                              spec.column,
                              noise_key(spec.seed, spec.table, step),
                              (run.distinct ? ticket.rows_at : ticket.group_at).data(),
                              (run.distinct ? ticket.slots : ticket.group_slot).data(),
                              half ? (run.distinct ? ticket.ids : ticket.group_id).data() : nullptr,
                              piece.begin,
                              piece.end,
                              run.group_end,
                              &gradients,
                              choose_gradient(wire, spec.dim),
                              direct ? reinterpret_cast<const float*>(gradients.start) : nullptr,
                              measured ? norms.data() : nullptr};
        steppers[piece.part].run(writing);
        if (touched)
          population_->touch(ticket, piece, tile.view(), measured ? norms.data() : nullptr,
                             ticket.touches[share]);
      }
    }
  });
}

}  // namespace ff
