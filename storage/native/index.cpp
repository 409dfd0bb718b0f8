// What the index does in loops of its own: search, erase, growth, checks.
#include "index.h"

#include <stdexcept>
#include <string>

namespace ff {

void Index::open(size_t expected) {
  if (expected >= NONE)
    throw std::length_error(
        "Index: expected must be below 2^32 - 1 keys, the number of slots; got " +
        std::to_string(expected));
  const size_t small = std::max(SMALLEST, expected / LOAD + 1);
  scale_ = {small, small + small / 4, small};
  take(scale_.large + SPILL);
  if (expected > 0) memory_.populate();
  size_ = end_ = 0;
  room_ = LOAD * small;
}

// Memory for so many buckets.
void Index::take(size_t buckets) {
  const size_t bytes = buckets * sizeof(Bucket);
  const size_t more = memory_.after_growth(bytes) - memory_.bytes();
  if (more > 0 && charge_) charge_(more);
  memory_.grow(bytes);
}

size_t Index::growth(size_t keys) const {
  size_t large = scale_.large;
  while (size_ + keys >= LOAD * large) large += large / 4;
  const size_t buckets = std::max(large, end_ + 1) + 2 * SPILL;
  return memory_.after_growth(buckets * sizeof(Bucket)) - memory_.bytes();
}

void Index::clear() {
  memory_.reset();
  open(0);
}

// Asks for homes one by one as keys are looked at, so that as many lines are on their way all the
// time. Whether a key is at home is hard to guess, and the bucket behind may be far away: homes are
// looked at without branches, and what they leave open is asked for and closed a little later.
template <class Ask, class Look, class Close>
FF_INLINE void Index::look_through(size_t n, const size_t& opened, Ask&& ask, Look&& look,
                                   Close&& close) {
  for (size_t i = 0; i < std::min(n, AHEAD); ++i) ask(i);
  for (size_t i = 0; i < n; ++i) {
    look(i);
    if (i + AHEAD < n) ask(i + AHEAD);
    if (opened == LATER) close();
  }
  close();
}

void Index::find_part(const uint64_t* keys, uint32_t* slots, size_t n) const {
  const Scale scale = scale_;
  const Bucket* const all = buckets();
  const Bucket* homes[AHEAD];
  struct Open {
    size_t i;
    const Bucket* next;
  } open[LATER];
  size_t opened = 0;
  auto ask = [&](size_t i) FF_ALWAYS {
    homes[i % AHEAD] = all + scale.home(index_hash(keys[i]));
    __builtin_prefetch(homes[i % AHEAD]);
  };
  auto look = [&](size_t i) FF_ALWAYS {
    const Bucket* const home = homes[i % AHEAD];
    const unsigned ways = match(*home, keys[i]);
    const uint32_t slot = home->slot[__builtin_ctz(ways | 1u << (WAYS - 1))];
    slots[i] = ways != 0 ? slot : NONE;
    const bool behind = ways == 0 && home->overflow != 0;
    open[opened] = {i, home + behind};
    __builtin_prefetch(home + behind);
    opened += behind;
  };
  auto close = [&] {
    for (size_t o = 0; o < opened; ++o) slots[open[o].i] = slot_of(open[o].next, keys[open[o].i]);
    opened = 0;
  };
  look_through(n, opened, ask, look, close);
}

void Index::enter(const uint64_t* keys, const uint32_t* slots, size_t n) {
  size_t homes[AHEAD];
  size_t ahead = 0;
  for (size_t i = 0; i < n; ++i) {
    for (; ahead < std::min(n, i + AHEAD); ++ahead)
      ask_at(homes[ahead % AHEAD] = home(keys[ahead]));
    if (i + SOON < ahead) ask_behind(homes[(i + SOON) % AHEAD]);
    if (size_ >= room_) {
      make_room();
      homes[i % AHEAD] = home(keys[i]);
      ahead = i + 1;  // homes may be others now
    }
    reserve(1);
    place({keys[i], slots[i]}, homes[i % AHEAD]);
    ++size_;
  }
}

// Moves the frontier until one more key fits under the load, into the next level if it must.
void Index::make_room() {
  while (size_ >= room_) {
    if (scale_.frontier == 0) {
      const size_t next = scale_.large + scale_.large / 4;
      take(next + SPILL);
      scale_ = {scale_.large, next, scale_.large};
    }
    move_frontier();
    room_ = LOAD * (scale_.large - scale_.frontier / 4);  // of the buckets in use
  }
}

// Takes the last home that has not moved to the large scale. All that can fail comes first.
void Index::move_frontier() {
  const size_t from = scale_.frontier - 1;
  unsigned leaving = 0;
  moving_.clear();
  for (const Bucket* bucket = buckets() + from;; ++bucket) {
    for (unsigned ways = bucket->occupied; ways != 0; ways &= ways - 1) {
      const int way = __builtin_ctz(ways);
      if (home(bucket->key[way]) != from) continue;
      moving_.push_back({bucket->key[way], bucket->slot[way]});
      leaving |= 1u << way;
    }
    if (bucket->overflow == 0) break;
  }
  reserve(moving_.size());
  if (Bucket& only = buckets()[from]; only.overflow == 0)
    only.occupied &= ~leaving;  // nobody who leaves his home is away
  else
    for (const Entry& entry : moving_) remove(entry.key, from);
  scale_.frontier = from;
  for (const Entry& entry : moving_) place(entry, home(entry.key));
}

// Takes out a key whose home is `first` and returns its slot, or NONE if it is absent. size_ is the
// caller's.
uint32_t Index::remove(uint64_t key, size_t first) {
  size_t at = first;
  unsigned ways;
  while ((ways = match(buckets()[at], key)) == 0)
    if (buckets()[at++].overflow == 0) return NONE;
  for (size_t passed = first; passed < at; ++passed) --buckets()[passed].overflow;
  const int way = __builtin_ctz(ways);
  const uint32_t slot = buckets()[at].slot[way];
  fill(at, way);
  return slot;
}

// Closes a hole: the nearest key that overflowed this bucket comes back into it and leaves a hole
// of its own, until a hole is where nothing has overflowed.
void Index::fill(size_t hole, int way) {
  Bucket* const all = buckets();
  for (size_t at = hole; all[hole].overflow != 0;) {
    const Bucket& next = all[++at];
    for (unsigned ways = next.away; ways != 0; ways &= ways - 1) {
      const int other = __builtin_ctz(ways);
      const size_t home = this->home(next.key[other]);
      if (home > hole) continue;
      all[hole].key[way] = next.key[other];
      all[hole].slot[way] = next.slot[other];
      set_away(all[hole], way, home != hole);
      for (; hole < at; ++hole) --all[hole].overflow;
      way = other;
      break;
    }
  }
  all[hole].occupied &= ~(1u << way);
  set_away(all[hole], way, false);
}

void Index::replace(const uint64_t* keys, const uint32_t* slots, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (i + AHEAD < n) ask_at(home(keys[i + AHEAD]));
    Bucket* bucket = buckets() + home(keys[i]);
    unsigned ways = match(*bucket, keys[i]);
    while (ways == 0 && bucket->overflow != 0) ways = match(*++bucket, keys[i]);
    if (ways != 0) bucket->slot[__builtin_ctz(ways)] = slots[i];
  }
}

