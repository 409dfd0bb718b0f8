#include "ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.h"

namespace ff {

Ring::Ring(unsigned depth) {
  io_uring_params params{};
  ring_ = static_cast<int>(syscall(__NR_io_uring_setup, depth, &params));
  if (ring_ < 0)
    throw StorageError(errno, std::string("the system refuses io_uring: ") + strerror(errno));
  // Reads and writes without vectors came with this feature, in Linux 5.6.
  const unsigned needed = IORING_FEAT_RW_CUR_POS | IORING_FEAT_SINGLE_MMAP;
  if ((params.features & needed) != needed) {
    close(ring_);
    throw StorageError(ENOSYS, "the system refuses io_uring: this needs Linux 5.6 or newer");
  }
  map(params);
}

Ring::~Ring() {
  unmap();
  close(ring_);
}

void Ring::map(const io_uring_params& params) {
  const auto& sq = params.sq_off;
  const auto& cq = params.cq_off;
  rings_bytes_ = std::max(sq.array + params.sq_entries * sizeof(unsigned),
                          cq.cqes + params.cq_entries * sizeof(io_uring_cqe));
  sqes_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
  auto share = [&](size_t bytes, off_t what) {
    return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_, what);
  };
  void* const rings = share(rings_bytes_, IORING_OFF_SQ_RING);
  void* const sqes = share(sqes_bytes_, IORING_OFF_SQES);
  const int error = errno;
  rings_ = rings == MAP_FAILED ? nullptr : static_cast<char*>(rings);
  sqes_ = sqes == MAP_FAILED ? nullptr : static_cast<io_uring_sqe*>(sqes);
  if (rings_ == nullptr || sqes_ == nullptr) {
    unmap();
    close(ring_);
    throw StorageError(error,
                       std::string("the system refuses memory for io_uring: ") + strerror(error));
  }
  auto number = [&](size_t at) { return reinterpret_cast<unsigned*>(rings_ + at); };
  sq_tail_ = number(sq.tail);
  sq_array_ = number(sq.array);
  sq_mask_ = *number(sq.ring_mask);
  cq_head_ = number(cq.head);
  cq_tail_ = number(cq.tail);
  cq_mask_ = *number(cq.ring_mask);
  cqes_ = reinterpret_cast<io_uring_cqe*>(rings_ + cq.cqes);
}

void Ring::unmap() {
  if (rings_ != nullptr) munmap(rings_, rings_bytes_);
  if (sqes_ != nullptr) munmap(sqes_, sqes_bytes_);
}

void Ring::push(int file, bool writing, uint64_t offset, char* data, size_t bytes, uint64_t tag) {
  const unsigned tail = *sq_tail_;
  const unsigned at = tail & sq_mask_;
  io_uring_sqe& sqe = sqes_[at];
  memset(&sqe, 0, sizeof sqe);
  sqe.opcode = writing ? IORING_OP_WRITE : IORING_OP_READ;
  sqe.fd = file;
  sqe.off = offset;
  sqe.addr = reinterpret_cast<uint64_t>(data);
  sqe.len = static_cast<uint32_t>(std::min(bytes, size_t{1} << 30));
  sqe.user_data = tag;
  sq_array_[at] = at;
  __atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
  ++queued_;
}

int Ring::enter(unsigned least) {
  const unsigned flags = least > 0 ? IORING_ENTER_GETEVENTS : 0;
  const long taken = syscall(__NR_io_uring_enter, ring_, queued_, least, flags, nullptr, 0);
  if (taken < 0) return errno;
  queued_ -= static_cast<unsigned>(taken);
  return 0;
}

}  // namespace ff
