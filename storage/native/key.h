// Keys: table and id in one 64-bit word, without collisions (size-aware coding, Fleche,
// EuroSys'22).
//
// A table whose ids need b bits owns an aligned range of 2^b keys: its prefix of 64 - b bits is the
// table's code, so big tables have short codes. storage/key.py assigns the ranges.
#pragma once

#include "config.h"

namespace ff {

struct KeyRange {
  uint64_t base = 0;  // a multiple of 2^bits
  uint32_t bits = 0;  // at most 63, because ids are int64 values >= 0

  FF_HD uint64_t ids() const { return uint64_t{1} << bits; }
  FF_HD bool holds(uint64_t id) const { return id >> bits == 0; }
  FF_HD uint64_t key(uint64_t id) const { return base | id; }
  FF_HD bool owns(uint64_t key) const { return (key ^ base) >> bits == 0; }
  FF_HD uint64_t id(uint64_t key) const { return key ^ base; }
};

}  // namespace ff
