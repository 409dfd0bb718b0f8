// What the file tier does without I/O.
#include "file_tier.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "errors.h"

namespace ff {
namespace {

// What to do about a full file system; storage/container.py says the same.
constexpr const char* NO_SPACE =
    "; free some, lower storage.file_bytes, or choose another storage.folder";
constexpr size_t SOME = size_t{4} << 30;  // bytes that a file without a budget is expected to hold

}  // namespace

FileTier::FileTier(std::vector<KindFacts> kinds, std::vector<TileFacts> tiles, Options options,
                   std::shared_ptr<Disk> disk, Extend extend)
    : options_(std::move(options)),
      disk_(std::move(disk)),
      extend_(std::move(extend)),
      tiles_(std::move(tiles)) {
  for (const KindFacts& facts : kinds) {
    const PageLayout page = PageLayout::of(facts.record_bytes);
    kinds_.push_back({facts, Segments(page, facts.segment_bytes), {}, {}});
  }
  take_buffers();
  for (const TileFacts& tile : tiles_) {
    if (tile.kind >= kinds_.size())
      throw std::invalid_argument(tile.label + ": records of an unknown kind");
    const PageLayout page = PageLayout::of(kinds[tile.kind].record_bytes);
    const size_t pages =
        (options_.budget_bytes == UNLIMITED ? SOME : options_.budget_bytes) / page.page_bytes;
    places_.emplace_back(tile.keys, tile.positions, uint64_t{pages} * page.rows,
                         [this](size_t bytes) { charge(static_cast<ptrdiff_t>(bytes)); });
  }
}

void FileTier::take_buffers() {
  size_t page = 0, segment = 0;
  for (const Kind& kind : kinds_) {
    page = std::max(page, kind.segments.page().page_bytes);
    segment = std::max(segment, kind.segments.bytes());
  }
  window_.grow(std::max(options_.buffer_bytes, page));
  stage_.grow(std::max(options_.buffer_bytes, page));
  victim_.grow(segment);
  charge(static_cast<ptrdiff_t>(window_.bytes() + stage_.bytes() + victim_.bytes()));
}

void FileTier::charge_to(Charge charge) {
  std::lock_guard<std::mutex> lock(charge_mutex_);
  if (charge) charge(static_cast<ptrdiff_t>(charged_));
  if (charge_) charge_(-static_cast<ptrdiff_t>(charged_));
  charge_ = std::move(charge);
}

void FileTier::charge(ptrdiff_t bytes) {
  std::lock_guard<std::mutex> lock(charge_mutex_);
  if (charge_) charge_(bytes);
  charged_ += static_cast<size_t>(bytes);
}

size_t FileTier::growth() const {
  std::lock_guard<std::mutex> lock(mutex_);
  size_t bytes = 0;
  for (const Places& places : places_) bytes += places.growth();
  return bytes;
}

size_t FileTier::memory() const {
  std::lock_guard<std::mutex> lock(charge_mutex_);
  return charged_;
}

void FileTier::check(const RowRef* rows, size_t n) const {
  for (size_t i = 0; i < n; ++i) {
    if (rows[i].tile >= tiles_.size())
      throw std::invalid_argument("there is no tile " + std::to_string(rows[i].tile));
    if (!places_[rows[i].tile].holds(rows[i].key))
      throw std::invalid_argument(tiles_[rows[i].tile].label + ": key " +
                                  std::to_string(rows[i].key) + " does not belong to this tile");
  }
}

size_t FileTier::erase(const RowRef* rows, size_t n) {
  check(rows, n);
  size_t erased = 0;
  for_parts(rows, n, [&](size_t begin, size_t end, const uint64_t* keys) {
    uint32_t was[Places::BATCH];
    const uint32_t tile = rows[begin].tile;
    std::lock_guard<std::mutex> lock(mutex_);
    erased += places_[tile].erase(keys, was, end - begin);
    for (size_t i = 0; i < end - begin; ++i)
      if (was[i] != NONE) kind_of(tile).segments.leave(was[i]);
  });
  return erased;
}

bool FileTier::contains(uint32_t tile, uint64_t key) const {
  const Places& places = places_.at(tile);
  if (!places.holds(key)) return false;
  uint32_t place;
  std::lock_guard<std::mutex> lock(mutex_);
  places.find(&key, &place, 1);
  return place != NONE;
}

std::vector<uint64_t> FileTier::keys(size_t tile) const {
  std::vector<std::pair<uint32_t, uint64_t>> rows;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    rows.reserve(places_.at(tile).rows());
    places_[tile].for_each([&](uint64_t key, uint32_t place) { rows.emplace_back(place, key); });
  }
  std::sort(rows.begin(), rows.end());
  std::vector<uint64_t> keys;
  keys.reserve(rows.size());
  for (const auto& row : rows) keys.push_back(row.second);
  return keys;
}

size_t FileTier::rows(size_t tile) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return places_.at(tile).rows();
}

size_t FileTier::bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return held_;
}

// Cleaning needs some room to move rows, and to find them worth moving.
size_t FileTier::most_rows(size_t tile) const {
  constexpr double FILLED = 0.85;
  const PageLayout page = PageLayout::of(record_bytes(tile));
  if (options_.budget_bytes == UNLIMITED) return ~size_t{0};
  const double pages = static_cast<double>(options_.budget_bytes / page.page_bytes);
  return static_cast<size_t>(FILLED * pages * page.rows);
}

size_t FileTier::record_bytes(size_t tile) const {
  return kinds_[tiles_.at(tile).kind].facts.record_bytes;
}

FileTier::Space FileTier::space(size_t kind) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const Segments& s = kinds_.at(kind).segments;
  return {s.count(), s.free(), s.live()};
}

std::vector<uint8_t> FileTier::live(size_t kind) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const Segments& segments = kinds_.at(kind).segments;
  std::vector<uint8_t> live((segments.count() * segments.rows() + 7) / 8);
  for (size_t tile = 0; tile < tiles_.size(); ++tile)
    if (tiles_[tile].kind == kind)
      places_[tile].for_each([&](uint64_t, uint32_t place) {
        live[place >> 3] |= static_cast<uint8_t>(1u << (place & 7));
      });
  return live;
}

// "rows.h5: /rows/fp32x64 records 128:160"
std::string FileTier::where(const Kind& kind, uint64_t first_place, uint64_t places) const {
  return options_.path + ": " + kind.facts.dataset + " records " + std::to_string(first_place) +
         ":" + std::to_string(first_place + places);
}

void FileTier::require_moved(const Kind& kind, const Piece& piece, uint64_t first_place,
                             uint64_t places, bool writing) const {
  if (piece.result == static_cast<int64_t>(piece.bytes)) return;
  const std::string what =
      where(kind, first_place, places) + " cannot be " + (writing ? "written: " : "read: ");
  if (piece.result < 0) {
    const int code = static_cast<int>(-piece.result);
    throw StorageError(code, what + strerror(code) + (code == ENOSPC ? NO_SPACE : ""));
  }
  throw StorageError(EIO, what + (writing ? "the system took " : "the file has been cut short: ") +
                              std::to_string(piece.result) + " of " + std::to_string(piece.bytes) +
                              " bytes at " + std::to_string(piece.offset));
}

}  // namespace ff
