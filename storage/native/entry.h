// A gradient row: which one of which segment.
#pragma once

#include "config.h"

namespace ff {

struct Entry {
  uint32_t segment;
  uint32_t row;  // reply row in the segment
};

}  // namespace ff
