// Asking for rows before they are needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ff {

constexpr size_t LINE = 64;

template <bool write>
inline void prefetch(const char* address, size_t bytes) {
  // Rows start anywhere in a line when their stride is not a multiple of one.
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
