#include "tiers.h"

#include <algorithm>
#include <chrono>

#include "errors.h"

namespace ff {
namespace {

constexpr size_t INDEX_BYTES = 27;  // of a key, at most (index.h)
constexpr size_t BLOCK = size_t{64} << 10;
constexpr size_t AHEAD = 16;  // rows asked for ahead

// Blocks of all shelves have one size if rows allow it, so that any shelf can have another's.
RowLayout divided(RowLayout layout, const std::string& label, size_t budget) {
  const size_t row = layout.row_bytes();
  const size_t bytes =
      std::max(std::min(BLOCK, std::bit_floor(budget / 64 | 1)), std::bit_ceil(8 * row));
  if (!layout.divide(std::clamp(bytes, Pool::SMALLEST, Pool::LARGEST)))
    throw std::invalid_argument(label + ": a row of " + bytes_text(row) +
                                " is larger than a block of " + bytes_text(Pool::LARGEST));
  return layout;
}

bool same_rows(const RowLayout& a, const RowLayout& b) {
  return a.dim == b.dim && a.dtype == b.dtype && a.element_states == b.element_states &&
         a.row_states == b.row_states;
}

}  // namespace

Tiers::Tiers(const std::vector<TileSpec>& specs, const std::vector<KeyRange>& keys, Pool& pool,
             const std::vector<std::unique_ptr<Tile>>& tiles, HostTier& host, Tier* file,
             std::mutex& guard, int threads)
    : keys_(keys), tiles_(tiles), host_(host), file_(file), guard_(guard), threads_(threads) {
  std::vector<RowLayout> layouts;
  for (size_t t = 0; t < specs.size(); ++t) {
    const RowLayout layout = Tile::layout_of(specs[t]);
    size_t at = 0;
    while (at < shelves_.size() && !same_rows(shelves_[at]->layout(), layout)) ++at;
    if (at == shelves_.size()) {
      const RowLayout blocks = divided(layout, specs[t].label(), pool.budget());
      const uint64_t most =
          std::min<uint64_t>(Shelf::nameable(blocks), pool.most() / blocks.block_bytes + 1);
      shelves_.push_back(std::make_unique<Shelf>(blocks, pool, "the pad", most, sizeof(Resident)));
      layouts.push_back(blocks);
    }
    shelf_of_tile_.push_back(static_cast<uint32_t>(at));
    plane_.push_back(plane_of(specs, t));
    while (index_.size() <= plane_.back()) {
      index_.push_back(std::make_unique<Index>(0, pool.huge_pages()));
      later_.push_back(std::make_unique<Index>(0, false));
      pool.charge(2 * index_.back()->bytes(), "the index of the pad");
    }
  }
  left_ = Shelf::set_aside(pool, layouts, sizeof(Resident), INDEX_BYTES, "the pad");
  for (const auto& shelf : shelves_) residents_.emplace_back(*shelf);
  auto notify = [this] {
    std::lock_guard<std::mutex> lock(guard_);
    made_room();
  };
  fetcher_ = std::make_unique<Fetcher>([this](Fetch& fetch) { carry_out(fetch); }, notify);
  if (file_ == nullptr) return;
  host_.write_behind();
  write_back_ = std::make_unique<WriteBack>(host_, *file_, *fetcher_, guard_, notify, spans_);
}

void Tiers::close() {
  if (write_back_) write_back_->close();
  fetcher_->close();
}

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
    } catch (...) {
      undo();
      start(std::move(fetch));
      throw;
    }
  }
  foreseen_ = std::max(foreseen_, ++planned_);
  bring_in(fetch);
  for (const Lookups& lookups : planes) traffic_.pad_hits += lookups.keys.size();
  traffic_.pad_hits -= entered_.size();
  ticket.number = ticket_++;
  outstanding_.insert(ticket.number);
  ticket.fetch = start(std::move(fetch));
  return Room::enough;
}

