// libcuda's functions for memory: of the device, pinned, and copies.
#include <cstring>
#include <vector>

#include "driver.h"
#include "memory.h"

using namespace stand_in;

namespace {

// CUDA does not promise that giving back pinned memory waits for the device.
bool still_pinned(const void* memory, size_t bytes) {
  if (within(Use::pinned, memory, bytes)) return true;
  note(std::to_string(bytes) + " bytes of pinned memory have gone before they were copied");
  return false;
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

// Memory goes in spite of errors, so that a test that meets one leaves none behind.
int cuMemFree_v2(unsigned long long address) {
  drain();
  const bool known = give_back(Use::device, host(address));
  note(damage());
  FF_REQUIRE_CONTEXT;
  return known ? SUCCESS : INVALID_VALUE;
}

int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  FF_REQUIRE_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  *address = allocate(Use::pinned, bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemFreeHost(void* address) {
  const bool known = give_back(Use::pinned, address);
  note(damage());
  FF_REQUIRE_CONTEXT;
  return known ? SUCCESS : INVALID_VALUE;
}

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
    return enqueue(stream, [=] {
      if (still_pinned(from, bytes)) memcpy(host(to), from, bytes);
    });
  const char* const first = static_cast<const char*>(from);
  return enqueue(stream, [to, staged = std::vector<char>(first, first + bytes)] {
    memcpy(host(to), staged.data(), staged.size());
  });
}

// Into memory that is not pinned it is done when the call returns.
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(from), bytes)) return INVALID_VALUE;
  if (within(Use::pinned, to, bytes))
    return enqueue(stream, [=] {
      if (still_pinned(to, bytes)) memcpy(to, host(from), bytes);
    });
  const int result = enqueue(stream, [=] { memcpy(to, host(from), bytes); });
  return result != SUCCESS ? result : wait(stream_of(stream)->mark());
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
  return enqueue(stream, [=] { memcpy(host(to), host(from), bytes); });
}

int cuMemsetD8Async(unsigned long long to, unsigned char byte, size_t bytes, void* stream) {
  FF_REQUIRE_CONTEXT;
  if (!within(Use::device, host(to), bytes)) return INVALID_VALUE;
  return enqueue(stream, [=] { memset(host(to), byte, bytes); });
}

}  // extern "C"
