#include "tiers.h"

#include <algorithm>
#include <chrono>

#include "errors.h"

namespace ff {
namespace {

// Blocks of all shelves have one size if rows allow it, so that any shelf can have another's.
RowLayout divided(RowLayout layout, const std::string& label, size_t budget) {
  const size_t row = layout.row_bytes();
  if (!layout.divide(Shelf::block_for(row, budget)))
    throw std::invalid_argument(label + ": a row of " + bytes_text(row) +
                                " is larger than a block of " + bytes_text(Pool::LARGEST));
  return layout;
}

}  // namespace

Tiers::Tiers(const std::vector<TileSpec>& specs, const std::vector<KeyRange>& keys, Pool& pool,
             const TileList& tiles, RowMemory& rows, HostTier& host, Tier* file, std::mutex& guard,
             int threads)
    : keys_(keys),
      tiles_(tiles),
      rows_(rows),
      host_(host),
      file_(file),
      guard_(guard),
      threads_(threads),
      pad_budget_(pool.budget()) {
  if (!pool.counts_charges()) pool.charge_to(host.pool());
  std::vector<RowLayout> layouts;
  for (size_t t = 0; t < specs.size(); ++t) {
    const RowLayout layout = Tile::layout_of(specs[t]);
    size_t at = 0;
    while (at < shelves_.size() && !shelves_[at]->layout().same_rows(layout)) ++at;
    if (at == shelves_.size()) {
      const RowLayout blocks = divided(layout, specs[t].label(), pool.budget());
      const uint64_t most =
          std::min<uint64_t>(Shelf::nameable(blocks), pool.most() / blocks.block_bytes + 1);
      shelves_.push_back(
          std::make_unique<Shelf>(blocks, pool, "the pad", most, Residents::SIDE_BYTES));
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
  left_ = Shelf::set_aside(pool, layouts, Residents::SIDE_BYTES, Index::KEY_BYTES,
                           "what is kept beside the pad");
  for (const auto& shelf : shelves_) residents_.emplace_back(*shelf);
  leaving_.resize(index_.size());
  auto notify = [this] {
    std::lock_guard<std::mutex> lock(guard_);
    made_room();
  };
  // Rows of a fetch can be written when it counts as done, not before.
  const auto ended = [this, notify](bool done) {
    if (!done)
      notify();
    else if (write_back_)
      write_back_->wake();
  };
  fetcher_ = std::make_unique<Fetcher>([this](Fetch& fetch) { carry_out(fetch); }, ended);
  if (file_ == nullptr) return;
  host_.write_behind();
  write_back_ = std::make_unique<WriteBack>(host_, *file_, *fetcher_, guard_, notify, spans_);
}

void Tiers::close() {
  if (write_back_) write_back_->close();
  fetcher_->close();
}

void Tiers::release(const Ticket& ticket) {
  outstanding_.erase(ticket.number);
  return_retired();
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
