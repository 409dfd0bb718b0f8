#include "device_pad.h"

#include <algorithm>
#include <cstring>

#include "errors.h"

namespace ff {
namespace {

TileRows tile_rows(const Tile& tile) {
  const TileSpec& spec = tile.spec();
  TileRows rows{};
  rows.rows = tile.view();
  rows.rows.blocks = nullptr;
  rows.table_key = table_key(spec.seed, spec.table);
  rows.dim = spec.dim;
  rows.column = spec.column;
  rows.init_scale = spec.init.scale;
  rows.initial = spec.optimizer.initial;
  rows.dtype = spec.dtype;
  rows.init = spec.init.kind;
  rows.element_states = static_cast<uint8_t>(spec.optimizer.element_states());
  rows.row_states = static_cast<uint8_t>(spec.optimizer.row_states());
  return rows;
}

DeviceTiles device_tiles(const Device& device, const TileList& tiles) {
  DeviceTiles there;
  size_t longest = 0;
  for (const auto& tile : tiles) {
    there.rows.push_back(tile_rows(*tile));
    longest = std::max<size_t>(longest, tile->layout().weight_stride);
  }
  const size_t bytes = there.rows.size() * sizeof(TileRows);
  there.memory = DeviceMemory(device, bytes);
  there.zeros = DeviceMemory(device, longest);
  const Stream stream(device);
  stream.copy_in(there.memory.data(), there.rows.data(), bytes);
  stream.fill(there.zeros.data(), 0, longest);
  stream.synchronize();
  return there;
}

}  // namespace

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
    : device_(device),
      tiles_(tiles),
      copies_(device),
      released_(device),
      mover_(device, there_, released_, threads) {}

void DevicePad::open() { there_ = device_tiles(device_, tiles_); }

Meta* DevicePad::meta(const Fetch::Place& place) const {
  return tiles_[place.tile]->view().meta(place.weights, place.slot);
}

void DevicePad::bear(const std::vector<Fetch::Birth>& births) {
  if (births.empty()) return;
  for (const Fetch::Birth& birth : births) meta(birth.pad)->store({birth.time, 0});
  mover_.bear(births.data(), births.size());
}

void DevicePad::store(const std::vector<Fetch::Move>& rows) {
  if (rows.empty()) return;
  mover_.store(rows.data(), rows.size(), false);
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
  mover_.load(rows.data(), rows.size(), false);
}

void DevicePad::copy(const Fetch::Place& from, const Fetch::Place& to) {
  meta(to)->store(meta(from)->load());
  mover_.copy(from, to);
}

void DevicePad::prepare(Ticket& ticket) {
  if (!ticket.device) ticket.device = std::make_shared<DeviceTicket>(device_, there_);
  ticket.device->send(ticket, copies_);
}

// The moment after which rows of released tickets are final: what moves rows waits for it.
void DevicePad::used(const Stream& step) const {
  step.wait(released_);  // of another stream, perhaps
  released_.record(step);
}

void DevicePad::gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                       uint64_t stream) {
  const Stream step(device_, stream);
  step.wait(mover_.arrived());
  ticket.device->gather(ticket, addresses, wire, step);
  used(step);
}

void DevicePad::update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr,
                       uint64_t step_number, uint64_t stream) {
  const Stream step(device_, stream);
  const bool measure = population_ != nullptr && population_->by_gradient();
  const std::vector<RunRows> runs = runs_of(ticket, addresses, wire, lr, step_number);
  step.wait(mover_.arrived());
  ticket.device->update(ticket, addresses, wire, runs, measure, step);
  used(step);
  if (population_ != nullptr) touch(ticket);
}

std::vector<RunRows> DevicePad::runs_of(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                                        float lr, uint64_t step_number) const {
  std::vector<RunRows> runs;
  uint64_t groups = 0;
  for (const Run& run : ticket.runs) {
    const TileSpec& spec = tiles_[run.tile]->spec();
    const size_t row = size_t{spec.dim} * bytes_of(wire);
    const bool aligned =
        spec.dim % 4 == 0 &&
        std::all_of(addresses + run.segment_begin, addresses + run.segment_end,
                    [&](uint64_t address) { return address % (4 * bytes_of(wire)) == 0; });
    // Where group 0 would be: wraps around where that is below 0.
    runs.push_back({noise_key(spec.seed, spec.table, step_number),
                    addresses[run.segment_begin] - run.group_begin * row, groups - run.group_begin,
                    spec.optimizer.at(lr, step_number), run.tile, run.distinct, aligned});
    groups += run.group_end - run.group_begin;
  }
  return runs;
}

// What the batch says of its rows' worth.
void DevicePad::touch(Ticket& ticket) const {
  const float* norms = population_->by_gradient() ? ticket.device->norms() : nullptr;
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
