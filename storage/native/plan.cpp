#include <algorithm>
#include <bit>
#include <stdexcept>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

constexpr size_t BIRTHS_PER_THREAD = 64;
constexpr size_t IDS_PER_THREAD = 16384;

// The largest blocks that tiles should take: small beside the budget, so that little of it is left
// unused; for dynamic tiles, of which any may stay small, small beside their share of it.
size_t block_limit(size_t budget, size_t parts) {
  return std::clamp(std::bit_floor(budget / (64 * parts) | 1), Pool::SMALLEST, Pool::LARGEST);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("Pad.plan: malformed request: ") + what);
}

}  // namespace

Pad::Pad(std::vector<TileSpec> specs, std::vector<KeyRange> keys, size_t budget, int threads,
         bool huge_pages)
    : threads_(threads), pool_(std::make_unique<Pool>(budget, huge_pages)), keys_(std::move(keys)) {
  const size_t static_limit = block_limit(budget, 1);
  const size_t dynamic_limit =
      std::min(block_limit(budget, std::max<size_t>(1, specs.size())), Pool::LARGEST / 2);
  for (TileSpec& spec : specs) {
    size_t plane = 0;
    for (const auto& other : tiles_)
      plane += other->spec().dynamic() && other->spec().table == spec.table;
    plane_.push_back(plane);
    while (spec.dynamic() && index_.size() <= plane)
      index_.push_back(std::make_unique<Index>(0, huge_pages, [this](size_t bytes) {
        pool_->charge(bytes, "the index of the dynamic tables");
      }));
    const size_t limit = spec.dynamic() ? dynamic_limit : static_limit;
    tiles_.push_back(std::make_unique<Tile>(std::move(spec), *pool_, limit));
  }
}

std::unique_ptr<Ticket> Pad::plan(const Request& request, bool train) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto ticket = std::make_unique<Ticket>();
  if (!spares_.empty()) {
    *ticket = std::move(spares_.back());
    spares_.pop_back();
  }
  ticket->train = train;
  ticket->released = false;
  ticket->rows = request.num_ids;
  read_segments(request, *ticket);
  make_runs(*ticket);
  resolve(request, *ticket);
  keep_ids(request, *ticket);
  share_replies(*ticket);
  if (train) {
    std::vector<bool> needs_id;
    for (const auto& tile : tiles_) needs_id.push_back(tile->spec().dtype != Dtype::fp32);
    group_rows(*ticket, needs_id, group_space_, threads_);
    share_updates(*ticket);
  }
  return ticket;
}

void Pad::release(Ticket& ticket) {
  if (ticket.released) return;
  std::lock_guard<std::mutex> lock(mutex_);
  spares_.push_back(std::move(ticket));
  ticket = Ticket{};
  ticket.released = true;
}

// Copies the request's shape, checking that its arrays agree.
void Pad::read_segments(const Request& request, Ticket& ticket) const {
  const size_t S = request.segments;
  require(request.first[0] == 0 && request.first[S] == static_cast<int64_t>(request.num_ids),
          "first does not cover ids");
  require(request.num_ids < (uint64_t{1} << 32), "2^32 or more ids in one batch");
  ticket.segments.clear();
  ticket.offsets.clear();
  size_t bag = 0;
  for (size_t s = 0; s < S; ++s) {
    const int32_t tile = request.tile[s];
    require(tile >= 0 && static_cast<size_t>(tile) < tiles_.size(), "a tile that is not held");
    require(s == 0 || tile >= request.tile[s - 1], "segments are not ordered by tile");
    const int64_t begin = request.first[s], end = request.first[s + 1];
    const int64_t rows = request.bags[s + 1] - request.bags[s];
    require(begin <= end && rows >= 0, "first or bags goes down");
    Segment segment{static_cast<uint32_t>(tile), request.pooled[s],
                    request.replies[s],          static_cast<size_t>(begin),
                    static_cast<size_t>(end),    static_cast<size_t>(rows),
                    ticket.offsets.size()};
    if (segment.pooled) {
      require(bag + segment.rows <= request.num_lengths, "fewer lengths than pooled bags");
      int64_t offset = begin;
      ticket.offsets.push_back(offset);
      for (size_t b = 0; b < segment.rows; ++b) {
        const int32_t length = request.lengths[bag++];
        require(length >= 0, "a negative length");
        ticket.offsets.push_back(offset += length);
      }
      require(offset == end, "lengths of a pooled segment do not sum to its ids");
    } else {
      require(rows == end - begin, "a rows segment needs one reply row per id");
    }
    ticket.segments.push_back(segment);
  }
  require(bag == request.num_lengths, "more lengths than pooled bags");
  if (request.weights != nullptr)
    ticket.weights.assign(request.weights, request.weights + request.num_ids);
  else
    ticket.weights.clear();
}

