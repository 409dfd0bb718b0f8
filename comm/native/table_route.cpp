#include "table_route.h"

#include <algorithm>

namespace ff {
namespace {

// Calls f(slice, feature, offsets) for every feature of the table.
template <class F>
void for_features(const Plan& plan, const Table& table, TableRoute& route, const Bags& bags,
                  F&& f) {
  for (size_t j = 0; j < table.features.size(); ++j)
    f(route.slices[j], plan.features[table.features[j]], bags.of(table.features[j]));
}

// Numbers bags and lookups. `single` is decided by the ids here; replies "pooled" decide again.
uint32_t cut_bags(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route) {
  route.slices.resize(table.features.size());
  route.bags = 0;
  uint32_t lookups = 0;
  for_features(plan, table, route, bags, [&](Slice& slice, const Feature& feature, auto* offsets) {
    const int64_t n = offsets[bags.batch] - offsets[0];
    const bool sequence = feature.pooling == Pooling::none;
    slice = {route.bags, static_cast<uint32_t>(sequence ? n : bags.batch), lookups, sequence};
    if (!sequence && n == bags.batch) {
      slice.single = true;
      for (int64_t b = 0; b < bags.batch; ++b) slice.single &= offsets[b] - offsets[0] == b;
    }
    route.bags += slice.bags;
    lookups += static_cast<uint32_t>(n);
  });
  return lookups;
}

// scale[bag] = 1 / ids of the bag in a mean feature, otherwise 1.
void scale_bags(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route) {
  route.scale.resize(table.mean ? route.bags : 0);
  if (!table.mean) return;
  for_features(plan, table, route, bags, [&](Slice& slice, const Feature& feature, auto* offsets) {
    float* const scale = route.scale.data() + slice.first_bag;
    for (uint32_t b = 0; b < slice.bags; ++b) {
      const int64_t n = feature.pooling == Pooling::mean ? offsets[b + 1] - offsets[b] : 1;
      scale[b] = n > 1 ? 1.0f / static_cast<float>(n) : 1.0f;
    }
  });
}

// first[k] = exclusive prefix sum of the bucket counts; `counts` becomes the running cursors.
void prefix(Array<uint32_t>& first, uint32_t* counts, uint32_t buckets) {
  first.resize(buckets + 1);
  uint32_t sum = 0;
  for (uint32_t b = 0; b < buckets; ++b) {
    first[b] = sum;
    sum += std::exchange(counts[b], sum);
  }
  first[buckets] = sum;
}

// begin[bag] for replies "rows": the entries of a bag are its lookups.
void begin_lookups(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route) {
  route.all_single = true;
  for (const Slice& slice : route.slices) route.all_single &= slice.single;
  route.begin.resize(route.all_single ? 0 : route.bags + 1);
  if (route.all_single) return;
  for_features(plan, table, route, bags, [&](Slice& slice, const Feature& feature, auto* offsets) {
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
void number_ids(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                Scratch& scratch) {
  route.row.resize(route.entries);
  route.ids.resize(route.entries);
  scratch.count.resize(route.entries);
  scratch.distinct.begin(table.limit, route.entries);
  route.rows = 0;
  for_features(plan, table, route, bags, [&](Slice& slice, const Feature&, auto* offsets) {
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
void sort_rows(const Table& table, TableRoute& route, Scratch& scratch) {
  const uint32_t rows = route.rows;
  scratch.bucket.resize(rows);
  scratch.position.resize(rows);
  scratch.place.resize(2 * size_t{rows});
  scratch.rows.assign(table.buckets, 0);
  Table::Placer placer = table.placer();
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
void count_lookups(const Table& table, TableRoute& route) {
  route.lookups.resize(table.buckets);
  for (uint32_t b = 0; b < table.buckets; ++b)
    route.lookups[b] = route.start[route.first_row[b + 1]] - route.start[route.first_row[b]];
}

// start, bag: entries of each row, in lookup order. `count` holds the entries per row.
void transpose(const TableRoute& route, const Slice& slice, Array<uint32_t>& bag, uint32_t* cursor,
               float* coefficient) {
  const uint32_t* const row = route.row.data();
  for (uint32_t b = 0; b < slice.bags; ++b) {
    const uint32_t in_table = slice.first_bag + b;
    const uint32_t first = slice.single ? slice.first_entry + b : route.begin[in_table];
    const uint32_t last = slice.single ? first + 1 : route.begin[in_table + 1];
    for (uint32_t e = first; e < last; ++e) {
      const uint32_t at = cursor[row[e]]++;
      bag[at] = in_table;
      if (coefficient != nullptr)
        coefficient[at] = (route.weight.size() ? route.weight[e] : 1.0f) *
                          (route.scale.size() ? route.scale[in_table] : 1.0f);
    }
  }
}

void transpose_rows(TableRoute& route, Array<uint32_t>& count) {
  route.start.resize(route.rows + 1);
  uint32_t sum = 0;
  for (uint32_t u = 0; u < route.rows; ++u) {
    route.start[u] = sum;
    sum += std::exchange(count[u], sum);
  }
  route.start[route.rows] = sum;
  route.bag.resize(route.entries);
  route.coefficient.resize(route.weight.size() || route.scale.size() ? route.entries : 0);
  float* const coefficient = route.coefficient.size() ? route.coefficient.data() : nullptr;
  for (const Slice& slice : route.slices)
    transpose(route, slice, route.bag, count.data(), coefficient);
}

void build_rows(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                Scratch& scratch) {
  begin_lookups(plan, table, bags, route);
  number_ids(plan, table, bags, route, scratch);
  route.bucket.resize(0);
  route.first_row.resize(2);
  route.first_row[0] = 0;
  route.first_row[1] = route.rows;
  if (table.buckets > 1) sort_rows(table, route, scratch);
  route.first_id.resize(table.buckets + 1);
  std::copy_n(route.first_row.data(), table.buckets + 1, route.first_id.data());
  route.lengths.resize(0);
  route.id_weights.resize(0);
  route.weight.resize(bags.weights != nullptr ? route.entries : 0);
  if (bags.weights != nullptr)
    for_features(plan, table, route, bags, [&](Slice& slice, const Feature&, auto* offsets) {
      std::copy(bags.weights + offsets[0], bags.weights + offsets[bags.batch],
                route.weight.data() + slice.first_entry);
    });
  transpose_rows(route, scratch.count);
  count_lookups(table, route);
}

// Calls f(bag, ids in the bag) for every bag of the table, in order.
template <class F>
void for_bags(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route, F&& f) {
  for_features(plan, table, route, bags, [&](Slice& slice, const Feature&, auto* offsets) {
    for (uint32_t b = 0; b < slice.bags; ++b) f(slice.first_bag + b, offsets[b + 1] - offsets[b]);
  });
}

// Bucket and position of every id of the table.
void place_lookups(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                   Scratch& scratch) {
  const Table::Placer placer = table.placer();
  uint16_t* bucket = scratch.bucket.data();
  uint64_t* position = scratch.position.data();
  for_features(plan, table, route, bags, [&](Slice&, const Feature&, auto* offsets) {
    for (int64_t l = offsets[0]; l < offsets[bags.batch]; ++l) {
      const Buckets::Place place = placer(bags.ids[l]);
      *bucket++ = static_cast<uint16_t>(place.bucket);
      *position++ = place.position;
    }
  });
}

// Ids and reply rows per bucket; entries per bag into begin[bag + 1]. A bag has a reply row in
// every bucket that holds one of its ids. No branch: which bucket an id meets cannot be predicted.
void count_pooled(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                  Scratch& scratch) {
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
  for_bags(plan, table, bags, route, [&](uint32_t bag, int64_t n) {
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

// Sorts ids (and weights) by bucket, and opens a reply row wherever a bag meets a bucket.
void sort_pooled(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                 Scratch& scratch) {
  scratch.last_bag.assign(table.buckets, UINT32_MAX);
  const uint16_t* bucket = scratch.bucket.data();
  const uint64_t* position = scratch.position.data();
  uint32_t* const next_id = scratch.ids.data();
  uint32_t* const rows = scratch.rows.data();
  uint32_t* const last_bag = scratch.last_bag.data();
  uint64_t* const ids = route.ids.data();
  uint32_t* const row_bag = route.bag.data();
  int32_t* const lengths = route.lengths.data();
  for_bags(plan, table, bags, route, [&](uint32_t bag, int64_t n) {
    for (const uint16_t* const end = bucket + n; bucket < end; ++bucket) {
      const uint32_t opens = std::exchange(last_bag[*bucket], bag) != bag;
      const uint32_t row = (rows[*bucket] += opens) - 1;
      row_bag[row] = bag;
      lengths[row] = (opens ? 0 : lengths[row]) + 1;
      ids[next_id[*bucket]++] = *position++;
    }
  });
}

// Weights follow their ids into bucket order. Runs before sort_pooled moves the cursors.
void sort_weights(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                  Scratch& scratch) {
  scratch.count.resize(table.buckets);
  std::copy_n(scratch.ids.data(), table.buckets, scratch.count.data());
  const uint16_t* bucket = scratch.bucket.data();
  for_features(plan, table, route, bags, [&](Slice&, const Feature&, auto* offsets) {
    for (int64_t l = offsets[0]; l < offsets[bags.batch]; ++l)
      route.id_weights[scratch.count[*bucket++]++] = bags.weights[l];
  });
}

// The same for a table in one bucket: ids stay as they are, every bag with ids is a reply row.
void copy_pooled(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route) {
  uint32_t row = 0, at = 0;
  route.begin.resize(route.bags + 1);
  for_bags(plan, table, bags, route, [&](uint32_t bag, int64_t n) {
    route.begin[bag] = row;
    if (n == 0) return;
    route.bag[row] = bag;
    route.lengths[row++] = static_cast<int32_t>(n);
  });
  for_features(plan, table, route, bags, [&](Slice&, const Feature&, auto* offsets) {
    const int64_t first = offsets[0], n = offsets[bags.batch] - first;
    for (int64_t i = 0; i < n; ++i) route.ids[at + i] = table.id_from(bags.ids[first + i]);
    if (bags.weights != nullptr) std::copy_n(bags.weights + first, n, route.id_weights.data() + at);
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

// The entries of a bag: its reply rows in bucket order. `cursor` is scratch, (bags,).
void enter_pooled(const Table& table, TableRoute& route, Array<uint32_t>& cursor) {
  cursor.resize(route.bags + 1);
  std::copy_n(route.begin.data(), route.bags, cursor.data());
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

void build_pooled(const Plan& plan, const Table& table, const Bags& bags, TableRoute& route,
                  uint32_t lookups, Scratch& scratch) {
  route.ids.resize(lookups);
  route.id_weights.resize(bags.weights != nullptr ? lookups : 0);
  route.weight.resize(0);
  route.lengths.resize(lookups);  // a reply row has at least one id
  route.bag.resize(lookups);
  if (table.buckets == 1) {
    copy_pooled(plan, table, bags, route);
  } else {
    scratch.bucket.resize(lookups);
    scratch.position.resize(lookups);
    place_lookups(plan, table, bags, route, scratch);
    count_pooled(plan, table, bags, route, scratch);
    prefix(route.first_id, scratch.ids.data(), table.buckets);
    prefix(route.first_row, scratch.rows.data(), table.buckets);
    if (bags.weights != nullptr) sort_weights(plan, table, bags, route, scratch);
    sort_pooled(plan, table, bags, route, scratch);
  }
  route.rows = route.entries = route.first_row[table.buckets];
  route.lookups.resize(table.buckets);
  for (uint32_t b = 0; b < table.buckets; ++b)
    route.lookups[b] = route.first_id[b + 1] - route.first_id[b];
  route.row.resize(route.rows);
  enter_pooled(table, route, scratch.count);
  route.start.resize(route.rows + 1);
  for (uint32_t r = 0; r <= route.rows; ++r) route.start[r] = r;
  route.coefficient.resize(route.scale.size() ? route.rows : 0);
  if (route.scale.size())
    for (uint32_t r = 0; r < route.rows; ++r) route.coefficient[r] = route.scale[route.bag[r]];
}

}  // namespace

void check_ids(const Plan& plan, uint32_t f, const Bags& bags) {
  const Feature& feature = plan.features[f];
  const Table& table = plan.tables[feature.table];
  if (table.hashed) return;
  const int64_t* const offsets = bags.of(f);
  bool bad = false;
  for (int64_t l = offsets[0]; l < offsets[bags.batch]; ++l)
    bad |= static_cast<uint64_t>(bags.ids[l]) >= table.limit;
  if (!bad) return;
  for (int64_t b = 0; b < bags.batch; ++b)
    for (int64_t l = offsets[b]; l < offsets[b + 1]; ++l) {
      if (static_cast<uint64_t>(bags.ids[l]) < table.limit) continue;
      const std::string limit = std::to_string(table.limit);
      throw BadBatch{"feature '" + feature.name + "', sample " + std::to_string(b) + ": id " +
                     std::to_string(bags.ids[l]) + " is not in [0, " + limit + "): table '" +
                     table.name + "' has " +
                     (table.dynamic ? "ids below 2**id_bits = " + limit : limit + " rows") +
                     "; correct the data, or set hash_ids for the table"};
    }
}

void build_table(const Plan& plan, uint32_t t, const Bags& bags, TableRoute& route,
                 Scratch& scratch) {
  const Table& table = plan.tables[t];
  const uint32_t lookups = cut_bags(plan, table, bags, route);
  route.entries = lookups;
  scale_bags(plan, table, bags, route);
  if (table.pooled)
    build_pooled(plan, table, bags, route, lookups, scratch);
  else
    build_rows(plan, table, bags, route, scratch);
}

}  // namespace ff
