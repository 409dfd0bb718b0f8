// The key index in the memory of a GPU: 64-bit key -> 32-bit slot, exact, every 64-bit key legal.
// It does what index.h does, for tables that lie in that memory whole.
//
// One array of buckets of 64 bytes with five keys, their slots and a word of state each, so that a
// lookup touches one place in memory per bucket: random places, more than bytes, are what HBM has
// few of. (Tags apart from keys apart from slots would save bytes and touch three.) A key that
// finds its bucket full goes on by a stride of its own, not to the neighbour: on a CPU the line
// behind is nearly free, but a warp waits for the last of its 32 keys, and runs of full buckets
// would make that one late. Every bucket passed counts the key as overflow, so a lookup ends at the
// first bucket without; erasing takes the key out of these counts. There are no tombstones.
//
// It grows at a load of 75%. In a simulation with random keys and 2^18 buckets:
//
//   load                          60%   75%   80%   90%
//   buckets per present key       1.06  1.14  1.18  1.35
//   buckets per absent key        1.11  1.35  1.51  2.30
//   the most among 32 absent ones 2.3   3.5   4.2   7.6    (at 75%, to the neighbour: 8.9)
//
//   bytes of memory per key   64 / 5 / load: 17.1 at the load at which it grows, 25.6 just after;
//                             17.1 if it was told how many keys to expect
//   while it grows            both arrays are there, the new one is 1.5 times as large: 43 per key
//   memory kept for batches   per key of the largest one 16 to 24, and 16 more; up to a quarter on
//                             top when it had to grow
//
// Finding locks nothing, and new keys enter in a kernel of their own, once each, after the batch
// has been searched and its absent keys made distinct; so do those that are erased. So slots do not
// depend on timing; where a key lies does. Finds may run together on any streams; anything else
// needs exclusive access, and streams that wait for each other. Below 2^32 - 1 keys, and 2^30 in a
// batch. Errors leave the index as it was.
#pragma once

#include <utility>

#include "device_distinct.h"
#include "device_sort.h"
#include "index_args.h"

namespace ff {

// Where new keys get their slots from, in the order in which the batch first names them.
struct NewSlots {
  const uint32_t* free = nullptr;  // (count,) of the device; or null: first, first + 1, ...
  size_t count = 0;
  uint32_t first = 0;

  static NewSlots from(uint32_t first) { return {nullptr, IndexArray::NONE - first, first}; }
  static NewSlots of(const uint32_t* free, size_t count) { return {free, count, 0}; }
};

class DeviceIndex {
 public:
  static constexpr uint32_t NONE = IndexArray::NONE;

  // Empty; with memory for `expected` keys, so that those come without growth. Throws DeviceError
  // if the device has not so much, std::length_error from 2^32 - 1 keys on.
  explicit DeviceIndex(const Device& device, size_t expected = 0);

  size_t size() const { return size_; }
  // Of the array; and of what is kept for the next batch.
  size_t bytes() const { return memory_.bytes(); }
  size_t batch_bytes() const;
  // Bytes that so many more keys make it take at once, before it gives bytes() back; often 0.
  size_t growth(size_t keys) const;

  // slots[i] = slot of keys[i], or NONE.
  void find(const Stream& stream,
            const uint64_t* keys,  // (n,)
            uint32_t* slots,       // (n,) out
            size_t n) const;

  // The same, and absent keys enter. Returns how many did, so it waits for the stream. Throws
  // std::overflow_error if there are fewer new slots than new keys.
  size_t find_or_insert(const Stream& stream,
                        const uint64_t* keys,  // (n,)
                        uint32_t* slots,       // (n,) out
                        size_t n, const NewSlots& new_slots);

  // Removes keys, absent ones are passed over; returns how many were removed, so it waits for the
  // stream. slots[i], unless null: what keys[i] had if it was removed for i, else NONE.
  size_t erase(const Stream& stream,
               const uint64_t* keys,  // (n,)
               size_t n, uint32_t* slots = nullptr);

  // All keys and their slots, slots rising.
  void items(const Stream& stream,
             uint64_t* keys,    // (size(),) out
             uint32_t* slots);  // (size(),) out

  // Forgets every key and keeps the memory.
  void clear(const Stream& stream);

  // Buckets looked at to find the present keys, once each: the sum and the most for one key.
  std::pair<size_t, size_t> probes(const Stream& stream) const;
  // Whether every bucket's overflow is what its keys say, and no key is there twice.
  bool consistent(const Stream& stream) const;

 private:
  IndexArray array() const { return {memory_.as<IndexBucket>(), count_}; }
  uint32_t count_for(size_t keys) const;
  void open(uint32_t count);
  void grow(const Stream& stream, size_t keys);
  void make_distinct(const Stream& stream, const uint64_t* keys, const uint32_t* taken, size_t n);

  const Device* device_;
  DeviceMemory memory_;
  uint32_t count_ = 0;  // buckets
  size_t size_ = 0;

  DeviceDistinct distinct_;
  DeviceScan scan_;
  DeviceSort sort_;
  DeviceMemory keys_, number_, found_, erased_;  // of a batch
};

}  // namespace ff
