// Lookups are dealt to parts (partition.h), and each part is sorted by one thread. Both keep the
// order of the request.
#include "group.h"

#include <algorithm>
#include <utility>

#include "partition.h"

namespace ff {
namespace {

template <class Item>
class Grouping {
 public:
  Grouping(Ticket& ticket, const std::vector<GroupTile>& tiles, GroupSpace& space, int threads)
      : ticket_(ticket),
        tiles_(tiles),
        space_(space),
        partition_(ticket, tiles, space, threads),
        workers_(std::clamp<size_t>(partition_.lookups() / PART, 1, std::max(1, threads))) {
    if (space_.found.size() < workers_) space_.found.resize(workers_);
  }

  void run() {
    each_worker(workers_, [&](size_t worker) { sort_parts(worker); });
    place_groups();
    each_worker(workers_, [&](size_t worker) { write_groups(worker); });
  }

 private:
  static constexpr bool NUMBERED = Partition<Item>::NUMBERED;

  void sort_parts(size_t worker);
  void sort_part(const Part& part, SlotSort<Item>& sort, FoundGroups& found);
  void add_extras(size_t begin, const Item* sorted, size_t n, FoundGroups::Extra* extra);
  void place_groups();
  void write_groups(size_t worker);

  Ticket& ticket_;
  const std::vector<GroupTile>& tiles_;
  GroupSpace& space_;
  Partition<Item> partition_;
  size_t workers_;
};

// Every thread sorts some consecutive parts.
template <class Item>
void Grouping<Item>::sort_parts(size_t worker) {
  const std::vector<Part>& parts = partition_.parts();
  auto first = [&](size_t of) {
    const size_t begin = partition_.lookups() * of / workers_;
    return std::partition_point(parts.begin(), parts.end(),
                                [=](const Part& part) { return part.begin < begin; });
  };
  FoundGroups& found = space_.found[worker];
  found.count = 0;
  found.by_run.assign(ticket_.runs.size(), 0);
  SlotSort<Item> sort;
  for (auto part = first(worker), end = first(worker + 1); part != end; ++part)
    sort_part(*part, sort, found);
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
  const Item* const sorted = sort(partition_.lookups_of(part), n);
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
