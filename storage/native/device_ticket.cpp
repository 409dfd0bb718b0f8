#include "device_ticket.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "norms.h"
#include "parallel.h"
#include "tile.h"

namespace ff {
namespace {

// What kernels look at, beyond where rows lie, of the runs that `holds` is true for.
struct Needs {
  bool slots = false, ids = false;

  template <class Holds>
  static Needs of(const Ticket& ticket, const std::vector<TileRows>& tiles, Holds&& holds) {
    Needs needs;
    for (const Run& run : ticket.runs) {
      if (!holds(run)) continue;
      const TileRows& tile = tiles[run.tile];
      needs.slots |= tile.element_states > 0 || tile.row_states > 0;
      needs.ids |= tile.dtype != Dtype::fp32;
    }
    return needs;
  }
};

// Whether sums are asked for: without any, nobody reads the ids' weights.
bool sums_replies(const Ticket& ticket) {
  return std::any_of(ticket.segments.begin(), ticket.segments.end(),
                     [](const Segment& segment) { return segment.reply && segment.pooled; });
}

constexpr size_t GRAIN = 65536;  // ids worth a thread

// What the step adds: addresses of segments, then runs. The parcel takes what is too long.
StepWords words_of(const uint64_t* addresses, size_t segments, const std::vector<RunRows>& runs,
                   Parcel& parcel, const Stream& step) {
  const size_t in_runs = runs.size() * sizeof(RunRows) / sizeof(uint64_t);
  const bool is_long = segments + in_runs > StepWords::HERE;
  parcel.clear();
  const auto part = parcel.add<uint64_t>(is_long ? segments + in_runs : 0);
  parcel.open(step);
  StepWords words{};
  uint64_t* const to = is_long ? parcel.host(part) : words.here;
  std::copy_n(addresses, segments, to);
  if (!runs.empty()) memcpy(to + segments, runs.data(), runs.size() * sizeof(RunRows));
  if (is_long) parcel.send(step);
  words.there = parcel.device(part);
  return words;
}

}  // namespace

DeviceTicket::DeviceTicket(const Device& device, const DeviceTiles& tiles, int threads)
    : device_(device),
      tiles_(tiles),
      threads_(threads),
      plan_(device),
      lent_(device),
      to_replies_(device),
      to_gradients_(device),
      used_(device) {}

DeviceTicket::~DeviceTicket() { used_.finish(); }

void DeviceTicket::send(const Ticket& ticket, const Stream& copies) {
  cut_replies(ticket, tiles_.rows, device_.processors(), replies_);
  if (ticket.train) cut_updates(ticket, tiles_.rows, device_.processors(), threads_, work_);
  copies.wait(used_);
  lay_out(ticket, copies);
  fill(ticket);
  plan_.send(copies);
}

void DeviceTicket::lay_out(const Ticket& ticket, const Stream& copies) {
  lent_.clear();
  borrowed_.clear();
  for (const auto& [id, record] : ticket.borrowed)
    borrowed_.push_back(lent_.add<char>(lent_bytes(ticket, id)));
  lent_.open(copies);
  plan_.clear();
  rows_at_ = plan_.add<char*>(ticket.rows_at.size());
  const bool sums = sums_replies(ticket);
  offsets_ = plan_.add<int64_t>(sums ? ticket.offsets.size() : 0);
  weights_ = plan_.add<float>(sums ? ticket.weights.size() : 0);
  absent_ = plan_.add<char>(ticket.missing > 0 ? ticket.absent.size() : 0);
  segments_ = plan_.add<SegmentRows>(ticket.segments.size());
  reply_pieces_ = plan_.add<GatherPiece>(replies_.size());
  if (ticket.train) lay_out_groups(ticket, copies);
  plan_.open(copies);
}

void DeviceTicket::lay_out_groups(const Ticket& ticket, const Stream& copies) {
  const Needs distinct =
      Needs::of(ticket, tiles_.rows, [](const Run& run) { return run.distinct; });
  const Needs grouped =
      Needs::of(ticket, tiles_.rows, [](const Run& run) { return !run.distinct; });
  distinct_.slots = plan_.add<uint32_t>(distinct.slots ? ticket.slots.size() : 0);
  distinct_.ids = plan_.add<uint64_t>(distinct.ids ? ticket.ids.size() : 0);
  grouped_.at = plan_.add<char*>(ticket.group_at.size());
  grouped_.slots = plan_.add<uint32_t>(grouped.slots ? ticket.group_slot.size() : 0);
  grouped_.ids = plan_.add<uint64_t>(grouped.ids ? ticket.group_id.size() : 0);
  first_ = plan_.add<uint32_t>(ticket.group_first.size());
  entries_ = plan_.add<Entry>(ticket.entries.size());
  entry_weights_ = plan_.add<float>(ticket.entry_weight.size());
  pieces_ = plan_.add<UpdatePiece>(work_.pieces.size());
  chunks_ = plan_.add<ChunkPiece>(work_.chunks.size());
  distinct_.at = rows_at_;
  sums_.reserve(copies, work_.sums * sizeof(float));
  if (ticket.late) norms_.reserve(copies, work_.groups * sizeof(float));
}

void DeviceTicket::fill(const Ticket& ticket) {
  Copies copies(plan_);
  copies.add(rows_at_, ticket.rows_at.data());
  copies.add(absent_, ticket.absent.data());
  copies.add(offsets_, ticket.offsets.data());
  copies.add(weights_, ticket.weights.data());
  copies.add(reply_pieces_, replies_.data());
  if (ticket.train) add_groups(ticket, copies);
  copies.run(threads_);
  place_absent(ticket);
  for (size_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    const TileRows& tile = tiles_.rows[segment.tile];
    plan_.host(segments_)[s] = {segment.id_begin, segment.first_bag, tile.dim, tile.dtype,
                                segment.pooled};
  }
}

void DeviceTicket::add_groups(const Ticket& ticket, Copies& copies) const {
  copies.add(distinct_.slots, ticket.slots.data());
  copies.add(distinct_.ids, ticket.ids.data());
  copies.add(grouped_.at, ticket.group_at.data());
  copies.add(grouped_.slots, ticket.group_slot.data());
  copies.add(grouped_.ids, ticket.group_id.data());
  copies.add(first_, ticket.group_first.data());
  copies.add(entries_, ticket.entries.data());
  copies.add(entry_weights_, ticket.entry_weight.data());
  copies.add(pieces_, work_.pieces.data());
  copies.add(chunks_, work_.chunks.data());
}

// What ids that have no row read, and those whose row is not in the pad.
void DeviceTicket::place_absent(const Ticket& ticket) {
  char** const rows = plan_.host(rows_at_);
  const char* const absent = ticket.absent.data();
  const size_t n = ticket.missing > 0 ? ticket.slots.size() : 0;
  parallel_for(threads_, n, GRAIN, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      if (ticket.slots[i] != Tile::NONE) continue;
      const bool newborn = rows[i] >= absent && rows[i] < absent + absent_.count;
      rows[i] = newborn ? plan_.device(absent_) + (rows[i] - absent) : tiles_.zeros.data();
    }
  });
  for (size_t b = 0; b < borrowed_.size(); ++b)
    rows[ticket.borrowed[b].first] = lent_.device(borrowed_[b]);
}

