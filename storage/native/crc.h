// CRC-32C (Castagnoli), the checksum of a stored record.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

namespace ff {

constexpr std::array<uint32_t, 256> crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1 ? 0x82f63b78u : 0u);
    table[byte] = rest;
  }
  return table;
}

// A byte at a time, on any CPU: also what the instruction is tested against.
inline uint32_t crc32c_plain(const char* data, size_t n, uint32_t crc = 0) {
  static constexpr std::array<uint32_t, 256> table = crc32c_table();
  crc = ~crc;
  for (size_t i = 0; i < n; ++i)
    crc = table[(crc ^ static_cast<uint8_t>(data[i])) & 255] ^ crc >> 8;
  return ~crc;
}

// `crc` is that of the bytes before: crc32c(b, m, crc32c(a, n)) is the checksum of a then b.
inline uint32_t crc32c(const char* data, size_t n, uint32_t crc = 0) {
#ifdef __SSE4_2__
  uint64_t rest = ~crc;
  for (; n >= 8; data += 8, n -= 8) {
    uint64_t word;
    memcpy(&word, data, sizeof word);
    rest = _mm_crc32_u64(rest, word);
  }
  uint32_t tail = static_cast<uint32_t>(rest);
  for (; n > 0; ++data, --n) tail = _mm_crc32_u8(tail, static_cast<uint8_t>(*data));
  return ~tail;
#else
  return crc32c_plain(data, n, crc);
#endif
}

}  // namespace ff
