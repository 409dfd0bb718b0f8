#include "device_distinct.h"

#include <bit>
#include <stdexcept>
#include <string>

#include "distinct_args.h"

namespace ff {

void DeviceDistinct::check(size_t n) {
  if (n >= size_t{1} << 30)  // entries of the table are named by 32 bits
    throw std::invalid_argument("a batch of " + std::to_string(n) +
                                " ids; fewer than 2^30 are supported: use a smaller batch");
}

void DeviceDistinct::find(const Stream& stream, const DistinctBatch& batch) {
  const size_t n = batch.n;
  check(n);
  const size_t entries = std::bit_ceil(2 * n + 1);
  table_.reserve(stream, entries * sizeof(uint32_t));
  seen_.reserve(stream, n * sizeof(uint32_t));
  number_.reserve(stream, n * sizeof(uint32_t));
  total_.reserve(stream, sizeof(uint32_t));
  stream.fill(table_.data(), 0xff, entries * sizeof(uint32_t));
  if (batch.count != nullptr) stream.fill(batch.count, 0, n * sizeof(uint32_t));

  const DistinctArgs args{
      batch.ids,      batch.taken,           batch.first,          n,
      batch.segments, table_.as<uint32_t>(), seen_.as<uint32_t>(), number_.as<uint32_t>(),
      total(),        entries - 1,           batch.distinct,       batch.inverse,
      batch.count,    batch.segment_first};
  const size_t blocks = (n + DISTINCT_THREADS - 1) / DISTINCT_THREADS;
  stream.launch("distinct_claim", blocks, DISTINCT_THREADS, args);
  stream.launch("distinct_first", blocks, DISTINCT_THREADS, args);
  scan_.exclusive(stream, args.number, n, total_.as<uint32_t>());
  stream.launch("distinct_write", blocks, DISTINCT_THREADS, args);
  if (batch.first != nullptr && batch.segment_first != nullptr)
    stream.launch("distinct_segments", batch.segments / DISTINCT_THREADS + 1, DISTINCT_THREADS,
                  args);
}

size_t DeviceDistinct::read_total(const Stream& stream) const {
  uint32_t total = 0;
  stream.copy_out(&total, total_.data(), sizeof total);
  stream.synchronize();
  return total;
}

}  // namespace ff
