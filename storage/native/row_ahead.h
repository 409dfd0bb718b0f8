// The next row's columns and state, on their way while a thread is at work on this one.
//
// They come to shared memory. In registers they would take many; and a warp has so few counters of
// loads to wait for that it would wait for them with the addresses of this row's gradient.
#pragma once

#include "columns.h"
#include "row_kernels.h"

namespace ff {

// A place for each thread of the block, which nobody else touches.
struct RowsAhead {
  struct alignas(16) Part {
    char bytes[16];
  };

  Part weights[ROW_THREADS], s0[ROW_THREADS], s1[ROW_THREADS];
  float row_state[ROW_THREADS];

  // Columns d to d + V; and the state of the row, in the thread that has its first column.
  template <int V>
  FF_DEVICE void ask(const TileRows& tile, const GroupRows& rows, uint32_t group, uint32_t d) {
    char* const at = rows.at[group];
    with_elements(tile.dtype, at, [&](auto* row) { begin<V>(weights, row + d); });
    if (tile.element_states > 0) {
      float* const state = reinterpret_cast<float*>(tile.rows.state(at, rows.slots[group])) + d;
      begin<V>(s0, state);
      if (tile.element_states > 1) begin<V>(s1, state + tile.dim);
    }
    if (tile.row_states > 0 && d == 0)
      begin_copy<4>(row_state + threadIdx.x, tile.rows.row_state<1>(at, rows.slots[group]));
  }

  // What was asked for last, when finish_copies() has returned.
  template <int V>
  FF_DEVICE void take(const TileRows& tile, float (&w)[V], float (&a)[V], float (&b)[V]) {
    with_elements(tile.dtype, weights[threadIdx.x].bytes, [&](auto* columns) { load(columns, w); });
    if (tile.element_states > 0) load(reinterpret_cast<const float*>(s0[threadIdx.x].bytes), a);
    if (tile.element_states > 1) load(reinterpret_cast<const float*>(s1[threadIdx.x].bytes), b);
  }

 private:
  // V elements. Two bytes are too few to come by themselves.
  template <int V, class T>
  FF_DEVICE static void begin(Part* parts, const T* from) {
    if constexpr (V * sizeof(T) >= 4)
      begin_copy<V * sizeof(T)>(parts + threadIdx.x, from);
    else
      *reinterpret_cast<T*>(parts + threadIdx.x) = *from;
  }
};

}  // namespace ff
