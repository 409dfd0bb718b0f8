// Zeroed anonymous memory that grows in place of what it holds: mremap moves page tables, not
// bytes.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace ff {

// Owns one private mapping of 4 KiB pages. New bytes are zero. From 4 MiB on it starts at a 2 MiB
// boundary and asks for huge pages, unless told not to: all but its tail can be on them.
class Mapping {
 public:
  static constexpr size_t PAGE = size_t{1} << 12;
  static constexpr size_t HUGE_PAGE = size_t{1} << 21;

  explicit Mapping(bool huge_pages) : huge_pages_(huge_pages) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { reset(); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // What bytes() will be after grow(bytes).
  size_t after_growth(size_t bytes) const {
    return std::max(bytes_, (bytes + PAGE - 1) / PAGE * PAGE);
  }

  // At least `bytes` (never fewer than now), at an address that may be a new one. On failure
  // throws std::bad_alloc and changes nothing.
  void grow(size_t bytes) {
    bytes = after_growth(bytes);
    if (bytes == bytes_) return;
    const bool huge = huge_pages_ && bytes >= 2 * HUGE_PAGE;
    // A fresh range first, so that the place is aligned whatever mremap would have chosen: page
    // tables of huge pages can only be moved between equally aligned places.
    char* const to = reserve(bytes, huge ? HUGE_PAGE : PAGE);
    void* const moved = data_ == nullptr
                            ? mmap(to, bytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0)
                            : mremap(data_, bytes_, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (moved == MAP_FAILED) {
      munmap(to, bytes);
      throw std::bad_alloc();
    }
    data_ = moved;
    const size_t before = std::exchange(bytes_, bytes);
    madvise(data_, bytes_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // the system may decline
    if (huge) collapse(before);
  }

  // Backs every page with memory now, so that first touches come at a time of the caller's choice.
  void populate() {
#ifdef MADV_POPULATE_WRITE
    if (madvise(data_, bytes_, MADV_POPULATE_WRITE) == 0) return;
#endif
    for (size_t at = 0; at < bytes_; at += PAGE) {
      volatile char* byte = static_cast<char*>(data_) + at;
      *byte = *byte;
    }
  }

  void reset() {
    if (data_ != nullptr) munmap(data_, bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }

 private:
  // Puts the first `bytes`, which may lie on small pages, on huge ones. What was the tail is on
  // small ones until more follows it, so without this a mapping that grew would hardly have others.
  void collapse(size_t bytes) {
    constexpr int COLLAPSE = 25;  // MADV_COLLAPSE of Linux 6.1; older ones decline
    const size_t end = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    madvise(data_, std::min(end, bytes_ / HUGE_PAGE * HUGE_PAGE), COLLAPSE);
  }

  // An unused, unbacked address range of `bytes` that starts at a multiple of `alignment`.
  static char* reserve(size_t bytes, size_t alignment) {
    void* got = mmap(nullptr, bytes + alignment, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) throw std::bad_alloc();
    char* begin = static_cast<char*>(got);
    const size_t skip = (alignment - reinterpret_cast<uintptr_t>(begin) % alignment) % alignment;
    if (skip > 0) munmap(begin, skip);
    munmap(begin + skip + bytes, alignment - skip);
    return begin + skip;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool huge_pages_;
};

}  // namespace ff
