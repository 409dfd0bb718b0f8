// The part of the pad that forgets rows, when all of them are in one tier.
//
// Rows that are condemned count as gone at once. Their memory is taken back by a sweep over the
// index, some entries with every batch that is planned, and whenever a new row finds no room.
#include <algorithm>

#include "pad.h"

namespace ff {
namespace {

constexpr size_t AHEAD = 16;
constexpr size_t BATCHES = 8;  // for which room is kept on every shelf
constexpr size_t ATTEMPTS = 16;

}  // namespace

// Which of the batch's rows are gone, and which of its ids get one; room for those.
void Pad::populate(Ticket& ticket, bool counts) {
  if (counts) begin_batch(ticket);
  if (!ticket.train) {
    size_t keys = 0;
    for (const Lookups& lookups : planes_) keys += lookups.keys.size();
    readers_.insert(ticket.reader = ++last_reader_);
    read_.begin(last_reader_, keys, readers_.size(), *readers_.begin());
  }
  for (size_t plane = 0; plane < planes_.size(); ++plane)
    forget_gone(plane, planes_[plane], ticket.train);
  if (!ticket.train) {
    for (const Lookups& lookups : planes_)
      for (const uint64_t key : lookups.keys) read_.note(key);
    return;
  }
  for (const Lookups& lookups : planes_) population_->enter_window(lookups.keys);
  for (Lookups& lookups : planes_)
    if (counts) admit(lookups);
  sweep_->go_on([&](size_t plane, const Sweep::Seen& seen) { sweep_part(plane, seen); });
  make_room();
  ticket.tick = population_->now();  // whoever was condemned until now was so before this batch
}

void Pad::begin_batch(Ticket& ticket) {
  size_t keys = 0;
  for (const Lookups& lookups : planes_) keys += lookups.keys.size();
  const size_t room = tiers_ ? tiers_->reclaimable_room() : reclaimable_room();
  population_->begin_batch(ticket, keys, room);
}

// Erases the rows of the batch that are gone: their ids are new ones then. A reader finds none.
void Pad::forget_gone(size_t plane, Lookups& lookups, bool erase) {
  std::vector<uint64_t> gone;
  for (const Lookups::Part& part : lookups.parts) {
    gone.clear();
    population_->find_gone(lookups, part, tiles_[part.tile]->view(), gone);
    for (size_t i = 0; erase && i < gone.size(); ++i) bury(plane, part.tile, gone[i]);
  }
}

// Asks for each id without a row, once for all times that the batch names it, in the order in which
// the batch does first.
void Pad::admit(Lookups& lookups) {
  struct Unknown {
    size_t first;       // where the batch names it
    size_t begin, end;  // in unknown_
  };
  std::vector<Unknown> distinct;
  for (const Lookups::Part& part : lookups.parts) {
    if (!population_->filters(part.tile)) continue;
    unknown_.clear();
    distinct.clear();
    for (size_t i = part.begin; i < part.end; ++i)
      if (lookups.slots[i] == Tile::NONE) unknown_.emplace_back(lookups.keys[i], i);
    std::sort(unknown_.begin(), unknown_.end());
    for (size_t i = 0, end; i < unknown_.size(); i = end) {
      for (end = i; end < unknown_.size() && unknown_[end].first == unknown_[i].first;) ++end;
      distinct.push_back({unknown_[i].second, i, end});
    }
    std::sort(distinct.begin(), distinct.end(),
              [](const Unknown& a, const Unknown& b) { return a.first < b.first; });
    for (size_t i = 0; i < distinct.size(); ++i) {
      const Unknown& later = distinct[std::min(i + AHEAD, distinct.size() - 1)];
      population_->ask_admission(part.tile, unknown_[later.begin].first);
      const Unknown& id = distinct[i];
      const uint32_t sightings = static_cast<uint32_t>(id.end - id.begin);
      if (population_->admit(part.tile, unknown_[id.begin].first, sightings)) continue;
      for (size_t same = id.begin; same < id.end; ++same)
        lookups.slots[unknown_[same].second] = Population::REFUSED;
    }
  }
}

// Takes away a row that is gone, if it is still there.
void Pad::bury(size_t plane, uint32_t t, uint64_t key) {
  uint32_t slot = Tile::NONE;
  if (index_[plane]->erase(&key, 1, &slot) == 0) return;
  population_->bury(t, *tiles_[t]->view().meta(slot));
  tiles_[t]->count(-1);
  retire(t, key, slot);
}

// The slot serves again when no reader that may know it is left.
void Pad::retire(uint32_t t, uint64_t key, uint32_t slot) {
  if (readers_.empty() || !read_.seems_to_hold(key, *readers_.begin()))
    tiles_[t]->shelf().give(slot);
  else
    retired_.push_back({last_reader_, t, slot});
}

void Pad::end_use(Ticket& ticket) {
  if (ticket.train) return population_->end_batch(ticket);
  readers_.erase(ticket.reader);
  while (!retired_.empty() && (readers_.empty() || retired_.front().reader < *readers_.begin())) {
    tiles_[retired_.front().tile]->shelf().give(retired_.front().slot);
    retired_.pop_front();
  }
}

// Bytes that rows which can be reclaimed may have: what static tables, counters, indexes and the
// rows that stay for ever leave of the budget. More rows may need a larger index. Where rows are in
// the memory of a GPU, only rows count.
size_t Pad::reclaimable_room() const {
  if (pool_->budget() == Pool::UNLIMITED) return 0;
  size_t room = pool_->budget() - pool_->in_use(), taken = 0, indexes = 0;
  for (const auto& shelf : shelves_) room += shelf->bytes();
  for (const auto& index : index_) indexes += pool_->counted(index->bytes());
  for (size_t t = 0; t < tiles_.size(); ++t)
    if (tiles_[t]->indexed() && !population_->reclaims(t))
      taken += tiles_[t]->rows() * population_->cost(t);
  room -= std::min(room, taken);
  const double rows = static_cast<double>(std::max<size_t>(1, population_->rows()));
  const double each = std::max(1.0, static_cast<double>(population_->bytes()) / rows);
  const double key = static_cast<double>(pool_->counted(Index::KEY_BYTES));
  const double with_index = static_cast<double>(room + indexes) / (each + key) * each;
  return std::max<size_t>(1, std::min(room, static_cast<size_t>(with_index)));
}

// New rows of the batch, by shelf.
std::vector<size_t> Pad::rows_wanted() const {
  std::vector<size_t> rows(shelves_.size());
  for (const Lookups& lookups : planes_)
    for (const Lookups::Part& part : lookups.parts)
      rows[shelf_of_tile_[part.tile]] +=
          std::count(lookups.slots.begin() + static_cast<ptrdiff_t>(part.begin),
                     lookups.slots.begin() + static_cast<ptrdiff_t>(part.end), Tile::NONE);
  return rows;
}

// Bytes that the pool does not have for the blocks of `times` as many rows, and for their keys.
size_t Pad::bytes_lacking(const std::vector<size_t>& rows, size_t times) const {
  size_t bytes = 0;
  for (size_t s = 0; s < shelves_.size(); ++s) {
    const RowLayout& layout = shelves_[s]->layout();
    const size_t wanted = times * rows[s], vacant = shelves_[s]->vacant();
    if (wanted > vacant)
      bytes += (wanted - vacant + layout.rows - 1) / layout.rows * layout.block_bytes;
  }
  for (size_t plane = 0; plane < index_.size(); ++plane)
    bytes += pool_->counted(index_[plane]->growth(times * planes_[plane].keys.size()));
  const size_t free = pool_->budget() - std::min(pool_->budget(), pool_->in_use());
  return bytes - std::min(bytes, free);
}

// Makes sure that the batch's new rows fit, if they can. Most of the time they do, because sweeps
// are in time.
void Pad::make_room() {
  const std::vector<size_t> rows = rows_wanted();
  const size_t soon = bytes_lacking(rows, BATCHES);
  if (soon > 0 && !sweep_->under_way() && empty_blocks(soon, rows, BATCHES)) sweep_->start();
  // Some rows cannot go or be moved now, so each attempt aims higher.
  for (size_t attempt = 1; attempt <= ATTEMPTS; ++attempt) {
    if (bytes_lacking(rows, 1) == 0) return;
    sweep_->finish([&](size_t plane, const Sweep::Seen& seen) { sweep_part(plane, seen); });
    const size_t more = attempt * bytes_lacking(rows, 1);
    if (more == 0) return;
    if (!empty_blocks(more, rows, 1) && population_->condemn(2 * more) == 0) return;
    sweep_->start();
  }
}

// Begins to empty blocks of the shelf that has most room beside that for `times` as many rows;
// false if none has any.
bool Pad::empty_blocks(size_t bytes, const std::vector<size_t>& rows, size_t times) {
  Shelf* roomiest = nullptr;
  size_t most = 0;
  for (size_t s = 0; s < shelves_.size(); ++s) {
    const RowLayout& layout = shelves_[s]->layout();
    const size_t vacant = shelves_[s]->vacant(), wanted = times * rows[s];
    const size_t room = (vacant - std::min(vacant, wanted)) / layout.rows * layout.block_bytes;
    if (room > std::max(most, layout.block_bytes)) {
      most = room;
      roomiest = shelves_[s].get();
    }
  }
  return roomiest != nullptr && !roomiest->empty_out(std::min(bytes, most)).empty();
}

// Takes away those rows that are gone, and moves those whose block is being emptied.
void Pad::sweep_part(size_t plane, const Sweep::Seen& seen) {
  uint32_t owner[AHEAD];
  for (size_t i = 0; i < seen.size() + AHEAD; ++i) {
    if (i >= AHEAD)
      sweep_row(plane, owner[i % AHEAD], seen[i - AHEAD].first, seen[i - AHEAD].second);
    if (i >= seen.size()) continue;
    owner[i % AHEAD] = owners_->tile_of(plane, seen[i].first);
    __builtin_prefetch(tiles_[owner[i % AHEAD]]->view().meta(seen[i].second));
  }
}

void Pad::sweep_row(size_t plane, uint32_t t, uint64_t key, uint32_t slot) {
  const Shelf& shelf = tiles_[t]->shelf();
  if (population_->reclaims(t) && population_->surely_gone(t, key, shelf.view().meta(slot)->load()))
    bury(plane, t, key);
  else if (shelf.leaving(slot) && shelf.vacant() > 0 && !population_->seems_needed(key))
    move(plane, t, key, slot);
}

// Gives the row another slot of its shelf.
void Pad::move(size_t plane, uint32_t t, uint64_t key, uint32_t slot) {
  const uint32_t to = tiles_[t]->shelf().take();
  if (to == Tile::NONE) return;
  rows_->copy(place(t, slot), place(t, to));
  index_[plane]->replace(&key, &to, 1);
  retire(t, key, slot);
}

}  // namespace ff
