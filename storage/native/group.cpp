#include "group.h"

#include <algorithm>
#include <array>
#include <bit>

#include "parallel.h"

namespace ff {
namespace {

constexpr int DIGIT = 11;  // bits: 2048 counters of 4 bytes fit the first-level cache
constexpr size_t WORTH_DIGITS = 512;
constexpr size_t WORTH_SPLITTING = 16384;

// What one thread sorts: the ids of a run whose slots lie in [low, high).
struct Unit {
  Run* run;
  uint64_t low, high;
  bool first_of_run;
  size_t begin = 0, end = 0;  // its part of the sorted items
  size_t groups = 0, first_group = 0;
};

// Slot in the high half, number of the id in the request in the low half.
using Item = uint64_t;

// Stable sort by slot; `items` and `other` have n places; the result is in `items`.
void sort_by_slot(Item* items, Item* other, size_t n) {
  if (n < WORTH_DIGITS) return std::sort(items, items + n);  // no two items are equal
  uint32_t any = 0;
  for (size_t i = 0; i < n; ++i) any |= static_cast<uint32_t>(items[i] >> 32);
  Item *from = items, *to = other;
  for (int done = 0; any >> done != 0; done += DIGIT) {
    std::array<uint32_t, 1 << DIGIT> start{};
    const int shift = 32 + done;
    constexpr uint32_t LAST = (1 << DIGIT) - 1;
    for (size_t i = 0; i < n; ++i) ++start[from[i] >> shift & LAST];
    uint32_t sum = 0;
    for (uint32_t& count : start) sum += std::exchange(count, sum);
    for (size_t i = 0; i < n; ++i) to[start[from[i] >> shift & LAST]++] = from[i];
    std::swap(from, to);
    if (done + DIGIT >= 32) break;
  }
  if (from != items) std::copy_n(from, n, items);
}

// Cuts a large run at quantiles of a sample of its slots.
void split(Run& run, const std::vector<uint32_t>& slots, int threads, std::vector<Unit>& units) {
  const size_t n = run.id_end - run.id_begin;
  std::vector<uint64_t> cuts{0};
  if (threads > 1 && n >= WORTH_SPLITTING) {
    std::vector<uint32_t> sample;
    for (size_t i = 0; i < 1024; ++i) sample.push_back(slots[run.id_begin + i * n / 1024]);
    std::sort(sample.begin(), sample.end());
    for (int t = 1; t < threads; ++t) {
      const uint64_t cut = sample[sample.size() * t / threads];
      if (cut > cuts.back()) cuts.push_back(cut);
    }
  }
  cuts.push_back(Tile::NONE);  // ids without a row have no gradient
  for (size_t u = 0; u + 1 < cuts.size(); ++u)
    units.push_back({&run, cuts[u], cuts[u + 1], u == 0});
}

struct Grouping {
  Ticket& ticket;
  std::vector<Item>&items, &other;
  const std::vector<Entry>& owner;  // whose reply row each id of the request is part of

  // Writes the unit's items in the order of the request, sorts them, counts the groups.
  void sort(Unit& unit) {
    Item* out = items.data() + unit.begin;
    const uint32_t* const slots = ticket.slots.data();
    const bool whole = unit.low == 0 && unit.high == Tile::NONE && ticket.missing == 0;
    size_t count = 0;
    for (size_t i = unit.run->id_begin; i < unit.run->id_end; ++i) {
      if (!whole && (slots[i] < unit.low || slots[i] >= unit.high)) continue;
      out[count++] = Item{slots[i]} << 32 | i;
    }
    sort_by_slot(out, other.data() + unit.begin, count);
    unit.groups = count > 0 ? 1 : 0;
    for (size_t i = 1; i < count; ++i) unit.groups += out[i] >> 32 != out[i - 1] >> 32;
  }

