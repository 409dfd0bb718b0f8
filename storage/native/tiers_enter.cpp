// The part of Tiers that plans a training batch: room for the rows that it lacks, and their fetch.
//
// A row that comes and the one that leaves for it cost some ten lines of memory that lie nowhere
// near each other. So rows go from pass to pass together, and each pass asks for the lines of later
// rows while it works on one.
#include <algorithm>
#include <bit>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "errors.h"
#include "tiers.h"

namespace ff {
namespace {

constexpr size_t AHEAD = 16;  // rows asked for ahead
constexpr int ATTEMPTS = 16;  // to make room by forgetting rows
constexpr size_t LANES = 16;

// Where in an array a value stands, in order; returns how often. There is room for LANES more.
// Without branches: nobody can guess.
size_t places_of(uint32_t value, const Array<uint32_t>& array, uint32_t* places) {
  size_t count = 0, at = 0;
#ifdef __AVX512F__
  const __m512i wanted = _mm512_set1_epi32(static_cast<int>(value));
  __m512i here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; at + LANES <= array.size(); at += LANES) {
    const __mmask16 found = _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(array.data() + at), wanted);
    _mm512_storeu_si512(places + count, _mm512_maskz_compress_epi32(found, here));
    count += static_cast<size_t>(__builtin_popcount(found));
    here = _mm512_add_epi32(here, _mm512_set1_epi32(LANES));
  }
#endif
  for (; at < array.size(); ++at) {
    places[count] = static_cast<uint32_t>(at);
    count += array[at] == value;
  }
  return count;
}

}  // namespace

Tiers::Room Tiers::enter(Ticket& ticket, std::vector<Lookups>& planes) {
  Fetch fetch;
  for (int attempt = 0;; ++attempt) {
    try {
      find_slots(planes, fetch);
      break;
    } catch (const NoRoom& no) {
      undo();
      refused_ = no.reason;
      if (refused_ == Room::pad_full && outstanding_.empty() && attempt < 2)
        refused_ = give_way(no.shelf, attempt, fetch);
      if (refused_ == Room::enough) continue;
      start(std::move(fetch));
      room_seen_ = room_events_;
      if (write_back_) write_back_->wake();
      return refused_;
    } catch (const BudgetError&) {
      undo();
      if (attempt < ATTEMPTS && forget_some(fetch)) continue;
      start(std::move(fetch));
      throw;
    } catch (...) {
      undo();
      start(std::move(fetch));
      throw;
    }
  }
  foreseen_ = std::max(foreseen_, ++planned_);
  or_fail([&] {
    for (size_t plane = 0; plane < planes.size() && population_ != nullptr; ++plane)
      population_->enter_window(planes[plane].keys);
    bring_in(fetch);
    ticket.fetch = start(std::move(fetch));
    forget_left();  // while rows are moved
    insert(planes);
  });
  for (const Lookups& lookups : planes) traffic_.pad_hits += lookups.keys.size();
  traffic_.pad_hits -= missing_.size();
  ticket.number = ticket_++;
  outstanding_.insert(ticket.number);
  return Room::enough;
}

// Slots for all rows; throws NoRoom.
void Tiers::find_slots(std::vector<Lookups>& planes, Fetch& fetch) {
  missing_.clear();
  placed_ = entered_ = located_ = 0;
  no_blocks_ = false;
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    Lookups& lookups = planes[plane];
    index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
    if (population_ != nullptr) forget_gone(lookups, true);
    stamp(lookups);
  }
  absent_.resize(planes.size());
  for (size_t plane = 0; plane < planes.size(); ++plane) collect(planes[plane], absent_[plane]);
  // Now missing_ is all that the batch lacks, in the order of the request.
  if (population_ != nullptr) {
    locate();
    admit(planes, fetch);
    sweep_->go_on([&](size_t i, const Sweep::Seen& seen) { sweep_part(i, seen, fetch); });
  }
  take_slots(fetch);
  if (population_ == nullptr) locate();  // while rows are moved
}

// Holds the rows that are in.
void Tiers::stamp(const Lookups& lookups) {
  for (const Lookups::Part& part : lookups.parts)
    residents_of(part.tile).stamp(lookups.slots.data() + part.begin, part.end - part.begin, ticket_,
                                  held_from());
}

