// Replies "pooled": all ids travel, and the part of a bag in each bucket comes back as one sum.
#pragma once

#include "table_route.h"

namespace ff {

class PooledBuilder final : public TableBuilder {
 public:
  PooledBuilder(const Plan& plan, const Table& table) : TableBuilder(plan, table) {}

  size_t tasks(int stage) const override;
  bool run(int stage, size_t task, Scratch& scratch) override;
  void end(int stage) override;

 private:
  enum Stage { kCount, kEnter };

  void make_room() override;
  bool build(Scratch& scratch);

  bool count(size_t chunk, Scratch& scratch);
  bool place_lookups(const Chunk& chunk);
  void count_bags(size_t chunk);
  void count_rows(size_t chunk, Scratch& scratch);
  void lay_out_rows();
  void enter(size_t chunk, Scratch& scratch);
  void place_values(size_t chunk, Scratch& scratch);
  void place_values(size_t chunk, const float* values, float* to, Scratch& scratch);
  void copy_ids(size_t chunk, Scratch& scratch);
  void sort_ids(size_t chunk, Scratch& scratch);
  void enter_rows(size_t chunk, Scratch& scratch);
  void finish();

  uint32_t* ids_of(size_t chunk) { return first_id_.data() + chunk * counters(); }
  uint32_t* rows_of(size_t chunk) { return first_row_.data() + chunk * counters(); }

  // Calls f(bag, ids in the bag) for every bag of the chunk, in order.
  template <class F>
  void for_bags(const Chunk& chunk, F&& f) const {
    for_stretches(chunk, [&](const Stretch& stretch) {
      for (uint32_t b = stretch.begin; b < stretch.end; ++b)
        f(stretch.slice.first_bag + b, stretch.offsets[b + 1] - stretch.offsets[b]);
    });
  }

  Array<uint16_t> bucket_;  // (lookups,) of a table of several buckets
  // (chunks, counters()), by bucket: how many ids and reply rows a chunk has, then where they
  // begin.
  Array<uint32_t> first_id_, first_row_;
  Array<uint32_t> first_entry_;  // (chunks,)
};

}  // namespace ff
