// Ids by bucket, as comm's router deals them: hash.h says which, a stable sort brings them
// together.
#include "buckets_args.h"
#include "kernel.h"

namespace ff {
namespace {

FF_DEVICE uint64_t this_element() { return uint64_t{blockIdx.x} * PLACE_THREADS + threadIdx.x; }

}  // namespace

FF_KERNEL(buckets_hash, HashArgs, 256) {
  const uint64_t i = this_element();
  if (i < args.n) args.ids[i] = hashed_id(args.raw[i], args.limit);
}

FF_KERNEL(buckets_place, BucketsArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  const Buckets::Place place = args.placer(args.ids[i]);
  args.bucket[i] = static_cast<uint32_t>(place.bucket);
  args.unsorted[i] = place.position;
}

FF_KERNEL(buckets_write, BucketsArgs, 256) {
  const uint64_t j = this_element();
  if (j > args.n) return;
  // Whoever is the first of a bucket says where it begins, and those before it that are empty.
  const uint64_t end = j < args.n ? args.sorted[j] : args.buckets;
  for (uint64_t b = j > 0 ? args.sorted[j - 1] + uint64_t{1} : 0; b <= end; ++b)
    args.bucket_first[b] = static_cast<uint32_t>(j);
  if (j == args.n) return;
  const uint32_t i = args.order[j];
  args.position[j] = args.unsorted[i];
  args.place[i] = static_cast<uint32_t>(j);
}

}  // namespace ff
