#include "rows_route.h"

#include <algorithm>
#include <bit>

namespace ff {
namespace {

constexpr size_t kIdsToCheck = 4096;     // ids that are still in the cache when they are numbered
constexpr size_t kRowsOfTask = 1 << 14;  // that get their credits
constexpr size_t kMostParts = 256;
constexpr size_t kLookupsOfPart = 1 << 17;  // whose distinct ids fit in a core's own cache

}  // namespace

std::unique_ptr<TableBuilder> make_rows_builder(const Plan& plan, const Table& table) {
  return std::make_unique<RowsBuilder>(plan, table);
}

size_t RowsBuilder::tasks(int stage) const {
  if (whole()) return stage == kNumber ? 1 : 0;
  if (stage == kMerge || stage == kShare) return parts();
  if (stage == kCredit) return table_.credited ? (route_->rows + kRowsOfTask - 1) / kRowsOfTask : 0;
  return chunks_.size();
}

bool RowsBuilder::run(int stage, size_t task, Scratch& scratch) {
  if (whole()) return build(scratch);
  switch (stage) {
    case kNumber:
      if (!number_ids(chunks_[task], ids_[task], scratch)) return false;
      find_buckets(ids_[task]);
      sort_by_part(ids_[task], scratch);
      break;
    case kMerge:
      merge(task, scratch);
      break;
    case kCount:
      take_totals(ids_[task]);
      count_rows(task, ids_[task]);
      break;
    case kAssign:
      assign_rows(task, ids_[task]);
      give_numbers(ids_[task]);
      break;
    case kShare:
      share(task, scratch);
      break;
    case kEnter:
      take_numbers(ids_[task]);
      enter(chunks_[task], ids_[task]);
      break;
    case kCredit:
      add_credits(task * kRowsOfTask, std::min<size_t>(route_->rows, (task + 1) * kRowsOfTask));
  }
  return true;
}

void RowsBuilder::end(int stage) {
  if (stage == kCount && !whole()) lay_out_rows();
}

bool RowsBuilder::build(Scratch& scratch) {
  if (!number_ids(chunks_[0], scratch.ids, scratch)) return false;
  find_buckets(scratch.ids);
  count_rows(0, scratch.ids);
  lay_out_rows();
  assign_rows(0, scratch.ids);
  enter(chunks_[0], scratch.ids);
  if (table_.credited) add_credits(0, route_->rows);
  return true;
}

void RowsBuilder::make_room() {
  TableRoute& route = *route_;
  route.all_single = true;
  for (const Slice& slice : route.slices) route.all_single &= slice.single;
  route.begin.resize(route.all_single ? 0 : route.bags + 1);
  if (!route.all_single) route.begin[route.bags] = route.entries;
  route.row.resize(route.entries);
  route.bag.resize(route.entries);
  route.bucket.resize(table_.buckets > 1 ? route.entries : 0);
  route.weight.resize(bags_->weights != nullptr ? route.entries : 0);
  route.coefficient.resize(bags_->weights != nullptr || table_.mean ? route.entries : 0);
  route.lengths.resize(0);
  for (Array<float>& values : route.id_values) values.resize(0);
  next_row_.resize(chunks_.size() * counters());
  next_entry_.resize(chunks_.size() * counters());
  if (whole()) return;
  if (ids_.size() < chunks_.size()) ids_.resize(chunks_.size());
  const size_t parts = std::max(chunks_.size(), route.entries / kLookupsOfPart);
  part_bits_ = static_cast<uint32_t>(std::bit_width(std::min(kMostParts, parts)) - 1);
}

// The distinct ids of all features, in order of first appearance in the chunk, and how often each
// occurs. Leaves the number of each id in route.row. False when an id does not belong to the table.
bool RowsBuilder::number_ids(const Chunk& chunk, ChunkIds& ids, Scratch& scratch) const {
  ids.lookups.resize(chunk.size());
  ids.id.resize(chunk.size());
  scratch.distinct.begin(table_.limit, chunk.size());
  bool good = true;
  for_stretches(chunk, [&](const Stretch& stretch) {
    for (size_t first = 0; good && first < stretch.size(); first += kIdsToCheck) {
      const size_t n = std::min(kIdsToCheck, stretch.size() - first);
      const int64_t* const from = bags_->ids + stretch.first + first;
      good = belong(from, n);
      if (!good) return;
      uint32_t* const row = route_->row.data() + stretch.entry + first;
      const auto add = [&, id = ids.id.data(), lookups = ids.lookups.data()](auto&& id_at) {
        scratch.distinct.add(n, id_at, [&](size_t i, uint32_t number, bool fresh) {
          row[i] = number;
          if (fresh) {
            id[number] = id_at(i);
            lookups[number] = 0;
          }
          ++lookups[number];
        });
      };
      if (table_.hashed)
        add([&](size_t i) { return table_.id_from(from[i]); });
      else
        add([&](size_t i) { return static_cast<uint64_t>(from[i]); });
    }
  });
  ids.lookups.resize(scratch.distinct.size());
  ids.id.resize(scratch.distinct.size());
  return good;
}

void RowsBuilder::find_buckets(ChunkIds& ids) const {
  ids.bucket.resize(table_.buckets > 1 ? ids.id.size() : 0);
  if (table_.buckets == 1) return;
  Placer placer = table_.placer();
  placer.hashed = false;  // they are ids of the table already
  for (size_t u = 0; u < ids.id.size(); ++u)
    ids.bucket[u] = static_cast<uint16_t>(placer(static_cast<int64_t>(ids.id[u])).bucket);
}

// Rows that the chunk opens, and their entries, per bucket.
void RowsBuilder::count_rows(size_t chunk, const ChunkIds& ids) {
  uint32_t* const rows = rows_of(chunk);
  uint32_t* const entries = entries_of(chunk);
  const uint32_t* const lookups = ids.lookups.data();
  std::fill_n(rows, table_.buckets, 0);
  std::fill_n(entries, table_.buckets, 0);
  if (table_.buckets > 1) {
    for (size_t u = 0; u < ids.id.size(); ++u) {
      rows[ids.bucket[u]] += lookups[u] > 0;
      entries[ids.bucket[u]] += lookups[u];
    }
  } else {
    uint32_t opened = 0, sum = 0;
    for (size_t u = 0; u < ids.id.size(); ++u) {
      opened += lookups[u] > 0;
      sum += lookups[u];
    }
    rows[0] = opened;
    entries[0] = sum;
  }
}

// Rows are ordered by bucket, then by chunk.
void RowsBuilder::lay_out_rows() {
  TableRoute& route = *route_;
  route.first_row.resize(table_.buckets + 1);
  route.first_id.resize(table_.buckets + 1);
  route.lookups.resize(table_.buckets);
  uint32_t row = 0, entry = 0;
  for (uint32_t b = 0; b < table_.buckets; ++b) {
    route.first_row[b] = route.first_id[b] = row;
    const uint32_t before = entry;
    for (size_t c = 0; c < chunks_.size(); ++c) {
      row += std::exchange(rows_of(c)[b], row);
      entry += std::exchange(entries_of(c)[b], entry);
    }
    route.lookups[b] = entry - before;
  }
  route.first_row[table_.buckets] = route.first_id[table_.buckets] = route.rows = row;
  route.ids.resize(row);
  route.start.resize(row + 1);
  route.start[row] = entry;
  route.id_values[kCredits].resize(table_.credited ? row : 0);
}

// Numbers of the rows that the chunk opens, start and ids.
void RowsBuilder::assign_rows(size_t chunk, ChunkIds& ids) {
  uint32_t* const rows = rows_of(chunk);
  uint32_t* const entries = entries_of(chunk);
  ids.row.resize(whole() && table_.buckets == 1 ? 0 : ids.id.size());
  uint32_t row = rows[0], entry = entries[0];
  if (table_.buckets > 1)
    assign_rows(ids,
                [&](size_t u) { return NextRow{rows[ids.bucket[u]], entries[ids.bucket[u]]}; });
  else
    assign_rows(ids, [&](size_t) { return NextRow{row, entry}; });
}

// Nothing is skipped by a branch: which ids are new to the table cannot be predicted.
template <class NextOf>
void RowsBuilder::assign_rows(ChunkIds& ids, NextOf&& next_of) {
  uint32_t* const start = route_->start.data();
  uint64_t* const to = route_->ids.data();
  uint32_t* const lookups = ids.lookups.data();
  ChunkIds::Row* const rows = ids.row.size() > 0 ? ids.row.data() : nullptr;
  const bool divided = table_.buckets > 1 && !table_.dynamic;
  uint32_t no_start;
  uint64_t no_id;
  for (size_t u = 0; u < ids.id.size(); ++u) {
    const NextRow next = next_of(u);
    const uint32_t n = lookups[u];
    *(n > 0 ? start + next.row : &no_start) = next.entry;
    *(n > 0 ? to + next.row : &no_id) = divided ? table_.place.by.quotient(ids.id[u]) : ids.id[u];
    if (rows != nullptr)
      rows[u] = {next.row, next.entry};
    else
      lookups[u] = next.entry;
    next.row += n > 0;
    next.entry += n;
  }
}

}  // namespace ff
