// libcuda's functions for streams, events and kernels.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "block.h"
#include "driver.h"
#include "memory.h"
#include "row_kernels.h"

namespace stand_in {

// 1 and 2 are names of the default stream, too (CU_STREAM_LEGACY, CU_STREAM_PER_THREAD).
std::shared_ptr<Stream> stream_of(void* handle) {
  if (reinterpret_cast<uint64_t>(handle) <= 2) handle = nullptr;
  const std::lock_guard lock(driver().mutex);
  const auto found = driver().streams.find(handle);
  return found == driver().streams.end() ? nullptr : found->second;
}

int enqueue(void* stream, Stream::Work work) {
  const std::shared_ptr<Stream> to = stream_of(stream);
  if (!to) return INVALID_HANDLE;
  to->enqueue([work = std::move(work)] {
    if (state() == SUCCESS) work();
  });
  return SUCCESS;
}

int wait(const std::shared_ptr<Moment>& moment) {
  moment->wait();
  note(damage());
  return state();
}

namespace {

Event* event_of(void* handle) {
  auto* const event = static_cast<Event*>(handle);
  const std::lock_guard lock(driver().mutex);
  return driver().events.count(event) ? event : nullptr;
}

// What was recorded last. Threads may record and wait at once.
std::shared_ptr<Moment> last_of(const Event& event) {
  const std::lock_guard lock(driver().mutex);
  return event.last;
}

// Of a kernel's arguments, without the addresses that a step adds at their end: tests of the pad
// give arrays of the host as replies and gradients (device_pad.py).
size_t checked_bytes(const Kernel& kernel) {
  const std::string name = kernel.name;
  const bool steps =
      name.starts_with("gather_") || name.starts_with("sum_") || name.starts_with("update_");
  return kernel.bytes - (steps ? sizeof(ff::StepWords::here) : 0);
}

// A GPU does not see memory of the host that is not pinned. A stand-in would; so words of a
// kernel's arguments that are addresses of such memory are refused. Low ones may be two numbers in
// a word, and the memory of sanitizers.
std::string host_address(const Kernel& kernel, const char* args) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  for (size_t byte = 0; byte + 8 <= checked_bytes(kernel); byte += 8) {
    uint64_t word;
    memcpy(&word, args + byte, sizeof word);
    auto* const at = reinterpret_cast<char*>(word);
    unsigned char resident;
    if (word >> 45 == 0 || word >> 47 != 0 || within(Use::device, at, 0) ||
        within(Use::pinned, at, 0))
      continue;
    if (mincore(reinterpret_cast<void*>(word & ~(page - 1)), 1, &resident) != 0) continue;
    if (about(at) != "no memory of the device") continue;  // next to it: the kernel may never go
    return std::string("kernel ") + kernel.name + ": bytes " + std::to_string(byte) + " to " +
           std::to_string(byte + 8) + " of its arguments are an address of the host's memory";
  }
  return {};
}

// Kernels follow addresses that they find in memory, too. Of those, records that lie in memory of
// the host are looked at, before the kernel that moves them begins: all of their bytes must be
// pinned then.
std::string hidden_record(const Kernel& kernel, const void* args) {
  const std::string name = kernel.name;
  if (name != "load_rows" && name != "store_rows") return {};
  const auto& list = *static_cast<const ff::RowList<ff::RecordMove>*>(args);
  if (!within(Use::device, list.rows, list.count * sizeof(ff::RecordMove))) return {};
  for (uint64_t i = 0; i < list.count; ++i) {
    const ff::TileRows& tile = list.tiles[list.rows[i].tile];
    const size_t bytes =
        tile.dim * (ff::bytes_of(tile.dtype) + 4 * tile.element_states) + 4 * tile.row_states;
    if (within(Use::device, list.rows[i].record, bytes)) continue;
    if (within(Use::pinned, list.rows[i].record, bytes)) continue;
    return "kernel " + name + ": record " + std::to_string(i) + " of " +
           std::to_string(list.count) + " lies in memory of the host that is not pinned";
  }
  return {};
}

}  // namespace
}  // namespace stand_in

using namespace stand_in;

