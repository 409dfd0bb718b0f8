// Distinct ids of a batch in the order of first occurrence, by hashing.
//
// The table holds positions, not ids: 4 bytes per entry, at a load of one half at most, so that of
// a batch of a few million both table and ids stay in the second-level cache. Whoever finds an
// entry empty claims it for its position; whoever finds an equal id there lowers the position. So
// an entry never changes its id, a read that is out of date does no harm, and in the end every
// entry has the id's first position, whatever the order in which threads ran.
#include "distinct_args.h"
#include "hash.h"
#include "kernel.h"

namespace ff {
namespace {

struct Positions {
  uint64_t begin, end, segment;
};

// The segment that position i lies in.
FF_DEVICE Positions segment_of(const DistinctArgs& args, uint64_t i) {
  if (args.first == nullptr) return {0, args.n, 0};
  uint64_t low = 0, high = args.segments;  // first[low] <= i < first[high]
  while (high - low > 1) {
    const uint64_t middle = (low + high) / 2;
    if (args.first[middle] <= i)
      low = middle;
    else
      high = middle;
  }
  return {args.first[low], args.first[high], low};
}

FF_DEVICE uint64_t this_position() { return uint64_t{blockIdx.x} * DISTINCT_THREADS + threadIdx.x; }

}  // namespace

FF_KERNEL(distinct_claim, DistinctArgs, 256) {
  const uint64_t i = this_position();
  if (i >= args.n) return;
  if (args.taken != nullptr && args.taken[i] != NO_POSITION) {
    args.seen[i] = NO_POSITION;
    return;
  }
  const uint32_t position = static_cast<uint32_t>(i);
  const uint64_t id = args.ids[i];
  const Positions segment = segment_of(args, i);
  uint64_t at = mix(id + segment.segment * 0x9e3779b97f4a7c15ull) & args.mask;
  for (;; at = (at + 1) & args.mask) {
    uint32_t there = args.table[at];
    if (there == NO_POSITION) there = atomicCAS(&args.table[at], NO_POSITION, position);
    if (there == NO_POSITION) break;
    if (there < segment.begin || there >= segment.end || args.ids[there] != id) continue;
    if (position < there) atomicMin(&args.table[at], position);
    break;
  }
  args.seen[i] = static_cast<uint32_t>(at);
}

FF_KERNEL(distinct_first, DistinctArgs, 256) {
  const uint64_t i = this_position();
  if (i >= args.n) return;
  const uint32_t entry = args.seen[i];
  const uint32_t first = entry == NO_POSITION ? NO_POSITION : args.table[entry];
  args.seen[i] = first;
  args.number[i] = first == i ? 1 : 0;
}

// `number` has been summed.
FF_KERNEL(distinct_write, DistinctArgs, 256) {
  const uint64_t i = this_position();
  const uint32_t first = i < args.n ? args.seen[i] : NO_POSITION;
  const uint32_t number = first != NO_POSITION ? args.number[first] : NO_POSITION;
  if (i < args.n) args.inverse[i] = number;
  if (first == i && first != NO_POSITION) args.distinct[number] = args.ids[i];
  if (args.count == nullptr) return;                           // all threads or none
  const uint32_t peers = __match_any_sync(ALL_LANES, number);  // a hot id adds once per warp
  const uint32_t lane = threadIdx.x % WARP;
  if (number != NO_POSITION && (peers & ((1u << lane) - 1)) == 0)
    atomicAdd(&args.count[number], static_cast<uint32_t>(__popc(peers)));
}

FF_KERNEL(distinct_segments, DistinctArgs, 256) {
  const uint64_t s = this_position();
  if (s > args.segments) return;
  const uint64_t at = args.first[s];
  args.segment_first[s] = at < args.n ? args.number[at] : *args.total;
}

}  // namespace ff
