#include <algorithm>

#include "parallel.h"
#include "row_sum.h"
#include "step.h"

namespace ff {
namespace {

constexpr size_t kBagBlock = 32;    // bags whose output rows stay in cache over all features
constexpr uint32_t kPrefetch = 12;  // entries ahead

// Where the rows of one bucket start, were they numbered from 0 in the table.
struct Source {
  uint64_t base = 0;  // an address; outside the buffer when the bucket's first row is not 0
  int64_t stride = 0;
};

// One piece of one feature, ready to be pooled.
struct Job {
  const TableRoute* table = nullptr;
  const Slice* slice = nullptr;
  const Source* sources = nullptr;  // (buckets,)
  uint8_t* out = nullptr;           // the piece's first column of the feature's first bag
  int64_t stride = 0;
  uint32_t width = 0;

  FF_HD const uint8_t* row(uint32_t entry) const {
    const uint32_t bucket = table->bucket.size() ? table->bucket[entry] : 0;
    const Source& source = sources[bucket];
    return reinterpret_cast<const uint8_t*>(source.base + source.stride * table->row[entry]);
  }
};

template <int C, class W>
FF_HD void fetch(const uint8_t* row) {
  for (size_t line = 0; line < C * sizeof(W); line += 64) __builtin_prefetch(row + line);
}

// Bags of exactly one entry: a row each.
template <class W, class O, int C>
void copy_bags(const Job& job, uint32_t column, uint32_t begin, uint32_t end) {
  const TableRoute& table = *job.table;
  const uint32_t first = job.slice->first_entry;
  const uint32_t last = first + job.slice->bags;
  for (uint32_t b = begin; b < end; ++b) {
    const uint32_t e = first + b;
    if (e + kPrefetch < last) fetch<C, W>(job.row(e + kPrefetch) + column * sizeof(W));
    RowSum<C> sum;
    sum.load(reinterpret_cast<const W*>(job.row(e)) + column);
    if (table.weight.size()) sum.scale(table.weight[e]);
    if (table.scale.size()) sum.scale(table.scale[job.slice->first_bag + b]);
    sum.store(reinterpret_cast<O*>(job.out + b * job.stride) + column);
  }
}

template <class W, class O, int C>
void sum_bags(const Job& job, uint32_t column, uint32_t begin, uint32_t end) {
  const TableRoute& table = *job.table;
  const uint32_t* const first = table.begin.data() + job.slice->first_bag;
  const float* const weight = table.weight.size() ? table.weight.data() : nullptr;
  for (uint32_t b = begin; b < end; ++b) {
    RowSum<C> sum;
    for (uint32_t e = first[b]; e < first[b + 1]; ++e) {
      if (e + kPrefetch < table.entries) fetch<C, W>(job.row(e + kPrefetch) + column * sizeof(W));
      const W* const row = reinterpret_cast<const W*>(job.row(e)) + column;
      if (weight != nullptr)
        sum.add(row, weight[e]);
      else
        sum.add(row);
    }
    if (table.scale.size()) sum.scale(table.scale[job.slice->first_bag + b]);
    sum.store(reinterpret_cast<O*>(job.out + b * job.stride) + column);
  }
}

template <class W, class O>
void pool_bags(const Job& job, uint32_t begin, uint32_t end) {
  for_columns(job.width, [&]<int C>(uint32_t column) {
    if (job.slice->single)
      copy_bags<W, O, C>(job, column, begin, end);
    else
      sum_bags<W, O, C>(job, column, begin, end);
  });
}

}  // namespace

void pool(const Plan& plan, const Route& route, const uint8_t* got, const Outputs& out) {
  const int64_t element = bytes_of(plan.wire), element_out = bytes_of(out.dtype);
  size_t num_sources = 0;
  for (const Piece& piece : plan.pieces) num_sources += piece.sources.size();
  thread_local std::vector<Source> kept_sources;  // keep their memory from step to step
  thread_local std::vector<Job> kept_jobs;
  std::vector<Source>& sources = kept_sources;  // by reference: workers must see this thread's
  std::vector<Job>& jobs = kept_jobs;
  sources.resize(num_sources);
  jobs.clear();
  Source* source = sources.data();
  for (const Piece& piece : plan.pieces) {
    const Feature& feature = plan.features[piece.feature];
    const TableRoute& table = route.tables[feature.table];
    const Matrix& matrix =
        feature.pooling == Pooling::none ? out.sequences[feature.column] : out.pooled;
    jobs.push_back({&table, &table.slices[feature.in_table], source,
                    matrix.data + piece.column * element_out, matrix.stride, piece.width});
    for (size_t b = 0; b < piece.sources.size(); ++b, ++source) {
      const Piece::Source& from = piece.sources[b];
      source->stride = plan.tiles[plan.out[from.link].tile].dim() * element;
      source->base = reinterpret_cast<uint64_t>(got) + route.reply_got.offset[from.link] +
                     from.inner * element - source->stride * table.first_row[b];
    }
  }
  with_dtype(plan.wire, [&](auto wire) {
    with_dtype(out.dtype, [&](auto value) {
      const auto pool_job = [&](const Job& job, size_t begin, size_t end) {
        pool_bags<decltype(wire), decltype(value)>(job, static_cast<uint32_t>(begin),
                                                   static_cast<uint32_t>(end));
      };
      const size_t batch = static_cast<size_t>(route.batch);
      parallel_for(plan.threads, batch, kBagBlock, [&](size_t begin, size_t end, int) {
        for (size_t b = begin; b < end; b += kBagBlock)
          for (size_t j = 0; j < plan.pooled_pieces; ++j)
            pool_job(jobs[j], b, std::min(end, b + kBagBlock));
      });
      for (size_t j = plan.pooled_pieces; j < jobs.size(); ++j)
        parallel_for(plan.threads, jobs[j].slice->bags, 256,
                     [&](size_t begin, size_t end, int) { pool_job(jobs[j], begin, end); });
    });
  });
}

}  // namespace ff
