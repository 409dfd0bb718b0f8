#include "pinned_chunks.h"

#include <sys/mman.h>

namespace ff {

PinnedChunks::PinnedChunks(const Device& device, Pool& pool) : device_(device), pool_(pool) {
  flags_.grow(CHUNKS);
  if (!device.follows_host())
    refusal_ = "GPU " + std::to_string(device.ordinal()) + " does not know addresses of the host";
  pool.set_keeper(this);
}

PinnedChunks::~PinnedChunks() {
  pool_.set_keeper(nullptr);
  while (!pinned_.empty()) leaving(pinned_.begin()->first);
}

void PinnedChunks::flag(const char* chunk, char value) const {
  const uint64_t number = reinterpret_cast<uint64_t>(chunk) / Pool::LARGEST;
  __atomic_store_n(flags() + number, value, __ATOMIC_RELAXED);
}

// After a refusal nobody asks again: it would be refused, too, and every attempt takes time.
void PinnedChunks::taken(char* chunk) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (reinterpret_cast<uint64_t>(chunk) / Pool::LARGEST >= CHUNKS)
    refusal_ = "its address is too high";
  if (!refusal_.empty()) return;
  // A child of this process must not share the pages: whoever writes first would get a copy, and
  // the device would keep the other one.
  madvise(chunk, Pool::LARGEST, MADV_DONTFORK);
  try {
    pinned_.emplace(chunk, PinnedMemory(device_, chunk, Pool::LARGEST));
    flag(chunk, 1);
  } catch (const std::exception& error) {
    madvise(chunk, Pool::LARGEST, MADV_DOFORK);
    refusal_ = error.what();
  }
}

void PinnedChunks::leaving(char* chunk) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pinned_.erase(chunk) == 0) return;
  flag(chunk, 0);
  madvise(chunk, Pool::LARGEST, MADV_DOFORK);
}

size_t PinnedChunks::bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pinned_.size() * Pool::LARGEST;
}

std::string PinnedChunks::refusal() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return refusal_;
}

}  // namespace ff
