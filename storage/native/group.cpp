// Two steps: all threads deal the lookups of a run to parts by the high bits of their slots; then
// each part, which fits the cache, is sorted by one thread. Both keep the order of the request.
#include "group.h"

#include <algorithm>
#include <bit>

#include "slot_sort.h"
#include "tile.h"

namespace ff {
namespace {

constexpr size_t PART = 4096;   // lookups, about
constexpr int MOST_BITS = 11;   // of parts: more streams than that are slow to write

// An id of the request that has a row.
struct Lookup {
  uint32_t slot;
  uint32_t row;  // the gradient row, see RowCode
};
struct NumberedLookup : Lookup {
  uint32_t id;  // of the request
};

// Segment and reply row in 32 bits.
class RowCode {
 public:
  explicit RowCode(const Run& run)
      : first_(static_cast<uint32_t>(run.segment_begin)),
        row_bits_(32 - std::bit_width(run.segment_end - run.segment_begin - 1)),
        mask_(static_cast<uint32_t>((uint64_t{1} << row_bits_) - 1)) {}

  uint32_t code(size_t segment, size_t row) const {
    return static_cast<uint32_t>(uint64_t{segment - first_} << row_bits_ | row);
  }
  Entry entry(uint32_t code) const {
    return {first_ + static_cast<uint32_t>(uint64_t{code} >> row_bits_), code & mask_};
  }

 private:
  uint32_t first_;
  int row_bits_;
  uint32_t mask_;
};

// How a run is dealt to parts: slot >> shift says to which.
struct Deal {
  int shift = 0;
  size_t parts = 0;
  size_t first_worker = 0;
  size_t starts = 0, end = 0;  // where the counters of this and the next workers are
};

// Lookups of a run whose slots have the same high bits.
struct Part {
  size_t run;
  uint32_t number;  // in the run
  size_t begin;     // where they lie, among those of all runs
};

// Calls visit(id, row) for a share of a run's ids.
template <class Visit>
void each_id(const Ticket& ticket, const Share& share, Visit&& visit) {
  const Run& run = ticket.runs[share.part];
  const RowCode rows(run);
  for (size_t s = run.segment_begin; s < run.segment_end; ++s) {
    const Segment& segment = ticket.segments[s];
    const size_t end = std::min(share.end, segment.id_end);
    size_t i = std::max(share.begin, segment.id_begin);
    if (i >= end) continue;
    if (!segment.pooled) {
      for (; i < end; ++i) visit(i, rows.code(s, i - segment.id_begin));
      continue;
    }
    const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
    const auto after = std::upper_bound(offsets, offsets + segment.rows, static_cast<int64_t>(i));
    for (size_t bag = after - offsets - 1; i < end; ++bag) {
      const uint32_t row = rows.code(s, bag);
      for (const size_t stop = std::min<size_t>(end, offsets[bag + 1]); i < stop; ++i)
        visit(i, row);
    }
  }
}

template <class Item>
class Grouping {
 public:
  Grouping(Ticket& ticket, const std::vector<GroupTile>& tiles, GroupSpace& space, int threads)
      : ticket_(ticket), tiles_(tiles), space_(space) {
    shares_ = share_ids(ticket.runs, threads, [](const Run& run) { return !run.distinct; });
  }

  void run() {
    choose_parts();
    each_share(shares_, [&](size_t worker, const Share& share) { count(worker, share); });
    place_parts();
    make_room();
    each_share(shares_, [&](size_t worker, const Share& share) { deal(worker, share); });
    each_worker([&](size_t worker) { sort_parts(worker); });
    place_groups();
    each_worker([&](size_t worker) { write_groups(worker); });
  }

 private:
  static constexpr bool NUMBERED = sizeof(Item) > sizeof(Lookup);

  template <class Work>
  void each_worker(Work&& work) {
    parallel_for(static_cast<int>(shares_.size()), shares_.size(), 1,
                 [&](size_t begin, size_t end, int) {
                   for (size_t worker = begin; worker < end; ++worker) work(worker);
                 });
  }
  Item* lookups() const { return static_cast<Item*>(space_.lookups.data()); }
  // Whether a part is one row, and its lookups need no sorting.
  bool direct(const Deal& deal) const { return !NUMBERED && deal.shift == 0; }
  // Of a worker's share of a run: its lookups by part, and then where the next of a part goes.
  uint32_t* starts(const Deal& deal, size_t worker) const {
    return space_.starts.data() + deal.starts + (worker - deal.first_worker) * deal.parts;
  }

