#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

namespace stand_in {
namespace {

constexpr size_t SMALL = 512, LARGE = size_t{2} << 20;
constexpr size_t FORBIDDEN = 2048;  // how many that were given back are kept out of use
constexpr unsigned char FRESH = 0xcd, GUARD = 0xfb;
const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));

struct Memory {
  Use use;
  size_t bytes;
  char* mapping = nullptr;  // of ours; nullptr if somebody else's was pinned
  size_t mapped = 0;
  size_t guarded = 0;  // bytes of the pattern behind
};

struct Freed {
  char* mapping;
  size_t mapped;
  const char* data;
  size_t bytes;
};

// Never destroyed: threads may still run when the process ends.
struct Memories {
  std::mutex mutex;
  std::map<char*, Memory> all;
  std::deque<Freed> freed;
  size_t limit = size_t{4} << 30;
  size_t held[2] = {0, 0};
  size_t registered = 0, registered_limit = ~size_t{0};
  std::string damage;
};
Memories& memories() {
  static Memories* const memories = new Memories;
  return *memories;
}

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

std::string text_of(Use use, size_t bytes) {
  return std::to_string(bytes) + " bytes of " + (use == Use::device ? "device" : "pinned") +
         " memory";
}

// Damage is told once: the pattern is mended.
void check(char* data, const Memory& memory) {
  char* const guard = data + memory.bytes;
  for (size_t i = 0; i < memory.guarded; ++i) {
    if (static_cast<unsigned char>(guard[i]) == GUARD) continue;
    if (memories().damage.empty())
      memories().damage = "byte " + std::to_string(i) + " behind " +
                          text_of(memory.use, memory.bytes) + " has been written over";
    memset(guard, GUARD, memory.guarded);
    return;
  }
}

// The memory that holds the address, or the next one below it.
const std::pair<char* const, Memory>* below(const void* address) {
  const auto& all = memories().all;
  auto next = all.upper_bound(static_cast<char*>(const_cast<void*>(address)));
  return next == all.begin() ? nullptr : &*--next;
}

// Needs the mutex.
bool lies_in(Use use, const void* data, size_t bytes) {
  const auto* const found = below(data);
  if (!found || found->second.use != use) return false;
  const auto offset = static_cast<size_t>(static_cast<const char*>(data) - found->first);
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

}  // namespace

char* allocate(Use use, size_t bytes) {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  if (use == Use::device && (bytes > m.limit || m.held[0] > m.limit - bytes)) return nullptr;
  const size_t alignment = bytes >= LARGE ? LARGE : PAGE;
  const size_t inside = round_up(bytes, PAGE), mapped = inside + alignment + 2 * PAGE;
  void* const at =
      mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  char* const mapping = static_cast<char*>(at);
  const auto first = reinterpret_cast<uintptr_t>(mapping) + PAGE;
  char* const pages = mapping + PAGE + (round_up(first, alignment) - first);
  mprotect(pages, inside, PROT_READ | PROT_WRITE);
  // Small ones end as close to the forbidden page as their alignment allows.
  char* const data = bytes >= LARGE ? pages : pages + (inside - round_up(bytes, SMALL));
  Memory memory{use, bytes, mapping, mapped, static_cast<size_t>(pages + inside - data) - bytes};
  memset(data, FRESH, bytes);
  memset(data + bytes, GUARD, memory.guarded);
  m.all.emplace(data, memory);
  m.held[static_cast<int>(use)] += bytes;
  return data;
}

bool give_back(Use use, void* data) {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  const auto found = m.all.find(static_cast<char*>(data));
  if (found == m.all.end() || found->second.use != use || !found->second.mapping) return false;
  const Memory memory = found->second;
  check(found->first, memory);
  m.freed.push_back({memory.mapping, memory.mapped, found->first, memory.bytes});
  m.all.erase(found);
  m.held[static_cast<int>(use)] -= memory.bytes;
  mmap(memory.mapping, memory.mapped, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (m.freed.size() > FORBIDDEN) {
    munmap(m.freed.front().mapping, m.freed.front().mapped);
    m.freed.pop_front();
  }
  return true;
}

bool pin(char* data, size_t bytes) {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  const auto* const before = below(data + bytes - 1);
  if (before && before->first + before->second.bytes > data) return false;
  m.all.emplace(data, Memory{Use::pinned, bytes});
  m.registered += bytes;
  return true;
}

bool unpin(char* data) {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  const auto found = m.all.find(data);
  if (found == m.all.end() || found->second.mapping) return false;
  m.registered -= found->second.bytes;
  m.all.erase(found);
  return true;
}

bool within(Use use, const void* data, size_t bytes) {
  const std::lock_guard lock(memories().mutex);
  return lies_in(use, data, bytes);
}

bool copy(const End& to, const End& from, size_t bytes) {
  const std::lock_guard lock(memories().mutex);
  for (const End& end : {to, from})
    if (end.use && !lies_in(*end.use, end.data, bytes)) return false;
  memcpy(to.data, from.data, bytes);
  return true;
}

std::string damage() {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  for (auto& [data, memory] : m.all) check(data, memory);
  std::string damage;
  damage.swap(m.damage);
  return damage;
}

std::string about(const void* address) {
  Memories& m = memories();
  const std::lock_guard lock(m.mutex);
  const char* const at = static_cast<const char*>(address);
  for (const Freed& freed : m.freed)
    if (at >= freed.data && at < freed.data + freed.bytes)
      return "inside " + std::to_string(freed.bytes) + " bytes that were freed";
  for (const auto& [data, memory] : m.all) {
    if (at < memory.mapping || at >= memory.mapping + memory.mapped) continue;
    const ptrdiff_t offset = at - data;
    if (offset < 0)
      return std::to_string(-offset) + " bytes before " + text_of(memory.use, memory.bytes);
    return std::to_string(offset - static_cast<ptrdiff_t>(memory.bytes)) +
           " bytes behind the end of " + text_of(memory.use, memory.bytes);
  }
  return "no memory of the device";
}

void set_limit(size_t bytes) { memories().limit = bytes; }
size_t limit() { return memories().limit; }
void set_registered_limit(size_t bytes) { memories().registered_limit = bytes; }
size_t registered_limit() { return memories().registered_limit; }
size_t registered() {
  const std::lock_guard lock(memories().mutex);
  return memories().registered;
}
size_t held(Use use) { return memories().held[static_cast<int>(use)]; }

}  // namespace stand_in
