// One batch on its way: what this rank asks of others, and what others ask of it.
//
// Requester side, per table: R reply rows, ordered by (bucket, first appearance). A reply row is a
// distinct id of the batch (replies "rows"), or the part of one bag that lies in one bucket
// (replies "pooled"). Either way
//     output[bag] = scale[bag] * sum over the bag's entries e of weight[e] * reply[row[e]]
// and the gradient of a reply row is the sum over its entries, kept transposed so that it is
// written once, in lookup order. The step knows nothing else, so both kinds of reply, one-hot
// fields, bags and sequences share one forward and one backward.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "array.h"
#include "distinct.h"
#include "layout.h"
#include "plan.h"

namespace ff {

// One feature's bags and entries in its table's numbering. A sequence has a bag per id.
struct Slice {
  uint32_t first_bag = 0, bags = 0;
  uint32_t first_entry = 0;
  bool single = false;  // every bag has exactly one entry, so `begin` is not needed
};

struct TableRoute {
  uint32_t rows = 0, entries = 0, bags = 0;
  uint32_t rows_in(uint32_t b) const { return first_row[b + 1] - first_row[b]; }
  uint32_t ids_in(uint32_t b) const { return first_id[b + 1] - first_id[b]; }

  std::vector<Slice> slices;  // per feature of the table
  Array<uint32_t> first_row;  // (buckets + 1): reply rows of a bucket
  Array<uint32_t> first_id;   // (buckets + 1): ids of a bucket; first_row when replies are rows
  Array<uint32_t> lookups;    // (buckets,): ids before de-duplication
  Array<uint64_t> ids;        // (first_id.back()): positions (static) or ids (dynamic) to send
  Array<int32_t> lengths;     // pooled: (rows,): ids per reply row
  std::array<Array<float>, std::size(kIdValues)> id_values;  // per id to send, or empty

  bool all_single = false;  // `begin` is not filled
  Array<uint32_t> begin;    // (bags + 1): entries of a bag
  Array<uint32_t> row;      // (entries,): reply row
  Array<uint16_t> bucket;   // (entries,) when there are several buckets: that row's
  Array<float> weight;      // (entries,) or empty
  Array<float> scale;       // (bags,) or empty: 1 / ids of the bag where a feature is a mean

  Array<uint32_t> start;     // (rows + 1): entries of a reply row, transposed
  Array<uint32_t> bag;       // (entries,): bag, in lookup order within a row
  Array<float> coefficient;  // (entries,) or empty: weight * scale
};

struct Traffic {
  int64_t lookups = 0;         // ids of the batch
  int64_t rows = 0;            // reply rows asked for: distinct ids, or non-empty partial bags
  int64_t id_bytes = 0;        // sent to other ranks: counts, ids, lengths, weights, credits
  int64_t reply_bytes = 0;     // received from other ranks in forward
  int64_t gradient_bytes = 0;  // sent to other ranks in backward
  int64_t torchrec_id_bytes = 0, torchrec_reply_bytes = 0, torchrec_gradient_bytes = 0;
};

class DeviceRoute;

struct Route {
  int64_t batch = 0, global_batch = 0;
  bool live = false;      // this rank has data: this batch, though it may be empty, and maybe more
  bool any_live = false;  // after accept(): some rank has data
  bool weighted = false;  // this rank's batch has per-sample weights
  int32_t failed_rank = -1;  // after accept(): the lowest rank whose batch was refused
  std::vector<TableRoute> tables;
  Array<uint8_t> header_sent, header_got, message_sent, message_got;
  Layout messages_sent, messages_got;  // offset: first byte of a link's ids
  Layout reply_got, gradient_sent;     // as requester, per out link
  Layout reply_sent, gradient_got;     // as holder, per in link
  Array<int64_t> in_ids, in_rows;      // (in links,)
  bool any_weighted = false;           // some requester's batch has weights

  // The request, in segment order.
  Array<int64_t> ids, first, bags;
  Array<int32_t> lengths;
  std::array<Array<float>, std::size(kIdValues)> values;  // per id; empty where no segment has any
  Traffic traffic;