  void choose_parts();
  void count(size_t worker, const Share& share) const;
  void place_parts();
  void make_room();
  void deal(size_t worker, const Share& share) const;
  void sort_parts(size_t worker);
  void sort_part(const Part& part, size_t end, SlotSort<Item>& sort, FoundGroups& found);
  void add_extras(size_t begin, const Item* sorted, size_t n, FoundGroups::Extra* extra);
  void place_groups();
  void write_groups(size_t worker);

  Ticket& ticket_;
  const std::vector<GroupTile>& tiles_;
  GroupSpace& space_;
  WorkShares shares_;
  std::vector<Deal> deals_;  // by run
  std::vector<Part> parts_;
  size_t lookups_ = 0;
};

template <class Item>
void Grouping<Item>::choose_parts() {
  deals_.resize(ticket_.runs.size());
  std::vector<size_t> workers(deals_.size());
  for (size_t worker = shares_.size(); worker-- > 0;)
    for (const Share& share : shares_[worker]) {
      deals_[share.part].first_worker = worker;
      ++workers[share.part];
    }
  size_t starts = 0;
  for (size_t r = 0; r < deals_.size(); ++r) {
    const Run& run = ticket_.runs[r];
    if (workers[r] == 0) continue;
    const size_t ids = run.id_end - run.id_begin;
    const int bits = std::bit_width(std::max<uint64_t>(1, tiles_[run.tile].slots) - 1);
    const int wanted = bits <= MOST_BITS && ids >> bits > 0 ? bits : std::bit_width(ids / PART);
    const int high = std::min({bits, wanted, MOST_BITS});
    deals_[r].shift = bits - high;
    deals_[r].parts = size_t{1} << high;
    deals_[r].starts = starts;
    deals_[r].end = starts += workers[r] * deals_[r].parts;
  }
  space_.starts.assign(starts, 0);
}

template <class Item>
void Grouping<Item>::count(size_t worker, const Share& share) const {
  const Deal& deal = deals_[share.part];
  uint32_t* const counts = starts(deal, worker);
  const uint32_t* const slots = ticket_.slots.data();
  for (size_t i = share.begin; i < share.end; ++i)
    if (slots[i] != Tile::NONE) ++counts[slots[i] >> deal.shift];
}

template <class Item>
void Grouping<Item>::place_parts() {
  for (size_t r = 0; r < deals_.size(); ++r) {
    const Deal& deal = deals_[r];
    for (size_t p = 0; p < deal.parts; ++p) {
      parts_.push_back({r, static_cast<uint32_t>(p), lookups_});
      for (size_t at = deal.starts + p; at < deal.end; at += deal.parts)
        lookups_ += std::exchange(space_.starts[at], static_cast<uint32_t>(lookups_));
    }
  }
}

template <class Item>
void Grouping<Item>::make_room() {
  const size_t bytes = lookups_ * sizeof(Item);
  if (bytes > space_.lookups.bytes()) space_.lookups.grow(bytes + bytes / 8);
  ticket_.entries.resize(lookups_);
  ticket_.entry_weight.resize(ticket_.weights.empty() ? 0 : lookups_);
  if (space_.found.size() < shares_.size()) space_.found.resize(shares_.size());
}

// An id without a row has no gradient.
template <class Item>
void Grouping<Item>::deal(size_t worker, const Share& share) const {
  const Deal& deal = deals_[share.part];
  const RowCode rows(ticket_.runs[share.part]);
  uint32_t* const next = starts(deal, worker);
  const uint32_t* const slots = ticket_.slots.data();
  Item* const to = lookups();
  Entry* const entries = ticket_.entries.data();
  auto each = [&](auto&& put) {
    each_id(ticket_, share, [&](size_t i, uint32_t row) {
      if (slots[i] != Tile::NONE) put(next[slots[i] >> deal.shift]++, i, row);
    });
  };
  if (direct(deal))
    each([&](uint32_t at, size_t, uint32_t row) { entries[at] = rows.entry(row); });
  else
    each([&](uint32_t at, size_t i, uint32_t row) {
      if constexpr (NUMBERED)
        to[at] = {{slots[i], row}, static_cast<uint32_t>(i)};
      else
        to[at] = {slots[i], row};
    });
}

// Every worker sorts some consecutive parts.
template <class Item>
void Grouping<Item>::sort_parts(size_t worker) {
  FoundGroups& found = space_.found[worker];
  found.count = 0;
  found.by_run.assign(ticket_.runs.size(), 0);
  auto first = [&](size_t w) {
    const size_t begin = lookups_ * w / shares_.size();
    return std::lower_bound(parts_.begin(), parts_.end(), begin,
                            [](const Part& part, size_t at) { return part.begin < at; }) -
           parts_.begin();
  };
  const size_t end = worker + 1 < shares_.size() ? first(worker + 1) : parts_.size();
  SlotSort<Item> sort;
  for (size_t p = first(worker); p < end; ++p)
    sort_part(parts_[p], p + 1 < parts_.size() ? parts_[p + 1].begin : lookups_, sort, found);
}

template <class Item>
void Grouping<Item>::sort_part(const Part& part, size_t end, SlotSort<Item>& sort,
                               FoundGroups& found) {
  const size_t n = end - part.begin, before = found.count;
  if (n == 0) return;
  found.make_room(n, NUMBERED);
  if (direct(deals_[part.run])) {
    found.groups[found.count++] = {part.number, static_cast<uint32_t>(end)};
    ++found.by_run[part.run];
    return;
  }
  const RowCode rows(ticket_.runs[part.run]);
  const Item* const sorted = sort(lookups() + part.begin, n);
  Entry* const entries = ticket_.entries.data() + part.begin;
  FoundGroups::Group* group = found.groups.data() + before;
  for (size_t e = 0; e < n; ++e) {  // a group is written until it is complete: no branch
    entries[e] = rows.entry(sorted[e].row);
    *group = {sorted[e].slot, static_cast<uint32_t>(part.begin + e + 1)};
    group += e + 1 == n || sorted[e + 1].slot != sorted[e].slot;
  }
  found.count = group - found.groups.data();
  found.by_run[part.run] += found.count - before;
  if constexpr (NUMBERED) add_extras(part.begin, sorted, n, found.extras.data() + before);
}

// What weights, credits and ids of a part's lookups make of its entries and groups.
template <class Item>
void Grouping<Item>::add_extras(size_t begin, const Item* sorted, size_t n,
                                FoundGroups::Extra* extra) {
  float credit = 0;
  for (size_t e = 0; e < n; ++e) {
    const uint32_t id = sorted[e].id;
    if (!ticket_.weights.empty()) ticket_.entry_weight[begin + e] = ticket_.weights[id];
    if (!ticket_.credits.empty()) credit += ticket_.credits[id];
    if (e + 1 < n && sorted[e + 1].slot == sorted[e].slot) continue;
    *extra++ = {id, std::exchange(credit, 0.0f)};
  }
}

// Where the groups of each run and worker go.
template <class Item>
void Grouping<Item>::place_groups() {
  size_t groups = 0;
  for (size_t r = 0; r < ticket_.runs.size(); ++r) {
    Run& run = ticket_.runs[r];
    run.group_begin = groups;
    for (size_t worker = 0; worker < shares_.size(); ++worker)
      groups += space_.found[worker].by_run[r];
    run.group_end = groups;
  }
  const bool with_ids = NUMBERED && !ticket_.ids.empty();
  ticket_.group_slot.resize(groups);
  ticket_.group_at.resize(groups);
  ticket_.group_first.resize(groups + 1);
  ticket_.group_first[0] = 0;
  ticket_.group_id.resize(with_ids ? groups : 0);
  ticket_.group_credit.resize(ticket_.credits.empty() ? 0 : groups);
}

template <class Item>
void Grouping<Item>::write_groups(size_t worker) {
  const FoundGroups& found = space_.found[worker];
  size_t g = 0;
  for (size_t w = 0; w < worker; ++w) g += space_.found[w].count;
  const FoundGroups::Group* group = found.groups.data();
  const FoundGroups::Extra* extra = found.extras.data();
  for (size_t r = 0; r < ticket_.runs.size(); ++r) {
    const GroupTile& tile = tiles_[ticket_.runs[r].tile];
    for (const size_t end = g + found.by_run[r]; g < end; ++g, ++group) {
      ticket_.group_slot[g] = group->slot;
      ticket_.group_at[g] = tile.rows.weights(group->slot);
      ticket_.group_first[g + 1] = group->end;
      if constexpr (NUMBERED) {
        if (tile.needs_id) ticket_.group_id[g] = ticket_.ids[extra->id];
        if (!ticket_.credits.empty()) ticket_.group_credit[g] = extra->credit;
        ++extra;
      }
    }
  }
}

}  // namespace

void group_rows(Ticket& ticket, const std::vector<GroupTile>& tiles, GroupSpace& space,
                int threads) {
  const bool needs_id = std::any_of(ticket.runs.begin(), ticket.runs.end(), [&](const Run& run) {
    return !run.distinct && tiles[run.tile].needs_id;
  });
  if (needs_id || !ticket.weights.empty() || !ticket.credits.empty())
    Grouping<NumberedLookup>(ticket, tiles, space, threads).run();
  else
    Grouping<Lookup>(ticket, tiles, space, threads).run();
}

}  // namespace ff
