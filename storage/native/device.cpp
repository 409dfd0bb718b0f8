#include "device.h"

#include "cuda_driver.h"

namespace ff {
namespace {

constexpr int OUT_OF_MEMORY = 2, NOT_READY = 600;    // CUresult
constexpr int PROCESSORS = 16, HOST_ADDRESSES = 91;  // CUdevice_attribute
constexpr unsigned NON_BLOCKING = 1, PORTABLE_MAPPED = 1 | 2;
constexpr unsigned BLOCKING_SYNC = 1, NO_TIMING = 2;  // CUevent_flags

Driver::Address address(const void* pointer) { return reinterpret_cast<Driver::Address>(pointer); }
Driver::Handle handle_of(uint64_t handle) { return reinterpret_cast<Driver::Handle>(handle); }

}  // namespace

std::string kernel_for(const char* name, Dtype dtype) {
  const char* const types[] = {"_fp32", "_bf16", "_fp16"};
  return name + std::string(types[static_cast<int>(dtype)]);
}

Device::Device(const std::string& library, int ordinal, Kernels kernels, Relief relief)
    : driver_(std::make_unique<Driver>(library)),
      ordinal_(ordinal),
      kernels_(std::move(kernels)),
      relief_(std::move(relief)) {
  const std::string which = "GPU " + std::to_string(ordinal);
  driver_->check(driver_->device_get(&handle_, ordinal), "cuDeviceGet of " + which);
  driver_->check(driver_->retain(&context_, handle_), "cuDevicePrimaryCtxRetain of " + which);
  auto attribute = [&](int number) {
    int value = 0;
    driver_->check(driver_->device_attribute(&value, number, handle_),
                   "cuDeviceGetAttribute of " + which);
    return value;
  };
  processors_ = static_cast<uint32_t>(attribute(PROCESSORS));
  follows_host_ = attribute(HOST_ADDRESSES) != 0;
}

Device::~Device() {
  if (context_ != nullptr) driver_->release(handle_);
}

void Device::enter() const { driver_->check(driver_->set_current(context_), "cuCtxSetCurrent"); }

void Device::finish() const noexcept {
  try {
    enter();
    driver_->synchronize();
  } catch (const DeviceError&) {  // the device is gone, and runs nothing
  }
}

char* Device::allocate(size_t bytes) const {
  enter();
  Driver::Address at = 0;
  int result = driver_->allocate(&at, bytes);
  std::string refusal;
  if (result == OUT_OF_MEMORY && relief_) {
    refusal = relief_();
    enter();  // it may have chosen another device
    result = driver_->allocate(&at, bytes);
  }
  driver_->check(result, "cuMemAlloc of " + std::to_string(bytes) + " bytes on GPU " +
                             std::to_string(ordinal_) +
                             (refusal.empty() ? "" : " (nobody gave any back: " + refusal + ")"));
  return reinterpret_cast<char*>(at);
}

uint64_t Device::kernel(const std::string& name) const {
  const auto found = kernels_.find(name);
  if (found == kernels_.end())
    throw std::invalid_argument("the kernel '" + name + "' has not been loaded");
  return found->second;
}

DeviceMemory::DeviceMemory(const Device& device, size_t bytes) : device_(&device), bytes_(bytes) {
  if (bytes > 0) data_ = device.allocate(bytes);
}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  try {
    device_->enter();
    device_->driver().free(address(data_));
  } catch (const DeviceError&) {  // the device is gone, and its memory with it
  }
}

void DeviceMemory::reserve(const Stream& stream, size_t bytes) {
  if (bytes <= bytes_) return;
  if (data_ != nullptr) stream.synchronize();
  *this = DeviceMemory();
  *this = DeviceMemory(stream.device(), bytes + bytes / 4);
}

PinnedMemory::PinnedMemory(const Device& device, size_t bytes)
    : device_(&device), bytes_(bytes), own_(true) {
  if (bytes == 0) return;
  device.enter();
  void* at = nullptr;
  device.driver().check(device.driver().host_allocate(&at, bytes, PORTABLE_MAPPED),
                        "cuMemHostAlloc of " + std::to_string(bytes) + " bytes");
  data_ = static_cast<char*>(at);
}

PinnedMemory::PinnedMemory(const Device& device, char* data, size_t bytes)
    : device_(&device), bytes_(bytes) {
  if (bytes == 0) return;
  device.enter();
  device.driver().check(device.driver().host_register(data, bytes, PORTABLE_MAPPED),
                        "cuMemHostRegister of " + std::to_string(bytes) +
                            " bytes (is there a limit on locked memory? `ulimit -l`)");
  data_ = data;
}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(own_, other.own_);
  return *this;
}

