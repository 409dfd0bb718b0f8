#include "device_sort.h"

#include <algorithm>

#include "sort_args.h"

namespace ff {

void DeviceSort::sort(const Stream& stream, const uint32_t* keys, const uint32_t* values, size_t n,
                      uint32_t bits, uint32_t* sorted_keys, uint32_t* sorted_values) {
  const size_t tiles = (n + SORT_TILE - 1) / SORT_TILE;
  const uint32_t passes = std::max(1u, (bits + SORT_DIGIT - 1) / SORT_DIGIT);
  if (passes > 1) {
    keys_.reserve(stream, n * sizeof(uint32_t));
    values_.reserve(stream, n * sizeof(uint32_t));
  }
  const size_t counts = tiles * SORT_DIGITS;
  counts_.reserve(stream, (counts + 1) * sizeof(uint32_t));
  SortArgs args{keys, values, nullptr, nullptr, counts_.as<uint32_t>(), n, tiles, 0};
  for (uint32_t pass = 0; pass < passes; ++pass) {
    const bool last = (passes - pass) % 2 == 1;  // the last one writes to sorted_*
    args.keys_out = last ? sorted_keys : keys_.as<uint32_t>();
    args.values_out = last ? sorted_values : values_.as<uint32_t>();
    args.shift = pass * SORT_DIGIT;
    stream.launch("sort_count", tiles, SORT_THREADS, args);
    scan_.exclusive(stream, args.counts, counts, args.counts + counts);
    stream.launch("sort_move", tiles, SORT_THREADS, args);
    args.keys = args.keys_out;
    args.values = args.values_out;
  }
}

}  // namespace ff
