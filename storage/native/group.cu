// Positions of a batch by slot, as group.cpp has them: sorted pairs cut into groups.
#include "buckets_args.h"
#include "kernel.h"

namespace ff {
namespace {

constexpr uint32_t NO_SLOT = 0xffffffffu;

FF_DEVICE uint64_t this_element() { return uint64_t{blockIdx.x} * PLACE_THREADS + threadIdx.x; }

FF_DEVICE bool begins(const GroupArgs& args, uint64_t j) {
  const uint32_t slot = args.sorted[j];
  return slot != NO_SLOT && (j == 0 || args.sorted[j - 1] != slot);
}

}  // namespace

FF_KERNEL(group_begin, GroupArgs, 256) {
  const uint64_t j = this_element();
  if (j < args.n) args.number[j] = begins(args, j) ? 1 : 0;
}

FF_KERNEL(group_write, GroupArgs, 256) {
  const uint64_t j = this_element();
  if (j > args.n) return;
  if (j < args.n && begins(args, j)) {
    const uint32_t group = args.number[j];
    args.group_slot[group] = args.sorted[j];
    args.group_first[group] = static_cast<uint32_t>(j);
  }
  // One thread stands behind the last pair that has a row.
  const bool after = j == args.n || args.sorted[j] == NO_SLOT;
  if (after && (j == 0 || args.sorted[j - 1] != NO_SLOT)) {
    args.group_first[*args.groups] = static_cast<uint32_t>(j);
    *args.entries = static_cast<uint32_t>(j);
  }
}

}  // namespace ff
