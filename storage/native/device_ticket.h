// What a planned ticket has on the device: its plan, sent ahead of the step, what the step adds
// (addresses of replies and gradients), and room for sums on the way.
#pragma once

#include <vector>

#include "parcel.h"
#include "request.h"
#include "row_work.h"

namespace ff {

// The tiles as kernels see them, here and there, and a row of zeros as long as any.
struct DeviceTiles {
  std::vector<TileRows> rows;
  DeviceMemory memory, zeros;
};

class DeviceTicket {
 public:
  DeviceTicket(const Device& device, const DeviceTiles& tiles, int threads);
  ~DeviceTicket();

  // On `copies`, after whatever the last plan was used for.
  void send(const Ticket& ticket, const Stream& copies);
  // On the step's stream. runs: the optimizers of this step, and the keys of its noise.
  void gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire, const Stream& step);
  void update(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
              const std::vector<RunRows>& runs, const Stream& step);

 private:
  template <class T>
  using Part = Parcel::Part<T>;
  struct Groups {
    Part<char*> at;
    Part<uint32_t> slots;
    Part<uint64_t> ids;
  };

  void lay_out(const Ticket& ticket, const Stream& copies);
  void lay_out_groups(const Ticket& ticket, const Stream& copies);
  void fill(const Ticket& ticket);
  void add_groups(const Ticket& ticket, Copies& copies) const;
  void place_absent(const Ticket& ticket);
  size_t lent_bytes(const Ticket& ticket, size_t id) const;
  void send_lent(const Ticket& ticket, const Stream& step);
  GroupRows rows_of(const Groups& groups) const;

  const Device& device_;
  const DeviceTiles& tiles_;
  int threads_;
  std::vector<GatherPiece> replies_;
  UpdateWork work_;

  Parcel plan_;
  Part<char*> rows_at_;
  Part<int64_t> offsets_;
  Part<float> weights_;
  Part<char> absent_;
  Part<SegmentRows> segments_;
  Part<GatherPiece> reply_pieces_;
  Groups distinct_, grouped_;
  Part<uint32_t> first_;
  Part<Entry> entries_;
  Part<float> entry_weights_;
  Part<UpdatePiece> pieces_;
  Part<ChunkPiece> chunks_;

  Parcel lent_;  // rows that are not in the pad, which arrive between plan and gather
  std::vector<Part<char>> borrowed_;
  Parcel to_replies_, to_gradients_;  // what the step adds, where it is long
  DeviceMemory sums_, norms_;
  Event used_;  // the device has done what was asked of it last
};

}  // namespace ff