// The rows that are not in, each once.
void Tiers::collect(const Lookups& lookups, Absent& absent) {
  absent.begin = missing_.size();
  places_.resize(std::max(places_.size(), lookups.slots.size() + LANES));
  const size_t count = places_of(Shelf::NONE, lookups.slots, places_.data());
  // A key that comes again is known by its hash: there, or behind, is the number of its row.
  const size_t last = std::bit_ceil(2 * count + 1) - 1;
  numbers_.assign(last + 1, Shelf::NONE);
  absent.lookups.resize(count);
  auto part = lookups.parts.begin();
  for (size_t i = 0; i < count; ++i) {
    const uint32_t at = places_[i];
    const uint64_t key = lookups.keys[at];
    size_t place = index_hash(key) & last;
    while (numbers_[place] != Shelf::NONE && missing_[numbers_[place]].key != key)
      place = (place + 1) & last;
    if (numbers_[place] == Shelf::NONE) {
      while (at >= part->end) ++part;
      numbers_[place] = static_cast<uint32_t>(missing_.size());
      missing_.push_back({part->tile, Shelf::NONE, key, HostTier::NONE, false, false});
    }
    absent.lookups[i] = {at, numbers_[place]};
  }
  absent.end = missing_.size();
}

// Where the missing rows are. Their keys leave the host tier.
void Tiers::locate() {
  for (size_t plane = 0; plane < absent_.size(); ++plane) {
    const Absent& absent = absent_[plane];
    list_keys(absent);
    slots_of_missing_.resize(keys_of_missing_.size());
    host_.forget(plane, keys_of_missing_.data(), slots_of_missing_.data(), keys_of_missing_.size());
    for (; located_ < absent.end; ++located_)
      missing_[located_].host = slots_of_missing_[located_ - absent.begin];
    for (size_t i = absent.begin; i < absent.end && file_ != nullptr; ++i) {
      Missing& row = missing_[i];
      row.in_file = row.host == HostTier::NONE && file_->contains(row.tile, row.key);
    }
  }
}

// The missing rows are in from now on.
void Tiers::insert(std::vector<Lookups>& planes) {
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    const Absent& absent = absent_[plane];
    list_keys(absent);
    slots_of_missing_.clear();
    for (size_t i = absent.begin; i < absent.end; ++i)
      slots_of_missing_.push_back(missing_[i].slot);
    index_[plane]->enter(keys_of_missing_.data(), slots_of_missing_.data(),
                         keys_of_missing_.size());
    for (const Absent::Lookup& lookup : absent.lookups)
      planes[plane].slots[lookup.at] = missing_[lookup.number].slot;
  }
}

void Tiers::list_keys(const Absent& absent) {
  keys_of_missing_.clear();
  for (size_t i = absent.begin; i < absent.end; ++i) keys_of_missing_.push_back(missing_[i].key);
}

Fetch::Place Tiers::place(uint32_t tile, uint32_t slot) const {
  return {tile, slot, residents_of(tile).shelf().view().weights(slot)};
}

// Says where the rows that entered come from.
void Tiers::bring_in(Fetch& fetch) {
  freed_.clear();
  fetch.up.reserve(missing_.size());
  for (size_t plane = 0; plane < absent_.size(); ++plane) {
    for (size_t i = absent_[plane].begin; i < absent_[plane].end; ++i) {
      const Missing& later = missing_[std::min(i + AHEAD, missing_.size() - 1)];
      if (later.host != HostTier::NONE) host_.ask(later.tile, later.host);
      bring_in(missing_[i], fetch);
    }
  }
  for (const auto& [tile, host] : freed_) host_.give(tile, host);
}

void Tiers::bring_in(const Missing& row, Fetch& fetch) {
  Index& later = *later_[plane_[row.tile]];
  uint32_t batch;
  if (later.size() > 0 && later.erase(&row.key, 1, &batch) == 1)
    residents_of(row.tile).wanted(row.slot) = batch;
  const bool can_go = population_ != nullptr && population_->reclaims(row.tile);
  if (can_go && (row.host != HostTier::NONE || row.in_file)) forget_below(row.tile, row.key);
  const uint32_t host = row.host;
  const bool dropped = host != HostTier::NONE && !host_.holds(row.tile, row.key, host);
  if (host != HostTier::NONE && !dropped) {
    fetch.up.push_back({place(row.tile, row.slot), host_.record(row.tile, host)});
    if (host_.take(row.tile, host)) fetch.stale.push_back({row.tile, row.key});
    freed_.emplace_back(row.tile, host);
    ++traffic_.host_hits;
    traffic_.host_read_bytes += host_.record_bytes(row.tile);
  } else if (row.in_file || dropped) {  // for a row that left the pad, as the file has it
    fetch.from_file.push_back({place(row.tile, row.slot), row.key, nullptr});
    ++traffic_.file_hits;
    traffic_.file_read_bytes += host_.record_bytes(row.tile);
  } else {
    const uint64_t position = keys_[row.tile].id(row.key);
    const uint16_t time = can_go ? population_->now() : 0;
    fetch.births.push_back({place(row.tile, row.slot), tiles_[row.tile]->id_of(position), time});
    tiles_[row.tile]->count(+1);
    if (population_ != nullptr) population_->bear(row.tile);
    ++traffic_.born;
  }
}

}  // namespace ff
