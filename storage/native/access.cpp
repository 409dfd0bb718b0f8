// Rows by id, for checkpoints, export and tests: not on the path of a step.
#include <algorithm>
#include <stdexcept>

#include "pad.h"

namespace ff {

size_t Pad::tile_rows(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tiles_.at(t)->rows();
}

size_t Pad::tile_bytes(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tiles_.at(t)->bytes();
}

Population::Counts Pad::tile_counts(size_t t) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return population_ ? population_->counts(t) : Population::Counts{};
}

size_t Pad::record_bytes(size_t t) const { return tiles_.at(t)->layout().record_bytes(); }

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

Fetch::Place Pad::place(uint32_t t, uint32_t slot) const {
  return {t, slot, tiles_[t]->view().weights(slot)};
}

// Needs the mutex; rows without tiers below.
void Pad::find(size_t t, const std::vector<int64_t>& positions, uint32_t* slots) const {
  const Tile& tile = *tiles_[t];
  const size_t n = positions.size();
  if (!tile.indexed()) {
    for (size_t i = 0; i < n; ++i)
      slots[i] = tile.born(positions[i]) ? tile.slot_of(positions[i]) : Tile::NONE;
    return;
  }
  std::vector<uint64_t> keys;
  for (const RowRef& row : refs(t, positions, nullptr)) keys.push_back(row.key);
  index_[plane_[t]]->find(keys.data(), slots, n, threads_);
  if (!population_ || !population_->reclaims(t)) return;
  const RowView view = tile.view();
  for (size_t i = 0; i < n; ++i)
    if (slots[i] != Tile::NONE && population_->gone(t, keys[i], view.meta(slots[i])->load()))
      slots[i] = Tile::NONE;
}

std::vector<RowRef> Pad::refs(size_t t, const std::vector<int64_t>& positions,
                              char* records) const {
  std::vector<RowRef> rows;
  const size_t bytes = records != nullptr ? record_bytes(t) : 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    const uint64_t id = static_cast<uint64_t>(positions[i]);
    if (!keys_[t].holds(id)) refuse_id(t, positions[i]);
    rows.push_back({static_cast<uint32_t>(t), keys_[t].key(id), records + i * bytes});
  }
  return rows;
}

// The mutex, at a moment when every row is where the plans say.
std::unique_lock<std::mutex> Pad::settled() const {
  std::unique_lock<std::mutex> lock(mutex_);
  while (tiers_ && !tiers_->settled()) {
    lock.unlock();
    tiers_->settle();
    lock.lock();
  }
  if (tiers_) tiers_->check();
  if (population_) population_->settle();
  return lock;
}

void Pad::read(size_t t, const int64_t* ids, size_t n, char* records, bool* found) const {
  const Tile& tile = *tiles_.at(t);
  const size_t bytes = record_bytes(t);
  const std::vector<int64_t> at = positions(t, ids, n);
  const auto lock = settled();
  if (tiers_) {
    tiers_->read(refs(t, at, records).data(), n, found);
    for (size_t i = 0; i < n && population_ && population_->reclaims(t); ++i)
      if (found[i]) found[i] = !record_is_gone(t, at[i], records + i * bytes);
  } else {
    std::vector<uint32_t> slots(n);
    find(t, at, slots.data());
    std::vector<Fetch::Move> here;
    for (size_t i = 0; i < n; ++i)
      if ((found[i] = slots[i] != Tile::NONE))
        here.push_back({place(static_cast<uint32_t>(t), slots[i]), records + i * bytes});
    rows_->store(here);
  }
  for (size_t i = 0; i < n; ++i)
    if (!found[i]) tile.bear_record(static_cast<uint64_t>(ids[i]), records + i * bytes);
}

