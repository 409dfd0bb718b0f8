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

// Without memory to measure with, all go through buffers.
Crossover measured(const Device& device, int threads) try {
  return Crossover::measure(device, threads);
} catch (const std::exception&) {
  return {};
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
      threads_(threads),
      copies_(device),
      released_(device, Event::For::device),
      mover_(device, there_, released_, threads) {}

void DevicePad::open() { there_ = device_tiles(device_, tiles_); }

void DevicePad::follow(Pool& records) {
  records_ = std::make_unique<PinnedChunks>(device_, records);
}

InPlace DevicePad::in_place() const {
  InPlace now;
  if (records_) now.pinned_bytes = records_->bytes();
  if (records_) now.refusal = records_->refusal();
  now.rows = moved_in_place_;
  std::lock_guard<std::mutex> lock(crossover_mutex_);
  now.from = crossover_;
  return now;
}

void DevicePad::set_in_place(const Crossover& from) {
  std::lock_guard<std::mutex> lock(crossover_mutex_);
  crossover_ = from;
}

// Measured when so many rows move at once for the first time that it matters.
Crossover DevicePad::crossover(size_t rows) {
  std::lock_guard<std::mutex> lock(crossover_mutex_);
  if (!crossover_ && rows >= Crossover::ROWS) crossover_ = measured(device_, threads_);
  return crossover_.value_or(Crossover{});
}

// Without the metadata.
size_t DevicePad::record_bytes(const Fetch::Move& row) const {
  return tiles_[row.pad.tile]->layout().record_bytes() - sizeof(Meta);
}

// The rows, those first whose records are touched in place.
std::vector<Fetch::Move> DevicePad::divide(const std::vector<Fetch::Move>& rows,
                                           size_t Crossover::* from, size_t& in_place) {
  std::vector<Fetch::Move> divided(rows);
  in_place = 0;
  if (!records_ || records_->bytes() == 0) return divided;
  const size_t least = crossover(rows.size()).*from;
  const auto first_staged =
      std::partition(divided.begin(), divided.end(), [&](const Fetch::Move& row) {
        return record_bytes(row) >= least && records_->hold(row.host);
      });
  in_place = first_staged - divided.begin();
  moved_in_place_ += in_place;
  return divided;
}

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
  size_t in_place;
  const std::vector<Fetch::Move> divided = divide(rows, &Crossover::store, in_place);
  mover_.store(divided.data(), divided.size(), in_place);
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
  size_t in_place;
  const std::vector<Fetch::Move> divided = divide(rows, &Crossover::load, in_place);
  mover_.load(divided.data(), divided.size(), in_place);
}

void DevicePad::copy(const Fetch::Place& from, const Fetch::Place& to) {
  meta(to)->store(meta(from)->load());
  mover_.copy(from, to);
}

void DevicePad::prepare(Ticket& ticket) {
  if (!ticket.device) ticket.device = std::make_shared<DeviceTicket>(device_, there_, threads_);
  if (ticket.train && measures()) {
    const std::shared_ptr<Norms> norms = idle_norms();
    norms->expect(ticket, tiles_, *population_);
    ticket.late = norms;
  }
  ticket.device->send(ticket, copies_);
}

// Under the pad's mutex, as everything is that takes or drops one.
std::shared_ptr<Norms> DevicePad::idle_norms() {
  for (const auto& norms : norms_)
    if (norms.use_count() == 1) return norms;
  return norms_.emplace_back(std::make_shared<Norms>(device_, threads_));
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
  const std::vector<RunRows> runs = runs_of(ticket, addresses, wire, lr, step_number);
  step.wait(mover_.arrived());
  ticket.device->update(ticket, addresses, wire, runs, step);
  used(step);
  if (population_ != nullptr && !measures()) touch(ticket);
}

std::vector<RunRows> DevicePad::runs_of(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                                        float lr, uint64_t step_number) const {
  std::vector<RunRows> runs;
  uint64_t groups = 0;
  for (const Run& run : ticket.runs) {
    const TileSpec& spec = tiles_[run.tile]->spec();
    const bool aligned =
        spec.dim % 4 == 0 &&
        std::all_of(addresses + run.segment_begin, addresses + run.segment_end,
                    [&](uint64_t address) { return address % (4 * bytes_of(wire)) == 0; });
    RunRows rows{};  // no byte of what a kernel is given is left open
    rows.noise = noise_key(spec.seed, spec.table, step_number);
    rows.start = addresses[run.segment_begin];
    rows.norms = groups - run.group_begin;  // wraps around where that is below 0
    rows.optimizer = spec.optimizer.at(lr, step_number);
    rows.tile = run.tile;
    rows.first = static_cast<uint32_t>(run.group_begin);
    rows.distinct = run.distinct;
    rows.aligned = aligned;
    runs.push_back(rows);
    groups += run.group_end - run.group_begin;
  }
  return runs;
}

// What the batch says of its rows' worth, unless their gradients do.
void DevicePad::touch(Ticket& ticket) const {
  ticket.touches.resize(1);
  for (size_t r = 0; r < ticket.runs.size(); ++r) {
    const Run& run = ticket.runs[r];
    if (population_->reclaims(run.tile))
      population_->touch(ticket, {r, run.group_begin, run.group_end}, tiles_[run.tile]->view(),
                         nullptr, ticket.touches[0]);
  }
}

}  // namespace ff
