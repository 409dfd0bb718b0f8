// Who works on what: gather and update cut into equal shares, when the batch is planned.
#include <algorithm>

#include "pad.h"

namespace ff {
namespace {

// Deals out work that comes in parts, each with a cost, to workers in equal consecutive shares.
// cut(part, cost) says how far into the part a cost reaches.
class Shares {
 public:
  Shares(std::vector<std::vector<Share>>& shares, int threads, double total)
      : shares_(shares), each_(total / threads) {
    shares_.resize(threads);
    for (auto& share : shares_) share.clear();
  }

  template <class Cut>
  void add(size_t part, size_t begin, size_t end, double cost, Cut&& cut) {
    const double start = dealt_;
    while (begin < end) {
      const bool last = worker_ + 1 == shares_.size();
      const double limit = each_ * static_cast<double>(worker_ + 1);
      const size_t until =
          last || start + cost <= limit ? end : std::clamp<size_t>(cut(limit - start), begin, end);
      if (until > begin) shares_[worker_].push_back({part, begin, until});
      begin = until;
      if (begin < end) ++worker_;
    }
    dealt_ = start + cost;
  }

 private:
  std::vector<std::vector<Share>>& shares_;
  double each_, dealt_ = 0;
  size_t worker_ = 0;
};

}  // namespace

void Pad::share_replies(Ticket& ticket) const {
  auto bytes = [&](const Segment& segment) {
    return static_cast<double>(tiles_[segment.tile]->layout().weight_stride);
  };
  auto cost = [&](const Segment& segment) {
    const size_t touched = segment.id_end - segment.id_begin + segment.rows;
    return segment.reply ? bytes(segment) * static_cast<double>(touched) : 0.0;
  };
  double total = 0;
  for (const Segment& segment : ticket.segments) total += cost(segment);
  Shares shares(ticket.replies, threads_, total);
  for (size_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    if (!segment.reply) continue;
    shares.add(s, 0, segment.rows, cost(segment), [&](double reach) {
      const double touched = reach / bytes(segment);
      if (!segment.pooled) return static_cast<size_t>(touched / 2);
      // The first bag at which ids and bags so far exceed what the reach allows.
      size_t low = 0, high = segment.rows;
      const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
      while (low < high) {
        const size_t middle = (low + high) / 2;
        const size_t so_far = offsets[middle] - offsets[0] + middle;
        if (static_cast<double>(so_far) < touched)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    });
  }
}

void Pad::share_updates(Ticket& ticket) const {
  auto bytes = [&](const Run& run) {
    return static_cast<double>(tiles_[run.tile]->layout().row_bytes());
  };
  auto touched = [&](const Run& run, size_t group) {  // rows and entries before this group
    if (run.distinct) return 2 * (group - run.group_begin);
    return group - run.group_begin + ticket.group_first[group] -
           ticket.group_first[run.group_begin];
  };
  double total = 0;
  ticket.unique = 0;
  for (Run& run : ticket.runs) {
    if (run.distinct) {
      run.group_begin = run.id_begin;
      run.group_end = run.id_end;
    }
    ticket.unique += run.group_end - run.group_begin;
    total += bytes(run) * static_cast<double>(touched(run, run.group_end));
  }
  Shares shares(ticket.updates, threads_, total);
  for (size_t r = 0; r < ticket.runs.size(); ++r) {
    const Run& run = ticket.runs[r];
    const double cost = bytes(run) * static_cast<double>(touched(run, run.group_end));
    shares.add(r, run.group_begin, run.group_end, cost, [&](double reach) {
      size_t low = run.group_begin, high = run.group_end;
      while (low < high) {
        const size_t middle = (low + high) / 2;
        if (static_cast<double>(touched(run, middle)) * bytes(run) < reach)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    });
  }
}

}  // namespace ff
