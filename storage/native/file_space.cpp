// Space in the file: growth, cleaning, and taking over a file of an earlier run.
#include <algorithm>

#include "errors.h"
#include "file_tier.h"

namespace ff {
namespace {

constexpr size_t MOST_BYTES = size_t{128} << 10;  // of one request

// Percent of a segment that lives: up to which it is cleaned rather than the file grown, and up to
// which when the file cannot grow.
constexpr uint32_t CLEAN_AT_ONCE = 25;
constexpr uint32_t CLEAN_AT_MOST = 95;

}  // namespace

// A segment for the next pages, if there is one beyond the `keep` that stay free and cleaning would
// not be better.
bool FileTier::open_segment(Kind& kind, size_t keep) {
  Segments& segments = kind.segments;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    freed_.wait(lock, [&] {
      return segments.free() > keep || segments.free() + segments.draining() <= keep;
    });
    if (segments.free() > keep) {
      kind.head = {segments.take(), 0};
      return true;
    }
    const uint32_t emptiest = segments.emptiest();
    const bool worth = emptiest != NONE && segments.worth_cleaning(emptiest, CLEAN_AT_ONCE);
    if (keep == 0 || (worth && segments.free() == keep)) return false;
  }
  return grow(kind) && open_segment(kind, keep);
}

// Makes segments within the budget: one to fill and one to keep, and some ahead in a large file.
// Nobody but the one write that is under way changes how many there are.
bool FileTier::grow(Kind& kind) {
  Segments& segments = kind.segments;
  size_t needed = 1;
  {
    std::lock_guard<std::mutex> lock(mutex_);  // reads that end may free segments
    if (segments.free() < KEPT) needed = 2;
  }
  borrow(kind, needed * segments.bytes());
  const size_t left = options_.budget_bytes > held_ ? options_.budget_bytes - held_ : 0;
  const size_t nameable = segments.most() - segments.count() + segments.hollow();
  const size_t most = std::min(left / segments.bytes(), nameable);
  if (most < needed) return false;
  const size_t ahead = std::min(segments.count() / 16, most / 2);
  const size_t count = std::max(needed, ahead);
  const size_t refilled = std::min(count, segments.hollow());
  std::vector<uint64_t> offsets;
  if (count > refilled)
    offsets = extend_(static_cast<uint32_t>(&kind - kinds_.data()), count - refilled);
  std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < refilled; ++i) segments.refill();
  for (const uint64_t offset : offsets) segments.add(offset);
  held_ += count * segments.bytes();
  return true;
}

// Takes free segments from other kinds, which keep one each, until so many bytes are left of the
// budget. False if they do not have that many.
bool FileTier::borrow(const Kind& kind, size_t bytes) {
  for (Kind& other : kinds_) {
    while (held_ + bytes > options_.budget_bytes)
      if (&other == &kind || !discard_one(other, KEPT)) break;
  }
  return held_ + bytes <= options_.budget_bytes;
}

// Makes a free segment hollow, if there is one beyond `keep`.
bool FileTier::discard_one(Kind& kind, size_t keep) {
  Segments& segments = kind.segments;
  uint32_t segment;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (segments.free() <= keep) return false;
    segment = segments.take();
  }
  const bool gone = disk_->discard(segments.offset(segment), segments.bytes());
  std::lock_guard<std::mutex> lock(mutex_);
  if (gone) {
    segments.set_hollow(segment);
    held_ -= segments.bytes();
  } else {
    segments.give_back(segment);
  }
  return gone;
}

void FileTier::discard_free() {
  std::lock_guard<std::mutex> writing(write_mutex_);
  for (Kind& kind : kinds_)
    while (discard_one(kind, 0)) {
    }
}

// Moves the rows of the emptiest segment, so that it can be filled again; nothing to do if there is
// one by now. There is a free segment, which takes them and has room left.
void FileTier::clean(Kind& kind) {
  Segments& segments = kind.segments;
  uint32_t emptiest;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    emptiest = segments.emptiest();
    const bool gains = emptiest != NONE && segments.worth_cleaning(emptiest, CLEAN_AT_MOST);
    // The last rows of the one that was to be cleaned may have left meanwhile.
    if (!gains && segments.free() + segments.draining() > KEPT) return;
    if (!gains || segments.free() + segments.draining() == 0) refuse(kind);
  }
  read_segment(kind, emptiest);
  append(kind, survivors(kind, emptiest), true);
}

