// Replies "pooled": all ids travel, and the part of a bag in each bucket comes back as one sum.
#include <algorithm>

#include "table_route.h"

namespace ff {

// Bucket and position of every id of the table.
void TableBuilder::place_lookups() {
  const Placer placer = table.placer();
  uint16_t* bucket = scratch.bucket.data();
  uint64_t* position = scratch.position.data();
  for_features([&](Slice&, const Feature&, auto* offsets) {
    for (int64_t l = offsets[0]; l < offsets[bags.batch]; ++l) {
      const Buckets::Place place = placer(bags.ids[l]);
      *bucket++ = static_cast<uint16_t>(place.bucket);
      *position++ = place.position;
    }
  });
}

// Ids and reply rows per bucket; entries per bag into begin[bag + 1]. A bag has a reply row in
// every bucket that holds one of its ids. No branch: which bucket an id meets cannot be predicted.
void TableBuilder::count_pooled() {
  scratch.ids.assign(table.buckets, 0);
  scratch.rows.assign(table.buckets, 0);
  scratch.last_bag.assign(table.buckets, UINT32_MAX);
  route.begin.resize(route.bags + 1);
  route.begin[0] = 0;
  const uint16_t* bucket = scratch.bucket.data();
  uint32_t* const ids = scratch.ids.data();
  uint32_t* const rows = scratch.rows.data();
  uint32_t* const last_bag = scratch.last_bag.data();
  uint32_t* const begin = route.begin.data();
  for_bags([&](uint32_t bag, int64_t n) {
    uint32_t opened = 0;
    for (const uint16_t* const end = bucket + n; bucket < end; ++bucket) {
      const uint32_t opens = std::exchange(last_bag[*bucket], bag) != bag;
      ++ids[*bucket];
      rows[*bucket] += opens;
      opened += opens;
    }
    begin[bag + 1] = begin[bag] + opened;
  });
}

// Sorts ids by bucket, and opens a reply row wherever a bag meets a bucket.
void TableBuilder::sort_pooled() {
  scratch.last_bag.assign(table.buckets, UINT32_MAX);
  const uint16_t* bucket = scratch.bucket.data();
  const uint64_t* position = scratch.position.data();
  uint32_t* const next_id = scratch.ids.data();
  uint32_t* const rows = scratch.rows.data();
  uint32_t* const last_bag = scratch.last_bag.data();
  uint64_t* const ids = route.ids.data();
  uint32_t* const row_bag = route.bag.data();
  int32_t* const lengths = route.lengths.data();
  for_bags([&](uint32_t bag, int64_t n) {
    for (const uint16_t* const end = bucket + n; bucket < end; ++bucket) {
      const uint32_t opens = std::exchange(last_bag[*bucket], bag) != bag;
      const uint32_t row = (rows[*bucket] += opens) - 1;
      row_bag[row] = bag;
      lengths[row] = (opens ? 0 : lengths[row]) + 1;
      ids[next_id[*bucket]++] = *position++;
    }
  });
}

// Values of lookups follow their ids into bucket order. Runs before sort_pooled moves the cursors.
void TableBuilder::place_values(const float* values, float* to) {
  if (table.buckets == 1) {
    for_features([&](Slice&, const Feature&, auto* offsets) {
      to = std::copy(values + offsets[0], values + offsets[bags.batch], to);
    });
    return;
  }
  scratch.count.resize(table.buckets);
  std::copy_n(scratch.ids.data(), table.buckets, scratch.count.data());
  const uint16_t* bucket = scratch.bucket.data();
  for_features([&](Slice&, const Feature&, auto* offsets) {
    for (int64_t l = offsets[0]; l < offsets[bags.batch]; ++l)
      to[scratch.count[*bucket++]++] = values[l];
  });
}

void TableBuilder::place_values() {
  for (IdValue v : kIdValues) {
    const bool some = carries(table, v, bags.weights != nullptr);
    route.id_values[v].resize(some ? route.entries : 0);
    if (some) place_values(v == kWeights ? bags.weights : bags.credits, route.id_values[v].data());
  }
}

// sort_pooled for a table in one bucket: ids stay as they are, every bag with ids is a reply row.
void TableBuilder::copy_pooled() {
  uint32_t row = 0, at = 0;
  route.begin.resize(route.bags + 1);
  for_bags([&](uint32_t bag, int64_t n) {
    route.begin[bag] = row;
    if (n == 0) return;
    route.bag[row] = bag;
    route.lengths[row++] = static_cast<int32_t>(n);
  });
  for_features([&](Slice&, const Feature&, auto* offsets) {
    const int64_t first = offsets[0], n = offsets[bags.batch] - first;
    for (int64_t i = 0; i < n; ++i) route.ids[at + i] = table.id_from(bags.ids[first + i]);
    at += static_cast<uint32_t>(n);
  });
  route.begin[route.bags] = row;
  for (Array<uint32_t>* first : {&route.first_row, &route.first_id}) {
    first->resize(2);
    (*first)[0] = 0;
  }
  route.first_row[1] = row;
  route.first_id[1] = at;
}

// The entries of a bag: its reply rows in bucket order.
void TableBuilder::enter_pooled() {
  scratch.count.resize(route.bags);
  uint32_t* const cursor = scratch.count.data();
  std::copy_n(route.begin.data(), route.bags, cursor);
  route.bucket.resize(table.buckets > 1 ? route.entries : 0);
  for (uint32_t b = 0; b < table.buckets; ++b)
    for (uint32_t r = route.first_row[b]; r < route.first_row[b + 1]; ++r) {
      const uint32_t e = cursor[route.bag[r]]++;
      route.row[e] = r;
      if (table.buckets > 1) route.bucket[e] = static_cast<uint16_t>(b);
    }
  route.all_single = true;
  for (Slice& slice : route.slices) {
    slice.first_entry = route.begin[slice.first_bag];
    slice.single = true;
    for (uint32_t b = 0; b <= slice.bags; ++b)
      slice.single &= route.begin[slice.first_bag + b] == slice.first_entry + b;
    route.all_single &= slice.single;
  }
}

void TableBuilder::build_pooled() {
  const uint32_t lookups = route.entries;
  route.ids.resize(lookups);
  route.weight.resize(0);
  route.lengths.resize(lookups);  // a reply row has at least one id
  route.bag.resize(lookups);
  if (table.buckets == 1) {
    copy_pooled();
    place_values();
  } else {
    scratch.bucket.resize(lookups);
    scratch.position.resize(lookups);
    place_lookups();
    count_pooled();
    prefix(route.first_id, scratch.ids.data(), table.buckets);
    prefix(route.first_row, scratch.rows.data(), table.buckets);
    place_values();
    sort_pooled();
  }
  route.rows = route.entries = route.first_row[table.buckets];
  route.lookups.resize(table.buckets);
  for (uint32_t b = 0; b < table.buckets; ++b)
    route.lookups[b] = route.first_id[b + 1] - route.first_id[b];
  route.row.resize(route.rows);
  enter_pooled();
  route.start.resize(route.rows + 1);
  for (uint32_t r = 0; r <= route.rows; ++r) route.start[r] = r;
  route.coefficient.resize(route.scale.size() ? route.rows : 0);
  if (route.scale.size())
    for (uint32_t r = 0; r < route.rows; ++r) route.coefficient[r] = route.scale[route.bag[r]];
}

}  // namespace ff
