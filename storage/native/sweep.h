// A walk over all keys of some indexes, a part with every batch that is planned, by which rows that
// are gone are taken away.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "index.h"
#include "population.h"

namespace ff {

class Sweep {
 public:
  using Seen = std::vector<std::pair<uint64_t, uint32_t>>;  // keys and what their index says

  // Both outlive it, and so do the indexes.
  Sweep(Population& population, std::vector<const Index*> indexes)
      : population_(population), indexes_(std::move(indexes)) {}

  bool under_way() const { return left_ > 0; }

  // Begins anew: looks at everything from now on.
  void start() {
    left_ = entries();
    first_ = seen_for_ != population_.condemnations();
    seen_for_ = population_.condemnations();
    population_.sweep_began();
  }

  // A batch's part of the walk; of a new one if rows were condemned since this one began, or if
  // none is under way and somebody may have been missed. visit(number of the index, Seen) may erase
  // keys.
  template <class Visit>
  void go_on(Visit&& visit) {
    const bool condemned = seen_for_ != population_.condemnations();
    if (condemned || (left_ == 0 && !population_.clean())) start();
    if (left_ > 0) advance(population_.share_of_sweep(entries(), first_), visit);
  }

  // The rest of the walk.
  template <class Visit>
  void finish(Visit&& visit) {
    advance(left_, visit);
  }

 private:
  static constexpr size_t PART = 256;  // entries looked at together

  size_t entries() const {
    size_t entries = 0;
    for (const Index* index : indexes_) entries += index->extent();
    return entries;
  }

  template <class Visit>
  void advance(size_t count, Visit& visit) {
    for (count = std::min(count, left_); count > 0;) {
      if (index_ == indexes_.size()) index_ = 0;
      const Index& index = *indexes_[index_];
      const size_t n = std::min({PART, count, index.extent() - std::min(index.extent(), entry_)});
      if (n == 0) {
        ++index_;
        entry_ = 0;
        continue;
      }
      seen_.clear();
      index.for_part(entry_, n,
                     [&](uint64_t key, uint32_t value) { seen_.emplace_back(key, value); });
      visit(index_, seen_);
      entry_ += n;
      count -= n;
      left_ -= n;
      if (left_ == 0) population_.sweep_ended();
    }
  }

  Population& population_;
  std::vector<const Index*> indexes_;
  size_t index_ = 0, entry_ = 0;  // where it is
  size_t left_ = 0;               // entries
  uint64_t seen_for_ = 0;         // condemnations when it began
  bool first_ = false;            // since the last of them
  Seen seen_;
};

}  // namespace ff
