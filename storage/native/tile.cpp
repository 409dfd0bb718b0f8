#include "tile.h"

#include <algorithm>
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

std::string TileSpec::label() const {
  std::string text = "table '" + name + "'";
  const std::string columns = std::to_string(column) + ":" + std::to_string(column + dim);
  return text + " (bucket " + std::to_string(bucket) + " of " + std::to_string(buckets) +
         ", columns " + columns + ")";
}

Tile::Tile(TileSpec spec, Pool& pool, size_t block_limit)
    : spec_(std::move(spec)),
      pool_(pool),
      layout_(RowLayout::of(spec_.dim, spec_.dtype, spec_.optimizer.element_states(),
                            spec_.optimizer.row_states())),
      salt_(bucket_salt(spec_.table)),
      table_key_(table_key(spec_.seed, spec_.table)),
      directory_(false),
      born_(pool.huge_pages()) {
  if (!spec_.dynamic()) positions_ = bucket_rows(spec_.rows, spec_.bucket, spec_.buckets, salt_);
  if (!layout_.divide(choose_block(block_limit)))
    throw std::invalid_argument(spec_.label() + ": a row of " + bytes_text(layout_.row_bytes()) +
                                " is larger than a block of " + bytes_text(Pool::LARGEST));
  per_block_ = divisor_of(layout_.rows);
  // The last slot would be NONE, so its block is never used.
  const uint64_t nameable = (uint64_t{1} << (32 - layout_.shift)) - 1;
  if (spec_.dynamic()) {
    max_blocks_ = std::min<uint64_t>(nameable, pool.budget() / layout_.block_bytes + 1);
  } else {
    max_blocks_ = (positions_ + layout_.rows - 1) / layout_.rows;
    if (max_blocks_ > nameable)
      throw std::invalid_argument(
          spec_.label() + " holds " + std::to_string(positions_) + " rows, but a tile can name " +
          std::to_string(nameable * layout_.rows) + "; cut the table into more row buckets");
    charged_ = (positions_ + 63) / 64 * 8;
    pool_.charge(charged_, spec_.label());
    born_.grow(charged_);
    live_.resize(max_blocks_);
  }
  directory_.grow(max_blocks_ * sizeof(char*));
}

Tile::~Tile() {
  for (uint64_t block = 0; block < live_.size(); ++block)
    if (directory()[block] != nullptr) pool_.give(directory()[block], layout_.block_bytes);
  pool_.refund(charged_);
}

// A static tile gets eight blocks or more, so that a small table takes little more than its rows; a
// dynamic one, whose rows cannot be foreseen, gets blocks of the limit. Eight rows or more should
// fit in any block.
size_t Tile::choose_block(size_t block_limit) const {
  const size_t row = layout_.row_bytes();
  size_t bytes = block_limit;
  if (!spec_.dynamic()) bytes = std::min(bytes, std::bit_floor(positions_ * row / 8 | 1));
  bytes = std::max(bytes, std::bit_ceil(8 * row));
  return std::clamp(bytes, Pool::SMALLEST, Pool::LARGEST);
}

RowView Tile::view() const {
  const RowLayout& l = layout_;
  return {directory(),        l.shift,         mask(),
          l.block_bytes,      l.weight_stride, l.state_stride,
          l.row_state_stride, l.state_offset,  l.row_state_offset,
          l.meta_offset};
}

void Tile::take_block(uint32_t block) {
  directory()[block] = pool_.take(layout_.block_bytes, spec_.label());
  ++blocks_;
}

void Tile::leave_block(uint32_t block) {
  pool_.give(directory()[block], layout_.block_bytes);
  directory()[block] = nullptr;
  --blocks_;
}

void Tile::claim(uint64_t position, uint32_t slot) {
  const uint32_t block = slot >> layout_.shift;
  if (directory()[block] == nullptr) take_block(block);
  born_bits()[position >> 6] |= uint64_t{1} << (position & 63);
  ++live_[block];
  ++rows_;
}

void Tile::drop_static(uint64_t position) {
  const uint32_t block = slot_of(position) >> layout_.shift;
  born_bits()[position >> 6] &= ~(uint64_t{1} << (position & 63));
  --rows_;
  if (--live_[block] == 0) leave_block(block);
}

// A dropped row holds the link of its block's chain of free rows in its metadata.
uint32_t Tile::append() {
  while (!open_.empty()) {
    const uint32_t block = open_.back();
    const uint32_t row = chain_[block];
    if (row == NONE) {
      open_.pop_back();
      continue;
    }
    const uint32_t slot = block << layout_.shift | row;
    memcpy(&chain_[block], view().meta(slot), sizeof row);
    ++live_[block];
    ++rows_;
    return slot;
  }
  if (filling_ == NONE || filled_ == layout_.rows) start_block();
  ++live_[filling_];
  ++rows_;
  return filling_ << layout_.shift | filled_++;
}

void Tile::start_block() {
  const uint32_t block = empty_.empty() ? static_cast<uint32_t>(live_.size()) : empty_.back();
  if (block >= max_blocks_)
    throw BudgetError(
        spec_.label() + " holds " + std::to_string(rows_) +
        " rows, the most that one tile can name; cut the table into more row buckets");
  take_block(block);
  if (!empty_.empty()) {
    empty_.pop_back();
  } else {
    live_.push_back(0);
    chain_.push_back(NONE);
  }
  filling_ = block;
  filled_ = 0;
}

void Tile::drop_dynamic(uint32_t slot) {
  const uint32_t block = slot >> layout_.shift, row = slot & mask();
  --rows_;
  if (--live_[block] == 0 && block != filling_) {
    chain_[block] = NONE;
    leave_block(block);
    empty_.push_back(block);
    return;
  }
  if (chain_[block] == NONE) open_.push_back(block);
  memcpy(view().meta(slot), &chain_[block], sizeof row);
  chain_[block] = row;
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

void Tile::bear(uint64_t id, uint32_t slot) const {
  const RowView rows = view();
  bear_weights(id, rows.weights(slot));
  bear_state(rows.state(slot), rows.row_state(slot));
  memset(rows.meta(slot), 0, sizeof(Meta));
}

void Tile::bear_record(uint64_t id, char* record) const {
  const size_t weights = size_t{spec_.dim} * bytes_of(spec_.dtype);
  const size_t state = size_t{spec_.dim} * 4 * layout_.element_states;
  bear_weights(id, record);
  bear_state(record + weights, record + weights + state);
  memset(record + weights + state + layout_.row_state_stride, 0, sizeof(Meta));
}

// Accumulators start at `initial`; FTRL's other state, z, starts at 0.
void Tile::bear_state(char* state, char* row_state) const {
  const size_t vector = size_t{spec_.dim} * sizeof(float);
  memset(state, 0, layout_.element_states * vector);
  memset(row_state, 0, layout_.row_state_stride);
  const float initial = spec_.optimizer.initial;
  if (initial == 0.0f) return;
  if (layout_.row_states > 0) memcpy(row_state, &initial, sizeof initial);
  if (layout_.element_states == 0) return;
  char* const sums = state + (layout_.element_states - 1) * vector;
  for (size_t at = 0; at < vector; at += sizeof initial)
    memcpy(sums + at, &initial, sizeof initial);
}

}  // namespace ff
