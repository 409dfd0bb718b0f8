// Asking for rows before they are needed.
//
// Functions that only prefetch have to be inlined by force: GCC 12 takes a function without effects
// on values for one without effects and drops calls to it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ff {

constexpr size_t LINE = 64;

#define FF_ALWAYS __attribute__((always_inline))  // for lambdas
#define FF_INLINE inline FF_ALWAYS

template <bool write>
FF_INLINE void prefetch(const char* address, size_t bytes) {
  if (__builtin_constant_p(bytes) && bytes % LINE == 0) {
    // So is the stride, and rows start on a line.
    for (size_t at = 0; at < bytes; at += LINE) __builtin_prefetch(address + at, write ? 1 : 0, 3);
    return;
  }
  const char* const end = address + bytes;
  const char* line =
      reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(address) & ~(LINE - 1));
  for (; line < end; line += LINE) __builtin_prefetch(line, write ? 1 : 0, 3);
}

// Rows to look ahead: as many as fill a third of a first-level cache of 48 KiB (half of one of 32
// KiB). Measured with rows of 256 and 512 bytes, uniform and Zipf: the rate rises up to about
// there, because rows may come from DRAM (20 lines in flight or more), or be hot (then what is
// asked for must be done long before it is used), and falls when asked lines push each other out.
// Lines that will be written leave the cache again, and there are gradients beside them.
constexpr size_t READ_AHEAD = 16384, WRITE_AHEAD = 6144;  // bytes

constexpr size_t rows_ahead(size_t row_bytes, size_t bytes) {
  const size_t rows = bytes / row_bytes;
  return rows < 4 ? 4 : rows > 128 ? 128 : rows;
}

}  // namespace ff
