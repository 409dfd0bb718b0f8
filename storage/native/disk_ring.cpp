// The engine for Linux: io_uring, a ring for every caller that is under way.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <vector>

#include "disk.h"
#include "errors.h"
#include "ring.h"

namespace ff {
namespace {

constexpr unsigned MOST_DEPTH = 4096;
constexpr size_t MOST_RINGS = 8;

// The pieces of one call on their way through a ring.
class Flight {
 public:
  Flight(Ring& ring, int file, unsigned depth, bool writing, Piece* pieces, size_t n,
         const Disk::Each& each)
      : ring_(ring),
        file_(file),
        depth_(depth),
        writing_(writing),
        pieces_(pieces),
        n_(n),
        each_(each) {}

  void run() {
    while (next_ < n_ || under_way_ > 0) {
      if (again_.empty() && next_ < n_ && under_way_ < depth_) launch();
      for (; !again_.empty(); again_.pop_back()) push(again_.back());
      // Something to hand over and nothing to wait for yet: another piece may be made ready first.
      const bool filling = writing_ && next_ < n_ && under_way_ < depth_;
      const int error = ring_.enter(filling ? 0 : 1);
      if (error != 0 && error != EINTR && error != EAGAIN && error != EBUSY) fail(error);
      ring_.reap([this](uint64_t i, int result) { land(i, result); });
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // Queues pieces: one when writing, because it is filled while others are being written.
  void launch() {
    do {
      const size_t i = next_++;
      pieces_[i].result = 0;
      if (writing_) call(i);
      if (error_) {
        next_ = n_;
        return;
      }
      ++under_way_;
      push(i);
    } while (!writing_ && next_ < n_ && under_way_ < depth_);
  }

  void push(size_t i) {
    const Piece& piece = pieces_[i];
    const size_t done = static_cast<size_t>(piece.result);
    ring_.push(file_, writing_, piece.offset + done, piece.data + done, piece.bytes - done, i);
  }

  void land(size_t i, int result) {
    Piece& piece = pieces_[i];
    if (result == -EINTR || result == -EAGAIN) {
      again_.push_back(i);
      return;
    }
    if (result > 0) {
      piece.result += result;
      if (static_cast<size_t>(piece.result) < piece.bytes) {
        again_.push_back(i);  // what is left; at the end of the file nothing more will come
        return;
      }
    }
    if (result < 0) piece.result = result;
    --under_way_;
    if (!writing_) call(i);
  }

  void call(size_t i) {
    try {
      if (!error_) each_(i);
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  // The kernel no longer answers, so memory that it may still write to cannot be given up.
  [[noreturn]] static void fail(int error) {
    fprintf(stderr, "fourfold: io_uring_enter failed: %s\n", strerror(error));
    abort();
  }

  Ring& ring_;
  const int file_;
  const unsigned depth_;
  const bool writing_;
  Piece* const pieces_;
  const size_t n_;
  const Disk::Each& each_;
  size_t next_ = 0;         // the first piece that has not been queued
  unsigned under_way_ = 0;  // pieces queued and not ended
  std::vector<size_t> again_;
  std::exception_ptr error_;
};

class RingDisk final : public Disk {
 public:
  RingDisk(int file, unsigned depth) : file_(file), depth_(depth) {
    free_.push_back(std::make_unique<Ring>(depth_));
    rings_ = 1;
  }

  void read(Piece* pieces, size_t n, const Each& arrived) override {
    run(pieces, n, arrived, false);
  }
  void write(Piece* pieces, size_t n, const Each& fill) override { run(pieces, n, fill, true); }
  bool discard(uint64_t offset, size_t bytes) override {
    return discard_range(file_, offset, bytes);
  }
  std::string engine() const override { return "uring"; }

 private:
  void run(Piece* pieces, size_t n, const Each& each, bool writing) {
    std::unique_ptr<Ring> ring = take();
    std::exception_ptr error;
    try {
      Flight(*ring, file_, depth_, writing, pieces, n, each).run();
    } catch (...) {
      error = std::current_exception();
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      free_.push_back(std::move(ring));
    }
    given_.notify_one();
    if (error) std::rethrow_exception(error);
  }

  // A free ring, a new one, or the next that becomes free.
  std::unique_ptr<Ring> take() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (free_.empty() && rings_ < MOST_RINGS) {
      try {
        auto ring = std::make_unique<Ring>(depth_);
        ++rings_;
        return ring;
      } catch (const StorageError&) {  // no more for now: share those that are there
      }
    }
    given_.wait(lock, [&] { return !free_.empty(); });
    std::unique_ptr<Ring> ring = std::move(free_.back());
    free_.pop_back();
    return ring;
  }

  const int file_;
  const unsigned depth_;
  std::mutex mutex_;
  std::condition_variable given_;
  std::vector<std::unique_ptr<Ring>> free_;
  size_t rings_ = 0;
};

}  // namespace

std::shared_ptr<Disk> make_ring_disk(int file, unsigned depth) {
  return std::make_shared<RingDisk>(file, std::bit_ceil(std::clamp(depth, 1u, MOST_DEPTH)));
}

}  // namespace ff
