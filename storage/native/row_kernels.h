// What the kernels that touch rows are given (gather.cu, update.cu, records.cu). All addresses are
// the device's.
#pragma once

#include "entry.h"
#include "init.h"
#include "optimizer_step.h"
#include "row_view.h"

namespace ff {

constexpr uint32_t ROW_THREADS = 128;  // of a block

// A tile, as kernels see it; its directory of blocks is the host's.
struct TileRows {
  RowView rows;
  uint64_t table_key;
  uint32_t dim, column;
  float init_scale, initial;
  Dtype dtype;
  InitKind init;
  uint8_t element_states, row_states;
};

// What only the step knows, in words of 64 bits. It comes with the launch, so that the step's
// stream copies nothing, which would stand behind the plans of later batches; what is longer lies
// in memory of the device.
struct StepWords {
  static constexpr uint32_t HERE = 480;  // the arguments of a kernel are at most 4 KiB

  const uint64_t* there;  // null: here
  uint64_t here[HERE];

  FF_HD uint64_t operator[](uint64_t at) const { return (there != nullptr ? there : here)[at]; }
};

// Reply rows [begin, end) of a segment: the work of a block.
struct GatherPiece {
  uint32_t segment, begin, end;
};

struct SegmentRows {
  uint64_t id_begin, first_bag;
  uint32_t dim;
  Dtype dtype;
  bool pooled;
};

struct GatherArgs {
  const GatherPiece* pieces;
  const SegmentRows* segments;
  const char* const* rows_at;
  const int64_t* offsets;
  const float* weights;  // or null
  StepWords addresses;   // (S,) of the replies
};

// A run at one step.
struct RunRows {
  uint64_t noise;  // key of this table and step for stochastic rounding
  uint64_t start;  // distinct: where the gradient row of its first group is
  uint64_t norms;  // where the norm of group 0 would be, in floats
  OptimizerStep optimizer;
  uint32_t tile;
  uint32_t first;  // group
  bool distinct;
  bool aligned;  // gradient rows can be read four columns at a time
};

struct RunWords {
  static constexpr uint32_t COUNT = sizeof(RunRows) / sizeof(uint64_t);

  uint64_t at[COUNT];
};
static_assert(sizeof(RunWords) == sizeof(RunRows));

// Groups [begin, end) of a run: the work of a block. A group of so many entries that their sum
// would take long is alone in its piece, and its entries have been summed in chunks before.
struct UpdatePiece {
  uint32_t run, begin, end;
  uint32_t chunks;  // of a long group, else 0
  uint64_t sums;    // of its chunks, (chunks, dim) from this float on
};

// Entries [begin, end) of a long group: the work of a warp.
struct ChunkPiece {
  uint32_t run, begin, end;
  uint64_t sum;  // goes to (dim,) from this float on
};

// Arrays of the groups of distinct runs: by id of the request; those of the others by group.
struct GroupRows {
  char* const* at;        // weights
  const uint32_t* slots;  // null if no tile has state
  const uint64_t* ids;    // null if all rows are fp32
};

struct UpdateArgs {
  const UpdatePiece* pieces;
  const ChunkPiece* chunk_pieces;
  uint64_t num_chunks;
  const TileRows* tiles;
  GroupRows distinct, grouped;
  const uint32_t* first;  // entry of each group
  const Entry* entries;
  const float* weights;  // of the entries, or null
  float* sums;           // of chunks
  float* norms;          // of gradients, or null
  uint64_t segments;
  StepWords step;  // (S,) addresses of the gradients; then the runs

  FF_HD uint64_t address(uint32_t segment) const { return step[segment]; }
  FF_HD uint64_t word(uint32_t run, uint32_t at) const {
    return step[segments + uint64_t{run} * RunWords::COUNT + at];
  }
  FF_HD RunRows run(uint32_t number) const {
    RunWords words;
    for (uint32_t w = 0; w < RunWords::COUNT; ++w) words.at[w] = word(number, w);
    return bit_cast<RunRows>(words);
  }
};
static_assert(sizeof(GatherArgs) <= 4096 && sizeof(UpdateArgs) <= 4096);

struct BirthRow {
  char* weights;
  uint64_t id;
  uint32_t slot, tile;
};

struct RecordMove {
  char* weights;
  char* record;  // in memory of the device, or of the host if that is pinned
  uint32_t slot, tile;
};

// A warp for each.
template <class Row>
struct RowList {
  const Row* rows;
  uint64_t count;
  const TileRows* tiles;
};

// One row, from place to place: the work of a warp.
struct RowCopy {
  char *from, *to;  // weights
  uint32_t from_slot, to_slot;
  uint64_t tile;
  const TileRows* tiles;
};

}  // namespace ff
