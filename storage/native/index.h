// The key index of a rank: 64-bit key -> 32-bit slot, exact, for all dynamic tables at once.
//
// One array of cache-line buckets with five keys each. A key's home bucket is its hash scaled to
// the number of buckets; when the home is full the key goes to the next bucket that is not, and
// every bucket passed on the way counts it as overflow. A lookup therefore ends at the first bucket
// without overflow: mostly at the first line it touches, for absent keys too.
//
// Growth has no pause. The array grows by a quarter per level, and because a scaled hash keeps the
// order of the hashes, a level can be entered bucket by bucket from the end: what has moved
// lies above everything that has not. So one number, the frontier, tells for every hash which of
// two bucket counts applies, and each new key pays for the move of 4/3 old buckets. Load stays at
// three keys per bucket of those in use (60%), for ever; the mapping is enlarged by mremap, which
// moves page tables and no bytes.
//
//   bucket  0          frontier        (empty)                        large
//           [ small scale, not moved ) . . . . [ large scale, moved  )[ spill
//
// Erasing pulls overflowed keys back, so the array is always one that insertions alone could have
// left: no tombstones, and churn cannot lengthen probes. A bit per key says whether it is away from
// home, so that only those are looked at. Every 64-bit key is legal.
//
// Const members may run concurrently with each other; anything else needs exclusive access (the pad
// holds its mutex). Sizes are bounded by the slots: below 2^32 - 1 keys.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "index_hash.h"
#include "mapping.h"
#include "parallel.h"
#include "prefetch.h"

namespace ff {

class Index {
 public:
  static constexpr uint32_t NONE = 0xffffffffu;
  static constexpr size_t KEY_BYTES = 27;  // that a key takes at most, growth included

  // Called with a number of bytes before so many more are taken; refuses by throwing.
  using Charge = std::function<void(size_t)>;

  // Empty; with memory for `expected` keys already in place, so that those come without growth.
  explicit Index(size_t expected = 0, bool huge_pages = true, Charge charge = {})
      : memory_(huge_pages), charge_(std::move(charge)) {
    open(expected);
  }
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  size_t size() const { return size_; }
  // Bytes that so many more keys may take at once.
  size_t growth(size_t keys) const;
  // Address space taken from the system, the sum of what was charged. Memory in use is never more.
  size_t bytes() const { return memory_.bytes(); }

  // slots[i] = slot of keys[i], or NONE.
  void find(const uint64_t* keys,  // (n,)
            uint32_t* slots,       // (n,) out
            size_t n, int threads) const {
    parallel_for(threads, n, GRAIN, [=, this](size_t begin, size_t end, int) {
      find_part(keys + begin, slots + begin, end - begin);
    });
  }

  // slots[i] = slot of keys[i]; a key that is absent enters with slot new_slot(i), called once per
  // new key in the order of the batch: the result depends on neither threads nor history. Threads
  // speed up the search for present keys only. Returns the number of new keys. If new_slot
  // or growth throws (charge, std::bad_alloc), keys before that position are in, the others are
  // not.
  template <class NewSlot>
  size_t find_or_insert(const uint64_t* keys,  // (n,)
                        uint32_t* slots,       // (n,) out
                        size_t n, NewSlot&& new_slot, int threads = 1) {
    find(keys, slots, n, threads);
    return insert_missing(keys, slots, n, new_slot);
  }

  // The second half of find_or_insert(): `slots` are as find() left them. new_slot(i) may erase
  // other keys.
  template <class NewSlot>
  size_t insert_missing(const uint64_t* keys, uint32_t* slots, size_t n, NewSlot&& new_slot);

  // Enters keys that are absent, each once. If memory is out, keys before that position are in.
  void enter(const uint64_t* keys, const uint32_t* slots, size_t n);

  // The slot of keys[i], which is present, is slots[i] from now on; absent keys are passed over.
  void replace(const uint64_t* keys, const uint32_t* slots, size_t n);

  // Removes keys, absent ones are passed over; returns how many were removed. `slots`, if given,
  // receives what find() would have said just before.
  size_t erase(const uint64_t* keys, size_t n, uint32_t* slots = nullptr);

