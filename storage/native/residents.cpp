#include "residents.h"

#include <algorithm>

namespace ff {

uint32_t& Residents::count_of(uint32_t ticket) {
  if (ticket - first_age_ >= ages_.size()) {
    size_t gone = 0;  // ages that no row has any more
    while (gone < ages_.size() && ages_[gone] == 0) ++gone;
    ages_.erase(ages_.begin(), ages_.begin() + static_cast<ptrdiff_t>(gone));
    first_age_ += static_cast<uint32_t>(gone);
    if (ages_.empty()) first_age_ = ticket;
    ages_.resize(ticket - first_age_ + 1);
  }
  return ages_[ticket - first_age_];
}

void Residents::recount(uint32_t from, uint32_t to) {
  if (from != 0) --ages_[from - first_age_];
  if (to != 0) ++count_of(to);
}

void Residents::enter(uint32_t slot, uint32_t tile, uint64_t key, uint32_t ticket) {
  at(slot) = {tile, ticket, key, 0};
  recount(0, ticket);
}

void Residents::leave(uint32_t slot) {
  recount(at(slot).used, 0);
  at(slot).used = 0;
}

// The next slot from which a row may leave, NONE if all rows are held (or chosen already).
uint32_t Residents::sweep(uint32_t held_from, uint32_t planned) {
  for (;;) {
    for (; left_ > 0; --left_) {
      const uint32_t slot = hand_;
      hand_ = hand_ + 1 < shelf_->extent() ? hand_ + 1 : 0;
      if (!may_leave(at(slot), held_from, planned)) continue;
      found_ = true;
      --left_;
      return slot;
    }
    if (!start_round(held_from)) return Shelf::NONE;
  }
}

// Sets out for another round; false when the last one that takes anybody found nobody.
bool Residents::start_round(uint32_t held_from) {
  patience_ = found_ ? 0 : patience_ + 1;
  found_ = false;
  if (patience_ > 2) {
    patience_ = 0;
    found_ = true;  // so that the next call starts afresh
    return false;
  }
  const size_t rows = std::max<size_t>(64, shelf_->rows() / 16);
  limit_ = patience_ > 0 ? held_from - 1 : limit_for(rows, held_from);
  left_ = shelf_->extent();
  return true;
}

// The oldest ticket such that `rows` rows were last used by it or before, if that many may leave.
uint32_t Residents::limit_for(size_t rows, uint32_t held_from) const {
  size_t sum = 0;
  for (uint32_t age = 0; age < ages_.size() && first_age_ + age < held_from; ++age)
    if ((sum += ages_[age]) >= rows) return first_age_ + age;
  return held_from - 1;
}

std::vector<uint32_t> Residents::idle_blocks(uint32_t held_from) const {
  const RowLayout& layout = shelf_->layout();
  const uint32_t blocks = static_cast<uint32_t>(shelf_->extent() >> layout.shift);
  std::vector<std::pair<uint32_t, uint32_t>> idle;  // last use, block
  for (uint32_t block = 0; block < blocks; ++block) {
    if (!shelf_->held(block)) continue;
    uint32_t last = 0;
    for (uint32_t row = 0; row < layout.rows && last < held_from; ++row)
      last = std::max(last, at(block << layout.shift | row).used);
    if (last < held_from) idle.emplace_back(last, block);
  }
  std::sort(idle.begin(), idle.end());
  std::vector<uint32_t> found;
  for (const auto& [last, block] : idle) found.push_back(block);
  return found;
}

}  // namespace ff
