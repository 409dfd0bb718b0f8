// Writing rows of the file tier: pages are filled while others are on their way, and rows count
// from when all of them have arrived.
#include <algorithm>
#include <cstring>

#include "file_tier.h"

namespace ff {
namespace {

constexpr size_t MOST_BYTES = size_t{128} << 10;  // of one request

}  // namespace

void FileTier::write(const RowRef* rows, size_t n) {
  check(rows, n);
  std::lock_guard<std::mutex> writing(write_mutex_);
  std::vector<std::vector<Incoming>> incoming(kinds_.size());
  for (size_t i = 0; i < n; ++i)
    incoming[tiles_[rows[i].tile].kind].push_back(
        {rows[i].tile, NONE, rows[i].key, rows[i].record});
  for (size_t kind = 0; kind < kinds_.size(); ++kind)
    if (!incoming[kind].empty()) append(kinds_[kind], incoming[kind], false);
}

// Writes rows to the next pages.
void FileTier::append(Kind& kind, const std::vector<Incoming>& rows, bool cleaning) {
  std::vector<Run> runs;
  try {
    for (size_t at = 0; at < rows.size();) at = plan_run(kind, rows, at, cleaning, runs);
    flush(kind, rows, runs);
  } catch (...) {
    rewind(kind, runs);
    throw;
  }
}

// Gives pages to rows from `at` on, as many as one segment and the stage have, and returns the
// first row that has none. Segments are found on the way; the last free one is for cleaning.
size_t FileTier::plan_run(Kind& kind, const std::vector<Incoming>& rows, size_t at, bool cleaning,
                          std::vector<Run>& runs) {
  const PageLayout& layout = kind.segments.page();
  if (kind.full() && !open_segment(kind, cleaning ? 0 : KEPT)) {
    flush(kind, rows, runs);
    if (cleaning) {
      std::lock_guard<std::mutex> lock(mutex_);
      refuse(kind);
    }
    clean(kind);
    return at;
  }
  size_t room = stage_.bytes() / layout.page_bytes;
  for (const Run& run : runs) room -= run.pages;
  const size_t needed = (rows.size() - at + layout.rows - 1) / layout.rows;
  const size_t here = std::min<size_t>(kind.segments.pages() - kind.head.page, room);
  const uint32_t pages = static_cast<uint32_t>(std::min(needed, here));
  const size_t end = std::min(rows.size(), at + size_t{pages} * layout.rows);
  runs.push_back({kind.head.segment, kind.head.page, pages, at, end});
  kind.head.page += pages;
  if (pages == room) flush(kind, rows, runs);
  return end;
}

// Writes what is planned. After an error rows of earlier flushes are in, and so may be rows of this
// one; the file holds all that it held.
void FileTier::flush(Kind& kind, const std::vector<Incoming>& rows, std::vector<Run>& planned) {
  transfer(kind, rows, planned);
  const std::vector<Run> runs = std::move(planned);
  planned.clear();
  try {
    for (const Run& run : runs) commit(kind, rows, run);
  } catch (...) {
    settle(kind, runs);
    throw;
  }
  settle(kind, runs);
}

void FileTier::transfer(const Kind& kind, const std::vector<Incoming>& rows,
                        const std::vector<Run>& runs) {
  const Segments& segments = kind.segments;
  const PageLayout& layout = segments.page();
  const uint32_t step = static_cast<uint32_t>(std::max<size_t>(1, MOST_BYTES / layout.page_bytes));
  std::vector<Piece> pieces;
  std::vector<Run> parts;
  char* data = static_cast<char*>(stage_.data());
  for (const Run& run : runs)
    for (uint32_t page = 0; page < run.pages; page += step) {
      const uint32_t pages = std::min(step, run.pages - page);
      const size_t begin = run.begin + size_t{page} * layout.rows;
      const size_t end = std::min(run.end, begin + size_t{pages} * layout.rows);
      const uint64_t offset =
          segments.offset(run.segment) + (run.first_page + page) * layout.page_bytes;
      pieces.push_back({offset, data, pages * layout.page_bytes});
      parts.push_back({run.segment, run.first_page + page, pages, begin, end});
      data += pages * layout.page_bytes;
    }
  disk_->write(pieces.data(), pieces.size(), [&](size_t i) {
    char* page = pieces[i].data;
    for (size_t at = parts[i].begin; at < parts[i].end; page += layout.page_bytes) {
      char* stored = page;
      for (uint32_t slot = 0; slot < layout.rows && at < parts[i].end; ++slot, ++at) {
        layout.store(stored, rows[at].tile, rows[at].key, rows[at].record);
        stored += layout.stored_bytes;
      }
      memset(stored, 0, static_cast<size_t>(page + layout.page_bytes - stored));
    }
  });
  for (size_t i = 0; i < pieces.size(); ++i)
    require_moved(
        kind, pieces[i],
        segments.first_place(parts[i].segment) + uint64_t{parts[i].first_page} * layout.rows,
        parts[i].end - parts[i].begin, true);
}

void FileTier::commit(Kind& kind, const std::vector<Incoming>& rows, const Run& run) {
  const Segments& segments = kind.segments;
  uint32_t place = segments.first_place(run.segment) + run.first_page * segments.page().rows;
  for (size_t begin = run.begin, end; begin < run.end; begin = end) {
    for (end = begin + 1; end < run.end && end - begin < Places::BATCH; ++end)
      if (rows[end].tile != rows[begin].tile) break;
    commit_part(kind, rows.data() + begin, end - begin, place);
    place += static_cast<uint32_t>(end - begin);
  }
}

// Rows of one tile have arrived at consecutive places. A row that was erased while it was being
// moved stays erased.
void FileTier::commit_part(Kind& kind, const Incoming* rows, size_t n, uint32_t first_place) {
  uint64_t keys[Places::BATCH];
  uint32_t places[Places::BATCH], was[Places::BATCH];
  for (size_t i = 0; i < n; ++i) {
    keys[i] = rows[i].key;
    places[i] = first_place + static_cast<uint32_t>(i);
    was[i] = rows[i].from;
  }
  const bool moving = rows[0].from != NONE;
  bool moved[Places::BATCH];
  std::lock_guard<std::mutex> lock(mutex_);
  Places& index = places_[rows[0].tile];
  if (moving)
    index.move(keys, was, places, moved, n);
  else
    index.set(keys, places, was, n);
  for (size_t i = 0; i < n; ++i)
    if (!moving || moved[i]) kind.segments.arrive(places[i]);
  for (size_t i = 0; i < n; ++i)
    if (moving ? moved[i] : was[i] != NONE) kind.segments.leave(was[i]);
}

// The pages of these runs are used: segments that are full are sealed.
void FileTier::settle(Kind& kind, const std::vector<Run>& runs) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Run& run : runs)
    if (run.first_page + run.pages == kind.segments.pages()) kind.segments.seal(run.segment);
  if (kind.full()) kind.head = {};
  kind.settled = kind.head;
}

// These runs have not been written. The segment that they began in is left as it is, so that what
// the device refuses is not asked for again at once.
void FileTier::rewind(Kind& kind, const std::vector<Run>& runs) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Run& run : runs)
    if (run.first_page == 0) kind.segments.give_back(run.segment);
  if (!runs.empty() && kind.settled.segment != NONE) {
    kind.segments.seal(kind.settled.segment);
    kind.settled = {};
  }
  kind.head = kind.settled;
}

}  // namespace ff