  // f(key, slot) for every key. The order steps through the array with a golden-ratio stride:
  // whatever is inserted elsewhere or erased here in this order, completely or not, stays spread
  // over all hashes. (In array order it would pile up at one end of the other index.)
  template <class F>
  void for_each(F&& f) const;

  // Entries of the array that may hold keys, and f(key, slot) for the keys of some of them, in the
  // order of the array. A key that is moved while others come, by growth, moves up.
  size_t extent() const { return end_; }
  template <class F>
  void for_part(size_t begin, size_t n, F&& f) const;

  // Forgets every key. All bytes() go back to the system, for the caller to refund before, and the
  // 4 KiB of an empty index are charged.
  void clear();

  // Buckets looked at to find the present keys, once each: the sum and the most for one key.
  std::pair<size_t, size_t> probes() const;
  // Whether every bucket's overflow is what its keys say and no key lies past a bucket with room.
  bool consistent() const;

 private:
  static constexpr size_t WAYS = 5;
  static constexpr unsigned FULL = (1u << WAYS) - 1;
  static constexpr size_t LOAD = 3;       // keys per bucket in use
  static constexpr size_t AHEAD = 64;     // keys whose homes are asked for ahead
  static constexpr size_t SOON = 24;      // keys ahead whose homes are there
  static constexpr size_t STEPS = 16;     // buckets that for_each asks for ahead
  static constexpr size_t LATER = 16;     // keys not at home that are looked for together
  static constexpr size_t GRAIN = 4096;   // keys worth a thread
  static constexpr size_t SMALLEST = 48;  // buckets: with the next level and spill, a 4 KiB page
  static constexpr size_t SPILL = 4;      // buckets past the last home; more are added on demand

  struct alignas(64) Bucket {
    uint64_t key[WAYS];
    uint32_t slot[WAYS];
    uint32_t occupied : WAYS;           // bit per way
    uint32_t away : WAYS;               // of these, whose keys have their home before this bucket
    uint32_t overflow : 32 - 2 * WAYS;  // keys with home here or before that lie past this bucket
  };
  static_assert(sizeof(Bucket) == 64);

  struct Entry {
    uint64_t key;
    uint32_t slot;
  };

  // Where hashes live. A copy of it in a loop stays in registers.
  struct Scale {
    size_t small, large;  // bucket counts of this level and the next
    size_t frontier;      // homes below it on the small scale have not moved
    size_t home(uint64_t hash) const {
      const size_t bucket = multiply_high(hash, small);
      return bucket < frontier ? bucket : multiply_high(hash, large);
    }
  };

  // Ways that hold the key, one bit each (at most one is set).
  static unsigned match(const Bucket& bucket, uint64_t key) {
#ifdef __AVX512F__
    unsigned ways = _mm512_cmpeq_epi64_mask(_mm512_load_si512(&bucket),
                                            _mm512_set1_epi64(static_cast<int64_t>(key)));
#else
    unsigned ways = 0;
    for (size_t i = 0; i < WAYS; ++i) ways |= static_cast<unsigned>(bucket.key[i] == key) << i;
#endif
    return ways & bucket.occupied;
  }
  static uint32_t slot_of(const Bucket* home, uint64_t key) {
    unsigned ways = match(*home, key);
    while (ways == 0 && home->overflow != 0) ways = match(*++home, key);
    return ways != 0 ? home->slot[__builtin_ctz(ways)] : NONE;
  }

  static void set_away(Bucket& bucket, int way, bool away) {
    bucket.away = (bucket.away & ~(1u << way)) | static_cast<uint32_t>(away) << way;
  }
  Bucket* buckets() const { return static_cast<Bucket*>(memory_.data()); }
  size_t num_buckets() const { return memory_.bytes() / sizeof(Bucket); }
  size_t home(uint64_t key) const { return scale_.home(index_hash(key)); }
  FF_INLINE void ask_at(size_t at) const { __builtin_prefetch(buckets() + at, 1); }
  // The buckets behind, if a new key goes on there. Full ones need not have overflowed.
  FF_INLINE void ask_behind(size_t at) const {
    const bool f = buckets()[at].occupied == FULL;
    ask_at(at + f);
    ask_at(at + 2 * f);
  }

