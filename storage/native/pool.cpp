#include "pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <new>

#include "errors.h"

namespace ff {

std::string bytes_text(size_t bytes) {
  static const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[64];
  if (unit == 0)
    std::snprintf(text, sizeof text, "%zu bytes", bytes);
  else
    std::snprintf(text, sizeof text, "%.1f %s (%zu bytes)", value, units[unit], bytes);
  return text;
}

Pool::~Pool() {
  if (host_ != nullptr) host_->refund(beside_);
  for (auto& [address, bytes] : extents_) munmap(address, bytes);
}

size_t Pool::most() const {
  const size_t pages = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  return std::min(budget_, pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

size_t Pool::held() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return held_;
}

size_t Pool::in_use() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return in_use_;
}

size_t Pool::beside() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return beside_;
}

bool Pool::huge_pages() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return huge_pages_;
}

int Pool::order_of(size_t bytes) { return std::countr_zero(bytes) - std::countr_zero(SMALLEST); }

bool Pool::require(size_t bytes, const std::string& owner, bool required) const {
  if (allows(bytes)) return true;
  if (!required) return false;
  throw BudgetError(owner + " needs " + bytes_text(bytes) + " more, but the storage budget is " +
                    bytes_text(budget_) + " and " + bytes_text(held_) + " are in use; raise " +
                    setting_ + ", add embedding ranks, or make the tables smaller");
}

// The smallest block that will do goes, or else the largest. Addresses wait to be taken again.
bool Pool::shrink_for(size_t bytes) {
  if (!system_) return true;  // charges do not count
  std::lock_guard<std::mutex> lock(mutex_);
  size_t free = 0;
  for (int order = 0; order < ORDERS; ++order) free += free_[order].size() * size_of(order);
  if (held_ > budget_ || bytes > budget_ - held_ + free) return false;
  while (!allows(bytes)) {
    int order = 0;
    while (order < ORDERS - 1 && size_of(order) < bytes - (budget_ - held_)) ++order;
    const int enough = order;
    while (order < ORDERS && free_[order].empty()) ++order;
    if (order == ORDERS)
      for (order = enough; free_[order].empty();) --order;
    char* const block = reinterpret_cast<char*>(*free_[order].begin());
    free_[order].erase(free_[order].begin());
    const uintptr_t chunk = reinterpret_cast<uintptr_t>(block) / LARGEST * LARGEST;
    if (whole_.erase(chunk) == 1 && keeper_ != nullptr)
      keeper_->leaving(reinterpret_cast<char*>(chunk));
    madvise(block, size_of(order), MADV_DONTNEED);
    returned_[order].push_back(block);
    held_ -= size_of(order);
  }
  return true;
}

bool Pool::charge(size_t bytes, const std::string& owner, bool required) {
  if (host_ != nullptr && !host_->charge(bytes, owner, required)) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!counts_charges()) {
    beside_ += bytes;
    return true;
  }
  if (!require(bytes, owner, required)) return false;
  held_ += bytes;
  in_use_ += bytes;
  return true;
}

void Pool::refund(size_t bytes) {
  if (host_ != nullptr) host_->refund(bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  if (!counts_charges()) {
    beside_ -= bytes;
    return;
  }
  held_ -= bytes;
  in_use_ -= bytes;
}

char* Pool::take(size_t bytes, const std::string& owner, bool required) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int wanted = order_of(bytes);
  int order = wanted;
  while (order < ORDERS && free_[order].empty()) ++order;
  char* block;
  if (order < ORDERS) {
    const auto first = free_[order].begin();
    block = reinterpret_cast<char*>(*first);
    free_[order].erase(first);
  } else {
    // A whole chunk, or the largest part of one that the rest of the budget allows.
    order = ORDERS - 1;
    while (order > wanted && !allows(size_of(order))) --order;
    if (!require(size_of(order), owner, required)) return nullptr;
    block = commit(order);
  }
  while (order > wanted) {
    --order;
    free_[order].insert(reinterpret_cast<uintptr_t>(block) + size_of(order));
  }
  in_use_ += bytes;
  return block;
}

void Pool::give(char* block, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  uintptr_t at = reinterpret_cast<uintptr_t>(block);
  int order = order_of(bytes);
  for (; order + 1 < ORDERS && free_[order].erase(at ^ size_of(order)) == 1; ++order)
    at &= ~static_cast<uintptr_t>(size_of(order));
  free_[order].insert(at);
  in_use_ -= bytes;
}

void Pool::forget_metadata(char* block, size_t bytes) {
  madvise(block + meta_shift_, bytes, MADV_DONTNEED);
}

void Pool::set_keeper(Keeper* keeper) {
  std::lock_guard<std::mutex> lock(mutex_);
  keeper_ = keeper;
  if (keeper_ == nullptr) return;
  for (const uintptr_t chunk : whole_) keeper_->taken(reinterpret_cast<char*>(chunk));
}

// Takes a new block from the system.
char* Pool::commit(int order) {
  char* const block = uncommitted(order);
  held_ += size_of(order);
  if (!system_ || order < ORDERS - 1) return block;
  whole_.insert(reinterpret_cast<uintptr_t>(block));
  if (keeper_ != nullptr) keeper_->taken(block);
  return block;
}

char* Pool::uncommitted(int order) {
  int found = order;
  while (found < ORDERS && returned_[found].empty()) ++found;
  if (found == ORDERS) return untouched(size_of(order));
  char* const block = returned_[found].back();
  returned_[found].pop_back();
  while (found > order) {
    --found;
    returned_[found].push_back(block + size_of(found));
  }
  return block;
}

// Address space, `bytes` long and aligned to it, that has not been touched yet. Extents are
// mapped whole but the system backs only what is touched, and that is what the budget counts.
char* Pool::untouched(size_t bytes) {
  Range& range = bytes == LARGEST ? chunks_ : parts_;
  if (range.left < bytes && !system_) {
    range = std::exchange(chunks_, {});  // the last of it, which is less than a chunk
  } else if (range.left < bytes) {
    const size_t room = std::min(EXTENT, budget_ - held_) / LARGEST * LARGEST;
    map(range, bytes == LARGEST ? room : LARGEST, bytes == LARGEST && huge_pages_);
  }
  const size_t skip = (bytes - reinterpret_cast<uintptr_t>(range.next) % bytes) % bytes;
  char* const block = range.next + skip;
  range.next += skip + bytes;
  range.left -= skip + bytes;
  return block;
}

void Pool::map(Range& range, size_t bytes, bool huge) {
  void* const got = mmap(nullptr, bytes + LARGEST, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  char* const begin = static_cast<char*>(got);
  const size_t skip = (LARGEST - reinterpret_cast<uintptr_t>(begin) % LARGEST) % LARGEST;
  if (skip > 0) munmap(begin, skip);
  munmap(begin + skip + bytes, LARGEST - skip);
  if (huge)
    huge_pages_ = madvise(begin + skip, bytes, MADV_HUGEPAGE) == 0;
  else
    madvise(begin + skip, bytes, MADV_NOHUGEPAGE);
  extents_.emplace_back(begin + skip, bytes);
  range = {begin + skip, bytes};
}

}  // namespace ff
