// Replies "rows": every distinct id of the batch travels once, and comes back as a row.
#include <algorithm>

#include "table_route.h"

namespace ff {

// begin[bag] for replies "rows": the entries of a bag are its lookups.
void TableBuilder::begin_lookups() {
  route.all_single = true;
  for (const Slice& slice : route.slices) route.all_single &= slice.single;
  route.begin.resize(route.all_single ? 0 : route.bags + 1);
  if (route.all_single) return;
  for_features([&](Slice& slice, const Feature& feature, auto* offsets) {
    uint32_t* const begin = route.begin.data() + slice.first_bag;
    for (uint32_t b = 0; b < slice.bags; ++b)
      begin[b] =
          slice.first_entry +
          (feature.pooling == Pooling::none ? b : static_cast<uint32_t>(offsets[b] - offsets[0]));
  });
  route.begin[route.bags] = route.entries;
}

// Distinct ids of all features of the table, in order of first appearance. Leaves the number of
// each id in route.row, how often it occurs in scratch.count, the ids in route.ids.
void TableBuilder::number_ids() {
  route.row.resize(route.entries);
  route.ids.resize(route.entries);
  scratch.count.resize(route.entries);
  scratch.distinct.begin(table.limit, route.entries);
  route.rows = 0;
  for_features([&](Slice& slice, const Feature&, auto* offsets) {
    const int64_t* const ids = bags.ids + offsets[0];
    const size_t n = static_cast<size_t>(offsets[bags.batch] - offsets[0]);
    uint32_t* const row = route.row.data() + slice.first_entry;
    const auto add = [&](auto&& id_at) {
      return scratch.distinct.add(n, id_at, row, route.ids.data(), scratch.count.data());
    };
    route.rows = table.hashed ? add([&](size_t i) { return table.id_from(ids[i]); })
                              : add([&](size_t i) { return static_cast<uint64_t>(ids[i]); });
  });
}

// Counting sort of the distinct ids by bucket, stable; scratch.count follows them.
void TableBuilder::sort_rows() {
  const uint32_t rows = route.rows;
  scratch.bucket.resize(rows);
  scratch.position.resize(rows);
  scratch.place.resize(2 * size_t{rows});
  scratch.rows.assign(table.buckets, 0);
  Placer placer = table.placer();
  placer.hashed = false;  // they are ids of the table already
  for (uint32_t u = 0; u < rows; ++u) {
    const Buckets::Place place = placer(static_cast<int64_t>(route.ids[u]));
    scratch.bucket[u] = static_cast<uint16_t>(place.bucket);
    scratch.position[u] = place.position;
    ++scratch.rows[place.bucket];
  }
  prefix(route.first_row, scratch.rows.data(), table.buckets);
  uint32_t* const place = scratch.place.data();
  uint32_t* const count = place + rows;
  std::copy_n(scratch.count.data(), rows, count);
  for (uint32_t u = 0; u < rows; ++u) {
    place[u] = scratch.rows[scratch.bucket[u]]++;
    route.ids[place[u]] = scratch.position[u];
    scratch.count[place[u]] = count[u];
  }
  route.bucket.resize(route.entries);
  for (uint32_t e = 0; e < route.entries; ++e) {
    route.bucket[e] = scratch.bucket[route.row[e]];
    route.row[e] = place[route.row[e]];
  }
}

// Per bucket: how many lookups its rows stand for.
void TableBuilder::count_lookups() {
  route.lookups.resize(table.buckets);
  for (uint32_t b = 0; b < table.buckets; ++b)
    route.lookups[b] = route.start[route.first_row[b + 1]] - route.start[route.first_row[b]];
}

// start, bag, coefficient: the entries of each row, in lookup order. scratch.count holds how many.
void TableBuilder::transpose_rows() {
  route.start.resize(route.rows + 1);
  uint32_t* const cursor = scratch.count.data();
  uint32_t sum = 0;
  for (uint32_t u = 0; u < route.rows; ++u) {
    route.start[u] = sum;
    sum += std::exchange(cursor[u], sum);
  }
  route.start[route.rows] = sum;
  route.bag.resize(route.entries);
  const bool weighted = route.weight.size() > 0, scaled = route.scale.size() > 0;
  route.coefficient.resize(weighted || scaled ? route.entries : 0);
  const uint32_t* const row = route.row.data();
  uint32_t* const bags_of_row = route.bag.data();
  for_entries([&](uint32_t bag, uint32_t e) {
    const uint32_t at = cursor[row[e]]++;
    bags_of_row[at] = bag;
    if (weighted || scaled)
      route.coefficient[at] =
          (weighted ? route.weight[e] : 1.0f) * (scaled ? route.scale[bag] : 1.0f);
  });
}

// The credit of a row: those of its lookups, added in their order.
void TableBuilder::add_credits() {
  Array<float>& credit = route.id_values[kCredits];
  credit.assign(route.rows, 0.0f);
  for_features([&](Slice& slice, const Feature&, auto* offsets) {
    const int64_t first = offsets[0], n = offsets[bags.batch] - first;
    const uint32_t* const row = route.row.data() + slice.first_entry;
    for (int64_t i = 0; i < n; ++i) credit[row[i]] += bags.credits[first + i];
  });
}

void TableBuilder::build_rows() {
  begin_lookups();
  number_ids();
  route.bucket.resize(0);
  route.first_row.resize(2);
  route.first_row[0] = 0;
  route.first_row[1] = route.rows;
  if (table.buckets > 1) sort_rows();
  route.first_id.resize(table.buckets + 1);
  std::copy_n(route.first_row.data(), table.buckets + 1, route.first_id.data());
  route.lengths.resize(0);
  for (Array<float>& values : route.id_values) values.resize(0);
  if (table.credited) add_credits();
  route.weight.resize(bags.weights != nullptr ? route.entries : 0);
  if (bags.weights != nullptr)
    for_features([&](Slice& slice, const Feature&, auto* offsets) {
      std::copy(bags.weights + offsets[0], bags.weights + offsets[bags.batch],
                route.weight.data() + slice.first_entry);
    });
  transpose_rows();
  count_lookups();
}

}  // namespace ff
