// Work that comes in parts, cut into equal consecutive shares, one per worker.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "parallel.h"

namespace ff {

// Some of one part: reply rows of a segment (gather), groups of a run (update), ids of a run
// (planning).
struct Share {
  size_t part;
  size_t begin, end;
};

using WorkShares = std::vector<std::vector<Share>>;  // by worker

// Deals out parts, each with a cost. cut(cost) says how far into the part a cost reaches.
class Shares {
 public:
  Shares(WorkShares& shares, size_t workers, double total)
      : shares_(shares), each_(total / static_cast<double>(workers)) {
    shares_.resize(workers);
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
  WorkShares& shares_;
  double each_, dealt_ = 0;
  size_t worker_ = 0;
};

// Ids or lookups of some parts, cut for as many threads as they are worth. range(part) gives
// {begin, end}.
template <class Range>
WorkShares share_ranges(size_t parts, int threads, Range&& range) {
  constexpr size_t WORTH_THREAD = 8192;
  size_t total = 0;
  for (size_t p = 0; p < parts; ++p) total += range(p).second - range(p).first;
  const size_t worth = std::max<size_t>(1, total / WORTH_THREAD);
  WorkShares result;
  Shares shares(result, std::min<size_t>(std::max(1, threads), worth), static_cast<double>(total));
  for (size_t p = 0; p < parts; ++p) {
    const auto [begin, end] = range(p);
    shares.add(p, begin, end, static_cast<double>(end - begin),
               [begin = begin](double reach) { return begin + static_cast<size_t>(reach); });
  }
  return result;
}

// The ids of those runs that are wanted.
template <class Run, class Wanted>
WorkShares share_ids(const std::vector<Run>& runs, int threads, Wanted&& wanted) {
  return share_ranges(runs.size(), threads, [&](size_t r) {
    return std::pair{runs[r].id_begin, wanted(runs[r]) ? runs[r].id_end : runs[r].id_begin};
  });
}

// Calls work(worker) for all workers, each on a thread.
template <class Work>
void each_worker(size_t workers, Work&& work) {
  parallel_for(static_cast<int>(workers), workers, 1, [&](size_t begin, size_t end, int) {
    for (size_t worker = begin; worker < end; ++worker) work(worker);
  });
}

// Calls work(worker, share) for the shares of all workers, each on a thread.
template <class Work>
void each_share(const WorkShares& shares, Work&& work) {
  each_worker(shares.size(), [&](size_t worker) {
    for (const Share& share : shares[worker]) work(worker, share);
  });
}

}  // namespace ff
