#include "tile.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace ff {

int OptimizerSpec::element_states() const {
  switch (kind) {
    case OptimizerKind::adam:
    case OptimizerKind::ftrl:
      return 2;
    case OptimizerKind::adagrad:
    case OptimizerKind::rowwise_adam:
      return 1;
    default:
      return 0;
  }
}

int OptimizerSpec::row_states() const {
  return kind == OptimizerKind::rowwise_adagrad || kind == OptimizerKind::rowwise_adam ? 1 : 0;
}

OptimizerStep OptimizerSpec::at(float lr, uint64_t step) const {
  auto unbias = [&](float beta) {
    const double power = std::pow(static_cast<double>(beta), static_cast<double>(step));
    return static_cast<float>(1.0 / (1.0 - power));
  };
  OptimizerStep optimizer{kind, {Sgd{lr}}};
  switch (kind) {
    case OptimizerKind::sgd:
      break;
    case OptimizerKind::adagrad:
      optimizer.adagrad = {lr, eps};
      break;
    case OptimizerKind::rowwise_adagrad:
      optimizer.rowwise_adagrad = {lr, eps};
      break;
    case OptimizerKind::adam:
      optimizer.adam = {lr, beta1, beta2, eps, unbias(beta1), unbias(beta2)};
      break;
    case OptimizerKind::rowwise_adam:
      optimizer.rowwise_adam = {lr, beta1, beta2, eps, unbias(beta1), unbias(beta2)};
      break;
    case OptimizerKind::ftrl:
      optimizer.ftrl = {lr, beta, l1, l2};
      break;
  }
  return optimizer;
}

std::string TileSpec::label() const {
  std::string text = "table '" + name + "'";
  const std::string columns = std::to_string(column) + ":" + std::to_string(column + dim);
  return text + " (bucket " + std::to_string(bucket) + " of " + std::to_string(buckets) +
         ", columns " + columns + ")";
}

Tile::Tile(TileSpec spec, Pool& pool, size_t block_limit)
    : spec_(std::move(spec)),
      pool_(pool),
      salt_(bucket_salt(spec_.table)),
      table_key_(table_key(spec_.seed, spec_.table)),
      positions_(positions_of(spec_)),
      indexed_(false),
      born_(pool.huge_pages()) {
  const RowLayout layout = divided(block_limit);
  const uint64_t most = blocks_needed(layout);
  const size_t bits = (positions_ + 63) / 64 * 8;
  pool_.charge(bits, spec_.label());
  charged_ = bits;
  born_.grow(charged_);
  own_ = std::make_unique<Shelf>(layout, pool_, spec_.label(), most);
  shelf_ = own_.get();
  per_block_ = divisor_of(layout.rows);
}

Tile::Tile(TileSpec spec, Pool& pool, Shelf& shelf)
    : spec_(std::move(spec)),
      pool_(pool),
      salt_(bucket_salt(spec_.table)),
      table_key_(table_key(spec_.seed, spec_.table)),
      positions_(positions_of(spec_)),
      indexed_(true),
      shelf_(&shelf),
      born_(false) {}

Tile::~Tile() { pool_.refund(charged_); }

RowLayout Tile::layout_of(const TileSpec& spec) {
  return RowLayout::of(spec.dim, spec.dtype, spec.optimizer.element_states(),
                       spec.optimizer.row_states());
}

uint64_t Tile::positions_of(const TileSpec& spec) {
  if (spec.dynamic()) return 0;
  return bucket_rows(spec.rows, spec.bucket, spec.buckets, bucket_salt(spec.table));
}

// Eight blocks or more, so that a small table takes little more than its rows; and eight rows or
// more should fit in any block.
RowLayout Tile::divided(size_t block_limit) const {
  RowLayout layout = layout_of(spec_);
  const size_t row = layout.row_bytes();
  size_t bytes = std::min(block_limit, std::bit_floor(positions_ * row / 8 | 1));
  bytes = std::max(bytes, std::bit_ceil(8 * row));
  if (!layout.divide(std::clamp(bytes, Pool::SMALLEST, Pool::LARGEST)))
    throw std::invalid_argument(spec_.label() + ": a row of " + bytes_text(row) +
                                " is larger than a block of " + bytes_text(Pool::LARGEST));
  return layout;
}

uint64_t Tile::blocks_needed(const RowLayout& layout) const {
  const uint64_t nameable = Shelf::nameable(layout);
  const uint64_t blocks = (positions_ + layout.rows - 1) / layout.rows;
  if (blocks > nameable)
    throw std::invalid_argument(
        spec_.label() + " holds " + std::to_string(positions_) + " rows, but a tile can name " +
        std::to_string(nameable * layout.rows) + "; cut the table into more row buckets");
  return blocks;
}

void Tile::claim(uint64_t position, uint32_t slot) {
  shelf_->occupy(slot);
  born_bits()[position >> 6] |= uint64_t{1} << (position & 63);
  ++rows_;
}

void Tile::drop(uint64_t position) {
  born_bits()[position >> 6] &= ~(uint64_t{1} << (position & 63));
  --rows_;
  shelf_->vacate(slot_of(position));
}

void Tile::bear_weights(uint64_t id, void* weights) const {
  const uint64_t key = row_key(table_key_, id);
  with_dtype(spec_.dtype, [&](auto element) {
    using T = decltype(element);
    T* const row = static_cast<T*>(weights);
    auto fill = [&]<InitKind kind>() {
      const float scale = spec_.init.scale;
      const uint32_t column = spec_.column;
      for (uint32_t d = 0; d < spec_.dim; ++d)
        row[d] = nearest<T>(ff::born<kind>(scale, key, column + d));
    };
    switch (spec_.init.kind) {
      case InitKind::constant:
        return fill.template operator()<InitKind::constant>();
      case InitKind::uniform:
        return fill.template operator()<InitKind::uniform>();
      case InitKind::normal:
        return fill.template operator()<InitKind::normal>();
    }
  });
}

void Tile::bear(uint64_t id, char* weights, uint32_t slot, uint16_t time) const {
  const RowView rows = view();
  bear_weights(id, weights);
  bear_state(rows.state(weights, slot), rows.row_state(weights, slot));
  rows.meta(weights, slot)->store({time, 0});
}

void Tile::bear_record(uint64_t id, char* record) const {
  const size_t weights = size_t{spec_.dim} * bytes_of(spec_.dtype);
  const size_t state = size_t{spec_.dim} * 4 * layout().element_states;
  bear_weights(id, record);
  bear_state(record + weights, record + weights + state);
  memset(record + weights + state + layout().row_state_stride, 0, sizeof(Meta));
}

// Accumulators start at `initial`; FTRL's other state, z, starts at 0.
void Tile::bear_state(char* state, char* row_state) const {
  const size_t vector = size_t{spec_.dim} * sizeof(float);
  memset(state, 0, layout().element_states * vector);
  memset(row_state, 0, layout().row_state_stride);
  const float initial = spec_.optimizer.initial;
  if (initial == 0.0f) return;
  if (layout().row_states > 0) memcpy(row_state, &initial, sizeof initial);
  if (layout().element_states == 0) return;
  char* const sums = state + (layout().element_states - 1) * vector;
  for (size_t at = 0; at < vector; at += sizeof initial)
    memcpy(sums + at, &initial, sizeof initial);
}

}  // namespace ff
