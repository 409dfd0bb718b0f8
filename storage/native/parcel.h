// Arrays that travel to the device together: laid out, filled in pinned memory, sent by one copy.
// Nothing is allocated once the largest parcel has been seen.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "device.h"
#include "parallel.h"

namespace ff {

class Parcel {
 public:
  template <class T>
  struct Part {
    size_t byte = 0, count = 0;
  };

  explicit Parcel(const Device& device) : device_(&device), sent_(device) {}
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;
  ~Parcel() { sent_.finish(); }

  // First what is to travel, then room for it: open() waits until the last parcel has left, and
  // where there is too little room until the stream, behind those who read it, is done.
  void clear() { bytes_ = 0; }
  template <class T>
  Part<T> add(size_t count) {
    const Part<T> part{bytes_, count};
    bytes_ = (bytes_ + count * sizeof(T) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return part;
  }
  void open(const Stream& stream) {
    sent_.synchronize();
    pinned_.reserve(*device_, bytes_);
    memory_.reserve(stream, bytes_);
  }

  // Where a part is filled, and where it will be. Null for one without elements.
  template <class T>
  T* host(Part<T> part) const {
    return part.count == 0 ? nullptr : reinterpret_cast<T*>(pinned_.data() + part.byte);
  }
  template <class T>
  T* device(Part<T> part) const {
    return part.count == 0 ? nullptr : memory_.as<T>(part.byte);
  }

  void send(const Stream& stream) {
    stream.copy_in(memory_.data(), pinned_.data(), bytes_);
    sent_.record(stream);
  }
  const Event& sent() const { return sent_; }

 private:
  static constexpr size_t ALIGNMENT = 64;

  const Device* device_;
  PinnedMemory pinned_;
  DeviceMemory memory_;
  Event sent_;
  size_t bytes_ = 0;
};

// Arrays on their way into a parcel, in blocks that threads share.
class Copies {
 public:
  explicit Copies(const Parcel& parcel) : parcel_(parcel) {}

  template <class T>
  void add(Parcel::Part<T> part, const T* from) {
    char* const to = reinterpret_cast<char*>(parcel_.host(part));
    const size_t bytes = part.count * sizeof(T);
    for (size_t at = 0; at < bytes; at += BLOCK)
      blocks_.push_back(
          {to + at, reinterpret_cast<const char*>(from) + at, std::min(BLOCK, bytes - at)});
  }
  void run(int threads) const {
    parallel_for(threads, blocks_.size(), 1, [&](size_t begin, size_t end, int) {
      for (size_t b = begin; b < end; ++b) memcpy(blocks_[b].to, blocks_[b].from, blocks_[b].bytes);
    });
  }

 private:
  static constexpr size_t BLOCK = size_t{256} << 10;  // worth a thread
  struct Block {
    char* to;
    const char* from;
    size_t bytes;
  };

  const Parcel& parcel_;
  std::vector<Block> blocks_;
};

}  // namespace ff
