// The key index in the memory of a GPU. device_index.h says how it is laid out and why.
#include "index_args.h"
#include "kernel.h"

namespace ff {
namespace {

constexpr uint32_t TEAM = 4;   // lanes that read a bucket together, 16 bytes each
constexpr uint32_t SHARE = 8;  // threads that go through a bucket, a way each; three are idle

FF_DEVICE uint64_t this_thread() { return uint64_t{blockIdx.x} * INDEX_THREADS + threadIdx.x; }

FF_DEVICE uint64_t pair(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }

FF_DEVICE uint32_t word_of(const uint4& quad, uint32_t word) {
  return word == 0 ? quad.x : word == 1 ? quad.y : word == 2 ? quad.z : quad.w;
}

// Which ways of the bucket that the team holds have the key: every lane compares two words of 64
// bits, of which the first five of the bucket are keys.
FF_DEVICE uint32_t ways_of(const uint4& quad, uint64_t key, uint32_t team) {
  const uint32_t low = __ballot_sync(ALL_LANES, pair(quad.x, quad.y) == key) >> team;
  const uint32_t high = __ballot_sync(ALL_LANES, pair(quad.z, quad.w) == key) >> team;
  return (low & 1) | (high & 1) << 1 | (low & 2) << 1 | (high & 2) << 2 | (low & 4) << 2;
}

// Enters an absent key. Nobody else enters it, and nobody erases: a bucket that is full stays full,
// and every bucket that the key passes is.
FF_DEVICE void enter(const IndexArray& index, uint64_t key, uint32_t slot) {
  for (IndexPath path = index.path(key);; index.advance(path)) {
    IndexBucket& bucket = index.buckets[path.at];
    uint32_t state = bucket.state;
    while ((state & IndexBucket::FULL) != IndexBucket::FULL) {
      const uint32_t way = static_cast<uint32_t>(__ffs(static_cast<int>(~state))) - 1;
      const uint32_t seen = atomicCAS(&bucket.state, state, state | 1u << way);
      if (seen == state) {
        bucket.key[way] = key;
        bucket.slot[way] = slot;
        return;
      }
      state = seen;
    }
    atomicAdd(&bucket.state, IndexBucket::PASSED);
  }
}

// Takes a key out and returns its slot. Others take out others at the same time, so an overflow
// that is read may be too high, and the way a little longer; it never misses this key.
FF_DEVICE uint32_t remove(const IndexArray& index, uint64_t key) {
  const IndexPath home = index.path(key);
  IndexPath path = home;
  for (uint32_t tried = 0; tried < index.count; ++tried, index.advance(path)) {
    IndexBucket& bucket = index.buckets[path.at];
    const uint32_t state = bucket.state;
    for (uint32_t way = 0; way < IndexBucket::WAYS; ++way) {
      if ((state >> way & 1) == 0 || bucket.key[way] != key) continue;
      const uint32_t slot = bucket.slot[way];
      atomicAnd(&bucket.state, ~(1u << way));
      for (IndexPath passed = home; tried > 0; --tried, index.advance(passed))
        atomicAdd(&index.buckets[passed.at].state, 0u - IndexBucket::PASSED);
      return slot;
    }
    if (state < IndexBucket::PASSED) break;
  }
  return IndexArray::NONE;
}

FF_DEVICE uint32_t new_slot(const uint32_t* free_slots, uint64_t first_slot, uint32_t number) {
  return free_slots != nullptr ? free_slots[number] : static_cast<uint32_t>(first_slot + number);
}

}  // namespace

// A team looks for the keys of its four lanes, one after the other; the four buckets are on their
// way together. What it takes from memory for a key is 8 bytes of the key, 4 of the slot, and 64,
// two sectors of one line, per bucket; at a load of 75%, 1.14 buckets if the key is present, 1.34
// if not.
FF_KERNEL(index_find, FindArgs, 256) {
  const IndexArray index = args.index;
  const uint64_t i = this_thread();
  const uint32_t member = threadIdx.x % TEAM, team = threadIdx.x % WARP - member;
  const uint64_t key = i < args.n ? args.keys[i] : 0;
  IndexPath path = index.path(key);
  uint32_t slot = IndexArray::NONE;
  uint32_t left =
      i < args.n ? static_cast<uint32_t>(index.count) : 0;  // buckets that it may still be in
  while (__any_sync(ALL_LANES, left != 0)) {
    uint4 quad[TEAM];
#pragma unroll
    for (uint32_t turn = 0; turn < TEAM; ++turn) {
      const uint32_t at = __shfl_sync(ALL_LANES, path.at, team + turn);
      const uint32_t sought = __shfl_sync(ALL_LANES, left, team + turn);
      quad[turn] = sought != 0 ? reinterpret_cast<const uint4*>(index.buckets + at)[member]
                               : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (uint32_t turn = 0; turn < TEAM; ++turn) {
      const uint64_t sought = __shfl_sync(ALL_LANES, key, team + turn);
      const uint32_t state = __shfl_sync(ALL_LANES, quad[turn].w, team + TEAM - 1);
      const uint32_t ways = ways_of(quad[turn], sought, team) & state & IndexBucket::FULL;
      const uint32_t word =
          IndexBucket::SLOT_WORD + (ways != 0 ? __ffs(static_cast<int>(ways)) - 1 : 0);
      const uint32_t there = __shfl_sync(ALL_LANES, word_of(quad[turn], word % 4), team + word / 4);
      if (member != turn || left == 0) continue;
      if (ways != 0) slot = there;
      left = ways != 0 || state < IndexBucket::PASSED ? 0 : left - 1;
    }
    if (left != 0) index.advance(path);
  }
  if (i < args.n) args.slots[i] = slot;
}

FF_KERNEL(index_insert, InsertArgs, 256) {
  const uint64_t i = this_thread();
  if (i >= args.n) return;
  const uint32_t number = static_cast<uint32_t>(i);
  enter(args.index, args.keys[i], new_slot(args.free_slots, args.first_slot, number));
}

FF_KERNEL(index_answer, AnswerArgs, 256) {
  const uint64_t i = this_thread();
  if (i >= args.n || args.number[i] == IndexArray::NONE) return;
  args.slots[i] = new_slot(args.free_slots, args.first_slot, args.number[i]);
}

FF_KERNEL(index_erase, EraseArgs, 256) {
  const uint64_t i = this_thread();
  const uint32_t slot = i < *args.total ? remove(args.index, args.keys[i]) : IndexArray::NONE;
  if (i < args.n) args.found[i] = slot;
  const uint32_t erased = __ballot_sync(ALL_LANES, slot != IndexArray::NONE);
  if (threadIdx.x % WARP == 0 && erased != 0)
    atomicAdd(args.erased, static_cast<uint32_t>(__popc(erased)));
}

// The first position that names a key is told its slot; by then the others find it gone.
FF_KERNEL(index_erased, EraseArgs, 256) {
  const uint64_t i = this_thread();
  if (i >= args.n) return;
  args.slots[i] = args.first[i] == i ? args.found[args.number[i]] : IndexArray::NONE;
}

FF_KERNEL(index_rehash, RehashArgs, 256) {
  const uint64_t bucket = this_thread() / SHARE;
  const uint32_t way = threadIdx.x % SHARE;
  if (bucket >= args.from.count || way >= IndexBucket::WAYS) return;
  const IndexBucket& from = args.from.buckets[bucket];
  if (from.state >> way & 1) enter(args.to, from.key[way], from.slot[way]);
}

FF_KERNEL(index_count, ItemsArgs, 256) {
  const uint64_t bucket = this_thread();
  if (bucket >= args.index.count) return;
  const uint32_t ways = args.index.buckets[bucket].state & IndexBucket::FULL;
  args.before[bucket] = static_cast<uint32_t>(__popc(ways));
}

FF_KERNEL(index_items, ItemsArgs, 256) {
  const uint64_t bucket = this_thread() / SHARE;
  const uint32_t way = threadIdx.x % SHARE;
  if (bucket >= args.index.count || way >= IndexBucket::WAYS) return;
  const IndexBucket& from = args.index.buckets[bucket];
  if ((from.state >> way & 1) == 0) return;
  const uint32_t earlier = static_cast<uint32_t>(__popc(from.state & ((1u << way) - 1)));
  const uint64_t to = uint64_t{args.before[bucket]} + earlier;
  args.keys[to] = from.key[way];
  args.slots[to] = from.slot[way];
}

FF_KERNEL(index_by_slot, ItemsArgs, 256) {
  const uint64_t i = this_thread();
  if (i < args.n) args.keys[i] = args.found[args.order[i]];
}

}  // namespace ff
