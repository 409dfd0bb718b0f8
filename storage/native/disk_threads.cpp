// The engine for every system: threads that read and write one piece at a time.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "disk.h"
#include "errors.h"

namespace ff {
namespace {

constexpr unsigned MOST_THREADS = 64;

class ThreadDisk final : public Disk {
 public:
  ThreadDisk(int file, unsigned depth) : file_(file) {
    try {
      for (unsigned i = 0; i < std::min(depth, MOST_THREADS); ++i)
        threads_.emplace_back([this] { serve(); });
    } catch (const std::system_error& error) {
      if (threads_.empty()) throw StorageError(error.code().value(), "no thread can be started");
    }
  }
  ~ThreadDisk() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void read(Piece* pieces, size_t n, const Each& arrived) override {
    run({pieces, n, &arrived, false});
  }
  void write(Piece* pieces, size_t n, const Each& fill) override { run({pieces, n, &fill, true}); }
  bool discard(uint64_t offset, size_t bytes) override {
    return discard_range(file_, offset, bytes);
  }
  std::string engine() const override { return "threads"; }

 private:
  struct Batch {
    Piece* pieces;
    size_t n;
    const Each* each;
    bool writing;
    size_t next = 0, ended = 0;  // guarded by mutex_, like the rest
    std::exception_ptr error = nullptr;
  };

  void run(Batch batch) {
    if (batch.n == 0) return;
    std::unique_lock<std::mutex> lock(mutex_);
    batches_.push_back(&batch);
    for (size_t i = 0; i < std::min(batch.n, threads_.size()); ++i) wake_.notify_one();
    done_.wait(lock, [&] { return batch.ended == batch.n; });
    if (batch.error) std::rethrow_exception(batch.error);
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || !batches_.empty(); });
      if (batches_.empty()) return;
      Batch& batch = *batches_.front();
      const size_t i = batch.next++;
      batches_.pop_front();  // the next thread serves another batch first
      if (batch.next < batch.n) batches_.push_back(&batch);
      lock.unlock();
      std::exception_ptr error = move(batch, i);
      lock.lock();
      if (error && !batch.error) batch.error = error;
      if (++batch.ended == batch.n) done_.notify_all();
    }
  }

  std::exception_ptr move(const Batch& batch, size_t i) const {
    Piece& piece = batch.pieces[i];
    try {
      if (batch.writing) (*batch.each)(i);
      piece.result = transfer(piece, batch.writing);
      if (!batch.writing) (*batch.each)(i);
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }

  int64_t transfer(const Piece& piece, bool writing) const {
    size_t done = 0;
    while (done < piece.bytes) {
      char* const data = piece.data + done;
      const size_t left = piece.bytes - done;
      const off_t at = static_cast<off_t>(piece.offset + done);
      const ssize_t moved = writing ? pwrite(file_, data, left, at) : pread(file_, data, left, at);
      if (moved < 0 && errno != EINTR) return -errno;
      if (moved == 0) break;
      if (moved > 0) done += static_cast<size_t>(moved);
    }
    return static_cast<int64_t>(done);
  }

  const int file_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Batch*> batches_;  // those with pieces that no thread has taken
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

bool discard_range(int file, uint64_t offset, size_t bytes) {
  return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                   static_cast<off_t>(bytes)) == 0;
}

std::shared_ptr<Disk> make_thread_disk(int file, unsigned depth) {
  return std::make_shared<ThreadDisk>(file, std::max(1u, depth));
}

std::shared_ptr<Disk> make_disk(int file, const std::string& engine, unsigned depth) {
  if (engine == "threads") return make_thread_disk(file, depth);
  if (engine == "uring") return make_ring_disk(file, depth);
  if (engine != "auto")
    throw std::invalid_argument("engine must be auto, uring or threads, got '" + engine + "'");
  try {
    return make_ring_disk(file, depth);
  } catch (const StorageError&) {
    return make_thread_disk(file, depth);
  }
}

}  // namespace ff
