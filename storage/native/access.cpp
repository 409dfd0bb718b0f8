// Rows by id, for checkpoints, export and tests: not on the path of a step.
#include <algorithm>
#include <stdexcept>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

// Copies between a record and the parts of a row.
template <bool to_row>
void copy(const RowLayout& layout, const RowView& view, uint32_t slot, char* record) {
  const size_t weights = size_t{layout.dim} * bytes_of(layout.dtype);
  const size_t state = size_t{layout.dim} * 4 * layout.element_states;
  auto part = [&](char* row, size_t bytes) {
    if (to_row)
      memcpy(row, record, bytes);
    else
      memcpy(record, row, bytes);
    record += bytes;
  };
  part(view.weights(slot), weights);
  part(view.state(slot), state);
  part(view.row_state(slot), layout.row_state_stride);
  part(view.meta(slot), sizeof(Meta));
}

}  // namespace

size_t Pad::tile_rows(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tiles_.at(t)->rows();
}

size_t Pad::tile_bytes(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tiles_.at(t)->bytes();
}

size_t Pad::record_bytes(size_t t) const {
  const RowLayout& layout = tiles_.at(t)->layout();
  return size_t{layout.dim} * (bytes_of(layout.dtype) + 4 * layout.element_states) +
         layout.row_state_stride + sizeof(Meta);
}

std::vector<int64_t> Pad::positions(size_t t, const int64_t* ids, size_t n) const {
  const Tile& tile = *tiles_.at(t);
  std::vector<int64_t> positions(n);
  for (size_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || !tile.owns(static_cast<uint64_t>(ids[i])))
      throw std::invalid_argument(tile.spec().label() + ": id " + std::to_string(ids[i]) +
                                  " does not belong to this tile");
    positions[i] = tile.spec().dynamic() ? ids[i] : ids[i] / tile.spec().buckets;
  }
  return positions;
}

// Needs the mutex.
void Pad::find(size_t t, const std::vector<int64_t>& positions, uint32_t* slots) const {
  const Tile& tile = *tiles_[t];
  const size_t n = positions.size();
  if (!tile.spec().dynamic()) {
    for (size_t i = 0; i < n; ++i)
      slots[i] = tile.born(positions[i]) ? tile.slot_of(positions[i]) : Tile::NONE;
    return;
  }
  std::vector<uint64_t> keys(n);
  for (size_t i = 0; i < n; ++i) {
    const uint64_t id = static_cast<uint64_t>(positions[i]);
    if (!keys_[t].holds(id)) refuse_id(t, positions[i]);
    keys[i] = keys_[t].key(id);
  }
  index_[plane_[t]]->find(keys.data(), slots, n, threads_);
}

void Pad::read(size_t t, const int64_t* ids, size_t n, char* records, bool* found) const {
  const Tile& tile = *tiles_.at(t);
  const RowLayout& layout = tile.layout();
  const size_t bytes = record_bytes(t);
  std::vector<uint32_t> slots(n);
  std::lock_guard<std::mutex> lock(mutex_);
  find(t, positions(t, ids, n), slots.data());
  const RowView view = tile.view();
  for (size_t i = 0; i < n; ++i) {
    found[i] = slots[i] != Tile::NONE;
    if (found[i])
      copy<false>(layout, view, slots[i], records + i * bytes);
    else
      tile.bear_record(static_cast<uint64_t>(ids[i]), records + i * bytes);
  }
}

void Pad::write(size_t t, const int64_t* ids, size_t n, const char* records) {
  const std::vector<int64_t> at = positions(t, ids, n);
  const int64_t first[] = {0, static_cast<int64_t>(n)};
  const int32_t tile = static_cast<int32_t>(t);
  const bool no = false;
  Request request;
  request.segments = 1;
  request.num_ids = n;
  request.tile = &tile;
  request.ids = at.data();
  request.first = request.bags = first;
  request.pooled = request.replies = &no;
  const std::unique_ptr<Ticket> ticket = plan(request, true);
  const RowView view = tiles_[t]->view();
  for (size_t i = 0; i < n; ++i)
    copy<true>(tiles_[t]->layout(), view, ticket->slots[i],
               const_cast<char*>(records) + i * record_bytes(t));
  release(*ticket);
}

size_t Pad::erase(size_t t, const int64_t* ids, size_t n) {
  const std::vector<int64_t> at = positions(t, ids, n);
  std::lock_guard<std::mutex> lock(mutex_);
  Tile& tile = *tiles_[t];
  const size_t before = tile.rows();
  for (const int64_t position : at) {
    if (tile.spec().dynamic()) {
      if (!keys_[t].holds(static_cast<uint64_t>(position))) refuse_id(t, position);
      const uint64_t key = keys_[t].key(static_cast<uint64_t>(position));
      uint32_t slot = Tile::NONE;
      if (index_[plane_[t]]->erase(&key, 1, &slot) == 1) tile.drop_dynamic(slot);
    } else if (tile.born(position)) {
      tile.drop_static(position);
    }
  }
  return before - tile.rows();
}

std::vector<int64_t> Pad::ids(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const Tile& tile = *tiles_.at(t);
  std::vector<std::pair<uint32_t, int64_t>> found;
  found.reserve(tile.rows());
  if (tile.spec().dynamic()) {
    index_[plane_[t]]->for_each([&](uint64_t key, uint32_t slot) {
      if (keys_[t].owns(key)) found.emplace_back(slot, static_cast<int64_t>(keys_[t].id(key)));
    });
    std::sort(found.begin(), found.end());
  } else {
    for (uint64_t position = 0; position < tile.positions(); ++position)
      if (tile.born(position)) found.emplace_back(0, static_cast<int64_t>(tile.id_of(position)));
  }
  std::vector<int64_t> ids;
  ids.reserve(found.size());
  for (const auto& row : found) ids.push_back(row.second);
  return ids;
}

}  // namespace ff
