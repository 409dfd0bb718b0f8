// What the threads of the pad did and when, for a trace.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

namespace ff {

struct Span {
  const char* thread;
  const char* name;
  int64_t begin_ns, end_ns;  // CLOCK_MONOTONIC
  uint64_t rows;
};

inline int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

// Spans since the last take(); beyond MOST of them new ones are left out. Thread-safe.
class Spans {
 public:
  static constexpr size_t MOST = 1 << 16;

  void record(bool on) {
    std::lock_guard<std::mutex> lock(mutex_);
    on_ = on;
  }
  void add(const Span& span) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (on_ && spans_.size() < MOST) spans_.push_back(span);
  }
  std::vector<Span> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::move(spans_);
  }

 private:
  std::mutex mutex_;
  bool on_ = false;
  std::vector<Span> spans_;
};

}  // namespace ff
