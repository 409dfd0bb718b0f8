// Which bags look up each row: the entries of a chunk, and what rows get for them.
#include <algorithm>

#include "rows_route.h"

namespace ff {

// begin[bag]: the entries of a bag are its lookups.
void RowsBuilder::begin_bags(const Chunk& chunk) {
  if (route_->all_single) return;
  for_stretches(chunk, [&](const Stretch& stretch) {
    uint32_t* const begin = route_->begin.data() + stretch.slice.first_bag;
    const bool sequence = stretch.feature.pooling == Pooling::none;
    for (uint32_t b = stretch.begin; b < stretch.end; ++b)
      begin[b] = stretch.slice.first_entry +
                 (sequence ? b : static_cast<uint32_t>(stretch.offsets[b] - stretch.offsets[0]));
  });
}

void RowsBuilder::copy_weights(const Chunk& chunk) {
  if (bags_->weights == nullptr) return;
  for_stretches(chunk, [&](const Stretch& stretch) {
    std::copy_n(bags_->weights + stretch.first, stretch.size(),
                route_->weight.data() + stretch.entry);
  });
}

// row, bucket, bag, coefficient of the chunk's lookups. They are the next entries of their rows.
void RowsBuilder::enter(const Chunk& chunk, ChunkIds& ids) {
  begin_bags(chunk);
  scale_bags(chunk);
  copy_weights(chunk);
  uint32_t* const row = route_->row.data();
  ChunkIds::Row* const rows = ids.row.data();
  const auto renumber = [&](uint32_t e) {
    ChunkIds::Row& of = rows[row[e]];
    row[e] = of.number;
    return of.cursor++;
  };
  if (table_.buckets > 1)
    enter_lookups(chunk, [&](uint32_t e) {
      route_->bucket[e] = ids.bucket[row[e]];
      return renumber(e);
    });
  else if (ids.row.size() > 0)
    enter_lookups(chunk, renumber);
  else
    enter_lookups(chunk, [&, next = ids.lookups.data()](uint32_t e) { return next[row[e]]++; });
}

// place(e): where lookup e goes among the entries of its row.
template <class Place>
void RowsBuilder::enter_lookups(const Chunk& chunk, Place&& place) {
  TableRoute& route = *route_;
  const bool weighted = route.weight.size() > 0, scaled = route.scale.size() > 0;
  uint32_t* const bag_of = route.bag.data();
  const auto enter = [&](uint32_t bag, uint32_t e) {
    const uint32_t at = place(e);
    bag_of[at] = bag;
    if (weighted || scaled)
      route.coefficient[at] =
          (weighted ? route.weight[e] : 1.0f) * (scaled ? route.scale[bag] : 1.0f);
  };
  for_stretches(chunk, [&](const Stretch& stretch) {
    uint32_t e = stretch.entry;
    if (stretch.slice.single) {
      for (uint32_t b = stretch.begin; b < stretch.end; ++b)
        enter(stretch.slice.first_bag + b, e++);
      return;
    }
    for (uint32_t b = stretch.begin; b < stretch.end; ++b) {
      const auto n = static_cast<uint32_t>(stretch.offsets[b + 1] - stretch.offsets[b]);
      for (const uint32_t end = e + n; e < end; ++e) enter(stretch.slice.first_bag + b, e);
    }
  });
}

// The credit of a row: those of its lookups, added in their order. Its bags rise, and so do the
// features they belong to.
void RowsBuilder::add_credits(size_t begin, size_t end) {
  const TableRoute& route = *route_;
  for (size_t r = begin; r < end; ++r) {
    const auto behind = std::upper_bound(
        route.slices.begin(), route.slices.end(), route.bag[route.start[r]],
        [](uint32_t bag, const Slice& slice) { return bag < slice.first_bag + slice.bags; });
    size_t j = behind - route.slices.begin();
    float sum = 0.0f;
    for (uint32_t e = route.start[r]; e < route.start[r + 1]; ++e) {
      const uint32_t bag = route.bag[e];
      while (bag >= route.slices[j].first_bag + route.slices[j].bags) ++j;
      const uint32_t f = table_.features[j], b = bag - route.slices[j].first_bag;
      sum += plan_.features[f].pooling == Pooling::none ? bags_->lookup_credits[bags_->of(f)[0] + b]
                                                        : bags_->credits[b];
    }
    route_->id_values[kCredits][r] = sum;
  }
}

}  // namespace ff
