#include "host_rows.h"

#include "parallel.h"
#include "prefetch.h"
#include "record.h"

namespace ff {
namespace {

constexpr size_t MOVES_PER_THREAD = 512, BIRTHS_PER_THREAD = 64;
constexpr size_t AHEAD = 8;

}  // namespace

// move(row) for all of a list, ask(row) some rows before.
template <class List, class Ask, class Move>
void HostRows::each(const List& list, size_t per_thread, Ask&& ask, Move&& move) const {
  parallel_for(threads_, list.size(), per_thread, [&](size_t first, size_t last, int) {
    for (size_t i = first; i < last; ++i) {
      if (i + AHEAD < last) ask(list[i + AHEAD]);
      move(list[i]);
    }
  });
}

FF_INLINE void HostRows::ask(const Fetch::Move& row) const {
  const Tile& tile = *tiles_[row.pad.tile];
  prefetch<true>(row.pad.weights, tile.layout().weight_stride);
  prefetch<true>(row.host, tile.layout().record_bytes());
  __builtin_prefetch(tile.view().row_state(row.pad.weights, row.pad.slot), 1);
  __builtin_prefetch(tile.view().meta(row.pad.weights, row.pad.slot), 1);
}

void HostRows::bear(const std::vector<Fetch::Birth>& births) {
  each(
      births, BIRTHS_PER_THREAD, [](const auto&) {},
      [&](const Fetch::Birth& b) {
        tiles_[b.pad.tile]->bear(b.id, b.pad.weights, b.pad.slot, b.time);
      });
}

void HostRows::store(const std::vector<Fetch::Move>& rows) {
  each(
      rows, MOVES_PER_THREAD, [&](const Fetch::Move& m) FF_ALWAYS { ask(m); },
      [&](const Fetch::Move& m) {
        const Tile& tile = *tiles_[m.pad.tile];
        pack_record(tile.layout(), tile.view(), m.pad.weights, m.pad.slot, m.host);
      });
}

void HostRows::load(const std::vector<Fetch::Move>& rows) {
  each(
      rows, MOVES_PER_THREAD, [&](const Fetch::Move& m) FF_ALWAYS { ask(m); },
      [&](const Fetch::Move& m) {
        const Tile& tile = *tiles_[m.pad.tile];
        unpack_record(tile.layout(), tile.view(), m.pad.weights, m.pad.slot, m.host);
      });
}

void HostRows::copy(const Fetch::Place& from, const Fetch::Place& to) {
  const Tile& tile = *tiles_[from.tile];
  std::vector<char> record(tile.layout().record_bytes());
  pack_record(tile.layout(), tile.view(), from.weights, from.slot, record.data());
  unpack_record(tile.layout(), tile.view(), to.weights, to.slot, record.data());
}

}  // namespace ff
