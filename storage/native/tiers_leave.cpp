// The part of Tiers that finds slots for rows that come: free ones, or those of rows that leave.
#include <algorithm>

#include "tiers.h"

namespace ff {

// Slots for the missing rows, in their order; throws NoRoom.
void Tiers::take_slots(Fetch& fetch) {
  auto choose = [&] {
    for (; placed_ < missing_.size(); ++placed_)
      missing_[placed_].slot = slot_for(missing_[placed_].tile, fetch);
  };
  evict_after(choose, fetch);
  occupy_slots();
}

uint32_t Tiers::slot_for(uint32_t tile, Fetch& fetch) {
  Residents& residents = residents_of(tile);
  uint32_t slot = Shelf::NONE;
  if (residents.shelf().has_room() || !no_blocks_) slot = residents.shelf().take();
  if (slot != Shelf::NONE) return slot;
  no_blocks_ = true;
  slot = residents.victim(held_from(), planned_ + 1);
  if (slot != Shelf::NONE) {
    let_go(residents, slot);
    return slot;
  }
  evict(fetch);
  occupy_slots();
  for (size_t s = 0; s < shelves_.size(); ++s) {
    if (s == shelf_of_tile_[tile]) continue;
    for (const uint32_t block : residents_[s].idle_blocks(held_from())) {
      clear_block(s, block, fetch);
      if ((slot = residents.shelf().take()) != Shelf::NONE) return slot;
    }
  }
  throw NoRoom{Room::pad_full, shelf_of_tile_[tile]};
}

// Those that have a slot live there from now on.
void Tiers::occupy_slots() {
  for (; entered_ < placed_; ++entered_) {
    const Missing& row = missing_[entered_];
    residents_of(row.tile).enter(row.slot, row.tile, row.key, ticket_);
  }
}

// The row at the slot, which stays taken, will be evicted, or has been reclaimed.
void Tiers::let_go(Residents& from, uint32_t slot) {
  const Resident row = from.at(slot);
  if (population_ != nullptr && population_->reclaims(row.tile)) {
    population_->settle_row(from.used(slot));
    const Meta meta = *from.shelf().view().meta(slot);
    if (population_->gone(row.tile, row.key, meta)) {
      population_->bury(row.tile, meta);
      tiles_[row.tile]->count(-1);
      index_of(row.tile).erase(&row.key, 1);
      from.leave(slot);
      return;
    }
    note_below(row.tile, row.key, meta);
  }
  Leaving& leaving = leaving_[plane_[row.tile]];
  leaving.rows.push_back({row.tile, slot, from.used(slot), from.wanted(slot)});
  leaving.keys.push_back(row.key);
  leaving.host.push_back(HostTier::NONE);
  from.leave(slot);
}

// Evicts whom choose() lets go, even if it throws.
template <class Choose>
void Tiers::evict_after(Choose&& choose, Fetch& fetch) {
  try {
    choose();
  } catch (...) {
    evict(fetch);
    throw;
  }
  evict(fetch);
}

// Sends the rows that leave to the host tier. If it throws, those that found no room are back.
void Tiers::evict(Fetch& fetch) {
  std::exception_ptr error;
  for (size_t plane = 0; plane < leaving_.size(); ++plane) {
    try {
      if (!error) evict(plane, fetch);
    } catch (...) {
      error = std::current_exception();
    }
    put_back(leaving_[plane]);
  }
  if (error) std::rethrow_exception(error);
}

void Tiers::evict(size_t plane, Fetch& fetch) {
  Leaving& leaving = leaving_[plane];
  size_t& left = leaving.left;
  const size_t rows = leaving.host.size() - left;
  if (rows == 0) return;
  const uint32_t number = static_cast<uint32_t>(fetcher_->pushed() + 1);
  fetch.down.reserve(rows);
  std::exception_ptr error;
  try {
    host_.admit(leaving.keys.data() + left, leaving.host.data() + left, rows, number,
                [&, first = left](size_t i) { return leaving.rows[first + i].tile; });
  } catch (...) {
    error = std::current_exception();
  }
  for (; left < leaving.host.size() && leaving.host[left] != HostTier::NONE; ++left) {
    const Leaving::Row& row = leaving.rows[left];
    fetch.down.push_back({place(row.tile, row.slot), host_.record(row.tile, leaving.host[left])});
    traffic_.host_written_bytes += host_.record_bytes(row.tile);
  }
  start(std::move(fetch));
  fetch = {};
  if (error) std::rethrow_exception(error);
  if (left < leaving.host.size()) throw NoRoom{Room::host_full, 0};
}

// Rows that were to leave and have not stay: the index has them still.
void Tiers::put_back(Leaving& leaving) {
  leaving.rows.resize(leaving.host.size());  // that of one row may have failed to grow
  leaving.keys.resize(leaving.host.size());
  for (; leaving.rows.size() > leaving.left; leaving.rows.pop_back(), leaving.keys.pop_back()) {
    const Leaving::Row& row = leaving.rows.back();
    const uint64_t key = leaving.keys.back();
    Residents& residents = residents_of(row.tile);
    residents.enter(row.slot, row.tile, key, row.used);
    residents.wanted(row.slot) = row.wanted;
    if (population_ != nullptr && population_->reclaims(row.tile)) forget_below(row.tile, key);
  }
  leaving.host.resize(leaving.left);
}

// The keys of rows that have left are the host tier's.
void Tiers::forget_left() {
  or_fail([&] {
    for (size_t plane = 0; plane < leaving_.size(); ++plane) {
      Leaving& leaving = leaving_[plane];
      index_[plane]->erase(leaving.keys.data(), leaving.left);
      host_.remember(plane, leaving.keys.data(), leaving.host.data(), leaving.left);
      for (size_t i = 0; i < leaving.left; ++i)
        if (const Leaving::Row& row = leaving.rows[i]; row.wanted > planned_)
          want_later(row.tile, leaving.keys[i], row.wanted);
      leaving.clear();
    }
  });
}

// Gives a block back to the pool.
void Tiers::clear_block(size_t shelf, uint32_t block, Fetch& fetch) {
  const RowLayout& layout = shelves_[shelf]->layout();
  Residents& residents = residents_[shelf];
  no_blocks_ = false;
  std::vector<uint32_t> slots;
  auto choose = [&] {
    for (uint32_t row = 0; row < layout.rows; ++row) {
      const uint32_t slot = block << layout.shift | row;
      if (residents.vacant(slot)) continue;
      slots.push_back(slot);
      let_go(residents, slot);
    }
  };
  auto give = [&] {
    forget_left();
    for (const uint32_t slot : slots)
      if (residents.vacant(slot)) shelves_[shelf]->give(slot);
  };
  try {
    evict_after(choose, fetch);
  } catch (...) {
    give();
    throw;
  }
  give();
}

// When no ticket is out, any row can leave, even one that the batch wants: it comes back where
// there is room. First the other shelves give half of their blocks, then all give everything.
Tiers::Room Tiers::give_way(size_t for_shelf, int attempt, Fetch& fetch) try {
  for (size_t s = 0; s < shelves_.size(); ++s) {
    if (attempt == 0 && s == for_shelf) continue;
    std::vector<uint32_t> blocks = residents_[s].idle_blocks(ticket_ + 1);
    if (attempt == 0) blocks.resize((blocks.size() + 1) / 2);
    for (const uint32_t block : blocks) clear_block(s, block, fetch);
  }
  return Room::enough;
} catch (const NoRoom& no) {
  return no.reason;
} catch (...) {
  start(std::move(fetch));  // for those that have left
  throw;
}

// The missing rows are where they were, and the slots that were found for them free again, but for
// those whose rows are back.
void Tiers::undo() {
  forget_left();
  or_fail([&] {
    for (size_t i = 0; i < located_; ++i) {
      const Missing& row = missing_[i];
      if (row.host != HostTier::NONE && host_.holds(row.tile, row.key, row.host))
        host_.remember(plane_[row.tile], &row.key, &row.host, 1);
    }
  });
  for (size_t i = 0; i < placed_; ++i) {
    const Missing& row = missing_[i];
    Residents& residents = residents_of(row.tile);
    if (i < entered_) residents.leave(row.slot);
    if (residents.vacant(row.slot)) residents.shelf().give(row.slot);
  }
  placed_ = entered_ = located_ = 0;
}

}  // namespace ff
