#include "places.h"

#include <algorithm>

namespace ff {
namespace {

constexpr size_t PER_PAGE = Mapping::PAGE / sizeof(uint32_t);
constexpr size_t AHEAD = 16;
constexpr uint64_t MOST_FLAT = uint64_t{1} << 32;

}  // namespace

Places::Places(KeyRange keys, int64_t positions, uint64_t most, Charge charge)
    : keys_(keys), charge_(std::move(charge)) {
  const uint64_t worth = std::min(MOST_FLAT, Index::KEY_BYTES * most / sizeof(uint32_t));
  if (positions >= 0 && static_cast<uint64_t>(positions) <= worth &&
      take_flat(static_cast<uint64_t>(positions)))
    return;
  if (positions >= 0) positions_ = static_cast<uint64_t>(positions);
  index_ = std::make_unique<Index>(0, true, charge_);
}

// Address space for all positions; false if the system has not that much.
bool Places::take_flat(uint64_t positions) {
  try {
    if (positions > 0) flat_.grow(positions * sizeof(uint32_t));
  } catch (const std::bad_alloc&) {
    return false;
  }
  positions_ = positions;
  touched_.resize((positions + PER_PAGE - 1) / PER_PAGE);
  if (charge_) charge_(flat_.bytes() + touched_.size() / 8);
  return true;
}

void Places::find(const uint64_t* keys, uint32_t* places, size_t n) const {
  if (index_) return index_->find(keys, places, n, 1);
  for (size_t i = 0; i < n; ++i) {
    if (i + AHEAD < n) __builtin_prefetch(flat() + keys_.id(keys[i + AHEAD]));
    places[i] = flat()[keys_.id(keys[i])] - 1;
  }
}

void Places::set(const uint64_t* keys, const uint32_t* places, uint32_t* was, size_t n) {
  if (index_) return set_dynamic(keys, places, was, n);
  for (size_t i = 0; i < n; ++i) {
    touched_[keys_.id(keys[i]) / PER_PAGE] = true;
    uint32_t& place = flat()[keys_.id(keys[i])];
    was[i] = place - 1;
    place = places[i] + 1;
    rows_ += was[i] == NONE;
  }
}

void Places::set_dynamic(const uint64_t* keys, const uint32_t* places, uint32_t* was, size_t n) {
  bool fresh[BATCH] = {};
  try {
    index_->find_or_insert(keys, was, n, [&](size_t i) {
      fresh[i] = true;
      return places[i];
    });
  } catch (...) {
    for (size_t i = 0; i < n; ++i)
      if (fresh[i]) index_->erase(keys + i, 1);
    throw;
  }
  for (size_t i = 0; i < n; ++i) {
    if (fresh[i])
      was[i] = NONE;
    else
      index_->replace(keys + i, places + i, 1);
    rows_ += fresh[i];
  }
}

void Places::move(const uint64_t* keys, const uint32_t* from, const uint32_t* places, bool* moved,
                  size_t n) {
  uint32_t now[BATCH];
  find(keys, now, n);
  for (size_t i = 0; i < n; ++i) {
    moved[i] = now[i] == from[i];
    if (!moved[i]) continue;
    if (index_)
      index_->replace(keys + i, places + i, 1);
    else
      flat()[keys_.id(keys[i])] = places[i] + 1;
  }
}

size_t Places::erase(const uint64_t* keys, uint32_t* was, size_t n) {
  const size_t before = rows_;
  if (index_) {
    rows_ -= index_->erase(keys, n, was);
    return before - rows_;
  }
  find(keys, was, n);
  for (size_t i = 0; i < n; ++i) {
    if (was[i] == NONE) continue;
    flat()[keys_.id(keys[i])] = 0;
    --rows_;
  }
  return before - rows_;
}

}  // namespace ff
