#include "row_mover.h"

#include <algorithm>
#include <cstring>

#include "parallel.h"

namespace ff {
namespace {

constexpr size_t ROWS_PER_LIST = size_t{1} << 18;
constexpr size_t ROWS_PER_ROUND = size_t{1} << 16, STAGE_BYTES = size_t{8} << 20;
constexpr size_t ROWS_PER_THREAD = 1024;

size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }
size_t blocks_of(size_t rows) { return (rows * 32 + ROW_THREADS - 1) / ROW_THREADS; }

}  // namespace

RowMover::RowMover(const Device& device, const DeviceTiles& tiles, const Event& final, int threads)
    : device_(device),
      tiles_(tiles),
      final_(final),
      threads_(threads),
      stream_(device),
      arrived_(device, Event::For::device),
      lists_{Parcel(device), Parcel(device), Parcel(device), Parcel(device)},
      stages_{Stage(device), Stage(device)} {}

// Without the metadata.
size_t RowMover::record_bytes(const Fetch::Move& move) const {
  const TileRows& tile = tiles_.rows[move.pad.tile];
  return size_t{tile.dim} * (bytes_of(tile.dtype) + 4 * tile.element_states) + 4 * tile.row_states;
}

// One call's work at a time, after the last step that was enqueued: its rows may be in use until
// then.
template <class Work>
void RowMover::after_final(Work&& work) {
  std::lock_guard<std::mutex> lock(mutex_);
  try {
    stream_.wait(final_);
    work();
  } catch (const DeviceError& error) {
    stream_.finish();
    throw DeviceError("GPU " + std::to_string(device_.ordinal()) +
                      " has failed at rows that come, leave or move, or at what it was given "
                      "before: " +
                      error.what());
  } catch (...) {
    stream_.finish();
    throw;
  }
}

// Makes the lists of a kernel, and launches it.
template <class Row, class Make>
void RowMover::in_rounds(const char* kernel, size_t n, Make&& make) {
  for (size_t first = 0; first < n; first += ROWS_PER_LIST) {
    const size_t count = std::min(ROWS_PER_LIST, n - first);
    Parcel& list = lists_[lists_sent_++ % lists_.size()];
    list.clear();
    const auto part = list.add<Row>(count);
    list.open(stream_);
    Row* const rows = list.host(part);
    for (size_t i = 0; i < count; ++i) rows[i] = make(first + i);
    list.send(stream_);
    const RowList<Row> args{list.device(part), count, tiles_.memory.as<TileRows>()};
    stream_.launch(kernel, blocks_of(count), ROW_THREADS, args);
  }
}

void RowMover::bear(const Fetch::Birth* births, size_t n) {
  after_final([&] {
    in_rounds<BirthRow>("bear_rows", n, [&](size_t i) {
      const auto& [pad, id, time] = births[i];
      return BirthRow{pad.weights, id, pad.slot, pad.tile};
    });
    arrived_.record(stream_);
  });
}

void RowMover::copy(const Fetch::Place& from, const Fetch::Place& to) {
  after_final([&] {
    stream_.launch("copy_row", 1, 32,
                   RowCopy{from.weights, to.weights, from.slot, to.slot, from.tile,
                           tiles_.memory.as<TileRows>()});
    arrived_.record(stream_);
  });
}

void RowMover::store(const Fetch::Move* moves, size_t n, size_t in_place) {
  after_final([&] {
    take(moves, n);
    move_in_place("store_rows", in_place);
    in_stages(in_place, [&](Stage& stage, size_t first) {
      hand_over(stage);
      load_list(stage, first);
      launch(stage, "store_rows");
      stream_.copy_out(stage.here.data(), stage.there.data(), stage.bytes);
    });
    hand_over(stages_[0]);
    hand_over(stages_[1]);
    stream_.synchronize();
  });
}

void RowMover::load(const Fetch::Move* moves, size_t n, size_t in_place) {
  after_final([&] {
    take(moves, n);
    move_in_place("load_rows", in_place);
    in_stages(in_place, [&](Stage& stage, size_t first) {
      load_list(stage, first);
      each_record(stage, [](char* staged, const Fetch::Move& move, size_t bytes) {
        memcpy(staged, move.host, bytes);
      });
      stream_.copy_in(stage.there.data(), stage.here.data(), stage.bytes);
      launch(stage, "load_rows");
    });
    stream_.synchronize();
  });
}

void RowMover::take(const Fetch::Move* moves, size_t n) {
  moves_ = moves;
  count_ = n;
  for (Stage& stage : stages_) stage.begin = stage.end = 0;
}

void RowMover::move_in_place(const char* kernel, size_t n) {
  in_rounds<RecordMove>(kernel, n, [&](size_t i) {
    const auto& [pad, host] = moves_[i];
    return RecordMove{pad.weights, host, pad.slot, pad.tile};
  });
}

// round(stage, its first move) for one stage after the other, when what it had is done.
template <class Round>
void RowMover::in_stages(size_t first, Round&& round) {
  for (size_t turn = 0; first < count_; ++turn) {
    Stage& stage = stages_[turn % stages_.size()];
    stage.done.synchronize();
    round(stage, first);
    stage.done.record(stream_);
    first = stage.end;
  }
}

// As many moves as fit the stage, and their list.
void RowMover::load_list(Stage& stage, size_t first) {
  stage.begin = stage.end = first;
  stage.bytes = 0;
  while (stage.end < count_ && stage.end - first < ROWS_PER_ROUND) {
    const size_t bytes = padded(record_bytes(moves_[stage.end]));
    if (stage.end > first && stage.bytes + bytes > STAGE_BYTES) break;
    stage.bytes += bytes;
    ++stage.end;
  }
  stage.there.reserve(stream_, stage.bytes);
  stage.here.reserve(device_, stage.bytes);
  stage.list.clear();
  stage.part = stage.list.add<RecordMove>(stage.end - first);
  stage.list.open(stream_);
  RecordMove* list = stage.list.host(stage.part);
  char* record = stage.there.data();
  for (size_t i = first; i < stage.end; ++i) {
    const Fetch::Place& pad = moves_[i].pad;
    *list++ = {pad.weights, record, pad.slot, pad.tile};
    record += padded(record_bytes(moves_[i]));
  }
}

// f(record in the stage here, move, bytes).
template <class F>
void RowMover::each_record(const Stage& stage, F&& f) const {
  const RecordMove* const list = stage.list.host(stage.part);
  const size_t count = stage.end - stage.begin;
  parallel_for(threads_, count, ROWS_PER_THREAD, [&](size_t first, size_t last, int) {
    for (size_t i = first; i < last; ++i) {
      const Fetch::Move& move = moves_[stage.begin + i];
      f(stage.here.data() + (list[i].record - stage.there.data()), move, record_bytes(move));
    }
  });
}

void RowMover::launch(Stage& stage, const char* kernel) const {
  stage.list.send(stream_);
  const size_t count = stage.end - stage.begin;
  const RowList<RecordMove> args{stage.list.device(stage.part), count,
                                 tiles_.memory.as<TileRows>()};
  stream_.launch(kernel, blocks_of(count), ROW_THREADS, args);
}

// What the stage has stored goes to its records.
void RowMover::hand_over(Stage& stage) const {
  if (stage.begin == stage.end) return;
  stage.done.synchronize();
  each_record(stage, [](const char* staged, const Fetch::Move& move, size_t bytes) {
    memcpy(move.host, staged, bytes);
  });
  stage.begin = stage.end = 0;
}

}  // namespace ff
