#include "host_tier.h"

#include <algorithm>
#include <cstring>

#include "errors.h"

namespace ff {
namespace {

constexpr size_t ARRIVAL_BYTES = 24;  // of a row in the queue, with those that have gone

RowLayout layout_for(size_t record_bytes, size_t budget) {
  RowLayout layout;
  layout.weight_stride = static_cast<uint32_t>((record_bytes + 15) / 16 * 16);
  layout.divide(Shelf::block_for(layout.row_bytes(), budget));
  return layout;
}

}  // namespace

HostTier::HostTier(std::vector<TileSpec> specs, std::vector<KeyRange> keys, size_t budget,
                   bool huge_pages)
    : specs_(std::move(specs)),
      keys_(std::move(keys)),
      pool_(budget, huge_pages),
      counts_(specs_.size()) {
  std::vector<size_t> sizes;
  std::vector<RowLayout> layouts;
  for (const TileSpec& spec : specs_) {
    const size_t bytes = Tile::layout_of(spec).record_bytes();
    record_bytes_.push_back(static_cast<uint32_t>(bytes));
    plane_.push_back(plane_of(specs_, plane_.size()));
    const size_t at = std::find(sizes.begin(), sizes.end(), bytes) - sizes.begin();
    shelf_of_.push_back(static_cast<uint32_t>(at));
    if (at == sizes.size()) {
      sizes.push_back(bytes);
      const RowLayout layout = layout_for(bytes, budget);
      const uint64_t most =
          std::min(Shelf::nameable(layout), pool_.most() / layout.block_bytes + 1);
      shelves_.push_back(
          std::make_unique<Shelf>(layout, pool_, "the host tier", most, sizeof(Row)));
      layouts.push_back(layout);
      cost_.push_back(layout.block_bytes / layout.rows);
    }
    while (index_.size() <= plane_.back()) {
      index_.push_back(std::make_unique<Index>(0, huge_pages));
      pool_.charge(2 * index_.back()->bytes(), "the index of the host tier");
    }
  }
  left_ = Shelf::set_aside(pool_, layouts, sizeof(Row), Index::KEY_BYTES + ARRIVAL_BYTES,
                           "the host tier");
}

uint32_t HostTier::find(uint32_t tile, uint64_t key) const {
  uint32_t slot;
  index(tile).find(&key, &slot, 1, 1);
  return slot;
}

// Room for a row, whose key is the caller's.
uint32_t HostTier::admit(uint32_t tile, uint64_t key, uint32_t stamp) {
  uint32_t slot = shelf(tile).take();
  while (slot == NONE && drop_oldest()) slot = shelf(tile).take();
  if (slot == NONE) {
    pressed_ = true;
    if (write_behind_ && waiting_ + writing_ > 0) return NONE;
    throw BudgetError(
        "the host tier is full: its budget is " + bytes_text(pool_.budget()) + " and " +
        std::to_string(total()) + " rows lie there; raise storage.host_bytes" +
        (write_behind_ ? "" : ", set storage.file_bytes") + ", or add embedding ranks");
  }
  row(tile, slot) = {key, stamp, tile << 2 | DIRTY};
  ++counts_[tile];
  ++waiting_;
  waiting_bytes_ += cost(tile);
  pressed_ = false;
  if (write_behind_) {
    forget_stale();
    arrivals_.push_back({shelf_of_[tile], slot, stamp});
  }
  return slot;
}

bool HostTier::take(uint32_t tile, uint32_t slot) {
  Row& row = this->row(tile, slot);
  --counts_[tile];
  if (row.state() == DIRTY) {
    --waiting_;
    waiting_bytes_ -= cost(tile);
  }
  const bool in_file = row.state() == CLEAN;
  row.set(VACANT);
  return in_file;
}

void HostTier::remove(uint32_t tile, uint32_t slot) {
  index(tile).erase(&row(tile, slot).key, 1);
  take(tile, slot);
  give(tile, slot);
}

// Drops the oldest row that is written; false if there is none.
bool HostTier::drop_oldest() {
  while (begun_ > 0) {
    const Arrival oldest = arrivals_.front();
    const Row& row = shelves_[oldest.shelf]->side<Row>()[oldest.slot];
    if (row.is(oldest) && row.state() != CLEAN) return false;
    arrivals_.pop_front();
    --begun_;
    if (!row.is(oldest)) continue;
    remove(row.tile(), oldest.slot);
    return true;
  }
  return false;
}

// Rows that were taken leave their arrival behind; at most every second one is such.
void HostTier::forget_stale() {
  if (arrivals_.size() < 2 * total() + 1024) return;
  size_t at = 0, begun = 0;
  auto stale = [&](const Arrival& a) {
    const bool gone = !shelves_[a.shelf]->side<Row>()[a.slot].is(a);
    begun += !gone && at < begun_;
    ++at;
    return gone;
  };
  arrivals_.erase(std::remove_if(arrivals_.begin(), arrivals_.end(), stale), arrivals_.end());
  begun_ = begun;
}

bool HostTier::has_room() const {
  size_t blocks = 0;
  for (const auto& shelf : shelves_) blocks += shelf->layout().block_bytes;
  return pool_.held() <= pool_.budget() && blocks <= pool_.budget() - pool_.held();
}

bool HostTier::should_write() const {
  const double room = static_cast<double>(pool_.budget() - reserve_) * left_;
  return waiting_ > 0 &&
         (pressed_ || !urgent_.empty() || static_cast<double>(waiting_bytes_) > 0.75 * room);
}

size_t HostTier::total() const {
  size_t rows = 0;
  for (const size_t count : counts_) rows += count;
  return rows;
}

void HostTier::begin_write(size_t most, uint32_t stamp, std::vector<Waiting>& rows) {
  rows.clear();
  for (size_t n = urgent_.size(); n > 0 && rows.size() < most; --n) {
    const auto [shelf, slot] = urgent_.front();
    urgent_.pop_front();
    Row& row = shelves_[shelf]->side<Row>()[slot];
    if (row.state() != DIRTY) continue;
    if (row.stamp <= stamp)
      begin_row(slot, row, rows);
    else
      urgent_.emplace_back(shelf, slot);
  }
  for (; begun_ < arrivals_.size() && rows.size() < most; ++begun_) {
    const Arrival& next = arrivals_[begun_];
    Row& row = shelves_[next.shelf]->side<Row>()[next.slot];
    if (!row.is(next) || row.state() != DIRTY) continue;
    if (row.stamp > stamp) break;
    begin_row(next.slot, row, rows);
  }
}

void HostTier::begin_row(uint32_t slot, Row& row, std::vector<Waiting>& rows) {
  row.set(WRITING);
  --waiting_;
  waiting_bytes_ -= cost(row.tile());
  ++writing_;
  rows.push_back({row.tile(), slot, row.key, row.stamp});
}

bool HostTier::end_write(const Waiting& written) {
  --writing_;
  Row& row = this->row(written.tile, written.slot);
  if (row.state() != WRITING || row.stamp != written.stamp) return false;
  row.set(CLEAN);
  if (shelf(written.tile).leaving(written.slot)) remove(written.tile, written.slot);
  return true;
}

bool HostTier::reserve(size_t bytes, bool settled) {
  std::lock_guard<std::mutex> lock(reserve_mutex_);
  auto set_aside = [&](size_t more) {
    if (pool_.charge(more, "", false)) reserve_ += more;
    return bytes <= reserve_;
  };
  if (bytes <= reserve_ || set_aside(bytes - reserve_)) return true;
  if (!settled) return false;
  empty_out(bytes - reserve_);
  const size_t free = pool_.held() - pool_.in_use();
  const size_t more = std::min(bytes - reserve_, pool_.budget() - pool_.in_use());
  if (free > 0) pool_.shrink_for(more);
  return set_aside(more);
}

// Drops the written rows of some blocks, and has the others written next.
void HostTier::empty_out(size_t bytes) {
  size_t all = 0;
  for (const auto& shelf : shelves_) all += shelf->bytes();
  for (uint32_t s = 0; s < shelves_.size(); ++s) {
    Shelf& shelf = *shelves_[s];
    const RowLayout& layout = shelf.layout();
    if (all == 0) return;
    for (const uint32_t block : shelf.empty_out(bytes * shelf.bytes() / all))
      for (uint32_t i = 0; i < layout.rows && shelf.held(block); ++i) {
        const uint32_t slot = block << layout.shift | i;
        const Row& row = shelf.side<Row>()[slot];
        if (row.state() == DIRTY) urgent_.emplace_back(s, slot);
        if (row.state() == CLEAN) remove(row.tile(), slot);
      }
  }
}

void HostTier::charge(ptrdiff_t bytes) {
  std::lock_guard<std::mutex> lock(reserve_mutex_);
  if (bytes < 0) return pool_.refund(static_cast<size_t>(-bytes));
  const size_t reserved = std::min(reserve_, static_cast<size_t>(bytes));
  pool_.charge(static_cast<size_t>(bytes) - reserved, "the index of the file tier");
  reserve_ -= reserved;
}

void HostTier::read(const RowRef* rows, size_t n, bool* found) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t slot = find(rows[i].tile, rows[i].key);
    found[i] = slot != NONE;
    if (found[i]) memcpy(rows[i].record, record(rows[i].tile, slot), record_bytes_[rows[i].tile]);
  }
}

void HostTier::write(const RowRef* rows, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t slot = find(rows[i].tile, rows[i].key);
    if (slot == NONE) {
      admit(&rows[i].key, &slot, 1, 0, [&](size_t) { return rows[i].tile; });
      remember(plane_[rows[i].tile], &rows[i].key, &slot, 1);
    }
    memcpy(record(rows[i].tile, slot), rows[i].record, record_bytes_[rows[i].tile]);
  }
}

size_t HostTier::erase(const RowRef* rows, size_t n) {
  size_t erased = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t slot = find(rows[i].tile, rows[i].key);
    if (slot == NONE) continue;
    remove(rows[i].tile, slot);
    ++erased;
  }
  return erased;
}

std::vector<uint64_t> HostTier::keys(size_t tile) const {
  std::vector<std::pair<uint32_t, uint64_t>> found;
  index(static_cast<uint32_t>(tile)).for_each([&](uint64_t key, uint32_t slot) {
    if (keys_[tile].owns(key)) found.emplace_back(slot, key);
  });
  std::sort(found.begin(), found.end());
  std::vector<uint64_t> keys;
  for (const auto& [slot, key] : found) keys.push_back(key);
  return keys;
}

}  // namespace ff
