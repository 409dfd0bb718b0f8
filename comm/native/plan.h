// What an exchange knows before its first batch: tables, features, tiles and the links between this
// rank and those that hold tiles. Built once, then read by any number of threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "half.h"
#include "hash.h"

namespace ff {

// Every message is cut into blocks of 64 bytes: rows of a segment start on a cache line, and MPI's
// 32-bit counts reach 128 GiB.
inline constexpr uint64_t kBlock = 64;

constexpr uint64_t blocks_for(uint64_t bytes) { return (bytes + kBlock - 1) / kBlock; }

enum class Pooling : uint8_t { sum, mean, none };

struct Table {
  std::string name;
  uint32_t dim = 0;
  uint64_t limit = 0;     // ids are below it: rows of a static table, 2^id_bits of a dynamic one
  bool dynamic = false;   // no range of ids: the id itself travels, not a position
  bool hashed = false;    // any 64-bit id, hashed to [0, limit)
  bool pooled = false;    // replies are sums over a bag's ids; otherwise one row per distinct id
  bool mean = false;      // some feature divides by the number of ids
  bool credited = false;  // its holders are told the credit of every id
  uint32_t buckets = 1;
  Buckets place;  // static: id -> bucket, position; dynamic: only the salt is used
  uint32_t id_bytes = 8;
  std::vector<uint32_t> features;

  uint64_t id_from(int64_t raw) const {
    const uint64_t id = static_cast<uint64_t>(raw);
    return hashed ? hashed_id(id, limit) : id;
  }

  Placer placer() const { return {place, limit, dynamic, hashed}; }

  // The position that placer() gives, without the bucket.
  uint64_t position_of(int64_t raw) const {
    const uint64_t id = id_from(raw);
    return dynamic ? id : place.by.quotient(id);
  }
};

struct Feature {
  std::string name;
  uint32_t table = 0;
  Pooling pooling = Pooling::sum;
  uint32_t column = 0;    // first column in the output, or the ordinal among the sequences
  uint32_t in_table = 0;  // ordinal among the table's features
};

struct Tile {
  uint32_t table = 0, bucket = 0, start = 0, stop = 0;
  std::vector<int32_t> ranks;

  uint32_t dim() const { return stop - start; }

  bool held_by(int32_t rank) const {
    for (int32_t holder : ranks)
      if (holder == rank) return true;
    return false;
  }

  // Which holder answers a requester: itself if it can, otherwise spread over the replicas.
  int32_t provider(int32_t requester) const {
    if (held_by(requester)) return requester;
    return ranks[static_cast<size_t>(requester) % ranks.size()];
  }
};

// What may travel with every id of a table: one float each.
enum IdValue : uint8_t { kWeights, kCredits };
inline constexpr IdValue kIdValues[] = {kWeights, kCredits};

// Whether it does; `weighted`: the batch has weights. A weight matters to the holder only if it is
// the holder who pools.
constexpr bool carries(const Table& table, IdValue value, bool weighted) {
  return value == kWeights ? table.pooled && weighted : table.credited;
}

// One tile between this rank and one other (or itself): ids one way, rows the other, gradients the
// first way again. `replies` is false where another replica sends the rows.
struct Link {
  int32_t peer = 0;
  uint32_t tile = 0;
  bool replies = false;
};

// The columns [column, column + width) of one feature's output, and where each bucket has them.
struct Piece {
  struct Source {
    uint32_t link = 0;   // the requester link that brings the rows
    uint32_t inner = 0;  // first column of the piece inside the tile
  };
  uint32_t feature = 0;
  uint32_t column = 0;  // in the output row, or in the sequence's row
  uint32_t width = 0;
  std::vector<Source> sources;  // (buckets,)
};

// Smaller chunks repeat too many ids of each other.
inline constexpr uint32_t kChunk = 65'000;

struct Plan {
  int32_t rank = 0, size = 1, threads = 1;
  uint32_t chunk = kChunk;  // lookups of a chunk where a table is cut, at least
  Dtype wire = Dtype::fp32;
  std::vector<Table> tables;
  std::vector<Feature> features;
  std::vector<Tile> tiles;
  uint32_t output_dim = 0, num_sequences = 0;
  bool credited = false;  // some table is

  std::vector<uint32_t> held;        // this rank's tiles, in canonical order
  std::vector<Link> out, in;         // as requester, as holder; by peer, then by the holder's order
  std::vector<size_t> out_first;     // (size + 1): links of a peer
  std::vector<uint32_t> first_link;  // (tiles,): the first of a tile's requester links
  std::vector<std::vector<uint32_t>> copies;  // (tiles,): its other requester links
  std::vector<Piece> pieces;                  // of pooled features, then of sequences
  size_t pooled_pieces = 0;

  size_t segments() const { return in.size(); }
  // Segment s = (held tile, requester), tile-major; links are peer-major.
  size_t in_link(size_t held_tile, size_t peer) const { return peer * held.size() + held_tile; }

  // Fills everything below `tiles` from what stands above it.
  void connect();
};

}  // namespace ff
