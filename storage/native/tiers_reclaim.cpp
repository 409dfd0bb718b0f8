// The part of Tiers that forgets rows. Time and score of a row are in its 4 bytes while it is in
// the pad; of those below it a copy is kept in memory, so that nobody has to read a file to know
// who is gone.
#include <algorithm>

#include "tiers.h"

namespace ff {
namespace {

// Share of the host tier's free memory that may go into indexes, times and scores of rows in the
// file.
constexpr double MOST_OF_FREE = 0.25;

uint32_t packed(Meta meta) { return std::min(bit_cast<uint32_t>(meta), Index::NONE - 1); }
Meta unpacked(uint32_t bits) { return bit_cast<Meta>(bits); }

}  // namespace

void Tiers::set_population(Population* population, const Owners* owners) {
  population_ = population;
  owners_ = owners;
  for (size_t t = 0; t < plane_.size(); ++t)
    while (population->reclaims(t) && below_.size() <= plane_[t])
      below_.push_back(std::make_unique<Index>(0, false));
  std::vector<const Index*> indexes;
  for (const auto& index : index_) indexes.push_back(index.get());
  for (const auto& index : below_) indexes.push_back(index.get());
  sweep_ = std::make_unique<Sweep>(*population, std::move(indexes));
  const bool limited = std::max(host_.pool().budget(), pad_budget_) != Pool::UNLIMITED;
  if (!limited || below_.empty()) return;
  const size_t below = most_below();
  most_rows_ = most_in_pad() + below;
  if (const size_t wanted = population_->most_rows(); wanted > 0)
    most_rows_ = std::min(most_rows_, wanted + wanted / 4);
  host_.pool().charge(Index::KEY_BYTES * std::min(below, most_rows_),
                      "times and scores of rows below the pad");
}

// Rows that the pad holds, if all are as large as the largest that can go.
size_t Tiers::most_in_pad() const {
  size_t rows = ~size_t{0};
  for (size_t t = 0; t < plane_.size(); ++t)
    if (population_->reclaims(t))
      rows = std::min(rows, static_cast<size_t>(left_ * static_cast<double>(pad_budget_)) /
                                population_->cost(t));
  return rows;
}

// The same of host and file, in memory of the host that nobody has taken yet. A row below the pad
// takes a key there, for its time and score, and one in the file another, beside which a third is
// kept free.
size_t Tiers::most_below() const {
  const double free = static_cast<double>(host_.pool().budget() - host_.pool().held());
  constexpr double KEY = Index::KEY_BYTES, KEYS = KEY + KEY * 4 / 3;
  size_t rows = ~size_t{0};
  for (size_t t = 0; t < plane_.size(); ++t) {
    if (!population_->reclaims(t)) continue;
    const double most = file_ == nullptr ? 0 : static_cast<double>(file_->most_rows(t));
    const double in_file = std::min(most, MOST_OF_FREE * free / KEYS);
    const double in_host = (free - KEYS * in_file) / (static_cast<double>(host_.cost(t)) + KEY);
    rows = std::min(rows, static_cast<size_t>(in_file + in_host));
  }
  return rows;
}

size_t Tiers::reclaimable_room() const {
  if (most_rows_ == 0) return 0;
  size_t rows = most_rows_, most = 0;
  for (size_t t = 0; t < plane_.size(); ++t)
    if (population_->reclaims(t))
      most = std::max(most, population_->cost(t));
    else
      rows -= std::min(rows, tiles_[t]->rows());
  return std::max<size_t>(1, rows * most);
}

// Takes rows of the batch that are gone out of the pad: their ids are new ones then. A reader finds
// none.
void Tiers::forget_gone(Lookups& lookups, bool erase) {
  std::vector<uint64_t> gone;
  for (const Lookups::Part& part : lookups.parts) {
    gone.clear();
    population_->find_gone(lookups, part, shelf_of(part.tile).view(), gone);
    for (size_t i = 0; erase && i < gone.size(); ++i) bury_in_pad(part.tile, gone[i]);
  }
}

void Tiers::bury_in_pad(uint32_t tile, uint64_t key) {
  uint32_t slot = Shelf::NONE;
  if (index_of(tile).erase(&key, 1, &slot) == 0) return;
  Residents& residents = residents_of(tile);
  population_->bury(tile, *residents.shelf().view().meta(slot));
  tiles_[tile]->count(-1);
  const bool held = residents.used(slot) >= held_from();  // by a reader
  residents.leave(slot);
  if (held)
    retired_.push_back({ticket_, shelf_of_tile_[tile], slot});
  else
    residents.shelf().give(slot);
}

// Slots that a reader may know serve again when all tickets of that time are released.
void Tiers::return_retired() {
  while (!retired_.empty() &&
         (outstanding_.empty() || retired_.front().ticket <= *outstanding_.begin())) {
    shelves_[retired_.front().shelf]->give(retired_.front().slot);
    retired_.pop_front();
  }
}

// A row leaves the pad, or comes back.
void Tiers::note_below(uint32_t tile, uint64_t key, Meta meta) {
  Index& below = *below_[plane_[tile]];
  const uint32_t bits = packed(meta);
  uint32_t slot;
  if (below.find_or_insert(&key, &slot, 1, [&](size_t) { return bits; }) == 0)
    below.replace(&key, &bits, 1);
}

void Tiers::forget_below(uint32_t tile, uint64_t key) { below_[plane_[tile]]->erase(&key, 1); }

// The user erases a row, which is at the slot or below the pad.
void Tiers::forget_score(uint32_t tile, uint64_t key, uint32_t slot) {
  if (slot != Shelf::NONE) return population_->erase(tile, *shelf_of(tile).view().meta(slot));
  uint32_t bits;
  if (below_[plane_[tile]]->erase(&key, 1, &bits) == 1) population_->erase(tile, unpacked(bits));
}

// What is known of a row that can go and is below the pad.
std::optional<Meta> Tiers::meta_below(uint32_t tile, uint64_t key) const {
  uint32_t bits;
  below_[plane_[tile]]->find(&key, &bits, 1, 1);
  return bits == Index::NONE ? std::nullopt : std::optional(unpacked(bits));
}

bool Tiers::lives_below(uint32_t tile, uint64_t key) const {
  const std::optional<Meta> meta = meta_below(tile, key);
  return meta && !population_->gone(tile, key, *meta);
}

// A row that is gone is taken away. `host`: its slot in the host tier, which has forgotten its key,
// or NONE.
void Tiers::bury_below(uint32_t tile, uint64_t key, uint32_t host, Meta meta, Fetch& fetch) {
  population_->bury(tile, meta);
  tiles_[tile]->count(-1);
  forget_below(tile, key);
  bool in_file = host == HostTier::NONE;
  if (host != HostTier::NONE) {
    in_file = host_.take(tile, host);
    host_.give(tile, host);
  }
  if (in_file) fetch.stale.push_back({tile, key});
}

// Which missing rows exist nowhere, and which of these are refused.
void Tiers::admit(std::vector<Lookups>& planes, Fetch& fetch) {
  for (Missing& row : missing_) {
    if (!population_->reclaims(row.tile)) continue;
    const std::optional<Meta> meta = meta_below(row.tile, row.key);
    const bool lives = meta && !population_->gone(row.tile, row.key, *meta);
    if (meta && !lives) bury_below(row.tile, row.key, row.host, *meta, fetch);
    if (!lives) row.host = HostTier::NONE;
    row.in_file = lives && row.host == HostTier::NONE;
  }
  std::vector<uint32_t> sightings(missing_.size());
  for (const Absent& absent : absent_)
    for (const Absent::Lookup& lookup : absent.lookups) ++sightings[lookup.number];
  bool any = false;
  for (size_t i = 0; i < missing_.size(); ++i) {
    Missing& row = missing_[i];
    if (!population_->filters(row.tile) || row.host != HostTier::NONE || row.in_file) continue;
    row.refused = !population_->admit_once(row.tile, row.key, sightings[i]);
    any |= row.refused;
  }
  if (any) leave_out_refused(planes);
}

void Tiers::leave_out_refused(std::vector<Lookups>& planes) {
  std::vector<uint32_t> number(missing_.size(), Shelf::NONE);
  size_t kept = 0;
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    Absent& absent = absent_[plane];
    const size_t begin = kept;
    for (size_t i = absent.begin; i < absent.end; ++i) {
      if (missing_[i].refused) continue;
      number[i] = static_cast<uint32_t>(kept);
      missing_[kept++] = missing_[i];
    }
    absent.begin = begin;
    absent.end = kept;
    auto& lookups = absent.lookups;
    for (Absent::Lookup& lookup : lookups) {
      lookup.number = number[lookup.number];
      if (lookup.number == Shelf::NONE) planes[plane].slots[lookup.at] = Population::REFUSED;
    }
    lookups.erase(std::remove_if(lookups.begin(), lookups.end(),
                                 [](const auto& l) { return l.number == Shelf::NONE; }),
                  lookups.end());
  }
  missing_.resize(kept);
  located_ = kept;
}

