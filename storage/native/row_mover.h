// Rows of a device that come, leave or move, beside the step.
//
// Records lie in host memory. Kernels read and write them in place where the caller says so; others
// travel through a buffer on each side, in rounds of which two are under way.
#pragma once

#include <array>
#include <mutex>
#include <vector>

#include "device_ticket.h"
#include "fetch.h"

namespace ff {

class RowMover {
 public:
  // final: what this does comes after it, as it was last recorded.
  RowMover(const Device& device, const DeviceTiles& tiles, const Event& final, int threads);
  ~RowMover() { stream_.finish(); }

  // All of this happens in the order of the calls, which may come from any thread. An error of the
  // device comes out at whichever call is the next.

  // They only begin: whoever reads the rows elsewhere than here waits for arrived(). They return
  // late if the device has not begun what was asked of it some calls ago.
  void bear(const Fetch::Birth* births, size_t n);
  void copy(const Fetch::Place& from, const Fetch::Place& to);  // rows of equal layout
  // The moment at which all that has begun by now is there.
  const Event& arrived() const { return arrived_; }

  // They return when it is done. The first `in_place` records must be in pinned memory.
  void store(const Fetch::Move* moves, size_t n, size_t in_place);
  void load(const Fetch::Move* moves, size_t n, size_t in_place);

 private:
  // Records on their way through buffers.
  struct Stage {
    explicit Stage(const Device& device) : list(device), done(device) {}

    Parcel list;
    Parcel::Part<RecordMove> part;
    DeviceMemory there;
    PinnedMemory here;
    Event done;
    size_t begin = 0, end = 0, bytes = 0;  // which of the moves, and their records
  };

  size_t record_bytes(const Fetch::Move& move) const;
  template <class Work>
  void after_final(Work&& work);
  template <class Row, class Make>
  void in_rounds(const char* kernel, size_t n, Make&& make);
  void take(const Fetch::Move* moves, size_t n);
  void move_in_place(const char* kernel, size_t n);
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
  Event arrived_;
  std::array<Parcel, 4> lists_;  // so many may wait for a step before the host waits for them
  size_t lists_sent_ = 0;
  std::array<Stage, 2> stages_;
  const Fetch::Move* moves_ = nullptr;  // of the call that is under way
  size_t count_ = 0;
};

}  // namespace ff
