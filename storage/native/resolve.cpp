// The part of plan that finds the rows of a request, or makes them.
#include <algorithm>
#include <stdexcept>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

constexpr size_t BIRTHS_PER_THREAD = 64;
constexpr size_t ASKED = 128;   // positions whose births are asked for ahead
constexpr size_t FOUND = 2048;  // keys that are looked for at once

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

// Slots and rows in tiles without an index. Who is not born yet is, in the order of the batch.
void Pad::resolve_static(const Request& request, Ticket& ticket) {
  const WorkShares shares = share_ids(ticket.runs, threads_,
                                      [&](const Run& run) { return !tiles_[run.tile]->indexed(); });
  auto& left = begin_leaving(shares);
  each_share(shares, [&](size_t worker, const Share& share) {
    place_static(ticket.runs[share.part].tile, share, request.ids, ticket, left[worker]);
  });
  if (!ticket.train) return leave_absent(ticket);
  each_left(ticket, [&](uint32_t tile, uint32_t i) {
    bear_static(tile, static_cast<uint64_t>(request.ids[i]), ticket.slots[i]);
    ticket.rows_at[i] = tiles_[tile]->view().weights(ticket.slots[i]);
  });
}

// Slots and rows in tiles with an index, whose ids all get rows. New ones come plane by plane, in
// the order of the batch.
void Pad::resolve_dynamic(const Request& request, Ticket& ticket) {
  const WorkShares shares =
      share_ids(ticket.runs, threads_, [&](const Run& run) { return tiles_[run.tile]->indexed(); });
  auto& left = begin_leaving(shares);
  each_share(shares, [&](size_t worker, const Share& share) {
    place_dynamic(ticket.runs[share.part].tile, share, request.ids, ticket, left[worker]);
  });
  if (!ticket.train) return leave_absent(ticket);
  for (size_t plane = 0; plane < index_.size(); ++plane) insert_left(plane, request, ticket);
}

// Gives rows to those ids of a plane that were left.
void Pad::insert_left(size_t plane, const Request& request, Ticket& ticket) {
  Lookups& lookups = planes_[plane];
  lookups.clear();
  std::vector<std::pair<uint32_t, uint32_t>> named;  // tile and id of the request, by key
  each_left(ticket, [&](uint32_t tile, uint32_t i) {
    if (plane_[tile] != plane) return;
    named.emplace_back(tile, i);
    lookups.keys.push_back(keys_[tile].key(static_cast<uint64_t>(request.ids[i])));
  });
  lookups.slots.assign(named.size(), Tile::NONE);
  index_[plane]->insert_missing(
      lookups.keys.data(), lookups.slots.data(), named.size(),
      [&](size_t at) { return new_slot(named[at].first, lookups.keys[at]); });
  for (size_t at = 0; at < named.size(); ++at) {
    const auto [tile, i] = named[at];
    ticket.slots[i] = lookups.slots[at];
    ticket.rows_at[i] = tiles_[tile]->view().weights(lookups.slots[at]);
  }
}

// work(tile, id) for what all workers have left, in the order of the batch.
template <class Work>
void Pad::each_left(const Ticket& ticket, Work&& work) const {
  const Run* run = ticket.runs.data();
  for (const auto& ids : left_)
    for (const uint32_t i : ids) {
      while (i >= run->id_end) ++run;
      work(run->tile, i);
    }
}

// Nobody who is only named by a reader is born.
void Pad::leave_absent(Ticket& ticket) {
  each_left(ticket, [&](uint32_t, uint32_t i) {
    absent_.push_back(i);
    ticket.slots[i] = Tile::NONE;
    ticket.rows_at[i] = nullptr;
  });
}

// The same for a tile with an index: those without a slot are left.
void Pad::place_dynamic(uint32_t t, const Share& share, const int64_t* ids, Ticket& ticket,
                        std::vector<uint32_t>& left) const {
  const Index& index = *index_[plane_[t]];
  const RowView view = tiles_[t]->view();
  const KeyRange range = keys_[t];
  uint32_t* const slots = ticket.slots.data();
  char** const rows_at = ticket.rows_at.data();
  uint64_t keys[FOUND];
  for (size_t begin = share.begin, end; begin < share.end; begin = end) {
    end = std::min(begin + FOUND, share.end);
    for (size_t i = begin; i < end; ++i) {
      if (static_cast<uint64_t>(ids[i]) >= range.ids()) refuse_id(t, ids[i]);
      keys[i - begin] = range.key(static_cast<uint64_t>(ids[i]));
    }
    index.find(keys, slots + begin, end - begin, 1);
    for (size_t i = begin; i < end; ++i)
      if (slots[i] != Tile::NONE)
        rows_at[i] = view.weights(slots[i]);
      else
        left.push_back(static_cast<uint32_t>(i));
  }
}

// Slots and rows of a share of the ids; those that are not born are left.
void Pad::place_static(uint32_t t, const Share& share, const int64_t* positions, Ticket& ticket,
                       std::vector<uint32_t>& left) const {
  const Tile& tile = *tiles_[t];
  const RowView view = tile.view();
  const bool complete = tile.complete();
  uint32_t* const slots = ticket.slots.data();
  char** const rows_at = ticket.rows_at.data();
  for (size_t begin = share.begin, end; begin < share.end; begin = end) {
    end = std::min(begin + ASKED, share.end);
    for (size_t i = begin; i < end; ++i) {
      const uint64_t position = static_cast<uint64_t>(positions[i]);
      if (position >= tile.positions()) refuse_id(t, positions[i]);
      if (!complete) tile.ask_born(position);
      slots[i] = tile.slot_of(position);
    }
    for (size_t i = begin; i < end; ++i)
      if (complete || tile.born(static_cast<uint64_t>(positions[i])))
        rows_at[i] = view.weights(slots[i]);
      else
        left.push_back(static_cast<uint32_t>(i));
  }
}

// The batch may name it again.
void Pad::bear_static(uint32_t t, uint64_t position, uint32_t slot) {
  Tile& tile = *tiles_[t];
  if (tile.born(position)) return;
  tile.claim(position, slot);
  conceive(t, slot, tile.id_of(position));
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