// Slots for all rows; throws NoRoom.
void Tiers::find_slots(std::vector<Lookups>& planes, Fetch& fetch) {
  entered_.clear();
  no_blocks_ = false;
  next_fetch_ = static_cast<uint32_t>(fetcher_->pushed() + 1);
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    Lookups& lookups = planes[plane];
    index_[plane]->find(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(), threads_);
    stamp(lookups);
  }
  for (size_t plane = 0; plane < planes.size(); ++plane) insert(plane, planes[plane], fetch);
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
}

// Holds the rows that are in.
void Tiers::stamp(const Lookups& lookups) {
  for (const Lookups::Part& part : lookups.parts) {
    Residents& residents = residents_of(part.tile);
    for (size_t i = part.begin; i < part.end; ++i) {
      const size_t ahead = std::min(i + AHEAD, part.end - 1);
      if (lookups.slots[ahead] != Shelf::NONE)
        __builtin_prefetch(&residents.at(lookups.slots[ahead]), 1);
      if (lookups.slots[i] != Shelf::NONE) residents.stamp(lookups.slots[i], ticket_);
    }
  }
}

// Slots for the rows that are not in. They come in the order of the request.
void Tiers::insert(size_t plane, Lookups& lookups, Fetch& fetch) {
  size_t part = 0;
  auto new_slot = [&](size_t at) {
    while (at >= lookups.parts[part].end) ++part;
    const uint32_t tile = lookups.parts[part].tile;
    const uint64_t key = lookups.keys[at];
    const uint32_t slot = slot_for(tile, fetch);
    residents_of(tile).enter(slot, tile, key, ticket_);
    entered_.push_back({tile, slot, key, HostTier::NONE});
    return slot;
  };
  index_[plane]->insert_missing(lookups.keys.data(), lookups.slots.data(), lookups.keys.size(),
                                new_slot);
}

uint32_t Tiers::slot_for(uint32_t tile, Fetch& fetch) {
  Residents& residents = residents_of(tile);
  uint32_t slot = Shelf::NONE;
  if (residents.shelf().has_room() || !no_blocks_) slot = residents.shelf().take();
  if (slot != Shelf::NONE) return slot;
  no_blocks_ = true;
  slot = residents.victim(held_from(), planned_ + 1, [&](const Resident& row) FF_ALWAYS {
    index_of(row.tile).ask(row.key);
    host_.ask(row.tile, row.key);
  });
  if (slot != Shelf::NONE) {
    evict(residents, slot, fetch);
    return slot;
  }
  for (size_t s = 0; s < shelves_.size(); ++s) {
    if (s == shelf_of_tile_[tile]) continue;
    for (const uint32_t block : residents_[s].idle_blocks(held_from())) {
      clear_block(s, block, fetch);
      if ((slot = residents.shelf().take()) != Shelf::NONE) return slot;
    }
  }
  throw NoRoom{Room::pad_full, shelf_of_tile_[tile]};
}

// Sends the row at the slot, which stays taken, to the host tier.
void Tiers::evict(Residents& from, uint32_t slot, Fetch& fetch) {
  const Resident row = from.at(slot);
  const uint32_t host = host_.admit(row.tile, row.key, next_fetch_);
  if (host == HostTier::NONE) throw NoRoom{Room::host_full, 0};
  index_of(row.tile).erase(&row.key, 1);
  if (row.wanted > planned_) want_later(row.tile, row.key, row.wanted);
  from.leave(slot);
  fetch.down.push_back({place(row.tile, slot), host_.record(row.tile, host)});
  traffic_.host_written_bytes += host_.record_bytes(row.tile);
}

Fetch::Place Tiers::place(uint32_t tile, uint32_t slot) const {
  return {tile, slot, residents_of(tile).shelf().view().weights(slot)};
}

// Gives a block back to the pool.
void Tiers::clear_block(size_t shelf, uint32_t block, Fetch& fetch) {
  const RowLayout& layout = shelves_[shelf]->layout();
  no_blocks_ = false;
  for (uint32_t row = 0; row < layout.rows; ++row) {
    const uint32_t slot = block << layout.shift | row;
    if (residents_[shelf].at(slot).used == 0) continue;
    evict(residents_[shelf], slot, fetch);
    shelves_[shelf]->give(slot);
  }
}

