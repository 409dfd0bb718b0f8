// The part of plan that finds the rows of a request, or makes them.
#include <algorithm>
#include <stdexcept>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

constexpr size_t BIRTHS_PER_THREAD = 64;

}  // namespace

// Slots for all ids, for a batch that `counts` as training. Whatever happens, rows that were
// counted as born are written.
void Pad::resolve(const Request& request, Ticket& ticket, bool counts) {
  begin_resolving(ticket);
  newborns_.clear();
  try {
    resolve_static(request, ticket);
    if (population_)
      resolve_population(request, ticket, counts);
    else
      resolve_dynamic(request, ticket);
  } catch (...) {
    bear_newborns();
    if (population_) end_use(ticket);
    throw;
  }
  ticket.missing = absent_.size();
  ticket.born = newborns_.size();
  bear_newborns();
}

// Of dynamic tables some of whose ids get no row, or lose it.
void Pad::resolve_population(const Request& request, Ticket& ticket, bool counts) {
  look_up(ticket.runs, request.ids);
  for (size_t plane = 0; plane < index_.size(); ++plane) {
    Lookups& lookups = planes_[plane];
    index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
  }
  populate(ticket, counts);
  for (size_t plane = 0; plane < index_.size() && ticket.train; ++plane) {
    Lookups& lookups = planes_[plane];
    auto part = lookups.parts.begin();
    index_[plane]->insert_missing(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(),
                                  [&](size_t at) {
                                    while (at >= part->end) ++part;
                                    return new_slot(part->tile, lookups.keys[at]);
                                  });
  }
  copy_slots(ticket);
}

// Slots for all ids, or, when reading, copies of rows below the pad. False without room.
bool Pad::resolve_in_tiers(const Request& request, Ticket& ticket, bool counts) {
  begin_resolving(ticket);
  look_up(ticket.runs, request.ids);
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
  copy_slots(ticket);
  ticket.missing = absent_.size() - ticket.borrowed.size();
  for (const auto& [id, record] : ticket.borrowed) ticket.rows_at[id] = record;
  return true;
}

void Pad::begin_resolving(Ticket& ticket) {
  ticket.missing = ticket.born = 0;
  ticket.borrowed.clear();
  ticket.slots.resize(ticket.rows);
  ticket.rows_at.resize(ticket.rows);
  absent_.clear();
}

// An empty list for every worker of some shares.
std::vector<std::vector<uint32_t>>& Pad::begin_leaving(const WorkShares& shares) {
  left_.resize(std::max(left_.size(), shares.size()));
  for (auto& ids : left_) ids.clear();
  return left_;
}

// The keys of all runs whose tiles have an index, plane by plane.
void Pad::look_up(std::vector<Run>& runs, const int64_t* ids) {
  auto indexed = [&](const Run& run) { return tiles_[run.tile]->indexed(); };
  std::vector<size_t> keys(planes_.size());
  for (Lookups& lookups : planes_) lookups.clear();
  for (Run& run : runs) {
    if (!indexed(run)) continue;
    size_t& end = keys[plane_[run.tile]];
    run.first_key = std::exchange(end, end + run.id_end - run.id_begin);
    planes_[plane_[run.tile]].parts.push_back({run.tile, run.id_begin, run.first_key, end});
  }
  for (size_t plane = 0; plane < planes_.size(); ++plane) {
    planes_[plane].keys.resize(keys[plane]);
    planes_[plane].slots.resize(keys[plane]);
  }
  each_share(share_ids(runs, threads_, indexed), [&](size_t, const Share& share) {
    const Run& run = runs[share.part];
    const Tile& tile = *tiles_[run.tile];
    const KeyRange range = keys_[run.tile];
    const uint64_t ids_here = tile.spec().dynamic() ? range.ids() : tile.positions();
    uint64_t* const to = planes_[plane_[run.tile]].keys.data() + run.first_key - run.id_begin;
    for (size_t i = share.begin; i < share.end; ++i) {
      const uint64_t id = static_cast<uint64_t>(ids[i]);
      if (id >= ids_here) refuse_id(run.tile, ids[i]);
      to[i] = range.key(id);
    }
  });
}

// Slots and rows, as the indexes have them. Rows stay where they are until the ticket is released.
void Pad::copy_slots(Ticket& ticket) {
  const WorkShares shares =
      share_ids(ticket.runs, threads_, [&](const Run& run) { return tiles_[run.tile]->indexed(); });
  auto& left = begin_leaving(shares);
  each_share(shares, [&](size_t worker, const Share& share) {
    const Run& run = ticket.runs[share.part];
    const RowView view = tiles_[run.tile]->view();
    const uint32_t* const from = planes_[plane_[run.tile]].slots.data() + run.first_key;
    for (size_t i = share.begin; i < share.end; ++i) {
      const uint32_t slot = from[i - run.id_begin];
      const bool absent = slot >= Population::REFUSED;
      ticket.slots[i] = absent ? Tile::NONE : slot;
      ticket.rows_at[i] = absent ? nullptr : view.weights(slot);
      if (absent) left[worker].push_back(static_cast<uint32_t>(i));
    }
  });
  for (const auto& ids : left) absent_.insert(absent_.end(), ids.begin(), ids.end());
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

// Gives ids without a row what they read: zeros, or the row they would be born as.
void Pad::lend_absent(const Request& request, Ticket& ticket) const {
  struct Absent {
    size_t id;
    uint32_t tile;
    size_t offset;
  };
  std::vector<Absent> newborns;
  size_t bytes = 0;
  Run* run = ticket.runs.data();
  for (const uint32_t i : absent_) {
    if (ticket.rows_at[i] != nullptr) continue;  // it is lent a row
    if (i < run->id_begin) run = ticket.runs.data();
    while (i >= run->id_end) ++run;
    run->distinct = false;  // ids that train nothing are left out when rows are grouped
    ticket.rows_at[i] = const_cast<char*>(zeros_.data());
    const TileSpec& spec = tiles_[run->tile]->spec();
    if (spec.absent_zeros) continue;
    newborns.push_back({i, run->tile, bytes});
    bytes += (size_t{spec.dim} * bytes_of(spec.dtype) + 63) / 64 * 64;
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

// For a key that has none; its row is born.
uint32_t Pad::new_slot(uint32_t t, uint64_t key) {
  uint32_t slot = tiles_[t]->shelf().take();
  if (slot == Tile::NONE) slot = tiles_[t]->shelf().take_for(tiles_[t]->spec().label());
  tiles_[t]->count(+1);
  conceive(t, slot, keys_[t].id(key));
  if (population_) population_->bear(t);
  return slot;
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
