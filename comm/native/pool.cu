// Reply rows to outputs: out[bag] = scale * sum of weight * reply row, entries in order, as
// pool.cpp does it. A lane has a few neighbouring columns of one bag; the lanes of a warp have the
// columns of a bag, and of the next bags, side by side.
#include "columns.h"
#include "step_kernels.h"
#include "unit.h"

namespace ff {
namespace {

constexpr uint32_t ROWS_AT_ONCE = 4;

// Entries of a job, seen from one column.
struct Entries {
  const PoolJob& job;
  const uint8_t* got;
  uint32_t column_bytes;

  template <class W, int C>
  FF_DEVICE Columns<W, C> columns(uint32_t entry) const {
    const uint32_t bucket = job.bucket != nullptr ? __ldg(job.bucket + entry) : 0;
    const RowSource& source = job.sources[bucket];
    const uint8_t* const row =
        got + (source.base + source.stride * uint64_t{__ldg(job.row + entry)} + column_bytes);
    return Columns<W, C>::load_constant(reinterpret_cast<const W*>(row));
  }

  FF_DEVICE float weight(uint32_t entry) const {
    return job.weight != nullptr ? __ldg(job.weight + entry) : 1.0f;
  }
};

template <int C>
FF_DEVICE void scale(float (&sum)[C], float by) {
#pragma unroll
  for (int c = 0; c < C; ++c) sum[c] *= by;
}

template <class W, int C>
FF_DEVICE void copy_row(const Entries& entries, uint32_t entry, float (&sum)[C]) {
  entries.columns<W, C>(entry).widen(sum);
  scale(sum, entries.weight(entry));
}

template <class W, int C>
FF_DEVICE void add_rows(const Entries& entries, uint32_t first, uint32_t last, float (&sum)[C]) {
  sum_columns<W, ROWS_AT_ONCE>(
      first, last, [&](uint32_t e) { return entries.columns<W, C>(e); },
      [&](uint32_t e) { return entries.weight(e); }, sum);
}

template <class W, int C>
FF_DEVICE void pool_bags(const PoolArgs& args, const PoolJob& job, const Unit& unit) {
  const Matrix& out = args.out.at(job.matrix);
  const uint32_t first_bag = unit.number * job.bags_of_unit;
  const uint32_t left = job.bags - first_bag, vectors = job.width / C;
  const uint32_t bags = left < job.bags_of_unit ? left : job.bags_of_unit;
  for (uint32_t i = unit.lane; i < bags * vectors; i += WARP) {
    const uint32_t bag = first_bag + i / vectors, column = i % vectors * C;
    const Entries entries{job, args.got, column * static_cast<uint32_t>(sizeof(W))};
    float sum[C];
    if (job.begin == nullptr)
      copy_row<W>(entries, job.first_entry + bag, sum);
    else
      add_rows<W>(entries, __ldg(job.begin + bag), __ldg(job.begin + bag + 1), sum);
    if (job.scale != nullptr) scale(sum, __ldg(job.scale + bag));
    uint8_t* const to =
        out.data + out.stride * bag + (job.column + column) * bytes_of(args.out.dtype);
    write_anywhere(to, args.out.dtype, sum);
  }
}

template <class W>
FF_DEVICE void pool_unit(const PoolArgs& args) {
  Unit unit;
  if (!unit.find(args.first_unit, args.num_jobs, args.units)) return;
  const PoolJob& job = args.jobs[unit.job];
  if (sizeof(W) == 2 && job.vector == 8)
    pool_bags<W, 16 / static_cast<int>(sizeof(W))>(args, job, unit);
  else if (job.vector >= 4)
    pool_bags<W, 4>(args, job, unit);
  else
    pool_bags<W, 1>(args, job, unit);
}

}  // namespace

FF_KERNEL(pool_fp32, PoolArgs, STEP_THREADS) { pool_unit<float>(args); }
FF_KERNEL(pool_bf16, PoolArgs, STEP_THREADS) { pool_unit<Bf16>(args); }
FF_KERNEL(pool_fp16, PoolArgs, STEP_THREADS) { pool_unit<Fp16>(args); }

}  // namespace ff
