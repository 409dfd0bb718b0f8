// The part of plan that finds the rows of a request, or makes them.
#include <algorithm>
#include <stdexcept>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

constexpr size_t BIRTHS_PER_THREAD = 64;
constexpr size_t IDS_PER_THREAD = 16384;

}  // namespace

// Slots for all ids. Whatever happens, rows that were counted as born are written.
void Pad::resolve(const Request& request, Ticket& ticket) {
  ticket.slots.resize(request.num_ids);
  ticket.missing = 0;
  newborns_.clear();
  try {
    for (const Run& run : ticket.runs)
      if (!tiles_[run.tile]->indexed()) resolve_static(run, request.ids, ticket);
    for (size_t plane = 0; plane < index_.size(); ++plane)
      resolve_dynamic(plane, request.ids, ticket);
  } catch (...) {
    bear_newborns();
    throw;
  }
  ticket.born = newborns_.size();
  bear_newborns();
  locate(ticket);
}

// Slots for all ids, or, when reading, copies of rows below the pad. False without room.
bool Pad::resolve_in_tiers(const Request& request, Ticket& ticket) {
  ticket.missing = ticket.born = 0;
  ticket.borrowed.clear();
  planes_.assign(std::max<size_t>(1, planes_.size()), {});
  for (const Run& run : ticket.runs) look_up(run, request.ids, planes_);
  if (!ticket.train) {
    tiers_->peek(ticket, planes_);
  } else {
    const Tiers::Room room = tiers_->enter(ticket, planes_);
    if (room == Tiers::Room::pad_full && tiers_->outstanding() == 0) refuse_batch(planes_);
    if (room != Tiers::Room::enough) return false;
  }
  ticket.slots.resize(request.num_ids);
  for (const Lookups& lookups : planes_)
    for (const Lookups::Part& part : lookups.parts)
      std::copy(lookups.slots.begin() + part.begin, lookups.slots.begin() + part.end,
                ticket.slots.begin() + part.first_id);
  locate(ticket);
  for (const auto& [id, record] : ticket.borrowed) ticket.rows_at[id] = record;
  return true;
}

// Adds the keys of a run to what is asked of its tile's plane.
void Pad::look_up(const Run& run, const int64_t* ids, std::vector<Lookups>& planes) const {
  const Tile& tile = *tiles_[run.tile];
  const KeyRange range = keys_[run.tile];
  if (planes.size() <= plane_[run.tile]) planes.resize(plane_[run.tile] + 1);
  Lookups& lookups = planes[plane_[run.tile]];
  const size_t begin = lookups.keys.size();
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t id = static_cast<uint64_t>(ids[i]);
    if (tile.spec().dynamic() ? !range.holds(id) : id >= tile.positions())
      refuse_id(run.tile, ids[i]);
    lookups.keys.push_back(range.key(id));
  }
  lookups.slots.resize(lookups.keys.size());
  lookups.parts.push_back({run.tile, run.id_begin, begin, lookups.keys.size()});
}

void Pad::refuse_batch(const std::vector<Lookups>& planes) const {
  size_t ids = 0;
  for (const Lookups& lookups : planes) ids += lookups.keys.size();
  const size_t needed = tiers_->needed_bytes(planes);
  throw BudgetError("a batch asks this rank for rows of " + std::to_string(ids) +
                    " ids, which need " + bytes_text(needed) +
                    " in the pad, but storage.pad_bytes is " + bytes_text(pool_->budget()) +
                    "; raise it to that at least (and as much again for every batch to prepare "
                    "ahead), lower train.batch_size, or add embedding ranks");
}

// Where the rows lie. They stay there until the ticket is released.
void Pad::locate(Ticket& ticket) const {
  ticket.rows_at.resize(ticket.slots.size());
  for (const Run& run : ticket.runs) {
    const RowView view = tiles_[run.tile]->view();
    const size_t ids = run.id_end - run.id_begin;
    parallel_for(threads_, ids, IDS_PER_THREAD, [&](size_t begin, size_t end, int) {
      for (size_t i = run.id_begin + begin; i < run.id_begin + end; ++i) {
        const uint32_t slot = ticket.slots[i];
        ticket.rows_at[i] = slot == Tile::NONE ? nullptr : view.weights(slot);
      }
    });
  }
}

