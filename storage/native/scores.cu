// Scores of rows, and which ids get a row, for a batch at once: score.h and sketch.h over arrays.
//
// What a sketch answers depends on the order of the calls: ids that share a line, and lines that
// age after every so many calls. So calls are sorted by line, a thread goes through those of one
// line in their order, and lets the line age at the calls at which the CPU would. Lines that nobody
// names and whose turn it is age too. The answers are those of the CPU for the same calls, one
// after the other.
//
// With bits, calls that know the id do not count towards ageing, and which those are depends on
// what has aged. device_admission.cpp starts with a guess and corrects it until it is right: the
// kernel tells whether the answers that follow from it are those it was made from.
#include "kernel.h"
#include "scores_args.h"

namespace ff {
namespace {

FF_DEVICE uint64_t this_element() { return uint64_t{blockIdx.x} * SCORES_THREADS + threadIdx.x; }

// What the calls on a line do, in their order.
struct CountCalls {
  const SketchArgs& args;

  FF_DEVICE uint64_t before(uint32_t call) const { return call; }
  FF_DEVICE uint64_t total() const { return args.n; }
  FF_DEVICE void age(SketchLine& line) const { Counters::age(line); }
  FF_DEVICE void call(SketchLine& line, uint32_t i) const {
    const Counters counters(mix(args.keys[i] ^ args.salt));
    args.admitted[i] = counters.add(line, args.sightings[i]) >= args.enough;
  }
};

struct BloomCalls {
  const SketchArgs& args;

  FF_DEVICE uint64_t before(uint32_t call) const { return args.before[call]; }
  FF_DEVICE uint64_t total() const { return *args.total; }
  FF_DEVICE void age(SketchLine& line) const { Marks::age(line); }
  FF_DEVICE void call(SketchLine& line, uint32_t i) const {
    const Marks marks(mix(args.keys[i] ^ args.salt));
    const bool counts = !marks.current(line);
    args.admitted[i] = !counts || marks.older(line) || args.sightings[i] > 1;
    if (counts) marks.add(line);
    if (args.counts[i] != (counts ? 1u : 0u)) {
      args.counts[i] = counts ? 1 : 0;
      atomicAdd(args.wrong, 1u);
    }
  }
};

// All calls and all ageing of a line; the calls on it begin at `first` of the sorted ones.
template <class Calls>
FF_DEVICE void walk_line(const SketchArgs& args, const Calls& calls, uint64_t number,
                         uint64_t first, SketchLine& line) {
  // The turns at which this line ages: turn t comes after call (t + 1) * period.
  uint64_t turn = number >= args.hand ? number - args.hand : number + args.num_lines - args.hand;
  const auto age_until = [&](uint64_t calls_done) {
    for (; (turn + 1) * args.period <= args.calls + calls_done; turn += args.num_lines)
      calls.age(line);
  };
  for (uint64_t k = first; k < args.n && args.sorted[k] == number; ++k) {
    const uint32_t i = args.order[k];
    age_until(calls.before(i));
    calls.call(line, i);
  }
  age_until(calls.total());
}

// The first of the sorted calls that is not on a line below `number`.
FF_DEVICE uint64_t first_call(const SketchArgs& args, uint64_t number) {
  uint64_t low = 0, high = args.n;
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    if (args.sorted[middle] < number)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// A thread for every call, of which the first on its line works; and one for every line whose turn
// comes, which works if there is no call on it.
template <class Calls>
FF_DEVICE void walk(const SketchArgs& args) {
  const Calls calls{args};
  const uint64_t j = this_element();
  if (j < args.n) {
    const uint32_t number = args.sorted[j];
    if (j > 0 && args.sorted[j - 1] == number) return;
    SketchLine& line = args.lines[number];
    if (args.trial != nullptr) args.trial[j] = line;
    walk_line(args, calls, number, j, args.trial != nullptr ? args.trial[j] : line);
    return;
  }
  const uint64_t turns = (args.calls + calls.total()) / args.period;
  if (args.trial != nullptr || j - args.n >= (turns < args.num_lines ? turns : args.num_lines))
    return;
  const uint64_t number = (args.hand + j - args.n) % args.num_lines;
  const uint64_t first = first_call(args, number);
  if (first < args.n && args.sorted[first] == number) return;
  walk_line(args, calls, number, args.n, args.lines[number]);
}

}  // namespace

FF_KERNEL(score_credited, CreditedArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  args.credited[i] = credited(args.scores[i], args.intervals[i], args.credits[i], args.decay);
}

FF_KERNEL(admission_draw, DrawArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  args.admitted[i] =
      drawn(args.probability, args.salt, args.keys[i], args.sightings[i], args.batch);
}

FF_KERNEL(sketch_lines, SketchArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  args.line[i] = static_cast<uint32_t>(sketch_line(mix(args.keys[i] ^ args.salt), args.num_lines));
}

FF_KERNEL(sketch_guess, SketchArgs, 256) {
  const uint64_t i = this_element();
  if (i < args.n) args.counts[i] = 1;
}

FF_KERNEL(sketch_count, SketchArgs, 256) { walk<CountCalls>(args); }
FF_KERNEL(sketch_bloom, SketchArgs, 256) { walk<BloomCalls>(args); }

FF_KERNEL(sketch_counted, EstimateArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  const uint64_t hash = mix(args.keys[i] ^ args.salt);
  args.estimate[i] = Counters(hash).lowest(args.lines[sketch_line(hash, args.num_lines)]);
}

FF_KERNEL(sketch_met, EstimateArgs, 256) {
  const uint64_t i = this_element();
  if (i >= args.n) return;
  const uint64_t hash = mix(args.keys[i] ^ args.salt);
  const SketchLine& line = args.lines[sketch_line(hash, args.num_lines)];
  const Marks marks(hash);
  args.estimate[i] = marks.current(line) || marks.older(line) ? 1 : 0;
}

}  // namespace ff