// Of the weights in a record that an id of the request borrows.
size_t DeviceTicket::lent_bytes(const Ticket& ticket, size_t id) const {
  const auto after = std::upper_bound(ticket.runs.begin(), ticket.runs.end(), id,
                                      [](size_t i, const Run& run) { return i < run.id_end; });
  const TileRows& tile = tiles_.rows[after->tile];
  return size_t{tile.dim} * bytes_of(tile.dtype);
}

void DeviceTicket::send_lent(const Ticket& ticket, const Stream& step) {
  if (borrowed_.empty()) return;
  lent_.open(step);
  for (size_t b = 0; b < borrowed_.size(); ++b)
    memcpy(lent_.host(borrowed_[b]), ticket.borrowed[b].second, borrowed_[b].count);
  lent_.send(step);
}

void DeviceTicket::gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                          const Stream& step) {
  step.wait(plan_.sent());
  step.wait(used_);
  send_lent(ticket, step);
  const GatherArgs args{plan_.device(reply_pieces_),
                        plan_.device(segments_),
                        plan_.device(rows_at_),
                        plan_.device(offsets_),
                        plan_.device(weights_),
                        words_of(addresses, ticket.segments.size(), {}, to_replies_, step)};
  step.launch(kernel_for("gather", wire).c_str(), replies_.size(), ROW_THREADS, args);
  used_.record(step);
}

GroupRows DeviceTicket::rows_of(const Groups& groups) const {
  return {plan_.device(groups.at), plan_.device(groups.slots), plan_.device(groups.ids)};
}

void DeviceTicket::update(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                          const std::vector<RunRows>& runs, const Stream& step) {
  Norms* const norms = static_cast<Norms*>(ticket.late.get());
  if (norms != nullptr && norms->fetched())
    throw std::invalid_argument(
        "Pad.update: where scores count gradients, a ticket on a GPU is updated once");
  step.wait(plan_.sent());
  step.wait(used_);
  const UpdateArgs args{plan_.device(pieces_),
                        plan_.device(chunks_),
                        work_.chunks.size(),
                        tiles_.memory.as<TileRows>(),
                        rows_of(distinct_),
                        rows_of(grouped_),
                        plan_.device(first_),
                        plan_.device(entries_),
                        plan_.device(entry_weights_),
                        sums_.as<float>(),
                        norms != nullptr ? norms_.as<float>() : nullptr,
                        ticket.segments.size(),
                        words_of(addresses, ticket.segments.size(), runs, to_gradients_, step)};
  constexpr size_t WARPS = ROW_THREADS / 32;
  step.launch(kernel_for("sum", wire).c_str(), (work_.chunks.size() + WARPS - 1) / WARPS,
              ROW_THREADS, args);
  step.launch(kernel_for("update", wire).c_str(), work_.pieces.size(), ROW_THREADS, args);
  if (norms != nullptr) norms->fetch(norms_.as<float>(), step);
  used_.record(step);
}

}  // namespace ff
