// The first step of grouping: lookups dealt to parts by all threads.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "group.h"
#include "lookup.h"
#include "slot_sort.h"
#include "tile.h"

namespace ff {

constexpr size_t PART = 4096;  // lookups, about
constexpr size_t LARGE = 8 * PART;
constexpr int MOST_BITS = 11;     // of parts: more streams than that are slow to write
constexpr int BITS_AT_ONCE = 13;  // unless they need no sorting then

// Lookups of a run whose slots have the same high bits, the others being `bits`. First all of a
// run, whose ids are [begin, end); then where they lie among those of all runs.
struct Part {
  size_t run;
  uint32_t slot;  // the first that there can be
  int bits;
  size_t begin, end;
  bool second = false;   // in the second of the two arrays
  bool grouped = false;  // one row, whose entries are written

  size_t size() const { return end - begin; }
};

// How a part is cut into smaller ones: by slot >> shift & mask.
struct Cut {
  size_t part, run;
  int shift;
  uint32_t mask;
  size_t first_worker = 0;
  size_t begin = 0, end = 0;  // counters of its workers, one after the other

  size_t parts() const { return size_t{mask} + 1; }
};

// Deals the lookups of all runs that are not distinct to parts, of which a thread can sort each in
// its cache: by the high bits of their slots, in the order of the request. What is large is cut
// again.
template <class Item>
class Partition {
 public:
  static constexpr bool NUMBERED = sizeof(Item) > sizeof(Lookup);

  Partition(Ticket& ticket, const std::vector<GroupTile>& tiles, GroupSpace& space, int threads)
      : ticket_(ticket), tiles_(tiles), space_(space), threads_(threads) {
    cut_runs();
    while (cut_large_parts()) {
    }
  }

  const std::vector<Part>& parts() const { return parts_; }  // by run and slot
  size_t lookups() const { return lookups_; }
  Item* lookups_of(const Part& part) const { return memory(part.second) + part.begin; }

 private:
  Item* memory(bool second) const {
    return static_cast<Item*>((second ? space_.second : space_.first).data());
  }
  static Item item(uint32_t slot, uint32_t row, size_t id) {
    if constexpr (NUMBERED)
      return {{slot, row}, static_cast<uint32_t>(id)};
    else
      return {slot, row};
  }
  // Of a worker's share of what is cut: its lookups by part, then where the next of a part goes.
  template <bool runs>
  uint32_t* counters(const Cut& cut, size_t worker) const {
    const size_t each = (runs ? 1 : QUARTERS) * cut.parts();
    return space_.counters.data() + cut.begin + (worker - cut.first_worker) * each;
  }

  void cut_runs();
  bool cut_large_parts();
  Cut cut_of(size_t part) const;
  template <bool runs>
  void cut();
  template <bool runs>
  WorkShares share_cuts();
  template <bool runs>
  void count(const Cut& cut, const Share& share, uint32_t* counts) const;
  template <bool runs>
  void place_parts();
  void make_room();
  template <bool runs>
  void deal(const Cut& cut, const Share& share, uint32_t* next) const;