// A bucket that nothing has overflowed has the key or nobody has it, and a hole in it is nobody's
// business. The others are left open.
size_t Index::erase(const uint64_t* keys, size_t n, uint32_t* slots) {
  const size_t before = size_;
  const Scale scale = scale_;
  Bucket* const all = buckets();
  size_t homes[AHEAD];
  struct Open {
    size_t i, home;
  } open[LATER];
  size_t opened = 0, erased = 0;
  auto ask = [&](size_t i) FF_ALWAYS {
    homes[i % AHEAD] = scale.home(index_hash(keys[i]));
    ask_at(homes[i % AHEAD]);
  };
  auto look = [&](size_t i) FF_ALWAYS {
    const size_t home = homes[i % AHEAD];
    Bucket& bucket = all[home];
    const bool simple = bucket.overflow == 0;
    const unsigned ways = simple ? match(bucket, keys[i]) : 0;
    bucket.occupied &= ~ways;
    bucket.away &= ~ways;
    erased += ways != 0;
    if (slots != nullptr) slots[i] = ways != 0 ? bucket.slot[__builtin_ctz(ways)] : NONE;
    open[opened] = {i, home};
    __builtin_prefetch(&bucket + !simple, 1);
    __builtin_prefetch(&bucket + 2 * !simple, 1);
    opened += !simple;
  };
  auto close = [&] {
    for (size_t o = 0; o < opened; ++o) {
      const uint32_t slot = remove(keys[open[o].i], open[o].home);
      erased += slot != NONE;
      if (slots != nullptr) slots[open[o].i] = slot;
    }
    opened = 0;
  };
  look_through(n, opened, ask, look, close);
  size_ = before - erased;
  return erased;
}

std::pair<size_t, size_t> Index::probes() const {
  size_t sum = 0, most = 0;
  for (size_t at = 0; at < end_; ++at) {
    const Bucket& bucket = buckets()[at];
    for (unsigned ways = bucket.occupied; ways != 0; ways &= ways - 1) {
      const size_t looked = at - home(bucket.key[__builtin_ctz(ways)]) + 1;
      sum += looked;
      most = std::max(most, looked);
    }
  }
  return {sum, most};
}

bool Index::consistent() const {
  std::vector<uint32_t> overflow(num_buckets() + 1);
  size_t keys = 0;
  for (size_t at = 0; at < num_buckets(); ++at) {
    const Bucket& bucket = buckets()[at];
    for (unsigned ways = bucket.occupied; ways != 0; ways &= ways - 1, ++keys) {
      const size_t first = home(bucket.key[__builtin_ctz(ways)]);
      if (first > at || (first != at) != (bucket.away >> __builtin_ctz(ways) & 1)) return false;
      for (size_t passed = first; passed < at; ++passed) ++overflow[passed];
    }
  }
  for (size_t at = 0; at < num_buckets(); ++at) {
    const Bucket& bucket = buckets()[at];
    if (bucket.overflow != overflow[at]) return false;
    if (bucket.overflow != 0 && bucket.occupied != FULL) return false;
    if ((bucket.away & ~bucket.occupied) != 0) return false;
  }
  return keys == size_ && size_ <= room_;
}

}  // namespace ff
