// A small persistent thread pool with one call, parallel_for.
//
// The range is cut into equal contiguous parts, at most one per thread; who runs a part never
// changes what it computes, so results do not depend on timing. The caller works too and takes
// whatever parts no worker has claimed, so a busy pool (another application thread is inside), or
// one whose workers were lost by fork(), costs time and never correctness. Idle workers sleep:
// ranks that share cores must not pay for each other's waiting.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>

namespace ff {

class Workers {
 public:
  // One per native module, never destroyed: its threads may outlive main.
  static Workers& shared() {
    static Workers* const workers = new Workers;
    return *workers;
  }

  // Runs body(part) for every part in [0, parts) and returns when all have ended. Rethrows the
  // exception of the lowest part that threw. Thread-safe; may be called from inside a part.
  void run(size_t parts, void (*call)(void*, size_t), void* body) {
    Job job{call, body, parts};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (threads_ + 1 < parts) start();
      jobs_.push_back(&job);
    }
    for (size_t i = 1; i < parts; ++i) wake_.notify_one();
    while (claim(job)) {
    }
    retire(job);
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  struct Job {
    void (*call)(void*, size_t);
    void* body;
    size_t parts;
    std::atomic<size_t> next{0};
    std::atomic<size_t> ended{0};
    size_t helpers = 0;  // workers that may still touch this job; guarded by mutex_
    std::exception_ptr error = nullptr;
    size_t error_part = 0;
  };

  Workers() = default;

  void start() {
    std::thread([this] { serve(); }).detach();
    ++threads_;
  }

  // Takes one part of the job and runs it; false when none is left.
  bool claim(Job& job) {
    const size_t part = job.next.fetch_add(1, std::memory_order_relaxed);
    if (part >= job.parts) return false;
    try {
      job.call(job.body, part);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!job.error || part < job.error_part) {
        job.error = std::current_exception();
        job.error_part = part;
      }
    }
    job.ended.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }

  void retire(Job& job) {
    for (int spin = 0; spin < 2000 && job.ended.load(std::memory_order_acquire) < job.parts; ++spin)
      pause();
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
    done_.wait(lock, [&] { return job.helpers == 0; });
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      Job* job = nullptr;
      for (Job* candidate : jobs_)
        if (candidate->next.load(std::memory_order_relaxed) < candidate->parts) job = candidate;
      if (job == nullptr) {
        wake_.wait(lock);
        continue;
      }
      ++job->helpers;
      lock.unlock();
      while (claim(*job)) {
      }
      lock.lock();
      if (--job->helpers == 0) done_.notify_all();
    }
  }

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  size_t threads_ = 0;
};

// Calls f(begin, end, worker) over contiguous parts of [0, n), at most `threads` of them and none
// smaller than `grain` unless there is only one. `worker` is the part's number, below `threads`.
// With one part it is a plain call.
template <class F>
inline void parallel_for(int threads, size_t n, size_t grain, F&& f) {
  const size_t most = grain > 1 ? n / grain : n;
  const size_t parts = std::min<size_t>(threads > 1 ? static_cast<size_t>(threads) : 1, most);
  if (parts <= 1) {
    if (n > 0) f(size_t{0}, n, 0);
    return;
  }
  struct Range {
    std::remove_reference_t<F>* f;
    size_t n, parts;
  } range{&f, n, parts};
  Workers::shared().run(
      parts,
      [](void* body, size_t part) {
        const Range& r = *static_cast<Range*>(body);
        // n * part cannot overflow for any array that fits in memory with fewer than 2^16 parts
        (*r.f)(r.n* part / r.parts, r.n * (part + 1) / r.parts, static_cast<int>(part));
      },
      &range);
}

}  // namespace ff
