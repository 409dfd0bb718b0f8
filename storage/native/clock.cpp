#include "clock.h"

#include <stdexcept>

namespace ff {

Clock::Clock(uint64_t interval) : began_(new std::atomic<uint64_t>[NAMES]()) {
  if (interval == 0 || interval >> 63 != 0)
    throw std::invalid_argument("Clock: interval must be at least 1 batch and below 2**63");
  interval_ = divisor_of(interval);
}

void Clock::tick() {
  const uint64_t next = ticks() + 1;
  began_[static_cast<uint16_t>(next)].store(batch(), std::memory_order_relaxed);
  ticks_.store(next, std::memory_order_release);  // whoever sees the name sees when it began
}

}  // namespace ff
