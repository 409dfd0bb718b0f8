// Gradients into the pad: per distinct row the sum of its gradient rows, in the order of the plan,
// then the optimizer, in place. A block works on a piece of a run, a team of lanes on one row, a
// lane on four of its columns. Entries of long groups are summed before, in chunks.
#include "columns.h"
#include "row_ahead.h"
#include "row_kernels.h"
#include "score.h"
#include "team.h"

namespace ff {

// Sum of entries [begin, end) in columns d to d + V.
template <class Wire, int V, uint32_t TOGETHER>
FF_DEVICE void sum_entries(const UpdateArgs& args, uint32_t begin, uint32_t end, uint32_t dim,
                           uint32_t d, float (&sum)[V]) {
  const auto columns_of = [&](uint32_t i) {
    const Entry entry = args.entries[i];
    const Wire* const rows = reinterpret_cast<const Wire*>(args.address(entry.segment));
    return Columns<Wire, V>::load(rows + uint64_t{entry.row} * dim + d);
  };
  const auto weight = [&](uint32_t i) { return args.weights == nullptr ? 1.0f : args.weights[i]; };
  sum_columns<Wire, TOGETHER>(begin, end, columns_of, weight, sum);
}

template <class Wire, int V>
FF_DEVICE void sum_chunk(const UpdateArgs& args, const ChunkPiece& piece, uint32_t dim) {
  for (uint32_t d = (threadIdx.x & (WARP - 1)) * V; d < dim; d += WARP * V) {
    float sum[V];
    sum_entries<Wire, V, Columns<Wire, V>::TOGETHER>(args, piece.begin, piece.end, dim, d, sum);
    write(args.sums + piece.sum + d, sum);
  }
}

template <class Wire>
FF_DEVICE void sum_chunks(const UpdateArgs& args) {
  const uint32_t number = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (number >= args.num_chunks) return;
  const ChunkPiece piece = args.chunk_pieces[number];
  const RunRows run = args.run(piece.run);
  const uint32_t dim = args.tiles[run.tile].dim;
  if (run.aligned)
    sum_chunk<Wire, 4>(args, piece, dim);
  else
    sum_chunk<Wire, 1>(args, piece, dim);
}

template <int V>
FF_DEVICE float square_of(const float (&x)[V]) {
  float sum = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) sum = fmaf(x[v], x[v], sum);
  return sum;
}

// What a block works on; in shared memory, so that registers are left for rows.
struct Work {
  UpdatePiece piece;
  RunRows run;
  TileRows tile;
  GroupRows groups;
};

template <class T>
FF_DEVICE void copy_words(T& to, const T& from) {
  static_assert(sizeof(T) % 4 == 0);
  for (uint32_t i = threadIdx.x; i < sizeof(T) / 4; i += blockDim.x)
    reinterpret_cast<uint32_t*>(&to)[i] = reinterpret_cast<const uint32_t*>(&from)[i];
}

// The gradient of a long group, in the place of its first chunk's sum. The whole block comes here.
FF_DEVICE void add_chunks(const UpdateArgs& args, const Work& work) {
  float* const sums = args.sums + work.piece.sums;
  const auto one = [](uint32_t) { return 1.0f; };
  for (uint32_t d = threadIdx.x; d < work.tile.dim; d += blockDim.x) {
    const auto column_of = [&](uint32_t i) {
      return Columns<float, 1>::load(sums + uint64_t{i} * work.tile.dim + d);
    };
    float sum[1];
    sum_columns<float, Columns<float, 1>::TOGETHER>(0, work.piece.chunks, column_of, one, sum);
    write(sums + d, sum);
  }
  __syncthreads();
}

