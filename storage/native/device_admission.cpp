#include "device_admission.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "scores_args.h"

namespace ff {
namespace {

using Kind = AdmissionSpec::Kind;

size_t blocks_for(size_t threads) { return (threads + SCORES_THREADS - 1) / SCORES_THREADS; }

// Threads that look at lines on which there is no call: as many as may age.
size_t turns(const SketchArgs& args) {
  return std::min<size_t>((args.calls + args.n) / args.period, args.num_lines);
}

// So many calls more.
void advance(SketchLayout::Area& area, size_t calls, uint32_t period) {
  const size_t all = area.calls + calls;
  area.hand = (area.hand + all / period) % area.lines;
  area.calls = static_cast<uint32_t>(all % period);
}

}  // namespace

DeviceAdmission::DeviceAdmission(const Device& device, const std::vector<AdmissionSpec>& by_tile,
                                 size_t bytes, uint64_t seed)
    : layout_(by_tile, bytes, seed), lines_(device, layout_.bytes()) {
  if (std::max(layout_.count.lines, layout_.bloom.lines) > UINT32_MAX)
    throw std::invalid_argument("DeviceAdmission: more than 2^32 - 1 lines of 64 bytes of a kind");
  const Stream stream(device, 0);
  stream.fill(lines_.data(), 0, lines_.bytes());
  stream.synchronize();  // others may use other streams
}

size_t DeviceAdmission::batch_bytes() const {
  return sort_.bytes() + scan_.bytes() + line_.bytes() + sorted_.bytes() + order_.bytes() +
         counts_.bytes() + before_.bytes() + trial_.bytes() + totals_.bytes();
}

void DeviceAdmission::sort_by_line(const Stream& stream, SketchArgs& args) {
  for (DeviceMemory* memory : {&line_, &sorted_, &order_})
    memory->reserve(stream, args.n * sizeof(uint32_t));
  args.line = line_.as<uint32_t>();
  args.sorted = sorted_.as<uint32_t>();
  args.order = order_.as<uint32_t>();
  stream.launch("sketch_lines", blocks_for(args.n), SCORES_THREADS, args);
  sort_.sort(stream, args.line, nullptr, args.n,
             static_cast<uint32_t>(std::bit_width(args.num_lines - 1)), sorted_.as<uint32_t>(),
             order_.as<uint32_t>());
}

void DeviceAdmission::admit(const Stream& stream, uint32_t tile, const uint64_t* keys,
                            const uint32_t* sightings, size_t n, uint64_t batch, bool* admitted) {
  const SketchLayout::Tile& of = layout_.tiles.at(tile);
  if (n == 0) return;
  if (of.spec.kind == Kind::always) return stream.fill(admitted, 1, n);
  if (of.spec.kind == Kind::probability)
    return stream.launch(
        "admission_draw", blocks_for(n), SCORES_THREADS,
        DrawArgs{keys, sightings, admitted, n, layout_.salt, batch, of.spec.probability});
  const bool counts = of.spec.kind == Kind::count;
  Area& area = counts ? layout_.count : layout_.bloom;
  SketchArgs args{};
  args.keys = keys;
  args.sightings = sightings;
  args.admitted = admitted;
  args.n = n;
  args.salt = of.salt;
  args.lines = lines_of(area);
  args.num_lines = area.lines;
  args.hand = area.hand;
  args.calls = area.calls;
  args.period = counts ? SketchLayout::COUNT_CALLS : SketchLayout::BLOOM_CALLS;
  args.enough = of.spec.count;
  sort_by_line(stream, args);
  if (!counts) return meet(stream, args);
  stream.launch("sketch_count", blocks_for(n + turns(args)), SCORES_THREADS, args);
  advance(area, n, args.period);
}

// The guess is that all calls count. Whether call i does depends on the calls before it alone, so
// every round makes at least one more of them right; the first one all of them, if no line that is
// named ages. Of 20,000 calls, half of them with known ids, it took with the last round, which
// finds nothing wrong, 2 with a million lines, 3 with 16,384, 5 with 1,024.
void DeviceAdmission::meet(const Stream& stream, SketchArgs& args) {
  const size_t bytes = args.n * sizeof(uint32_t);
  counts_.reserve(stream, bytes);
  before_.reserve(stream, bytes);
  trial_.reserve(stream, args.n * sizeof(SketchLine));
  totals_.reserve(stream, 2 * sizeof(uint32_t));
  uint32_t* const totals = totals_.as<uint32_t>();
  args.counts = counts_.as<uint32_t>();
  args.before = before_.as<uint32_t>();
  args.total = totals;
  args.wrong = totals + 1;
  args.trial = trial_.as<SketchLine>();
  stream.launch("sketch_guess", blocks_for(args.n), SCORES_THREADS, args);
  for (uint32_t total_and_wrong[2] = {0, 1}; total_and_wrong[1] != 0;) {
    stream.copy(before_.data(), args.counts, bytes);
    scan_.exclusive(stream, before_.as<uint32_t>(), args.n, totals);
    stream.fill(args.wrong, 0, sizeof(uint32_t));
    stream.launch("sketch_bloom", blocks_for(args.n), SCORES_THREADS, args);
    stream.copy_out(total_and_wrong, totals, sizeof total_and_wrong);
    stream.synchronize();
    if (total_and_wrong[1] != 0) continue;
    args.trial = nullptr;
    stream.launch("sketch_bloom", blocks_for(args.n + turns(args)), SCORES_THREADS, args);
    advance(layout_.bloom, total_and_wrong[0], args.period);
  }
}

void DeviceAdmission::estimate(const Stream& stream, uint32_t tile, const uint64_t* keys,
                               uint32_t* estimates, size_t n) const {
  const SketchLayout::Tile& of = layout_.tiles.at(tile);
  if (of.lines == 0) return stream.fill(estimates, 0, n * sizeof(uint32_t));
  const bool counts = of.spec.kind == Kind::count;
  const Area& area = counts ? layout_.count : layout_.bloom;
  stream.launch(counts ? "sketch_counted" : "sketch_met", blocks_for(n), SCORES_THREADS,
                EstimateArgs{keys, estimates, n, of.salt, lines_of(area), area.lines});
}

}  // namespace ff