// Needs the mutex.
void FileTier::refuse(const Kind& kind) const {
  uint64_t rows = 0;
  for (const Kind& other : kinds_) rows += other.segments.live();
  throw BudgetError(options_.path + " holds " + bytes_text(held_) + " with " +
                    std::to_string(rows) + " rows; no more of " + kind.facts.dataset + " (" +
                    std::to_string(kind.segments.live()) + " rows in " +
                    std::to_string(kind.segments.count()) + " segments of " +
                    bytes_text(kind.segments.bytes()) +
                    ") fit within storage.file_bytes = " + bytes_text(options_.budget_bytes));
}

void FileTier::read_segment(const Kind& kind, uint32_t segment) {
  const Segments& segments = kind.segments;
  char* const data = static_cast<char*>(victim_.data());
  std::vector<Piece> pieces;
  for (size_t at = 0; at < segments.bytes(); at += MOST_BYTES)
    pieces.push_back(
        {segments.offset(segment) + at, data + at, std::min(MOST_BYTES, segments.bytes() - at)});
  disk_->read(pieces.data(), pieces.size(), [](size_t) {});
  for (const Piece& piece : pieces)
    require_moved(kind, piece, segments.first_place(segment), segments.rows(), false);
}

// The rows of the segment in victim_ that live, checked.
std::vector<FileTier::Incoming> FileTier::survivors(const Kind& kind, uint32_t segment) const {
  const Segments& segments = kind.segments;
  const PageLayout& layout = segments.page();
  const char* const data = static_cast<const char*>(victim_.data());
  std::vector<Incoming> rows;
  std::lock_guard<std::mutex> lock(mutex_);
  for (uint32_t i = 0; i < segments.rows(); ++i) {
    const char* const stored =
        data + i / layout.rows * layout.page_bytes + i % layout.rows * layout.stored_bytes;
    const uint32_t tile = layout.tile(stored), place = segments.first_place(segment) + i;
    const uint64_t key = layout.key(stored);
    if (tile >= tiles_.size() || &kind_of(tile) != &kind || !places_[tile].holds(key)) continue;
    uint32_t now;
    places_[tile].find(&key, &now, 1);
    if (now == place && layout.intact(stored)) rows.push_back({tile, place, key, stored});
  }
  if (rows.size() == segments.live(segment)) return rows;
  throw CorruptionError(where(kind, segments.first_place(segment), segments.rows()) + ": " +
                        std::to_string(segments.live(segment) - rows.size()) + " of " +
                        std::to_string(segments.live(segment)) +
                        " rows are not what was written: checksum or key is wrong");
}

void FileTier::restore(size_t number, const std::vector<uint64_t>& offsets, const bool* live) {
  std::lock_guard<std::mutex> writing(write_mutex_);
  Kind& kind = kinds_.at(number);
  Segments& segments = kind.segments;
  for (const uint64_t offset : offsets) {
    const uint32_t segment = static_cast<uint32_t>(segments.count());
    const bool* const here = live;
    live += segments.rows();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      segments.add_sealed(offset);
      held_ += segments.bytes();
    }
    if (std::find(here, here + segments.rows(), true) == here + segments.rows()) continue;
    read_segment(kind, segment);
    restore_segment(kind, segment, here);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  held_ -= segments.hollow_empty() * segments.bytes();
}

void FileTier::restore_segment(Kind& kind, uint32_t segment, const bool* live) {
  Segments& segments = kind.segments;
  const PageLayout& layout = segments.page();
  const char* const data = static_cast<const char*>(victim_.data());
  std::lock_guard<std::mutex> lock(mutex_);
  for (uint32_t i = 0; i < segments.rows(); ++i) {
    if (!live[i]) continue;
    const char* const stored =
        data + i / layout.rows * layout.page_bytes + i % layout.rows * layout.stored_bytes;
    const uint32_t tile = layout.tile(stored), place = segments.first_place(segment) + i;
    const uint64_t key = layout.key(stored);
    if (!layout.intact(stored) || tile >= tiles_.size() || &kind_of(tile) != &kind ||
        !places_[tile].holds(key))
      throw CorruptionError(where(kind, place, 1) + " is not what was written");
    uint32_t was;
    places_[tile].set(&key, &place, &was, 1);
    segments.arrive(place);
    if (was != NONE)
      throw CorruptionError(where(kind, place, 1) + " and " + where(kind, was, 1) +
                            " are the same row of " + tiles_[tile].label);
  }
}

}  // namespace ff
