// Reply rows from the pad: rows as they are, or summed per bag, in the type of the wire.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "pad.h"
#include "parallel.h"
#include "prefetch.h"
#include "vector.h"

namespace ff {
namespace {

// One piece of a segment, ready for a loop.
struct Reading {
  RowView rows;
  const Tile* tile;
  uint32_t dim;
  const uint32_t* slots;   // of the whole request
  const uint64_t* ids;     // the same; null when no row is missing
  const float* weights;    // the same, or null
  const int64_t* offsets;  // pooled: of the segment's bags
  size_t ids_begin;        // rows: id of reply row 0
  size_t ids_known;        // slots up to here belong to this tile
};

// D columns known to the compiler, or any number (D = 0).
template <class T, class Wire, int D>
struct Gather {
  static constexpr int W = D % 16 == 0 ? 16 : 8;
  using L = Lanes<W>;

  static FF_INLINE void ask(const Reading& r, size_t i, size_t bytes) {
    if (i >= r.ids_known) return;
    const uint32_t slot = r.slots[i];
    if (D == 0 && slot == Tile::NONE) return;
    prefetch<false>(r.rows.weights(slot), bytes);
  }

  // The row, or what it would be born as (loops with D = 0 only).
  static const T* row(const Reading& r, size_t i, T* newborn) {
    const uint32_t slot = r.slots[i];
    if (D > 0 || slot != Tile::NONE) return reinterpret_cast<const T*>(r.rows.weights(slot));
    r.tile->bear_weights(r.ids[i], newborn);
    return newborn;
  }

  static void rows(const Reading& reading, size_t begin, size_t end, Wire* out) {
    const Reading r = reading;  // a copy of its own can stay in registers
    const size_t dim = D > 0 ? D : r.dim, bytes = dim * sizeof(T);
    const size_t ahead = rows_ahead(bytes, READ_AHEAD);
    std::vector<T> newborn(D > 0 ? 0 : dim);
    for (size_t i = r.ids_begin + begin; i < r.ids_begin + begin + ahead; ++i) ask(r, i, bytes);
    for (size_t b = begin; b < end; ++b) {
      const size_t i = r.ids_begin + b;
      ask(r, i + ahead, bytes);
      const T* const from = row(r, i, newborn.data());
      Wire* const to = out + b * dim;
      if constexpr (std::is_same_v<T, Wire>) {
        memcpy(to, from, bytes);
      } else {
        convert(from, to, dim);
      }
    }
  }

  static void bags(const Reading& reading, size_t begin, size_t end, Wire* out) {
    const Reading r = reading;  // a copy of its own can stay in registers
    const size_t dim = D > 0 ? D : r.dim, bytes = dim * sizeof(T);
    const size_t ahead = rows_ahead(bytes, READ_AHEAD);
    std::vector<T> newborn(D > 0 ? 0 : dim);
    std::vector<float> sum(D > 0 ? 0 : dim);
    const size_t start = r.offsets[begin];
    for (size_t i = start; i < start + ahead; ++i) ask(r, i, bytes);
    for (size_t b = begin; b < end; ++b) {
      const size_t last = r.offsets[b + 1];
      Wire* const to = out + b * dim;
      if constexpr (D > 0) {
        typename L::F lanes[D / W] = {};
        for (size_t i = r.offsets[b]; i < last; ++i) {
          ask(r, i + ahead, bytes);
          const T* const from = row(r, i, nullptr);
          const float weight = r.weights != nullptr ? r.weights[i] : 1.0f;
#pragma GCC unroll 32
          for (int k = 0; k < D / W; ++k) lanes[k] += weight * L::load(from + W * k);
        }
#pragma GCC unroll 32
        for (int k = 0; k < D / W; ++k) L::store(to + W * k, lanes[k]);
      } else {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (size_t i = r.offsets[b]; i < last; ++i) {
          ask(r, i + ahead, bytes);
          const T* const from = row(r, i, newborn.data());
          const float weight = r.weights != nullptr ? r.weights[i] : 1.0f;
          add_scaled(sum.data(), weight, from, dim);
        }
        convert(sum.data(), to, dim);
      }
    }
  }
};

template <class T, class Wire, int D>
void run(const Reading& reading, size_t begin, size_t end, void* out) {
  using G = Gather<T, Wire, D>;
  if (reading.offsets != nullptr)
    G::bags(reading, begin, end, static_cast<Wire*>(out));
  else
    G::rows(reading, begin, end, static_cast<Wire*>(out));
}

using Loop = void (*)(const Reading&, size_t, size_t, void*);

Loop choose(Dtype dtype, Dtype wire, uint32_t dim) {
  return with_dtype(dtype, [&](auto element) {
    return with_dtype(wire, [&](auto sent) -> Loop {
      using T = decltype(element);
      using Wire = decltype(sent);
      return with_dim(dim, [](auto width) -> Loop { return run<T, Wire, decltype(width)::value>; });
    });
  });
}

}  // namespace

void Pad::gather(const Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire) {
  check(ticket, segments);
  std::vector<size_t> run_end(ticket.segments.size());
  for (const Run& run : ticket.runs)
    for (size_t s = run.segment_begin; s < run.segment_end; ++s) run_end[s] = run.id_end;
  parallel_for(threads_, ticket.replies.size(), 1, [&](size_t first, size_t last, int) {
    for (size_t share = first; share < last; ++share) {
      for (const Piece& piece : ticket.replies[share]) {
        const Segment& segment = ticket.segments[piece.part];
        const Tile& tile = *tiles_[segment.tile];
        const TileSpec& spec = tile.spec();
        const bool missing = ticket.missing > 0;
        Reading reading{tile.view(),
                        &tile,
                        spec.dim,
                        ticket.slots.data(),
                        missing ? ticket.ids.data() : nullptr,
                        segment.pooled && !ticket.weights.empty() ? ticket.weights.data() : nullptr,
                        segment.pooled ? ticket.offsets.data() + segment.first_bag : nullptr,
                        segment.id_begin,
                        run_end[piece.part]};
        choose(spec.dtype, wire, missing ? 0 : spec.dim)(
            reading, piece.begin, piece.end, reinterpret_cast<void*>(addresses[piece.part]));
      }
    }
  });
}

}  // namespace ff
