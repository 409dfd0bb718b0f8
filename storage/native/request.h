// What the dense ranks ask of this rank for one batch, and the plan that comes of it.
//
// A request is a list of segments, ordered by (held tile, requester). A segment asks rows of one
// tile and is answered by reply rows: one per id ("rows"), or one per bag ("pooled").
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "array.h"
#include "entry.h"
#include "rows.h"
#include "share.h"

namespace ff {

// The arrays of a request as they come from the exchange. S segments, n ids, P pooled bags.
struct Request {
  size_t segments = 0, num_ids = 0, num_lengths = 0;
  const int32_t* tile = nullptr;     // (S,) index into the specs of the pad
  const int64_t* ids = nullptr;      // (n,) positions (static tile) or ids (dynamic tile)
  const int64_t* first = nullptr;    // (S+1,) segment s owns ids[first[s]:first[s+1]]
  const int64_t* bags = nullptr;     // (S+1,) segment s is answered by bags[s+1] - bags[s] rows
  const int32_t* lengths = nullptr;  // (P,) ids per bag of the pooled segments
  const bool* pooled = nullptr;      // (S,)
  const float* weights = nullptr;    // (n,) or null
  const bool* replies = nullptr;     // (S,) false: no answer is wanted, only gradients come
  const float* credits = nullptr;    // (n,) what an id's row deserves for being named; null: 1 each
};

struct Segment {
  uint32_t tile;
  bool pooled, reply;
  size_t id_begin, id_end;
  size_t rows;       // reply rows
  size_t first_bag;  // pooled: bag b owns ids offsets[first_bag + b] .. offsets[first_bag + b + 1]
};

// Consecutive segments of one tile. Groups are its distinct rows: group g's gradient is the sum of
// entries [group_first[g], group_first[g+1]). A run that is one rows segment has none of these:
// its ids are distinct already, group g is id g and entry g.
struct Run {
  uint32_t tile;
  size_t segment_begin, segment_end;
  size_t id_begin, id_end;
  bool distinct;
  size_t group_begin, group_end;
  size_t first_key;  // where a tile has an index: of its ids, among what is asked of the plane
};

// What a batch did to the metadata of a row.
struct Touch {
  uint32_t tile;
  Meta before, after;
};

class DeviceTicket;
class LateTouches;

struct Ticket {
  bool train = false;
  bool released = false;
  size_t rows = 0;     // ids asked for
  size_t unique = 0;   // distinct rows with a gradient (training)
  size_t born = 0;     // rows that this plan created
  size_t missing = 0;  // ids that have no row; they read as their table says, and train nothing

  uint32_t number = 0;  // of the ticket, where there are tiers below the pad
  uint64_t fetch = 0;   // after this fetch its rows are in place

  uint32_t batch = 0;   // number of the training batch, where rows can be reclaimed
  uint16_t tick = 0;    // of the clock, when it was planned
  uint32_t reader = 0;  // number of a ticket that only reads

  std::vector<Segment> segments;
  std::vector<Run> runs;
  Array<uint32_t> slots;     // (n,) Tile::NONE where missing
  Array<char*> rows_at;      // (n,) the weights of each row
  Array<uint64_t> ids;       // (n,) ids of the tables; empty when nobody will need them
  Array<int64_t> offsets;    // bags of the pooled segments
  Array<float> weights;      // (n,) or empty
  Array<float> credits;      // (n,) or empty
  std::vector<char> absent;  // what ids without a row read

  // Reading, with tiers below the pad: copies of rows that are not in it, and whose they are.
  std::vector<char> lent;
  std::vector<std::pair<size_t, char*>> borrowed;  // id of the request, its record

  Array<uint32_t> group_slot;
  Array<char*> group_at;
  Array<uint64_t> group_id;  // empty when no tile has 16-bit rows
  Array<uint32_t> group_first;
  Array<Entry> entries;
  Array<float> entry_weight;  // empty without weights
  Array<float> group_credit;  // empty without credits

  WorkShares replies, updates;
  std::vector<std::vector<Touch>> touches;  // by worker, of the update
  std::shared_ptr<LateTouches> late;        // those that are known only later

  std::shared_ptr<DeviceTicket> device;  // where rows lie in a GPU's memory: what it has of this
};

// What a batch asks of one plane of the tiles: keys, tile by tile.
struct Lookups {
  struct Part {
    uint32_t tile;
    size_t first_id;    // of the request
    size_t begin, end;  // keys
  };
  std::vector<Part> parts;
  Array<uint64_t> keys;
  Array<uint32_t> slots;

  void clear() {
    parts.clear();
    keys.clear();
    slots.clear();
  }
};

}  // namespace ff
