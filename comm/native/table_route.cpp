#include "table_route.h"

#include <algorithm>

namespace ff {
std::unique_ptr<TableBuilder> TableBuilder::make(const Plan& plan, const Table& table) {
  return table.pooled ? make_pooled_builder(plan, table) : make_rows_builder(plan, table);
}

void TableBuilder::begin(const Bags& bags, TableRoute& route, size_t longest, size_t chunk) {
  bags_ = &bags;
  route_ = &route;
  cut_bags();
  cut_chunks(longest, chunk);
  route.scale.resize(table_.mean ? route.bags : 0);
  make_room();
}

// Numbers bags and lookups. `single` is decided by the ids here; replies "pooled" decide again.
void TableBuilder::cut_bags() {
  route_->slices.clear();
  route_->bags = route_->entries = 0;
  for (uint32_t f : table_.features) {
    const int64_t* const offsets = bags_->of(f);
    const uint32_t n = static_cast<uint32_t>(offsets[bags_->batch] - offsets[0]);
    const bool sequence = plan_.features[f].pooling == Pooling::none;
    const uint32_t bags = sequence ? n : static_cast<uint32_t>(bags_->batch);
    route_->slices.push_back({route_->bags, bags, route_->entries, sequence || bags_->single[f]});
    route_->bags += bags;
    route_->entries += n;
  }
}

void TableBuilder::cut_chunks(size_t longest, size_t chunk) {
  const uint32_t lookups = route_->entries;
  const bool whole = lookups <= longest || lookups < 2 * chunk;
  const uint32_t n = whole ? 1 : static_cast<uint32_t>((lookups - 1) / chunk + 1);
  chunks_.assign(n, {});
  for (uint32_t c = 1; c < n; ++c) {
    chunks_[c] = chunk_from(static_cast<uint32_t>(uint64_t{lookups} * c / n));
    chunks_[c - 1].last_bag = chunks_[c].first_bag;
    chunks_[c - 1].last = chunks_[c].first;
  }
  chunks_.back().last_bag = route_->bags;
  chunks_.back().last = lookups;
  const auto most = [&](const Chunk& c) { return c.size() > lookups - lookups / 4; };
  if (n > 1 && std::any_of(chunks_.begin(), chunks_.end(), most))  // in one bag: not to be cut
    chunks_.assign(1, {0, route_->bags, 0, lookups});
}

// The chunk that begins with the first bag whose lookups are all at or behind the one given.
Chunk TableBuilder::chunk_from(uint32_t lookup) const {
  size_t j = route_->slices.size() - 1;
  while (route_->slices[j].first_entry > lookup) --j;
  const Slice& slice = route_->slices[j];
  const Feature& feature = plan_.features[table_.features[j]];
  const int64_t* const offsets = bags_->of(table_.features[j]);
  const int64_t at = offsets[0] + (lookup - slice.first_entry);
  Chunk chunk;
  if (feature.pooling == Pooling::none) {
    chunk.first_bag = slice.first_bag + (lookup - slice.first_entry);
    chunk.first = lookup;
  } else {
    const int64_t* const bag = std::lower_bound(offsets, offsets + bags_->batch, at);
    chunk.first_bag = slice.first_bag + static_cast<uint32_t>(bag - offsets);
    chunk.first = slice.first_entry + static_cast<uint32_t>(*bag - offsets[0]);
  }
  return chunk;
}

// scale[bag] = 1 / ids of the bag in a mean feature, otherwise 1.
void TableBuilder::scale_bags(const Chunk& chunk) {
  if (!table_.mean) return;
  for_stretches(chunk, [&](const Stretch& stretch) {
    float* const scale = route_->scale.data() + stretch.slice.first_bag;
    const bool mean = stretch.feature.pooling == Pooling::mean;
    for (uint32_t b = stretch.begin; b < stretch.end; ++b) {
      const int64_t n = mean ? stretch.offsets[b + 1] - stretch.offsets[b] : 1;
      scale[b] = n > 1 ? 1.0f / static_cast<float>(n) : 1.0f;
    }
  });
}

// Whether all ids belong to the table.
bool TableBuilder::belong(const int64_t* ids, size_t n) const {
  if (table_.hashed) return true;
  uint64_t largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<uint64_t>(ids[i]));
  return n == 0 || largest < table_.limit;
}

void check_ids(const Plan& plan, uint32_t f, const Bags& bags) {
  const Feature& feature = plan.features[f];
  const Table& table = plan.tables[feature.table];
  if (table.hashed) return;
  const int64_t* const offsets = bags.of(f);
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
