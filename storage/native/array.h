// Arrays of plain values that grow without being filled: a pass that writes them follows. They
// never shrink, so that a steady state allocates nothing. Pages of large ones are asked to be huge:
// first touch costs a seventh, and random places miss the TLB less.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace ff {

template <class T>
struct Unfilled {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
  static constexpr size_t LINE = 64, HUGE_PAGE = size_t{2} << 20;

  using value_type = T;

  Unfilled() = default;
  template <class U>
  Unfilled(const Unfilled<U>&) {}

  T* allocate(size_t n) {
    const size_t alignment = n * sizeof(T) >= HUGE_PAGE ? HUGE_PAGE : LINE;
    const size_t bytes = (n * sizeof(T) + alignment - 1) / alignment * alignment;
    void* const at = std::aligned_alloc(alignment, bytes);
    if (at == nullptr) throw std::bad_alloc();
    if (alignment == HUGE_PAGE) madvise(at, bytes, MADV_HUGEPAGE);  // advice: failure is fine
    return static_cast<T*>(at);
  }
  void deallocate(T* at, size_t) noexcept { std::free(at); }

  void construct(T* at) noexcept { ::new (static_cast<void*>(at)) T; }
  template <class... Values>
  void construct(T* at, Values&&... values) {
    ::new (static_cast<void*>(at)) T(std::forward<Values>(values)...);
  }

  bool operator==(const Unfilled&) const = default;
};

template <class T>
using Array = std::vector<T, Unfilled<T>>;

}  // namespace ff
