#include "device_pad.h"

#include <cstring>

#include "device_rows.h"
#include "errors.h"

namespace ff {

DeviceSlab::DeviceSlab(const Device& device, size_t bytes) {
  if (bytes == Pool::UNLIMITED)
    throw std::invalid_argument(
        "Pad: rows on a GPU need a budget, which is taken at once: set storage.pad_bytes");
  auto misaligned = [&] { return reinterpret_cast<uint64_t>(memory_.data()) % Pool::LARGEST; };
  try {
    memory_ = DeviceMemory(device, bytes);
    if (misaligned() != 0) {
      memory_ = DeviceMemory();
      memory_ = DeviceMemory(device, bytes + Pool::LARGEST);
    }
  } catch (const DeviceError& error) {
    throw BudgetError("storage.pad_bytes is " + bytes_text(bytes) + ", and GPU " +
                      std::to_string(device.ordinal()) + " does not give that much: " +
                      error.what() + "; lower it, or end what else uses that GPU");
  }
  data_ = memory_.data() + (Pool::LARGEST - misaligned()) % Pool::LARGEST;
  metadata_.grow(bytes);
}

DevicePad::DevicePad(const Device& device, const TileList& tiles, int threads)
    : device_(device), tiles_(tiles), threads_(threads) {}

DevicePad::~DevicePad() = default;

DeviceRows& DevicePad::rows() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!rows_) rows_ = std::make_unique<DeviceRows>(device_, tiles_, threads_);
  return *rows_;
}

Meta* DevicePad::meta(const Fetch::Place& place) const {
  return tiles_[place.tile]->view().meta(place.weights, place.slot);
}

void DevicePad::bear(const std::vector<Fetch::Birth>& births) {
  if (births.empty()) return;
  for (const Fetch::Birth& birth : births) meta(birth.pad)->store({birth.time, 0});
  rows().bear(births.data(), births.size());
}

void DevicePad::store(const std::vector<Fetch::Move>& rows) {
  if (rows.empty()) return;
  this->rows().store(rows.data(), rows.size());
  for (const Fetch::Move& row : rows) {
    const Meta from = meta(row.pad)->load();
    const size_t bytes = tiles_[row.pad.tile]->layout().record_bytes();
    memcpy(row.host + bytes - sizeof from, &from, sizeof from);
  }
}

void DevicePad::load(const std::vector<Fetch::Move>& rows) {
  if (rows.empty()) return;
  for (const Fetch::Move& row : rows) {
    Meta to;
    const size_t bytes = tiles_[row.pad.tile]->layout().record_bytes();
    memcpy(&to, row.host + bytes - sizeof to, sizeof to);
    meta(row.pad)->store(to);
  }
  this->rows().load(rows.data(), rows.size());
}

void DevicePad::copy(const Fetch::Place& from, const Fetch::Place& to) {
  meta(to)->store(meta(from)->load());
  const DeviceRows::Copy row{from, to};
  rows().copy(&row, 1);
}

void DevicePad::prepare(Ticket& ticket) { rows().upload(ticket); }

void DevicePad::gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                       uint64_t stream) {
  const Stream step(device_, stream);
  rows().gather(ticket, addresses, ticket.segments.size(), wire, step);
  rows().released(step);
}

void DevicePad::update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr,
                       uint64_t step_number, uint64_t stream) {
  const Stream step(device_, stream);
  const bool measure = population_ != nullptr && population_->by_gradient();
  rows().update(ticket, addresses, ticket.segments.size(), wire, lr, step_number, step, measure);
  rows().released(step);
  if (population_ != nullptr) touch(ticket);
}

// What the batch says of its rows' worth.
void DevicePad::touch(Ticket& ticket) const {
  const float* norms = population_->by_gradient() ? rows_->norms(ticket) : nullptr;
  ticket.touches.resize(1);
  for (size_t r = 0; r < ticket.runs.size(); ++r) {
    const Run& run = ticket.runs[r];
    if (population_->reclaims(run.tile))
      population_->touch(ticket, {r, run.group_begin, run.group_end}, tiles_[run.tile]->view(),
                         norms, ticket.touches[0]);
    if (norms != nullptr) norms += run.group_end - run.group_begin;
  }
}

}  // namespace ff
