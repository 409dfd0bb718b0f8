// Arrays of plain values that grow without being filled: a pass that writes them follows.
#pragma once

#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace ff {

template <class T>
struct Unfilled : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = Unfilled<U>;
  };
  template <class U>
  void construct(U* at) noexcept {
    ::new (static_cast<void*>(at)) U;
  }
  template <class U, class... Values>
  void construct(U* at, Values&&... values) {
    ::new (static_cast<void*>(at)) U(std::forward<Values>(values)...);
  }
};

template <class T>
using Array = std::vector<T, Unfilled<T>>;

}  // namespace ff
