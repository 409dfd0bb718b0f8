#include "row_work.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "parallel.h"

namespace ff {
namespace {

// Four times what runs at once, or more: when the last blocks are at work, others have ended.
constexpr size_t PIECES_PER_PROCESSOR = 32, SMALLEST = size_t{4} << 10, LARGEST = size_t{64} << 10;
constexpr size_t SHORTEST_CHUNK = 64;
constexpr size_t GRAIN = 16384;  // groups worth a thread

// The first number in [begin, end) from which on it `holds`, or end. It is near: looked for in
// steps that double, and then between the last two.
template <class Holds>
size_t first_from(size_t begin, size_t end, Holds&& holds) {
  size_t step = 1, low = begin, high = begin;
  while (high < end && !holds(high)) {
    low = high + 1;
    high = std::min(end, high + step);
    step *= 2;
  }
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (holds(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return high;
}

// Bytes that a block should move: few enough that all processors have some.
size_t piece_bytes(size_t total, uint32_t processors) {
  return std::clamp(total / (PIECES_PER_PROCESSOR * processors), SMALLEST, LARGEST);
}

// Rows that a block works on at once (team.h): a piece of fewer leaves some of its warps idle.
size_t rows_at_once(const TileRows& tile) {
  const size_t parts = tile.dim % 4 == 0 ? tile.dim / 4 : tile.dim;
  return ROW_THREADS / std::bit_ceil(std::min<size_t>(parts, 32));
}

size_t weight_bytes(const TileRows& tile) { return size_t{tile.dim} * bytes_of(tile.dtype); }

// What an update reads and writes of a row.
size_t row_bytes(const TileRows& tile) {
  const size_t state = size_t{4} * tile.dim * tile.element_states + 4 * tile.row_states;
  return 2 * (weight_bytes(tile) + state);
}

// As many entries as there are chunks, about: neither step of the sum is much longer.
size_t chunk_of(size_t entries) {
  return std::max(SHORTEST_CHUNK, size_t{1} << (std::bit_width(entries - 1) + 1) / 2);
}

void cut_long_group(uint32_t run, size_t group, size_t begin, size_t end, size_t dim,
                    UpdateWork& work) {
  const size_t chunk = chunk_of(end - begin), chunks = (end - begin + chunk - 1) / chunk;
  work.pieces.push_back({run, static_cast<uint32_t>(group), static_cast<uint32_t>(group + 1),
                         static_cast<uint32_t>(chunks), work.sums});
  for (size_t from = begin; from < end; from += chunk) {
    const size_t to = std::min(from + chunk, end);
    work.chunks.push_back({run, static_cast<uint32_t>(from), static_cast<uint32_t>(to), work.sums});
    work.sums += dim;
  }
  work.sums = (work.sums + 3) / 4 * 4;  // lanes read four floats at a time
}

// The long groups of a run, in their order.
void find_long_groups(const Ticket& ticket, const Run& run, int threads,
                      std::vector<uint32_t>& found) {
  found.clear();
  if (run.distinct) return;
  std::mutex mutex;
  const uint32_t* const first = ticket.group_first.data();
  parallel_for(threads, run.group_end - run.group_begin, GRAIN, [&](size_t from, size_t to, int) {
    for (size_t g = run.group_begin + from; g < run.group_begin + to; ++g) {
      if (first[g + 1] - first[g] <= LONG_GROUP) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      found.push_back(static_cast<uint32_t>(g));
    }
  });
  std::sort(found.begin(), found.end());
}

// Groups [begin, end), none of which is long, into pieces that move `limit` bytes or a little more.
void cut_groups(const Ticket& ticket, uint32_t number, const TileRows& tile, size_t begin,
                size_t end, size_t limit, UpdateWork& work) {
  const Run& run = ticket.runs[number];
  const auto moved = [&](size_t until) {
    const size_t groups = until - begin;
    const size_t entries =
        run.distinct ? groups : ticket.group_first[until] - ticket.group_first[begin];
    return groups * row_bytes(tile) + entries * 4 * tile.dim;
  };
  while (begin < end) {
    const size_t least = std::min(begin + rows_at_once(tile), end);
    const size_t until = first_from(least, end, [&](size_t at) { return moved(at) >= limit; });
    work.pieces.push_back(
        {number, static_cast<uint32_t>(begin), static_cast<uint32_t>(until), 0, 0});
    begin = until;
  }
}

void cut_run(const Ticket& ticket, uint32_t number, const TileRows& tile, size_t limit, int threads,
             UpdateWork& work) {
  const Run& run = ticket.runs[number];
  find_long_groups(ticket, run, threads, work.long_ones);
  size_t begin = run.group_begin;
  for (const uint32_t group : work.long_ones) {
    cut_groups(ticket, number, tile, begin, group, limit, work);
    cut_long_group(number, group, ticket.group_first[group], ticket.group_first[group + 1],
                   tile.dim, work);
    begin = group + 1;
  }
  cut_groups(ticket, number, tile, begin, run.group_end, limit, work);
}

}  // namespace

void cut_replies(const Ticket& ticket, const std::vector<TileRows>& tiles, uint32_t processors,
                 std::vector<GatherPiece>& pieces) {
  size_t total = 0;
  for (const Segment& segment : ticket.segments)
    if (segment.reply)
      total +=
          weight_bytes(tiles[segment.tile]) * (segment.rows + segment.id_end - segment.id_begin);
  const size_t limit = piece_bytes(total, processors);
  pieces.clear();
  for (uint32_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    if (!segment.reply || segment.rows == 0) continue;
    const TileRows& tile = tiles[segment.tile];
    const size_t rows = std::max<size_t>(1, limit / weight_bytes(tile));
    const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
    for (size_t begin = 0, end; begin < segment.rows; begin = end) {
      const size_t least = std::min(begin + rows_at_once(tile), segment.rows);
      end = first_from(least, segment.rows, [&](size_t at) {
        return at - begin + (segment.pooled ? offsets[at] - offsets[begin] : at - begin) >= rows;
      });
      pieces.push_back({s, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
  }
}

void cut_updates(const Ticket& ticket, const std::vector<TileRows>& tiles, uint32_t processors,
                 int threads, UpdateWork& work) {
  work.pieces.clear();
  work.chunks.clear();
  work.sums = work.groups = 0;
  size_t total = 0;
  for (const Run& run : ticket.runs) {
    work.groups += run.group_end - run.group_begin;
    total += (run.group_end - run.group_begin) * row_bytes(tiles[run.tile]) +
             (run.id_end - run.id_begin) * 4 * tiles[run.tile].dim;
  }
  const size_t limit = piece_bytes(total, processors);
  for (uint32_t r = 0; r < ticket.runs.size(); ++r)
    cut_run(ticket, r, tiles[ticket.runs[r].tile], limit, threads, work);
  // Blocks start in this order, and a long group takes one the longest.
  std::stable_partition(work.pieces.begin(), work.pieces.end(),
                        [](const UpdatePiece& piece) { return piece.chunks > 0; });
}

}  // namespace ff
