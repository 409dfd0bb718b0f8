// From which size on records in pinned memory of the host are better read and written by kernels in
// place than copied to a buffer and sent as one piece: a matter of the bus, the host's memory and
// its threads, so it is measured. The rows are the same bits either way.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "device.h"

namespace ff {

struct Crossover {
  static constexpr size_t NEVER = ~size_t{0};
  static constexpr size_t ROWS = 4096;  // that move at once while it is measured

  size_t load = NEVER, store = NEVER;  // bytes of the smallest record that is worth it

  // Takes some milliseconds, and memory of a few MiB on both sides meanwhile.
  static Crossover measure(const Device& device, int threads, size_t rows = ROWS);
};

// What the user is told of it.
struct InPlace {
  size_t pinned_bytes = 0;  // of records
  std::string refusal;      // why others are not pinned
  uint64_t rows = 0;        // moved in place since the start
  std::optional<Crossover> from;
};

}  // namespace ff
