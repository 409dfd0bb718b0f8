#include "admission.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ff {
namespace {

constexpr uint32_t MOST = 15;       // of a counter
constexpr int CELLS = 4;            // of a key, one in each quarter of its line
constexpr int MARKS = 6;            // bits of a key in a generation
constexpr uint32_t GENERATION = 4;  // words; the current one comes first

void check(const AdmissionSpec& spec, size_t tile) {
  using Kind = AdmissionSpec::Kind;
  const std::string name = "Admission: tile " + std::to_string(tile) + ": ";
  if (spec.kind == Kind::probability && !(spec.probability > 0 && spec.probability <= 1))
    throw std::invalid_argument(name + "probability must be in (0, 1]");
  if (spec.kind == Kind::count && (spec.count < 2 || spec.count > MOST))
    throw std::invalid_argument(name + "count must be from 2 to 15");
}

// The four cells of a key: word of the line and position in it.
struct Cells {
  uint32_t word[CELLS], shift[CELLS];

  explicit Cells(uint64_t hash) {
    uint64_t bits = mix(hash);
    for (uint32_t quarter = 0; quarter < CELLS; ++quarter, bits >>= 5) {
      word[quarter] = 2 * quarter + (bits >> 4 & 1);
      shift[quarter] = 4 * static_cast<uint32_t>(bits & 15);
    }
  }
  uint32_t at(const uint64_t* line, int cell) const {
    return static_cast<uint32_t>(line[word[cell]] >> shift[cell] & 15);
  }
  uint32_t lowest(const uint64_t* line) const {
    return std::min(std::min(at(line, 0), at(line, 1)), std::min(at(line, 2), at(line, 3)));
  }
};

// The bits of a key in one generation.
struct Marks {
  uint64_t mask[GENERATION] = {};

  explicit Marks(uint64_t hash) {
    uint64_t bits = mix(hash);
    for (int i = 0; i < MARKS; ++i, bits >>= 8) mask[bits >> 6 & 3] |= 1ull << (bits & 63);
  }
  bool in(const uint64_t* generation) const {
    uint64_t missing = 0;
    for (uint32_t i = 0; i < GENERATION; ++i) missing |= mask[i] & ~generation[i];
    return missing == 0;
  }
};

}  // namespace

Admission::Admission(const std::vector<AdmissionSpec>& by_tile, size_t bytes, uint64_t seed)
    : salt_(mix(seed)), memory_(true) {
  using Kind = AdmissionSpec::Kind;
  bool counts = false, meets = false;
  for (size_t i = 0; i < by_tile.size(); ++i) {
    check(by_tile[i], i);
    counts |= by_tile[i].kind == Kind::count;
    meets |= by_tile[i].kind == Kind::bloom;
  }
  const size_t lines = bytes / LINE_BYTES;
  if (counts) count_.lines = meets ? lines / 2 : lines;
  if (meets) bloom_.lines = lines - count_.lines;
  bloom_.first = count_.lines;
  if ((counts && count_.lines == 0) || (meets && bloom_.lines == 0))
    throw std::invalid_argument("Admission: no memory to remember ids: " + std::to_string(bytes) +
                                " bytes");
  if (counts || meets) memory_.grow((count_.lines + bloom_.lines) * LINE_BYTES);
  for (size_t i = 0; i < by_tile.size(); ++i) {
    const AdmissionSpec& spec = by_tile[i];
    const Area area = spec.kind == Kind::count   ? count_
                      : spec.kind == Kind::bloom ? bloom_
                                                 : Area{};
    tiles_.push_back({spec, mix(salt_ + 1 + i), area.first, area.lines});
  }
}

bool Admission::admit(uint32_t tile, uint64_t key, uint32_t sightings, uint64_t batch) {
  const Tile& t = tiles_[tile];
  switch (t.spec.kind) {
    case AdmissionSpec::Kind::probability:
      return draw(t.spec.probability, key, sightings, batch);
    case AdmissionSpec::Kind::count:
      return count(t, key, sightings);
    case AdmissionSpec::Kind::bloom:
      return meet(t, key, sightings);
    default:
      return true;
  }
}

// One draw for all sightings of the batch: they all fail with probability (1 - p)^sightings, taken
// by multiplications alone, so that every machine gets the same bits.
bool Admission::draw(double probability, uint64_t key, uint32_t sightings, uint64_t batch) const {
  double fail = 1, factor = 1 - probability;
  for (; sightings != 0; sightings >>= 1, factor *= factor)
    if (sightings & 1) fail *= factor;
  const uint64_t random = mix(mix(key ^ salt_) + batch);
  return static_cast<double>(random >> 11) * 0x1p-53 >= fail;
}

bool Admission::count(const Tile& tile, uint64_t key, uint32_t sightings) {
  const uint64_t h = hash(tile, key);
  uint64_t* const words = line(tile, h)->word;
  const Cells cells(h);
  const uint32_t now = std::min(cells.lowest(words) + std::min(sightings, MOST), MOST);
  for (int i = 0; i < CELLS; ++i) {
    const uint32_t had = cells.at(words, i);
    if (had < now) words[cells.word[i]] += static_cast<uint64_t>(now - had) << cells.shift[i];
  }
  if (Line* const old = next_to_age(count_, COUNT_CALLS))
    for (uint64_t& word : old->word) word = word >> 1 & 0x7777777777777777ull;
  return now >= tile.spec.count;
}

bool Admission::meet(const Tile& tile, uint64_t key, uint32_t sightings) {
  const uint64_t h = hash(tile, key);
  uint64_t* const current = line(tile, h)->word;
  const Marks marks(h);
  if (marks.in(current)) return true;
  const bool known = marks.in(current + GENERATION);
  for (uint32_t i = 0; i < GENERATION; ++i) current[i] |= marks.mask[i];
  if (Line* const old = next_to_age(bloom_, BLOOM_CALLS))
    for (uint32_t i = 0; i < GENERATION; ++i) {
      old->word[GENERATION + i] = old->word[i];
      old->word[i] = 0;
    }
  return known || sightings > 1;
}

// Now and then a line, all of them in turn.
Admission::Line* Admission::next_to_age(Area& area, uint32_t calls) {
  if (++area.calls < calls) return nullptr;
  area.calls = 0;
  Line* const next = static_cast<Line*>(memory_.data()) + area.first + area.hand;
  if (++area.hand == area.lines) area.hand = 0;
  return next;
}

uint32_t Admission::estimate(uint32_t tile, uint64_t key) const {
  const Tile& t = tiles_[tile];
  if (t.lines == 0) return 0;
  const uint64_t h = hash(t, key);
  const uint64_t* const words = line(t, h)->word;
  if (t.spec.kind == AdmissionSpec::Kind::count) return Cells(h).lowest(words);
  const Marks marks(h);
  return marks.in(words) || marks.in(words + GENERATION) ? 1 : 0;
}

}  // namespace ff