// Whether a row counts as gone, by what its record says of it.
bool Pad::record_is_gone(size_t t, int64_t position, const char* record) const {
  Meta meta;
  memcpy(&meta, record + record_bytes(t) - sizeof meta, sizeof meta);
  const uint64_t key = keys_[t].key(static_cast<uint64_t>(position));
  return population_->gone(t, key, meta);
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
  const std::unique_ptr<Ticket> ticket = plan(request, true, false);
  wait(*ticket);
  write_rows(t, *ticket, records);
  release(*ticket);
}

// What trained batches have done to the rows counts before they are written.
void Pad::write_rows(size_t t, const Ticket& ticket, const char* records) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (population_) population_->settle();
  const size_t n = ticket.slots.size();
  const RowView view = tiles_[t]->view();
  std::vector<Fetch::Move> rows;
  std::vector<Meta> before;
  for (size_t i = 0; i < n; ++i) {
    const Fetch::Place at{static_cast<uint32_t>(t), ticket.slots[i], ticket.rows_at[i]};
    rows.push_back({at, const_cast<char*>(records) + i * record_bytes(t)});
    before.push_back(view.meta(at.weights, at.slot)->load());
  }
  rows_->load(rows);
  for (size_t i = 0; i < n && population_; ++i) {
    Meta& meta = *view.meta(rows[i].pad.weights, rows[i].pad.slot);
    meta.store(population_->write(t, before[i], meta.load()));
  }
}

size_t Pad::erase(size_t t, const int64_t* ids, size_t n) {
  const std::vector<int64_t> at = positions(t, ids, n);
  const auto lock = settled();
  if (tiers_) return tiers_->erase(refs(t, at, nullptr).data(), n);
  Tile& tile = *tiles_[t];
  const size_t before = tile.rows();
  if (!tile.indexed()) {
    for (const int64_t position : at)
      if (tile.born(position)) tile.drop(position);
    return before - tile.rows();
  }
  for (const RowRef& row : refs(t, at, nullptr)) {
    uint32_t slot = Tile::NONE;
    if (index_[plane_[t]]->erase(&row.key, 1, &slot) == 0) continue;
    if (population_) population_->erase(t, *tile.view().meta(slot));
    tile.shelf().give(slot);
    tile.count(-1);
  }
  return before - tile.rows();
}

std::vector<int64_t> Pad::ids(size_t t) const {
  const auto lock = settled();
  const Tile& tile = *tiles_.at(t);
  std::vector<int64_t> ids;
  if (tiers_) {
    for (const uint64_t key : tiers_->keys(t))
      ids.push_back(static_cast<int64_t>(tile.id_of(keys_[t].id(key))));
  } else if (tile.indexed()) {
    std::vector<std::pair<uint32_t, int64_t>> found;
    found.reserve(tile.rows());
    index_[plane_[t]]->for_each([&](uint64_t key, uint32_t slot) {
      if (!keys_[t].owns(key)) return;
      if (population_ && population_->reclaims(t) &&
          population_->gone(t, key, tile.view().meta(slot)->load()))
        return;
      found.emplace_back(slot, static_cast<int64_t>(keys_[t].id(key)));
    });
    std::sort(found.begin(), found.end());
    for (const auto& row : found) ids.push_back(row.second);
  } else {
    for (uint64_t position = 0; position < tile.positions(); ++position)
      if (tile.born(position)) ids.push_back(static_cast<int64_t>(tile.id_of(position)));
  }
  return ids;
}

// For callers that release what they hold before they plan.
std::unique_ptr<Ticket> Pad::plan(const Request& request, bool train) {
  return plan(request, train, train);
}

std::unique_ptr<Ticket> Pad::plan(const Request& request, bool train, bool counts) {
  for (;;) {
    std::unique_ptr<Ticket> ticket = make_plan(request, train, counts);
    if (ticket) return ticket;
    if (tiers_->waits_for_release())
      throw BudgetError(
          "the pad has no room for this batch beside those planned and not released; release a "
          "ticket first, or raise storage.pad_bytes");
    wait_for_room(1.0);
  }
}

}  // namespace ff
