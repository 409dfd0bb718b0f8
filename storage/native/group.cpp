// Two steps: all threads deal the lookups of a run to parts by the high bits of their slots; then
// each part, which fits the cache, is sorted by one thread. Both keep the order of the request.
#include "group.h"

#include <algorithm>
#include <bit>

#include "slot_sort.h"
#include "tile.h"

namespace ff {
namespace {

constexpr size_t PART = 4096;  // lookups, about
constexpr size_t LARGE = 8 * PART;
constexpr int MOST_BITS = 11;     // of parts: more streams than that are slow to write
constexpr int BITS_AT_ONCE = 13;  // unless they need no sorting then

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
        mask_(static_cast<uint32_t>(rows() - 1)) {}

  uint64_t rows() const { return uint64_t{1} << row_bits_; }  // of a segment, at most
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

// Calls visit(id, row) for a share of a run's ids.
template <class Visit>
void each_id(const Ticket& ticket, const Run& run, const Share& share, Visit&& visit) {
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
      : ticket_(ticket), tiles_(tiles), space_(space), threads_(threads) {}

  void run() {
    cut_runs();
    while (cut_large_parts()) {
    }
    sort_parts();
    place_groups();
    each_worker([&](size_t worker) { write_groups(worker); });
  }

 private:
  static constexpr bool NUMBERED = sizeof(Item) > sizeof(Lookup);

  Item* lookups(bool second) const {
    Mapping& memory = second ? space_.second : space_.first;
    return static_cast<Item*>(memory.data());
  }
  static Item item(uint32_t slot, uint32_t row, size_t id) {
    if constexpr (NUMBERED)
      return {{slot, row}, static_cast<uint32_t>(id)};
    else
      return {slot, row};
  }
  template <class Work>
  void each_worker(Work&& work) {
    parallel_for(static_cast<int>(workers_), workers_, 1, [&](size_t begin, size_t end, int) {
      for (size_t worker = begin; worker < end; ++worker) work(worker);
    });
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
  template <bool runs>
  void deal(const Cut& cut, const Share& share, uint32_t* next) const;
  void sort_parts();
  void sort_part(const Part& part, SlotSort<Item>& sort, FoundGroups& found);
  void add_extras(size_t begin, const Item* sorted, size_t n, FoundGroups::Extra* extra);
  void place_groups();
  void write_groups(size_t worker);

  Ticket& ticket_;
  const std::vector<GroupTile>& tiles_;
  GroupSpace& space_;
  int threads_;
  std::vector<Part> parts_;
  std::vector<Cut> cuts_;
  bool second_ = true;  // what is cut goes to the second array
  size_t lookups_ = 0;
  size_t workers_ = 1;  // that sort
};

template <class Item>
void Grouping<Item>::cut_runs() {
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
bool Grouping<Item>::cut_large_parts() {
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
Cut Grouping<Item>::cut_of(size_t p) const {
  const Part& part = parts_[p];
  const int small = static_cast<int>(std::bit_width(part.size() / PART));
  const bool at_once = part.bits <= BITS_AT_ONCE && part.size() >> part.bits > 0;
  const int bits = at_once ? part.bits : std::min({part.bits, small, MOST_BITS});
  return {p, part.run, part.bits - bits, static_cast<uint32_t>((uint64_t{1} << bits) - 1)};
}

template <class Item>
template <bool runs>
void Grouping<Item>::cut() {
  second_ = !second_;
  const WorkShares shares = share_cuts<runs>();
  each_share(shares, [&](size_t worker, const Share& share) {
    const Cut& cut = cuts_[share.part];
    count<runs>(cut, share, counters<runs>(cut, worker));
  });
  place_parts<runs>();
  each_share(shares, [&](size_t worker, const Share& share) {
    const Cut& cut = cuts_[share.part];
    deal<runs>(cut, share, counters<runs>(cut, worker));
  });
}

template <class Item>
template <bool runs>
WorkShares Grouping<Item>::share_cuts() {
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
void Grouping<Item>::count(const Cut& cut, const Share& share, uint32_t* counts) const {
  const int shift = cut.shift;
  const uint32_t mask = cut.mask;
  const uint32_t* const slots = ticket_.slots.data();
  if constexpr (runs) {
    for (size_t i = share.begin; i < share.end; ++i)
      if (slots[i] != Tile::NONE) ++counts[slots[i] >> shift & mask];
  } else {
    const Item* const from = lookups(!second_);
    in_quarters(share.begin, share.end, [=, parts = cut.parts()](size_t i, size_t quarter) {
      ++counts[quarter * parts + (from[i].slot >> shift & mask)];
    });
  }
}

// Puts the parts of what is cut in its place.
template <class Item>
template <bool runs>
void Grouping<Item>::place_parts() {
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
  const size_t bytes = lookups_ * sizeof(Item);
  Mapping& memory = second_ ? space_.second : space_.first;
  if (bytes > memory.bytes()) memory.grow(bytes + bytes / 8);
  ticket_.entries.resize(lookups_);
  ticket_.entry_weight.resize(ticket_.weights.empty() ? 0 : lookups_);
}

// Lookups go to their parts. An id without a row has no gradient.
template <class Item>
template <bool runs>
void Grouping<Item>::deal(const Cut& cut, const Share& share, uint32_t* next) const {
  const RowCode rows(ticket_.runs[cut.run]);
  Item* const to = lookups(second_);
  Entry* const entries = ticket_.entries.data();
  auto each = [&](auto&& put) {
    if constexpr (runs) {
      const uint32_t* const slots = ticket_.slots.data();
      each_id(ticket_, ticket_.runs[cut.run], share, [&](size_t i, uint32_t row) {
        if (slots[i] != Tile::NONE) put(item(slots[i], row, i), next);
      });
    } else {
      const Item* const from = lookups(!second_);
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

// Every thread sorts some consecutive parts.
template <class Item>
void Grouping<Item>::sort_parts() {
  workers_ = std::clamp<size_t>(lookups_ / PART, 1, std::max(1, threads_));
  if (space_.found.size() < workers_) space_.found.resize(workers_);
  auto first = [&](size_t worker) {
    const size_t begin = lookups_ * worker / workers_;
    return std::partition_point(parts_.begin(), parts_.end(),
                                [=](const Part& part) { return part.begin < begin; });
  };
  each_worker([&](size_t worker) {
    FoundGroups& found = space_.found[worker];
    found.count = 0;
    found.by_run.assign(ticket_.runs.size(), 0);
    SlotSort<Item> sort;
    for (auto part = first(worker); part != first(worker + 1); ++part)
      sort_part(*part, sort, found);
  });
}

template <class Item>
void Grouping<Item>::sort_part(const Part& part, SlotSort<Item>& sort, FoundGroups& found) {
  const size_t n = part.size(), before = found.count;
  if (part.grouped) {
    found.make_room(1, NUMBERED);
    found.groups[found.count++] = {part.slot, static_cast<uint32_t>(part.end)};
    ++found.by_run[part.run];
    return;
  }
  found.make_room(n, NUMBERED);
  const RowCode rows(ticket_.runs[part.run]);
  const Item* const sorted = sort(lookups(part.second) + part.begin, n);
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
    for (size_t worker = 0; worker < workers_; ++worker) groups += space_.found[worker].by_run[r];
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

bool groupable(const std::vector<Segment>& segments, const Run& run) {
  const uint64_t most = RowCode(run).rows();
  return std::all_of(segments.begin() + run.segment_begin, segments.begin() + run.segment_end,
                     [=](const Segment& segment) { return segment.rows <= most; });
}

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
