// Which ids that have no row get one. Most ids of a stream come once or twice and would only push
// out others.
//
//   always       every id
//   probability  each sighting admits with probability p, so an id is seen 1/p times on average
//                before it enters. Without memory (Kraken, Xie et al., SC'20, sec. III)
//   count        at the n-th sighting, 2 <= n <= 15, as far as it is remembered: 4-bit counters
//   bloom        at the second: one bit instead of counters
//
// count is a count-min sketch (Cormode and Muthukrishnan, 2005) with conservative update (Estan and
// Varghese, 2002): of a key's four cells only the lowest rise, and the estimate is the lowest. A
// count is therefore never too low; 15 stays 15. Ageing halves counts, as in TinyLFU (Einziger,
// Friedman and Manes, 2017). bloom has two generations of bits (Bloom, 1970): an id is known if it
// is in one of them; ageing drops the older.
//
// Everything of a key is in one cache line, and ageing goes line by line: each line once every
// W = COUNT_CALLS (BLOOM_CALLS) x lines calls, so there is no pause. W bounds the load: with W ids
// once each, an id never seen passes for one seen once with a probability below 3% (bloom: 1%).
//
// What is remembered is a rank's own. So tiles of one table's columns on two ranks agree with count
// and bloom only as far as neither mistakes an id; with probability, given one seed, always.
//
// Not thread-safe. Same calls, same answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mapping.h"
#include "prefetch.h"
#include "sketch.h"

namespace ff {

struct AdmissionSpec {
  enum class Kind : uint8_t { always = 0, probability = 1, count = 2, bloom = 3 };
  Kind kind = Kind::always;
  double probability = 1;  // of a sighting, in (0, 1]
  uint32_t count = 1;      // sightings, 2 to 15
};

// Whose lines are where; of CPUs and GPUs.
struct SketchLayout {
  static constexpr uint32_t COUNT_CALLS = 16, BLOOM_CALLS = 20;  // calls per line that ages

  struct Area {  // of lines, all of one kind
    size_t first = 0, lines = 0;
    size_t hand = 0;     // the line that ages next
    uint32_t calls = 0;  // since the last that did
  };
  struct Tile {
    AdmissionSpec spec;
    uint64_t salt = 0;  // of what is remembered: tiles share no memory of a key
    size_t first_line = 0, lines = 0;
  };

  std::vector<Tile> tiles;
  uint64_t salt;  // of the draws
  Area count, bloom;

  // One spec per tile. Up to `bytes` for what is remembered, shared by all tiles that do; halved if
  // both kinds are there. std::invalid_argument if a spec is out of range or there is no line for
  // a kind.
  SketchLayout(const std::vector<AdmissionSpec>& by_tile, size_t bytes, uint64_t seed);

  size_t bytes() const { return (count.lines + bloom.lines) * sizeof(SketchLine); }
};

class Admission {
 public:
  // As SketchLayout.
  Admission(const std::vector<AdmissionSpec>& by_tile, size_t bytes, uint64_t seed);

  // Whether `key`, which has no row, gets one. `sightings` >= 1: how often this batch names it;
  // `batch`: its number. Once per key, tile and batch.
  //
  // With `probability` the answer depends on seed, key, sightings and batch alone: all tiles that a
  // table's columns were cut into agree.
  bool admit(uint32_t tile, uint64_t key, uint32_t sightings, uint64_t batch);

  // Asks for the line that admit() will look at.
  FF_INLINE void ask(uint32_t tile, uint64_t key) const {
    const Tile& t = layout_.tiles[tile];
    if (t.lines > 0) __builtin_prefetch(line(t, hash(t, key)), 1);
  }

  // What `count` remembers of a key: 0 to 15 sightings; `bloom`: 0 or 1; others 0.
  uint32_t estimate(uint32_t tile, uint64_t key) const;

  size_t tiles() const { return layout_.tiles.size(); }
  // Memory for what is remembered, in pages of 4 KiB.
  size_t bytes() const { return memory_.bytes(); }

 private:
  using Area = SketchLayout::Area;
  using Tile = SketchLayout::Tile;

  static uint64_t hash(const Tile& tile, uint64_t key) { return mix(key ^ tile.salt); }
  SketchLine* line(const Tile& tile, uint64_t hash) const {
    return static_cast<SketchLine*>(memory_.data()) + tile.first_line +
           sketch_line(hash, tile.lines);
  }

  bool count(const Tile& tile, uint64_t key, uint32_t sightings);
  bool meet(const Tile& tile, uint64_t key, uint32_t sightings);
  SketchLine* next_to_age(Area& area, uint32_t calls);

  SketchLayout layout_;
  Mapping memory_;
};

}  // namespace ff
