#include "pooled_route.h"

#include <algorithm>

namespace ff {

std::unique_ptr<TableBuilder> make_pooled_builder(const Plan& plan, const Table& table) {
  return std::make_unique<PooledBuilder>(plan, table);
}

size_t PooledBuilder::tasks(int stage) const {
  if (whole()) return stage == kCount ? 1 : 0;
  return stage <= kEnter ? chunks_.size() : 0;
}

bool PooledBuilder::run(int stage, size_t task, Scratch& scratch) {
  if (whole()) return build(scratch);
  if (stage == kCount) return count(task, scratch);
  enter(task, scratch);
  return true;
}

void PooledBuilder::end(int stage) {
  if (whole()) return;
  if (stage == kCount) lay_out_rows();
  if (stage == kEnter) finish();
}

bool PooledBuilder::build(Scratch& scratch) {
  if (!count(0, scratch)) return false;
  lay_out_rows();
  enter(0, scratch);
  finish();
  return true;
}

void PooledBuilder::make_room() {
  TableRoute& route = *route_;
  const uint32_t lookups = route.entries;
  route.ids.resize(lookups);
  route.lengths.resize(lookups);  // a reply row has at least one id
  route.bag.resize(lookups);
  route.weight.resize(0);
  route.begin.resize(route.bags + 1);
  for (IdValue v : kIdValues)
    route.id_values[v].resize(carries(table_, v, bags_->weights != nullptr) ? lookups : 0);
  bucket_.resize(table_.buckets > 1 ? lookups : 0);
  first_id_.resize(chunks_.size() * counters());
  first_row_.resize(chunks_.size() * counters());
}

// Ids and reply rows of the chunk per bucket, and the reply rows before each of its bags. A bag has
// a reply row in every bucket that holds one of its ids.
bool PooledBuilder::count(size_t chunk, Scratch& scratch) {
  if (!place_lookups(chunks_[chunk])) return false;
  std::fill_n(ids_of(chunk), table_.buckets, 0);
  std::fill_n(rows_of(chunk), table_.buckets, 0);
  if (table_.buckets == 1)
    count_bags(chunk);
  else
    count_rows(chunk, scratch);
  return true;
}

// The bucket of every lookup. False when an id does not belong to the table.
bool PooledBuilder::place_lookups(const Chunk& chunk) {
  const Placer placer = table_.placer();
  bool good = true;
  for_stretches(chunk, [&](const Stretch& stretch) {
    const int64_t* const ids = bags_->ids + stretch.first;
    good &= belong(ids, stretch.size());
    if (table_.buckets == 1) return;
    uint16_t* const bucket = bucket_.data() + stretch.entry;
    for (size_t i = 0; i < stretch.size(); ++i)
      bucket[i] = static_cast<uint16_t>(placer(ids[i]).bucket);
  });
  return good;
}

void PooledBuilder::count_bags(size_t chunk) {
  uint32_t rows = 0;
  for_bags(chunks_[chunk], [&](uint32_t bag, int64_t n) {
    route_->begin[bag] = rows;
    rows += n > 0;
  });
  ids_of(chunk)[0] = chunks_[chunk].size();
  rows_of(chunk)[0] = rows;
}

// No branch: which bucket an id meets cannot be predicted.
void PooledBuilder::count_rows(size_t chunk, Scratch& scratch) {
  scratch.last_bag.assign(table_.buckets, UINT32_MAX);
  const uint16_t* bucket = bucket_.data() + chunks_[chunk].first;
  uint32_t* const ids = ids_of(chunk);
  uint32_t* const rows = rows_of(chunk);
  uint32_t* const last_bag = scratch.last_bag.data();
  uint32_t* const begin = route_->begin.data();
  uint32_t opened = 0;
  for_bags(chunks_[chunk], [&](uint32_t bag, int64_t n) {
    begin[bag] = opened;
    for (const uint16_t* const end = bucket + n; bucket < end; ++bucket) {
      const uint32_t opens = std::exchange(last_bag[*bucket], bag) != bag;
      ++ids[*bucket];
      rows[*bucket] += opens;
      opened += opens;
    }
  });
}

// Ids and rows are ordered by bucket, then by chunk; entries, which are rows, by bag.
void PooledBuilder::lay_out_rows() {
  TableRoute& route = *route_;
  const uint32_t buckets = table_.buckets;
  route.first_id.resize(buckets + 1);
  route.first_row.resize(buckets + 1);
  route.lookups.resize(buckets);
  first_entry_.resize(chunks_.size());
  std::fill_n(first_entry_.data(), chunks_.size(), 0);
  uint32_t id = 0, row = 0;
  for (uint32_t b = 0; b < buckets; ++b) {
    route.first_id[b] = id;
    route.first_row[b] = row;
    for (size_t c = 0; c < chunks_.size(); ++c) {
      first_entry_[c] += rows_of(c)[b];
      id += std::exchange(ids_of(c)[b], id);
      row += std::exchange(rows_of(c)[b], row);
    }
    route.lookups[b] = id - route.first_id[b];
  }
  route.first_id[buckets] = id;
  route.first_row[buckets] = route.rows = route.entries = row;
  uint32_t entry = 0;
  for (size_t c = 0; c < chunks_.size(); ++c) entry += std::exchange(first_entry_[c], entry);
  route.begin[route.bags] = row;
  route.row.resize(row);
  route.bucket.resize(buckets > 1 ? row : 0);
  route.start.resize(row + 1);
  route.start[row] = row;
  route.coefficient.resize(route.scale.size() > 0 ? row : 0);
}

void PooledBuilder::enter(size_t chunk, Scratch& scratch) {
  const Chunk& bags = chunks_[chunk];
  if (first_entry_[chunk] > 0)
    for (uint32_t b = bags.first_bag; b < bags.last_bag; ++b)
      route_->begin[b] += first_entry_[chunk];
  scale_bags(bags);
  place_values(chunk, scratch);
  scratch.next_row.resize(table_.buckets);
  std::copy_n(rows_of(chunk), table_.buckets, scratch.next_row.data());
  if (table_.buckets == 1)
    copy_ids(chunk, scratch);
  else
    sort_ids(chunk, scratch);
  enter_rows(chunk, scratch);
}

// Values of lookups follow their ids into bucket order.
void PooledBuilder::place_values(size_t chunk, Scratch& scratch) {
  for (IdValue v : kIdValues)
    if (route_->id_values[v].size() > 0)
      place_values(chunk, v == kWeights ? bags_->weights : bags_->lookup_credits,
                   route_->id_values[v].data(), scratch);
}

void PooledBuilder::place_values(size_t chunk, const float* values, float* to, Scratch& scratch) {
  scratch.next_id.resize(table_.buckets);
  std::copy_n(ids_of(chunk), table_.buckets, scratch.next_id.data());
  for_stretches(chunks_[chunk], [&](const Stretch& stretch) {
    if (table_.buckets == 1) {
      std::copy_n(values + stretch.first, stretch.size(), to + stretch.entry);
      return;
    }
    const uint16_t* const bucket = bucket_.data() + stretch.entry;
    for (size_t i = 0; i < stretch.size(); ++i)
      to[scratch.next_id[bucket[i]]++] = values[stretch.first + i];
  });
}

// sort_ids for a table in one bucket: ids stay as they are, every bag with ids is a reply row.
void PooledBuilder::copy_ids(size_t chunk, Scratch& scratch) {
  for_stretches(chunks_[chunk], [&](const Stretch& stretch) {
    const int64_t* const ids = bags_->ids + stretch.first;
    uint64_t* const to = route_->ids.data() + stretch.entry;
    for (size_t i = 0; i < stretch.size(); ++i) to[i] = table_.id_from(ids[i]);
  });
  uint32_t row = scratch.next_row[0];
  for_bags(chunks_[chunk], [&](uint32_t bag, int64_t n) {
    if (n == 0) return;
    route_->bag[row] = bag;
    route_->lengths[row++] = static_cast<int32_t>(n);
  });
  scratch.next_row[0] = row;
}

// Sorts ids by bucket, and opens a reply row wherever a bag meets a bucket.
void PooledBuilder::sort_ids(size_t chunk, Scratch& scratch) {
  scratch.last_bag.assign(table_.buckets, UINT32_MAX);
  scratch.next_id.resize(table_.buckets);
  std::copy_n(ids_of(chunk), table_.buckets, scratch.next_id.data());
  uint32_t* const next_id = scratch.next_id.data();
  uint32_t* const rows = scratch.next_row.data();
  uint32_t* const last_bag = scratch.last_bag.data();
  for_stretches(chunks_[chunk], [&](const Stretch& stretch) {
    const int64_t* id = bags_->ids + stretch.first;
    const uint16_t* bucket = bucket_.data() + stretch.entry;
    for (uint32_t b = stretch.begin; b < stretch.end; ++b) {
      const uint32_t bag = stretch.slice.first_bag + b;
      for (const int64_t* const end = id + (stretch.offsets[b + 1] - stretch.offsets[b]); id < end;
           ++id, ++bucket) {
        const uint32_t opens = std::exchange(last_bag[*bucket], bag) != bag;
        const uint32_t row = (rows[*bucket] += opens) - 1;
        route_->bag[row] = bag;
        route_->lengths[row] = (opens ? 0 : route_->lengths[row]) + 1;
        route_->ids[next_id[*bucket]++] = table_.position_of(*id);
      }
    }
  });
}

// The entries of a bag: its reply rows in bucket order. Of a reply row: itself.
void PooledBuilder::enter_rows(size_t chunk, Scratch& scratch) {
  const Chunk& bags = chunks_[chunk];
  TableRoute& route = *route_;
  scratch.cursor.resize(bags.bags());
  uint32_t* const cursor = scratch.cursor.data();
  std::copy_n(route.begin.data() + bags.first_bag, bags.bags(), cursor);
  for (uint32_t b = 0; b < table_.buckets; ++b)
    for (uint32_t r = rows_of(chunk)[b]; r < scratch.next_row[b]; ++r) {
      const uint32_t bag = route.bag[r], e = cursor[bag - bags.first_bag]++;
      route.row[e] = r;
      if (table_.buckets > 1) route.bucket[e] = static_cast<uint16_t>(b);
      route.start[r] = r;
      if (route.scale.size() > 0) route.coefficient[r] = route.scale[bag];
    }
}

// Which features have exactly one entry in every bag.
void PooledBuilder::finish() {
  TableRoute& route = *route_;
  route.all_single = true;
  for (Slice& slice : route.slices) {
    const uint32_t* const begin = route.begin.data() + slice.first_bag;
    slice.first_entry = begin[0];
    slice.single = begin[slice.bags] - begin[0] == slice.bags;
    for (uint32_t b = 0; slice.single && b < slice.bags; ++b)
      slice.single = begin[b] == slice.first_entry + b;
    route.all_single &= slice.single;
  }
}

}  // namespace ff
