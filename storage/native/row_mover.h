// Rows of a device that come, leave or move, beside the step.
//
// Records lie in host memory. Where the device can follow them its kernels read and write them in
// place; others, and small ones, travel through a buffer on each side, in rounds of which two are
// under way.
#pragma once

#include <array>
#include <mutex>
#include <vector>

#include "device_ticket.h"
#include "fetch.h"

namespace ff {

class RowMover {
 public:
  struct Copy {
    Fetch::Place from, to;  // rows of equal layout
  };

  // final: what this does comes after it, as it was last recorded.
  RowMover(const Device& device, const DeviceTiles& tiles, const Event& final, int threads);

  // They return when it is done. Any thread, one at a time. pinned: the device can follow records.
  void bear(const Fetch::Birth* births, size_t n);
  void store(const Fetch::Move* moves, size_t n, bool pinned);
  void load(const Fetch::Move* moves, size_t n, bool pinned);
  void copy(const Copy* copies, size_t n);

 private:
  // Records on their way through buffers.
  struct Stage {
    explicit Stage(const Device& device) : list(device), done(device) {}

    Parcel list;
    Parcel::Part<RecordMove> part;
    DeviceMemory there;
    PinnedMemory here;
    Event done;
    size_t begin = 0, end = 0, bytes = 0;  // which of moves_, and their records
  };

  size_t record_bytes(const Fetch::Move& move) const;
  void begin();
  template <class Row, class Make>
  void in_rounds(const char* kernel, size_t n, Make&& make);
  size_t choose(const Fetch::Move* moves, size_t n, bool pinned);
  void in_place(const char* kernel, size_t n);
  template <class Round>
  void in_stages(size_t first, Round&& round);
  void load_list(Stage& stage, size_t first);
  template <class F>
  void each_record(const Stage& stage, F&& f) const;
  void launch(Stage& stage, const char* kernel) const;
  void hand_over(Stage& stage) const;

  const Device& device_;
  const DeviceTiles& tiles_;
  const Event& final_;
  int threads_;
  std::mutex mutex_;
  Stream stream_;
  Parcel list_;
  std::vector<Fetch::Move> moves_;  // those in place first
  std::array<Stage, 2> stages_;
};

}  // namespace ff
