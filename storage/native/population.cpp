#include "population.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ff {
namespace {

constexpr size_t AHEAD = 16;         // rows asked for ahead
constexpr size_t TICKS = 64;         // in which all memory is filled anew, at least
constexpr size_t MOST_SWEEPS = 256;  // batches that a sweep may take

bool can_be_reclaimed(const Policy& policy, const TileSpec& spec) {
  return policy.reclaims && spec.dynamic() && (!spec.high_priority || spec.time_to_live > 0);
}

bool can_be_refused(const TileSpec& spec) {
  return spec.dynamic() && spec.admission.kind != AdmissionSpec::Kind::always;
}

std::vector<AdmissionSpec> admissions(const std::vector<std::unique_ptr<Tile>>& tiles) {
  std::vector<AdmissionSpec> specs;
  for (const auto& tile : tiles) specs.push_back(tile->spec().admission);
  return specs;
}

}  // namespace

bool Population::needed(const Policy& policy, const std::vector<TileSpec>& specs) {
  return std::any_of(specs.begin(), specs.end(), [&](const TileSpec& spec) {
    return can_be_reclaimed(policy, spec) || can_be_refused(spec);
  });
}

Population::Population(const Policy& policy, const std::vector<std::unique_ptr<Tile>>& tiles)
    : policy_(policy),
      classes_(sort_into_classes(tiles)),
      decay_(Decay::of(policy.decay)),
      clock_(policy.interval),
      reclaimer_(policy.ranking, decay_, clock_, classes_),
      admission_(admissions(tiles), policy.admission_bytes, tiles.front()->spec().seed),
      counts_(tiles.size()) {
  for (const auto& tile : tiles) {
    const RowLayout& layout = tile->layout();
    cost_.push_back(layout.block_bytes / layout.rows);
    filters_.push_back(can_be_refused(tile->spec()));
  }
}

// Tables with one policy are one class; where scores are compared to those of their own table, each
// is a class of its own.
std::vector<RowClass> Population::sort_into_classes(
    const std::vector<std::unique_ptr<Tile>>& tiles) {
  const bool apart = policy_.ranking == Ranking::importance;
  std::vector<RowClass> classes;
  std::vector<uint32_t> tables;
  for (const auto& tile : tiles) {
    const TileSpec& spec = tile->spec();
    class_of_.push_back(NO_CLASS);
    if (!can_be_reclaimed(policy_, spec)) continue;
    size_t at = 0;
    for (; at < classes.size(); ++at)
      if (classes[at].time_to_live == spec.time_to_live &&
          classes[at].by_score == !spec.high_priority && (!apart || tables[at] == spec.table))
        break;
    class_of_.back() = static_cast<uint32_t>(at);
    if (at < classes.size()) continue;
    classes.push_back({spec.time_to_live, !spec.high_priority});
    tables.push_back(spec.table);
  }
  return classes;
}

void Population::begin_batch(Ticket& ticket, size_t keys, size_t room) {
  asked_.clear();
  ticket.batch = ++batch_;
  outstanding_.insert(batch_);
  clock_.advance_batch();
  const uint32_t steady = batch_ > batches_ ? batch_ - batches_ + 1 : 1;
  fold(steady);
  since_ = std::min(steady, *outstanding_.begin());
  window_.begin(batch_, keys, batches_, since_);
  born_before_ = std::exchange(born_, 0);
  born_since_tick_ += born_before_;
  const size_t live = static_cast<size_t>(reclaimer_.bytes());
  if (batch_ % policy_.interval == 0 || born_since_tick_ * TICKS > live) {
    reclaimer_.tick();
    born_since_tick_ = 0;
  }
  if (const size_t bytes = excess(room); bytes > 0) condemn(bytes);
}

void Population::end_batch(Ticket& ticket) {
  const std::shared_ptr<LateTouches> late = std::exchange(ticket.late, nullptr);
  if (outstanding_.erase(ticket.batch) == 0) return;
  if (late) first_late_ = std::min(first_late_, ticket.number);
  trained_.emplace(ticket.batch, Trained{std::move(ticket.touches), late});
  ticket.touches.clear();
}

// Asks batches before this one what they have done, if they have not told.
void Population::settle(uint32_t before) {
  for (auto& [batch, trained] : trained_) {
    if (batch >= before) return;
    if (!trained.late) continue;
    trained.touches.push_back(trained.late->take());
    trained.late = nullptr;
  }
  first_late_ = ~uint32_t{0};
}

// Takes into account what batches before this one have done.
void Population::fold(uint32_t before) {
  settle(before);
  while (!trained_.empty() && trained_.begin()->first < before) {
    fold(trained_.begin()->second.touches);
    trained_.erase(trained_.begin());
  }
}

void Population::fold(const Touches& touches) {
  for (const auto& part : touches)
    for (const Touch& touch : part) {
      reclaimer_.remove(class_of_[touch.tile], touch.before, cost_[touch.tile]);
      reclaimer_.add(class_of_[touch.tile], touch.after, cost_[touch.tile]);
    }
}

