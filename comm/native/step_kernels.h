// What the kernels of a step are launched with, as the host lays it out (device_route.cpp) and the
// kernels read it (pool.cu, spread.cu). Plain data, the same for every compiler.
//
// A step is a list of jobs. A job is cut into units of a few bags or rows, one warp each, and
// first_unit says which job a warp has. Arrays of a job lie in the memory of the device. What is
// known only when the step runs, where its matrices are and of which type, comes with the launch.
#pragma once

#include "half.h"

namespace ff {

// A strided matrix of bags: outputs of forward, gradients of backward. fp32, bf16 or fp16.
struct Matrix {
  uint8_t* data = nullptr;
  int64_t stride = 0;  // bytes between rows
};

constexpr uint32_t STEP_THREADS = 256;
constexpr uint32_t UNITS_OF_BLOCK = STEP_THREADS / 32;
constexpr uint32_t MAX_SEQUENCES = 128;  // the arguments of a kernel are at most 4 KiB
constexpr int32_t POOLED = -1;           // a matrix: not a sequence

// Entries that one warp adds up of a row; of a longer row every so many are added up apart.
constexpr uint32_t LONGEST_SUM = 64;

// The matrices of a step.
struct Matrices {
  Dtype dtype = Dtype::fp32;
  bool aligned = false;  // all of them begin at, and all their rows are multiples of, 16 bytes
  Matrix pooled;
  Matrix sequences[MAX_SEQUENCES];

  FF_HD const Matrix& at(int32_t matrix) const {
    return matrix == POOLED ? pooled : sequences[matrix];
  }
};

// Where the rows of one bucket would start, were they numbered from 0 in the table.
struct RowSource {
  uint64_t base = 0;  // from the first byte of the buffer, modulo 2^64
  int64_t stride = 0;
};

// One piece of one feature: columns [column, column + width) of its matrix.
struct PoolJob {
  const uint32_t* row;       // (entries,)
  const uint16_t* bucket;    // (entries,) or null: all in bucket 0
  const float* weight;       // (entries,) or null
  const uint32_t* begin;     // (bags + 1,) or null: bag b has the entry first_entry + b alone
  const float* scale;        // (bags,) or null
  const RowSource* sources;  // (buckets,)
  uint32_t first_entry, bags;
  int32_t matrix;
  uint32_t column, width;
  uint32_t vector;  // columns that lie together in a row and may be read at once: 1, 4 or 8
  uint32_t bags_of_unit;
};

struct PoolArgs {
  const PoolJob* jobs;
  const uint32_t* first_unit;  // (num_jobs + 1,)
  uint32_t num_jobs, units;
  const uint8_t* got;
  Matrices out;
};

// Gradients of one feature: bag b of the table is row b - first_bag of the matrix.
struct GradientSource {
  uint32_t first_bag, end;  // bags of the table
  int32_t matrix;
  uint32_t column;
};

// Sums over entries: entries [first[i], last[i]) make sum i.
struct SumJob {
  const uint32_t *first, *last;   // (count,)
  const uint32_t* bag;            // (entries,) rising within a sum; or null: the entry itself
  const float* coefficient;       // (entries,) or null
  const GradientSource* sources;  // in the order of their bags
  const uint32_t* place;          // (count,): which row sum i is; or null: i + first_place
  const uint64_t* to;  // (holders,): first byte of row 0, in the buffer; or null: partial
  uint32_t holders, first_place, count, width;
  uint32_t vector;
  uint32_t sums_of_unit;
  uint32_t longest;  // sums of more entries are left to others
};

struct SumArgs {
  const SumJob* jobs;
  const uint32_t* first_unit;  // (num_jobs + 1,)
  uint32_t num_jobs, units;
  Dtype wire;
  uint8_t* sent;
  Matrix partial;  // fp32: sums over parts of long rows
  Matrices grad;
};

static_assert(sizeof(PoolArgs) <= 4096 && sizeof(SumArgs) <= 4096);

}  // namespace ff