PinnedMemory::~PinnedMemory() {
  if (data_ == nullptr) return;
  try {
    device_->enter();
    if (own_)
      device_->driver().host_free(data_);
    else
      device_->driver().host_unregister(data_);
  } catch (const DeviceError&) {
  }
}

void PinnedMemory::reserve(const Device& device, size_t bytes) {
  if (bytes <= bytes_) return;
  *this = PinnedMemory();
  *this = PinnedMemory(device, bytes + bytes / 4);
}

Stream::Stream(const Device& device) : device_(&device), own_(true) {
  device.enter();
  Driver::Handle stream = nullptr;
  device.driver().check(device.driver().stream_create(&stream, NON_BLOCKING), "cuStreamCreate");
  handle_ = reinterpret_cast<uint64_t>(stream);
}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  std::swap(own_, other.own_);
  return *this;
}

Stream::~Stream() {
  if (!own_ || handle_ == 0) return;
  try {
    device_->enter();
    device_->driver().stream_destroy(handle_of(handle_));
  } catch (const DeviceError&) {
  }
}

void Stream::copy_in(void* to, const void* host, size_t bytes) const {
  if (bytes == 0) return;
  device_->enter();
  const Driver& driver = device_->driver();
  driver.check(driver.copy_in(address(to), host, bytes, handle_of(handle_)), "cuMemcpyHtoDAsync");
}

void Stream::copy_out(void* host, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  device_->enter();
  const Driver& driver = device_->driver();
  driver.check(driver.copy_out(host, address(from), bytes, handle_of(handle_)),
               "cuMemcpyDtoHAsync");
}

void Stream::copy(void* to, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  device_->enter();
  const Driver& driver = device_->driver();
  driver.check(driver.copy(address(to), address(from), bytes, handle_of(handle_)),
               "cuMemcpyDtoDAsync");
}

void Stream::fill(void* to, uint8_t byte, size_t bytes) const {
  if (bytes == 0) return;
  device_->enter();
  const Driver& driver = device_->driver();
  driver.check(driver.fill(address(to), byte, bytes, handle_of(handle_)), "cuMemsetD8Async");
}

void Stream::launch_raw(const char* kernel, size_t blocks, uint32_t threads,
                        const void* args) const {
  if (blocks == 0) return;
  if (blocks > 0x7fffffff)
    throw DeviceError(std::string("kernel ") + kernel + ": " + std::to_string(blocks) +
                      " blocks, at most 2^31 - 1 can be launched");
  device_->enter();
  void* parameters[] = {const_cast<void*>(args)};
  const Driver& driver = device_->driver();
  driver.check(driver.launch(handle_of(device_->kernel(kernel)), static_cast<unsigned>(blocks), 1,
                             1, threads, 1, 1, 0, handle_of(handle_), parameters, nullptr),
               std::string("cuLaunchKernel of ") + kernel);
}

void Stream::wait(const Event& event) const {
  device_->enter();
  const Driver& driver = device_->driver();
  driver.check(driver.stream_wait(handle_of(handle_), handle_of(event.handle()), 0),
               "cuStreamWaitEvent");
}

void Stream::synchronize() const {
  const Event done(*device_);  // cuStreamSynchronize would spin
  done.record(*this);
  done.synchronize();
}

void Stream::finish() const noexcept {
  try {
    synchronize();
  } catch (const DeviceError&) {
  }
}

Event::Event(const Device& device, For waits) : device_(&device), waits_(waits) {
  device.enter();
  Driver::Handle event = nullptr;
  const unsigned flags = NO_TIMING | (waits == For::host ? BLOCKING_SYNC : 0);
  device.driver().check(device.driver().event_create(&event, flags), "cuEventCreate");
  handle_ = reinterpret_cast<uint64_t>(event);
}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  std::swap(waits_, other.waits_);
  return *this;
}

Event::~Event() {
  if (handle_ == 0) return;
  try {
    device_->enter();
    device_->driver().event_destroy(handle_of(handle_));
  } catch (const DeviceError&) {
  }
}

void Event::record(const Stream& stream) const {
  device_->enter();
  device_->driver().check(
      device_->driver().event_record(handle_of(handle_), handle_of(stream.handle())),
      "cuEventRecord");
}

bool Event::done() const {
  device_->enter();
  const int result = device_->driver().event_query(handle_of(handle_));
  if (result != NOT_READY) device_->driver().check(result, "cuEventQuery");
  return result == 0;
}

void Event::synchronize() const {
  if (waits_ != For::host) throw std::logic_error("the host waits for an event of the device");
  device_->enter();
  device_->driver().check(device_->driver().event_synchronize(handle_of(handle_)),
                          "cuEventSynchronize");
}

void Event::finish() const noexcept {
  try {
    synchronize();
  } catch (const DeviceError&) {
  }
}

}  // namespace ff
