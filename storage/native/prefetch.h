// Asking for rows before they are needed.
//
// Functions that only prefetch have to be inlined by force: GCC 12 takes a function without effects
// on values for one without effects and drops calls to it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ff {

constexpr size_t LINE = 64;

#define FF_INLINE inline __attribute__((always_inline))

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

// Rows to look ahead. A core keeps some dozens of lines in flight and a line from DRAM takes as
// long as handling 20 to 30 of them: much less leaves it waiting, much more is evicted before use.
constexpr size_t rows_ahead(size_t row_bytes) {
  const size_t lines = (row_bytes + LINE - 1) / LINE;
  return lines <= 1 ? 48 : lines <= 2 ? 32 : lines <= 4 ? 20 : lines <= 8 ? 12 : 6;
}

}  // namespace ff