void Pad::make_runs(Ticket& ticket) const {
  ticket.runs.clear();
  for (size_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    if (s == 0 || ticket.runs.back().tile != segment.tile)
      ticket.runs.push_back(
          {segment.tile, s, s, segment.id_begin, segment.id_begin, !segment.pooled, 0, 0});
    Run& run = ticket.runs.back();
    run.distinct = run.distinct && run.segment_end == run.segment_begin;
    run.segment_end = s + 1;
    run.id_end = segment.id_end;
  }
}

// Slots for all ids. Whatever happens, rows that were counted as born are written.
void Pad::resolve(const Request& request, Ticket& ticket) {
  ticket.slots.resize(request.num_ids);
  ticket.missing = 0;
  newborns_.clear();
  try {
    for (const Run& run : ticket.runs)
      if (!tiles_[run.tile]->spec().dynamic()) resolve_static(run, request.ids, ticket);
    for (size_t plane = 0; plane < index_.size(); ++plane)
      resolve_dynamic(plane, request.ids, ticket);
  } catch (...) {
    bear_newborns();
    throw;
  }
  ticket.born = newborns_.size();
  bear_newborns();
  locate(ticket);
}

// Where the rows lie. They stay there until the ticket is released.
void Pad::locate(Ticket& ticket) const {
  ticket.rows_at.resize(ticket.slots.size());
  for (const Run& run : ticket.runs) {
    const RowView view = tiles_[run.tile]->view();
    const size_t ids = run.id_end - run.id_begin;
    parallel_for(threads_, ids, IDS_PER_THREAD, [&](size_t begin, size_t end, int) {
      for (size_t i = run.id_begin + begin; i < run.id_begin + end; ++i) {
        const uint32_t slot = ticket.slots[i];
        ticket.rows_at[i] = slot == Tile::NONE ? nullptr : view.weights(slot);
      }
    });
  }
}

void Pad::resolve_static(const Run& run, const int64_t* positions, Ticket& ticket) {
  Tile& tile = *tiles_[run.tile];
  const uint64_t rows = tile.positions();
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t position = static_cast<uint64_t>(positions[i]);
    if (position >= rows) refuse_id(run.tile, positions[i]);
    ticket.slots[i] = tile.slot_of(position);
  }
  if (tile.complete()) return;
  for (size_t i = run.id_begin; i < run.id_end; ++i) {
    const uint64_t position = static_cast<uint64_t>(positions[i]);
    if (tile.born(position)) continue;
    if (!ticket.train) {
      ticket.slots[i] = Tile::NONE;
      ++ticket.missing;
      continue;
    }
    tile.claim(position, ticket.slots[i]);
    newborns_.push_back({run.tile, ticket.slots[i], tile.id_of(position)});
  }
}

