// Groups of random requests against a stable sort, whatever the number of threads: built and run
// by test_group.py.
#include "group.h"

#include <algorithm>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "tile.h"

namespace ff {
namespace {

using Random = std::mt19937_64;

struct Shape {
  const char* name;
  size_t ids;      // of a run, about
  uint64_t slots;  // of its tile
  int segments;    // of a run
  double hot;      // how many ids name one row
  double missing;
  bool weights, credits, needs_id;
};

constexpr Shape SHAPES[] = {
    {"some lookups", 700, 100, 1, 0, 0, false, false, false},
    {"many rows", 70'000, 1 << 24, 3, 0, 0, false, false, false},
    {"many rows, one of them hot", 70'000, 1 << 24, 2, 0.6, 0, false, false, false},
    {"few rows", 70'000, 5, 3, 0, 0, false, false, false},
    {"one row", 50'000, 1, 2, 0, 0, false, false, false},
    {"one of many rows", 50'000, uint64_t{1} << 31, 1, 1, 0, false, false, false},
    {"the last slots", 50'000, uint64_t{0xffffffff}, 1, 0.1, 0.1, false, false, false},
    {"ids without rows", 40'000, 1 << 14, 4, 0.2, 0.3, false, false, false},
    {"no id has a row", 20'000, 1 << 14, 2, 0, 1, false, false, false},
    {"weights", 40'000, 1 << 20, 3, 0.5, 0.1, true, false, false},
    {"credits and ids", 50'000, 1 << 16, 3, 0.5, 0.1, false, true, true},
    {"all, on few rows", 50'000, 7, 2, 0.1, 0, true, true, true},
};

// Addresses are slots, so that nothing need lie there.
struct Tiles {
  std::vector<char*> blocks{reinterpret_cast<char*>(uintptr_t{1} << 40),
                            reinterpret_cast<char*>(uintptr_t{1} << 41)};
  std::vector<GroupTile> tiles;

  void add(uint64_t slots, bool needs_id) {
    RowView view{};
    view.blocks = blocks.data();
    view.shift = 31;
    view.mask = (1u << 31) - 1;
    view.weight_stride = 1;
    tiles.push_back({view, slots, needs_id});
  }
};

void add_segment(Ticket& ticket, const Shape& shape, uint32_t tile, bool pooled, Random& random) {
  const size_t begin = ticket.slots.size(), first_bag = ticket.offsets.size();
  const size_t n = shape.ids / static_cast<size_t>(shape.segments) + random() % 5;
  const uint32_t hot = static_cast<uint32_t>(random() % shape.slots);
  std::uniform_real_distribution<double> chance;
  for (size_t i = 0; i < n; ++i) {
    const bool missing = chance(random) < shape.missing;
    const uint64_t any = random() % shape.slots;
    const uint32_t slot = chance(random) < shape.hot ? hot : static_cast<uint32_t>(any);
    ticket.slots.push_back(missing ? Tile::NONE : slot);
  }
  size_t rows = n;
  if (pooled) {
    rows = 0;
    size_t end = begin;
    ticket.offsets.push_back(static_cast<int64_t>(end));
    for (; end < begin + n; ++rows) {
      end = std::min(begin + n, end + random() % 7);
      ticket.offsets.push_back(static_cast<int64_t>(end));
    }
    ticket.offsets.push_back(static_cast<int64_t>(end));  // an empty bag
    ++rows;
  }
  ticket.segments.push_back({tile, pooled, true, begin, begin + n, rows, first_bag});
}

Ticket request(const std::vector<Shape>& shapes, Random& random) {
  Ticket ticket;
  bool weights = false, credits = false, ids = false;
  for (uint32_t tile = 0; tile < shapes.size(); ++tile) {
    const Shape& shape = shapes[tile];
    const size_t first = ticket.segments.size(), begin = ticket.slots.size();
    for (int s = 0; s < shape.segments; ++s)
      add_segment(ticket, shape, tile, shape.segments == 1 || random() % 2 == 0, random);
    ticket.runs.push_back({tile, first, ticket.segments.size(), begin, ticket.slots.size(),
                           random() % 4 == 0, 0, 0, 0});
    weights |= shape.weights;
    credits |= shape.credits;
    ids |= shape.needs_id;
  }
  for (size_t i = 0; i < ticket.slots.size(); ++i) {
    if (weights) ticket.weights.push_back(static_cast<float>(random() % 1000));
    if (credits) ticket.credits.push_back(static_cast<float>(random() % 1000) * 1e-3f);
    if (ids) ticket.ids.push_back(ticket.slots[i] * uint64_t{3});
  }
  return ticket;
}

// The gradient row of every id.
std::vector<Entry> rows_of(const Ticket& ticket) {
  std::vector<Entry> rows(ticket.slots.size());
  for (uint32_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    for (uint32_t row = 0; row < segment.rows; ++row) {
      const int64_t* const bag = ticket.offsets.data() + segment.first_bag + row;
      const size_t begin = segment.pooled ? bag[0] : segment.id_begin + row;
      const size_t end = segment.pooled ? bag[1] : begin + 1;
      for (size_t i = begin; i < end; ++i) rows[i] = {s, row};
    }
  }
  return rows;
}

const char* compare(const Ticket& t, const std::vector<GroupTile>& tiles) {
  const std::vector<Entry> rows = rows_of(t);
  size_t group = 0, entry = 0;
  for (const Run& run : t.runs) {
    if (run.distinct) continue;
    if (run.group_begin != group) return "a run begins elsewhere";
    std::vector<uint32_t> order;
    for (size_t i = run.id_begin; i < run.id_end; ++i)
      if (t.slots[i] != Tile::NONE) order.push_back(static_cast<uint32_t>(i));
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return t.slots[a] < t.slots[b]; });
    for (size_t i = 0, end; i < order.size(); i = end, ++group) {
      const uint32_t slot = t.slots[order[i]];
      if (t.group_first[group] != entry || t.group_slot[group] != slot) return "a wrong group";
      if (t.group_at[group] != tiles[run.tile].rows.weights(slot)) return "a wrong address";
      if (tiles[run.tile].needs_id && t.group_id[group] != slot * uint64_t{3}) return "a wrong id";
      float credit = 0;
      for (end = i; end < order.size() && t.slots[order[end]] == slot; ++end, ++entry) {
        const Entry is = t.entries[entry], should = rows[order[end]];
        if (is.segment != should.segment || is.row != should.row) return "a wrong entry";
        if (!t.weights.empty() && t.entry_weight[entry] != t.weights[order[end]])
          return "a wrong weight";
        if (!t.credits.empty()) credit += t.credits[order[end]];
      }
      if (!t.credits.empty() && t.group_credit[group] != credit) return "a wrong credit";
    }
    if (run.group_end != group) return "a run ends elsewhere";
  }
  if (t.entries.size() != entry || t.group_slot.size() != group)
    return "too many entries or groups";
  return t.group_first[group] == entry ? "" : "the last group ends elsewhere";
}

std::string check(const std::vector<Shape>& shapes, GroupSpace& space, Random& random) {
  Tiles tiles;
  for (const Shape& shape : shapes) tiles.add(shape.slots, shape.needs_id);
  Ticket ticket = request(shapes, random);
  for (const int threads : {1, 2, 3, 7, 16}) {
    group_rows(ticket, tiles.tiles, space, threads);
    const std::string error = compare(ticket, tiles.tiles);
    if (error.empty()) continue;
    return std::string(shapes[0].name) + ", " + std::to_string(threads) + " threads: " + error;
  }
  return "";
}

}  // namespace
}  // namespace ff

// Every shape alone, and all of them in one request. What was kept of one serves the next.
int main(int, char** arguments) {
  ff::Random random(std::stoull(arguments[1]));
  ff::GroupSpace space(true);
  const std::vector<ff::Shape> all(std::begin(ff::SHAPES), std::end(ff::SHAPES));
  std::vector<std::vector<ff::Shape>> requests{all};
  for (const ff::Shape& shape : all) requests.push_back({shape});
  requests.push_back({all.begin(), all.begin() + 9});  // nobody needs ids
  for (const auto& shapes : requests) {
    const std::string error = ff::check(shapes, space, random);
    if (error.empty()) continue;
    std::cerr << error << std::endl;
    return 1;
  }
  return 0;
}
