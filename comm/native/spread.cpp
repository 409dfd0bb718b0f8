#include <algorithm>
#include <atomic>
#include <cstring>

#include "parallel.h"
#include "row_sum.h"
#include "step.h"

namespace ff {
namespace {

constexpr uint32_t kRowBlock = 256;  // reply rows per unit of work
constexpr uint32_t kPrefetch = 12;   // entries ahead

// Gradients of one feature of the tile's table, addressed by the table's bag numbers.
struct Source {
  uint64_t base = 0;  // an address: where bag 0 of the table would be
  int64_t stride = 0;
  uint32_t end = 0;  // first bag of the next feature
};

// Rows [first, last) of one tile, ready to be summed.
struct Job {
  const TableRoute* table = nullptr;
  const Source* sources = nullptr;  // one per feature of the table
  uint8_t* to = nullptr;            // where row `first_row` of the bucket goes
  uint32_t tile = 0, first_row = 0, rows = 0, width = 0;
};

template <class G>
FF_HD const G* at(const Source* source, uint32_t bag, uint32_t column) {
  return reinterpret_cast<const G*>(source->base + source->stride * bag) + column;
}

// Entries of a row are in lookup order, so its bags rise and so do the features they belong to.
template <class W, class G, int C>
void sum_rows(const Job& job, uint32_t column, uint32_t begin, uint32_t end) {
  const TableRoute& table = *job.table;
  const float* const coefficient = table.coefficient.size() ? table.coefficient.data() : nullptr;
  W* to = reinterpret_cast<W*>(job.to) + column + size_t{begin} * job.width;
  const Source* ahead = job.sources;
  for (uint32_t r = begin; r < end; ++r, to += job.width) {
    const Source* source = job.sources;
    RowSum<C> sum;
    for (uint32_t e = table.start[job.first_row + r]; e < table.start[job.first_row + r + 1]; ++e) {
      const uint32_t bag = table.bag[e];
      while (bag >= source->end) ++source;
      if (e + kPrefetch < table.entries) {
        const uint32_t next = table.bag[e + kPrefetch];
        if (ahead != job.sources && next < ahead[-1].end) ahead = job.sources;
        while (next >= ahead->end) ++ahead;
        for (size_t i = 0; i < C; i += 64 / sizeof(G))
          __builtin_prefetch(at<G>(ahead, next, column) + i);
      }
      const G* const grad = at<G>(source, bag, column);
      if (coefficient != nullptr)
        sum.add(grad, coefficient[e]);
      else
        sum.add(grad);
    }
    sum.store(to);
  }
}

template <class W, class G>
void spread_rows(const Job& job, uint32_t begin, uint32_t end) {
  for_columns(job.width,
              [&]<int C>(uint32_t column) { sum_rows<W, G, C>(job, column, begin, end); });
}

void copy_rows(const Plan& plan, const Route& route, const Job& job, uint32_t begin, uint32_t end,
               uint8_t* sent) {
  const size_t row_bytes = job.width * bytes_of(plan.wire);
  for (uint32_t link : plan.copies[job.tile])
    std::memcpy(sent + route.gradient_sent.offset[link] + begin * row_bytes,
                job.to + begin * row_bytes, (end - begin) * row_bytes);
}

}  // namespace

void spread(const Plan& plan, const Route& route, const Outputs& grad, uint8_t* sent) {
  const int64_t element = bytes_of(grad.dtype);
  size_t num_sources = 0;
  for (const Tile& tile : plan.tiles) num_sources += plan.tables[tile.table].features.size();
  thread_local std::vector<Source> kept_sources;  // keep their memory from step to step
  thread_local std::vector<Job> kept_jobs;
  thread_local std::vector<uint32_t> kept_units;
  std::vector<Source>& sources = kept_sources;  // by reference: workers must see this thread's
  std::vector<Job>& jobs = kept_jobs;
  std::vector<uint32_t>& first_unit = kept_units;  // units of work before each job
  sources.resize(num_sources);
  jobs.clear();
  first_unit.assign(1, 0);
  Source* source = sources.data();
  for (uint32_t t = 0; t < plan.tiles.size(); ++t) {
    const Tile& tile = plan.tiles[t];
    const TableRoute& table = route.tables[tile.table];
    const uint32_t first = table.first_row[tile.bucket];
    const uint32_t rows = table.first_row[tile.bucket + 1] - first;
    jobs.push_back({&table, source, sent + route.gradient_sent.offset[plan.first_link[t]], t, first,
                    rows, tile.dim()});
    first_unit.push_back(first_unit.back() + (rows + kRowBlock - 1) / kRowBlock);
    for (uint32_t f : plan.tables[tile.table].features) {
      const Feature& feature = plan.features[f];
      const bool sequence = feature.pooling == Pooling::none;
      const Matrix& matrix = sequence ? grad.sequences[feature.column] : grad.pooled;
      const Slice& slice = table.slices[feature.in_table];
      const uint32_t column = tile.start + (sequence ? 0 : feature.column);
      const uint64_t base = reinterpret_cast<uint64_t>(matrix.data) + column * element;
      *source++ = {base - matrix.stride * slice.first_bag, matrix.stride,
                   slice.first_bag + slice.bags};
    }
  }
  const uint32_t units = first_unit.back();
  std::atomic<uint32_t> next{0};
  const size_t threads = std::max<size_t>(1, std::min<size_t>(plan.threads, units));
  const auto run = [&](auto wire, auto value) {
    size_t j = 0;
    for (uint32_t unit = next++; unit < units; unit = next++) {
      while (unit >= first_unit[j + 1]) ++j;
      const uint32_t begin = (unit - first_unit[j]) * kRowBlock;
      const uint32_t end = std::min(jobs[j].rows, begin + kRowBlock);
      spread_rows<decltype(wire), decltype(value)>(jobs[j], begin, end);
      copy_rows(plan, route, jobs[j], begin, end, sent);
    }
  };
  with_dtype(plan.wire, [&](auto wire) {
    with_dtype(grad.dtype, [&](auto value) {
      parallel_for(static_cast<int>(threads), threads, 1,
                   [&](size_t, size_t, int) { run(wire, value); });
    });
  });
}

}  // namespace ff
