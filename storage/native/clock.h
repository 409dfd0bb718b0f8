// The time of a rank: training batches as they are planned. It depends on the batches alone, so the
// same job gives the same times.
//
// A tick is a moment that has a 16-bit name, for metadata of rows; the clock knows of each of the
// last 65,536 ticks at which batch it began. Names repeat after that: who keeps one longer must
// have dropped it by then (reclaimer.h).
//
// One thread at a time moves the clock; all members may be called by others meanwhile, of ticks
// that they have learnt of in an orderly way (a ticket that was handed over). 512 KiB.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "hash.h"

namespace ff {

class Clock {
 public:
  static constexpr size_t NAMES = 65536;

  // Scores decay every `interval` batches, which is at least 1 or std::invalid_argument. Tick 0
  // begins at batch 0; a name that no tick has had yet counts as begun then, too.
  explicit Clock(uint64_t interval);

  uint16_t now() const { return static_cast<uint16_t>(ticks()); }
  // Ticks since the start, and batches.
  uint64_t ticks() const { return ticks_.load(std::memory_order_acquire); }
  uint64_t batch() const { return batch_.load(std::memory_order_relaxed); }

  // One more training batch was planned.
  void advance_batch() { batch_.store(batch() + 1, std::memory_order_relaxed); }
  // A new tick begins at this batch. Several may begin at the same one.
  void tick();

  uint64_t batch_of(uint16_t tick) const { return began_[tick].load(std::memory_order_relaxed); }
  // Ticks since.
  uint32_t age(uint16_t tick) const { return static_cast<uint16_t>(now() - tick); }
  // Ends of decay intervals between two ticks; 0 if `to` is the older one.
  uint32_t intervals(uint16_t from, uint16_t to) const {
    const uint64_t first = interval_.quotient(batch_of(from));
    const uint64_t last = interval_.quotient(batch_of(to));
    const uint64_t gone = last > first ? last - first : 0;
    return gone < UINT32_MAX ? static_cast<uint32_t>(gone) : UINT32_MAX;
  }

 private:
  Divisor interval_;
  std::atomic<uint64_t> ticks_ = 0, batch_ = 0;
  std::unique_ptr<std::atomic<uint64_t>[]> began_;  // (NAMES,)
};

}  // namespace ff
