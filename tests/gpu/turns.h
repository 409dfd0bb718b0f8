// Which of the threads that can run goes next. In order; or from a seed, so that every seed is
// another way in which a GPU could have done it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace stand_in {

class Turns {
 public:
  // Nobody is ready. seed: 0 for the order of threads.
  void start(unsigned threads, uint64_t seed);
  void add(unsigned thread);  // is ready
  bool empty() const { return ready_.empty(); }
  unsigned take();
  bool shuffled() const { return shuffled_; }
  // Whether a thread that can go on lets others go first; then its next turn comes later.
  bool give_way(unsigned thread);

 private:
  uint64_t random();

  std::vector<uint64_t> turn_;                        // of each thread; the lowest goes first
  std::vector<std::pair<uint64_t, unsigned>> ready_;  // a heap of (turn, thread)
  uint64_t random_ = 0, last_ = 0;
  unsigned asked_ = 0;
  bool shuffled_ = false;
};

}  // namespace stand_in
