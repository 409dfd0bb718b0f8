// The functions of libcuda that storage/native/cuda_driver.cpp looks for, on a device that is not
// there: its memory is the host's (memory.h), its streams are threads (stream.h), its kernels run
// here (block.h). Here are errors, devices and contexts; driver_memory.cpp and driver_streams.cpp
// have the others. An error of a kernel, or damage to memory, is told by every later call, as by a
// real driver; cuGetErrorString then says what happened.
#include "driver.h"

#include <cstdio>
#include <cstdlib>

#include "memory.h"
#include "trap.h"

namespace stand_in {
namespace {

const std::map<int, std::pair<const char*, const char*>> RESULTS{
    {SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "no context is current on this thread"}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {NOT_READY, {"CUDA_ERROR_NOT_READY", "device not ready"}},
    {ALREADY_REGISTERED, {"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "already pinned"}},
    {NOT_REGISTERED, {"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "not pinned"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
};

thread_local void* context = nullptr;

Driver* make_driver() {
  auto* const made = new Driver;
  auto number = [](const char* name, uint64_t otherwise) {
    const char* const text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
  };
  made->seed = number("FOURFOLD_STAND_IN_SEED", 0);
  delay_us = static_cast<unsigned>(number("FOURFOLD_STAND_IN_DELAY_US", 0));
  set_limit(number("FOURFOLD_STAND_IN_BYTES", limit()));
  made->streams[nullptr] = Stream::create(0);
  set_traps();
  return made;
}

}  // namespace

Driver& driver() {
  static Driver* const driver = make_driver();
  return *driver;
}

void note(const std::string& fault) {
  Driver& d = driver();
  const std::lock_guard lock(d.mutex);
  if (fault.empty() || !d.fault.empty()) return;
  d.fault = fault;
  fprintf(stderr, "%s\n", fault.c_str());
}

int state() {
  const std::lock_guard lock(driver().mutex);
  return driver().fault.empty() ? SUCCESS : LAUNCH_FAILED;
}

int ready() {
  const int now = state();
  return now == SUCCESS && context == nullptr ? INVALID_CONTEXT : now;
}

bool shaken() {
  const std::lock_guard lock(driver().mutex);
  return driver().seed != 0;
}

int drain() {
  Driver& d = driver();
  std::vector<std::shared_ptr<Stream>> streams, closing;
  {
    const std::lock_guard lock(d.mutex);
    for (const auto& [handle, stream] : d.streams) streams.push_back(stream);
    closing.swap(d.closing);
  }
  std::vector<std::shared_ptr<Moment>> moments;
  for (const auto& stream : streams) moments.push_back(stream->mark());
  for (const auto& stream : closing) moments.push_back(stream->mark());
  for (const auto& moment : moments) moment->wait();
  for (const auto& stream : closing) stream->close();
  note(damage());
  return state();
}

}  // namespace stand_in

using namespace stand_in;

extern "C" {

int cuInit(unsigned) {
  driver();
  return SUCCESS;
}

int cuGetErrorName(int result, const char** name) {
  const auto found = RESULTS.find(result);
  *name = found == RESULTS.end() ? nullptr : found->second.first;
  return *name ? SUCCESS : INVALID_VALUE;
}

int cuGetErrorString(int result, const char** text) {
  const auto found = RESULTS.find(result);
  *text = found == RESULTS.end() ? nullptr : found->second.second;
  Driver& d = driver();
  const std::lock_guard lock(d.mutex);
  if (result == LAUNCH_FAILED && !d.fault.empty()) {
    if (d.fault_text.empty()) d.fault_text = d.fault;
    *text = d.fault_text.c_str();
  }
  return *text ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetCount(int* count) {
  *count = DEVICES;
  return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

// Few processors, so that loops over more blocks than fit come round.
int cuDeviceGetAttribute(int* value, int attribute, int) {
  constexpr int MULTIPROCESSOR_COUNT = 16, MAJOR = 75, MINOR = 76, HOST_ADDRESSES = 91;
  const std::map<int, int> values{
      {MULTIPROCESSOR_COUNT, 4}, {MAJOR, 9}, {MINOR, 0}, {HOST_ADDRESSES, 1}};
  const auto found = values.find(attribute);
  if (found == values.end()) return INVALID_VALUE;
  *value = found->second;
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** handle, int device) {
  if (device < 0 || device >= DEVICES) return INVALID_DEVICE;
  const std::lock_guard lock(driver().mutex);
  ++driver().contexts[device];
  *handle = &driver().contexts[device];
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  drain();
  const std::lock_guard lock(driver().mutex);
  if (driver().contexts[device] == 0) return INVALID_CONTEXT;
  --driver().contexts[device];
  return SUCCESS;
}

int cuCtxSetCurrent(void* handle) {
  context = handle;
  return SUCCESS;
}

int cuCtxSynchronize() {
  FF_REQUIRE_CONTEXT;
  return drain();
}

// For tests (gpu.py), not of CUDA.

void stand_in_shake(uint64_t seed, unsigned longest_delay_us) {
  const std::lock_guard lock(driver().mutex);
  driver().seed = seed;
  driver().launches = 0;
  delay_us = longest_delay_us;
}

void stand_in_limit(size_t bytes) { set_limit(bytes); }

void stand_in_hold(int on) { hold(on != 0); }

uint64_t stand_in_launches() {
  const std::lock_guard lock(driver().mutex);
  return driver().launches;
}

void stand_in_limit_registered(size_t bytes) { set_registered_limit(bytes); }

size_t stand_in_registered() { return registered(); }

size_t stand_in_held(int pinned) { return held(pinned ? Use::pinned : Use::device); }

// What went wrong since the last call, and forgets it.
size_t stand_in_take_fault(char* text, size_t bytes) {
  drain();
  Driver& d = driver();
  const std::lock_guard lock(d.mutex);
  snprintf(text, bytes, "%s", d.fault.c_str());
  const size_t length = d.fault.size();
  d.fault.clear();
  d.fault_text.clear();
  return length;
}

}  // extern "C"