void Pad::resolve_dynamic(size_t plane, const int64_t* ids, Ticket& ticket) {
  auto here = [&](const Run& run) {
    return tiles_[run.tile]->spec().dynamic() && plane_[run.tile] == plane;
  };
  lookup_keys_.clear();
  for (const Run& run : ticket.runs) {
    if (!here(run)) continue;
    const KeyRange range = keys_[run.tile];
    for (size_t i = run.id_begin; i < run.id_end; ++i) {
      if (!range.holds(static_cast<uint64_t>(ids[i]))) refuse_id(run.tile, ids[i]);
      lookup_keys_.push_back(range.key(static_cast<uint64_t>(ids[i])));
    }
  }
  lookup_slots_.resize(lookup_keys_.size());
  if (ticket.train) {
    // New keys come in the order of the batch, so the run they belong to only moves forward.
    auto run = std::find_if(ticket.runs.begin(), ticket.runs.end(), here);
    size_t run_begin = 0;
    auto new_slot = [&](size_t at) {
      while (at - run_begin >= run->id_end - run->id_begin) {
        run_begin += run->id_end - run->id_begin;
        run = std::find_if(run + 1, ticket.runs.end(), here);
      }
      const uint32_t slot = tiles_[run->tile]->append();
      newborns_.push_back({run->tile, slot, keys_[run->tile].id(lookup_keys_[at])});
      return slot;
    };
    index_[plane]->find_or_insert(lookup_keys_.data(), lookup_slots_.data(), lookup_keys_.size(),
                                  new_slot, threads_);
  } else {
    index_[plane]->find(lookup_keys_.data(), lookup_slots_.data(), lookup_keys_.size(), threads_);
    ticket.missing += std::count(lookup_slots_.begin(), lookup_slots_.end(), Tile::NONE);
  }
  size_t at = 0;
  for (const Run& run : ticket.runs) {
    if (!here(run)) continue;
    const size_t n = run.id_end - run.id_begin;
    std::copy_n(lookup_slots_.begin() + at, n, ticket.slots.begin() + run.id_begin);
    at += n;
  }
}

void Pad::bear_newborns() {
  parallel_for(threads_, newborns_.size(), BIRTHS_PER_THREAD, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i)
      tiles_[newborns_[i].tile]->bear(newborns_[i].id, newborns_[i].slot);
  });
  newborns_.clear();
}

// Ids of the tables, kept where a newborn answer or the noise of stochastic rounding needs them.
void Pad::keep_ids(const Request& request, Ticket& ticket) const {
  bool needed = ticket.missing > 0;
  for (const Run& run : ticket.runs)
    needed |= ticket.train && tiles_[run.tile]->spec().dtype != Dtype::fp32;
  ticket.ids.resize(needed ? request.num_ids : 0);
  if (!needed) return;
  for (const Run& run : ticket.runs)
    for (size_t i = run.id_begin; i < run.id_end; ++i)
      ticket.ids[i] = tiles_[run.tile]->id_of(static_cast<uint64_t>(request.ids[i]));
}

void Pad::check(const Ticket& ticket, size_t segments) const {
  if (ticket.released) throw std::invalid_argument("Pad: this ticket has been released");
  if (segments != ticket.segments.size())
    throw std::invalid_argument("Pad: " + std::to_string(segments) + " addresses for " +
                                std::to_string(ticket.segments.size()) + " segments");
}

void Pad::refuse_id(size_t t, int64_t id) const {
  const Tile& tile = *tiles_[t];
  const TileSpec& spec = tile.spec();
  if (spec.dynamic())
    throw std::invalid_argument(spec.label() + ": id " + std::to_string(id) + " is outside [0, 2^" +
                                std::to_string(keys_[t].bits) +
                                "), what its keys leave for ids; use smaller ids or set hash_ids");
  throw std::invalid_argument(spec.label() + ": row position " + std::to_string(id) +
                              " is outside [0, " + std::to_string(tile.positions()) +
                              "); the table has ids in [0, " + std::to_string(spec.rows) + ")");
}

}  // namespace ff
