// Radix sort of pairs of 32-bit keys and values, stable, lowest digit first. A pass counts the
// digits of each tile, adds up the counts (scan.cu), and moves the pairs: a block puts its tile in
// order in shared memory first, so that what it writes are runs of equal digits.
#include "scan.h"
#include "sort_args.h"

namespace ff {
namespace {

constexpr uint32_t SORT_WARPS = SORT_THREADS / WARP;
constexpr uint32_t NO_DIGIT = SORT_DIGITS;  // past the end of the array

FF_DEVICE uint32_t digit_of(uint32_t key, uint64_t shift) {
  return key >> shift & (SORT_DIGITS - 1);
}

}  // namespace

FF_KERNEL(sort_count, SortArgs, 256) {
  __shared__ uint32_t count[SORT_DIGITS];
  count[threadIdx.x] = 0;
  __syncthreads();
  const uint64_t first = uint64_t{blockIdx.x} * SORT_TILE + threadIdx.x;
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    const uint64_t at = first + i * SORT_THREADS;
    if (at < args.n) atomicAdd(&count[digit_of(args.keys[at], args.shift)], 1u);
  }
  __syncthreads();
  args.counts[threadIdx.x * args.tiles + blockIdx.x] = count[threadIdx.x];
}

FF_KERNEL(sort_move, SortArgs, 256) {
  __shared__ uint32_t running[SORT_WARPS][SORT_DIGITS];  // of a warp's items: digits met so far
  __shared__ uint32_t origin[SORT_DIGITS];  // where the first of a digit goes, less its place here
  __shared__ uint32_t staged[SORT_TILE];
  __shared__ uint32_t sums[SORT_WARPS + 1];
  const uint32_t thread = threadIdx.x, warp = thread / WARP, lane = thread % WARP;
  const uint64_t tile = uint64_t{blockIdx.x} * SORT_TILE;
  const uint32_t n = args.n - tile < SORT_TILE ? static_cast<uint32_t>(args.n - tile) : SORT_TILE;
  const uint32_t mine = warp * WARP * SORT_ITEMS + lane;  // a warp's items lie together

#pragma unroll
  for (uint32_t w = 0; w < SORT_WARPS; ++w) running[w][thread] = 0;
  __syncthreads();

  uint32_t key[SORT_ITEMS], place[SORT_ITEMS];
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i)
    key[i] = mine + i * WARP < n ? args.keys[tile + mine + i * WARP] : 0;
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    const bool valid = mine + i * WARP < n;
    const uint32_t digit = valid ? digit_of(key[i], args.shift) : NO_DIGIT;
    const uint32_t peers = __match_any_sync(ALL_LANES, digit);
    const uint32_t before = __popc(peers & ((1u << lane) - 1));
    const uint32_t met = valid ? running[warp][digit] : 0;
    __syncwarp(ALL_LANES);
    if (valid && before == 0) running[warp][digit] = met + __popc(peers);
    __syncwarp(ALL_LANES);
    place[i] = met + before;
  }
  __syncthreads();

  // A thread per digit: where each warp's items of it begin in the tile.
  uint32_t count = 0;
#pragma unroll
  for (uint32_t w = 0; w < SORT_WARPS; ++w) {
    const uint32_t here = running[w][thread];
    running[w][thread] = count;
    count += here;
  }
  const uint32_t begin = block_exclusive<SORT_THREADS>(count, sums);
#pragma unroll
  for (uint32_t w = 0; w < SORT_WARPS; ++w) running[w][thread] += begin;
  origin[thread] = args.counts[thread * args.tiles + blockIdx.x] - begin;
  __syncthreads();

#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    if (mine + i * WARP >= n) continue;
    place[i] += running[warp][digit_of(key[i], args.shift)];
    staged[place[i]] = key[i];
  }
  __syncthreads();
  uint32_t to[SORT_ITEMS];
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    const uint32_t at = thread + i * SORT_THREADS;
    if (at >= n) continue;
    to[i] = origin[digit_of(staged[at], args.shift)] + at;
    args.keys_out[to[i]] = staged[at];
  }
  __syncthreads();
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    const uint64_t at = tile + mine + i * WARP;
    if (at < args.n)
      staged[place[i]] = args.values != nullptr ? args.values[at] : static_cast<uint32_t>(at);
  }
  __syncthreads();
#pragma unroll
  for (uint32_t i = 0; i < SORT_ITEMS; ++i) {
    const uint32_t at = thread + i * SORT_THREADS;
    if (at < n) args.values_out[to[i]] = staged[at];
  }
}

}  // namespace ff