// The gradient of a group in columns d to d + V. TOGETHER: more rows at a time cost registers.
template <class Wire, uint32_t TOGETHER, int V>
FF_DEVICE void gradient_of(const UpdateArgs& args, const Work& work, uint32_t group, uint32_t d,
                           float (&gradient)[V]) {
  const uint32_t dim = work.tile.dim;
  if (work.piece.chunks > 0) {
    load(args.sums + work.piece.sums + d, gradient);
  } else if (work.run.distinct) {
    const Wire* const row = reinterpret_cast<const Wire*>(work.run.start);
    load(row + uint64_t{group - work.run.first} * dim + d, gradient);
  } else {
    sum_entries<Wire, V, TOGETHER>(args, args.first[group], args.first[group + 1], dim, d,
                                   gradient);
  }
}

// The row's part of the step, before its columns'. All lanes of the warp come here; here: whether
// they have a row.
FF_DEVICE float scale_of(const Work& work, const RowsAhead& ahead, const Team& team, uint32_t group,
                         bool here, float square) {
  if (work.tile.row_states == 0)
    return work.run.optimizer.with(
        [](const auto& optimizer) { return optimizer.row(nullptr, 0.0f); });
  const float mean_square = team.sum(square) / static_cast<float>(work.tile.dim);
  float scale = 0;
  if (here && team.lane() == 0) {
    const GroupRows& groups = work.groups;
    float state = ahead.row_state[threadIdx.x];
    scale = work.run.optimizer.with(
        [&](const auto& optimizer) { return optimizer.row(&state, mean_square); });
    *work.tile.rows.row_state<1>(groups.at[group], groups.slots[group]) = state;
  }
  return team.first(scale);
}

template <class T, int V>
FF_DEVICE void write_rounded(T* weights, const float (&x)[V], uint64_t noise, uint32_t column) {
  T rounded[V];
#pragma unroll
  for (int v = 0; v < V; ++v)
    rounded[v] = stochastic<T>(x[v], rounding_bits(noise, column, static_cast<uint32_t>(v)));
  write(weights, rounded);
}

// One step of columns d to d + V of a row, which have come. `ask` asks for those that are next.
template <int V, class Ask>
FF_DEVICE void step_columns(const Work& work, RowsAhead& ahead, uint32_t group, uint32_t d,
                            const float (&gradient)[V], float scale, Ask&& ask) {
  const TileRows& tile = work.tile;
  const GroupRows& groups = work.groups;
  float w[V], a[V] = {}, b[V] = {};
  ahead.take(tile, w, a, b);
  ask();
  work.run.optimizer.with([&](const auto& optimizer) {
#pragma unroll
    for (int v = 0; v < V; ++v) optimizer.element(w[v], gradient[v], a[v], b[v], scale);
  });
  char* const weights = groups.at[group];
  if (tile.element_states > 0) {
    float* const s0 = reinterpret_cast<float*>(tile.rows.state(weights, groups.slots[group])) + d;
    write(s0, a);
    if (tile.element_states > 1) write(s0 + tile.dim, b);
  }
  const uint64_t noise = tile.dtype == Dtype::fp32 ? 0 : mix(work.run.noise ^ groups.ids[group]);
  with_elements(tile.dtype, weights,
                [&](auto* row) { write_rounded(row + d, w, noise, tile.column + d); });
}

FF_DEVICE void write_norm(const UpdateArgs& args, const Work& work, const Team& team,
                          uint32_t group, bool here, float square) {
  if (args.norms == nullptr) return;
  const float norm = sqrtf(team.sum(square));
  if (here && team.lane() == 0) args.norms[work.run.norms + group] = GRADIENT_ONE * norm;
}

// Rows that a team holds at once. All lanes go the same way, with rows and columns or without.
template <class Wire, int V>
FF_DEVICE void update_rows(const UpdateArgs& args, const Work& work, RowsAhead& ahead,
                           const Team& team) {
  const uint32_t d = team.lane() * V, next = team.count(), end = work.piece.end;
  const bool column = d < work.tile.dim;
  uint32_t group = work.piece.begin + team.number();
  if (column && group < end) ahead.ask<V>(work.tile, work.groups, group, d);
  for (uint32_t turn = work.piece.begin; turn < end; turn += next, group += next) {
    const bool here = column && group < end;
    float gradient[V] = {};
    if (here) gradient_of<Wire, 4>(args, work, group, d, gradient);
    const float square = square_of(gradient);
    write_norm(args, work, team, group, here, square);
    finish_copies();
    const float scale = scale_of(work, ahead, team, group, here, square);
    if (here)
      step_columns(work, ahead, group, d, gradient, scale, [&] {
        if (next < end - group) ahead.ask<V>(work.tile, work.groups, group + next, d);
      });
  }
}

