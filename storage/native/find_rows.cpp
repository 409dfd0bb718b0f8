// The part of plan that finds rows where ids need no admission and nothing lies below the pad: one
// pass by all threads, which leaves ids that have no row to another, by one.
#include <algorithm>
#include <utility>

#include "pad.h"

namespace ff {
namespace {

constexpr size_t ASKED = 128;   // positions whose births are asked for ahead
constexpr size_t FOUND = 2048;  // keys that are looked for at once

}  // namespace

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

}  // namespace ff