// When a tier is full, whatever the budgets of rows say; false if nobody can go.
bool Tiers::forget_some(Fetch& fetch) {
  if (population_ == nullptr || population_->condemn(population_->bytes() / 16 + 1) == 0)
    return false;
  sweep_->start();
  sweep_->finish([&](size_t i, const Sweep::Seen& seen) { sweep_part(i, seen, fetch); });
  return true;
}

std::vector<uint64_t> Tiers::living_keys(size_t tile) const {
  std::vector<uint64_t> keys;
  const RowView view = tiles_[tile]->view();
  index_of(tile).for_each([&](uint64_t key, uint32_t slot) {
    if (!keys_[tile].owns(key)) return;
    if (!population_->gone(tile, key, view.meta(slot)->load())) keys.push_back(key);
  });
  below_[plane_[tile]]->for_each([&](uint64_t key, uint32_t bits) {
    if (!keys_[tile].owns(key)) return;
    if (!population_->gone(tile, key, unpacked(bits))) keys.push_back(key);
  });
  std::sort(keys.begin(), keys.end());
  return keys;
}

// Takes away rows that are gone, in the pad or below it.
void Tiers::sweep_part(size_t index, const Sweep::Seen& seen, Fetch& fetch) {
  const bool in_pad = index < index_.size();
  const size_t plane = in_pad ? index : index - index_.size();
  for (const auto& [key, value] : seen) {
    const uint32_t tile = owners_->tile_of(plane, key);
    if (!population_->reclaims(tile)) continue;
    if (!in_pad) {
      if (!population_->surely_gone(tile, key, unpacked(value))) continue;
      uint32_t host;
      host_.forget(plane, &key, &host, 1);
      bury_below(tile, key, host, unpacked(value), fetch);
      continue;
    }
    const RowView view = shelf_of(tile).view();
    if (residents_of(tile).used(value) < held_from() &&
        population_->surely_gone(tile, key, view.meta(value)->load()))
      bury_in_pad(tile, key);
  }
}

}  // namespace ff
