// A pad in the memory of a GPU: the memory itself, and who touches the rows there.
//
// Kernels (device_rows.h) do what concerns rows; metadata lies in host memory, where plans look at
// it, and is moved here.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "device.h"
#include "mapping.h"
#include "row_memory.h"

namespace ff {

class DeviceRows;

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
  // `tiles` may be filled until the first row comes.
  DevicePad(const Device& device, const TileList& tiles, int threads);
  ~DevicePad() override;

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
  DeviceRows& rows();
  Meta* meta(const Fetch::Place& place) const;
  void touch(Ticket& ticket) const;

  const Device& device_;
  const TileList& tiles_;
  int threads_;
  std::mutex mutex_;  // of what follows, for those who move rows
  std::unique_ptr<DeviceRows> rows_;
};

}  // namespace ff
