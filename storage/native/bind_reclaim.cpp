// Scores, clock, reclaimer and admission as Python sees them: for tests, and what the pad is told.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "admission.h"
#include "clock.h"
#include "reclaimer.h"
#include "score.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <class T, class F>
Out<T> fill(size_t n, F&& element) {
  T* const data = new T[n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  for (size_t i = 0; i < n; ++i) data[i] = element(i);
  return Out<T>(data, {n}, owner);
}

void check_same_length(size_t a, size_t b) {
  if (a != b) throw nb::value_error("the arrays must have equally many elements");
}

void bind_score(nb::module_& m) {
  nb::class_<Decay>(m, "Decay",
                    "What intervals without credit leave of a score. `beta` in [0, 1] (else "
                    "ValueError): the share that an interval takes; 0: nothing decays.")
      .def(
          "__init__",
          [](Decay* decay, double beta) {
            if (!(beta >= 0 && beta <= 1)) throw nb::value_error("Decay: beta must be in [0, 1]");
            new (decay) Decay(Decay::of(beta));
          },
          "beta"_a)
      .def(
          "apply",
          [](const Decay& decay, In<uint64_t> values, In<uint32_t> intervals) {
            check_same_length(values.size(), intervals.size());
            return fill<uint64_t>(values.size(), [&](size_t i) {
              return decay.apply(values.data()[i], intervals.data()[i]);
            });
          },
          "values"_a.noconvert(), "intervals"_a.noconvert(),
          "Values (n,) uint64 in sixty-fourths after `intervals` (n,) uint32 each, rounded down.");
  m.def(
      "score_value",
      [](In<uint16_t> s) {
        return fill<uint64_t>(s.size(), [&](size_t i) { return score_value(s.data()[i]); });
      },
      "scores"_a.noconvert(), "Values (n,) uint64 of scores (n,) uint16, in sixty-fourths.");
  m.def(
      "score_of",
      [](In<uint64_t> v) {
        return fill<uint16_t>(v.size(), [&](size_t i) { return score_of(v.data()[i]); });
      },
      "values"_a.noconvert(), "Scores (n,) uint16 nearest to values (n,) uint64 in sixty-fourths.");
  m.def(
      "score_bin",
      [](In<uint16_t> s) {
        return fill<uint32_t>(s.size(), [&](size_t i) { return score_bin(s.data()[i]); });
      },
      "scores"_a.noconvert(), "Bins (n,) uint32, 0 to 63, of scores (n,) uint16.");
  m.def(
      "bin_value",
      [](In<uint32_t> b) {
        return fill<uint64_t>(b.size(), [&](size_t i) { return bin_value(b.data()[i]); });
      },
      "bins"_a.noconvert(), "Lowest values (n,) uint64 of bins (n,) uint32, in sixty-fourths.");
  m.def(
      "credited",
      [](In<uint16_t> s, In<uint32_t> intervals, In<float> credits, const Decay& decay) {
        check_same_length(s.size(), intervals.size());
        check_same_length(s.size(), credits.size());
        return fill<uint16_t>(s.size(), [&](size_t i) {
          return credited(s.data()[i], intervals.data()[i], credits.data()[i], decay);
        });
      },
      "scores"_a.noconvert(), "intervals"_a.noconvert(), "credits"_a.noconvert(), "decay"_a,
      "Scores (n,) uint16 after `intervals` (n,) uint32 and a credit (n,) float32 each. Stored is "
      "Kraken's score (Xie et al., SC'20, sec. III) over beta, so that credits add themselves.");
}

void bind_clock(nb::module_& m) {
  nb::class_<Clock>(m, "Clock",
                    "Training batches, and ticks with 16-bit names that begin at one. Scores decay "
                    "every `interval` >= 1 batches (else ValueError).")
      .def(nb::init<uint64_t>(), "interval"_a)
      .def("advance_batch", &Clock::advance_batch, "One more training batch was planned.")
      .def("tick", &Clock::tick, "Begins a tick; a Reclaimer's clock ticks through it instead.")
      .def("batch_of", &Clock::batch_of, "tick"_a, "Batch at which one of the last 65,536 began.")
      .def("age", &Clock::age, "tick"_a, "Ticks since that tick.")
      .def("intervals", &Clock::intervals, "first"_a, "last"_a,
           "Ends of decay intervals between two ticks; 0 if `last` is the older one.")
      .def_prop_ro("now", &Clock::now, "Name of this tick.")
      .def_prop_ro("ticks", &Clock::ticks, "Ticks since the start.")
      .def_prop_ro("batch", &Clock::batch, "Batches since the start.");
}

// Python may name a class that is not there.
uint32_t checked(const Reclaimer& reclaimer, uint32_t row_class) {
  if (row_class >= reclaimer.classes()) throw nb::index_error("Reclaimer: no such class of rows");
  return row_class;
}

void bind_reclaimer(nb::module_& m) {
  nb::class_<RowClass>(m, "RowClass",
                       "Rows with one policy: `time_to_live` in training batches since last seen "
                       "(0: for ever), and whether they die for a low score.")
      .def(
          "__init__",
          [](RowClass* rule, uint64_t time_to_live, bool by_score) {
            new (rule) RowClass{time_to_live, by_score};
          },
          nb::kw_only(), "time_to_live"_a = 0, "by_score"_a = true);
  using R = Reclaimer;
  nb::class_<R>(m, "Reclaimer",
                "Which rows die when memory is short: first expired ones, then by rank (0: score, "
                "1: recency, 2: importance). After Kraken (Xie et al., SC'20, sec. III) and, for "
                "importance, AdaEmbed (Lai et al., OSDI'23).")
      .def(
          "__init__",
          [](R* self, int ranking, const Decay& decay, Clock& clock,
             const std::vector<RowClass>& classes) {
            if (ranking < 0 || ranking > 2) throw nb::value_error("Reclaimer: ranking is 0 to 2");
            new (self) R(static_cast<Ranking>(ranking), decay, clock, classes);
          },
          "ranking"_a, "decay"_a, "clock"_a, "classes"_a, nb::keep_alive<1, 4>())
      .def(
          "add",
          [](R& r, uint32_t row_class, uint16_t time, uint16_t score, size_t bytes) {
            r.add(checked(r, row_class), {time, score}, bytes);
          },
          "row_class"_a, "time"_a, "score"_a, "bytes"_a, "A row is there; no-op if it is dead.")
      .def(
          "remove",
          [](R& r, uint32_t row_class, uint16_t time, uint16_t score, size_t bytes) {
            r.remove(checked(r, row_class), {time, score}, bytes);
          },
          "row_class"_a, "time"_a, "score"_a, "bytes"_a, "A row is gone; no-op if it was dead.")
      .def(
          "touch_all",
          [](R& r, In<uint16_t> times, In<uint16_t> scores) {
            check_same_length(times.size(), scores.size());
            for (size_t i = 0; i < times.size(); ++i) {
              r.add(checked(r, 0), {times.data()[i], scores.data()[i]}, 1);
              r.remove(0, {times.data()[i], scores.data()[i]}, 1);
            }
          },
          "times"_a.noconvert(), "scores"_a.noconvert(), "Adds and removes each; to measure.")
      .def(
          "dead",
          [](const R& r, uint32_t row_class, uint16_t time, uint16_t score) {
            return r.dead(checked(r, row_class), {time, score});
          },
          "row_class"_a, "time"_a, "score"_a, "Whether a row with this metadata is condemned.")
      .def(
          "expired",
          [](const R& r, uint32_t row_class, uint16_t time) {
            return r.expired(checked(r, row_class), time);
          },
          "row_class"_a, "time"_a, "Whether rows last seen then are past their time to live.")
      .def("condemn", &R::condemn, "bytes"_a,
           "Condemns rows of at least `bytes` if there are as many that may die, all expired ones "
           "in any case, and begins a tick; returns the bytes condemned.")
      .def("tick", &R::tick,
           "Begins a tick; returns the bytes of rows condemned because their name will return. "
           "RuntimeError if sweep_due() was ignored for thousands of ticks.")
      .def("sweep_began", &R::sweep_began, "A look at every row begins.")
      .def("sweep_ended", &R::sweep_ended, "It has seen every row; RuntimeError if none began.")
      .def("sweep_due", &R::sweep_due, "Whether a sweep must end before the next tick.")
      .def(
          "bytes_of", [](const R& r, uint32_t c) { return r.bytes(checked(r, c)); }, "row_class"_a,
          "Bytes of the rows of a class that live.")
      .def(
          "rows_of", [](const R& r, uint32_t c) { return r.rows(checked(r, c)); }, "row_class"_a,
          "Rows of a class that live.")
      .def("memory", &R::memory, "Bytes of counts and bars.")
      .def("consistent", &R::consistent, "Whether all counts are possible and agree.")
      .def_prop_ro("bytes", [](const R& r) { return r.bytes(); }, "Bytes of all rows that live.");
}

void bind_admission(nb::module_& m) {
  nb::class_<AdmissionSpec>(m, "AdmissionSpec",
                            "Which new ids of a tile get a row. `kind` 0: all; 1: each sighting "
                            "with `probability` in (0, 1]; 2: at the `count`-th sighting, 2 to 15; "
                            "3: at the second, by bits.")
      .def(
          "__init__",
          [](AdmissionSpec* spec, int kind, double probability, uint32_t count) {
            if (kind < 0 || kind > 3) throw nb::value_error("AdmissionSpec: kind is 0 to 3");
            new (spec) AdmissionSpec{static_cast<AdmissionSpec::Kind>(kind), probability, count};
          },
          "kind"_a, nb::kw_only(), "probability"_a = 1.0, "count"_a = 1);
  const auto tile_of = [](const Admission& admission, uint32_t tile) {
    if (tile >= admission.tiles()) throw nb::index_error("Admission: no such tile");
    return tile;
  };
  nb::class_<Admission>(
      m, "Admission",
      "Which new ids of a rank get a row: probability (Kraken, Xie et al., SC'20, "
      "sec. III), a count-min sketch (Cormode and Muthukrishnan) with conservative "
      "update (Estan and Varghese) and ageing as in TinyLFU (Einziger et al.), or "
      "Bloom bits. ValueError if a spec is out of range, or `bytes` too few.")
      .def(nb::init<const std::vector<AdmissionSpec>&, size_t, uint64_t>(), "by_tile"_a, "bytes"_a,
           "seed"_a)
      .def(
          "admit",
          [=](Admission& a, uint32_t tile, uint64_t key, uint32_t sightings, uint64_t batch) {
            return a.admit(tile_of(a, tile), key, sightings, batch);
          },
          "tile"_a, "key"_a, "sightings"_a, "batch"_a,
          "Whether a key without a row gets one, named `sightings` >= 1 times by this batch.")
      .def(
          "admit_all",
          [=](Admission& a, uint32_t tile, In<uint64_t> keys, In<uint32_t> sightings,
              uint64_t batch) {
            check_same_length(keys.size(), sightings.size());
            tile_of(a, tile);
            constexpr size_t AHEAD = 16;
            return fill<bool>(keys.size(), [&](size_t i) {
              if (i + AHEAD < keys.size()) a.ask(tile, keys.data()[i + AHEAD]);
              return a.admit(tile, keys.data()[i], sightings.data()[i], batch);
            });
          },
          "tile"_a, "keys"_a.noconvert(), "sightings"_a.noconvert(), "batch"_a,
          "The same of keys (n,) uint64 with sightings (n,) uint32, in order: (n,) bool.")
      .def(
          "estimate",
          [=](const Admission& a, uint32_t tile, uint64_t key) {
            return a.estimate(tile_of(a, tile), key);
          },
          "tile"_a, "key"_a, "Sightings that are remembered, at most 15 (bloom: 1).")
      .def_prop_ro("bytes", &Admission::bytes, "Memory for what is remembered, in whole pages.");
}

}  // namespace

void bind_reclaim(nb::module_& m) {
  bind_score(m);
  bind_clock(m);
  bind_reclaimer(m);
  bind_admission(m);
}

}  // namespace ff
