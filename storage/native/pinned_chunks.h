// Chunks of a pool of host memory, pinned one by one as the pool takes them, so that kernels can
// follow addresses there. What the pool takes in smaller parts stays out of their sight. Where the
// system refuses to pin, or the device cannot follow, it goes on without.
#pragma once

#include <mutex>
#include <string>
#include <unordered_map>

#include "device.h"
#include "mapping.h"
#include "pool.h"

namespace ff {

class PinnedChunks : Pool::Keeper {
 public:
  // The pool must outlive this.
  PinnedChunks(const Device& device, Pool& pool);
  ~PinnedChunks() override;

  // Whether the device can follow the address. Any thread, for memory of a block that is in use.
  bool hold(const void* address) const {
    const uint64_t chunk = reinterpret_cast<uint64_t>(address) / Pool::LARGEST;
    return chunk < CHUNKS && __atomic_load_n(flags() + chunk, __ATOMIC_RELAXED) != 0;
  }
  size_t bytes() const;
  // Why others are not; nothing if all are.
  std::string refusal() const;

 private:
  static constexpr uint64_t CHUNKS = (uint64_t{1} << 47) / Pool::LARGEST;  // that addresses name

  void taken(char* chunk) override;
  void leaving(char* chunk) override;
  char* flags() const { return static_cast<char*>(flags_.data()); }
  void flag(const char* chunk, char value) const;

  const Device& device_;
  Pool& pool_;
  Mapping flags_{
      false};  // a byte for every chunk that there could be; few of its pages are touched
  mutable std::mutex mutex_;
  std::unordered_map<char*, PinnedMemory> pinned_;
  std::string refusal_;
};

}  // namespace ff
