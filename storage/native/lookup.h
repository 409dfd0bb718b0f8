// Lookups of a planned batch, as the grouping moves them: the row, and its gradient row.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "request.h"

namespace ff {

// An id of the request that has a row.
struct Lookup {
  uint32_t slot;
  uint32_t row;  // the gradient row, see RowCode
};
struct NumberedLookup : Lookup {
  uint32_t id;  // of the request
};

// Segment and reply row in 32 bits.
class RowCode {
 public:
  explicit RowCode(const Run& run)
      : first_(static_cast<uint32_t>(run.segment_begin)),
        row_bits_(32 - std::bit_width(run.segment_end - run.segment_begin - 1)),
        mask_(static_cast<uint32_t>(rows() - 1)) {}

  uint64_t rows() const { return uint64_t{1} << row_bits_; }  // of a segment, at most
  uint32_t code(size_t segment, size_t row) const {
    return static_cast<uint32_t>(uint64_t{segment - first_} << row_bits_ | row);
  }
  Entry entry(uint32_t code) const {
    return {first_ + static_cast<uint32_t>(uint64_t{code} >> row_bits_), code & mask_};
  }

 private:
  uint32_t first_;
  int row_bits_;
  uint32_t mask_;
};

// Calls visit(id, row) for a share of a run's ids.
template <class Visit>
void each_id(const Ticket& ticket, const Run& run, const Share& share, Visit&& visit) {
  const RowCode rows(run);
  for (size_t s = run.segment_begin; s < run.segment_end; ++s) {
    const Segment& segment = ticket.segments[s];
    const size_t end = std::min(share.end, segment.id_end);
    size_t i = std::max(share.begin, segment.id_begin);
    if (i >= end) continue;
    if (!segment.pooled) {
      for (; i < end; ++i) visit(i, rows.code(s, i - segment.id_begin));
      continue;
    }
    const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
    const auto after = std::upper_bound(offsets, offsets + segment.rows, static_cast<int64_t>(i));
    for (size_t bag = after - offsets - 1; i < end; ++bag) {
      const uint32_t row = rows.code(s, bag);
      for (const size_t stop = std::min<size_t>(end, offsets[bag + 1]); i < stop; ++i)
        visit(i, row);
    }
  }
}

}  // namespace ff
