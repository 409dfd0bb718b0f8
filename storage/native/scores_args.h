// Arguments of the kernels in scores.cu.
#pragma once

#include "score.h"
#include "sketch.h"

namespace ff {

constexpr uint32_t SCORES_THREADS = 256;

struct CreditedArgs {
  Decay decay;
  const uint16_t* scores;     // (n,)
  const uint32_t* intervals;  // (n,)
  const float* credits;       // (n,)
  uint16_t* credited;         // (n,) out; may be `scores`
  uint64_t n;
};

struct DrawArgs {
  const uint64_t* keys;       // (n,)
  const uint32_t* sightings;  // (n,)
  bool* admitted;             // (n,) out
  uint64_t n, salt, batch;
  double probability;
};

// The calls of a batch on one area of lines, call i for keys[i].
struct SketchArgs {
  const uint64_t* keys;       // (n,)
  const uint32_t* sightings;  // (n,)
  bool* admitted;             // (n,) out
  uint64_t n, salt;
  SketchLine* lines;  // (num_lines,)
  uint64_t num_lines;

  uint32_t* line;          // (n,): of each key
  const uint32_t* sorted;  // (n,): these, rising
  const uint32_t* order;   // (n,): whose they are, rising in a line

  // A line ages after every `period` calls that count, line after line.
  uint64_t hand;   // that ages next
  uint32_t calls;  // that count, since the last one did
  uint32_t period;
  uint64_t enough;  // sightings that admit, of counters

  // Of bits, where calls that know the id do not count.
  uint32_t* counts;        // (n,): whether it was found to count, 0 or 1
  const uint32_t* before;  // (n,): calls before it that count, if `counts` was right
  const uint32_t* total;   // (1,)
  uint32_t* wrong;         // (1,): rises by answers in `counts` that were not
  SketchLine* trial;       // (n,), or null: change `lines`
};

struct EstimateArgs {
  const uint64_t* keys;  // (n,)
  uint32_t* estimate;    // (n,) out
  uint64_t n, salt;
  const SketchLine* lines;
  uint64_t num_lines;
};

}  // namespace ff
