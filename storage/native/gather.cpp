// Reply rows from the pad: rows as they are, or summed per bag, in the type of the wire.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "host_rows.h"
#include "parallel.h"
#include "prefetch.h"
#include "vector.h"

namespace ff {
namespace {

// A segment, ready for a loop. Arrays are those of the whole request.
struct Reading {
  const char* const* rows;
  size_t num_rows;
  const float* weights;    // or null
  const int64_t* offsets;  // pooled: of the segment's bags; else null
  size_t ids_begin;        // of the segment
  uint32_t dim;
};

// D columns known to the compiler, or any number (D = 0).
template <class T, class Wire, int D>
struct Gather {
  static constexpr int W = D % REGISTER == 0 ? REGISTER : 8;
  using L = Lanes<W>;

  const Reading r;
  const size_t dim = D > 0 ? D : r.dim;
  const size_t ahead = rows_ahead(dim * sizeof(T), READ_AHEAD);
  std::vector<float> sum = std::vector<float>(D > 0 ? 0 : dim);

  FF_INLINE void ask(size_t i) const {
    if (i >= r.num_rows) return;
    const size_t bytes = (D > 0 ? D : dim) * sizeof(T);
    prefetch<false>(r.rows[i], bytes);
  }

  void start(size_t i) const {
    for (const size_t end = i + ahead; i < end; ++i) ask(i);
  }

  FF_INLINE const T* row(size_t i) const { return reinterpret_cast<const T*>(r.rows[i]); }

  void rows(size_t begin, size_t end, Wire* out) {
    start(r.ids_begin + begin);
    for (size_t b = begin; b < end; ++b) {
      ask(r.ids_begin + b + ahead);
      const T* const from = row(r.ids_begin + b);
      const size_t width = D > 0 ? D : dim;
      if constexpr (std::is_same_v<T, Wire>)
        memcpy(out + b * width, from, width * sizeof(T));
      else
        convert(from, out + b * width, width);
    }
  }

  void bags(size_t begin, size_t end, Wire* out) {
    start(r.offsets[begin]);
    for (size_t b = begin; b < end; ++b) {
      const size_t first = r.offsets[b], last = r.offsets[b + 1];
      Wire* const to = out + b * (D > 0 ? D : dim);
      if (r.weights != nullptr)
        bag<true>(first, last, to);
      else
        bag<false>(first, last, to);
    }
  }

  template <bool WEIGHTED>
  FF_INLINE void bag(size_t first, size_t last, Wire* to) {
    if constexpr (D > 0) {
      typename L::F lanes[D / W] = {};
      for (size_t i = first; i < last; ++i) {
        ask(i + ahead);
        const T* const from = row(i);
        const auto by = L::all(WEIGHTED ? r.weights[i] : 1.0f);
#pragma GCC unroll 32
        for (int k = 0; k < D / W; ++k) {
          const auto x = L::load(from + W * k);
          lanes[k] = WEIGHTED ? L::fma(by, x, lanes[k]) : lanes[k] + x;
        }
      }
#pragma GCC unroll 32
      for (int k = 0; k < D / W; ++k) L::store(to + W * k, lanes[k]);
    } else {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (size_t i = first; i < last; ++i) {
        ask(i + ahead);
        add_scaled(sum.data(), WEIGHTED ? r.weights[i] : 1.0f, row(i), dim);
      }
      convert(sum.data(), to, dim);
    }
  }
};

template <class T, class Wire, int D>
void run(const Reading& reading, size_t begin, size_t end, void* out) {
  Gather<T, Wire, D> gather{reading};
  if (reading.offsets != nullptr)
    gather.bags(begin, end, static_cast<Wire*>(out));
  else
    gather.rows(begin, end, static_cast<Wire*>(out));
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

void HostRows::gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire, uint64_t) {
  parallel_for(threads_, ticket.replies.size(), 1, [&](size_t first, size_t last, int) {
    for (size_t share = first; share < last; ++share) {
      for (const Share& piece : ticket.replies[share]) {
        const Segment& segment = ticket.segments[piece.part];
        const TileSpec& spec = tiles_[segment.tile]->spec();
        const bool weighted = segment.pooled && !ticket.weights.empty();
        const Reading reading{ticket.rows_at.data(),
                              ticket.rows_at.size(),
                              weighted ? ticket.weights.data() : nullptr,
                              segment.pooled ? ticket.offsets.data() + segment.first_bag : nullptr,
                              segment.id_begin,
                              spec.dim};
        choose(spec.dtype, wire, spec.dim)(reading, piece.begin, piece.end,
                                           reinterpret_cast<void*>(addresses[piece.part]));
      }
    }
  });
}

}  // namespace ff
