// Memory that grows and never shrinks, so that a steady state allocates nothing.
//
// Array<T> holds plain values, uninitialised; resize() keeps no contents when it has to grow.
// Pages of large arrays are asked to be huge: first touch costs a seventh, and random rows miss
// the TLB less.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

namespace ff {

template <class T>
class Array {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  Array() = default;
  Array(Array&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array& operator=(Array&&) = delete;
  ~Array() { std::free(data_); }

  // The address changes only when n is larger than ever before. Throws std::bad_alloc.
  void resize(size_t n) {
    if (n > capacity_) grow(n);
    size_ = n;
  }

  void assign(size_t n, T value) {
    resize(n);
    for (size_t i = 0; i < n; ++i) data_[i] = value;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;

  void grow(size_t n) {
    size_t bytes = (n + n / 4) * sizeof(T);
    const size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    std::free(std::exchange(data_, nullptr));
    capacity_ = size_ = 0;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: failure is fine
    capacity_ = bytes / sizeof(T);
  }

  T* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace ff
