// The arithmetic of admission.h: what one line of 64 bytes remembers of a key, and the draw that
// needs no memory. Shared by CPUs and GPUs, which must answer alike.
#pragma once

#include "hash.h"

namespace ff {

struct SketchLine {
  static constexpr uint32_t WORDS = 8;
  uint64_t word[WORDS];
};

constexpr uint32_t MOST_SIGHTINGS = 15;  // of a counter

// The line of a key among `lines`, from its hash.
FF_HD uint64_t sketch_line(uint64_t hash, uint64_t lines) { return multiply_high(hash, lines); }

// Counters of 4 bits. A key has four, one in each quarter of its line: word and position in it.
struct Counters {
  static constexpr int CELLS = 4;
  uint32_t word[CELLS], shift[CELLS];

  FF_HD explicit Counters(uint64_t hash) {
    uint64_t bits = mix(hash);
    for (uint32_t quarter = 0; quarter < CELLS; ++quarter, bits >>= 5) {
      word[quarter] = 2 * quarter + (bits >> 4 & 1);
      shift[quarter] = 4 * static_cast<uint32_t>(bits & 15);
    }
  }
  FF_HD uint32_t at(const SketchLine& line, int cell) const {
    return static_cast<uint32_t>(line.word[word[cell]] >> shift[cell] & 15);
  }
  FF_HD uint32_t lowest(const SketchLine& line) const {
    uint32_t low = at(line, 0);
    for (int i = 1; i < CELLS; ++i) low = at(line, i) < low ? at(line, i) : low;
    return low;
  }
  // Conservative update; returns the estimate, with these sightings.
  FF_HD uint32_t add(SketchLine& line, uint32_t sightings) const {
    uint32_t now = lowest(line) + (sightings < MOST_SIGHTINGS ? sightings : MOST_SIGHTINGS);
    if (now > MOST_SIGHTINGS) now = MOST_SIGHTINGS;
    for (int i = 0; i < CELLS; ++i) {
      const uint32_t had = at(line, i);
      if (had < now) line.word[word[i]] += static_cast<uint64_t>(now - had) << shift[i];
    }
    return now;
  }
  FF_HD static void age(SketchLine& line) {
    for (uint64_t& word : line.word) word = word >> 1 & 0x7777777777777777ull;
  }
};

// Two generations of bits. A key has six in each.
struct Marks {
  static constexpr int MARKS = 6;
  static constexpr uint32_t GENERATION = 4;  // words; the current one comes first
  uint64_t mask[GENERATION] = {};

  FF_HD explicit Marks(uint64_t hash) {
    uint64_t bits = mix(hash);
    for (int i = 0; i < MARKS; ++i, bits >>= 8)
      for (uint32_t word = 0; word < GENERATION; ++word)  // in registers: no index that varies
        mask[word] |= (bits >> 6 & 3) == word ? 1ull << (bits & 63) : 0;
  }
  FF_HD bool current(const SketchLine& line) const { return in(line.word); }
  FF_HD bool older(const SketchLine& line) const { return in(line.word + GENERATION); }
  FF_HD void add(SketchLine& line) const {
    for (uint32_t i = 0; i < GENERATION; ++i) line.word[i] |= mask[i];
  }
  FF_HD static void age(SketchLine& line) {
    for (uint32_t i = 0; i < GENERATION; ++i) {
      line.word[GENERATION + i] = line.word[i];
      line.word[i] = 0;
    }
  }

 private:
  FF_HD bool in(const uint64_t* generation) const {
    uint64_t missing = 0;
    for (uint32_t i = 0; i < GENERATION; ++i) missing |= mask[i] & ~generation[i];
    return missing == 0;
  }
};

// One draw for all sightings of the batch: they all fail with probability (1 - p)^sightings, taken
// by multiplications alone, so that every machine gets the same bits.
FF_HD bool drawn(double probability, uint64_t salt, uint64_t key, uint32_t sightings,
                 uint64_t batch) {
  double fail = 1, factor = 1 - probability;
  for (; sightings != 0; sightings >>= 1, factor *= factor)
    if (sightings & 1) fail *= factor;
  const uint64_t random = mix(mix(key ^ salt) + batch);
  return static_cast<double>(random >> 11) * 0x1p-53 >= fail;
}

}  // namespace ff
