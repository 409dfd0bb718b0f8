// A pad in the memory of a GPU: the memory itself, and who touches the rows there.
//
// Planning stays on the host; what kernels need of a plan goes to the device ahead of the step.
// Metadata of rows lies in host memory, too, where plans look at it: kernels neither know it nor
// touch the last bytes of records, where it goes.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "crossover.h"
#include "device_ticket.h"
#include "mapping.h"
#include "norms.h"
#include "pinned_chunks.h"
#include "row_memory.h"
#include "row_mover.h"

namespace ff {

// So many bytes of a GPU, from a 2 MiB boundary on, and as much address space of the host, of which
// only pages with metadata take memory.
class DeviceSlab {
 public:
  // Throws BudgetError if the GPU does not have so much free.
  DeviceSlab(const Device& device, size_t bytes);

  char* data() const { return data_; }
  uint64_t meta_shift() const {
    return reinterpret_cast<uint64_t>(metadata_.data()) - reinterpret_cast<uint64_t>(data_);
  }

 private:
  DeviceMemory memory_;
  Mapping metadata_{false};
  char* data_ = nullptr;
};

class DevicePad : public RowMemory {
 public:
  // The device must outlive this and all tickets.
  DevicePad(const Device& device, const TileList& tiles, int threads);

  void open() override;
  void follow(Pool& records) override;
  InPlace in_place() const override;
  void set_in_place(const Crossover& from) override;
  void bear(const std::vector<Fetch::Birth>& births) override;
  void store(const std::vector<Fetch::Move>& rows) override;
  void load(const std::vector<Fetch::Move>& rows) override;
  void copy(const Fetch::Place& from, const Fetch::Place& to) override;
  void prepare(Ticket& ticket) override;
  void gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
              uint64_t stream) override;
  void update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr, uint64_t step,
              uint64_t stream) override;

 private:
  Meta* meta(const Fetch::Place& place) const;
  size_t record_bytes(const Fetch::Move& row) const;
  Crossover crossover(size_t rows);
  std::vector<Fetch::Move> divide(const std::vector<Fetch::Move>& rows, size_t Crossover::* from,
                                  size_t& in_place);
  void used(const Stream& step) const;
  std::vector<RunRows> runs_of(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                               float lr, uint64_t step) const;
  void touch(Ticket& ticket) const;
  bool measures() const { return population_ != nullptr && population_->by_gradient(); }
  std::shared_ptr<Norms> idle_norms();

  const Device& device_;
  const TileList& tiles_;
  int threads_;
  DeviceTiles there_;
  Stream copies_;
  Event released_;
  RowMover mover_;
  std::vector<std::shared_ptr<Norms>> norms_;  // those that nobody else has serve again

  std::unique_ptr<PinnedChunks> records_;  // none: all are out of the device's sight
  mutable std::mutex crossover_mutex_;
  std::optional<Crossover> crossover_;  // none: not known yet
  std::atomic<uint64_t> moved_in_place_ = 0;
};

}  // namespace ff
