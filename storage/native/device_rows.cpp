#include "device_rows.h"

#include <algorithm>

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

DeviceTiles device_tiles(const Device& device, const std::vector<std::unique_ptr<Tile>>& tiles) {
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

DeviceRows::DeviceRows(const Device& device, const std::vector<std::unique_ptr<Tile>>& tiles,
                       int threads)
    : device_(device),
      tile_list_(tiles),
      tiles_(device_tiles(device, tiles)),
      copies_(device),
      released_(device),
      mover_(device, tiles_, released_, threads) {}

void DeviceRows::upload(Ticket& ticket) {
  if (!ticket.device) ticket.device = std::make_shared<DeviceTicket>(device_, tiles_);
  ticket.device->send(ticket, copies_);
}

void DeviceRows::gather(const Ticket& ticket, const uint64_t* addresses, size_t, Dtype wire,
                        const Stream& step) {
  ticket.device->gather(ticket, addresses, wire, step);
}

void DeviceRows::update(const Ticket& ticket, const uint64_t* addresses, size_t, Dtype wire,
                        float lr, uint64_t step_number, const Stream& step, bool measure) {
  std::vector<RunRows> runs;
  uint64_t groups = 0;
  for (const Run& run : ticket.runs) {
    const TileSpec& spec = tile_list_[run.tile]->spec();
    const size_t row = size_t{spec.dim} * bytes_of(wire);
    const GroupRange range = groups_of(run);
    const bool aligned =
        spec.dim % 4 == 0 &&
        std::all_of(addresses + run.segment_begin, addresses + run.segment_end,
                    [&](uint64_t address) { return address % (4 * bytes_of(wire)) == 0; });
    // Where group 0 would be: wraps around where that is below 0.
    runs.push_back({noise_key(spec.seed, spec.table, step_number),
                    addresses[run.segment_begin] - range.begin * row, groups - range.begin,
                    spec.optimizer.at(lr, step_number), run.tile, run.distinct, aligned});
    groups += range.end - range.begin;
  }
  ticket.device->update(ticket, addresses, wire, runs, measure, step);
}

const float* DeviceRows::norms(const Ticket& ticket) const { return ticket.device->norms(); }

void DeviceRows::released(const Stream& step) {
  step.wait(released_);  // of another stream, perhaps
  released_.record(step);
}

void DeviceRows::bear(const Fetch::Birth* births, size_t n) { mover_.bear(births, n); }

void DeviceRows::store(const Fetch::Move* moves, size_t n, bool pinned) {
  mover_.store(moves, n, pinned);
}

void DeviceRows::load(const Fetch::Move* moves, size_t n, bool pinned) {
  mover_.load(moves, n, pinned);
}

void DeviceRows::copy(const Copy* copies, size_t n) { mover_.copy(copies, n); }

}  // namespace ff