// Any other, of which a warp has one: the gradient is summed once for its square, where that is
// needed, and then again.
template <class Wire, int V>
FF_DEVICE void update_wide_rows(const UpdateArgs& args, const Work& work, RowsAhead& ahead,
                                const Team& team) {
  const uint32_t begin = team.lane() * V, width = team.lanes() * V, next = team.count();
  const uint32_t dim = work.tile.dim, end = work.piece.end;
  uint32_t group = work.piece.begin + team.number();
  if (group < end) ahead.ask<V>(work.tile, work.groups, group, begin);
  for (; group < end; group += next) {
    float square = 0, gradient[V];
    if (work.tile.row_states > 0 || args.norms != nullptr) {
#pragma unroll 1
      for (uint32_t d = begin; d < dim; d += width) {
        gradient_of<Wire, 2>(args, work, group, d, gradient);
        square += square_of(gradient);
      }
      write_norm(args, work, team, group, true, square);
    }
    finish_copies();
    const float scale = scale_of(work, ahead, team, group, true, square);
#pragma unroll 1
    for (uint32_t d = begin; d < dim; d += width) {
      gradient_of<Wire, 2>(args, work, group, d, gradient);
      finish_copies();
      step_columns(work, ahead, group, d, gradient, scale, [&] {
        if (d + width < dim)
          ahead.ask<V>(work.tile, work.groups, group, d + width);
        else if (next < end - group)
          ahead.ask<V>(work.tile, work.groups, group + next, begin);
      });
    }
  }
}

template <class Wire, int V>
FF_DEVICE void update_piece(const UpdateArgs& args, const Work& work, RowsAhead& ahead) {
  const Team team((work.tile.dim + V - 1) / V);
  // Not one loop around both: that takes registers.
  if (work.tile.dim <= team.lanes() * V)
    update_rows<Wire, V>(args, work, ahead, team);
  else
    update_wide_rows<Wire, V>(args, work, ahead, team);
}

template <class Wire>
FF_DEVICE void update(const UpdateArgs& args) {
  __shared__ Work work[1];
  __shared__ RowsAhead ahead[1];
  const UpdatePiece& piece = args.pieces[blockIdx.x];
  const RunRows run = args.run(piece.run);
  copy_words(work->piece, piece);
  for (uint32_t w = threadIdx.x; w < RunWords::COUNT; w += blockDim.x)
    reinterpret_cast<RunWords*>(&work->run)->at[w] = args.word(piece.run, w);
  copy_words(work->tile, args.tiles[run.tile]);
  copy_words(work->groups, run.distinct ? args.distinct : args.grouped);
  __syncthreads();
  if (work->piece.chunks > 0) add_chunks(args, *work);
  if (work->run.aligned)
    update_piece<Wire, 4>(args, *work, *ahead);
  else
    update_piece<Wire, 1>(args, *work, *ahead);
}

FF_KERNEL(sum_fp32, UpdateArgs, FF_ROW_BOUNDS) { sum_chunks<float>(args); }
FF_KERNEL(sum_bf16, UpdateArgs, FF_ROW_BOUNDS) { sum_chunks<Bf16>(args); }
FF_KERNEL(sum_fp16, UpdateArgs, FF_ROW_BOUNDS) { sum_chunks<Fp16>(args); }

FF_KERNEL(update_fp32, UpdateArgs, FF_ROW_BOUNDS) { update<float>(args); }
FF_KERNEL(update_bf16, UpdateArgs, FF_ROW_BOUNDS) { update<Bf16>(args); }
FF_KERNEL(update_fp16, UpdateArgs, FF_ROW_BOUNDS) { update<Fp16>(args); }

}  // namespace ff
