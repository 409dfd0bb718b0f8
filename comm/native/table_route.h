// Builds the requester side of one table. See route.h for what the arrays mean.
#pragma once

#include <cstdint>
#include <utility>

#include "plan.h"
#include "route.h"

namespace ff {

// One batch as the caller gave it: feature-major bags.
struct Bags {
  const int64_t* ids = nullptr;      // (L,)
  const int64_t* offsets = nullptr;  // (features * batch + 1,)
  const float* weights = nullptr;    // (L,) or null
  int64_t batch = 0;
  const float* credits = nullptr;  // (L,): of the id's sample, where the table is credited

  const int64_t* of(uint32_t feature) const { return offsets + feature * batch; }
};

// Throws BadBatch when an id of the feature does not belong to the table.
void check_ids(const Plan& plan, uint32_t feature, const Bags& bags);

struct TableBuilder {
  const Plan& plan;
  const Table& table;
  const Bags& bags;
  TableRoute& route;  // filled by build()
  Scratch& scratch;   // of the calling thread

  void build();

  // The steps of build(), in rows_route.cpp and pooled_route.cpp.
  void cut_bags();
  void scale_bags();

  void build_rows();
  void begin_lookups();
  void number_ids();
  void sort_rows();
  void transpose_rows();
  void count_lookups();
  void add_credits();

  void build_pooled();
  void copy_pooled();
  void place_lookups();
  void count_pooled();
  void place_values();
  void place_values(const float* values, float* to);
  void sort_pooled();
  void enter_pooled();

  // Calls f(slice, feature, offsets) for every feature of the table.
  template <class F>
  void for_features(F&& f) {
    for (size_t j = 0; j < table.features.size(); ++j)
      f(route.slices[j], plan.features[table.features[j]], bags.of(table.features[j]));
  }

  // Calls f(bag, ids in the bag) for every bag of a table without sequences, in order.
  template <class F>
  void for_bags(F&& f) {
    for_features([&](Slice& slice, const Feature&, auto* offsets) {
      for (uint32_t b = 0; b < slice.bags; ++b) f(slice.first_bag + b, offsets[b + 1] - offsets[b]);
    });
  }

  // Calls f(bag, entry) for every entry, bags in order.
  template <class F>
  void for_entries(F&& f) {
    for (const Slice& slice : route.slices)
      for (uint32_t b = 0; b < slice.bags; ++b) {
        const uint32_t bag = slice.first_bag + b;
        const uint32_t first = slice.single ? slice.first_entry + b : route.begin[bag];
        const uint32_t last = slice.single ? first + 1 : route.begin[bag + 1];
        for (uint32_t e = first; e < last; ++e) f(bag, e);
      }
  }

  // first[b] = exclusive prefix sum of counts, which become the running cursors.
  static void prefix(Array<uint32_t>& first, uint32_t* counts, uint32_t buckets) {
    first.resize(buckets + 1);
    uint32_t sum = 0;
    for (uint32_t b = 0; b < buckets; ++b) {
      first[b] = sum;
      sum += std::exchange(counts[b], sum);
    }
    first[buckets] = sum;
  }
};

}  // namespace ff
