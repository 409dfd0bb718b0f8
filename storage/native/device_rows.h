// The rows of a pad that lie in a GPU's memory: what the loops of gather.cpp, update.cpp, tile.cpp
// and record.h do there. Planning stays on the host; what kernels need of a plan goes to the device
// ahead of the step.
//
// Metadata of rows is the host's: it is neither born nor moved here, and the last bytes of records
// (sizeof(Meta)) are left alone.
#pragma once

#include <memory>
#include <vector>

#include "device_ticket.h"
#include "row_mover.h"
#include "tile.h"

namespace ff {

class DeviceRows {
 public:
  using Copy = RowMover::Copy;

  // The tiles must stay as they are, and the device must outlive this and all tickets.
  DeviceRows(const Device& device, const std::vector<std::unique_ptr<Tile>>& tiles, int threads);

  // What the kernels need of a planned ticket, on its way to the device: from pinned memory on a
  // stream of its own. Called at the end of planning, by one thread at a time; ticket.device holds
  // it and is used again with the ticket. Where ticket.slots says NONE, ticket.rows_at says what is
  // read: a row in ticket.absent, one in ticket.lent (sent at gather(), when it is there), or else
  // zeros. All other addresses are the device's.
  void upload(Ticket& ticket);

  // As Pad's, on the step's stream (torch's current one). addresses (S,) are the device's; they are
  // read at once. Enqueued, not awaited.
  void gather(const Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire,
              const Stream& step);
  // measure: whether norms() will be asked for.
  void update(const Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire,
              float lr, uint64_t step_number, const Stream& step, bool measure = false);
  // What the update says of its rows' gradients, as Pad::touch_rows counts them: a float for each
  // group of each run, run after run. Waits for the update.
  const float* norms(const Ticket& ticket) const;

  // The moment after which rows of released tickets are final: what moves rows waits for it.
  void released(const Stream& step);

  // Rows that come, leave or move, on a stream of their own; they return when it is done. Any
  // thread, one at a time. pinned: records lie in memory that the device can follow (PinnedMemory).
  void bear(const Fetch::Birth* births, size_t n);
  void store(const Fetch::Move* moves, size_t n, bool pinned = false);  // rows to records
  void load(const Fetch::Move* moves, size_t n, bool pinned = false);   // records to rows
  void copy(const Copy* copies, size_t n);                              // rows to rows

 private:
  const Device& device_;
  const std::vector<std::unique_ptr<Tile>>& tile_list_;
  DeviceTiles tiles_;
  Stream copies_;
  Event released_;
  RowMover mover_;
};

}  // namespace ff
