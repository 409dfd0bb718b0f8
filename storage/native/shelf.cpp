#include "shelf.h"

#include <algorithm>
#include <bit>

#include "errors.h"

namespace ff {

Shelf::Shelf(const RowLayout& layout, Pool& pool, std::string owner, uint64_t max_blocks,
             size_t side_bytes)
    : layout_(layout),
      pool_(pool),
      owner_(std::move(owner)),
      max_blocks_(max_blocks),
      beside_block_(side_bytes == 0 ? beside_block(layout, pool) : 0),
      directory_(false),
      side_(pool.huge_pages()) {
  directory_.grow(max_blocks_ * sizeof(char*));
  if (side_bytes > 0) side_.grow((max_blocks_ << layout.shift) * side_bytes);
}

Shelf::~Shelf() {
  for (uint32_t block = 0; block < live_.size(); ++block)
    if (held(block)) leave_block(block);
}

size_t Shelf::block_for(size_t row_bytes, size_t budget) {
  constexpr size_t SMALL = size_t{64} << 10, MANY = 1024;
  const size_t wanted =
      std::min(std::max(SMALL, std::bit_floor(budget / MANY)), std::bit_floor(budget / 64 | 1));
  return std::clamp(std::max(wanted, std::bit_ceil(8 * row_bytes)), Pool::SMALLEST, Pool::LARGEST);
}

double Shelf::set_aside(Pool& pool, const std::vector<RowLayout>& layouts, size_t side_bytes,
                        size_t bytes_per_row, const std::string& owner) {
  double most = 0;  // bytes beside a byte of a block
  for (const RowLayout& layout : layouts) {
    const size_t beside =
        (side_bytes << layout.shift) + bytes_per_row * layout.rows + beside_block(layout, pool);
    most = std::max(most, static_cast<double>(beside) / static_cast<double>(layout.block_bytes));
  }
  const double left = pool.counts_charges() ? 1 / (1 + most) : 1;
  const double beside = pool.counts_charges() ? 1 - left : most;
  if (pool.budget() != Pool::UNLIMITED)
    pool.charge(static_cast<size_t>(static_cast<double>(pool.budget()) * beside), owner);
  return left;
}

bool Shelf::take_block(uint32_t block, const std::string* owner) {
  char* const memory = pool_.take(layout_.block_bytes, owner ? *owner : owner_, owner != nullptr);
  if (memory == nullptr) return false;
  if (beside_block_ > 0) pool_.charge(beside_block_, owner_);
  directory()[block] = memory;
  ++blocks_;
  return true;
}

void Shelf::leave_block(uint32_t block) {
  if (beside_block_ > 0) {
    pool_.forget_metadata(directory()[block], beside_block_);
    pool_.refund(beside_block_);
  }
  pool_.give(directory()[block], layout_.block_bytes);
  directory()[block] = nullptr;
  --blocks_;
  ++times_left_[block];
  if (leaving_.empty()) return;
  open_blocks_ -= !leaving_[block];
  leaving_[block] = false;
}

void Shelf::occupy(uint32_t slot) {
  const uint32_t block = slot >> layout_.shift;
  if (live_.empty()) {
    live_.resize(max_blocks_);
    times_left_.resize(max_blocks_);
  }
  if (!held(block)) take_block(block, &owner_);
  ++live_[block];
  ++rows_;
}

void Shelf::vacate(uint32_t slot) {
  const uint32_t block = slot >> layout_.shift;
  --rows_;
  if (--live_[block] == 0) leave_block(block);
}

uint32_t Shelf::take(const std::string* owner) {
  while (!free_.empty()) {
    const Free last = free_.back();
    free_.pop_back();
    const uint32_t block = last.slot >> layout_.shift;
    if (last.times_left != times_left_[block]) continue;
    ++live_[block];
    ++rows_;
    ++open_rows_;
    return last.slot;
  }
  if ((filling_ == NONE || filled_ == layout_.rows) && !start_block(owner)) return NONE;
  ++live_[filling_];
  ++rows_;
  ++open_rows_;
  return filling_ << layout_.shift | filled_++;
}

bool Shelf::start_block(const std::string* owner) {
  const uint32_t block = empty_.empty() ? static_cast<uint32_t>(live_.size()) : empty_.back();
  if (block >= max_blocks_) {
    if (owner == nullptr) return false;
    throw BudgetError(
        *owner + " holds " + std::to_string(rows_) +
        " rows, the most that one tile can name; cut the table into more row buckets");
  }
  if (!take_block(block, owner)) return false;
  if (!empty_.empty()) {
    empty_.pop_back();
  } else {
    live_.push_back(0);
    times_left_.push_back(0);
    leaving_.push_back(false);
  }
  filling_ = block;
  filled_ = 0;
  ++open_blocks_;
  return true;
}

void Shelf::give(uint32_t slot) {
  const uint32_t block = slot >> layout_.shift;
  --rows_;
  open_rows_ -= !leaving_[block];
  if (--live_[block] == 0) {
    if (block == filling_) filling_ = NONE;
    leave_block(block);
    empty_.push_back(block);
    return;
  }
  if (leaving_[block]) return;
  free_.push_back({slot, times_left_[block]});
  if (free_.size() > 2 * (extent() + layout_.rows)) forget_left();
}

std::vector<uint32_t> Shelf::empty_out(size_t bytes) {
  std::vector<std::pair<uint32_t, uint32_t>> by_rows;
  for (uint32_t block = 0; block < live_.size(); ++block) {
    if (!held(block)) continue;
    if (leaving_[block])
      bytes -= std::min(bytes, layout_.block_bytes);
    else if (block != filling_)
      by_rows.emplace_back(live_[block], block);
  }
  const size_t more =
      std::min(by_rows.size(), (bytes + layout_.block_bytes - 1) / layout_.block_bytes);
  std::partial_sort(by_rows.begin(), by_rows.begin() + static_cast<ptrdiff_t>(more), by_rows.end());
  std::vector<uint32_t> chosen;
  for (size_t i = 0; i < more; ++i) {
    chosen.push_back(by_rows[i].second);
    leaving_[chosen.back()] = true;
    --open_blocks_;
    open_rows_ -= live_[chosen.back()];
    ++times_left_[chosen.back()];  // its free slots count no more
  }
  return chosen;
}

// Blocks that left have left slots behind.
void Shelf::forget_left() {
  auto gone = [&](const Free& f) { return f.times_left != times_left_[f.slot >> layout_.shift]; };
  free_.erase(std::remove_if(free_.begin(), free_.end(), gone), free_.end());
}

}  // namespace ff
