// Exclusive sums of an array in three passes: of tiles, of their sums, of the elements. The array
// is read twice and written once, 16 bytes at a time; a single pass with look-back would save one
// read of something that mostly lies in the second-level cache.
#include "scan.h"
#include "scan_args.h"

namespace ff {
namespace {

// The quad `at` (in elements) of the array; zeros past its end.
FF_DEVICE uint4 quad_of(const ScanArgs& args, uint64_t at) {
  if (at + 4 <= args.n) return *reinterpret_cast<const uint4*>(args.data + at);
  return make_uint4(at < args.n ? args.data[at] : 0, at + 1 < args.n ? args.data[at + 1] : 0,
                    at + 2 < args.n ? args.data[at + 2] : 0, 0);
}

FF_DEVICE void write_quad(const ScanArgs& args, uint64_t at, const uint4& quad) {
  if (at + 4 <= args.n) {
    *reinterpret_cast<uint4*>(args.data + at) = quad;
    return;
  }
  if (at < args.n) args.data[at] = quad.x;
  if (at + 1 < args.n) args.data[at + 1] = quad.y;
  if (at + 2 < args.n) args.data[at + 2] = quad.z;
}

}  // namespace

FF_KERNEL(scan_tiles, ScanArgs, 256) {
  __shared__ uint32_t sums[SCAN_THREADS / WARP + 1];
  const uint64_t first = uint64_t{blockIdx.x} * SCAN_TILE + threadIdx.x * 4;
  uint4 quad[SCAN_QUADS];
#pragma unroll
  for (uint32_t i = 0; i < SCAN_QUADS; ++i) quad[i] = quad_of(args, first + i * SCAN_THREADS * 4);
  uint32_t sum = 0;
#pragma unroll
  for (uint32_t i = 0; i < SCAN_QUADS; ++i) sum += quad[i].x + quad[i].y + quad[i].z + quad[i].w;
  block_exclusive<SCAN_THREADS>(sum, sums);
  if (threadIdx.x == 0) args.sums[blockIdx.x] = sums[SCAN_THREADS / WARP];
}

// One block.
FF_KERNEL(scan_sums, ScanArgs, 1024) {
  __shared__ uint32_t sums[SCAN_SUMS_THREADS / WARP + 1];
  uint32_t before = 0;
  for (uint64_t first = 0; first < args.tiles; first += SCAN_SUMS_THREADS) {
    const uint64_t at = first + threadIdx.x;
    const uint32_t sum = at < args.tiles ? args.sums[at] : 0;
    const uint32_t exclusive = block_exclusive<SCAN_SUMS_THREADS>(sum, sums);
    if (at < args.tiles) args.sums[at] = before + exclusive;
    before += sums[SCAN_SUMS_THREADS / WARP];
  }
  if (threadIdx.x == 0) *args.total = before;
}

FF_KERNEL(scan_elements, ScanArgs, 256) {
  __shared__ uint32_t sums[SCAN_THREADS / WARP + 1];
  const uint64_t first = uint64_t{blockIdx.x} * SCAN_TILE + threadIdx.x * 4;
  uint4 quad[SCAN_QUADS];
#pragma unroll
  for (uint32_t i = 0; i < SCAN_QUADS; ++i) quad[i] = quad_of(args, first + i * SCAN_THREADS * 4);
  uint32_t before = args.sums[blockIdx.x];
#pragma unroll
  for (uint32_t i = 0; i < SCAN_QUADS; ++i) {
    const uint32_t x = quad[i].x, y = x + quad[i].y, z = y + quad[i].z, sum = z + quad[i].w;
    const uint32_t at = before + block_exclusive<SCAN_THREADS>(sum, sums);
    write_quad(args, first + i * SCAN_THREADS * 4, make_uint4(at, at + x, at + y, at + z));
    before += sums[SCAN_THREADS / WARP];
  }
}

}  // namespace ff
