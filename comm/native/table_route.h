// Builds the requester side of one table. See route.h for what the arrays mean.
//
// A table with many lookups is cut into chunks, so that many threads can build it; what they make
// does not depend on where it is cut. Building goes in stages of tasks. Tasks of a stage may run at
// once, those of all tables together; a stage begins when the one before has ended.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "plan.h"
#include "route.h"

namespace ff {

// One batch as the caller gave it: feature-major bags.
struct Bags {
  const int64_t* ids = nullptr;      // (L,)
  const int64_t* offsets = nullptr;  // (features * batch + 1,)
  const float* weights = nullptr;    // (L,) or null
  int64_t batch = 0;
  const float* credits = nullptr;         // (batch,) where a table is credited
  const float* lookup_credits = nullptr;  // (L,): of the id's sample, where Router says so
  const uint8_t* single = nullptr;        // (features,): every bag has exactly one id

  const int64_t* of(uint32_t feature) const { return offsets + feature * batch; }
};

// Some bags of a table and their lookups, in the table's numbering.
struct Chunk {
  uint32_t first_bag = 0, last_bag = 0;
  uint32_t first = 0, last = 0;

  uint32_t bags() const { return last_bag - first_bag; }
  uint32_t size() const { return last - first; }
};

// The bags of a chunk that belong to one feature: [begin, end) of its slice. Their ids are
// [first, last) of the batch's and the lookups from `entry` on of the table's.
struct Stretch {
  const Slice& slice;
  const Feature& feature;
  const int64_t* offsets;  // of the feature
  uint32_t begin, end;
  int64_t first, last;
  uint32_t entry;

  size_t size() const { return static_cast<size_t>(last - first); }
};

class TableBuilder {
 public:
  static constexpr int kStages = 7;

  static std::unique_ptr<TableBuilder> make(const Plan& plan, const Table& table);
  virtual ~TableBuilder() = default;

  // Takes a batch. A table of more than `longest` lookups is cut into chunks of about `chunk`.
  // `bags` and `route` must stay until it is built.
  void begin(const Bags& bags, TableRoute& route, size_t longest, size_t chunk);
  uint32_t task_size() const { return chunks_.front().size(); }

  virtual size_t tasks(int stage) const = 0;
  // False when an id does not belong to the table; then no other stage may follow.
  virtual bool run(int stage, size_t task, Scratch& scratch) = 0;
  // What one thread does when a stage has ended.
  virtual void end(int stage) = 0;

 protected:
  TableBuilder(const Plan& plan, const Table& table) : plan_(plan), table_(table) {}

  virtual void make_room() = 0;  // once the batch is cut
  bool whole() const { return chunks_.size() == 1; }
  // Numbers that a chunk has for its buckets: a thread's in cache lines of their own.
  size_t counters() const { return (size_t{table_.buckets} + 15) / 16 * 16; }
  void scale_bags(const Chunk& chunk);
  bool belong(const int64_t* ids, size_t n) const;

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

  // Calls f(stretch) for every feature that has bags in the chunk, in order.
  template <class F>
  void for_stretches(const Chunk& chunk, F&& f) const {
    for (size_t j = 0; j < table_.features.size(); ++j) {
      const Slice& slice = route_->slices[j];
      const uint32_t begin = std::max(chunk.first_bag, slice.first_bag) - slice.first_bag;
      const uint32_t end = std::min(chunk.last_bag, slice.first_bag + slice.bags);
      if (end <= slice.first_bag + begin) continue;
      const Feature& feature = plan_.features[table_.features[j]];
      const int64_t* const offsets = bags_->of(table_.features[j]);
      Stretch stretch{slice, feature, offsets, begin, end - slice.first_bag, 0, 0, 0};
      const bool sequence = feature.pooling == Pooling::none;
      stretch.first = sequence ? offsets[0] + begin : offsets[begin];
      stretch.last = sequence ? offsets[0] + stretch.end : offsets[stretch.end];
      stretch.entry = slice.first_entry + static_cast<uint32_t>(stretch.first - offsets[0]);
      f(std::as_const(stretch));
    }
  }

  const Plan& plan_;
  const Table& table_;
  const Bags* bags_ = nullptr;
  TableRoute* route_ = nullptr;
  std::vector<Chunk> chunks_;  // at least one

 private:
  void cut_bags();
  void cut_chunks(size_t longest, size_t chunk);
  Chunk chunk_from(uint32_t lookup) const;
};

// Throws BadBatch when an id of the feature does not belong to its table.
void check_ids(const Plan& plan, uint32_t feature, const Bags& bags);

// The builders for both kinds of reply.
std::unique_ptr<TableBuilder> make_rows_builder(const Plan& plan, const Table& table);
std::unique_ptr<TableBuilder> make_pooled_builder(const Plan& plan, const Table& table);

}  // namespace ff
