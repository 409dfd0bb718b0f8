// Work in order, on a thread of its own: what is enqueued runs later, so that whoever forgets to
// wait reads what is not there yet.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace stand_in {

// A moment of a stream: everything that was enqueued before it is done.
class Moment {
 public:
  void pass();
  bool passed() const { return passed_; }
  void wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> passed_ = false;
};

class Stream {
 public:
  using Work = std::function<void()>;

  // delay_us: before each piece of work it sleeps for a random time up to this, drawn from the
  // seed.
  static std::shared_ptr<Stream> create(uint64_t seed);

  void enqueue(Work work);  // of a closed stream too: one may look for the end of what it did
  std::shared_ptr<Moment> mark();
  bool idle();
  void close();  // ends the thread when the work that waits is done

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  bool closed_ = false, busy_ = false;
  uint64_t random_ = 0;
};

// Whether streams begin nothing new for now.
void hold(bool on);

// Longest sleep before a piece of work; 0 for none.
extern std::atomic<unsigned> delay_us;

}  // namespace stand_in
