// How records lie in the file: pages of stored records, in order, the rest of a page unused.
//
//   page    | stored | stored | ... | unused |      4 KiB, or as many as one larger record needs
//   stored  | record | key 8 | tile 4 | crc 4 |     crc-32c of all before it
//
// A record smaller than a page never straddles two, so one read of 4 KiB brings it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crc.h"

namespace ff {

struct PageLayout {
  static constexpr size_t UNIT = 4096;
  static constexpr size_t TAIL = sizeof(uint64_t) + 2 * sizeof(uint32_t);

  size_t record_bytes = 0;
  size_t stored_bytes = 0;
  size_t page_bytes = 0;
  uint32_t rows = 0;  // per page

  static PageLayout of(size_t record_bytes) {
    const size_t stored = record_bytes + TAIL;
    const size_t page = (stored + UNIT - 1) / UNIT * UNIT;
    return {record_bytes, stored, page, static_cast<uint32_t>(page / stored)};
  }

  void store(char* stored, uint32_t tile, uint64_t key, const char* record) const {
    memcpy(stored, record, record_bytes);
    char* const tail = stored + record_bytes;
    memcpy(tail, &key, sizeof key);
    memcpy(tail + 8, &tile, sizeof tile);
    const uint32_t crc = crc32c(stored, record_bytes + 12);
    memcpy(tail + 12, &crc, sizeof crc);
  }

  uint64_t key(const char* stored) const { return field<uint64_t>(stored, 0); }
  uint32_t tile(const char* stored) const { return field<uint32_t>(stored, 8); }
  bool intact(const char* stored) const {
    return crc32c(stored, record_bytes + 12) == field<uint32_t>(stored, 12);
  }

 private:
  template <class T>
  T field(const char* stored, size_t at) const {
    T value;
    memcpy(&value, stored + record_bytes + at, sizeof value);
    return value;
  }
};

}  // namespace ff
