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

// Slots for all ids, for a batch that `counts` as training. Whatever happens, rows that were
// counted as born are written.
void Pad::resolve(const Request& request, Ticket& ticket, bool counts) {
  ticket.slots.resize(request.num_ids);
  ticket.missing = 0;
  newborns_.clear();
  begin_lookups(index_.size());
  try {
    for (const Run& run : ticket.runs)
      if (!tiles_[run.tile]->indexed())
        resolve_static(run, request.ids, ticket);
      else
        look_up(run, request.ids, planes_);
    for (size_t plane = 0; plane < index_.size(); ++plane) {
      Lookups& lookups = planes_[plane];
      index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
    }
    if (population_) populate(ticket, counts);
    for (size_t plane = 0; plane < index_.size() && ticket.train; ++plane)
      insert(plane, planes_[plane]);
  } catch (...) {
    bear_newborns();
    if (population_) end_use(ticket);
    throw;
  }
  copy_slots(ticket);
  ticket.born = newborns_.size();
  bear_newborns();
  locate(ticket);
}

// Slots for all ids, or, when reading, copies of rows below the pad. False without room.
bool Pad::resolve_in_tiers(const Request& request, Ticket& ticket, bool counts) {
  ticket.missing = ticket.born = 0;
  ticket.borrowed.clear();
  begin_lookups(std::max<size_t>(1, planes_.size()));
  for (const Run& run : ticket.runs) look_up(run, request.ids, planes_);
  if (!ticket.train) {
    tiers_->peek(ticket, planes_);
  } else {
    if (population_ && counts && begun_ == 0) {
      begin_batch(ticket);
      begun_ = ticket.batch;
    }
    const Tiers::Room room = tiers_->enter(ticket, planes_);
    if (room == Tiers::Room::pad_full && tiers_->outstanding() == 0) refuse_batch(planes_);
    if (room != Tiers::Room::enough) return false;
    if (population_ && counts) {
      ticket.batch = std::exchange(begun_, 0);
      ticket.tick = population_->now();
    }
  }
  ticket.slots.resize(request.num_ids);
  copy_slots(ticket);
  ticket.missing -= ticket.borrowed.size();
  locate(ticket);
  for (const auto& [id, record] : ticket.borrowed) ticket.rows_at[id] = record;
  return true;
}

void Pad::copy_slots(Ticket& ticket) const {
  for (const Lookups& lookups : planes_)
    for (const Lookups::Part& part : lookups.parts)
      for (size_t i = part.begin; i < part.end; ++i) {
        const uint32_t slot = lookups.slots[i];
        const bool absent = slot >= Population::REFUSED;
        ticket.slots[part.first_id + (i - part.begin)] = absent ? Tile::NONE : slot;
        ticket.missing += absent;
      }
}

// Nothing is asked of these planes yet; their memory is kept.
void Pad::begin_lookups(size_t planes) {
  planes_.resize(planes);
  for (Lookups& lookups : planes_) lookups.clear();
}

// Adds the keys of a run to what is asked of its tile's plane.
void Pad::look_up(const Run& run, const int64_t* ids, std::vector<Lookups>& planes) const {
  const Tile& tile = *tiles_[run.tile];
  const KeyRange range = keys_[run.tile];
  if (planes.size() <= plane_[run.tile]) planes.resize(plane_[run.tile] + 1);
  Lookups& lookups = planes[plane_[run.tile]];
  const size_t begin = lookups.keys.size();
  const uint64_t ids_here = tile.spec().dynamic() ? range.ids() : tile.positions();
  lookups.keys.reserve(begin + (run.id_end - run.id_begin));
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t id = static_cast<uint64_t>(ids[i]);
    if (id >= ids_here) refuse_id(run.tile, ids[i]);
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

// Gives ids without a row what they read: zeros, or the row they would be born as.
void Pad::lend_absent(const Request& request, Ticket& ticket) const {
  struct Absent {
    size_t id;
    uint32_t tile;
    size_t offset;
  };
  std::vector<Absent> newborns;
  size_t bytes = 0;
  for (Run& run : ticket.runs) {
    const TileSpec& spec = tiles_[run.tile]->spec();
    const size_t row = (size_t{spec.dim} * bytes_of(spec.dtype) + 63) / 64 * 64;
    for (size_t i = run.id_begin; i < run.id_end; ++i) {
      if (ticket.rows_at[i] != nullptr) continue;
      run.distinct = false;  // ids that train nothing are left out when rows are grouped
      ticket.rows_at[i] = const_cast<char*>(zeros_.data());
      if (spec.absent_zeros) continue;
      newborns.push_back({i, run.tile, bytes});
      bytes += row;
    }
  }
  ticket.absent.resize(bytes);
  parallel_for(threads_, newborns.size(), BIRTHS_PER_THREAD, [&](size_t begin, size_t end, int) {
    for (size_t n = begin; n < end; ++n) {
      const Tile& tile = *tiles_[newborns[n].tile];
      char* const row = ticket.absent.data() + newborns[n].offset;
      tile.bear_weights(tile.id_of(static_cast<uint64_t>(request.ids[newborns[n].id])), row);
      ticket.rows_at[newborns[n].id] = row;
    }
  });
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
    conceive(run.tile, ticket.slots[i], tile.id_of(position));
  }
}

// Gives rows to the keys without a slot, in the order of the batch.
void Pad::insert(size_t plane, Lookups& lookups) {
  size_t part = 0;
  auto new_slot = [&](size_t at) {
    while (at >= lookups.parts[part].end) ++part;
    const uint32_t t = lookups.parts[part].tile;
    uint32_t slot = tiles_[t]->shelf().take();
    if (slot == Tile::NONE) slot = tiles_[t]->shelf().take_for(tiles_[t]->spec().label());
    tiles_[t]->count(+1);
    conceive(t, slot, keys_[t].id(lookups.keys[at]));
    if (population_) population_->bear(t);
    return slot;
  };
  index_[plane]->insert_missing(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(),
                                new_slot);
}

void Pad::bear_newborns() {
  rows_->bear(newborns_);
  newborns_.clear();
}

// The row of an id gets a slot; it is written when all of the plan's are.
void Pad::conceive(uint32_t t, uint32_t slot, uint64_t id) {
  const uint16_t time = population_ && population_->reclaims(t) ? population_->now() : 0;
  newborns_.push_back({place(t, slot), id, time});
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
