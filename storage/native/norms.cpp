#include "norms.h"

#include <algorithm>
#include <utility>

#include "parallel.h"

namespace ff {
namespace {

constexpr size_t GRAIN = 4096;  // rows worth a thread
constexpr size_t AHEAD = 16;    // rows asked for ahead

}  // namespace

Norms::~Norms() { arrived_.finish(); }

void Norms::expect(const Ticket& ticket, const TileList& tiles, const Population& population) {
  arrived_.synchronize();  // of a ticket that nobody asked, perhaps
  population_ = &population;
  touches_.clear();
  fetched_ = false;
  tick_ = ticket.tick;
  count_ = 0;
  parts_.clear();
  rows_.clear();
  for (const Run& run : ticket.runs) {
    const size_t begin = rows_.size(), groups = run.group_end - run.group_begin;
    if (population.reclaims(run.tile)) {
      const RowView view = tiles[run.tile]->view();
      char* const* const at =
          (run.distinct ? ticket.rows_at : ticket.group_at).data() + run.group_begin;
      const uint32_t* const slots =
          (run.distinct ? ticket.slots : ticket.group_slot).data() + run.group_begin;
      rows_.resize(begin + groups);
      parallel_for(threads_, groups, GRAIN, [&](size_t from, size_t to, int) {
        for (size_t g = from; g < to; ++g) rows_[begin + g] = view.meta(at[g], slots[g]);
      });
      parts_.push_back({run.tile, begin, rows_.size(), count_});
    }
    count_ += groups;
  }
  here_.reserve(*device_, count_ * sizeof(float));
}

void Norms::fetch(const float* norms, const Stream& step) {
  fetched_ = true;
  if (count_ > 0) step.copy_out(here_.data(), norms, count_ * sizeof(float));
  arrived_.record(step);
}

std::vector<Touch> Norms::take() {
  if (fetched_) read();
  fetched_ = false;
  return std::exchange(touches_, {});
}

void Norms::read() {
  arrived_.synchronize();
  const float* const norms = reinterpret_cast<const float*>(here_.data());
  const size_t first = touches_.size();
  touches_.resize(first + rows_.size());
  for (const Part& part : parts_)
    parallel_for(threads_, part.end - part.begin, GRAIN, [&](size_t from, size_t to, int) {
      for (size_t i = from; i < to; ++i) {
        __builtin_prefetch(rows_[part.begin + std::min(i + AHEAD, to - 1)], 1);
        touches_[first + part.begin + i] = population_->touch(
            tick_, part.tile, *rows_[part.begin + i], norms[part.first_norm + i]);
      }
    });
}

}  // namespace ff
