#include "row_work.h"

#include <algorithm>
#include <bit>

namespace ff {
namespace {

constexpr size_t PIECES_PER_PROCESSOR = 16, SMALLEST = size_t{4} << 10, LARGEST = size_t{64} << 10;
constexpr size_t SHORTEST_CHUNK = 64;

// Bytes that a block should move: few enough that all processors have some.
size_t piece_bytes(size_t total, uint32_t processors) {
  return std::clamp(total / (PIECES_PER_PROCESSOR * processors), SMALLEST, LARGEST);
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

void cut_run(const Ticket& ticket, uint32_t number, const TileRows& tile, size_t limit,
             UpdateWork& work) {
  const Run& run = ticket.runs[number];
  size_t begin = run.group_begin, moved = 0;
  auto close = [&](size_t end) {
    if (end > begin)
      work.pieces.push_back(
          {number, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), 0, 0});
    begin = end;
    moved = 0;
  };
  for (size_t group = run.group_begin; group < run.group_end; ++group) {
    const size_t first = run.distinct ? 0 : ticket.group_first[group];
    const size_t entries = run.distinct ? 1 : ticket.group_first[group + 1] - first;
    if (entries > LONG_GROUP) {
      close(group);
      cut_long_group(number, group, first, first + entries, tile.dim, work);
      begin = group + 1;
      continue;
    }
    moved += row_bytes(tile) + entries * 4 * tile.dim;
    if (moved >= limit) close(group + 1);
  }
  close(run.group_end);
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
    const size_t rows = std::max<size_t>(1, limit / weight_bytes(tiles[segment.tile]));
    const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
    for (size_t begin = 0, end = 0, moved = 0; end < segment.rows;) {
      moved += 1 + (segment.pooled ? offsets[end + 1] - offsets[end] : 1);
      ++end;
      if (moved < rows && end < segment.rows) continue;
      pieces.push_back({s, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
      begin = end;
      moved = 0;
    }
  }
}

void cut_updates(const Ticket& ticket, const std::vector<TileRows>& tiles, uint32_t processors,
                 UpdateWork& work) {
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
    cut_run(ticket, r, tiles[ticket.runs[r].tile], limit, work);
  // Blocks start in this order, and a long group takes one the longest.
  std::stable_partition(work.pieces.begin(), work.pieces.end(),
                        [](const UpdatePiece& piece) { return piece.chunks > 0; });
}

}  // namespace ff
