// One io_uring: a queue of reads and writes that the kernel does, without a library.
#pragma once

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>

#include "disk.h"

namespace ff {

// For one thread at a time.
class Ring {
 public:
  // Room for `depth` requests, a power of two. Throws StorageError if the system refuses.
  explicit Ring(unsigned depth);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Queues a request that will come back with `tag`. Fewer than `depth` are under way.
  void push(int file, bool writing, uint64_t offset, char* data, size_t bytes, uint64_t tag);

  // Hands the queue to the kernel and waits until `least` results are there. Returns 0 or errno:
  // then the queue was not taken, and may be handed over again.
  int enter(unsigned least);

  // f(tag, result) for every result that is there. Results are bytes moved or -errno.
  template <class F>
  void reap(F&& f) {
    unsigned head = *cq_head_;
    const unsigned tail = __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE);
    for (; head != tail; ++head) {
      const io_uring_cqe cqe = cqes_[head & cq_mask_];
      __atomic_store_n(cq_head_, head + 1, __ATOMIC_RELEASE);
      f(cqe.user_data, cqe.res);
    }
  }

 private:
  void map(const io_uring_params& params);
  void unmap();

  int ring_ = -1;
  unsigned queued_ = 0;  // requests that the kernel has not taken
  char* rings_ = nullptr;
  size_t rings_bytes_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  size_t sqes_bytes_ = 0;
  unsigned* sq_tail_ = nullptr;
  unsigned* sq_array_ = nullptr;
  unsigned sq_mask_ = 0;
  unsigned* cq_head_ = nullptr;
  unsigned* cq_tail_ = nullptr;
  unsigned cq_mask_ = 0;
  io_uring_cqe* cqes_ = nullptr;
};

}  // namespace ff