  template <class Ask, class Look, class Close>
  static void look_through(size_t n, const size_t& opened, Ask&& ask, Look&& look, Close&& close);
  void find_part(const uint64_t* keys, uint32_t* slots, size_t n) const;
  void place(Entry entry, size_t first);
  uint32_t remove(uint64_t key, size_t first);
  void fill(size_t hole, int way);
  void open(size_t expected);
  void reserve(size_t keys);
  void take(size_t buckets);
  void make_room();
  void move_frontier();

  Mapping memory_;
  Charge charge_;
  Scale scale_;
  size_t size_ = 0;
  size_t room_ = 0;            // keys that may be in before the frontier has to move
  size_t end_ = 0;             // no bucket from here on has ever held a key
  std::vector<Entry> moving_;  // keys of the bucket at the frontier, on their way
};

// Enters the keys that find() left without a slot. An earlier one of them may be the same key.
template <class NewSlot>
size_t Index::insert_missing(const uint64_t* keys, uint32_t* slots, size_t n, NewSlot&& new_slot) {
  const size_t before = size_;
  size_t ahead = 0, soon = 0;  // keys that have been asked for, first and next
  size_t homes[AHEAD];         // of those
  for (size_t i = 0; i < n; ++i) {
    if (slots[i] != NONE) continue;
    for (const size_t until = std::min(n, i + AHEAD); ahead < until; ++ahead)
      if (slots[ahead] == NONE) ask_at(homes[ahead % AHEAD] = home(keys[ahead]));
    for (const size_t until = std::min(n, i + SOON); soon < until; ++soon)
      if (slots[soon] == NONE) ask_behind(homes[soon % AHEAD]);
    size_t first = homes[i % AHEAD];
    slots[i] = slot_of(buckets() + first, keys[i]);
    if (slots[i] != NONE) continue;
    if (size_ >= room_) {
      make_room();
      ahead = soon = i + 1;  // homes may be others now
      first = home(keys[i]);
    }
    reserve(1);
    slots[i] = new_slot(i);
    place({keys[i], slots[i]}, first);
    ++size_;
  }
  return size_ - before;
}

// Puts an absent key into the first bucket with room from its home, `first`, on. reserve(1) came
// before.
inline void Index::place(Entry entry, size_t first) {
  size_t at = first;
  for (; buckets()[at].occupied == FULL; ++at) ++buckets()[at].overflow;
  Bucket& bucket = buckets()[at];
  const int way = __builtin_ctz(~bucket.occupied);
  bucket.key[way] = entry.key;
  bucket.slot[way] = entry.slot;
  bucket.occupied |= 1u << way;
  bucket.away |= static_cast<uint32_t>(at != first) << way;
  end_ = std::max(end_, at + 1);
}

// Memory for `keys` more keys wherever they fall, and one empty bucket that ends every probe.
inline void Index::reserve(size_t keys) {
  if (end_ + keys >= num_buckets()) take(end_ + keys + 1);
}

template <class F>
void Index::for_each(F&& f) const {
  size_t stride = static_cast<size_t>(0.6180339887498949 * static_cast<double>(end_)) | 1;
  while (std::gcd(stride, end_) != 1) stride += 2;
  auto step = [&](size_t at) { return at + stride < end_ ? at + stride : at + stride - end_; };
  size_t at = 0, ahead = 0;
  for (size_t i = 0; i < STEPS; ++i) ahead = step(ahead);
  for (size_t i = 0; i < end_; ++i, at = step(at), ahead = step(ahead)) {
    __builtin_prefetch(buckets() + ahead);
    const Bucket& bucket = buckets()[at];
    for (unsigned ways = bucket.occupied; ways != 0; ways &= ways - 1) {
      const int way = __builtin_ctz(ways);
      f(bucket.key[way], bucket.slot[way]);
    }
  }
}

template <class F>
void Index::for_part(size_t begin, size_t n, F&& f) const {
  for (const Bucket *at = buckets() + begin, *const end = at + n; at < end; ++at)
    for (unsigned ways = at->occupied; ways != 0; ways &= ways - 1) {
      const int way = __builtin_ctz(ways);
      f(at->key[way], at->slot[way]);
    }
}

}  // namespace ff
