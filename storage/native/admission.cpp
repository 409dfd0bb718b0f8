#include "admission.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ff {
namespace {

void check(const AdmissionSpec& spec, size_t tile) {
  using Kind = AdmissionSpec::Kind;
  const std::string name = "Admission: tile " + std::to_string(tile) + ": ";
  if (spec.kind == Kind::probability && !(spec.probability > 0 && spec.probability <= 1))
    throw std::invalid_argument(name + "probability must be in (0, 1]");
  if (spec.kind == Kind::count && (spec.count < 2 || spec.count > MOST_SIGHTINGS))
    throw std::invalid_argument(name + "count must be from 2 to 15");
}

}  // namespace

SketchLayout::SketchLayout(const std::vector<AdmissionSpec>& by_tile, size_t bytes, uint64_t seed)
    : salt(mix(seed)) {
  using Kind = AdmissionSpec::Kind;
  bool counts = false, meets = false;
  for (size_t i = 0; i < by_tile.size(); ++i) {
    check(by_tile[i], i);
    counts |= by_tile[i].kind == Kind::count;
    meets |= by_tile[i].kind == Kind::bloom;
  }
  const size_t lines = bytes / sizeof(SketchLine);
  if (counts) count.lines = meets ? lines / 2 : lines;
  if (meets) bloom.lines = lines - count.lines;
  bloom.first = count.lines;
  if ((counts && count.lines == 0) || (meets && bloom.lines == 0))
    throw std::invalid_argument("Admission: no memory to remember ids: " + std::to_string(bytes) +
                                " bytes");
  for (size_t i = 0; i < by_tile.size(); ++i) {
    const AdmissionSpec& spec = by_tile[i];
    const Area area = spec.kind == Kind::count ? count : spec.kind == Kind::bloom ? bloom : Area{};
    tiles.push_back({spec, mix(salt + 1 + i), area.first, area.lines});
  }
}

Admission::Admission(const std::vector<AdmissionSpec>& by_tile, size_t bytes, uint64_t seed)
    : layout_(by_tile, bytes, seed), memory_(true) {
  if (layout_.bytes() > 0) memory_.grow(layout_.bytes());
}

bool Admission::admit(uint32_t tile, uint64_t key, uint32_t sightings, uint64_t batch) {
  const Tile& t = layout_.tiles[tile];
  switch (t.spec.kind) {
    case AdmissionSpec::Kind::probability:
      return drawn(t.spec.probability, layout_.salt, key, sightings, batch);
    case AdmissionSpec::Kind::count:
      return count(t, key, sightings);
    case AdmissionSpec::Kind::bloom:
      return meet(t, key, sightings);
    default:
      return true;
  }
}

bool Admission::count(const Tile& tile, uint64_t key, uint32_t sightings) {
  const uint64_t h = hash(tile, key);
  const uint32_t now = Counters(h).add(*line(tile, h), sightings);
  if (SketchLine* const old = next_to_age(layout_.count, SketchLayout::COUNT_CALLS))
    Counters::age(*old);
  return now >= tile.spec.count;
}

bool Admission::meet(const Tile& tile, uint64_t key, uint32_t sightings) {
  const uint64_t h = hash(tile, key);
  SketchLine& current = *line(tile, h);
  const Marks marks(h);
  if (marks.current(current)) return true;
  const bool known = marks.older(current);
  marks.add(current);
  if (SketchLine* const old = next_to_age(layout_.bloom, SketchLayout::BLOOM_CALLS))
    Marks::age(*old);
  return known || sightings > 1;
}

// Now and then a line, all of them in turn.
SketchLine* Admission::next_to_age(Area& area, uint32_t calls) {
  if (++area.calls < calls) return nullptr;
  area.calls = 0;
  SketchLine* const next = static_cast<SketchLine*>(memory_.data()) + area.first + area.hand;
  if (++area.hand == area.lines) area.hand = 0;
  return next;
}

uint32_t Admission::estimate(uint32_t tile, uint64_t key) const {
  const Tile& t = layout_.tiles[tile];
  if (t.lines == 0) return 0;
  const uint64_t h = hash(t, key);
  const SketchLine& remembered = *line(t, h);
  if (t.spec.kind == AdmissionSpec::Kind::count) return Counters(h).lowest(remembered);
  const Marks marks(h);
  return marks.current(remembered) || marks.older(remembered) ? 1 : 0;
}

}  // namespace ff
