// Rows that come, leave or move: a warp works on a row. Records are rows without gaps, in the order
// of record.h: weights, element state, row state, and metadata, which is the host's.
#include "row_kernels.h"
#include "team.h"

namespace ff {

// The row of this warp among `count`; false if there is none.
FF_DEVICE bool row_of_warp(uint64_t count, uint64_t& row) {
  row = uint64_t{blockIdx.x} * (blockDim.x / WARP) + threadIdx.x / WARP;
  return row < count;
}

FF_DEVICE uint32_t lane_of_warp() { return threadIdx.x & (WARP - 1); }

template <class Unit>
FF_DEVICE void copy_units(char* to, const char* from, uint32_t bytes) {
  for (uint32_t i = lane_of_warp(); i < bytes / sizeof(Unit); i += WARP)
    reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
}

// In the largest units in which both places and the length are whole. Records need not be aligned
// to more than the two bytes of a weight.
FF_DEVICE void copy_bytes(char* to, const char* from, uint32_t bytes) {
  const uint32_t both =
      static_cast<uint32_t>(reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from)) |
      bytes;
  if (both % 16 == 0)
    copy_units<uint4>(to, from, bytes);
  else if (both % 8 == 0)
    copy_units<uint2>(to, from, bytes);
  else if (both % 4 == 0)
    copy_units<uint32_t>(to, from, bytes);
  else
    copy_units<uint16_t>(to, from, bytes);
}

// The parts of a row: f(address in the row, bytes).
template <class F>
FF_DEVICE void each_part(const TileRows& tile, char* weights, uint32_t slot, F&& f) {
  f(weights, tile.dim * bytes_of(tile.dtype));
  f(tile.rows.state(weights, slot), tile.dim * 4 * tile.element_states);
  f(tile.rows.row_state(weights, slot), uint32_t{4} * tile.row_states);
}

FF_KERNEL(store_rows, RowList<RecordMove>, FF_ROW_BOUNDS) {
  uint64_t row;
  if (!row_of_warp(args.count, row)) return;
  const RecordMove move = args.rows[row];
  char* record = move.record;
  each_part(args.tiles[move.tile], move.weights, move.slot, [&](const char* part, uint32_t bytes) {
    copy_bytes(record, part, bytes);
    record += bytes;
  });
}

FF_KERNEL(load_rows, RowList<RecordMove>, FF_ROW_BOUNDS) {
  uint64_t row;
  if (!row_of_warp(args.count, row)) return;
  const RecordMove move = args.rows[row];
  const char* record = move.record;
  each_part(args.tiles[move.tile], move.weights, move.slot, [&](char* part, uint32_t bytes) {
    copy_bytes(part, record, bytes);
    record += bytes;
  });
}

FF_KERNEL(copy_row, RowCopy, WARP) {
  const TileRows& tile = args.tiles[args.tile];
  copy_bytes(args.to, args.from, tile.dim * bytes_of(tile.dtype));
  copy_bytes(tile.rows.state(args.to, args.to_slot), tile.rows.state(args.from, args.from_slot),
             tile.dim * 4 * tile.element_states);
  copy_bytes(tile.rows.row_state(args.to, args.to_slot),
             tile.rows.row_state(args.from, args.from_slot), uint32_t{4} * tile.row_states);
}

FF_DEVICE float first_weight(const TileRows& tile, uint64_t key, uint32_t column) {
  switch (tile.init) {
    case InitKind::uniform:
      return born<InitKind::uniform>(tile.init_scale, key, column);
    case InitKind::normal:
      return born<InitKind::normal>(tile.init_scale, key, column);
    default:
      return born<InitKind::constant>(tile.init_scale, key, column);
  }
}

FF_DEVICE void write_weight(const TileRows& tile, char* weights, uint32_t d, float x) {
  if (tile.dtype == Dtype::bf16)
    reinterpret_cast<Bf16*>(weights)[d] = nearest<Bf16>(x);
  else if (tile.dtype == Dtype::fp16)
    reinterpret_cast<Fp16*>(weights)[d] = nearest<Fp16>(x);
  else
    reinterpret_cast<float*>(weights)[d] = x;
}

// As Tile::bear. Accumulators start at `initial`; FTRL's other state, z, starts at 0.
FF_KERNEL(bear_rows, RowList<BirthRow>, FF_ROW_BOUNDS) {
  uint64_t row;
  if (!row_of_warp(args.count, row)) return;
  const BirthRow birth = args.rows[row];
  const TileRows& tile = args.tiles[birth.tile];
  const uint64_t key = row_key(tile.table_key, birth.id);
  for (uint32_t d = lane_of_warp(); d < tile.dim; d += WARP)
    write_weight(tile, birth.weights, d, first_weight(tile, key, tile.column + d));
  float* const state = reinterpret_cast<float*>(tile.rows.state(birth.weights, birth.slot));
  const uint32_t states = tile.dim * tile.element_states;
  for (uint32_t d = lane_of_warp(); d < states; d += WARP)
    state[d] = d < states - tile.dim ? 0.0f : tile.initial;
  if (tile.row_states > 0 && lane_of_warp() == 0)
    *tile.rows.row_state<1>(birth.weights, birth.slot) = tile.initial;
}

}  // namespace ff