extern "C" {

int cuStreamCreate(void** handle, unsigned flags) {
  FF_REQUIRE_CONTEXT;
  constexpr unsigned NON_BLOCKING = 1;
  if ((flags & ~NON_BLOCKING) != 0) return INVALID_VALUE;
  Driver& d = driver();
  const std::lock_guard lock(d.mutex);
  std::shared_ptr<Stream> stream = Stream::create(++d.created);
  *handle = stream.get();
  d.streams[*handle] = std::move(stream);
  return SUCCESS;
}

// Returns at once; what was enqueued is still done.
int cuStreamDestroy_v2(void* handle) {
  if (ready() == INVALID_CONTEXT) return INVALID_CONTEXT;
  Driver& d = driver();
  const std::lock_guard lock(d.mutex);
  const auto found = d.streams.find(handle);
  if (handle == nullptr || found == d.streams.end()) return INVALID_HANDLE;
  if (found->second->idle())
    found->second->close();
  else
    d.closing.push_back(found->second);
  d.streams.erase(found);
  return SUCCESS;
}

int cuStreamSynchronize(void* handle) {
  FF_REQUIRE_CONTEXT;
  const std::shared_ptr<Stream> stream = stream_of(handle);
  return stream ? wait(stream->mark()) : INVALID_HANDLE;
}

int cuStreamWaitEvent(void* stream, void* handle, unsigned) {
  FF_REQUIRE_CONTEXT;
  Event* const event = event_of(handle);
  if (!event) return INVALID_HANDLE;
  const std::shared_ptr<Moment> last = last_of(*event);
  return last ? enqueue(stream, [last] { last->wait(); }) : SUCCESS;
}

int cuEventCreate(void** handle, unsigned flags) {
  FF_REQUIRE_CONTEXT;
  constexpr unsigned BLOCKING_SYNC = 1, DISABLE_TIMING = 2, INTERPROCESS = 4;
  if ((flags & ~(BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS)) != 0) return INVALID_VALUE;
  if ((flags & INTERPROCESS) != 0 && (flags & DISABLE_TIMING) == 0) return INVALID_VALUE;
  const std::lock_guard lock(driver().mutex);
  *handle = *driver().events.insert(new Event{flags, nullptr}).first;
  return SUCCESS;
}

// For tests, not of CUDA.
unsigned stand_in_event_flags(void* handle) {
  const Event* const event = event_of(handle);
  return event ? event->flags : ~0u;
}

int cuEventDestroy_v2(void* handle) {
  if (ready() == INVALID_CONTEXT) return INVALID_CONTEXT;
  auto* const event = static_cast<Event*>(handle);
  const std::lock_guard lock(driver().mutex);
  if (driver().events.erase(event) == 0) return INVALID_HANDLE;
  delete event;
  return SUCCESS;
}

int cuEventRecord(void* handle, void* stream) {
  FF_REQUIRE_CONTEXT;
  Event* const event = event_of(handle);
  const std::shared_ptr<Stream> from = stream_of(stream);
  if (!event || !from) return INVALID_HANDLE;
  std::shared_ptr<Moment> now = from->mark();
  const std::lock_guard lock(driver().mutex);
  event->last = std::move(now);
  return SUCCESS;
}

int cuEventQuery(void* handle) {
  FF_REQUIRE_CONTEXT;
  Event* const event = event_of(handle);
  if (!event) return INVALID_HANDLE;
  const std::shared_ptr<Moment> last = last_of(*event);
  return !last || last->passed() ? SUCCESS : NOT_READY;
}

int cuEventSynchronize(void* handle) {
  FF_REQUIRE_CONTEXT;
  Event* const event = event_of(handle);
  if (!event) return INVALID_HANDLE;
  const std::shared_ptr<Moment> last = last_of(*event);
  return last ? wait(last) : SUCCESS;
}

int cuLaunchKernel(void* function, unsigned blocks, unsigned blocks_y, unsigned blocks_z,
                   unsigned threads, unsigned threads_y, unsigned threads_z, unsigned shared,
                   void* stream, void** params, void**) {
  FF_REQUIRE_CONTEXT;
  const Kernel* kernel = kernels();
  while (kernel != nullptr && kernel != function) kernel = kernel->next;
  if (kernel == nullptr) return INVALID_HANDLE;
  if (blocks == 0 || blocks > 0x7fffffff || blocks_y != 1 || blocks_z != 1 || threads == 0 ||
      threads > kernel->threads || threads_y != 1 || threads_z != 1 || shared != 0)
    return INVALID_VALUE;
  std::shared_ptr<void> args(aligned_alloc(64, (kernel->bytes + 63) / 64 * 64), free);
  memcpy(args.get(), params[0], kernel->bytes);
  note(host_address(*kernel, static_cast<const char*>(args.get())));
  FF_REQUIRE_CONTEXT;
  uint64_t seed = 0;
  {
    const std::lock_guard lock(driver().mutex);
    ++driver().launches;
    if (driver().seed != 0) seed = driver().seed * 1000003 + driver().launches;
  }
  return enqueue(stream, [=] {
    if (const std::string hidden = hidden_record(*kernel, args.get()); !hidden.empty())
      return note(hidden);
    note(run_grid(*kernel, blocks, threads, args.get(), seed));
    if (const std::string found = damage(); !found.empty())
      note(std::string("kernel ") + kernel->name + ", or what ran beside it: " + found);
  });
}

// The kernel after `previous` (nullptr: the first), with its name.
void* stand_in_next_kernel(void* previous, const char** name) {
  Kernel* const kernel = previous ? static_cast<Kernel*>(previous)->next : kernels();
  if (kernel) *name = kernel->name;
  return kernel;
}

}  // extern "C"