void Tiers::undo() {
  for (const Entered& row : entered_) {
    index_of(row.tile).erase(&row.key, 1);
    residents_of(row.tile).leave(row.slot);
    residents_of(row.tile).shelf().give(row.slot);
  }
  entered_.clear();
}

// Says where the rows that entered come from.
void Tiers::bring_in(Fetch& fetch) {
  freed_.clear();
  const size_t n = entered_.size();
  for (size_t i = 0; i < n + 2 * AHEAD; ++i) {
    if (i < n) host_.ask(entered_[i].tile, entered_[i].key);
    if (i >= AHEAD && i - AHEAD < n) {
      Entered& row = entered_[i - AHEAD];
      row.host = host_.find(row.tile, row.key);
      if (row.host != HostTier::NONE) host_.ask_slot(row.tile, row.host);
    }
    if (i >= 2 * AHEAD) bring_in(entered_[i - 2 * AHEAD], fetch);
  }
  for (const auto& [tile, host] : freed_) host_.give(tile, host);
}

void Tiers::bring_in(const Entered& row, Fetch& fetch) {
  uint32_t batch;
  if (later_[plane_[row.tile]]->erase(&row.key, 1, &batch) == 1)
    residents_of(row.tile).at(row.slot).wanted = batch;
  const uint32_t host = row.host;
  if (host != HostTier::NONE) {
    fetch.up.push_back({place(row.tile, row.slot), host_.record(row.tile, host)});
    if (host_.take(row.tile, host)) fetch.stale.push_back({row.tile, row.key});
    freed_.emplace_back(row.tile, host);
    ++traffic_.host_hits;
    traffic_.host_read_bytes += host_.record_bytes(row.tile);
  } else if (file_ != nullptr && file_->contains(row.tile, row.key)) {
    fetch.from_file.push_back({place(row.tile, row.slot), row.key, nullptr});
    ++traffic_.file_hits;
    traffic_.file_read_bytes += host_.record_bytes(row.tile);
  } else {
    const uint64_t position = keys_[row.tile].id(row.key);
    fetch.births.push_back({place(row.tile, row.slot), tiles_[row.tile]->id_of(position)});
    tiles_[row.tile]->count(+1);
    ++traffic_.born;
  }
}

void Tiers::release(const Ticket& ticket) {
  outstanding_.erase(ticket.number);
  made_room();
}

void Tiers::made_room() {
  ++room_events_;
  room_.notify_all();
}

void Tiers::settle() {
  fetcher_->wait(fetcher_->pushed());
  std::unique_lock<std::mutex> lock(guard_);
  room_.wait(lock, [&] { return !write_back_ || write_back_->idle(); });
}

void Tiers::wait_for_room(double seconds) {
  std::unique_lock<std::mutex> lock(guard_);
  room_.wait_for(lock, std::chrono::duration<double>(seconds),
                 [&] { return room_events_ != room_seen_; });
}

size_t Tiers::needed_bytes(const std::vector<Lookups>& planes) const {
  std::vector<size_t> rows(shelves_.size());
  for (const Lookups& lookups : planes) {
    std::vector<std::pair<uint32_t, uint64_t>> distinct;
    for (const Lookups::Part& part : lookups.parts)
      for (size_t i = part.begin; i < part.end; ++i)
        distinct.emplace_back(shelf_of_tile_[part.tile], lookups.keys[i]);
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (const auto& row : distinct) ++rows[row.first];
  }
  size_t bytes = index_.size() * 2 * Mapping::PAGE;
  for (size_t s = 0; s < shelves_.size(); ++s) {
    const size_t per_block = shelves_[s]->layout().rows;
    bytes += (rows[s] + per_block - 1) / per_block * shelves_[s]->layout().block_bytes;
  }
  return static_cast<size_t>(static_cast<double>(bytes) / left_) + 1;
}

}  // namespace ff