  Ticket& ticket_;
  const std::vector<GroupTile>& tiles_;
  GroupSpace& space_;
  int threads_;
  std::vector<Part> parts_;
  std::vector<Cut> cuts_;
  bool second_ = true;  // what is cut goes to the second array
  size_t lookups_ = 0;
};

template <class Item>
void Partition<Item>::cut_runs() {
  for (size_t r = 0; r < ticket_.runs.size(); ++r) {
    const Run& run = ticket_.runs[r];
    if (run.distinct) continue;
    const int bits = std::bit_width(std::max<uint64_t>(1, tiles_[run.tile].slots) - 1);
    parts_.push_back({r, 0, bits, run.id_begin, run.id_end});
    cuts_.push_back(cut_of(parts_.size() - 1));
  }
  cut<true>();
}

// Where few rows have many lookups, or slots are named unevenly: so that no thread has much more to
// do than others. False if there are none.
template <class Item>
bool Partition<Item>::cut_large_parts() {
  cuts_.clear();
  for (size_t p = 0; p < parts_.size(); ++p)
    if (!parts_[p].grouped && parts_[p].bits > 0 && parts_[p].size() > LARGE)
      cuts_.push_back(cut_of(p));
  if (cuts_.empty()) return false;
  cut<false>();
  return true;
}

// By so many bits that parts are small; by all of them if that is one step.
template <class Item>
Cut Partition<Item>::cut_of(size_t p) const {
  const Part& part = parts_[p];
  const int small = static_cast<int>(std::bit_width(part.size() / PART));
  const bool at_once = part.bits <= BITS_AT_ONCE && part.size() >> part.bits > 0;
  const int bits = at_once ? part.bits : std::min({part.bits, std::max(1, small), MOST_BITS});
  return {p, part.run, part.bits - bits, static_cast<uint32_t>((uint64_t{1} << bits) - 1)};
}

template <class Item>
template <bool runs>
void Partition<Item>::cut() {
  second_ = !second_;
  const WorkShares shares = share_cuts<runs>();
  each_share(shares, [&](size_t worker, const Share& share) {
    const Cut& cut = cuts_[share.part];
    count<runs>(cut, share, counters<runs>(cut, worker));
  });
  place_parts<runs>();
  make_room();
  each_share(shares, [&](size_t worker, const Share& share) {
    const Cut& cut = cuts_[share.part];
    deal<runs>(cut, share, counters<runs>(cut, worker));
  });
}

template <class Item>
template <bool runs>
WorkShares Partition<Item>::share_cuts() {
  WorkShares shares = share_ranges(cuts_.size(), threads_, [&](size_t c) {
    const Part& part = parts_[cuts_[c].part];
    return std::pair{part.begin, part.end};
  });
  size_t counters = 0;
  for (size_t worker = 0; worker < shares.size(); ++worker)
    for (const Share& share : shares[worker]) {
      Cut& cut = cuts_[share.part];
      if (cut.end == 0) {
        cut.first_worker = worker;
        cut.begin = counters;
      }
      cut.end = counters += (runs ? 1 : QUARTERS) * cut.parts();
    }
  space_.counters.assign(counters, 0);
  return shares;
}

template <class Item>
template <bool runs>
void Partition<Item>::count(const Cut& cut, const Share& share, uint32_t* counts) const {
  const int shift = cut.shift;
  const uint32_t mask = cut.mask;
  const uint32_t* const slots = ticket_.slots.data();
  if constexpr (runs) {
    for (size_t i = share.begin; i < share.end; ++i)
      if (slots[i] != Tile::NONE) ++counts[slots[i] >> shift & mask];
  } else {
    const Item* const from = memory(!second_);
    in_quarters(share.begin, share.end, [=, parts = cut.parts()](size_t i, size_t quarter) {
      ++counts[quarter * parts + (from[i].slot >> shift & mask)];
    });
  }
}

// Puts the parts of what is cut in its place.
template <class Item>
template <bool runs>
void Partition<Item>::place_parts() {
  std::vector<Part> parts;
  size_t p = 0;
  for (const Cut& cut : cuts_) {
    parts.insert(parts.end(), parts_.begin() + p, parts_.begin() + cut.part);
    const Part& whole = parts_[cut.part];
    const bool grouped = !NUMBERED && cut.shift == 0;
    size_t at = runs ? lookups_ : whole.begin;
    for (uint32_t d = 0; d <= cut.mask; ++d) {
      const size_t begin = at;
      for (size_t c = cut.begin + d; c < cut.end; c += cut.parts())
        at += std::exchange(space_.counters[c], static_cast<uint32_t>(at));
      if (at > begin)
        parts.push_back(
            {whole.run, whole.slot | d << cut.shift, cut.shift, begin, at, second_, grouped});
    }
    if (runs) lookups_ = at;
    p = cut.part + 1;
  }
  parts.insert(parts.end(), parts_.begin() + p, parts_.end());
  parts_.swap(parts);
}

template <class Item>
void Partition<Item>::make_room() {
  const size_t bytes = lookups_ * sizeof(Item);
  Mapping& memory = second_ ? space_.second : space_.first;
  if (bytes > memory.bytes()) memory.grow(bytes + bytes / 8);
  ticket_.entries.resize(lookups_);
  ticket_.entry_weight.resize(ticket_.weights.empty() ? 0 : lookups_);
}

// Lookups go to their parts. An id without a row has no gradient.
template <class Item>
template <bool runs>
void Partition<Item>::deal(const Cut& cut, const Share& share, uint32_t* next) const {
  const RowCode rows(ticket_.runs[cut.run]);
  Item* const to = memory(second_);
  Entry* const entries = ticket_.entries.data();
  auto each = [&](auto&& put) {
    if constexpr (runs) {
      const uint32_t* const slots = ticket_.slots.data();
      each_id(ticket_, ticket_.runs[cut.run], share, [&](size_t i, uint32_t row) {
        if (slots[i] != Tile::NONE) put(item(slots[i], row, i), next);
      });
    } else {
      const Item* const from = memory(!second_);
      in_quarters(share.begin, share.end, [=, parts = cut.parts()](size_t i, size_t quarter) {
        put(from[i], next + quarter * parts);
      });
    }
  };
  const int shift = cut.shift;
  const uint32_t mask = cut.mask;
  if (!NUMBERED && shift == 0)
    each([=](const Item& item, uint32_t* at) {
      entries[at[item.slot & mask]++] = rows.entry(item.row);
    });
  else
    each([=](const Item& item, uint32_t* at) { to[at[item.slot >> shift & mask]++] = item; });
}

}  // namespace ff