void Pad::resolve_static(const Run& run, const int64_t* positions, Ticket& ticket) {
  Tile& tile = *tiles_[run.tile];
  const uint64_t rows = tile.positions();
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t position = static_cast<uint64_t>(positions[i]);
    if (position >= rows) refuse_id(run.tile, positions[i]);
    ticket.slots[i] = tile.slot_of(position);
  }
  if (tile.complete()) return;
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t position = static_cast<uint64_t>(positions[i]);
    if (tile.born(position)) continue;
    if (!ticket.train) {
      ticket.slots[i] = Tile::NONE;
      ++ticket.missing;
      continue;
    }
    tile.claim(position, ticket.slots[i]);
    newborns_.push_back({run.tile, ticket.slots[i], tile.id_of(position)});
  }
}

void Pad::resolve_dynamic(size_t plane, const int64_t* ids, Ticket& ticket) {
  auto here = [&](const Run& run) {
    return tiles_[run.tile]->indexed() && plane_[run.tile] == plane;
  };
  lookup_keys_.clear();
  for (const Run& run : ticket.runs) {
    if (!here(run)) continue;
    const KeyRange range = keys_[run.tile];
    for (size_t i = run.id_begin; i < run.id_end; ++i) {
      if (!range.holds(static_cast<uint64_t>(ids[i]))) refuse_id(run.tile, ids[i]);
      lookup_keys_.push_back(range.key(static_cast<uint64_t>(ids[i])));
    }
  }
  lookup_slots_.resize(lookup_keys_.size());
  if (ticket.train) {
    // New keys come in the order of the batch, so the run they belong to only moves forward.
    auto run = std::find_if(ticket.runs.begin(), ticket.runs.end(), here);
    size_t run_begin = 0;
    auto new_slot = [&](size_t at) {
      while (at - run_begin >= run->id_end - run->id_begin) {
        run_begin += run->id_end - run->id_begin;
        run = std::find_if(run + 1, ticket.runs.end(), here);
      }
      const uint32_t slot = tiles_[run->tile]->shelf().take(true);
      tiles_[run->tile]->count(+1);
      newborns_.push_back({run->tile, slot, keys_[run->tile].id(lookup_keys_[at])});
      return slot;
    };
    index_[plane]->find_or_insert(lookup_keys_.data(), lookup_slots_.data(), lookup_keys_.size(),
                                  new_slot, threads_);
  } else {
    index_[plane]->find(lookup_keys_.data(), lookup_slots_.data(), lookup_keys_.size(), threads_);
    ticket.missing += std::count(lookup_slots_.begin(), lookup_slots_.end(), Tile::NONE);
  }
  size_t at = 0;
  for (const Run& run : ticket.runs) {
    if (!here(run)) continue;
    const size_t n = run.id_end - run.id_begin;
    std::copy_n(lookup_slots_.begin() + at, n, ticket.slots.begin() + run.id_begin);
    at += n;
  }
}

void Pad::bear_newborns() {
  parallel_for(threads_, newborns_.size(), BIRTHS_PER_THREAD, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      const auto& [tile, slot, id] = newborns_[i];
      tiles_[tile]->bear(id, tiles_[tile]->view().weights(slot), slot);
    }
  });
  newborns_.clear();
}

void Pad::refuse_id(size_t t, int64_t id) const {
  const Tile& tile = *tiles_[t];
  const TileSpec& spec = tile.spec();
  if (spec.dynamic())
    throw std::invalid_argument(spec.label() + ": id " + std::to_string(id) + " is outside [0, 2^" +
                                std::to_string(keys_[t].bits) +
                                "), what its keys leave for ids; use smaller ids or set hash_ids");
  throw std::invalid_argument(spec.label() + ": row position " + std::to_string(id) +
                              " is outside [0, " + std::to_string(tile.positions()) +
                              "); the table has ids in [0, " + std::to_string(spec.rows) + ")");
}

}  // namespace ff
