// The part of Tiers for batches that are not entered: readers, and batches that will come.
#include <algorithm>

#include "tiers.h"

namespace ff {

void Tiers::peek(Ticket& ticket, std::vector<Lookups>& planes) {
  Fetch fetch;
  size_t bytes = 0;
  auto room = [&](uint32_t tile) {  // of one record, as an offset for now
    const size_t at = bytes;
    bytes += (host_.record_bytes(tile) + 63) / 64 * 64;
    return reinterpret_cast<char*>(at);
  };
  ticket.borrowed.clear();
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    Lookups& lookups = planes[plane];
    index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
    if (population_ != nullptr) forget_gone(lookups, false);
    stamp(lookups);
    for (const Lookups::Part& part : lookups.parts)
      for (size_t i = part.begin; i < part.end; ++i) {
        if (lookups.slots[i] != Shelf::NONE) continue;
        const uint64_t key = lookups.keys[i];
        const bool can_go = population_ != nullptr && population_->reclaims(part.tile);
        if (can_go && !lives_below(part.tile, key)) continue;
        const uint32_t host = host_.find(part.tile, key);
        char* to = nullptr;
        if (host != HostTier::NONE) {
          to = room(part.tile);
          fetch.copies.push_back(
              {host_.record(part.tile, host), to, host_.record_bytes(part.tile)});
        } else if (file_ != nullptr && (can_go || file_->contains(part.tile, key))) {
          to = room(part.tile);
          fetch.from_file.push_back({{part.tile, Shelf::NONE, nullptr}, key, to});
        } else {
          continue;
        }
        ticket.borrowed.emplace_back(part.first_id + (i - part.begin), to);
      }
  }
  ticket.lent.resize(bytes);
  auto settle = [&](char*& at) { at = ticket.lent.data() + reinterpret_cast<size_t>(at); };
  for (auto& copy : fetch.copies) settle(copy.to);
  for (auto& row : fetch.from_file) settle(row.to);
  for (auto& row : ticket.borrowed) settle(row.second);
  ticket.number = ticket_++;
  outstanding_.insert(ticket.number);
  ticket.fetch = start(std::move(fetch));
}

void Tiers::foresee(std::vector<Lookups>& planes) {
  ++foreseen_;
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    Lookups& lookups = planes[plane];
    index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
    for (const Lookups::Part& part : lookups.parts)
      for (size_t i = part.begin; i < part.end; ++i) {
        if (lookups.slots[i] != Shelf::NONE)
          residents_of(part.tile).wanted(lookups.slots[i]) = foreseen_;
        else
          want_later(part.tile, lookups.keys[i], foreseen_);
      }
  }
}

// A row that is not in the pad will be needed.
void Tiers::want_later(uint32_t tile, uint64_t key, uint32_t batch) {
  Index& later = *later_[plane_[tile]];
  uint32_t was;
  if (later.find_or_insert(&key, &was, 1, [&](size_t) { return batch; }) == 0)
    later.replace(&key, &batch, 1);
}

void Tiers::forget_foreseen() {
  planned_ = foreseen_;
  for (const auto& later : later_) later->clear();
}

}  // namespace ff