  void write(const Unit& unit, bool needs_id) {
    size_t group = unit.first_group;
    uint64_t last = ~uint64_t{0};
    for (size_t e = unit.begin; e < unit.end; ++e) {
      const uint64_t slot = items[e] >> 32;
      const uint32_t i = static_cast<uint32_t>(items[e]);
      if (slot != last) {
        ticket.group_slot[group] = static_cast<uint32_t>(slot);
        ticket.group_at[group] = ticket.rows_at[i];
        ticket.group_first[group] = static_cast<uint32_t>(e);
        if (needs_id) ticket.group_id[group] = ticket.ids[i];
        if (!ticket.credits.empty()) ticket.group_credit[group] = 0;
        ++group;
        last = slot;
      }
      if (!ticket.credits.empty()) ticket.group_credit[group - 1] += ticket.credits[i];
      ticket.entries[e] = owner[i];
      if (!ticket.weights.empty()) ticket.entry_weight[e] = ticket.weights[i];
    }
  }
};

// Reply row of every id of the run.
void find_owners(const Ticket& ticket, const Run& run, std::vector<Entry>& owner) {
  for (size_t s = run.segment_begin; s < run.segment_end; ++s) {
    const Segment& segment = ticket.segments[s];
    for (size_t row = 0; row < segment.rows; ++row) {
      size_t begin = segment.id_begin + row, end = begin + 1;
      if (segment.pooled) {
        begin = ticket.offsets[segment.first_bag + row];
        end = ticket.offsets[segment.first_bag + row + 1];
      }
      for (size_t i = begin; i < end; ++i)
        owner[i] = {static_cast<uint32_t>(s), static_cast<uint32_t>(row)};
    }
  }
}

// Room for `num_groups` groups of `num_entries` entries.
void make_room(Ticket& ticket, size_t num_groups, size_t num_entries, bool with_ids) {
  ticket.group_slot.resize(num_groups);
  ticket.group_at.resize(num_groups);
  ticket.group_first.resize(num_groups + 1);
  ticket.group_first[num_groups] = static_cast<uint32_t>(num_entries);
  ticket.group_id.resize(with_ids ? num_groups : 0);
  ticket.entries.resize(num_entries);
  ticket.entry_weight.resize(ticket.weights.empty() ? 0 : num_entries);
  ticket.group_credit.resize(ticket.credits.empty() ? 0 : num_groups);
}

}  // namespace

void group_rows(Ticket& ticket, const std::vector<bool>& needs_id, GroupSpace& space, int threads) {
  std::vector<Unit> units;
  for (Run& run : ticket.runs)
    if (!run.distinct) split(run, ticket.slots, threads, units);
  auto each_unit = [&](auto&& work) {
    parallel_for(threads, units.size(), 1, [&](size_t begin, size_t end, int) {
      for (size_t u = begin; u < end; ++u) work(units[u]);
    });
  };
  if (space.owner.size() < ticket.slots.size()) {
    space.owner.resize(ticket.slots.size());
    space.items.resize(ticket.slots.size());
    space.other.resize(ticket.slots.size());
  }
  Grouping grouping{ticket, space.items, space.other, space.owner};

  // Where each unit's part of the sorted items lies.
  each_unit([&](Unit& unit) {
    if (unit.first_of_run) find_owners(ticket, *unit.run, space.owner);
    for (size_t i = unit.run->id_begin; i < unit.run->id_end; ++i)
      unit.end += ticket.slots[i] >= unit.low && ticket.slots[i] < unit.high;
  });
  size_t num_entries = 0;
  for (Unit& unit : units) {
    unit.begin = num_entries;
    num_entries = unit.end = unit.begin + unit.end;
  }
  each_unit([&](Unit& unit) { grouping.sort(unit); });

  // Where its groups lie.
  size_t num_groups = 0;
  for (Unit& unit : units) {
    if (unit.first_of_run) unit.run->group_begin = num_groups;
    unit.first_group = num_groups;
    unit.run->group_end = num_groups += unit.groups;
  }
  const bool with_ids = std::find(needs_id.begin(), needs_id.end(), true) != needs_id.end();
  make_room(ticket, num_groups, num_entries, with_ids);
  each_unit([&](Unit& unit) { grouping.write(unit, needs_id[unit.run->tile]); });
}

}  // namespace ff
