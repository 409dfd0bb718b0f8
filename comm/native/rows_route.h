// Replies "rows": every distinct id of the batch travels once, and comes back as a row.
//
// Work goes with the distinct ids of a chunk, not with its lookups, between `number` and `enter`.
// What a table of one chunk needs of it is done in one go.
//
//   number   chunk   its distinct ids, by first appearance in the chunk
//   merge    part    ids of all chunks: which are the same? A part has those of some hashes
//   count    chunk   its rows: the ids that no earlier chunk has
//   assign   chunk   their numbers in the table, and where their entries start
//   share    part    numbers and starts, with the other chunks that name the row
//   enter    chunk   all lookups
//   credit   rows
#pragma once

#include "table_route.h"

namespace ff {

class RowsBuilder final : public TableBuilder {
 public:
  RowsBuilder(const Plan& plan, const Table& table) : TableBuilder(plan, table) {}

  size_t tasks(int stage) const override;
  bool run(int stage, size_t task, Scratch& scratch) override;
  void end(int stage) override;

 private:
  enum Stage { kNumber, kMerge, kCount, kAssign, kShare, kEnter, kCredit };

  // Where the next row of a chunk goes, and its entries.
  struct NextRow {
    uint32_t &row, &entry;
  };

  void make_room() override;
  bool build(Scratch& scratch);

  // Of a chunk, in rows_route.cpp.
  bool number_ids(const Chunk& chunk, ChunkIds& ids, Scratch& scratch) const;
  void find_buckets(ChunkIds& ids) const;
  void count_rows(size_t chunk, const ChunkIds& ids);
  void lay_out_rows();
  void assign_rows(size_t chunk, ChunkIds& ids);
  template <class NextOf>
  void assign_rows(ChunkIds& ids, NextOf&& next_of);

  // Of a chunk, in row_entries.cpp.
  template <class Place>
  void enter_lookups(const Chunk& chunk, Place&& place);
  void enter(const Chunk& chunk, ChunkIds& ids);
  void begin_bags(const Chunk& chunk);
  void copy_weights(const Chunk& chunk);
  void add_credits(size_t begin, size_t end);

  // Of many chunks, in merged_rows.cpp.
  uint32_t ids_in(size_t part) const;
  void sort_by_part(ChunkIds& ids, Scratch& scratch) const;
  void merge(size_t part, Scratch& scratch);
  void take_totals(ChunkIds& ids) const;
  void give_numbers(ChunkIds& ids) const;
  void share(size_t part, Scratch& scratch);
  void take_numbers(ChunkIds& ids) const;

  size_t parts() const { return size_t{1} << part_bits_; }
  uint32_t* rows_of(size_t chunk) { return next_row_.data() + chunk * counters(); }
  uint32_t* entries_of(size_t chunk) { return next_entry_.data() + chunk * counters(); }

  std::vector<ChunkIds> ids_;  // per chunk, where there are several
  uint32_t part_bits_ = 0;
  // (chunks, counters()), by bucket: how many rows and entries a chunk opens, then where its next
  // ones go.
  Array<uint32_t> next_row_, next_entry_;
};

}  // namespace ff
