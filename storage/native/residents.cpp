#include "residents.h"

#include <algorithm>
#include <numeric>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace ff {
namespace {

constexpr uint32_t MOST_AGE = 0xffff;                    // tickets
constexpr size_t STAMPS_AHEAD = 48, WANTED_AHEAD = 512;  // rows

}  // namespace

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

void Residents::enter(uint32_t slot, uint32_t tile, uint64_t key, uint32_t ticket) {
  who_[slot] = {key, tile};
  used_[slot] = static_cast<uint16_t>(ticket - base_);
  wanted_[slot] = 0;
  ++count_of(ticket);
}

void Residents::leave(uint32_t slot) {
  --ages_[used(slot) - first_age_];
  used_[slot] = 0;
}

// Without branches, for whether a row is in is hard to guess. A row that this ticket uses already
// leaves its count and comes back to it; so does one that is not in.
void Residents::stamp(const uint32_t* slots, size_t n, uint32_t ticket, uint32_t held_from) {
  if (ticket - base_ > MOST_AGE) rebase(ticket, held_from);
  const uint16_t now = static_cast<uint16_t>(ticket - base_);
  count_of(ticket) += static_cast<uint32_t>(n);
  uint16_t none = now;
  const uint32_t first = base_ - first_age_;  // wraps around
  auto used_of = [&](uint32_t slot) { return slot == Shelf::NONE ? &none : used_ + slot; };
  for (size_t i = 0; i < n; ++i) {
    __builtin_prefetch(used_of(slots[std::min(i + STAMPS_AHEAD, n - 1)]), 1);
    uint16_t* const used = used_of(slots[i]);
    --ages_[*used + first];
    *used = now;
  }
}

uint32_t Residents::victim(uint32_t held_from, uint32_t planned) {
  for (;;) {
    while (next_.size() < AHEAD) {
      const uint32_t slot = sweep(held_from, planned);
      if (slot == Shelf::NONE) break;
      __builtin_prefetch(who_ + slot, 1);
      next_.push_back(slot);
    }
    if (next_.empty()) return Shelf::NONE;
    const uint32_t slot = next_.front();
    next_.pop_front();
    if (may_leave(slot, held_from, planned)) return slot;
  }
}

// Makes room for later tickets: rows that were last used long ago count as used by the first ticket
// from `base` on. None of them is held unless a ticket is out for as long as can be told.
void Residents::rebase(uint32_t ticket, uint32_t held_from) {
  const uint32_t half = ticket - MOST_AGE / 2, held = std::max(held_from, uint32_t{2}) - 2;
  const uint32_t base = held + MOST_AGE > ticket ? std::min(half, held) : half;
  const uint32_t by = base - base_;
  for (uint32_t slot = 0; slot < shelf_->extent(); ++slot)
    if (used_[slot] != 0)
      used_[slot] = static_cast<uint16_t>(std::max<uint32_t>(used_[slot], by + 1) - by);
  const size_t old = std::min<size_t>(ages_.size(), base + 1 - std::min(base + 1, first_age_));
  const uint32_t rows =
      std::accumulate(ages_.begin(), ages_.begin() + static_cast<ptrdiff_t>(old), uint32_t{0});
  ages_.erase(ages_.begin(), ages_.begin() + static_cast<ptrdiff_t>(old));
  first_age_ += static_cast<uint32_t>(old);
  base_ = base;
  if (rows > 0) count_of(base + 1) += rows;
}

// The first slot in [begin, end) whose row was last used by ticket `latest` or before, or end.
uint32_t Residents::first_used_by(uint32_t latest, uint32_t begin, uint32_t end) const {
  const uint16_t most =
      static_cast<uint16_t>(latest < base_ ? 0 : std::min(latest - base_, MOST_AGE));
  uint32_t slot = begin;
#ifdef __AVX512BW__
  const __m512i one = _mm512_set1_epi16(1), all = _mm512_set1_epi16(static_cast<int16_t>(most));
  for (; slot + 32 <= end; slot += 32) {
    const __m512i used = _mm512_loadu_si512(used_ + slot);
    const uint32_t found = _mm512_cmplt_epu16_mask(_mm512_sub_epi16(used, one), all);
    if (found != 0) return slot + static_cast<uint32_t>(__builtin_ctz(found));
  }
#endif
  while (slot < end && static_cast<uint16_t>(used_[slot] - 1) >= most) ++slot;  // vacant: wraps
  return slot;
}

// The next slot from which a row may leave, NONE if all rows are held (or chosen already).
uint32_t Residents::sweep(uint32_t held_from, uint32_t planned) {
  for (;;) {
    const uint32_t extent = static_cast<uint32_t>(shelf_->extent());
    const uint32_t latest = std::min(limit_, held_from - 1);
    while (left_ > 0) {
      const uint32_t end = static_cast<uint32_t>(std::min<uint64_t>(extent, hand_ + left_));
      const uint32_t slot = first_used_by(latest, hand_, end);
      __builtin_prefetch(wanted_ + slot + WANTED_AHEAD);
      const bool found = slot < end;
      left_ -= slot + found - hand_;
      hand_ = slot + found < extent ? slot + found : 0;
      if (!found || !may_leave(slot, held_from, planned)) continue;
      found_ = true;
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
      last = std::max(last, used(block << layout.shift | row));
    if (last < held_from) idle.emplace_back(last, block);
  }
  std::sort(idle.begin(), idle.end());
  std::vector<uint32_t> found;
  for (const auto& [last, block] : idle) found.push_back(block);
  return found;
}

}  // namespace ff
