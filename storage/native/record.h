// A row without gaps, as tiers below the pad, checkpoints and Pad::read have it: weights, element
// state, row state, time and score.
#pragma once

#include <cstring>

#include "rows.h"

namespace ff {

// A row is given by the address of its weights, which needs no look into the directory of blocks,
// and its slot.
template <bool to_row>
inline void copy_record(const RowLayout& layout, const RowView& view, char* weights, uint32_t slot,
                        char* record) {
  auto part = [&](char* row, size_t bytes) {
    if (to_row)
      memcpy(row, record, bytes);
    else
      memcpy(record, row, bytes);
    record += bytes;
  };
  part(weights, size_t{layout.dim} * bytes_of(layout.dtype));
  part(view.state(weights, slot), size_t{layout.dim} * 4 * layout.element_states);
  part(view.row_state(weights, slot), layout.row_state_stride);
  Meta meta = view.meta(weights, slot)->load();
  part(reinterpret_cast<char*>(&meta), sizeof meta);
  if (to_row) view.meta(weights, slot)->store(meta);
}

inline void pack_record(const RowLayout& layout, const RowView& view, char* weights, uint32_t slot,
                        char* record) {
  copy_record<false>(layout, view, weights, slot, record);
}

inline void unpack_record(const RowLayout& layout, const RowView& view, char* weights,
                          uint32_t slot, const char* record) {
  copy_record<true>(layout, view, weights, slot, const_cast<char*>(record));
}

}  // namespace ff
