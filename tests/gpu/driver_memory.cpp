// libcuda's functions for memory: of the device, pinned, and copies.
#include <string>
#include <vector>

#include "driver.h"
#include "memory.h"

using namespace stand_in;

namespace {

// When the stream gets there.
void copy_now(const End& to, const End& from, size_t bytes) {
  if (!copy(to, from, bytes))
    note("a copy of " + std::to_string(bytes) + " bytes came to memory that was freed");
}

End device(unsigned long long address) { return {host(address), Use::device}; }
End pinned(const void* data) { return {static_cast<char*>(const_cast<void*>(data)), Use::pinned}; }
End any(const void* data) { return {static_cast<char*>(const_cast<void*>(data)), {}}; }

// Memory goes at once: drivers do not promise to wait for who uses it. It goes in spite of errors,
// so that a test that meets one leaves none behind.
int free_now(Use use, void* data) {
  const bool known = give_back(use, data);
  note(damage());
  FF_REQUIRE_CONTEXT;
  return known ? SUCCESS : INVALID_VALUE;
}

}  // namespace

extern "C" {

int cuMemGetInfo_v2(size_t* free, size_t* total) {
  FF_REQUIRE_CONTEXT;
  *total = limit();
  *free = limit() - held(Use::device);
  return SUCCESS;
}

int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
  FF_REQUIRE_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  *address = reinterpret_cast<unsigned long long>(allocate(Use::device, bytes));
  return *address ? SUCCESS : OUT_OF_MEMORY;
}

// It "may perform implicit synchronization", and mostly does; not where all else is shaken, too.
int cuMemFree_v2(unsigned long long address) {
  const int result = free_now(Use::device, host(address));
  return shaken() || result != SUCCESS ? result : drain();
}

int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  FF_REQUIRE_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  *address = allocate(Use::pinned, bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemFreeHost(void* address) { return free_now(Use::pinned, address); }

int cuMemHostRegister_v2(void* address, size_t bytes, unsigned) {
  FF_REQUIRE_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  if (registered() + bytes > registered_limit()) return OUT_OF_MEMORY;
  return pin(static_cast<char*>(address), bytes) ? SUCCESS : ALREADY_REGISTERED;
}

int cuMemHostUnregister(void* address) {
  const bool known = unpin(static_cast<char*>(address));
  FF_REQUIRE_CONTEXT;
  return known ? SUCCESS : NOT_REGISTERED;
}

// Memory that is not pinned is copied away before the call returns; pinned memory is read when the
// stream gets there.
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(to), bytes)) return INVALID_VALUE;
  if (within(Use::pinned, from, bytes))
    return enqueue(stream, [=] { copy_now(device(to), pinned(from), bytes); });
  const char* const first = static_cast<const char*>(from);
  return enqueue(stream, [to, staged = std::vector<char>(first, first + bytes)] {
    copy_now(device(to), any(staged.data()), staged.size());
  });
}

// Into memory that is not pinned it is done when the call returns.
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(from), bytes)) return INVALID_VALUE;
  const End end = within(Use::pinned, to, bytes) ? pinned(to) : any(to);
  const int result = enqueue(stream, [=] { copy_now(end, device(from), bytes); });
  if (result != SUCCESS || end.use) return result;
  return wait(stream_of(stream)->mark());
}

// May return when memory that is not pinned has been copied away, but has not arrived.
int cuMemcpyHtoD_v2(unsigned long long to, const void* from, size_t bytes) {
  const int result = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
  const bool pinned = within(Use::pinned, from, bytes);
  return result != SUCCESS || !pinned ? result : wait(stream_of(nullptr)->mark());
}

int cuMemcpyDtoH_v2(void* to, unsigned long long from, size_t bytes) {
  const int result = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
  return result != SUCCESS ? result : wait(stream_of(nullptr)->mark());
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes,
                         void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(from), bytes) || !within(Use::device, host(to), bytes))
    return INVALID_VALUE;
  return enqueue(stream, [=] { copy_now(device(to), device(from), bytes); });
}

int cuMemsetD8Async(unsigned long long to, unsigned char byte, size_t bytes, void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(to), bytes)) return INVALID_VALUE;
  return enqueue(stream, [=] {
    const std::vector<char> bytes_of(bytes, static_cast<char>(byte));
    copy_now(device(to), any(bytes_of.data()), bytes);
  });
}

}  // extern "C"
