#include "turns.h"

#include <algorithm>
#include <functional>

namespace stand_in {

uint64_t Turns::random() {  // splitmix64
  uint64_t z = random_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// With a seed, by a toss: warp by warp in any order of warps and of lanes, or any order of threads.
void Turns::start(unsigned threads, uint64_t seed) {
  ready_.clear();
  turn_.resize(threads);
  random_ = seed;
  last_ = threads;
  shuffled_ = seed != 0;
  const bool by_warp = shuffled_ && random() % 2 == 0;
  uint64_t warp = 0;
  for (unsigned t = 0; t < threads; ++t) {
    if (t % 32 == 0 && by_warp) warp = random() >> 33 << 32;
    turn_[t] = !shuffled_ ? t : by_warp ? warp | random() >> 33 : random() >> 1;
  }
}

void Turns::add(unsigned thread) {
  ready_.emplace_back(turn_[thread], thread);
  std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
}

unsigned Turns::take() {
  std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
  const unsigned thread = ready_.back().second;
  ready_.pop_back();
  return thread;
}

bool Turns::give_way(unsigned thread) {
  if (shuffled_ ? random() % 4 != 0 : ++asked_ % 256 != 0) return false;
  turn_[thread] = shuffled_ ? random() >> 1 : ++last_;
  return true;
}

}  // namespace stand_in
