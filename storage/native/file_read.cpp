// Reading rows of the file tier: find and pin, read page by page, check, hand out.
#include <algorithm>
#include <atomic>

#include "errors.h"
#include "file_tier.h"

namespace ff {
namespace {

constexpr size_t MOST_BYTES = size_t{128} << 10;  // of adjacent pages read as one

}  // namespace

void FileTier::read(const RowRef* rows, size_t n, bool* found) {
  check(rows, n);
  std::lock_guard<std::mutex> reading(read_mutex_);
  std::vector<Wanted> wanted;
  wanted.reserve(n);
  locate(rows, n, found, wanted);
  size_t begin = 0, next = 0;
  try {
    std::sort(wanted.begin(), wanted.end(),
              [](const Wanted& a, const Wanted& b) { return a.where < b.where; });
    for (; begin < wanted.size(); begin = next) {
      read_window(rows, wanted, plan_window(wanted, next));
      unpin(wanted, begin, next);
    }
  } catch (...) {
    unpin(wanted, begin, wanted.size());
    throw;
  }
}

// Finds the rows that are here, and keeps their segments from being reused until unpin().
void FileTier::locate(const RowRef* rows, size_t n, bool* found, std::vector<Wanted>& wanted) {
  for_parts(rows, n, [&](size_t begin, size_t end, const uint64_t* keys) {
    uint32_t places[Places::BATCH];
    const uint32_t tile = rows[begin].tile;
    Segments& segments = kind_of(tile).segments;
    const uint64_t kind = uint64_t{tiles_[tile].kind} << 32;
    std::lock_guard<std::mutex> lock(mutex_);
    places_[tile].find(keys, places, end - begin);
    for (size_t i = begin; i < end; ++i) {
      const uint32_t place = places[i - begin];
      found[i] = place != NONE;
      if (!found[i]) continue;
      segments.pin(place);
      wanted.push_back({kind | place, i});
    }
  });
}

void FileTier::unpin(const std::vector<Wanted>& wanted, size_t begin, size_t end) {
  bool freed = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = begin; i < end; ++i)
      freed |= kinds_[wanted[i].kind()].segments.unpin(wanted[i].place());
  }
  if (freed) freed_.notify_all();
}

// Pieces for wanted rows from `next` on, as many as fit the buffer. A page comes once, adjacent
// pages of a segment together.
std::vector<FileTier::Catch> FileTier::plan_window(const std::vector<Wanted>& wanted,
                                                   size_t& next) const {
  std::vector<Catch> window;
  for (size_t bytes = 0; next < wanted.size(); ++next) {
    const uint32_t kind = wanted[next].kind();
    const Segments& segments = kinds_[kind].segments;
    const uint32_t page = segments.page_of(wanted[next].place());
    const size_t page_bytes = segments.page().page_bytes;
    Catch* const last = window.empty() ? nullptr : &window.back();
    const bool same = last != nullptr && last->kind == kind;
    if (!(same && page == last->first_page + last->pages - 1)) {
      if (bytes + page_bytes > window_.bytes()) break;
      bytes += page_bytes;
      if (same && page == last->first_page + last->pages && page % segments.pages() != 0 &&
          (last->pages + 1) * page_bytes <= MOST_BYTES)
        ++last->pages;
      else
        window.push_back({next, next, kind, page, 1});
    }
    window.back().end = next + 1;
  }
  return window;
}

void FileTier::read_window(const RowRef* rows, const std::vector<Wanted>& wanted,
                           const std::vector<Catch>& window) {
  std::vector<Piece> pieces;
  pieces.reserve(window.size());
  char* data = static_cast<char*>(window_.data());
  {
    std::lock_guard<std::mutex> lock(mutex_);  // the table of offsets may grow
    for (const Catch& caught : window) {
      const Segments& segments = kinds_[caught.kind].segments;
      const size_t bytes = caught.pages * segments.page().page_bytes;
      pieces.push_back({segments.offset_of_page(caught.first_page), data, bytes});
      data += bytes;
    }
  }
  std::atomic<size_t> damaged{~size_t{0}};  // any row that is
  disk_->read(pieces.data(), pieces.size(), [&](size_t i) {
    if (pieces[i].result != static_cast<int64_t>(pieces[i].bytes)) return;
    const size_t bad = deliver(rows, wanted, window[i], pieces[i].data);
    if (bad != ~size_t{0}) damaged = bad;
  });
  for (size_t i = 0; i < window.size(); ++i) {
    const Kind& kind = kinds_[window[i].kind];
    const uint64_t rows_per_page = kind.segments.page().rows;
    require_moved(kind, pieces[i], window[i].first_page * rows_per_page,
                  window[i].pages * rows_per_page, false);
  }
  if (damaged == ~size_t{0}) return;
  const Wanted& row = wanted[damaged];
  throw CorruptionError(where(kinds_[row.kind()], row.place(), 1) + ", a row of " +
                        tiles_[rows[row.row].tile].label +
                        ", is not what was written: its checksum or key is wrong");
}

// Copies records out of pages that have come; returns the first wanted row that is damaged, or ~0.
size_t FileTier::deliver(const RowRef* rows, const std::vector<Wanted>& wanted, const Catch& caught,
                         const char* data) const {
  const Segments& segments = kinds_[caught.kind].segments;
  const PageLayout& layout = segments.page();
  for (size_t i = caught.begin; i < caught.end; ++i) {
    const uint32_t place = wanted[i].place();
    const uint32_t page = segments.page_of(place);
    const uint32_t slot = place - page * layout.rows;
    const char* const stored =
        data + (page - caught.first_page) * layout.page_bytes + slot * layout.stored_bytes;
    const RowRef& row = rows[wanted[i].row];
    if (layout.key(stored) != row.key || layout.tile(stored) != row.tile || !layout.intact(stored))
      return i;
    memcpy(row.record, stored, layout.record_bytes);
  }
  return ~size_t{0};
}

}  // namespace ff
