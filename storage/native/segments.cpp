#include "segments.h"

#include <algorithm>

namespace ff {

Segments::Segments(PageLayout page, size_t segment_bytes)
    : page_(page),
      pages_(static_cast<uint32_t>(std::max<size_t>(1, segment_bytes / page.page_bytes))),
      per_segment_(divisor_of(uint64_t{pages_} * page.rows)),
      per_page_(divisor_of(page.rows)) {}

void Segments::add(uint64_t offset) {
  free_.push_back(static_cast<uint32_t>(offset_.size()));
  offset_.push_back(offset);
  live_.push_back(0);
  pins_.push_back(0);
  state_.push_back(State::free);
}

void Segments::add_sealed(uint64_t offset) {
  add(offset);
  free_.pop_back();
  state_.back() = State::sealed;
}

size_t Segments::hollow_empty() {
  const size_t before = hollow_.size();
  for (uint32_t segment = 0; segment < count(); ++segment)
    if (state_[segment] == State::sealed && live_[segment] == 0) {
      state_[segment] = State::free;
      set_hollow(segment);
    }
  return hollow_.size() - before;
}

uint32_t Segments::take() {
  const uint32_t segment = free_.front();
  free_.pop_front();
  state_[segment] = State::filling;
  return segment;
}

void Segments::give_back(uint32_t segment) {
  state_[segment] = State::free;
  free_.push_back(segment);
}

void Segments::refill() {
  give_back(hollow_.back());
  hollow_.pop_back();
}

void Segments::seal(uint32_t segment) {
  state_[segment] = State::sealed;
  if (live_[segment] > 0) return;
  ++draining_;
  settle(segment);
}

void Segments::arrive(uint32_t place) {
  ++live_[segment_of(place)];
  ++total_live_;
}

void Segments::leave(uint32_t place) {
  const uint32_t segment = segment_of(place);
  --total_live_;
  if (--live_[segment] > 0 || state_[segment] != State::sealed) return;
  ++draining_;
  settle(segment);
}

bool Segments::unpin(uint32_t place) {
  const uint32_t segment = segment_of(place);
  return --pins_[segment] == 0 && settle(segment);
}

// Frees a sealed segment that holds nothing and is not being read.
bool Segments::settle(uint32_t segment) {
  if (state_[segment] != State::sealed || live_[segment] > 0 || pins_[segment] > 0) return false;
  --draining_;
  state_[segment] = State::free;
  free_.push_front(segment);
  return true;
}

uint32_t Segments::emptiest() const {
  uint32_t best = NONE, least = NONE;
  for (uint32_t segment = 0; segment < count(); ++segment)
    if (live_[segment] < least && live_[segment] > 0 && state_[segment] == State::sealed) {
      best = segment;
      least = live_[segment];
    }
  return best;
}

}  // namespace ff
