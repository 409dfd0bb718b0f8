// Arguments of the kernels in scan.cu.
#pragma once

#include "config.h"

namespace ff {

constexpr uint32_t SCAN_THREADS = 256;
constexpr uint32_t SCAN_QUADS = 4;  // of a thread
constexpr uint32_t SCAN_TILE = SCAN_THREADS * SCAN_QUADS * 4;
constexpr uint32_t SCAN_SUMS_THREADS = 1024;

struct ScanArgs {
  uint32_t* data;   // (n,), aligned to 16 bytes; exclusive sums in place
  uint32_t* sums;   // (tiles,): of each tile, then before each tile
  uint32_t* total;  // (1,) out
  uint64_t n, tiles;
};

}  // namespace ff
