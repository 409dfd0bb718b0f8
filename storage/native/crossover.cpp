#include "crossover.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "row_mover.h"

namespace ff {
namespace {

constexpr size_t SMALLEST = 64, LARGEST = 4096, AT_ONCE = size_t{4} << 20;
constexpr size_t RUNS = 3, RECORDS = size_t{16} << 20;

using Move = void (RowMover::*)(const Fetch::Move*, size_t, size_t);

// Rows without state, of every size, which come from records and return to them.
class Trial {
 public:
  Trial(const Device& device, int threads, size_t rows)
      : most_(rows),
        memory_(device, AT_ONCE),
        records_(device, RECORDS),
        final_(device, Event::For::device),
        mover_(device, tiles_, final_, threads) {
    for (size_t bytes = SMALLEST; bytes <= LARGEST; bytes *= 2) {
      TileRows tile{};
      tile.dim = static_cast<uint32_t>(bytes / sizeof(float));
      tiles_.rows.push_back(tile);
    }
    const size_t bytes = tiles_.rows.size() * sizeof(TileRows);
    tiles_.memory = DeviceMemory(device, bytes);
    const Stream stream(device);
    stream.copy_in(tiles_.memory.data(), tiles_.rows.data(), bytes);
    stream.fill(memory_.data(), 0, memory_.bytes());
    stream.synchronize();
    memset(records_.data(), 0, records_.bytes());
  }

  // The largest go first, so that buffers need not grow later.
  size_t measure(Move move) {
    const size_t last = tiles_.rows.size() - 1;
    (void)seconds(move, last, false, 0);
    (void)seconds(move, last, true, 0);
    size_t from = Crossover::NEVER;
    for (size_t tile = last + 1; tile-- > 0 && better_in_place(move, tile);) from = bytes_of(tile);
    return from;
  }

 private:
  static size_t bytes_of(size_t tile) { return SMALLEST << tile; }

  bool better_in_place(Move move, size_t tile) {
    double staged = 1e9, in_place = 1e9;
    for (size_t run = 0; run < RUNS; ++run) {
      staged = std::min(staged, seconds(move, tile, false, run));
      in_place = std::min(in_place, seconds(move, tile, true, run));
    }
    return in_place < staged;
  }

  // Records lie apart from each other, and every run has others: caches of the host know few.
  double seconds(Move move, size_t tile, bool in_place, size_t run) {
    const size_t bytes = bytes_of(tile), places = RECORDS / bytes;
    const size_t count = std::min(most_, AT_ONCE / bytes);
    moves_.clear();
    for (size_t i = 0; i < count; ++i) {
      const size_t number = (2 * run + in_place) * count + i;
      const size_t place = number * 0x9e3779b1u % places;
      moves_.push_back(
          {{static_cast<uint32_t>(tile), static_cast<uint32_t>(i), memory_.data() + i * bytes},
           records_.data() + place * bytes});
    }
    const auto begin = std::chrono::steady_clock::now();
    (mover_.*move)(moves_.data(), count, in_place ? count : 0);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  size_t most_;
  DeviceTiles tiles_;
  DeviceMemory memory_;
  PinnedMemory records_;
  Event final_;
  RowMover mover_;
  std::vector<Fetch::Move> moves_;
};

}  // namespace

Crossover Crossover::measure(const Device& device, int threads, size_t rows) {
  Trial trial(device, threads, rows);
  Crossover from;
  from.load = trial.measure(&RowMover::load);
  from.store = trial.measure(&RowMover::store);
  return from;
}

}  // namespace ff