  std::shared_ptr<DeviceRoute>
      on_device;  // where the step runs on a GPU: what it needs of all this
};

// The distinct ids of a chunk of a table's lookups (rows_route.h), numbered by first appearance.
struct ChunkIds {
  // A reply row: its number in the table and the place of its next entry.
  struct Row {
    uint32_t number, cursor;
  };

  Array<uint64_t> id;
  Array<uint32_t> lookups;  // of the id; from `count` on 0 where an earlier chunk has it
  Array<Row> row;           // empty where number is the one in the chunk: `lookups` is the cursor
  Array<uint16_t> bucket;   // empty for a table of one bucket

  // Where chunks are merged: the same ids by part, a hash of the id. A thread that has a part goes
  // through one run of these per chunk.
  struct Entry {
    uint64_t id;       // from `assign` on the number of the reply row
    uint32_t local;    // number in the chunk
    uint32_t in_part;  // distinct id of the part
    uint32_t count;    // lookups in the chunk; from `merge` on those in earlier chunks
    uint32_t cursor;   // from `merge` on lookups of the row that it opens, or 0
  };
  Array<uint32_t> first_of_part;  // (parts + 1)
  Array<Entry> by_part;
};

// Working memory of one thread while it builds tables, one after the other.
struct Scratch {
  Distinct distinct;
  ChunkIds ids;                                 // of a table that is one chunk
  Array<uint16_t> part;                         // (distinct ids of a chunk,)
  Array<ChunkIds::Row> row;                     // (distinct ids of a part,)
  Array<ChunkIds::Entry*> opened;               // (distinct ids of a part,): first appearances
  Array<uint32_t> cursor;                       // (parts or bags or distinct ids of a part,)
  Array<uint32_t> next_id, next_row, last_bag;  // (buckets,)
};

// What is wrong with a batch, in the user's words. Thrown by Router::route before any message.
struct BadBatch {
  std::string message;
};

struct Bags;
class TableBuilder;

class Router {
 public:
  explicit Router(Plan plan);
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  const Plan& plan() const { return plan_; }
  const Layout& headers_sent() const { return headers_sent_; }
  const Layout& headers_got() const { return headers_got_; }

  // De-duplicates, buckets and transposes a batch, and writes the header and the message for every
  // holder. ids (L,), offsets (features * batch + 1,), weights (L,) or null, credits (batch,) or
  // null, which must not be null if a table is credited and there are samples.
  // Throws BadBatch. One thread at a time may route.
  std::shared_ptr<Route> route(const int64_t* ids, size_t num_ids, const int64_t* offsets,
                               const float* weights, const float* credits, int64_t batch,
                               bool live);
  // The route of a rank whose batch cannot be routed: its header tells the others.
  std::shared_ptr<Route> refuse();
  // Reads header_got: sizes of the coming messages and of the step's buffers.
  void accept(Route& route) const;
  // Reads message_got (and this rank's own message): fills the request.
  void unpack(Route& route) const;

  // The constant parts of a request, (S,).
  const Array<int32_t>& segment_tile() const { return segment_tile_; }
  const Array<uint8_t>& segment_pooled() const { return segment_pooled_; }
  const Array<uint8_t>& segment_replies() const { return segment_replies_; }

 private:
  struct TableTask {
    TableBuilder* table;
    size_t number;
  };

  std::shared_ptr<Route> acquire();
  void write_header(Route& route, bool failed) const;
  void build_tables(Route& route, const Bags& bags);
  void write_messages(Route& route) const;
  void count_traffic(Route& route) const;
  void check_bags(const Bags& bags, size_t num_ids);
  void spread_credits(const Bags& bags);

  const Plan plan_;
  Layout headers_sent_, headers_got_;
  Array<int32_t> segment_tile_;
  Array<uint8_t> segment_pooled_, segment_replies_;
  std::vector<std::unique_ptr<TableBuilder>> builders_;  // per table
  std::vector<TableTask> tasks_;                         // of a stage
  std::vector<Scratch> scratch_;                         // per thread
  Array<uint8_t> single_;  // (features,): every bag of the batch has exactly one id
  Array<float> credits_;   // (L,): of the batch being routed, where bags do not tell them
  std::vector<std::shared_ptr<Route>> routes_;  // reused as soon as nobody else holds one
};

}  // namespace ff
