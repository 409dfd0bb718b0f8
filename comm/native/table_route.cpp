#include "table_route.h"

#include <algorithm>

namespace ff {

// Numbers bags and lookups. `single` is decided by the ids here; replies "pooled" decide again.
void TableBuilder::cut_bags() {
  route.slices.resize(table.features.size());
  route.bags = route.entries = 0;
  for_features([&](Slice& slice, const Feature& feature, auto* offsets) {
    const int64_t n = offsets[bags.batch] - offsets[0];
    const bool sequence = feature.pooling == Pooling::none;
    slice = {route.bags, static_cast<uint32_t>(sequence ? n : bags.batch), route.entries, sequence};
    if (!sequence && n == bags.batch) {
      slice.single = true;
      for (int64_t b = 0; b < bags.batch; ++b) slice.single &= offsets[b] - offsets[0] == b;
    }
    route.bags += slice.bags;
    route.entries += static_cast<uint32_t>(n);
  });
}

// scale[bag] = 1 / ids of the bag in a mean feature, otherwise 1.
void TableBuilder::scale_bags() {
  route.scale.resize(table.mean ? route.bags : 0);
  if (!table.mean) return;
  for_features([&](Slice& slice, const Feature& feature, auto* offsets) {
    float* const scale = route.scale.data() + slice.first_bag;
    for (uint32_t b = 0; b < slice.bags; ++b) {
      const int64_t n = feature.pooling == Pooling::mean ? offsets[b + 1] - offsets[b] : 1;
      scale[b] = n > 1 ? 1.0f / static_cast<float>(n) : 1.0f;
    }
  });
}

void TableBuilder::build() {
  cut_bags();
  scale_bags();
  if (table.pooled)
    build_pooled();
  else
    build_rows();
}

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

}  // namespace ff