// Bytes by which the rows exceed what they may take, and what is freed beside them.
size_t Population::excess(size_t room) const {
  const double rows = static_cast<double>(this->rows());
  const double bytes = static_cast<double>(reclaimer_.bytes());
  double part = 0;  // of the rows
  auto limit = [&](double have, double most) {
    if (most > 0 && have > most) part = std::max(part, 1 - most * (1 - policy_.free) / have);
  };
  limit(rows, static_cast<double>(policy_.max_rows));
  limit(bytes, static_cast<double>(policy_.max_bytes));
  limit(bytes, policy_.share * static_cast<double>(room));
  return static_cast<size_t>(std::ceil(part * bytes));
}

size_t Population::rows() const {
  int64_t rows = 0;
  for (uint32_t c = 0; c < classes_.size(); ++c) rows += reclaimer_.rows(c);
  return static_cast<size_t>(rows);
}

size_t Population::condemn(size_t bytes) {
  born_since_tick_ = 0;
  ++condemnations_;
  return condemned_ = reclaimer_.condemn(bytes);
}

// Twice as fast as new rows come, so that memory that was condemned is there before it is needed. A
// sweep for those that were missed has time.
size_t Population::share_of_sweep(size_t entries, bool first) const {
  const double part = condemned_ == 0 || !first
                          ? 0
                          : 2 * static_cast<double>(born_before_) / static_cast<double>(condemned_);
  return static_cast<size_t>(std::min(1.0, part) * static_cast<double>(entries)) +
         entries / MOST_SWEEPS + 1;
}

void Population::find_gone(Lookups& lookups, const Lookups::Part& part, const RowView& view,
                           std::vector<uint64_t>& keys) const {
  if (!reclaims(part.tile)) return;
  for (size_t i = part.begin; i < part.end + AHEAD; ++i) {
    if (i < part.end && lookups.slots[i] != Tile::NONE)
      __builtin_prefetch(view.meta(lookups.slots[i]));
    if (i < part.begin + AHEAD) continue;
    const uint64_t key = lookups.keys[i - AHEAD];
    uint32_t& slot = lookups.slots[i - AHEAD];
    if (slot == Tile::NONE || !gone(part.tile, key, view.meta(slot)->load())) continue;
    slot = Tile::NONE;
    keys.push_back(key);
  }
}

bool Population::admit(size_t tile, uint64_t key, uint32_t sightings) {
  const bool yes = admission_.admit(static_cast<uint32_t>(tile), key, sightings, batch_);
  counts_[tile].refused += !yes;
  return yes;
}

bool Population::admit_once(size_t tile, uint64_t key, uint32_t sightings) {
  const auto [at, is_new] = asked_.try_emplace({tile, key}, false);
  if (is_new) at->second = admit(tile, key, sightings);
  return at->second;
}

void Population::bear(size_t tile) {
  ++counts_[tile].admitted;
  if (!reclaims(tile)) return;
  reclaimer_.add(class_of_[tile], {clock_.now(), 0}, cost_[tile]);
  born_ += cost_[tile];
}

void Population::bury(size_t tile, Meta meta) {
  const bool expired = reclaimer_.expired(class_of_[tile], meta.time);
  ++(expired ? counts_[tile].expired : counts_[tile].reclaimed);
}

void Population::erase(size_t tile, Meta meta) {
  if (!reclaims(tile)) return;
  fold(~uint32_t{0});
  reclaimer_.remove(class_of_[tile], meta, cost_[tile]);
}

// A row that the user writes counts as just seen, and keeps its score.
Meta Population::write(size_t tile, Meta before, Meta after) {
  if (!reclaims(tile)) return after;
  fold(~uint32_t{0});
  reclaimer_.remove(class_of_[tile], before, cost_[tile]);
  after.time = clock_.now();
  reclaimer_.add(class_of_[tile], after, cost_[tile]);
  return after;
}

void Population::touch(const Ticket& ticket, const Share& piece, const RowView& view,
                       const float* norms, std::vector<Touch>& touches) const {
  const Run& run = ticket.runs[piece.part];
  char* const* const at = (run.distinct ? ticket.rows_at : ticket.group_at).data();
  const uint32_t* const slots = (run.distinct ? ticket.slots : ticket.group_slot).data();
  const bool counted = !ticket.credits.empty();
  auto credit = [&](size_t group) {
    if (norms != nullptr) return norms[group - piece.begin];
    if (run.distinct) return counted ? ticket.credits[group] : 1.0f;
    if (counted) return ticket.group_credit[group];
    return static_cast<float>(ticket.group_first[group + 1] - ticket.group_first[group]);
  };
  for (size_t group = piece.begin; group < piece.end; ++group) {
    const size_t ahead = std::min(group + AHEAD, piece.end - 1);
    __builtin_prefetch(view.meta(at[ahead], slots[ahead]), 1);
    Meta& meta = *view.meta(at[group], slots[group]);
    touches.push_back(touch(ticket.tick, run.tile, meta, credit(group)));
  }
}

Touch Population::touch(uint16_t tick, uint32_t tile, Meta& meta, float credit) const {
  const Meta before = meta;
  Meta after = {tick, before.score};
  if (policy_.ranking != Ranking::recency) {
    const uint32_t intervals = clock_.intervals(before.time, tick);
    after.score = credited(before.score, intervals, credit, decay_);
  }
  meta.store(after);
  return {tile, before, after};
}

}  // namespace ff
