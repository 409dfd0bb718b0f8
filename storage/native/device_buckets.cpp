#include "device_buckets.h"

#include <bit>

#include "buckets_args.h"

namespace ff {

void hash_ids(const Stream& stream, const uint64_t* raw, uint64_t* ids, size_t n, uint64_t limit) {
  stream.launch("buckets_hash", (n + PLACE_THREADS - 1) / PLACE_THREADS, PLACE_THREADS,
                HashArgs{raw, ids, n, limit});
}

void DeviceBuckets::deal(const Stream& stream, const Placer& placer, const int64_t* ids, size_t n,
                         uint32_t* bucket, uint32_t* place, uint64_t* position,
                         uint32_t* bucket_first) {
  sorted_.reserve(stream, n * sizeof(uint32_t));
  order_.reserve(stream, n * sizeof(uint32_t));
  positions_.reserve(stream, n * sizeof(uint64_t));
  const uint64_t buckets = placer.place.by.divisor;
  const BucketsArgs args{placer,
                         ids,
                         n,
                         buckets,
                         bucket,
                         positions_.as<uint64_t>(),
                         sorted_.as<uint32_t>(),
                         order_.as<uint32_t>(),
                         position,
                         place,
                         bucket_first};
  stream.launch("buckets_place", (n + PLACE_THREADS - 1) / PLACE_THREADS, PLACE_THREADS, args);
  sort_.sort(stream, bucket, nullptr, n, static_cast<uint32_t>(std::bit_width(buckets - 1)),
             sorted_.as<uint32_t>(), order_.as<uint32_t>());
  stream.launch("buckets_write", n / PLACE_THREADS + 1, PLACE_THREADS, args);
}

void DeviceGroups::group(const Stream& stream, const uint32_t* slots, size_t n, uint32_t limit,
                         uint32_t* entry, uint32_t* group_slot, uint32_t* group_first) {
  sorted_.reserve(stream, n * sizeof(uint32_t));
  number_.reserve(stream, n * sizeof(uint32_t));
  totals_.reserve(stream, 2 * sizeof(uint32_t));
  // All ones in as many bits as the limit has are more than any slot: what has no row goes last.
  sort_.sort(stream, slots, nullptr, n, static_cast<uint32_t>(std::bit_width(limit)),
             sorted_.as<uint32_t>(), entry);
  uint32_t* const totals = totals_.as<uint32_t>();
  const GroupArgs args{sorted_.as<uint32_t>(),
                       n,
                       number_.as<uint32_t>(),
                       totals,
                       group_slot,
                       group_first,
                       totals + 1};
  stream.launch("group_begin", (n + PLACE_THREADS - 1) / PLACE_THREADS, PLACE_THREADS, args);
  scan_.exclusive(stream, args.number, n, totals);
  stream.launch("group_write", n / PLACE_THREADS + 1, PLACE_THREADS, args);
}

std::pair<size_t, size_t> DeviceGroups::read_totals(const Stream& stream) const {
  uint32_t totals[2] = {};
  stream.copy_out(totals, totals_.data(), sizeof totals);
  stream.synchronize();
  return {totals[0], totals[1]};
}

}  // namespace ff
