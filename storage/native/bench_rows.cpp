// The machine's limit for rows: prefetching loops over a plain aligned table, and streams. Written
// with nothing of the pad in them, so that `fourfold bench store` measures the pad against them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "vector.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

using Table = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using L = Lanes<16>;

template <int D>
inline __attribute__((always_inline)) void ask(const float* row, bool write) {
  for (int d = 0; d < D; d += 16)
    write ? __builtin_prefetch(row + d, 1, 3) : __builtin_prefetch(row + d, 0, 3);
}

// out[b] = sum of rows ids[b * pool : (b + 1) * pool]
template <int D>
void gather(const float* table, const int64_t* ids, size_t n, size_t pool, size_t ahead, float* out,
            int threads) {
  parallel_for(threads, n / pool, 1, [=](size_t begin, size_t end, int) {
    for (size_t b = begin; b < end; ++b) {
      L::F sum[D / 16] = {};
      for (size_t i = b * pool; i < (b + 1) * pool; ++i) {
        if (i + ahead < n) ask<D>(table + ids[i + ahead] * D, false);
        const float* const row = table + ids[i] * D;
#pragma GCC unroll 16
        for (int k = 0; k < D / 16; ++k) sum[k] += L::load(row + 16 * k);
      }
#pragma GCC unroll 16
      for (int k = 0; k < D / 16; ++k) L::store(out + b * D + 16 * k, sum[k]);
    }
  });
}

// Row-wise Adagrad of distinct rows: row ids[i] gets gradient row i.
template <int D>
void update(float* table, float* sums, const int64_t* ids, size_t n, const float* gradient,
            size_t ahead, int threads) {
  parallel_for(threads, n, 1, [=](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      if (i + ahead < end) {
        ask<D>(table + ids[i + ahead] * D, true);
        __builtin_prefetch(sums + ids[i + ahead], 1, 3);
      }
      const float* const g = gradient + i * D;
      L::F squares = {};
#pragma GCC unroll 16
      for (int k = 0; k < D / 16; ++k)
        squares = L::fma(L::load(g + 16 * k), L::load(g + 16 * k), squares);
      const float sum = sums[ids[i]] += L::sum(squares) / D;
      const L::F step = L::all(-0.01f / (std::sqrt(sum) + 1e-8f));
      float* const row = table + ids[i] * D;
#pragma GCC unroll 16
      for (int k = 0; k < D / 16; ++k)
        L::store(row + 16 * k, L::fma(step, L::load(g + 16 * k), L::load(row + 16 * k)));
    }
  });
}

template <class F>
void with_width(size_t dim, F&& f) {
  if (dim == 64) return f(std::integral_constant<int, 64>{});
  if (dim == 128) return f(std::integral_constant<int, 128>{});
  throw nb::value_error("the reference loops have dim 64 and 128");
}

}  // namespace

void bind_bench_rows(nb::module_& m) {
  m.def(
      "reference_gather",
      [](Table table, Ids ids, size_t pool, size_t ahead, Floats out, int threads) {
        if (out.size() < ids.size() / pool * table.shape(1))
          throw nb::value_error("reference_gather: out is too short");
        nb::gil_scoped_release release;
        with_width(table.shape(1), [&](auto width) {
          gather<decltype(width)::value>(table.data(), ids.data(), ids.size(), pool, ahead,
                                         out.data(), threads);
        });
      },
      "table"_a.noconvert(), "ids"_a.noconvert(), "pool"_a, "ahead"_a, "out"_a.noconvert(),
      "threads"_a);
  m.def(
      "reference_update",
      [](Table table, Floats sums, Ids ids, Floats gradient, size_t ahead, int threads) {
        if (gradient.size() < ids.size() * table.shape(1))
          throw nb::value_error("reference_update: gradient is too short");
        nb::gil_scoped_release release;
        with_width(table.shape(1), [&](auto width) {
          update<decltype(width)::value>(table.data(), sums.data(), ids.data(), ids.size(),
                                         gradient.data(), ahead, threads);
        });
      },
      "table"_a.noconvert(), "sums"_a.noconvert(), "ids"_a.noconvert(), "gradient"_a.noconvert(),
      "ahead"_a, "threads"_a);
  m.def(
      "stream_read",
      [](Floats array, int threads) {
        std::vector<float> sums(static_cast<size_t>(threads));
        {
          nb::gil_scoped_release release;
          parallel_for(threads, array.size() / 64, 1, [&](size_t begin, size_t end, int worker) {
            L::F sum[4] = {};
            for (size_t i = begin; i < end; ++i)
              for (int k = 0; k < 4; ++k) sum[k] += L::load(array.data() + 64 * i + 16 * k);
            sums[static_cast<size_t>(worker)] = L::sum(sum[0] + sum[1] + sum[2] + sum[3]);
          });
        }
        float total = 0;
        for (const float sum : sums) total += sum;
        return total;
      },
      "array"_a.noconvert(), "threads"_a, "Sum of an array: reads it once.");
  m.def(
      "stream_copy",
      [](Floats from, Floats to, int threads) {
        if (from.size() != to.size()) throw nb::value_error("stream_copy: lengths differ");
        nb::gil_scoped_release release;
        parallel_for(threads, from.size(), 1, [&](size_t begin, size_t end, int) {
          std::memcpy(to.data() + begin, from.data() + begin, (end - begin) * sizeof(float));
        });
      },
      "from_"_a.noconvert(), "to"_a.noconvert(), "threads"_a);
}

}  // namespace ff
